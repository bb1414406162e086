"""Weights and scales learned together: never worse than the nearest codes, far better where inputs go together."""

import numpy as np
import pytest
from tersor import quant

torch = pytest.importorskip("torch")


def layer(n=16, k=64, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4 * k, k)) @ (np.eye(k) + rng.standard_normal((k, k)) / np.sqrt(k))
    return rng.standard_normal((n, k)).astype(dtype), quant.hessian(x * rng.uniform(0.2, 3, k))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("name", "group"), [("int4", None), ("uint4", 32), ("int3", 16)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_is_told_is_what_the_codes_give_and_no_row_is_worse(name, group, dtype, library):
    w, h = layer(dtype=dtype)
    of = (lambda a: a) if library == "numpy" else torch.from_numpy
    options = {"group": group, "symmetric": name[0] != "u"}
    made, first = (quant.adaquant(of(w), of(h), name, steps=n, **options) for n in (80, 0))
    none = None if made.zero_point is None else np.asarray(made.zero_point)
    codes, scale, told = (np.asarray(a) for a in (made.codes, made.scale, made.error))
    delta = quant.dequantize(codes, scale, none, dtype="float64") - w.astype(float)
    np.testing.assert_allclose(told, ((delta @ h) * delta).sum(1), rtol=1e-9 if dtype == np.float64 else 2e-3)
    lo, hi = (0, 15) if name[0] == "u" else (-(2 ** (int(name[-1]) - 1)), 2 ** (int(name[-1]) - 1) - 1)
    assert codes.min() >= lo and codes.max() <= hi and (scale > 0).all()
    plain = np.asarray(first.error)
    assert (told <= plain).all() and told.sum() < 0.75 * plain.sum()
    start = None if first.zero_point is None else np.asarray(first.zero_point)
    np.testing.assert_array_equal(np.asarray(first.codes), quant.quantize(w, np.asarray(first.scale), start, name))


def test_at_the_edge():
    w, h = layer()
    exact = quant.adaquant(np.round(w), h, "int8", scale=np.ones((16, 1)), steps=5)
    assert (exact.codes == np.round(w)).all() and (exact.error == 0).all()
    one = quant.adaquant(w, h, steps=20)
    np.testing.assert_array_equal(quant.adaquant(4.0 * w, 2.0**9 * h, steps=20).codes, one.codes)
    for kind, said, call in [
        (ValueError, "adaquant: scale must be of rows", lambda: quant.adaquant(w, h, scale=1.0)),
        (ValueError, "adaquant: scale must be of rows", lambda: quant.adaquant(w, h, scale=np.ones((1, 64)))),
        (ValueError, "adaquant: scales must be positive", lambda: quant.adaquant(w, h, scale=np.zeros((16, 1)))),
        (ValueError, "adaquant: zero_point must have shape",
         lambda: quant.adaquant(w, h, "uint4", scale=np.ones((16, 1)), zero_point=np.ones((16, 2), np.int32))),
        (ValueError, "adaquant: h must have shape", lambda: quant.adaquant(w, h[:4])),
        (ValueError, "adaquant: steps must not be negative", lambda: quant.adaquant(w, h, steps=-1)),
        (TypeError, "adaquant: w must be float", lambda: quant.adaquant(w.astype(int), h)),
    ]:  # fmt: skip
        with pytest.raises(kind, match=said):
            call()
