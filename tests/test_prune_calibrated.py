"""Wanda and SparseGPT. The one rule: they are compared with the published loops, and counts are exact."""

import numpy as np
import pytest
import torch
from tersor import prune

rng = np.random.default_rng(0)


def problem(rows, cols):
    """A weight, inputs that go together (a few causes and some noise), and their Gram matrix."""
    rng = np.random.default_rng(rows + cols)
    x = rng.standard_normal((4 * cols, 8)) @ rng.standard_normal((8, cols)) + 0.5 * rng.standard_normal(
        (4 * cols, cols)
    )
    return rng.standard_normal((rows, cols)), x, x.T @ x


def published(w, h, sparsity, nm, blocksize, damp):
    """SparseGPT by the inverse, as in the paper's algorithm 1; counts as ours."""
    w, cols = w.copy(), w.shape[1]
    h = h + damp * np.mean(np.diag(h)) * np.eye(cols)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    mask, done, gone = np.ones(w.shape, bool), 0, 0
    for start in range(0, cols, blocksize):
        end = min(start + blocksize, cols)
        block, errors = w[:, start:end].copy(), np.zeros((len(w), end - start))
        own = upper[start:end, start:end]
        if nm is None:
            score = block**2 / np.diag(own) ** 2
            done += score.size
            k = round(sparsity * done) - gone
            gone += k
            order = np.lexsort((-np.arange(score.size), score.reshape(-1)))
            flat = np.ones(score.size, bool)
            flat[order[:k]] = False
            mask[:, start:end] = flat.reshape(score.shape)
        for i in range(end - start):
            if nm is not None and i % nm[1] == 0:
                score = block[:, i : i + nm[1]] ** 2 / np.diag(own)[i : i + nm[1]] ** 2
                mask[:, start + i : start + i + nm[1]] = np.argsort(np.argsort(-score, 1), 1) < nm[0]
            q = np.where(mask[:, start + i], block[:, i], 0)
            errors[:, i] = (block[:, i] - q) / own[i, i]
            block[:, i:] -= errors[:, i : i + 1] * own[i, i:]
            w[:, start + i] = q
        w[:, end:] -= errors @ upper[start:end, end:]
    return w, mask


@pytest.mark.parametrize(
    "asked", [{"sparsity": 0.5}, {"sparsity": 0.83}, {"nm": (2, 4)}, {"nm": "1:3"}, {"sparsity": 0}, {"sparsity": 1}]
)
@pytest.mark.parametrize("blocksize", [12, 60, 128])
def test_one_factorisation_gives_the_published_weights(asked, blocksize):
    w, _, h = problem(40, 120)
    y, mask = prune.sparsegpt(w, h, blocksize=blocksize, **asked)
    nm = asked.get("nm")
    nm = tuple(map(int, nm.split(":"))) if isinstance(nm, str) else nm
    want, want_mask = published(w, h, asked.get("sparsity"), nm, blocksize, 0.01)
    np.testing.assert_array_equal(mask, want_mask)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-10)
    assert (y[~mask] == 0).all() and not np.signbit(y[~mask]).any()
    if nm:
        assert (mask.reshape(-1, nm[1]).sum(1) == nm[0]).all()
    else:
        assert (~mask).sum() == round(asked["sparsity"] * w.size)
    t, t_mask = prune.sparsegpt(torch.from_numpy(w), torch.from_numpy(h), blocksize=blocksize, **asked)
    np.testing.assert_array_equal(t_mask.numpy(), mask)
    np.testing.assert_allclose(t.numpy(), y, rtol=1e-9, atol=1e-10)


def test_what_is_made_up_for_is_less_than_what_was_lost():
    w, x, h = problem(64, 96)

    def error(v):
        return np.linalg.norm(x @ (w - v).T)

    y, mask = prune.sparsegpt(w, h, 0.6)
    wanda = prune.wanda_mask(w, np.sqrt(np.diag(h)), 0.6)
    assert error(y) < 0.5 * error(w * wanda)
    assert error(y) < 0.5 * error(w * mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_smaller_types(dtype):
    w, _, h = problem(24, 64)
    w = torch.from_numpy(w).to(dtype)
    y, mask = prune.sparsegpt(w, torch.from_numpy(h), 0.5)
    assert y.dtype == dtype and (~mask).sum() == 12 * 64 and (y[~mask] == 0).all()
    want, _ = published(w.double().numpy(), h, 0.5, None, 128, 0.01)
    same = np.isclose(y.double().numpy(), want, rtol=2e-2, atol=2e-2).mean()
    assert same > 0.98  # a weight on the edge may be decided the other way


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("asked", [{"sparsity": 0.5}, {"nm": (2, 4)}])
def test_the_scale_of_a_hessian_has_no_say(dtype, asked):
    w, _, h = problem(6, 12)
    w, h[3], h[:, 3] = w.astype(dtype), 0, 0
    want, want_mask = prune.sparsegpt(w, h, **asked)
    for power in (-200, -150, -60, 60, 150, 500):
        y, mask = prune.sparsegpt(w, h * 4.0**power, **asked)
        np.testing.assert_array_equal(mask, want_mask)
        np.testing.assert_array_equal(y, want)
        _, mask = prune.sparsegpt(torch.from_numpy(w), torch.from_numpy(h * 4.0**power), **asked)
        np.testing.assert_array_equal(mask.numpy(), want_mask)


def test_columns_that_were_never_read_go_first():
    w, _, h = problem(6, 10)
    h[3], h[:, 3] = 0, 0
    y, mask = prune.sparsegpt(w, h, 0.1)
    assert not mask[:, 3].any() and mask[:, [c for c in range(10) if c != 3]].all() and (y[:, 3] == 0).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_wanda_is_a_stable_sort_of_each_row(dtype):
    w, norm = rng.standard_normal((30, 50)).astype(dtype), rng.random(50).astype(dtype)
    w[:, 10:20] = 1  # ties where the norms are equal
    norm[10:20] = 0.5
    for sparsity in (0, 0.25, 0.5, 0.99, 1):
        mask = prune.wanda_mask(w, norm, sparsity)
        score = abs(w) * norm
        kept = np.argsort(-score, axis=1, kind="stable")[:, : 50 - round(sparsity * 50)]
        want = np.zeros(w.shape, bool)
        np.put_along_axis(want, kept, True, 1)
        np.testing.assert_array_equal(mask, want)
        np.testing.assert_array_equal(
            prune.wanda_mask(torch.from_numpy(w), torch.from_numpy(norm), sparsity).numpy(), want
        )
    np.testing.assert_array_equal(prune.wanda_mask(w, norm, nm="2:5"), prune.nm_mask(w, 2, 5, score=abs(w) * norm))


@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("asked", [{"sparsity": 0.5}, {"nm": (2, 4)}])
def test_the_scale_of_norms_has_no_say(kind, asked):
    tiny, huge = (-900, 900) if kind == "float64" else (-120, 120)
    for small in (tiny // 2, 0, huge // 2 + 10):
        w = (rng.standard_normal((6, 12)) * 2.0**small).astype(kind)
        norm = rng.random(12).astype(kind)
        want = prune.wanda_mask(w.astype(np.float64) * 2.0**-small, norm.astype(np.float64), **asked)
        for power in (tiny, tiny // 2, huge // 2, huge):
            x = norm * np.asarray(2.0**power, kind)
            np.testing.assert_array_equal(prune.wanda_mask(w, x, **asked), want)
            mask = prune.wanda_mask(torch.from_numpy(w), torch.from_numpy(x), **asked)
            np.testing.assert_array_equal(mask.numpy(), want)


def test_who_is_refused():
    w, _, h = problem(4, 6)
    for error, said, call in [
        (ValueError, "wanda_mask: exactly one of sparsity and nm", lambda: prune.wanda_mask(w, h[0])),
        (ValueError, "wanda_mask: exactly one of sparsity and nm", lambda: prune.wanda_mask(w, h[0], 0.5, nm=(2, 4))),
        (ValueError, r"wanda_mask: x_norm has shape \(5,\), w 6 columns", lambda: prune.wanda_mask(w, h[0, :5], 0.5)),
        (
            ValueError,
            "wanda_mask: w has 6 columns, no whole groups of m = 4",
            lambda: prune.wanda_mask(w, h[0], nm=(2, 4)),
        ),
        (TypeError, "wanda_mask: nm must be two numbers", lambda: prune.wanda_mask(w, h[0], nm=4)),
        (TypeError, "wanda_mask: w must be", lambda: prune.wanda_mask(w.astype(int), h[0], 0.5)),
        (ValueError, "sparsegpt: exactly one of sparsity and nm", lambda: prune.sparsegpt(w, h)),
        (ValueError, r"sparsegpt: hessian has shape \(5, 5\), w 6 columns", lambda: prune.sparsegpt(w, h[:5, :5], 0.5)),
        (ValueError, "sparsegpt: sparsity must be between 0 and 1, got 2", lambda: prune.sparsegpt(w, h, 2)),
        (ValueError, "sparsegpt: blocksize must be 1 or more, got 0", lambda: prune.sparsegpt(w, h, 0.5, blocksize=0)),
        (ValueError, "sparsegpt: damp must not be negative, got -1", lambda: prune.sparsegpt(w, h, 0.5, damp=-1)),
        (ValueError, "sparsegpt: w holds non-finite", lambda: prune.sparsegpt(w * np.nan, h, 0.5)),
        (ValueError, "sparsegpt: hessian holds non-finite", lambda: prune.sparsegpt(w, h * np.inf, 0.5)),
        (ValueError, "sparsegpt: hessian is no Gram matrix", lambda: prune.sparsegpt(w, -h, 0.5)),
        (
            ValueError,
            "sparsegpt: hessian is not positive definite",
            lambda: prune.sparsegpt(w, np.ones((6, 6)), 0.5, damp=0),
        ),
    ]:
        with pytest.raises(error, match=said):
            call()
    empty, mask = prune.sparsegpt(np.zeros((0, 6)), h, 0.5)
    assert empty.shape == mask.shape == (0, 6)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_scales_have_no_say(kind):
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(12, 24)).astype(kind), rng.normal(size=(60, 24))
    h = x.T @ x
    for options in ({"sparsity": 0.5}, {"nm": (2, 4)}):
        y, mask = prune.sparsegpt(w, h, blocksize=8, **options)
        for of_h in (2.0**400, 2.0**-400, 2.0**-33):
            for of_w in (2.0**100, 2.0**-90):
                got, same = prune.sparsegpt(w * w.dtype.type(of_w), h * of_h, blocksize=8, **options)
                np.testing.assert_array_equal(same, mask)
                np.testing.assert_array_equal(got, y * w.dtype.type(of_w))


def test_what_makes_up_stays_in_its_type_or_is_refused():
    """Two inputs that are all but one: the weight that is left bears both, which float16 may not hold."""
    h = np.array([[1.0, 1.0], [1.0, 1.0]])
    w = np.array([[40000.0, 50000.0]], np.float16)
    for kind in (lambda v: v, torch.from_numpy):
        with pytest.raises(
            ValueError, match=r"sparsegpt: a weight that makes up for others is 89\d\d\d.*beyond float16"
        ):
            prune.sparsegpt(kind(w), kind(h), 0.5, damp=0.001)
        got, _ = prune.sparsegpt(kind(w.astype(np.float32)), kind(h), 0.5, damp=0.001)
        assert 89000 < float(abs(got).max()) < 90000


@pytest.mark.parametrize("call", [prune.sparsegpt, prune.wanda_mask])
def test_tensors_without_memory_are_named(call):
    other = torch.ones((4, 4) if call is prune.sparsegpt else 4)
    for w, x, name in ((torch.ones(4, 4, device="meta"), other, "w"), (torch.ones(4, 4), other.to("meta"), r"\w+")):
        with pytest.raises(TypeError, match=f"^{call.__name__}: {name} is on meta, where there is no memory"):
            call(w, x, 0.5)
    with pytest.raises(TypeError, match=r"^calibrate: .*weight is on meta, where there is no memory"):
        prune.calibrate(torch.nn.Linear(4, 4, device="meta"), [torch.ones(2, 4)], 0.5)
