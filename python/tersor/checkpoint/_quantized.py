"""Whether a checkpoint is quantized already. The one rule: one piece of evidence is enough, and it is named, since who takes
codes or scales for weights destroys them in silence.
"""

from __future__ import annotations

import re
from typing import Any

from tersor.checkpoint.model import Model

#: what formats of quantized weights call their parts: compressed-tensors, block FP8, GPTQ, AWQ, bitsandbytes, quanto, HQQ
_PARTS = re.compile(
    r"(^|[._])(weight_packed|weight_scale(_inv)?|weight_zero_point|weight_global_scale|scale_inv|qweight|qzeros|g_idx"
    r"|absmax|quant_map|quant_state\.\S+|SCB|weight\._data|weight\._scale|W_q|qscale|weight_scale_2|blocks|weight_format)$"
)


def settings(model: Model) -> dict[str, Any] | None:
    """What its configuration says of how it is quantized; null is as good as nothing."""
    found = model.config.get("quantization_config") or model.config.get("compression_config")
    return found if isinstance(found, dict) and found else None


def evidence(model: Model) -> str | None:
    """By what it shows that a model is quantized, or None."""
    if (found := settings(model)) is not None:
        return f"config.json has quantization_config ({found.get('quant_method', 'no method')})"
    for _, e in model.tensors():
        if _PARTS.search(e.name):
            return f"it has {e.name!r}"
    return None


def described(model: Model) -> str:
    """A quantized model in one line: method, format, widths of codes, and how many weights its codes stand for."""
    said = settings(model) or {}
    groups = said.get("config_groups")
    weights = (
        [g.get("weights") or {} for g in groups.values() if isinstance(g, dict)] if isinstance(groups, dict) else []
    )
    bits = sorted({w["num_bits"] for w in weights if isinstance(w.get("num_bits"), int)})
    files = [(r.metadata or {}).get("tersor.scheme") for r in model.readers.values()]
    scheme = next((s for s in files if s), None)
    stood, count = 0, 0
    for reader, e in model.tensors():
        if e.name.endswith("weight_shape") and e.dtype == "I64" and len(e.shape) == 1:
            stood, count = stood + int(reader.array(e.name).prod()), count + 1
    words = [str(said.get("quant_method", "")), str(said.get("format", "")), scheme or "", *(f"{b} bits" for b in bits)]
    what = ", ".join(w for w in words if w) or str(evidence(model))
    return f"quantized: {what}" + (f"; {count} weights of {stood / 1e6:.1f} M numbers in codes" if count else "")
