"""Norms: moments over an index set, then an affine map. The one rule: torch's names, argument order and results, statistics in
float64 whatever the type of the data.
"""

from tersor.norm.affine import as_affine, fold
from tersor.norm.evo import evonorm
from tersor.norm.functional import batch_norm, crms_norm, group_norm, instance_norm, layer_norm, region_norm
from tersor.norm.residual import add_norm
from tersor.norm.rms import _rms_norm as _rms_norm
from tersor.norm.rms import _rms_norm_bwd as _rms_norm_bwd
from tersor.norm.rms import rms_norm
from tersor.norm.running import running_rms_norm
from tersor.norm.standard import standardize
from tersor.norm.weights import weight_standardize

__all__ = [
    "add_norm",
    "as_affine",
    "batch_norm",
    "crms_norm",
    "evonorm",
    "fold",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "region_norm",
    "rms_norm",
    "running_rms_norm",
    "standardize",
    "weight_standardize",
]
