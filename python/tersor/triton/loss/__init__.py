"""Losses on a GPU. The rule: what is small is made of what is small there too."""

from tersor.triton.loss.composed import info_nce as info_nce
from tersor.triton.loss.composed import info_nce_bwd as info_nce_bwd
from tersor.triton.loss.entropy import cross_entropy as cross_entropy
from tersor.triton.loss.entropy import cross_entropy_bwd as cross_entropy_bwd
