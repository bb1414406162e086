"""torch layers over the operators. The one rule: a layer holds arrays and calls public functions, it computes nothing.

Hyperbolic layers come in two forms: tangent vectors at 0 in and out (nothing is clamped or projected between layers), or,
with ``ball=True``, points of the ball.
"""

import sys as _sys

from tersor import _made
from tersor.nn._narrow import take_inputs, take_outputs
from tersor.nn.activation import PoincareActivation, PoincareReLU
from tersor.nn.attention import PoincareAttention, attention
from tersor.nn.balanced_norm import AdaB2N
from tersor.nn.batch_norms import AlphaBatchNorm, BatchChannelNorm
from tersor.nn.batchnorm import PoincareBatchNorm
from tersor.nn.beta import beta_concat, beta_ratio, beta_split
from tersor.nn.conv import PoincareConv2d
from tersor.nn.convert import Conversion, convert
from tersor.nn.curvature import Curvature
from tersor.nn.dynamic import DynamicSparse
from tersor.nn.embedding import QuantEmbedding
from tersor.nn.evo_norm import EvoNorm2d
from tersor.nn.experts import QuantExperts
from tersor.nn.fading import ProgressiveShrink
from tersor.nn.frozen_norm import FrozenLayerNorm
from tersor.nn.gradual import GradualPruner
from tersor.nn.hops import Propagate
from tersor.nn.ib_norm import IBNorm
from tersor.nn.lift import RandomLift
from tersor.nn.linear import PoincareLinear, PoincareMLR, identity_
from tersor.nn.lorentz import LorentzAttention, LorentzBatchNorm, LorentzConv2d, LorentzLinear, LorentzMLR
from tersor.nn.map_norms import CoordinateModulation, RegionNorm
from tersor.nn.masks import Masks
from tersor.nn.norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from tersor.nn.points import HEmbedding
from tersor.nn.pool import PoincareAvgPool2d
from tersor.nn.prep_bn import PRepBN
from tersor.nn.product import ProductSpace
from tersor.nn.quant import QuantLinear
from tersor.nn.quant_conv import QuantConv2d
from tersor.nn.residual import PoincareResidual, tangent_add
from tersor.nn.row_norms import CRMSNorm, PeriNorm, TimeDependentNorm
from tersor.nn.running_norm import PowerNorm, UnifiedNorm
from tersor.nn.shrink import Shrinking, shrink
from tersor.nn.sparse import SparseConv1x1, SparseLinear
from tersor.nn.sparse_int8 import SparseInt8Linear
from tersor.nn.standardized import WSConv2d, WSLinear
from tersor.nn.subspace import Subspace
from tersor.nn.topk import TopKFFN
from tersor.nn.unified import UnifiedEmbedding
from tersor.nn.uniform import UniformDisk
from tersor.nn.wrapped_normal import WrappedNormal

__all__ = [
    "AdaB2N",
    "AlphaBatchNorm",
    "BatchChannelNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CRMSNorm",
    "Conversion",
    "CoordinateModulation",
    "Curvature",
    "DynamicSparse",
    "EvoNorm2d",
    "FrozenLayerNorm",
    "GradualPruner",
    "GroupNorm",
    "HEmbedding",
    "IBNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LorentzAttention",
    "LorentzBatchNorm",
    "LorentzConv2d",
    "LorentzLinear",
    "LorentzMLR",
    "Masks",
    "PRepBN",
    "PeriNorm",
    "PoincareActivation",
    "PoincareAttention",
    "PoincareAvgPool2d",
    "PoincareBatchNorm",
    "PoincareConv2d",
    "PoincareLinear",
    "PoincareMLR",
    "PoincareReLU",
    "PoincareResidual",
    "PowerNorm",
    "ProductSpace",
    "ProgressiveShrink",
    "Propagate",
    "QuantConv2d",
    "QuantEmbedding",
    "QuantExperts",
    "QuantLinear",
    "RMSNorm",
    "RandomLift",
    "RegionNorm",
    "Shrinking",
    "SparseConv1x1",
    "SparseInt8Linear",
    "SparseLinear",
    "Subspace",
    "TimeDependentNorm",
    "TopKFFN",
    "UnifiedEmbedding",
    "UnifiedNorm",
    "UniformDisk",
    "WSConv2d",
    "WSLinear",
    "WrappedNormal",
    "attention",
    "beta_concat",
    "beta_ratio",
    "beta_split",
    "convert",
    "identity_",
    "shrink",
    "take_inputs",
    "take_outputs",
    "tangent_add",
]

_made.open_layers(_sys.modules[__name__])
