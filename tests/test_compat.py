"""Presets are their peers, bit for bit. The one rule: a peer is the project itself where it is installed, else its own lines,
written here once more from its code; every preset of every function has one."""

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from tersor import prune, quant
from tersor.prune._job import COMPAT
from tersor.quant._arguments import FORMS
from tersor.quant._peers import KINDS


def gptq(x, s, z, lo, hi):
    """GPTQ's and RepQ-ViT's: ``clamp(round(x / scale) + zero)``."""
    return (torch.round(x / s) + z).clamp(lo, hi)


def torchao(x, s, z, lo, hi):
    """``clamp(round(input * (1.0 / scale)) + zero_point)``, as torch's own ``nearbyint(x * inv_scale) + zero_point``."""
    return (torch.round(x * (1.0 / s)) + z).clamp(lo, hi)


def ivit(x, s, z, lo, hi):
    """I-ViT's SymmetricQuantFunction: ``round(1. / scale * x + zero_point)``, in which the zero point is 0."""
    assert z == 0
    return torch.round(1.0 / s * x + z).clamp(lo, hi)


def compressed_tensors(x, s, z, lo, hi):
    peer = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    args = pytest.importorskip("compressed_tensors.quantization").QuantizationArgs(
        num_bits=(hi - lo + 1).bit_length() - 1
    )
    return peer.quantize(x, s, z, args, dtype=torch.int8).to(x.dtype)


PEERS = {
    "gptq": gptq,
    "repq": gptq,
    "torch": torchao,
    "torchao": torchao,
    "ivit": ivit,
    "ct": compressed_tensors,
}


@pytest.fixture(scope="module")
def x():
    """Ties of the scales below, values beside them, and values far outside."""
    generator = torch.Generator().manual_seed(0)
    ties = torch.arange(-600, 600) / 16
    return torch.cat([ties, torch.randn(6000, generator=generator) * 8, torch.tensor([0.0, -0.0, 1e-30, 5e8])]).float()


def test_every_preset_is_asked():
    assert set(PEERS) | {"zeroq", "calibtip"} == set(FORMS) - {None} == set(KINDS)
    assert set(COMPAT) == {"torch", "globalmp", "mc-smoe", "llm-compressor", "sparsegpt", "wanda", "wanda-magnitude"}


@pytest.mark.parametrize("compat", sorted(PEERS))
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_codes(x, compat, dtype):
    lo, hi = (-128, 127) if dtype == "int8" else (-8, 7)
    for scale in (0.25, 0.1, 0.37, 1 / 3):
        for zero in (0,) if compat == "ivit" else (0, 3, -5):
            s, z = torch.tensor(scale), torch.tensor(zero)
            codes = PEERS[compat](x, s, z, lo, hi)
            assert torch.equal(quant.quantize(x, s, z, dtype, compat=compat).float(), codes)
            assert (quant.quantize(x.numpy(), s.numpy(), z.numpy(), dtype, compat=compat) == codes.numpy()).all()
            assert torch.equal(quant.fake_quantize(x, s, z, dtype, compat=compat), (codes - z) * s)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_scales_are_those_of_compressed_tensors(bits, symmetric, kind):
    """Zeros have the machine epsilon and the zero point 0, a tie is one of bit_min - min/s; not -min/s alone."""
    peer = pytest.importorskip("compressed_tensors.quantization.utils")
    args = pytest.importorskip("compressed_tensors.quantization").QuantizationArgs(
        num_bits=bits, symmetric=symmetric, strategy="channel"
    )
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(400, 16, generator=generator, dtype=kind)
    x[:4], x[4], x[5], x[6] = 0, x[4].abs(), -x[5].abs(), 1e-30
    x[7:] *= torch.rand(393, 1, generator=generator, dtype=kind)
    steps = 2**bits - 1
    x[200:300] = 0
    x[200:300, 0] = -(torch.arange(100) % steps + 0.5)  # ties of a scale of 1
    x[200:300, 1] = steps + x[200:300, 0]
    want = peer.calculate_qparams(x.amin(1), x.amax(1), args)
    for library in (x, x.numpy()):
        got = quant.choose_qparams(library, f"int{bits}", axis=0, symmetric=symmetric, compat="ct")
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(np.asarray(a).reshape(-1), b.numpy())


def test_a_preset_of_one_kind_is_no_other():
    x = torch.ones(2, 4)
    for compat, symmetric in (("repq", True), ("zeroq", True), ("calibtip", True), ("ivit", False)):
        with pytest.raises(ValueError, match=f"compat='{compat}' has no symmetric={symmetric}"):
            quant.choose_qparams(x, compat=compat, symmetric=symmetric)
    with pytest.raises(ValueError, match="no scale for equal numbers"):
        quant.choose_qparams(x, compat="repq", symmetric=False)
    half = torch.ones(2, 4, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="grad='lsq' does not go with compat='ct' of bfloat16"):
        quant.fake_quantize(half, torch.ones(2, 1, dtype=torch.bfloat16), compat="ct", grad="lsq")


@pytest.mark.parametrize("like", [np.asarray, torch.as_tensor])
def test_a_share_and_what_every_array_keeps(like):
    arrays = [like(np.array([1.0, -3.0, 2.0])), like(np.array([0.5, 0.25]))]
    for share in (1, 0.9):  # of five weights two stay, whatever the share
        kept = [m.tolist() for m in prune.global_masks(arrays, share, min_keep=1)]
        assert kept == [[False, True, False], [True, False]]
    assert prune.global_threshold(arrays, [0.2, 1.0], min_keep=1)[1].kept == [1, 1]
    with pytest.raises(ValueError, match="cannot prune k = 4"):
        prune.global_masks(arrays, k=4, min_keep=1)


def test_shares_of_what_is_left():
    """Three times 20 % of what is left, as torch's prune counts, is a share of 1 - 0.8^3 of all."""
    w = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(1000, 1, bias=False)
    layer.weight.data[0] = w
    for _ in range(3):
        torch.nn.utils.prune.l1_unstructured(layer, "weight", 0.2)
    (mask,) = prune.global_masks([w], 1 - 0.8**3)
    assert torch.equal(mask, layer.weight_mask[0].bool())
    assert torch.equal(prune.apply_mask(w, layer.weight_mask[0].bool()), layer.weight[0].detach())
