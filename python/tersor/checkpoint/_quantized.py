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
