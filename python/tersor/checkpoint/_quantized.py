"""Whether a checkpoint is quantized already. The one rule: one piece of evidence is enough, and it is named, since who takes
codes or scales for weights destroys them in silence.
"""

from __future__ import annotations

import math
import re
from typing import Any

from tersor.checkpoint._format import Entry
from tersor.checkpoint._ggml import BLOCKS
from tersor.checkpoint.gguf import GGUF
from tersor.checkpoint.model import Model

#: what formats of quantized weights call their parts: compressed-tensors, block FP8, GPTQ, AWQ, bitsandbytes, quanto, HQQ
_PARTS = re.compile(
    r"(^|[._])(weight_packed|weight_scale(_inv)?|weight_shape|weight_zero_point|weight_global_scale|scale_inv|qweight|qzeros"
    r"|g_idx|absmax|quant_map|quant_state\.\S+|SCB|weight\._data|weight\._scale|W_q|qscale|weight_scale_2|blocks"
    r"|weight_format)$|\w_packed$"
)
#: what they call them by names that a dense model may have too: of a quantized one, if codes lie beside (MLX, FP8, HQQ)
_SCALES = re.compile(r"(^|\.)((weight_)?scales?|zeros?|biases|zero_points?)$")
#: types of codes
_CODES = ("U8", "I8", "U32", "I32", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4")


def settings(model: Model) -> dict[str, Any] | None:
    """What its configuration says of how it is quantized; null is as good as nothing."""
    found = model.config.get("quantization_config") or model.config.get("compression_config")
    return found if isinstance(found, dict) and found else None


def evidence(model: Model) -> str | None:
    """By what it shows that a model is quantized, or None."""
    if (found := settings(model)) is not None:
        return f"config.json has quantization_config ({found.get('quant_method', 'no method')})"
    coded = {e.name.rpartition(".")[0] for _, e in model.tensors() if e.dtype in _CODES and len(e.shape) >= 2}
    for _, e in model.tensors():
        beside = _SCALES.search(e.name) and e.name.rpartition(".")[0] in coded
        if beside or _PARTS.search(e.name):
            return f"it has {e.name!r}" + (" beside codes" if beside else "")
    return None


def _numbers(e: Entry, bits: int | None) -> int:
    """How many numbers a tensor of codes stands for; 0 for other tensors, and where it is not known."""
    if e.dtype not in _CODES or len(e.shape) < 2 or e.name.endswith("zeros") or _SCALES.search(e.name):
        return 0
    if e.dtype in ("I32", "U32"):  # words
        return math.prod(e.shape) * 32 // bits if bits else 0
    return 0 if e.dtype == "U8" else math.prod(e.shape)  # a byte may hold two codes


def described(model: Model) -> tuple[str, int, int]:
    """Of a quantized model its method, format and widths in words, how many weights are in codes, and their numbers."""
    said = settings(model) or {}
    groups = said.get("config_groups")
    weights = [g.get("weights") for g in groups.values() if isinstance(g, dict)] if isinstance(groups, dict) else []
    found = [w.get("num_bits") for w in weights if isinstance(w, dict)] + [said.get("bits"), said.get("w_bit")]
    bits = sorted({b for b in found if isinstance(b, int)})
    metadata = [r.metadata or {} for r in model.readers.values()]
    scheme = next((s for m in metadata if (s := m.get("tersor.scheme"))), "")
    scheme += " and others" if scheme and any("tersor.schemes" in m for m in metadata) else ""
    one = bits[0] if len(bits) == 1 else None
    names = {e.name for _, e in model.tensors()}
    shapes = [
        r.array(e.name)
        for r, e in model.tensors()
        if e.name.endswith("_shape")
        and f"{e.name.removesuffix('_shape')}_packed" in names
        and len(e.shape) == 1
        and e.shape[0] > 1
    ]
    # the shapes where the format keeps them, else what the codes hold
    stood = [int(s.prod()) for s in shapes] or [_numbers(e, one) for _, e in model.tensors()]
    stood = [n for n in stood if n]
    words = [str(said.get("quant_method", "")), str(said.get("format", "")), scheme, *(f"{b} bits" for b in bits)]
    what = ", ".join(w for w in words if w) or str(evidence(model))
    return what, len(stood), sum(stood)


def blocks(file: GGUF) -> tuple[str, int, int]:
    """The same of a GGUF file: its types of blocks."""
    coded = [e for e in file.entries.values() if e.dtype in BLOCKS]
    kinds = sorted({e.dtype for e in coded})
    return ", ".join(["gguf", *kinds]) if kinds else "", len(coded), sum(math.prod(e.shape) for e in coded)
