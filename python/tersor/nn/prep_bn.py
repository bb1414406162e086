r"""A norm of rows that becomes one of batches, and ends in the layer behind it. The one rule: what is folded gives what the
norm and the layer gave.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from tersor import norm
from tersor._arrays import sizes, whole
from tersor.nn._cast import exactly
from tersor.nn.batch_norms import Told
from tersor.nn.norm import ends
from tersor.norm._arguments import real

__all__ = ["PRepBN"]


def into(who: str, layer: Any, scale: Tensor, shift: Tensor, centred: bool = False) -> nn.Linear:
    """A copy of a linear layer with an affine map of its inputs in it, and with their mean taken away before that."""
    if type(layer) is not nn.Linear:
        raise TypeError(f"{who}.fold: a torch.nn.Linear is needed, got {type(layer).__name__}")
    if scale.shape != (layer.in_features,):
        raise ValueError(
            f"{who}.fold: the layer takes {layer.in_features} numbers, the norm gives {tuple(scale.shape)}"
        )
    weight, bias = norm.fold(layer.weight, layer.bias, scale, shift, "before")
    new = copy.deepcopy(layer)
    new.weight = nn.Parameter(weight - weight.mean(1, keepdim=True) if centred else weight)
    new.bias = nn.Parameter(bias)
    return new


class PRepBN(Told):
    r"""A layer norm that becomes a batch norm while it is trained, :math:`\lambda\,\mathrm{LN}(x) + (1 - \lambda)
    (\mathrm{BN}(x) + \alpha x)`, both with one affine map.

    λ falls from 1 to 0 over ``decay_steps`` batches in training, and holds in evaluation. At 0 an affine map is left,
    which `fold` puts into the layer behind.

    Parameters
    ----------
    dim : int
        The last axis of the input.
    alpha : float
        α at first; it is learned.
    decay_steps : int
    eps, momentum, device, dtype
        As of ``torch.nn.BatchNorm1d``.

    Attributes
    ----------
    weight, bias, running_mean, running_var : [dim]
    alpha : [1]

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range.

    Notes
    -----
    Guo et al., "SLAB: Efficient Transformers with Simplified Linear Attention and Progressive Re-parameterized Batch
    Normalization" (2024); unlike the authors' code λ holds in evaluation too.

    Examples
    --------
    >>> import torch
    >>> layer = PRepBN(8, decay_steps=2)
    >>> for _ in range(2):
    ...     _ = layer(torch.randn(4, 3, 8))
    >>> x, linear = torch.randn(4, 3, 8), torch.nn.Linear(8, 2)
    >>> want = linear(layer.eval()(x))
    >>> torch.allclose(layer.fold(linear)(x), want, atol=1e-5)
    True
    """

    def __init__(
        self,
        dim: int,
        alpha: float = 1.0,
        decay_steps: int = 10_000,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(dim, eps, momentum, True, device, dtype)
        self.decay_steps, self.first = whole("PRepBN: decay_steps", decay_steps), real("PRepBN", "alpha", alpha)
        if not abs(self.first) < math.inf:
            raise ValueError(f"PRepBN: alpha must be finite, got {alpha}")
        if self.decay_steps < 1:
            raise ValueError(f"PRepBN: decay_steps must be positive, got {decay_steps}")
        self.alpha = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit scale, no shift, the first α, and no batches."""
        super().reset_parameters()
        if hasattr(self, "alpha"):
            nn.init.constant_(self.alpha, self.first)

    @property
    def share(self) -> Tensor:
        """λ of the next batch."""
        return (1 - self.num_batches_tracked.double() / self.decay_steps).clamp_min(0)

    def forward(self, input: Tensor) -> Tensor:
        ends(self, input)
        return exactly(self._mixed, input, self.weight, self.bias, self.alpha)

    @property
    def normalized_shape(self) -> tuple[int]:
        """As of a layer norm."""
        return (self.num_features,)

    def _mixed(self, x: Tensor, weight: Tensor, bias: Tensor, alpha: Tensor) -> Tensor:
        rows, part = x.reshape(-1, self.num_features), self.share
        if self.training and len(rows) == 1:
            raise ValueError(f"PRepBN: one row has no variance, got shape {sizes(x.shape)}")
        layer = norm.layer_norm(rows, self.num_features, weight, bias, self.eps)
        rate = self._factor() if len(rows) else 0.0
        running = (self.running_mean, self.running_var)
        batch = norm.batch_norm(rows, *running, weight, bias, self.training and len(rows) > 0, rate, self.eps)
        if len(rows):
            self._count()
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        # stacked, so that torch.compile keeps them: what is pointwise it takes again, of a count that has moved on by then
        part, rest = torch.stack((part, 1 - part)).to(kind)
        batch = batch + alpha.to(x.dtype) * rows
        return (part * layer.to(kind) + rest * batch.to(kind)).to(x.dtype).reshape(x.shape)

    @torch.no_grad()
    def fold(self, linear: nn.Linear) -> nn.Linear:
        """A copy of the layer behind with this norm in it, as it is in evaluation.

        Raises
        ------
        TypeError
            If the layer is no ``torch.nn.Linear``.
        ValueError
            If λ is not yet 0, or the layer takes another number of inputs.
        """
        if float(self.share) > 0:
            raise ValueError(f"PRepBN.fold: λ is {float(self.share):.3g} still, a part is the rows' own norm")
        affine = norm.as_affine(
            self.running_mean, self.running_var, self.weight, self.bias, self.eps, float(self.alpha)
        )
        return into("PRepBN", linear, *affine)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, decay_steps={self.decay_steps}"
