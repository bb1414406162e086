"""GPU kernels of the quantizers: the forms of `ops/quant`, under the operators' names.

The rule: a code is decided in float64 for float64 data and in float32 for all other, by a division that is rounded once, so
the results are the bits of the CPU.
"""

from tersor.triton.quant.affine import dequantize, quantize
from tersor.triton.quant.blocks import decode_table, encode_float, encode_table, float_decode, float_encode
from tersor.triton.quant.codebook import codebook_assign, codebook_sums
from tersor.triton.quant.composed import (
    best_share,
    encode_affine,
    fake_quantize_lsq,
    fake_quantize_lsq_bwd,
)
from tersor.triton.quant.encode import decode, encode_symmetric, value_range
from tersor.triton.quant.fake import fake_quantize, fake_quantize_bwd
from tersor.triton.quant.fixed import fixed_point, fixed_point_bwd
from tersor.triton.quant.log import dequantize_log, fake_quantize_log, fake_quantize_log_bwd, quantize_log
from tersor.triton.quant.packing import pack, unpack

__all__ = [
    "best_share",
    "codebook_assign",
    "codebook_sums",
    "decode",
    "decode_table",
    "dequantize",
    "dequantize_log",
    "encode_affine",
    "encode_float",
    "encode_symmetric",
    "encode_table",
    "fake_quantize",
    "fake_quantize_bwd",
    "fake_quantize_log",
    "fake_quantize_log_bwd",
    "fake_quantize_lsq",
    "fake_quantize_lsq_bwd",
    "fixed_point",
    "fixed_point_bwd",
    "float_decode",
    "float_encode",
    "pack",
    "quantize",
    "quantize_log",
    "unpack",
    "value_range",
]
