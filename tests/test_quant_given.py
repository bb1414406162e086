"""Codes with scales that are given are those of `quantize`, packed."""

import numpy as np
import pytest
from tersor import quant

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("scheme", ["int4-g8", "int8-row", "uint4-g8", "uint8-row", "int3-tensor", "int1-row"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_codes_are_those_of_quantize(scheme, dtype, library):
    x = np.random.default_rng(0).normal(size=(5, 16)).astype(dtype)
    kind, grain = scheme.split("-")
    if kind == "int1":
        with pytest.raises(ValueError, match="scheme 'int1-row' is unknown"):
            quant.encode(x, scheme, scale=1.0)
        return
    steps = {"row": (5, 1), "g8": (5, 2), "tensor": ()}[grain]
    scale = np.full(steps, 0.2, "float64" if dtype == "float64" else "float32")
    zero = np.full(steps, 7, np.uint8) if kind[0] == "u" else None
    want = quant.quantize(x, scale, zero, kind)
    given = [v if library == "numpy" or v is None else torch.from_numpy(np.asarray(v)) for v in (x, scale, zero)]
    e = quant.encode(given[0], scheme, scale=given[1], zero_point=given[2])
    bits = int(kind[-1])
    data = np.asarray(e.data)
    got = data if data.dtype == np.int8 else quant.unpack(data, bits, x.shape, dtype=str(want.dtype))
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.asarray(quant.decode(e)), quant.dequantize(want, scale, zero, dtype=dtype))
    again = quant.encode(given[0] * 0, scheme, scale=given[1], zero_point=given[2])
    assert quant.encode(given[0], scheme, scale=given[1], zero_point=given[2], out=again, nan="zero") is again
    np.testing.assert_array_equal(np.asarray(again.data), data)


def test_the_whole_range_and_one_scale_for_all():
    x = np.array([[-8, 7, 8, -9]], np.float32)
    e = quant.encode(x, "int4-row", scale=1.0)
    assert quant.decode(e).tolist() == [[-8, 7, 7, -8]] and e.scale.shape == (1, 1)


@pytest.mark.parametrize(
    ("scheme", "given", "said"),
    [
        ("int4-g8", {"scale": np.ones((5, 1))}, r"scale must have shape \(5, 2\)"),
        ("nf4", {"scale": 1.0}, "goes with int schemes"),
        ("q4_0", {"scale": 1.0}, "goes with int schemes"),
        ("uint4-g8", {"scale": 1.0}, "with zero_point with uint ones"),
        ("int4-g8", {"scale": 1.0, "zero_point": 1}, "with zero_point with uint ones"),
        ("uint4-g8", {"zero_point": 1}, "zero_point goes with scale"),
        ("uint4-g8", {"scale": 1.0, "zero_point": 16}, "zero_point must lie within 0 and 15, got 16"),
        ("int4-g8", {"scale": 0.0}, "scale"),
    ],
)
def test_what_does_not_go_together_is_said(scheme, given, said):
    with pytest.raises(ValueError, match=f"encode: .*{said}"):
        quant.encode(np.ones((5, 32 if scheme == "q4_0" else 16), np.float32), scheme, **given)


@pytest.mark.parametrize("of", [np.asarray, torch.tensor])
def test_zero_points_are_rounded_as_quantize_rounds_them(of):
    x = of(np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32))
    for zero in (7.6, -0.4, 15.4, of(np.full((4, 2), 6.5, np.float32))):
        e = quant.encode(x, "uint4-g4", scale=0.2, zero_point=zero)
        np.testing.assert_array_equal(
            quant.unpack(e.data, 4, (4, 8)),
            quant.quantize(x, of(np.full((4, 2), 0.2, np.float32)), e.zero_point, "uint4"),
        )
        assert (np.asarray(e.zero_point) == np.round(np.asarray(zero))).all()
    for zero in (float("nan"), of(np.array([[np.nan, 1]] * 4, np.float32))):
        with pytest.raises(ValueError, match="encode: a zero point is finite"):
            quant.encode(x, "uint4-g4", scale=0.2, zero_point=zero)


@pytest.mark.filterwarnings("error")
def test_numbers_of_numpy_are_numbers():
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    want = quant.encode(x, "int4-row", scale=0.25)
    for scale in (np.float64(0.25), np.float16(0.25)):
        np.testing.assert_array_equal(quant.encode(x, "int4-row", scale=scale).data, want.data)
    with pytest.raises(ValueError, match="encode: a scale is positive and finite"):
        quant.encode(x, "int4-row", scale=1e300)


@pytest.mark.parametrize("scheme", ["int4-row", "int4-g8", "int8-tensor", "uint4-g16", "uint3-row"])
@pytest.mark.parametrize("method", ["mse", "percentile", "aciq"])
def test_scales_by_a_method(scheme, method):
    x = np.random.default_rng(0).standard_t(4, (6, 32)).astype(np.float32)
    e, plain = quant.encode(x, scheme, method=method), quant.encode(x, scheme)
    kind, _, grain = scheme.partition("-")
    how = {"axis": 0} if grain == "row" else {} if grain == "tensor" else {"group": int(grain[1:])}
    affine = kind[0] == "u"
    scale, zero = quant.choose_qparams(x, kind, symmetric=not affine, method=method, **how)
    np.testing.assert_array_equal(e.scale.reshape(-1), scale.reshape(-1))
    codes = quant.quantize(x, e.scale, e.zero_point, kind)
    np.testing.assert_array_equal(quant.decode(e), quant.dequantize(codes, e.scale, e.zero_point))
    if affine:
        np.testing.assert_array_equal(e.zero_point.reshape(-1), zero.reshape(-1))
    if method == "mse":
        assert np.square(quant.decode(e) - x).sum() <= 1.0001 * np.square(quant.decode(plain) - x).sum()


def test_a_method_goes_with_integers_alone():
    x = np.ones((2, 32), np.float32)
    for scheme, more in (("nf4", {}), ("q4_0", {}), ("int4-row", {"scale": 1.0}), ("int4-row", {"compat": "torch"})):
        with pytest.raises(ValueError, match="encode: method='mse' chooses scales of integer schemes"):
            quant.encode(x, scheme, method="mse", **more)
    with pytest.raises(ValueError, match="encode: method must be one of"):
        quant.encode(x, "int4-row", method="best")
    with pytest.raises(ValueError, match=r"encode: .*non-finite"):
        quant.encode(x * np.nan, "int4-row", method="mse")
    assert quant.encode(x[:, :0], "int4-row", method="mse").data.shape == (2, 0)
