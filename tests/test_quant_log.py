"""Logarithmic codes against exact arithmetic: every threshold, both sides of it, and what lies beyond the codes."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from tersor import quant

BASES = ["sqrt2", 2]
FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def exact(v, base):
    """rne(-k log2 v) of a positive number, in whole numbers: the power k of v against 2^-q, half a step to either side."""
    f, k = Fraction(float(v)), 2 if base == "sqrt2" else 1
    q = round(-k * math.log2(float(v)))
    # v^(2k) lies between 2^-(2q + 1) and 2^-(2q - 1), or q is wrong by one
    while f ** (2 * k) < Fraction(2) ** -(2 * q + 1):
        q += 1
    while f ** (2 * k) > Fraction(2) ** -(2 * q - 1):
        q -= 1
    return q


def beside(kind, base):
    """The numbers next to every threshold, and the thresholds' own neighbours."""
    k = 2 if base == "sqrt2" else 1
    near = []
    for q in range(-2, 80):
        v = np.asarray(2.0 ** (-(q + 0.5) / k), np.float64).astype(kind)
        for _ in range(2):
            near.append(v)
            v = np.nextafter(v, np.asarray(np.inf, kind))
        v = np.nextafter(near[-2], np.asarray(0, kind))
        near.append(v)
    near = np.asarray(near, kind)
    return near[np.asarray(near, np.float64) > 0]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", FLOATS)
def test_codes_are_exact_at_every_threshold(kind, base, bits):
    x = beside(kind, base)
    n = 1 << bits
    free = np.array([exact(v, base) for v in x])
    want = np.where(free < n, np.maximum(free, 0), min(n, 255))
    np.testing.assert_array_equal(quant.quantize_log(x, 1.0, bits, base=base), want)


@pytest.mark.parametrize("bits", [1, 3, 4, 7, 8])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("grain", [(), (6, 1), (1, 40), (6, 4), (2, 4)])
def test_fake_is_there_and_back(kind, base, bits, grain):
    rng = np.random.default_rng(bits)
    x = (2.0 ** rng.uniform(-20, 3, (6, 40))).astype(kind)
    x[0, :3] = 0
    scale = np.asarray(rng.uniform(0.3, 3, grain), np.float64 if kind == np.float64 else np.float32)
    q = quant.quantize_log(x, scale, bits, base=base)
    back = quant.dequantize_log(q, scale, bits, base=base, dtype=kind)
    fake = quant.fake_quantize_log(x, scale, bits, base=base)
    assert fake.dtype == x.dtype
    np.testing.assert_array_equal(back.view(np.uint8), fake.view(np.uint8))
    np.testing.assert_array_equal(quant.quantize_log(back, scale, bits, base=base)[q > 0], q[q > 0])
    per = np.ones(x.shape)
    per[:] = np.repeat(np.repeat(scale, 6 // grain[0], 0), 40 // grain[1], 1) if grain else scale
    wide, step = np.asarray(x, np.float64), 2 ** (0.25 if base == "sqrt2" else 0.5)
    inside = (q > 0) & (q < 1 << bits) & (wide > 0)
    if bits == 8:
        inside &= q < 255
    if kind == np.float16:
        inside &= wide > 2.0**-12  # no denormals
    ratio = np.asarray(fake, np.float64)[inside] / wide[inside]
    eps = {8: 2.0**-50, 4: 2.0**-21, 2: 2.0**-7}[x.dtype.itemsize]
    assert ratio.size == 0 or (ratio.min() > 1 / step - eps and ratio.max() < step + eps)
    assert (q[0, :3] == min(1 << bits, 255)).all()
    if bits < 8:
        assert (np.asarray(fake)[0, :3] == 0).all()
    order = np.argsort(wide / per, axis=None)
    assert (np.diff(q.reshape(-1)[order].astype(int)) <= 0).all()  # reversed


@pytest.mark.parametrize("base", BASES)
def test_every_code_is_a_power_rounded_once(base):
    """2^(-q/k), also where it is no normal number of float32, times the scale."""
    q = np.arange(256, dtype=np.uint8)
    k = 2 if base == "sqrt2" else 1
    for kind in (np.float64, np.float32):
        got = quant.dequantize_log(q, np.asarray(1.0, kind), 8, base=base)
        root = float(kind(math.sqrt(2)))
        want = np.array([math.ldexp(root if k == 2 and i % 2 else 1.0, -((i + k - 1) // k)) for i in range(256)])
        np.testing.assert_array_equal(got, want.astype(kind))


def test_beyond_the_codes():
    x = np.array([2.0, 1.2, 1.0, 0.0, -0.0, 1e-30, 5e-324], np.float64)
    np.testing.assert_array_equal(quant.quantize_log(x, 1.0), [0, 0, 0, 16, 16, 16, 16])
    np.testing.assert_array_equal(quant.fake_quantize_log(x, 1.0), [1, 1, 1, 0, 0, 0, 0])
    bad = np.array([np.nan, -1.0, np.inf, 0.25], np.float32)
    got = quant.fake_quantize_log(bad, 0.5)
    assert np.isnan(got[:2]).all() and got[2] == 0.5 and got[3] == 0.25
    np.testing.assert_array_equal(quant.quantize_log(bad, 0.5, nan="zero"), [16, 16, 0, 2])
    for i in range(3):
        out = np.full(1, 77, np.uint8)
        with pytest.raises(ValueError, match=r"quantize_log: .*negative or non-finite"):
            quant.quantize_log(bad[i : i + 1], 0.5, out=out)
        assert out[0] == 77


@pytest.mark.parametrize("base", BASES)
def test_gradient_is_straight_through(base):
    torch = pytest.importorskip("torch")
    x = torch.tensor([3.0, 1.0, 1.1, 0.3, 1e-6, 0.0], requires_grad=True)
    g = torch.arange(1.0, 7.0)
    y = quant.fake_quantize_log(x, torch.tensor(1.0), 4, base=base)
    (dx,) = torch.autograd.grad(y, x, g)
    assert dx.tolist() == [0, 2, 3, 4, 0, 0]


def test_what_is_refused():
    x = np.ones((2, 4), np.float32)
    q = quant.quantize_log(x, 1.0)
    for error, match, call in [
        (ValueError, "quantize_log: bits must lie within 1 and 8, got 9", lambda: quant.quantize_log(x, 1.0, 9)),
        (
            ValueError,
            "quantize_log: base must be one of 'sqrt2', 2, got 10",
            lambda: quant.quantize_log(x, 1.0, base=10),
        ),
        (ValueError, "fake_quantize_log: bits must", lambda: quant.fake_quantize_log(x, 1.0, 0)),
        (ValueError, "quantize_log: a scale is positive and finite", lambda: quant.quantize_log(x, 0.0)),
        (ValueError, "quantize_log: a scale of shape", lambda: quant.quantize_log(x, np.ones((2, 3), np.float32))),
        (ValueError, "dequantize_log: q holds codes beyond 8", lambda: quant.dequantize_log(q + 9, 1.0, 3)),
        (TypeError, "dequantize_log: q must be uint8, got int8", lambda: quant.dequantize_log(q.astype(np.int8), 1.0)),
        (TypeError, "quantize_log", lambda: quant.quantize_log(q, 1.0)),
    ]:
        with pytest.raises(error, match=match):
            call()
