"""Scales, codes and numbers of the peers, from data to numbers and back. The one rule: a peer is the project itself where it is
installed, else its own lines, written here once more; and cases that were recorded from it are asked everywhere.
"""

import ml_dtypes
import numpy as np
import pytest
import torch
from tersor import quant


def data(kind=torch.float32, seed=0):
    """Rows of all widths, of one sign, of zeros, and with ties of their scales."""
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x *= 10.0 ** torch.linspace(-4, 4, 64, dtype=torch.float64)[:, None]
    x[0], x[1], x[2] = 0, x[1].abs(), -x[2].abs()
    x[3] = torch.arange(64) / 2 - 16
    return x.to(kind)


def both(f, x):
    """A call with a tensor, and with the array of the same numbers, which must give the same bits."""
    got = f(x)
    array = x.view(torch.uint16).numpy().view(ml_dtypes.bfloat16) if x.dtype == torch.bfloat16 else x.numpy()
    for a, b in zip(got, f(array), strict=True):
        b = np.asarray(b)
        assert str(a.dtype).rpartition(".")[2] == b.dtype.name
        np.testing.assert_array_equal(a.double().numpy(), b.astype(np.float64))
    return got


def run(compat, x, dtype, symmetric):
    """Scales and zero points of rows, codes, numbers, and what is made at once."""

    def all_of(x):
        s, z = quant.choose_qparams(x, dtype, axis=0, symmetric=symmetric, compat=compat)
        q = quant.quantize(x, s, z, dtype, compat=compat)
        y = quant.dequantize(q, s, z, compat=compat)
        return s, z, q, y, quant.fake_quantize(x, s, z, dtype, compat=compat)

    return both(all_of, x)


def ends(dtype):
    bits = int(dtype.lstrip("uint"))
    return (0, 2**bits - 1) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@pytest.mark.parametrize("dtype", ["int8", "int4", "uint4", "uint8"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_torchao(dtype, symmetric, kind):
    """``_choose_qparams_affine``, ``_quantize_affine_no_dtype_cast`` and ``_dequantize_affine_no_dtype_check``."""
    x, (lo, hi) = data(kind), ends(dtype)
    if kind == torch.float16:
        x = x.clamp(-100, 100)
    low, high = x.amin(1, keepdim=True).clamp(max=0), x.amax(1, keepdim=True).clamp(min=0)
    if symmetric:
        s = (torch.max(-low, high) / (float(hi - lo) / 2)).clamp(min=torch.finfo(kind).smallest_normal)
        z = torch.full_like(s, int((hi + lo + 1) / 2)).int()
    else:
        s = ((high - low) / float(hi - lo)).clamp(min=torch.finfo(kind).smallest_normal)
        z = (lo - torch.round(low / s)).clamp(lo, hi).int()
    q = torch.clamp(torch.round(x * (1.0 / s)) + z, lo, hi)
    y = (q.to(kind) - z.to(kind)) * s
    got = run("torchao", x, dtype, symmetric)
    for a, b in zip(got, (s, z, q, y, y), strict=True):
        assert torch.equal(a.double(), b.double())
    peer = pytest.importorskip("torchao.quantization.quant_primitives")
    s, z = peer.choose_qparams_affine(
        x,
        peer.MappingType.SYMMETRIC if symmetric else peer.MappingType.ASYMMETRIC,
        (1, x.shape[1]),
        torch.int8 if lo < 0 else torch.uint8,
        lo,
        hi,
        zero_point_dtype=torch.int32,
    )
    q = peer.quantize_affine(x, (1, x.shape[1]), s, z, torch.int8 if lo < 0 else torch.uint8, lo, hi)
    y = peer.dequantize_affine(q, (1, x.shape[1]), s, z, q.dtype, lo, hi, output_dtype=kind)
    for a, b in zip(got, (s, z, q, y, y), strict=True):
        assert torch.equal(a.double().reshape(-1), b.double().reshape(-1))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_compressed_tensors(bits, symmetric, kind):
    """``calculate_qparams`` and ``quantize``, in the type of the data; a scale that is rounded to 0 has the zero point hi."""
    x, lo, hi = data(kind), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    x[4], x[5] = -torch.finfo(kind).smallest_normal * torch.finfo(kind).eps, 0
    if kind == torch.float16:
        x = x.clamp(-100, 100)
    low, high = x.amin(1, keepdim=True).clamp(max=0), x.amax(1, keepdim=True).clamp(min=0)
    steps = torch.tensor(float(hi - lo), dtype=kind)
    s = torch.max(low.abs(), high.abs()) / (steps / 2) if symmetric else (high - low) / steps
    z = torch.zeros_like(s) if symmetric else (torch.tensor(float(lo)) - low / s).clamp(lo, hi)
    assert symmetric or bits == 2 or (s[4] == 0 and z[4] == hi and z[5].isnan())
    s = torch.where(s == 0, torch.tensor(torch.finfo(kind).eps, dtype=kind), s)
    z = torch.round(z).nan_to_num(0).int()
    q = torch.round(torch.clamp(x / s + z.to(kind), lo, hi))
    y = (q - z.to(kind)) * s
    got = run("ct", x, f"int{bits}", symmetric)
    for a, b in zip(got, (s, z, q, y, y), strict=True):
        assert torch.equal(a.double(), b.double())
    peer = pytest.importorskip("compressed_tensors.quantization")
    utils = pytest.importorskip("compressed_tensors.quantization.utils")
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    args = peer.QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="channel")
    s, z = utils.calculate_qparams(x.amin(1, keepdim=True), x.amax(1, keepdim=True), args)
    q = forward.quantize(x, s, z, args, dtype=torch.int8)
    y = forward.dequantize(q, s, z, args)
    for a, b in zip(got, (s, z, q, y, y), strict=True):
        assert torch.equal(a.double(), b.double())


@pytest.mark.parametrize("dtype", ["uint4", "uint8", "uint2"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_gptq(dtype, symmetric):
    """``Quantizer.find_params`` and ``quantize``: rows of one sign are halved by the symmetric one, zeros are -1 to 1."""
    x, maxq = data(), ends(dtype)[1]
    low, high = x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)
    if symmetric:
        high = torch.maximum(low.abs(), high)
        low[low < 0] = -high[low < 0]
    flat = (low == 0) & (high == 0)
    low[flat], high[flat] = -1, 1
    s = ((high - low) / maxq)[:, None]
    z = torch.full_like(s, (maxq + 1) / 2) if symmetric else torch.round(-low[:, None] / s)
    q = torch.clamp(torch.round(x / s) + z, 0, maxq)
    for a, b in zip(run("gptq", x, dtype, symmetric), (s, z, q, s * (q - z), s * (q - z)), strict=True):
        assert torch.equal(a.double(), b.double())


@pytest.mark.parametrize("dtype", ["uint4", "uint8"])
def test_repq(dtype):
    """RepQ-ViT's ``UniformQuantizer``: 0 has no place in the range, and the zero point is not held within the codes."""
    x, n = data()[1:], ends(dtype)[1]
    x[0] = torch.linspace(10, 11, 64)
    s = (x.amax(1, keepdim=True) - x.amin(1, keepdim=True)) / n
    z = (-x.amin(1, keepdim=True) / s).round()
    q = torch.clamp(torch.round(x / s) + z, 0, n)
    got = run("repq", x, dtype, False)
    for a, b in zip(got, (s, z, q, (q - z) * s, (q - z) * s), strict=True):
        assert torch.equal(a.double(), b.double())
    assert int(got[1][0]) < -(2 ** n.bit_length())


@pytest.mark.parametrize("bits", [4, 8])
def test_zeroq(bits):
    """``asymmetric_linear_quantization_params``, ``linear_quantize`` and ``linear_dequantize``: a scale that multiplies."""
    x = data()
    x[5] = torch.linspace(10, 11, 64)
    n = 2**bits - 1
    rise = n / torch.clamp(x.amax(1, keepdim=True) - x.amin(1, keepdim=True), min=1e-8)
    z = (rise * x.amin(1, keepdim=True)).round() + 2 ** (bits - 1)
    q = torch.clamp(torch.round(rise * x - z), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    y = (q + z) / rise
    got = run("zeroq", x, f"int{bits}", False)
    assert torch.equal((1 / got[0]).float(), rise)
    for a, b in zip(got[1:], (-z, q, y, y), strict=True):
        assert torch.equal(a.double(), b.double())


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int4"])
def test_calibtip(dtype):
    """``UniformQuantize``: clamped before it is rounded, about a zero point that is a float minimum."""
    x, (lo, hi) = data(), ends(dtype)
    low, high = x.amin(1, keepdim=True).clamp(max=0), x.amax(1, keepdim=True).clamp(min=0)
    reach = high - low
    reach[reach == 0] = 1
    s = reach.clamp(1e-6, 1e5) / (hi - lo)
    q = torch.round(torch.clamp((x + (lo * s - low)) / s, lo, hi))
    y = q * s + (low - lo * s)
    for a, b in zip(run("calibtip", x, dtype, False), (s, low - lo * s, q, y, y), strict=True):
        assert torch.equal(a.double(), b.double())


@pytest.mark.parametrize("bits", [4, 8])
def test_ivit(bits):
    """``symmetric_linear_quantization_params`` and ``SymmetricQuantFunction``."""
    x, n = data(), 2 ** (bits - 1) - 1
    s = torch.clamp(
        torch.max(-x.amin(1, keepdim=True), x.amax(1, keepdim=True)) / n, min=torch.finfo(torch.float32).eps
    )
    q = torch.clamp(torch.round(1.0 / s * x), -n - 1, n)
    got = run("ivit", x, f"int{bits}", True)
    for a, b in zip(got, (s, torch.zeros_like(s), q, q * s, q * s), strict=True):
        assert torch.equal(a.double(), b.double())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compat", ["torchao", "ct"])
def test_arithmetic_of_16_bits_is_another(compat, kind):
    """Codes of the peer's own arithmetic, and those of float32 with the same scales: some per cent differ."""
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(1)).to(kind)
    s, z = quant.choose_qparams(x, "int8", axis=0, compat=compat)
    assert s.dtype == kind
    own = quant.quantize(x, s, z, compat=compat)
    wide = quant.quantize(x.float(), s.float(), z, compat=compat)
    share = float((own != wide).float().mean())
    assert 0 < share < (0.2 if kind == torch.bfloat16 else 0.03)


@pytest.mark.parametrize("compat", ["zeroq", "calibtip", "torchao", "ct"])
def test_gradients_pass_where_a_code_is(compat):
    x = torch.linspace(-3, 3, 200)[None].to(torch.bfloat16 if compat in ("torchao", "ct") else torch.float32)
    s, z = quant.choose_qparams(x / 2, "int4", axis=0, symmetric=False, compat=compat)
    x.requires_grad_()
    y = quant.fake_quantize(x, s, z, "int4", compat=compat)
    (g,) = torch.autograd.grad((y * 3).sum(), x)
    lo, hi = (float(quant.dequantize(torch.tensor([[q]], dtype=torch.int8), s, z, compat=compat)) for q in (-8, 7))
    step = (hi - lo) / 15
    inside = (x > lo - 0.49 * step) & (x < hi + 0.49 * step)
    outside = (x < lo - 0.52 * step) | (x > hi + 0.52 * step)
    assert inside.any() and outside.any()
    assert (g[inside] == 3).all() and (g[outside] == 0).all()


@pytest.mark.parametrize("compat", ["torch", "torchao", "ct", "gptq", "ivit"])
@pytest.mark.parametrize("scheme", ["int8-row", "int4-g32", "uint4-g32", "uint8-row"])
def test_encoded(compat, scheme):
    x = data()
    if compat == "ivit" and scheme[0] == "u":
        with pytest.raises(ValueError, match="has no symmetric=False"):
            quant.encode(x, scheme, compat=compat)
        return
    code, _, how = scheme.partition("-")
    grain = {"axis": 0} if how == "row" else {"group": int(how[1:])}
    s, z = quant.choose_qparams(x, code, symmetric=code[0] == "i", compat=compat, **grain)
    want = quant.dequantize(quant.quantize(x, s, z, code, compat=compat), s, z)
    e = quant.encode(x, scheme, compat=compat)
    assert torch.equal(quant.decode(e), want) and torch.equal(e.scale, s)
    with pytest.raises(ValueError, match="goes with codes of integers"):
        quant.encode(x, "mxfp4", compat=compat)


#: bfloat16 numbers, and what torchao 0.18 and compressed-tensors 0.20 made of them: scales, zero points and codes
NUMBERS = [
    [-2.828125, 3.796875, -0.55078125, 0.451171875, 3.421875, -0.69140625, 3.5625, 2.296875, -2.140625, 1.3046875],
    [4.875, 0.8984375, -1.265625, 2.546875, -2.03125, -2.828125, 6.5, -3.515625, -1.171875, 4.3125],
]
FOUR = [[-6, 7, -1, 1, 7, -1, 7, 5, -4, 3], [6, 1, -1, 3, -2, -3, 7, -4, -1, 5]]
FOUR_ABOUT = [[-8, 7, -3, -1, 6, -4, 6, 3, -7, 1], [4, -2, -5, 1, -6, -7, 7, -8, -5, 3]]
EIGHT = [96, 18, -25, 50, -40, -56, 127, -69, -23, 84]
EIGHT_ABOUT = [86, -15, -70, 27, -90, -110, 127, -128, -68, 72]
RECORDED = [
    ("torchao", "int4", True, [0.5078125, 0.8671875], [0, 0], FOUR),
    ("ct", "int4", True, [0.5078125, 0.8671875], [0, 0], FOUR),
    ("torchao", "int4", False, [0.44140625, 0.66796875], [-2, -3], FOUR_ABOUT),
    ("ct", "int4", False, [0.44140625, 0.66796875], [-2, -3], FOUR_ABOUT),
    *(
        (compat, "int8", True, [0.02978515625, 0.051025390625], [0, 0], [row, EIGHT])
        for compat, row in (
            ("torchao", [-94, 127, -18, 15, 114, -23, 120, 77, -72, 44]),
            ("ct", [-95, 127, -18, 15, 115, -23, 120, 77, -72, 44]),
        )
    ),
    *(
        (compat, "int8", False, [0.0260009765625, 0.039306640625], [-19, -38], [row, EIGHT_ABOUT])
        for compat, row in (
            ("torchao", [-128, 127, -40, -2, 113, -46, 118, 69, -101, 31]),
            ("ct", [-128, 127, -40, -2, 113, -46, 118, 70, -102, 31]),
        )
    ),
]


@pytest.mark.parametrize(("compat", "dtype", "symmetric", "scale", "zero", "codes"), RECORDED)
def test_recorded(compat, dtype, symmetric, scale, zero, codes):
    s, z, q, *_ = run(compat, torch.tensor(NUMBERS, dtype=torch.bfloat16), dtype, symmetric)
    assert s.reshape(-1).tolist() == scale and z.reshape(-1).tolist() == zero and q.tolist() == codes


def test_presets_are_traced():
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    for compat in ("torch", "torchao", "ct", "gptq", "repq", "zeroq", "calibtip"):

        def f(x, compat=compat):
            s, z = quant.choose_qparams(x, "int4", axis=0, symmetric=False, compat=compat)
            return quant.fake_quantize(x, s, z, "int4", compat=compat)

        torch._dynamo.reset()
        assert torch.equal(torch.compile(f, fullgraph=True, backend="eager")(x), f(x)), compat


@pytest.mark.parametrize("compat", ["zeroq", "calibtip", "torchao", "ct"])
def test_what_is_no_scale_is_refused(compat):
    kind = np.float16 if compat in ("torchao", "ct") else np.float32
    x = np.linspace(-1, 1, 6, dtype=kind).reshape(2, 3)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="quantize: a scale is positive and finite"):
            quant.quantize(x, np.full((2, 1), bad, kind), np.zeros((2, 1), kind), compat=compat)
    for f in (quant.quantize, quant.fake_quantize):
        for bad in ((3, 1), (2,)):
            with pytest.raises(ValueError, match=rf"{f.__name__}: scale of shape \({bad[0]}, ?1?\) does not divide"):
                f(x, np.ones(bad, kind), None, compat=compat)
    if compat in ("zeroq", "calibtip"):
        with pytest.raises(ValueError, match="quantize: a zero point is finite"):
            quant.quantize(x, 1.0, np.full((2, 1), np.nan, kind), compat=compat)
        with pytest.raises(ValueError, match=r"dequantize: zero_point of shape \(3, 1\) does not divide"):
            quant.dequantize(np.zeros((2, 3), np.int8), 1.0, np.zeros((3, 1), kind), compat=compat)
