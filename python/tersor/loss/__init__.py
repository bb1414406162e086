"""Losses: of pairs of rows, and of rows of logits. The rule: a loss that is small keeps its digits, and so do its gradients."""

from tersor.loss.contrast import _info_nce as _info_nce
from tersor.loss.contrast import _info_nce_bwd as _info_nce_bwd
from tersor.loss.contrast import info_nce
from tersor.loss.entropy import cross_entropy

__all__ = ["cross_entropy", "info_nce"]
