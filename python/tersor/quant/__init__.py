r"""Quantizers: numbers as integer codes of a few bits, :math:`\hat x = (q - z)\,s`.

**A scale's shape is its granularity.** It has one size per axis of x, each a divisor of x's: ``()`` for a tensor, ``(N, 1)``
for rows, ``(1, K)`` for columns, ``(N, K/G)`` for groups of the last axis, ``(N/a, K/b)`` for tiles. `choose_qparams` makes
such scales from ``axis=`` or ``group=``; all other functions read the granularity from the scale.

Codes are int8 or uint8, one a byte, until `pack` puts them side by side. They are decided by the quotient x/s, divided
once in float64 for float64 data and in float32 for all other. Scales may have another float type than the data.
``compat=`` names a peer whose codes are reproduced bit for bit on finite values.
"""

from tersor.quant._encoded import Encoded
from tersor.quant.adaquant import adaquant
from tersor.quant.adaround import adaround
from tersor.quant.affine import dequantize, quantize
from tersor.quant.allocate import Allocation, bit_allocate
from tersor.quant.awq import Scaled, awq_search, smooth_scales
from tersor.quant.calibrate import Calibrated, calibrate
from tersor.quant.clusters import Groups, kmeans, kmeans_1d
from tersor.quant.codebook import Codebook, codebook_assign, codebook_ema
from tersor.quant.encode import decode, encode
from tersor.quant.fake import fake_quantize
from tersor.quant.fixed import fixed_point, pow2_scale, push_down, push_up
from tersor.quant.floats import float_decode, float_encode
from tersor.quant.gptq import GPTQ, gptq
from tersor.quant.hadamard import hadamard
from tersor.quant.hessian import hessian
from tersor.quant.integers import dyadic, int_layernorm, requantize, shift_exp, shift_gelu, shiftmax
from tersor.quant.l1 import l1_normalize
from tersor.quant.log import dequantize_log, fake_quantize_log, quantize_log
from tersor.quant.measures import kl_rows, layer_cosine, zd_score
from tersor.quant.packing import pack, repack, unpack
from tersor.quant.pareto import Pareto, bit_pareto
from tersor.quant.planning import QATLaw, qat_fraction, qat_loss
from tersor.quant.prepack import Packed, prepack
from tersor.quant.product import int8_matmul, packed_linear
from tersor.quant.qparams import choose_qparams
from tersor.quant.reparam import Reparametrized, Tuned, bias_correction, bn_distill_loss, bn_tune, repq_reparam

__all__ = [
    "GPTQ",
    "Allocation",
    "Calibrated",
    "Codebook",
    "Encoded",
    "Groups",
    "Packed",
    "Pareto",
    "QATLaw",
    "Reparametrized",
    "Scaled",
    "Tuned",
    "adaquant",
    "adaround",
    "awq_search",
    "bias_correction",
    "bit_allocate",
    "bit_pareto",
    "bn_distill_loss",
    "bn_tune",
    "calibrate",
    "choose_qparams",
    "codebook_assign",
    "codebook_ema",
    "decode",
    "dequantize",
    "dequantize_log",
    "dyadic",
    "encode",
    "fake_quantize",
    "fake_quantize_log",
    "fixed_point",
    "float_decode",
    "float_encode",
    "gptq",
    "hadamard",
    "hessian",
    "int8_matmul",
    "int_layernorm",
    "kl_rows",
    "kmeans",
    "kmeans_1d",
    "l1_normalize",
    "layer_cosine",
    "pack",
    "packed_linear",
    "pow2_scale",
    "prepack",
    "push_down",
    "push_up",
    "qat_fraction",
    "qat_loss",
    "quantize",
    "quantize_log",
    "repack",
    "repq_reparam",
    "requantize",
    "shift_exp",
    "shift_gelu",
    "shiftmax",
    "smooth_scales",
    "unpack",
    "zd_score",
]
