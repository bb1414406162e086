"""What is left as it is unless it is asked for. The one rule: pruning and quantizing hold back the same tensors, for the same
reason: those that are looked up, and those that choose.
"""

from __future__ import annotations

import re

from tersor.checkpoint._modules import TABLE, TIED

ROUTER = "a router"

# tables that are looked up, not multiplied with: readers leave them packed. The last part of the module's name says so.
_TABLE = re.compile(
    r"(^|\.)(\w*embeddings?|\w*_embeds?|embeds?|embed_(tokens|positions|in)\w*|tok_embd|wte|wpe|shared|(\w*_)?emb|codebook"
    r"|rel_pos\w*|relative_attention_bias)\.weight$"
)
# routers of mixtures of experts, which choose by small differences
_ROUTER = re.compile(r"(^|\.)(router(\.\w+)*|(\w+_)?gate(\.wg|\.classifier)?|\w*expert_gate)\.weight$")


def is_table(name: str) -> bool:
    """Whether a weight is a table of embeddings, by its name."""
    return bool(_TABLE.search(name))


def held(name: str, part: str) -> str | None:
    """Why a tensor that plays this part is held back, or None."""
    return part if part in (TABLE, TIED) else ROUTER if _ROUTER.search(name) else None
