"""Hops over a graph as a layer. The one rule: what is trained is the gate of the hops, the graph is given at each call."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tersor import graph
from tersor._arrays import whole
from tersor._values import check_values, one_of
from tersor.graph.propagate import check_hops
from tersor.nn._cast import exactly

#: numbers of a gate's vector, in channels
GATES = {"dagnn": 1, "air": 2}


class Propagate(nn.Module):
    r"""K hops of features over a graph, added by gates that are learned, :math:`\sum_k \theta_{ik} H_k[i]`.

    Parameters
    ----------
    K : int
        How many hops.
    channels : int
        Numbers of a node.
    gate : "dagnn" or "air"
        :math:`\theta_{ik} = \sigma(\langle w, H_k[i]\rangle + b)`, or
        :math:`\operatorname{softmax}_k\,\sigma(\langle w, [H_0[i] \mid H_k[i]]\rangle + b)`.
    norm, self_loops, teleport, storage : as of `tersor.graph.propagate`

    Attributes
    ----------
    weight : parameter [channels], or [2 channels] of "air"
    bias : parameter [1]

    Raises
    ------
    TypeError
        If a number is no integer, norm neither a word nor two numbers, or storage no float type.
    ValueError
        If K is negative, channels is not positive, the gate, the norm or loops are unknown, or teleport is not within 0 and 1;
        when called, as `tersor.graph.propagate`.

    Notes
    -----
    ``layer(A, X)`` takes what `tersor.graph.adjacency` takes; a matrix that was made once (`tersor.graph.normalized_adjacency`,
    with ``norm="none", self_loops=False`` here) serves all calls. Of the hops no stack is made, but what their gradients need.
    Under autocast the sums run in float32. Liu, Gao, Ji (DAGNN, 2020); Zhang et al. (AIR, 2022).
    """

    def __init__(
        self,
        K: int,
        channels: int,
        gate: str = "dagnn",
        *,
        norm: Any = "sym",
        self_loops: bool | str = True,
        teleport: float = 0.0,
        storage: Any = None,
    ) -> None:
        super().__init__()
        self.hops, self.channels = whole("Propagate: K", K), whole("Propagate: channels", channels)
        if self.hops < 0 or self.channels < 1:
            raise ValueError(f"Propagate: K must not be negative and channels positive, got {K} and {channels}")
        parts = one_of("Propagate: gate", gate, GATES)
        check_hops("Propagate", norm, self_loops, teleport, storage)
        self.gate = gate
        self.options = {"norm": norm, "self_loops": self_loops, "teleport": teleport, "storage": storage}
        self.weight = nn.Parameter(torch.empty(parts * self.channels))
        self.bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As those of ``torch.nn.Linear`` with one output."""
        bound = 1 / math.sqrt(len(self.weight))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, A: Any, X: Tensor) -> Tensor:
        if not isinstance(X, Tensor):
            raise TypeError(f"Propagate: X must be a torch tensor, got {type(X).__name__}")
        check_values("Propagate", "X", X)
        if X.ndim < 2 or X.shape[-1] != self.channels:
            raise ValueError(
                f"Propagate: X must be [n, {self.channels}] or [b, n, {self.channels}], got {tuple(X.shape)}"
            )

        def hops(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
            y: Tensor = graph.propagate(A, x, self.hops, keep="sum", gate=(w, b), **self.options)
            return y

        return exactly(hops, X, self.weight, self.bias)

    def extra_repr(self) -> str:
        return ", ".join(
            [f"{self.hops}, {self.channels}, {self.gate!r}", *(f"{k}={v!r}" for k, v in self.options.items())]
        )
