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
