"""A fixed random map as a layer. The one rule: it has no numbers, neither trained nor stored."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tersor._arrays import is_tensor, sizes
from tersor._values import check_values
from tersor.project import Projection


class RandomLift(nn.Module):
    r"""A random projection to k dimensions, more or fewer, that is never trained: :math:`x \mapsto Px` with
    :math:`\mathbb E\|Px\|^2 = \|x\|^2`.

    Parameters
    ----------
    d, k : int
        Dimensions from and to.
    kind : str
        As of `tersor.project.Projection`.
    seed : int
    **own : what the kind has of its own (s, c, blocks, g)

    Raises
    ------
    TypeError, ValueError
        As `Projection`.

    Notes
    -----
    No state is saved: the description is all there is. The wide residual stream of an hourglass network begins with such a
    lift: "Rethinking the shape convention of an MLP" (2025).
    """

    def __init__(self, d: int, k: int, kind: str = "gaussian", *, seed: int = 0, **own: Any) -> None:
        super().__init__()
        self.projection = Projection(d, k, kind, seed=seed, **own)

    def forward(self, x: Tensor) -> Tensor:
        who, d = type(self).__name__, self.projection.d
        if not is_tensor(x):
            raise TypeError(f"{who}: x must be a torch tensor, got {type(x).__name__}")
        check_values(who, "x", x)
        if not x.ndim or x.shape[-1] != d:
            raise ValueError(f"{who}: the last axis of x must be {d}, got shape {sizes(x.shape)}")
        y: Tensor = self.projection(x)
        return y

    def extra_repr(self) -> str:
        return repr(self.projection)
