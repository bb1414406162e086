r"""Magnitude pruning: exact masks over any number of arrays, files larger than memory, top-k of rows.

The order of selection is by (:math:`|w|`, minus the index): exactly the first k weights in it are pruned, so that of equal
magnitudes the one with the lowest index is kept (arrays in the order given, then flat index). Masks are bool, True where a
weight is kept (``mask.bool()`` makes one of torch's float masks); a pruned weight is +0. Masks of a larger k are subsets of
those of a smaller one. Results do not depend on threads, on the sizes of chunks, on whether weights come from
memory or from a file, or on the processes they are spread over.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from tersor.prune import _operators  # noqa: F401  declared by being imported
from tersor.prune.allocate import Allocation, budget_allocate
from tersor.prune.apply import apply_mask
from tersor.prune.assign import assign
from tersor.prune.bits import pack_mask, unpack_mask
from tersor.prune.calibrate import Calibrated, calibrate
from tersor.prune.calibrated import sparsegpt, wanda_mask
from tersor.prune.channels import interpolate_channels
from tersor.prune.curves import rd_curve
from tersor.prune.embedding import md_dims, prefix_mask, threshold_rows
from tersor.prune.experts import expert_align, expert_groups, expert_merge
from tersor.prune.federated import fedtiny_count, fedtiny_send, fedtiny_update
from tersor.prune.histogram import MagnitudeHistogram
from tersor.prune.layers import erk_densities, lamp_scores, uniform_densities
from tersor.prune.lowrank import LowRankSparse, lowrank_plus_sparse
from tersor.prune.masks import Threshold, global_masks, global_prune, global_threshold
from tersor.prune.patterns import block_mask, nm_mask
from tersor.prune.regrow import rigl_update, set_update
from tersor.prune.rows import row_scores
from tersor.prune.saliency import group_saliency
from tersor.prune.schedules import cosine_schedule, cubic_schedule, linear_schedule
from tersor.prune.search import Heads, head_neuron_search, layer_knapsack
from tersor.prune.tokens import apply_tokens, sub_dimensions, topk_ffn
from tersor.prune.topk import topk_rows

if _TYPE_CHECKING:
    from tersor.jobs.prune import Pruned, prune_safetensors

__all__ = [
    "Allocation",
    "Calibrated",
    "Heads",
    "LowRankSparse",
    "MagnitudeHistogram",
    "Pruned",
    "Threshold",
    "apply_mask",
    "apply_tokens",
    "assign",
    "block_mask",
    "budget_allocate",
    "calibrate",
    "cosine_schedule",
    "cubic_schedule",
    "erk_densities",
    "expert_align",
    "expert_groups",
    "expert_merge",
    "fedtiny_count",
    "fedtiny_send",
    "fedtiny_update",
    "global_masks",
    "global_prune",
    "global_threshold",
    "group_saliency",
    "head_neuron_search",
    "interpolate_channels",
    "lamp_scores",
    "layer_knapsack",
    "linear_schedule",
    "lowrank_plus_sparse",
    "md_dims",
    "nm_mask",
    "pack_mask",
    "prefix_mask",
    "prune_safetensors",
    "rd_curve",
    "rigl_update",
    "row_scores",
    "set_update",
    "sparsegpt",
    "sub_dimensions",
    "threshold_rows",
    "topk_ffn",
    "topk_rows",
    "uniform_densities",
    "unpack_mask",
    "wanda_mask",
]


def __getattr__(name: str) -> _Any:
    """What is done to whole checkpoints stands above this family: it is imported when it is asked for."""
    if name not in ("Pruned", "prune_safetensors"):
        raise AttributeError(f"module 'tersor.prune' has no attribute {name!r}")
    from tersor.jobs import prune

    return getattr(prune, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
