"""What quantization does to a model, and layers changed before it. The one rule: each is compared with its definition, from
NumPy and from torch.
"""

import math

import numpy as np
import pytest
from tersor import quant

torch = pytest.importorskip("torch")

KINDS = [("numpy", "float64"), ("numpy", "float32"), ("torch", "float64"), ("torch", "float32"), ("torch", "bfloat16")]
#: relative to one
CLOSE = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 1e-2}


def given(library, kind, *arrays):
    if library == "numpy":
        return [a if a is None else a.astype(kind) for a in arrays]
    return [a if a is None else torch.from_numpy(np.asarray(a)).to(getattr(torch, kind)) for a in arrays]


def plain(x):
    return np.asarray(x.double() if isinstance(x, torch.Tensor) else x, float)


@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_divergences_of_rows(library, kind):
    rng = np.random.default_rng(0)
    p, q = rng.standard_normal((2, 4, 5, 7)) * 3
    p, q = given(library, kind, p, q)
    got = quant.kl_rows(p, q)
    a, b = plain(p), plain(q)
    pi, rho = (np.exp(v) / np.exp(v).sum(-1, keepdims=True) for v in (a, b))
    assert tuple(got.shape) == (4, 5) and got.dtype == p.dtype
    np.testing.assert_allclose(plain(got), (pi * np.log(pi / rho)).sum(-1), rtol=CLOSE[kind], atol=CLOSE[kind])
    assert (plain(quant.kl_rows(p, p)) == 0).all()
    far = given(library, kind, np.array([[1e4, 0.0], [3e4, 3e4]]), np.array([[0.0, 1e4], [1e4, 1e4]]))
    np.testing.assert_allclose(plain(quant.kl_rows(*far)), [1e4, 0], rtol=1e-2)
    masked = given(library, kind, np.array([[0.0, -np.inf, 1.0]]), np.array([[0.0, 5.0, 1.0]]))
    want = np.log((1 + math.e + math.e**5) / (1 + math.e))
    np.testing.assert_allclose(plain(quant.kl_rows(*masked)), [want], rtol=1e-2)
    np.testing.assert_allclose(plain(quant.kl_rows(masked[0], masked[0])), [0], atol=1e-7)
    assert np.isinf(plain(quant.kl_rows(masked[1], masked[0]))).all()


@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_cosines_of_rows(library, kind):
    rng = np.random.default_rng(0)
    x, y = given(library, kind, *rng.standard_normal((2, 3, 4, 9)))
    x[0, 0] = 0
    got = plain(quant.layer_cosine(x, y))
    a, b = plain(x), plain(y)
    with np.errstate(invalid="ignore"):
        want = (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    np.testing.assert_allclose(got, np.nan_to_num(want), rtol=CLOSE[kind], atol=CLOSE[kind])
    assert got[0, 0] == 0
    np.testing.assert_allclose(plain(quant.layer_cosine(y, y)), 1)
    np.testing.assert_allclose(plain(quant.layer_cosine(-2 * y, y)), -1)
    large = given(library, kind, np.array([[3e37, -4e37]]))[0]
    np.testing.assert_allclose(plain(quant.layer_cosine(large, large * 0.25)), 1)
    empty = given(library, kind, np.zeros((2, 0)))[0]
    assert (plain(quant.layer_cosine(empty, empty)) == 0).all()


@pytest.mark.parametrize("f", [quant.kl_rows, quant.layer_cosine])
def test_gradients_go_through(f):
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(v).requires_grad_() for v in rng.standard_normal((2, 3, 5)))
    assert torch.autograd.gradcheck(f, (x, y)) and torch.autograd.gradgradcheck(f, (x, y))
    masked = torch.tensor([[0.0, -math.inf, 1.0]], dtype=torch.float64, requires_grad=True)
    if f is quant.kl_rows:
        (slope,) = torch.autograd.grad(f(masked, torch.zeros(1, 3, dtype=torch.float64)).sum(), masked)
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("seed", range(8))
def test_second_derivatives_where_both_are_one(seed):
    """There the sum may be rounded out of its bounds: a clamp would take its derivatives with it."""
    v = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, 1, 5)))
    q = v[0].clone().requires_grad_()
    share, d = v[0].softmax(-1)[0], v[1]

    def along(f):
        (slope,) = torch.autograd.grad(f(v[0], q).sum(), q, create_graph=True)
        return torch.autograd.grad((slope * d).sum(), q)[0]

    want = share * d - share * (share * d).sum()  # (diag π - π πᵀ) d
    torch.testing.assert_close(along(quant.kl_rows), want)
    u = v[0] / v[0].norm()
    want = -(d - u * (u * d).sum()) / v[0].square().sum()  # the cosine falls with the square of the angle
    torch.testing.assert_close(along(quant.layer_cosine), want)


@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_shares_above_a_deviation(library, kind):
    w = np.random.default_rng(0).standard_normal((40, 50)) ** 3
    (v,) = given(library, kind, w)
    a = plain(v)
    assert quant.zd_score(v) == np.mean((a - a.mean()) / a.std() > 1)
    assert quant.zd_score(given(library, kind, np.full((3, 3), 0.1))[0]) == 0


def test_the_share_of_training():
    assert quant.qat_fraction(1e9, 1e12, 4) == pytest.approx(math.exp(-6.7297 / math.log(2000)))
    s = math.log(1e12 / (1e9 * 8 / 8))
    assert quant.qat_fraction(1e9, 1e12, 8) == pytest.approx(math.exp(s - 6.7297 / s) / math.exp(s))
    shares = [quant.qat_fraction(1e9, d, 4) for d in (1e9, 1e10, 1e12, 1e15)]
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] < 1


def test_the_loss_of_training():
    one = dict.fromkeys(quant.QATLaw._fields, 0.0)
    law = quant.QATLaw(*np.random.default_rng(0).uniform(0.1, 0.9, 16))
    n, d, q, b = 3e6, 4e8, 1e8, 3
    s, f = (x / (n * b / 8) for x in (q, d - q))
    c = law._asdict()
    parts = {
        "floor": c["floor"],
        "a": c["a"] / n ** c["alpha"],
        "b": c["b"] / d ** c["beta"],
        "theta": c["theta"] * 2 ** (-c["kappa"] * b),
        "phi": c["phi"] * 2 ** (-c["chi"] * b) / (n ** c["psi"] * s ** c["omega"]),
        "lam": c["lam"] * 2 ** (-c["mu"] * b) / (n ** c["nu"] * f ** c["xi"] * s ** c["rho"]),
    }
    assert quant.qat_loss(n, d, q, b, law) == pytest.approx(sum(parts.values()), rel=1e-14)
    for name, value in parts.items():  # each by itself
        alone = quant.QATLaw(**c | {k: 0.0 for k in parts if k != name})
        assert quant.qat_loss(n, d, q, b, alone) == pytest.approx(value, rel=1e-13)
    # where a longer quantized part pays against what it takes from the other, some share in between is best
    law = quant.QATLaw(**one | {"phi": 1.0, "omega": 1.0, "lam": 1.0, "xi": 1.0})
    shares = np.linspace(0.01, 0.99, 99)
    losses = [quant.qat_loss(n, d, d * share, b, law) for share in shares]
    assert shares[np.argmin(losses)] == pytest.approx(0.5)
    huge = quant.QATLaw(**one | {"a": 1.0, "alpha": -60.0})
    for error, said, call in [
        (ValueError, "d_qat must be below d", lambda: quant.qat_loss(n, d, d, b, law)),
        (ValueError, "bits must be positive", lambda: quant.qat_loss(n, d, q, 0, law)),
        (TypeError, "n must be a number", lambda: quant.qat_loss(True, d, q, b, law)),
        (TypeError, "law must be a QATLaw, got dict", lambda: quant.qat_loss(n, d, q, b, one)),
        (ValueError, "law.xi must be finite", lambda: quant.qat_loss(n, d, q, b, law._replace(xi=math.nan))),
        (TypeError, "law.mu must be a number", lambda: quant.qat_loss(n, d, q, b, law._replace(mu="1"))),
        (ValueError, "beyond float64", lambda: quant.qat_loss(n, d, q, b, huge)),
    ]:
        with pytest.raises(error, match=f"qat_loss: .*{said}"):
            call()


def test_the_laws_of_training_at_the_ends_of_float64():
    law = quant.QATLaw(*np.random.default_rng(0).uniform(0.1, 0.9, 16))
    # sizes of a byte that leave float64, whose logarithms do not
    for n, d, q, b in [(1e-300, 1e300, 1e299, 4), (1e-300, 1e-300, 1e-301, 1e-300), (1e300, 1.0, 0.5, 1e300)]:
        ln = math.log(n)
        fp, qat = (math.log(x) - ln - math.log(b / 8) for x in (d - q, q))
        terms = [
            law.floor,
            law.a * math.exp(-law.alpha * ln),
            law.b * d**-law.beta,
            law.theta * 2 ** (-law.kappa * b),
            law.phi * math.exp(-law.chi * b * math.log(2) - law.psi * ln - law.omega * qat),
            law.lam * math.exp(-law.mu * b * math.log(2) - law.nu * ln - law.xi * fp - law.rho * qat),
        ]
        assert quant.qat_loss(n, d, q, b, law) == pytest.approx(sum(terms), rel=1e-12)
    assert quant.qat_fraction(1e-300, 1e300, 1e-300) == pytest.approx(
        math.exp(-6.7297 / (900 * math.log(10) + math.log(8)))
    )
    # integers of few bits, whose product would leave these
    few = quant.qat_loss(np.int8(100), np.int8(100), np.int8(99), np.int8(100), law)
    assert few == quant.qat_loss(100, 100, 99, 100, law)
    assert quant.qat_fraction(np.int8(100), 1e9, np.int8(4)) == quant.qat_fraction(100, 1e9, 4)
    for call in (
        lambda: quant.qat_loss(10**400, 1e11, 1e10, 4, law),
        lambda: quant.qat_loss(3, 2, 1, 4, law._replace(floor=10**400)),
    ):
        with pytest.raises(ValueError, match=r"^qat_loss: (n|law.floor) is beyond float64"):
            call()
    with pytest.raises(ValueError, match=r"^qat_fraction: d is beyond float64"):
        quant.qat_fraction(3, 10**400, 4)
    with pytest.raises(TypeError, match=r"^qat_loss: n must be a number, got complex128"):
        quant.qat_loss(np.complex128(3), 2, 1, 4, law)


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize(("library", "kind"), KINDS[:4])
def test_what_a_layer_gives_and_its_codes_do_not_change(library, kind, biases):
    rng = np.random.default_rng(0)
    c, n = 24, 10
    x = rng.standard_normal((50, c))
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    gamma, beta = rng.uniform(0.5, 8, c), 3 * rng.standard_normal(c) if biases else None
    weight, bias = rng.standard_normal((n, c)), rng.standard_normal(n) if biases else None
    s, z = rng.uniform(0.05, 0.8, c), rng.integers(0, 16, c).astype(float)
    gamma, beta, weight, bias, s, z = given(library, kind, gamma, beta, weight, bias, s, z)
    made = quant.repq_reparam(gamma, beta, weight, bias, s, z)
    assert made.weight.dtype == weight.dtype and made.gamma.dtype == made.beta.dtype == gamma.dtype
    given_to = x * plain(gamma) + (plain(beta) if biases else 0)
    now = x * plain(made.gamma) + plain(made.beta)
    before = given_to @ plain(weight).T + (plain(bias) if biases else 0)
    after = now @ plain(made.weight).T + plain(made.bias)
    close = 1e-13 if kind == "float64" else 1e-6
    np.testing.assert_allclose(after, before, atol=close * np.abs(before).max())
    of_channel = np.rint(given_to / plain(s)) + plain(z)
    of_all = np.rint(now / float(made.scale)) + float(made.zero_point)
    assert (of_all != of_channel).mean() <= (0 if kind == "float64" else 1e-3)
    assert float(made.scale) == pytest.approx(plain(s).mean()) and float(made.zero_point) == np.rint(plain(z).mean())
    other = quant.repq_reparam(gamma, beta, weight, bias, s, z, rule="repq_mean")
    assert float(other.zero_point) == pytest.approx(plain(z).mean())
    now = x * plain(other.gamma) + plain(other.beta)
    after = now @ plain(other.weight).T + plain(other.bias)
    np.testing.assert_allclose(after, before, atol=close * np.abs(before).max())
    whole = given(library, "int32", plain(z))[0]  # zero points as `choose_qparams` gives them
    assert np.array_equal(plain(quant.repq_reparam(gamma, beta, weight, bias, s, whole).beta), plain(made.beta))


@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_distance_to_what_a_norm_has_seen(library, kind):
    rng = np.random.default_rng(0)
    x, mean, var = given(library, kind, rng.standard_normal((3, 5, 4, 6)), rng.standard_normal(5), rng.uniform(0, 2, 5))
    got = quant.bn_distill_loss(x, mean, var)
    a = plain(x).reshape(3, 5, -1)
    means = ((a.mean(-1) - plain(mean)) ** 2).sum()
    sigma = np.sqrt(a.var(-1, ddof=1) + 1e-6) - np.sqrt(plain(var) + 1e-6)
    assert float(got) == pytest.approx((means + (sigma**2).sum()) / 3, rel=CLOSE[kind]) and got.dtype == x.dtype
    if kind == "float64":
        seen = a.transpose(1, 0, 2)[:, :1]
        one = given(library, kind, seen.mean((1, 2)), seen.reshape(5, -1).var(1, ddof=1))
        assert float(quant.bn_distill_loss(x[:1], *one)) == pytest.approx(0, abs=1e-28)
    if (library, kind) == ("torch", "float64"):
        x = x.requires_grad_()
        assert torch.autograd.gradcheck(lambda v: quant.bn_distill_loss(v, mean, var), (x,))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_a_layer_gives_on_average_what_it_gave(library, kind, bias):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 30)) + 2
    weight = rng.standard_normal((8, 30))
    w, b, mean = given(library, kind, weight, rng.standard_normal(8) if bias else None, x.mean(0))
    codes = quant.decode(quant.encode(w, "int4-row"))
    made = quant.bias_correction(w, codes, mean, b)
    assert made.dtype == w.dtype
    before = plain(mean) @ plain(w).T + (plain(b) if bias else 0)
    np.testing.assert_allclose(plain(mean) @ plain(codes).T + plain(made), before, atol=50 * CLOSE[kind])


def test_who_is_refused():
    x, c = np.ones((2, 3)), np.ones(3)
    image = np.ones((2, 3, 4))
    for error, said, call in [
        (TypeError, "kl_rows: q is float32, p is float64", lambda: quant.kl_rows(x, x.astype(np.float32))),
        (TypeError, "kl_rows: p must be float64", lambda: quant.kl_rows(x.astype(int), x)),
        (ValueError, r"kl_rows: q has shape \(3,\), p \(2, 3\)", lambda: quant.kl_rows(x, c)),
        (ValueError, "kl_rows: rows have no logits", lambda: quant.kl_rows(x[:, :0], x[:, :0])),
        (
            ValueError,
            "layer_cosine: x needs a last axis",
            lambda: quant.layer_cosine(np.ones(()), np.ones(())),
        ),
        (TypeError, "layer_cosine: y must be a", lambda: quant.layer_cosine(x, torch.from_numpy(x))),
        (ValueError, "zd_score: w is empty", lambda: quant.zd_score(x[:0])),
        (ValueError, "zd_score: w holds non-finite", lambda: quant.zd_score(x * np.nan)),
        (TypeError, "zd_score: w must be", lambda: quant.zd_score([1.0])),
        (TypeError, "qat_fraction: n must be a number, got str", lambda: quant.qat_fraction("1e9", 1e12, 4)),
        (ValueError, "qat_fraction: d must be positive", lambda: quant.qat_fraction(1e9, 0, 4)),
        (ValueError, "qat_fraction: 1e.08 tokens are 0.2 a byte", lambda: quant.qat_fraction(1e9, 1e8, 4)),
        (ValueError, "repq_reparam: scales are positive", lambda: quant.repq_reparam(c, c, x, None, 0 * c, c)),
        (ValueError, "repq_reparam: rule must be", lambda: quant.repq_reparam(c, c, x, None, c, c, rule="mean")),
        (ValueError, r"repq_reparam: s must have shape \(3,\)", lambda: quant.repq_reparam(c, c, x, None, c[:2], c)),
        (ValueError, r"repq_reparam: bias must have shape \(2,\)", lambda: quant.repq_reparam(c, c, x, c, c, c)),
        (TypeError, "repq_reparam: W must be", lambda: quant.repq_reparam(c, c, x.astype(int), None, c, c)),
        (ValueError, r"bn_distill_loss: x must be \[B, C, ...\]", lambda: quant.bn_distill_loss(x, c, c)),
        (ValueError, "bn_distill_loss: a variance wants", lambda: quant.bn_distill_loss(image[..., :1], c, c)),
        (ValueError, "bn_distill_loss: a variance is not", lambda: quant.bn_distill_loss(image, c, -c)),
        (ValueError, "bn_distill_loss: mean must have shape", lambda: quant.bn_distill_loss(image, c[:2], c)),
        (ValueError, "bias_correction: W_hat must have shape", lambda: quant.bias_correction(x, x.T, c)),
        (ValueError, "bias_correction: act_mean must have shape", lambda: quant.bias_correction(x, x, c[:2])),
    ]:
        with pytest.raises(error, match=said):
            call()
