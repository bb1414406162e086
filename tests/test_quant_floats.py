"""Small floats: against float64 by the definition over every float16, torch's casts, ties, ends, fair rounding, bad input."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tersor import quant

FORMATS = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
}
MOST = {"e4m3": 448, "e5m2": 57344, "e2m1": 6, "e2m3": 7.5, "e3m2": 28}
TORCH = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
FINITE = HALVES[np.isfinite(HALVES)]


def every(code):
    """The finite numbers of a format from the least magnitude up, float64."""
    bits = np.arange(1 << int(code[1]) + int(code[3]), dtype=np.uint8)
    v = bits.view(FORMATS[code]).astype(np.float64)
    return v[np.isfinite(v)]


def nearest(x, code):
    """Codes by the definition: of all numbers the nearest, of two the even code; beyond the last the last."""
    v, a = every(code), np.abs(x.astype(np.float64))
    above = np.clip(np.searchsorted(v, a), 1, len(v) - 1)
    low, high = a - v[above - 1], v[above] - a
    c = np.where((high < low) | ((high == low) & (above % 2 == 0)), above, above - 1)
    return (c + (np.signbit(x).astype(np.int64) << int(code[1]) + int(code[3]))).astype(np.uint8)


@pytest.mark.parametrize("code", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_every_half_has_the_nearest_code(code, dtype):
    x = FINITE.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    np.testing.assert_array_equal(quant.float_encode(x, code), nearest(x.astype(np.float64), code))


@pytest.mark.parametrize("code", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_beside_every_tie(code, dtype):
    v = every(code).astype(dtype)
    ties = (v[1:] + v[:-1]) / 2
    x = np.concatenate([v, ties, np.nextafter(ties, dtype(0)), np.nextafter(ties, dtype(1e9)), [1e30, 1e-40]])
    x = np.concatenate([x, -x]).astype(dtype)
    np.testing.assert_array_equal(quant.float_encode(x, code), nearest(x, code))


@pytest.mark.parametrize("code", FORMATS)
def test_numbers_are_those_of_ml_dtypes(code):
    q = np.arange(1 << 1 + int(code[1]) + int(code[3]), dtype=np.uint8)
    want = q.view(FORMATS[code]).astype(np.float64)
    for dtype in ("float64", "float32", "float16", "bfloat16"):
        x = quant.float_decode(q, code, dtype=dtype)
        assert x.dtype.name == dtype
        np.testing.assert_array_equal(x.astype(np.float64), want)
        np.testing.assert_array_equal(
            np.signbit(x.astype(np.float64))[np.isfinite(want)], np.signbit(want)[np.isfinite(want)]
        )
    finite = np.isfinite(want)
    back = quant.float_encode(want[finite], code)
    np.testing.assert_array_equal(back, q[finite])
    assert np.nanmax(np.where(finite, want, 0)) == MOST[code]


@pytest.mark.parametrize("code", TORCH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_casts(code, dtype):
    x = torch.from_numpy(HALVES.copy()).to(dtype)
    got = quant.float_encode(x, code, nan="propagate")
    # torch's e5m2 is infinite beyond its last number, ours is that number
    inside = ~(x.abs() > MOST[code]) if code == "e5m2" else torch.ones_like(x, dtype=torch.bool)
    assert torch.equal(got[inside], x.to(TORCH[code]).view(torch.uint8)[inside])
    assert torch.equal(got[~inside] & 0x7F, torch.full_like(got[~inside], 0x7B))
    numbers = quant.float_decode(got, code, dtype=dtype)
    assert torch.equal(numbers.nan_to_num(1e4), got.view(TORCH[code]).to(dtype).nan_to_num(1e4))


@pytest.mark.parametrize("code", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stochastic_rounding_is_fair_and_repeatable(code, dtype):
    v = every(code)
    for low, high in ((v[0], v[1]), (v[3], v[4]), (v[-2], v[-1])):
        x = np.full(100_000, -(low + 0.3 * (high - low)), dtype)
        y = quant.float_decode(quant.float_encode(x, code, rounding="stochastic", seed=5), code, dtype="float64")
        assert set(np.unique(-y)) == {low, high}
        assert abs((-y == high).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)
    q = quant.float_encode(x, code, rounding="stochastic", seed=5)
    np.testing.assert_array_equal(q[:777], quant.float_encode(x[:777], code, rounding="stochastic", seed=5))
    assert (q != quant.float_encode(x, code, rounding="stochastic", seed=6)).any()
    exact = np.concatenate([v, -v]).astype(dtype)
    np.testing.assert_array_equal(quant.float_encode(exact, code, rounding="stochastic"), nearest(exact, code))


@given(code=st.sampled_from(list(FORMATS)), data=st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=50))
def test_order_is_kept(code, data):
    x = np.sort(np.array(data, np.float32))
    assert (np.diff(quant.float_decode(quant.float_encode(x, code), code)) >= 0).all()


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_what_is_not_finite(library):
    x = np.array([1, np.nan, -np.inf, np.inf, -np.nan], np.float32)
    out = library(np.full(5, 99, np.uint8))
    for code in FORMATS:
        with pytest.raises(ValueError, match="float_encode: x holds non-finite"):
            quant.float_encode(library(x), code, out=out)
        assert (np.asarray(out) == 99).all()
        y = np.asarray(quant.float_decode(quant.float_encode(library(x), code, nan="zero"), code))
        np.testing.assert_array_equal(y, [1, 0, -MOST[code], MOST[code], 0])
    for code in ("e2m1", "e2m3", "e3m2"):
        with pytest.raises(ValueError, match="wants a code that has NaN"):
            quant.float_encode(library(x), code, nan="propagate")
    assert quant.float_encode(library(x), "e4m3", nan="zero", out=out) is out and np.asarray(out)[3] == 0x7E


def test_bad_arguments_are_named():
    x, q = np.ones(3, np.float32), np.array([3, 16, 2], np.uint8)
    for call, error, text in (
        (lambda: quant.float_encode(x, "e4m4"), ValueError, "float_encode: code must be one of"),
        (lambda: quant.float_encode(x, "e4m3", rounding="half_away"), ValueError, "float_encode: rounding"),
        (lambda: quant.float_encode(x.astype(int), "e4m3"), TypeError, "float_encode: x must be"),
        (lambda: quant.float_encode(x, "e4m3", seed=-1), ValueError, "float_encode: seed"),
        (lambda: quant.float_decode(q, "e2m1"), ValueError, "float_decode: q holds codes that are not within 0 and 15"),
        (lambda: quant.float_decode(q.astype(np.int8), "e4m3"), TypeError, "float_decode: q must be"),
        (lambda: quant.float_decode(q, "e4m3", dtype="int8"), ValueError, "float_decode: dtype"),
    ):
        with pytest.raises(error, match=text):
            call()
