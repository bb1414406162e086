"""Roundings that are learned: codes next to their numbers, never worse than the nearest, mostly far better."""

import numpy as np
import pytest
from tersor import quant

torch = pytest.importorskip("torch")
nn = torch.nn


def layer(n=24, k=64, dtype=np.float64, seed=0):
    """A weight, and the Gram matrix of inputs whose columns go together."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4 * k, k)) @ (np.eye(k) + rng.standard_normal((k, k)) / np.sqrt(k))
    return rng.standard_normal((n, k)).astype(dtype), quant.hessian(x * rng.uniform(0.2, 3, k))


def error(w, h, codes, scale, zero=None):
    delta = quant.dequantize(codes, scale, zero, dtype="float64") - w.astype(float)
    return ((delta @ h) * delta).sum(1)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["int4", "uint4", "int2"])
@pytest.mark.parametrize("group", [None, 32])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_codes_are_next_to_their_numbers_and_no_row_is_worse(name, group, dtype, library):
    w, h = layer(dtype=dtype)
    of = (lambda a: a) if library == "numpy" else torch.from_numpy
    made = quant.adaround(of(w), of(h), name, group=group, symmetric=name[0] != "u", steps=150)
    codes, scale, told = (np.asarray(a) for a in (made.codes, made.scale, made.error))
    zero = None if made.zero_point is None else np.asarray(made.zero_point)
    nearest = quant.quantize(w, scale, zero, name)
    full = np.repeat(scale, w.shape[1] // scale.shape[1], 1)
    off = 0 if zero is None else np.repeat(zero, w.shape[1] // zero.shape[1], 1)
    lo, hi = (0, 15) if name[0] == "u" else (-(2 ** (int(name[-1]) - 1)), 2 ** (int(name[-1]) - 1) - 1)
    below = np.floor(w / full) + off
    assert ((codes == np.clip(below, lo, hi)) | (codes == np.clip(below + 1, lo, hi))).all()
    assert codes.dtype == (np.uint8 if name[0] == "u" else np.int8)
    rtol = 1e-9 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(told, error(w, h, codes, scale, zero), rtol=rtol, atol=1e-9)
    plain = error(w, h, nearest, scale, zero)
    assert (told <= plain * (1 + rtol)).all() and told.sum() < 0.8 * plain.sum()


def test_of_few_weights_half_of_what_the_best_roundings_gain_is_found():
    w, h = layer(40, 8)
    scale = np.full((40, 1), 0.5)
    made = quant.adaround(w, h, "int8", scale=scale)
    choices = np.stack(np.meshgrid(*[[0, 1]] * 8, indexing="ij"), -1).reshape(-1, 8)
    every = (np.floor(w / 0.5)[:, None] + choices) * 0.5 - w[:, None]
    best = np.einsum("ncj,jk,nck->nc", every, h, every).min(1)
    nearest = error(w, h, quant.quantize(w, scale, None, "int8"), scale)
    assert made.error.sum() < best.sum() + 0.6 * (nearest.sum() - best.sum())


def test_nothing_is_learned_where_nothing_can_be():
    w, h = layer()
    same = quant.adaround(w, np.diag(np.diag(h)), "int4", group=32)
    np.testing.assert_array_equal(same.codes, quant.quantize(w, same.scale, None, "int4"))
    none = quant.adaround(w, h, "int4", steps=0)
    np.testing.assert_array_equal(none.codes, quant.quantize(w, none.scale, None, "int4"))
    exact = quant.adaround(np.round(w), h, "int8", scale=1.0)
    assert (exact.codes == np.round(w)).all() and (exact.error == 0).all()
    for n, k in [(0, 8), (3, 0), (1, 1)]:
        made = quant.adaround(np.ones((n, k)), np.ones((k, k)), "int4", steps=3)
        assert made.codes.shape == (n, k) and made.error.shape == (n,)


def test_units_have_no_say():
    w, h = layer()
    one = quant.adaround(w, h, "int4", steps=60)
    for a, b in ((4.0, 1.0), (1.0, 2.0**-20), (2.0**10, 2.0**9)):
        np.testing.assert_array_equal(quant.adaround(a * w, b * h, "int4", steps=60).codes, one.codes)


def test_who_is_refused():
    w, h = layer()
    bad = w.copy()
    bad[0, 0] = np.inf
    for kind, said, call in [
        (TypeError, "adaround: w must be float", lambda: quant.adaround(w.astype(int), h)),
        (TypeError, "adaround: h must be of float64, float32", lambda: quant.adaround(w, h.astype(np.float16))),
        (TypeError, "adaround: steps must be an integer", lambda: quant.adaround(w, h, steps=1.5)),
        (ValueError, "adaround: w must be a matrix", lambda: quant.adaround(w[0], h)),
        (ValueError, r"adaround: h must have shape \(64, 64\)", lambda: quant.adaround(w, h[:3])),
        (ValueError, "adaround: w holds non-finite", lambda: quant.adaround(bad, h)),
        (ValueError, "adaround: h holds non-finite", lambda: quant.adaround(w, h * np.nan)),
        (ValueError, "adaround: steps must not be negative", lambda: quant.adaround(w, h, steps=-1)),
        (ValueError, "got 500 and 0", lambda: quant.adaround(w, h, lr=0)),
        (ValueError, "zero_point needs a scale", lambda: quant.adaround(w, h, zero_point=3)),
        (ValueError, "group=32 is another", lambda: quant.adaround(w, h, scale=1.0, group=32)),
        (ValueError, "zero_point must lie within 0 and 15",
         lambda: quant.adaround(w, h, "uint4", scale=1.0, zero_point=99)),
        (ValueError, r"scale of shape \(5, 1\) does not divide", lambda: quant.adaround(w, h, scale=np.ones((5, 1)))),
        (ValueError, "scales must be positive", lambda: quant.adaround(w, h, scale=np.zeros((24, 1)))),
        (ValueError, "adaround: dtype must be", lambda: quant.adaround(w, h, "int9")),
    ]:  # fmt: skip
        with pytest.raises(kind, match=said):
            call()


def test_a_model_is_calibrated_with_it():
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 16)).eval()

    torch.manual_seed(1)
    x = torch.randn(300, 64) @ (torch.eye(64) + torch.randn(64, 64) / 8)
    module, nearest, want = net(), net(), net()
    made = quant.calibrate(module, [x[:200]], "int3-row-adaround")
    for name, found in made.layers.items():
        assert torch.equal(quant.decode(made.encoded(name)), module.get_submodule(name).weight)
        weight = nearest.get_submodule(name).weight
        weight.data = quant.dequantize(quant.quantize(weight.data, found.scale, None, "int3"), found.scale)
    with torch.no_grad():
        lost = [float((m(x[200:]) - want(x[200:])).square().mean()) for m in (module, nearest)]
    assert lost[0] < 0.8 * lost[1]
    with pytest.raises(ValueError, match="widths are chosen with -gptq"):
        quant.calibrate(net(), [x], "int-row-adaround", bits="auto", budget=5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("f", [quant.adaround, quant.adaquant])
def test_what_is_given_is_what_is_meant(f):
    w, h = layer(8, 16, np.float32)
    scale, zero = np.full((8, 1), 0.3, np.float32), np.full((8, 1), 2.4, np.float32)
    made = f(w, h, "int4", scale=scale, zero_point=zero, steps=20)
    np.testing.assert_allclose(error(w, h, *made[:3]), made.error, rtol=1e-4)
    want = f(w, h, "int4", steps=20, lr=0.125)
    for times in (2.0**600, 2.0**-600):  # its scale has no say
        made = f(w, h * times, "int4", steps=20, lr=np.float32(0.125))
        np.testing.assert_array_equal(made.codes, want.codes)
        np.testing.assert_array_equal(made.error, want.error * times)
    nearest = f(w, h, "int4", steps=0).error
    assert (f(w, h, "int4", steps=50, lr=1e4).error <= nearest).all()
    for bad in (np.inf, np.nan, -1.0):
        with pytest.raises(ValueError, match="scales must be positive and finite"):
            f(w, h, "int4", scale=np.full((8, 1), bad, np.float32), steps=2)
    with pytest.raises(ValueError, match="a zero point is finite"):
        f(w, h, "int4", scale=scale, zero_point=zero * np.nan, steps=2)
    with pytest.raises(ValueError, match="zero_point must have shape"):
        f(w, h, "int4", scale=scale, zero_point=np.zeros((8, 2), int), steps=2)
