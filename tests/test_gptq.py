"""Codes that answer for each other's errors: equality with the textbook, what is left to round alone, who is refused."""

import numpy as np
import pytest
import tersor
from tersor import quant

torch = pytest.importorskip("torch")


def layer(n=96, k=128, tokens=400, seed=0, dtype=np.float64):
    """A weight and inputs whose columns go together."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, k)) @ (np.eye(k) + rng.standard_normal((k, k)) / np.sqrt(k))
    return rng.standard_normal((n, k)).astype(dtype), (x * rng.uniform(0.2, 3, k)).astype(dtype)


def textbook(w, h, scale, zero, lo, hi, order, damp=0.01):
    """GPTQ as it was published: the inverse of H factored, every error sent to the columns that follow."""
    w, h = w[:, order].copy(), h[np.ix_(order, order)].copy()
    dead = np.diag(h) == 0
    h[dead, dead], w[:, dead] = 1, 0
    h += damp * np.mean(np.diag(h)) * np.eye(len(h))
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    q = np.zeros(w.shape, int)
    for i, column in enumerate(order):
        s, z = scale[:, column], zero[:, column]
        q[:, column] = np.clip(np.rint(w[:, i] / s) + z, lo, hi)
        e = (w[:, i] - (q[:, column] - z) * s) / upper[i, i]
        w[:, i:] -= e[:, None] * upper[i, i:]
    return q


def spread(a, k):
    return np.repeat(np.zeros(()) if a is None else a, k if a is None else k // a.shape[-1], -1)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("group", [None, 32])
@pytest.mark.parametrize("name", ["int4", "int8", "int3", "uint4"])
def test_the_codes_are_the_textbooks(name, group, act_order):
    w, x = layer()
    h = quant.hessian(x)
    made = quant.gptq(w, h, name, group=group, symmetric=name[0] != "u", act_order=act_order)
    lo, hi = (0, 15) if name[0] == "u" else (-(2 ** (int(name[-1]) - 1)), 2 ** (int(name[-1]) - 1) - 1)
    scale = np.repeat(made.scale, w.shape[1] // made.scale.shape[1], 1)
    zero = 0 * scale if made.zero_point is None else np.repeat(made.zero_point, w.shape[1] // scale.shape[1], 1)
    if zero.shape != scale.shape:
        zero = np.repeat(made.zero_point, w.shape[1] // made.zero_point.shape[1], 1)
    order = np.argsort(-np.diag(h), kind="stable") if act_order else np.arange(w.shape[1])
    np.testing.assert_array_equal(made.codes, textbook(w, h, scale, zero, lo, hi, order))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("group", "act_order"), [(None, False), (32, True)])
def test_error_is_told_and_smaller_than_of_rounding(dtype, library, group, act_order):
    w, x = layer(dtype=dtype)
    of = (lambda a: a) if library == "numpy" else torch.from_numpy
    made = quant.gptq(of(w), quant.hessian(of(x)), "int4", group=group, act_order=act_order)
    codes, scale, error = (np.asarray(a) for a in (made.codes, made.scale, made.error))
    x = x.astype(np.float64)
    delta = w - quant.dequantize(codes, scale).astype(np.float64)
    np.testing.assert_allclose(error, ((delta @ x.T) ** 2).sum(1), rtol=1e-3 if dtype == np.float32 else 1e-9)
    nearest = w - quant.dequantize(quant.quantize(w, scale, None, "int4"), scale).astype(np.float64)
    assert error.sum() < 0.8 * ((nearest @ x.T) ** 2).sum()


def test_hardly_a_code_depends_on_the_type():
    w, x = layer(128, 256, 1000)
    h = quant.hessian(x)
    double, single = (quant.gptq(w.astype(t), h, scale=np.full((128, 1), 0.25, t)) for t in (np.float64, np.float32))
    assert (double.codes != single.codes).mean() < 1e-3


@pytest.mark.parametrize("grain", [{}, {"group": 16}])
def test_a_diagonal_hessian_rounds_to_the_nearest(grain):
    w = layer()[0].astype(np.float32)
    made = quant.gptq(w, np.diag(np.random.default_rng(1).uniform(0.1, 9, 128)), "int4", act_order=True, **grain)
    np.testing.assert_array_equal(made.codes, quant.quantize(w, made.scale, None, "int4"))


def test_what_was_never_seen_is_rounded_or_as_published_zero():
    w, x = layer()
    x[:, [3, 60]] = 0
    h = quant.hessian(x)
    made = quant.gptq(w, h, "int4")
    np.testing.assert_array_equal(made.codes[:, [3, 60]], quant.quantize(w, made.scale, None, "int4")[:, [3, 60]])
    published = quant.gptq(w, h, "int4", compat="gptq")
    scale = np.repeat(published.scale, 128, 1)
    np.testing.assert_array_equal(published.codes, textbook(w, h, scale, 0 * scale, -8, 7, np.arange(128)))
    assert (published.codes[:, [3, 60]] == 0).all()
    nothing = quant.gptq(w, 0 * h, "int4")
    np.testing.assert_array_equal(nothing.codes, quant.quantize(w, nothing.scale, None, "int4"))
    assert (nothing.error <= 1e-15).all()  # a damping of one, taken off again


def test_a_scale_of_any_granularity_and_one_that_is_given():
    w, x = layer(64, 32)
    h = quant.hessian(x)
    for shape in [(), (1, 1), (64, 1), (1, 32), (64, 8), (16, 4), (64, 32)]:
        scale = np.full(shape, 0.3)
        zero = np.full(shape, 7, np.int32)
        made = quant.gptq(w, h, "uint4", scale=scale, zero_point=zero)
        full = np.full((64, 32), 0.3)
        np.testing.assert_array_equal(made.codes, textbook(w, h, full, 7 + 0 * full, 0, 15, np.arange(32)))
        assert made.scale is scale and made.zero_point is zero


def test_a_table_of_numbers_in_place_of_integers():
    w, x = layer(64, 128)
    h = quant.hessian(x)
    table = np.linspace(-1, 1, 16) ** 3
    made = quant.gptq(w, h, group=32, codebook=table)
    assert made.codes.dtype == np.uint8 and made.zero_point is None
    scale = np.repeat(made.scale, 32, 1)
    np.testing.assert_allclose(np.abs(w).reshape(64, 4, 32).max(-1), made.scale, rtol=1e-12)
    delta = w - table[made.codes] * scale
    np.testing.assert_allclose(made.error, ((delta @ h) * delta).sum(1), rtol=1e-9)
    nearest = w - table[np.abs(w[..., None] / scale[..., None] - table).argmin(-1)] * scale
    assert made.error.sum() < 0.8 * ((nearest @ h) * nearest).sum()
    # a table of integers is integers
    whole = quant.gptq(w, h, codebook=np.arange(-8.0, 8), scale=np.full((64, 1), 0.3))
    same = quant.gptq(w, h, "int4", scale=np.full((64, 1), 0.3))
    np.testing.assert_array_equal(whole.codes.astype(int) - 8, same.codes)


def test_threads_do_not_matter():
    w, x = layer(300, 200, dtype=np.float32)
    h = quant.hessian(x)
    before = tersor.get_num_threads()
    try:
        seen = []
        for n in (1, 2, 3, 8):
            tersor.set_num_threads(n)
            made = quant.gptq(w, h, "int4", group=50, act_order=True)
            seen.append((made.codes.tobytes(), made.error.tobytes()))
    finally:
        tersor.set_num_threads(before)
    assert seen == seen[:1] * 4


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_hessian_of_batches_is_that_of_all(library):
    of = (lambda a: a) if library == "numpy" else torch.from_numpy
    x = np.random.default_rng(0).standard_normal((3, 50, 24)).astype(np.float32)
    weights = np.random.default_rng(1).uniform(0, 2, (3, 50)).astype(np.float32)
    weights[:, 40:] = 0
    want = np.einsum("btk,bt,btl->kl", x.astype(float), weights, x)
    np.testing.assert_allclose(np.asarray(quant.hessian(of(x), weights=of(weights))), want, rtol=1e-4, atol=1e-4)
    total = None
    for i in range(3):
        total = quant.hessian(of(x[i]), weights=of(weights[i]), onto=total)
    np.testing.assert_allclose(np.asarray(total), want, rtol=1e-4, atol=1e-4)
    same = quant.hessian(of(x[0]), onto=total)
    assert same is total
    many = np.tile(x[0], (300, 1))  # more rows than one product has
    np.testing.assert_allclose(
        np.asarray(quant.hessian(of(many))), 300 * x[0].T.astype(float) @ x[0], rtol=1e-4, atol=1e-2
    )
    assert quant.hessian(of(np.ones((0, 5), np.float32))).shape == (5, 5)


def test_who_is_refused_and_that_nothing_changed():
    w, x = layer(8, 16)
    h = quant.hessian(x)
    bad, hole = w.copy(), h.copy()
    bad[3, 5], hole[2, 2] = np.nan, np.inf
    for error, said, call in [
        (ValueError, "gptq: w holds non-finite", lambda: quant.gptq(bad, h)),
        (ValueError, "gptq: h holds non-finite", lambda: quant.gptq(w, hole)),
        (ValueError, r"gptq: h must have shape \(16, 16\)", lambda: quant.gptq(w, h[:8, :8])),
        (ValueError, "gptq: h is no Gram matrix", lambda: quant.gptq(w, -h)),
        (ValueError, "gptq: h is no Gram matrix", lambda: quant.gptq(w, np.ones((16, 16)) * 9 - 8 * np.eye(16))),
        (ValueError, "gptq: h is not positive definite", lambda: quant.gptq(w, np.ones((16, 16)), damp=0)),
        (ValueError, "gptq: groups of 5 do not divide a last axis of 16", lambda: quant.gptq(w, h, group=5)),
        (ValueError, "gptq: w must be a matrix", lambda: quant.gptq(w[0], h)),
        (ValueError, "gptq: damp must be finite", lambda: quant.gptq(w, h, damp=-1.0)),
        (ValueError, "gptq: zero_point must lie within", lambda: quant.gptq(w, h, scale=1.0, zero_point=9)),
        (ValueError, "gptq: a scale is positive", lambda: quant.gptq(w, h, scale=np.zeros((8, 1)))),
        (ValueError, "gptq: codebook must be", lambda: quant.gptq(w, h, codebook=np.zeros(300))),
        (ValueError, "gptq: compat must be", lambda: quant.gptq(w, h, compat="torch")),
        (ValueError, "gptq: scale has its granularity", lambda: quant.gptq(w, h, scale=1.0, group=4)),
        (TypeError, "gptq: h must be float64 or float32, got float16", lambda: quant.gptq(w, h.astype(np.float16))),
        (TypeError, "gptq: w must be", lambda: quant.gptq(w.astype(int), h)),
        (TypeError, "gptq: h must be a NumPy array", lambda: quant.gptq(w, torch.from_numpy(h))),
        (ValueError, "hessian: x holds non-finite", lambda: quant.hessian(bad)),
        (ValueError, "hessian: weights must be finite", lambda: quant.hessian(x, weights=-np.ones(len(x)))),
        (ValueError, "hessian: weights must have shape", lambda: quant.hessian(x, weights=np.ones(3))),
        (TypeError, "hessian: onto must be float64", lambda: quant.hessian(x, onto=h.astype(np.float32))),
        (ValueError, "hessian: onto must have shape", lambda: quant.hessian(x, onto=h[:3])),
    ]:  # fmt: skip
        before = w.tobytes() + h.tobytes()
        with pytest.raises(error, match=said):
            call()
        assert w.tobytes() + h.tobytes() == before
    total = h.copy()
    with pytest.raises(ValueError):
        quant.hessian(bad, onto=total)
    np.testing.assert_array_equal(total, h)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("options", [{"act_order": True}, {"act_order": False, "compat": "gptq"}], ids=str)
def test_one_factor_serves_every_width(options, library):
    from tersor.quant.gptq import factored, gptq  # inside, where a factor may stand for the Hessian

    w, x = layer(40, 32)
    x[:, 5] = 0
    h = quant.hessian(x)
    if library == "torch":
        w, h = torch.from_numpy(w), torch.from_numpy(h)
    made = factored(h, 32, damp=0.01, **options)
    for bits in (2, 4, 8):
        want, got = (gptq(w, of, f"int{bits}", group=8, **options) for of in (h, made))
        for a, b in zip(want, got, strict=True):
            assert (a is None and b is None) or np.array_equal(np.asarray(a), np.asarray(b))


def test_shapes_at_the_edge():
    for n, k in [(0, 8), (3, 0), (1, 1), (17, 97)]:
        w, x = np.ones((n, k)), np.random.default_rng(0).standard_normal((5, k))
        made = quant.gptq(w, quant.hessian(x) if k else np.zeros((0, 0)), "int4")
        assert made.codes.shape == (n, k) and made.error.shape == (n,)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("grain", [{"group": 32}, {"axis": 0}, {"axis": 1}, {}], ids=str)
@pytest.mark.parametrize(("name", "symmetric"), [("int4", True), ("uint4", False)])
def test_the_share_of_the_range_with_the_least_error(name, symmetric, grain, library):
    w = np.random.default_rng(0).standard_normal((24, 128)) ** 3
    w[3] = 0
    x = w if library == "numpy" else torch.from_numpy(w)
    options = {"symmetric": symmetric, **grain}
    whole, zero = (np.asarray(a) for a in quant.choose_qparams(x, name, **options))
    scale, same = (np.asarray(a) for a in quant.choose_qparams(x, name, method="mse", **options))
    np.testing.assert_array_equal(same, zero)

    def errors(s):
        d = (w - quant.dequantize(quant.quantize(w, s, zero, name), s, zero)) ** 2
        cut = [size for n, m in zip(d.shape, s.shape or (1, 1), strict=True) for size in (m, n // m)]
        return d.reshape(cut).sum((1, 3)).reshape(s.shape)

    tried = np.stack([errors(whole * (1 - 0.025 * i)) for i in range(20)])
    np.testing.assert_allclose(errors(scale), tried.min(0), rtol=1e-9)
    np.testing.assert_allclose(scale, whole * (1 - 0.025 * tried.argmin(0)), rtol=1e-12)
    assert errors(scale).sum() < 0.99 * errors(whole).sum()
    with pytest.raises(ValueError, match="choose_qparams: compat='ct' has no method='mse'"):
        quant.choose_qparams(x, name, method="mse", compat="ct", **options)


def test_what_is_not_finite_has_no_say_in_the_share():
    w = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    w[0, 3], w[1, 5] = np.inf, np.nan
    scale, _ = quant.choose_qparams(w, "int4", axis=0, method="mse", nan="zero")
    w[0, 3] = w[1, 5] = 0
    np.testing.assert_array_equal(scale, quant.choose_qparams(w, "int4", axis=0, method="mse")[0])
    tiny = np.full((1, 8), 1e-45, np.float32)
    assert quant.choose_qparams(tiny, "int4", axis=0, method="mse")[0] > 0
