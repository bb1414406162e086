"""What a declaration may say besides its function. The one rule: each field has its reason; a name that is none is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `op`."""

    #: ``sample(draw) -> (inputs, scalars)`` for tests and benchmarks (see `tersor.testing`)
    sample: Callable[..., Any] | None = None
    #: why there is none
    unsampled: str = ""
    #: inputs that may have another float type than the data: scales
    exempt: tuple[str, ...] = ()
    #: ``{scalar: {word: number}}``, the words a scalar may be given as
    words: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    #: the inputs that go their own way along leading axes, all alike, with how many last axes belong together, where the
    #: signature cannot say it, since they have any shape
    leading: Mapping[str, int] | None = None
    #: the inputs whose leading axes a shard of a DTensor may split, with how many last axes belong together, where that is not
    #: what the signature says: the shape of a scale says to which elements it belongs
    local: Mapping[str, int] | None = None
    #: of a backward: its reference reads tensors too, and torch's autograd goes through it for second derivatives
    tensors: bool = False

    #: ``entry(input, i, n)``: what a function of several lists, n arrays each, that it hands over as one calls entry i of it
    entry: Callable[[str, int, int], str] | None = None

    # what tests ask
    #: types of data that it takes, where those are not all floats
    dtypes: tuple[str, ...] | None = None
    #: it moves values without computing with them, so that a type the tests take for wrong is right
    any_dtype: bool = False
    #: the ends of what its data must lie within: it refuses what lies beyond, as others refuse what is not finite
    within: tuple[float, float] | None = None
    #: its results are integers or decisions: compared exactly, and not differentiable
    integer: bool = False
    #: its reference computes in the type of the data, as its definition does: it is not given float64
    native: bool = False
    #: units in the last place that a result may be away from the reference, by type: sums of many terms, mostly
    tolerance: Mapping[str, float] | None = None
    #: computed in the data's own type: what a rounding of the inputs changes is allowed as well
    conditioned: bool = False
    #: whether gradients are compared with differences: not where a step leaves the domain
    gradcheck: bool = True
    #: results are points that must lie strictly inside the ball
    checks_inside: bool = False
    #: the same as `tolerance` of the GPU kernels, which compute float32 in float32 more often
    triton_tolerance: float = 16
    #: types that the GPU kernel takes, where those are fewer
    triton_dtypes: tuple[str, ...] | None = None
