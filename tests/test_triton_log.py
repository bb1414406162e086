"""GPU kernels of logarithmic and fixed-point quantizers where codes change: the bits of the CPU, in the interpreter."""

import os

import numpy as np
import pytest

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton's interpreter is chosen before Triton is imported", allow_module_level=True)

pytest.importorskip("triton")

from tersor._op import OPS
from test_quant_log import beside
from test_triton import on_gpu

pytestmark = pytest.mark.triton


def same_bits(name, *args):
    want, got = on_gpu(OPS[f"quant.{name}"], args)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g.numpy().view(np.uint8), w.view(np.uint8))


@pytest.mark.parametrize("bits", [1, 4, 7, 8])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_logarithmic_codes_at_every_threshold(kind, half, bits):
    least = np.asarray([0, np.finfo(kind).smallest_subnormal, np.finfo(kind).smallest_normal, np.inf], kind)
    x = np.concatenate([least, beside(kind, "sqrt2" if half else 2)])
    scale = np.asarray(1.0, np.float64)
    same_bits("quantize_log", x, scale, bits, half, True)
    same_bits("fake_quantize_log", np.append(x, np.asarray([np.nan, -1], kind)), scale, bits, half)
    same_bits("fake_quantize_log_bwd", np.arange(x.size).astype(kind), x, scale, bits, half)
    codes = np.arange((1 << bits) + (bits < 8), dtype=np.uint8)
    same_bits("dequantize_log", codes, scale, bits, half, 0 if kind == np.float64 else 1)


@pytest.mark.parametrize(("wl", "fl"), [(2, 0), (8, 4), (25, 3), (26, 3), (32, 16), (32, -4), (8, 126)])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_words_of_fixed_point(kind, wl, fl):
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=1500) * 10.0 ** rng.integers(-6, 4, 1500), np.arange(-40, 40) / 16])
    x = np.append(x, [np.inf, -np.inf, np.nan, 2.0**31, -0.0]).astype(kind)
    for random, seed in ((False, 0), (True, 7), (True, -5)):
        same_bits("fixed_point", x, wl, fl, random, seed)
    same_bits("fixed_point_bwd", np.arange(x.size).astype(kind), x, wl, fl)


def test_bad_values_are_told():
    x, scale = np.array([0.5, -1.0], np.float32), np.asarray(1.0)
    import torch
    from tersor.triton.quant import quantize_log

    with pytest.raises(ValueError, match="quantize_log: x holds negative or non-finite values"):
        quantize_log(torch.from_numpy(x), torch.from_numpy(scale), torch.zeros(2, dtype=torch.uint8), 4, True, False)
