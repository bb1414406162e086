"""Cross entropy against 320 bits and torch in float64, and where these have no digits left."""

import exact
import gmpy2
import numpy as np
import pytest
import torch
from tersor import loss
from torch.nn import functional as F

EXP = np.frompyfunc(gmpy2.exp, 1, 1)
KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def given(rows, classes, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((rows, classes)) * scale)
    return x, torch.from_numpy(rng.integers(0, classes, rows)), torch.from_numpy(rng.uniform(0.1, 2, classes))


def truth(x, t, w, smoothing, gamma):
    """The loss of one row and its gradient, from 320 bits."""
    x, w, e = exact.real(x), exact.real(w), gmpy2.mpfr(smoothing)
    x = x - max(x)  # no exponential is too large for 320 bits
    each = EXP(x)
    log = x - gmpy2.log(each.sum())
    p, own = each / each.sum(), np.arange(len(x)) == t
    q = (1 - e) * w * own + e / len(x) * w
    ce, rest = -(q * log).sum(), p[~own].sum()
    a = rest**gamma if gamma else gmpy2.mpfr(1)
    slope = gamma * ce * p[t] * rest ** (gamma - 1) if gamma and rest else 0
    d = a * (q.sum() * p - q) - slope * (own - p)
    return float(a * ce), d.astype(np.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("classes", "scale"), [(1, 1.0), (2, 30.0), (5, 1.0), (37, 3.0), (20, 1e4), (20, 1e-300)])
def test_digits_of_every_row(classes, scale, smoothing, gamma):
    x, t, w = given(6, classes, classes, scale)
    x[3, t[3]] = x[3].max() + 60  # nearly right: all is in the other classes
    for kind, limit in ((torch.float64, 4e-14), (torch.float32, 4e-7)):
        rows, weight = x.to(kind).requires_grad_(), w.to(kind)
        args = {"weight": weight, "label_smoothing": smoothing, "gamma": gamma, "reduction": "none"}
        got = loss.cross_entropy(rows, t, **args)
        (d,) = torch.autograd.grad(got.sum(), rows)
        for r in range(len(x)):
            want, slopes = truth(rows[r].tolist(), int(t[r]), weight.tolist(), smoothing, gamma)
            tiny = np.finfo(np.float32).tiny if kind is torch.float32 else 1e-90
            assert abs(got[r].item() - want) <= limit * abs(want) + tiny
            assert np.abs(d[r].double().numpy() - slopes).max() <= 5 * limit * np.abs(slopes).max() + tiny
        args["weight"] = weight.numpy()
        np.testing.assert_array_equal(got.detach(), loss.cross_entropy(rows.detach().numpy(), t.numpy(), **args))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_torchs(kind, smoothing, weighted, reduction):
    x, t, w = given(50, 13, 1, 3.0)
    t[::7] = -100
    x, w = x.to(kind).requires_grad_(), w.to(kind)
    wide = x.detach().double().requires_grad_()
    args = {"label_smoothing": smoothing, "reduction": reduction}
    got = loss.cross_entropy(x, t, weight=w if weighted else None, **args)
    want = F.cross_entropy(wide, t, weight=w.double() if weighted else None, **args)
    assert got.dtype == (torch.float64 if kind is torch.float64 else torch.float32) and got.shape == want.shape
    limit = 1e-14 if kind is torch.float64 else 4e-7
    torch.testing.assert_close(got.double(), want, rtol=limit, atol=limit)
    g = torch.from_numpy(np.random.default_rng(2).standard_normal(want.shape))
    (a,), (b,) = torch.autograd.grad(got, x, g.to(got.dtype)), torch.autograd.grad(want, wide, g)
    assert a.dtype == kind
    eps = torch.finfo(kind).eps
    torch.testing.assert_close(a.double(), b, rtol=max(4 * eps, limit), atol=max(eps, limit))
    assert not a[::7].any()


def test_many_classes():
    """Against numbers of 64 bits of mantissa: torch's own sums lose more than what is asked here."""
    x, t, _ = given(5, 50_000, 3, 5.0)
    for kind, limit in ((torch.float64, 1e-14), (torch.float32, 4e-7)):
        rows = x.to(kind).requires_grad_()
        got = loss.cross_entropy(rows, t, label_smoothing=0.1, reduction="none")
        (d,) = torch.autograd.grad(got.sum(), rows)
        v = rows.detach().numpy().astype(np.longdouble)
        v -= v.max(-1, keepdims=True)
        log = v - np.log(np.exp(v).sum(-1, keepdims=True))
        q = np.full(v.shape, np.longdouble(0.1) / 50_000)
        q[np.arange(5), t] += np.longdouble(0.9)
        np.testing.assert_allclose(got.detach().numpy(), -(q * log).sum(-1), rtol=limit)
        np.testing.assert_allclose(d.numpy(), np.exp(log) - q, rtol=limit, atol=limit / 50)


def test_leading_axes_and_labels_of_fewer_bits():
    x, t, w = given(24, 7)
    want = loss.cross_entropy(x, t, weight=w, reduction="none")
    got = loss.cross_entropy(x.reshape(2, 3, 4, 7), t.reshape(2, 3, 4).int(), weight=w, reduction="none")
    assert got.shape == (2, 3, 4) and torch.equal(got.flatten(), want)
    for kind in (torch.int16, torch.int8, torch.uint8):
        assert torch.equal(loss.cross_entropy(x, t.to(kind), weight=w, reduction="none"), want)
    assert torch.equal(loss.cross_entropy(x[0], t[0], weight=w, reduction="none"), want[0])
    turned = loss.cross_entropy(x.T.contiguous().T, t, weight=w, reduction="none")
    assert torch.equal(turned, want)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 2.0, 0.5])
def test_gradients(smoothing, gamma):
    """To logits and weights, together and alone; and the second ones."""
    x, t, w = given(7, 5, 2, 2.0)
    t[2] = -100

    def f(x, w, reduction="mean"):
        return loss.cross_entropy(x, t, weight=w, label_smoothing=smoothing, gamma=gamma, reduction=reduction)

    assert torch.autograd.gradcheck(f, (x.requires_grad_(), w.requires_grad_()))
    assert torch.autograd.gradcheck(lambda x, w: f(x, w, "none"), (x, w))
    assert torch.autograd.gradcheck(lambda w: f(x.detach(), w, "none"), (w,))
    assert torch.autograd.gradcheck(lambda x: f(x, None, "none"), (x,))
    one = {"label_smoothing": smoothing, "gamma": gamma}
    assert torch.autograd.gradcheck(lambda x, w: loss.cross_entropy(x[0], t[0], weight=w, **one), (x, w))
    assert torch.autograd.gradgradcheck(lambda x, w: f(x, w, "none"), (x, w))


def test_small_losses_keep_their_digits():
    """Nearly right by far: the loss is (C − 1) e^-d, below the rounding of the logits."""
    for kind, d in ((torch.float32, 40.0), (torch.float64, 300.0), (torch.float64, 700.0)):
        x = torch.zeros(2, 4, dtype=kind)
        x[0, 1] = x[1, 3] = d
        x = (x + 1).requires_grad_()
        got = loss.cross_entropy(x, torch.tensor([1, 3]), reduction="none")
        limit = 1e-6 if kind is torch.float32 else 1e-13
        assert got.tolist() == pytest.approx([3 * np.exp(-d)] * 2, rel=limit)
        (g,) = torch.autograd.grad(got.sum(), x)
        want = np.exp(-d)
        assert g[0].tolist() == pytest.approx([want, -3 * want, want, want], rel=limit)


@pytest.mark.parametrize("kind", KINDS)
def test_ties_and_one_class(kind):
    x = torch.full((3, 6), 2.5, dtype=kind, requires_grad=True)
    got = loss.cross_entropy(x, torch.tensor([0, 3, 5]), reduction="none")
    assert got.tolist() == pytest.approx([np.log(6)] * 3, rel=1e-7)
    one = torch.full((3, 1), -7.0, dtype=kind, requires_grad=True)
    for gamma in (0.0, 0.5, 2.0):
        got = loss.cross_entropy(one, torch.zeros(3, dtype=torch.int64), gamma=gamma, reduction="none")
        assert got.tolist() == [0, 0, 0] and not torch.autograd.grad(got.sum(), one)[0].any()


def test_what_is_ignored_counts_for_nothing():
    x, t, w = given(6, 4)
    x[1] = torch.tensor([np.nan, np.inf, -np.inf, 0])
    w = w.requires_grad_()
    for ignore in (-100, 2, 7, -(2**62)):
        labels = torch.where(torch.arange(6) % 2 == 1, ignore, t % 2)
        for smoothing in (0.0, 0.3):
            leaf = x.clone().requires_grad_()
            args = {"ignore_index": ignore, "weight": w, "label_smoothing": smoothing}
            rows = loss.cross_entropy(leaf, labels, reduction="none", **args)
            dx, dw = torch.autograd.grad(rows.sum(), (leaf, w), retain_graph=True)
            assert not rows[1::2].any() and not dx[1::2].any() and dx[::2].all() and dw.isfinite().all()
            mean = loss.cross_entropy(leaf, labels, **args)
            kept = loss.cross_entropy(x[::2], labels[::2], **args)
            assert mean.item() == pytest.approx(kept.item(), rel=1e-14)
    none = torch.full((6,), -100)
    for a, b in ((x, none), (x[:0], none[:0]), (x[:, :0], none)):
        leaf = a.clone().requires_grad_()
        got = loss.cross_entropy(leaf, b)
        assert got.item() == 0 and not torch.autograd.grad(got, leaf)[0].any()
        assert loss.cross_entropy(a.numpy(), b.numpy()) == 0
        assert loss.cross_entropy(a.numpy(), b.numpy(), weight=np.ones(a.shape[1])) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite(kind):
    """As torch: NaN for a row with NaN, with +inf, or of -inf alone; a class at -inf has no share."""
    inf = np.inf
    rows = [[0, np.nan, 1], [inf, 0, 1], [0, inf, 1], [-inf, -inf, -inf], [0, 1, -inf], [-inf, 0, 1], [inf, inf, 0]]
    x = torch.tensor(rows, dtype=kind, requires_grad=True)
    t = torch.zeros(len(rows), dtype=torch.int64)
    wide = x.detach().double().requires_grad_()
    got, want = loss.cross_entropy(x, t, reduction="none"), F.cross_entropy(wide, t, reduction="none")
    torch.testing.assert_close(got.double(), want, rtol=1e-7, atol=1e-7, equal_nan=True)
    (a,), (b,) = torch.autograd.grad(got.sum(), x), torch.autograd.grad(want.sum(), wide)
    limit = torch.finfo(kind).eps
    torch.testing.assert_close(a.double(), b, rtol=limit, atol=limit, equal_nan=True)
    focal = loss.cross_entropy(x, t, gamma=0.5, reduction="none")
    assert focal.isnan().tolist() == got.isnan().tolist()
    (a,) = torch.autograd.grad(focal.sum(), x)
    assert a[4:6].isfinite().all() and a[:4].isnan().any(-1).all()


#: logits so far apart that their differences are beyond the type, where shares of these are not
FAR = ([1.7e308, 0, 0, 0], [8e307, -8e307, -8e307], [1.7e308, -1.7e308], [-1.7e308, 1.7e308, 1e300])


@pytest.mark.parametrize("x", FAR)
@pytest.mark.parametrize(
    ("smoothing", "gamma"), [(0.1, 0.0), (0.9, 0.0), (1.0, 0.0), (0.1, 2.0), (0.9, 0.5), (0.0, 0.0)]
)
def test_what_is_within_the_type_comes(x, smoothing, gamma):
    """Beside torch, which says infinity; and the mean of losses whose sum is beyond the type."""
    for at in range(len(x)):
        for weight in (np.ones(len(x)), np.linspace(0.05, 0.2, len(x)), np.linspace(1, 3, len(x))):
            rows = torch.tensor([x, x], dtype=torch.float64, requires_grad=True)
            w = torch.from_numpy(weight).requires_grad_()
            args = {"weight": w, "label_smoothing": smoothing, "gamma": gamma}
            got = loss.cross_entropy(rows, torch.tensor([at, at]), reduction="none", **args)
            want, slopes = truth(x, at, weight.tolist(), smoothing, gamma)
            assert got.tolist() == pytest.approx([want] * 2, rel=4e-14)
            if not np.isfinite(want):
                continue
            dx, dw = torch.autograd.grad(got[0], (rows, w))
            assert dx[0].tolist() == pytest.approx(slopes.tolist(), rel=1e-13, abs=1e-300) and not dx[1].any()
            if weight[0] >= 1:  # else slopes may be beyond the type where losses are not; these are linear in weights
                assert torch.dot(dw / 4, w.detach()).item() == pytest.approx(want / 4, rel=1e-13)
            mean = loss.cross_entropy(rows, torch.tensor([at, at]), **args)
            assert mean.item() == pytest.approx(float(exact.real([want])[0] / weight[at]), rel=1e-13)
            if mean.isfinite() and weight[0] >= 1:
                dx, dw = torch.autograd.grad(mean, (rows, w))
                assert dx.isfinite().all() and not dw.isnan().any()
            args["weight"] = weight
            assert loss.cross_entropy(rows.detach().numpy(), np.array([at, at]), **args) == pytest.approx(mean.item())


def test_a_mean_of_many_is_within_the_type():
    x = torch.tensor([[3e38, 0.0], [3e38, 0.0]], requires_grad=True)
    mean = loss.cross_entropy(x, torch.tensor([1, 1]))
    assert mean.item() == pytest.approx(3e38, rel=1e-6) and mean.dtype == torch.float32
    assert torch.autograd.grad(mean, x)[0].tolist() == [[0.5, -0.5]] * 2
    pairs = torch.tensor([[1e19, 0.0], [0.0, 1e19]])
    rows = loss.info_nce(pairs, pairs.flip(0), temperature=1.0, metric="dot", reduction="none")
    assert loss.info_nce(pairs, pairs.flip(0), temperature=1.0, metric="dot") == rows[0] > 9e37


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_classes_that_are_impossible(kind, gamma):
    """Smoothed, each is an infinite loss; a row that is right for sure counts for nothing all the same."""
    inf = float("inf")
    x = torch.tensor([[1, -inf, -inf], [1, 2, -inf], [1, -inf, 0], [1, 2, -inf]], dtype=kind, requires_grad=True)
    t, none = torch.tensor([0, 0, 0, 2]), {"label_smoothing": 0.1, "gamma": gamma, "reduction": "none"}
    got = loss.cross_entropy(x, t, **none)
    assert got.tolist() == [0, inf, inf, inf]
    (d,) = torch.autograd.grad(got, x, torch.ones_like(got), retain_graph=True)
    assert not d.isnan().any() and not d[0].any()
    # who pulls the label up goes there without end, away from what is there; the impossible pull with their share alone
    assert d[1, 0] == -inf and d[1, 1] == inf and -0.1 < d[1, 2] < 0 and d[2, 2] == inf and d[3].isfinite().all()
    (d,) = torch.autograd.grad(got, x, torch.tensor([1.0, 0, 0, 0], dtype=got.dtype))
    assert not d.any()
    np.testing.assert_array_equal(got.detach(), loss.cross_entropy(x.detach().float().numpy(), t.numpy(), **none))


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 0.0), (0.1, 0.0), (0.0, 2.0)])
def test_an_impossible_label_that_weighs_nothing(kind, smoothing, gamma):
    x, w = torch.tensor([[-torch.inf, 0, 1]], dtype=kind), torch.tensor([0, 1, 1], dtype=kind)
    y = loss.cross_entropy(
        x, torch.tensor([0]), weight=w, reduction="none", label_smoothing=smoothing, gamma=gamma
    ).item()
    p = np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum()
    assert y == pytest.approx(-smoothing / 3 * np.log(p).sum(), rel=1e-6)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_labels_outside_are_refused(kind):
    x = torch.zeros(4, 3, requires_grad=True)
    for label in (3, -1, -101, 2**31 - 1, -(2**31)) + ((2**62, -(2**62)) if kind is torch.int64 else ()):
        t = torch.tensor([0, -100, label, 1], dtype=kind)
        text = rf"cross_entropy: target\[2\] = {label} is outside 0..3 and not ignore_index = -100"
        traced = torch.compile(loss.cross_entropy, fullgraph=True, backend="aot_eager")
        for call, args in (
            (loss.cross_entropy, (x, t)),
            (loss.cross_entropy, (x.detach().numpy(), t.numpy())),
            (traced, (x, t)),
        ):
            with pytest.raises(ValueError, match=text):
                call(*args)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"logits": np.ones((5, 4), int)}, TypeError, "logits must be float64"),
        ({"logits": 1.0}, TypeError, "logits must be a NumPy array"),
        ({"logits": np.array(1.0), "target": np.array(0)}, ValueError, "cross_entropy: logits"),
        ({"target": np.zeros(5)}, TypeError, "target must be .* int32 or int64, got float64"),
        ({"target": np.zeros(5, bool)}, TypeError, "target must be .* got bool"),
        ({"target": 1}, TypeError, "target"),
        ({"target": np.zeros((5, 4))}, TypeError, "target"),
        ({"target": np.zeros(4, int)}, ValueError, "cross_entropy: .*target"),
        ({"target": np.zeros((5, 1), int)}, ValueError, "cross_entropy: .*target"),
        ({"weight": np.ones(3)}, ValueError, "cross_entropy: .*weight"),
        ({"weight": np.ones(4, np.float32)}, TypeError, "cross_entropy: weight is float32, logits are float64"),
        ({"weight": np.ones((5, 4))}, ValueError, "cross_entropy: .*weight"),
        ({"label_smoothing": 1.1}, ValueError, "label_smoothing must be .* got 1.1"),
        ({"label_smoothing": float("nan")}, ValueError, "label_smoothing"),
        ({"label_smoothing": "a"}, TypeError, "label_smoothing must be a number"),
        ({"gamma": -0.1}, ValueError, "gamma must be finite and not negative, got -0.1"),
        ({"gamma": float("inf")}, ValueError, "gamma"),
        ({"ignore_index": 0.5}, TypeError, "ignore_index"),
        ({"reduction": "max"}, ValueError, "reduction must be one of .*, got 'max'"),
    ],
)
def test_what_is_refused(change, error, text):
    args = {"logits": np.ones((5, 4)), "target": np.zeros(5, int)} | change
    with pytest.raises(error, match=text):
        loss.cross_entropy(args.pop("logits"), args.pop("target"), **args)


def test_large_gradients_go_past_the_caches():
    """Beyond what the caches hold gradients go another way to memory; labels are at every place of their lines."""
    for classes in (10, 64, 1000, 1027):
        x, t, _ = given((8 << 20) // classes, classes)
        x = x.float().requires_grad_()
        (a,) = torch.autograd.grad(loss.cross_entropy(x, t, reduction="sum"), x)
        (b,) = torch.autograd.grad(F.cross_entropy(x, t, reduction="sum"), x)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
