"""GPU kernels of small floats and tables in every format: in Triton's interpreter, against the kernels of the CPU."""

import os

import numpy as np
import pytest

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton's interpreter is chosen before Triton is imported", allow_module_level=True)

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from tersor._op import OPS  # noqa: E402
from tersor.quant._grids import SMALL, TABLES  # noqa: E402
from test_triton import on_gpu  # noqa: E402

pytestmark = pytest.mark.triton
FORMATS = [(s.exponent, s.mantissa) for s in SMALL.values()]


def numbers(dtype, rows=3, last=32):
    x = np.random.default_rng(0).standard_normal((rows, last)) * 10.0 ** np.arange(-2, rows - 2)[:, None]
    x[0, :4] = 0.0, -0.0, 0.75, -2.5
    return x.astype(dtype)


def same(op, *args):
    want, got = on_gpu(OPS[op], args)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g.numpy(), w)
    return want


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_small_floats(dtype, form):
    x = numbers(dtype) * 30
    (q,) = same("quant.float_encode", x, *form, 0, 0, 1)
    same("quant.float_decode", q, *form, 1)
    x[1, 1:3] = np.inf, np.nan
    with pytest.raises(ValueError, match="non-finite"):
        on_gpu(OPS["quant.float_encode"], (x, *form, 0, 0, 0))
    if sum(form) == 7:
        same("quant.float_encode", x, *form, 0, 0, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", [f for f in FORMATS if sum(f) != 5], ids=str)
@pytest.mark.parametrize("scaling", [0, 1, 2, 3, None])
def test_groups_of_small_floats(dtype, form, scaling):
    x, outer = numbers(dtype), None if scaling is not None else np.asarray(0.01, np.float32)
    x[2, :16] = 0
    data, scale = same("quant.encode_float", x, outer, *form, 16, scaling or 0, False)
    table = np.nan_to_num(SMALL[f"e{form[0]}m{form[1]}"].numbers, posinf=0, neginf=0)
    same("quant.decode_table", data, scale, table, outer, 1 + sum(form), 32, 1 if dtype == "float32" else 0)


def test_codes_that_straddle_bytes():
    x = numbers("float32")
    data, scale = OPS["quant.encode_float"].numpy((x, None, 2, 3, 16), {})
    same("quant.decode_table", data, scale, SMALL["e2m3"].numbers, None, 6, 32, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("peer", [False, True])
def test_tables(dtype, name, peer):
    x = numbers(dtype)
    x[1] = 0
    data, scale = same("quant.encode_table", x, TABLES[name], 16, peer, False)
    bits = 4 if len(TABLES[name]) == 16 else 8
    same(
        "quant.decode_table", data, scale, TABLES[name], None, bits, 32, ("float64", "float32", "float16").index(dtype)
    )


#: granularities of an array [4, 6, 8]: a tensor, rows, groups, columns, tiles, and what does not fold into two axes
GRAINS = [(), (1, 1, 1), (4, 6, 1), (4, 6, 2), (1, 1, 8), (2, 3, 4), (1, 6, 1), (4, 1, 8)]


KINDS = [("float32", grain) for grain in GRAINS] + [(d, g) for d in ("float64", "float16") for g in ((), (2, 3, 4))]


@pytest.mark.parametrize(("dtype", "grain"), KINDS, ids=str)
@pytest.mark.parametrize("form", [0, 1, 2])
def test_codes_and_numbers(dtype, grain, form):
    rng = np.random.default_rng(len(grain) + form)
    x = (30 * rng.standard_normal((4, 6, 8))).astype(dtype)
    x[0, 0, :4] = 0.0, -0.0, 2.5, -3.5
    scale = rng.uniform(0.2, 1.5, grain).astype("float32" if dtype == "float16" else dtype)
    for lo, hi, zero in (
        (-8, 7, None),
        (0, 255, rng.integers(0, 256, grain)),
        (-128, 127, rng.uniform(-128, 127, grain).astype("float32")),
        (3, 100, np.array(50, np.uint8)),
    ):
        (q,) = same("quant.quantize", x, scale, zero, lo, hi, form, 0, 0, False)
        same("quant.dequantize", q, scale, zero, ("float64", "float32", "float16").index(dtype))
        slopes(rng.standard_normal(x.shape).astype(dtype), x, scale, zero, lo, hi, form, 0.25)


def slopes(*args):
    """Gradients to scales and zero points, whose sums have another order there."""
    want, got = on_gpu(OPS["quant.fake_quantize_lsq_bwd"], args)
    np.testing.assert_array_equal(got[0].numpy(), want[0])
    for g, w in zip(got[1:], want[1:], strict=True):
        if w.dtype.kind in "iu":  # of levels that are integers nobody asks
            continue
        eps = np.finfo(w.dtype).eps
        np.testing.assert_allclose(g.double().numpy(), np.float64(w), rtol=eps, atol=4 * eps * abs(w).max(initial=0))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("last", [1, 7, 32, 33])
def test_codes_side_by_side(bits, last):
    rng = np.random.default_rng(bits)
    for q in (
        rng.integers(0, 1 << bits, (3, last), np.uint8),
        rng.integers(-1 << bits - 1, 1 << bits - 1, (3, last), np.int8),
    ):
        for words in (False, True):
            (w,) = same("quant.pack", q, bits, words)
            same("quant.unpack", w, bits, last, q.dtype == np.int8)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("bits", "group"), [(4, 8), (4, 0), (8, 16), (3, 32), (5, 1), (2, 0)])
def test_groups_with_zero_points(dtype, bits, group):
    x = numbers(dtype)
    x[1] = abs(x[1]) + 1
    x[2, :16] = 0
    index = ("float64", "float32", "float16").index(dtype)
    data, scale, zero = same("quant.encode_affine", x, bits, group, False)
    same("quant.decode", data, scale, zero, bits, 32, index)
    data, scale = same("quant.encode_symmetric", x, bits, group, False)
    same("quant.decode", data, scale, None, bits, 32, index)
    x[0, 1:3] = np.inf, np.nan
    for op in ("affine", "symmetric"):
        same(f"quant.encode_{op}", x, bits, group, True)
        with pytest.raises(ValueError, match=f"encode_{op}: x holds non-finite"):
            on_gpu(OPS[f"quant.encode_{op}"], (x, bits, group, False))


@pytest.mark.parametrize("grain", GRAINS)
def test_the_best_of_shorter_scales(grain):
    rng = np.random.default_rng(3)
    x = rng.standard_t(3, (4, 6, 8)).astype(np.float32)
    x[0, 0, 0] = np.nan
    for zero in (None, np.array(1, np.int32)):
        same("quant.best_share", x, rng.uniform(0.5, 1.5, grain).astype(np.float32), zero, -8, 7, 20, 0.025, 2.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rounding", [1, 2, 3])
def test_codes_of_every_rounding(dtype, rounding):
    x = np.concatenate([np.arange(-40, 40) / 4, np.random.default_rng(1).standard_normal(1000)]).astype(dtype)
    same("quant.quantize", x, np.array(0.25, dtype), np.array(3), -8, 7, 0, rounding, 7, False)


def test_codes_that_are_refused_as_on_the_cpu():
    x, one = numbers("float32"), np.ones((), np.float32)
    odd = x.copy()
    odd[1, 1:4] = np.inf, np.nan, -np.inf
    same("quant.quantize", odd, one, np.array(5), -128, 127, 0, 0, 0, True)
    for args, said in (
        ((odd, one, None, -8, 7, 0, 0, 0, False), "non-finite"),
        ((x, one * 0, None, -8, 7, 0, 0, 0, True), "quantize: a scale is positive and finite, got 0"),
        ((x, one * np.inf, None, -8, 7, 0, 0, 0, True), "a scale is positive and finite, got inf"),
        ((x, one, np.array(1 << 22), -8, 7, 0, 0, 0, True), "zero point lies within"),
        ((x, one, None, -8, 200, 0, 0, 0, True), "do not fit a byte"),
    ):
        with pytest.raises(ValueError, match=said):
            on_gpu(OPS["quant.quantize"], args)
    # products beyond the largest finite number are that number
    q = np.array([-128, 127, 0], np.int8)
    same("quant.dequantize", q, np.array(3e38, np.float32), None, 1)
    same("quant.dequantize", q, np.array(np.inf, np.float32), None, 2)
    same("quant.quantize", x[:0], np.ones((1, 1), np.float32), None, -8, 7, 0, 0, 0, False)
