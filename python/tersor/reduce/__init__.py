"""Reductions over what belongs together: segments and equal rows. The one rule: labels are data, and what is equal is decided
exactly.
"""

from tersor._segments import Moments
from tersor.reduce.ids import RowIds, row_ids
from tersor.reduce.segments import merge_moments, segment_moments, segment_reduce

__all__ = ["Moments", "RowIds", "merge_moments", "row_ids", "segment_moments", "segment_reduce"]
