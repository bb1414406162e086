"""Products of hyperbolic spaces. The one rule: a point is the points of the factors side by side, and what is asked of it is
asked of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersor._arrays import sizes, whole
from tersor._reference import root
from tersor._values import one_of
from tersor.nn.curvature import curvature
from tersor.nn.points import MODELS, HEmbedding


class ProductSpace(nn.Module):
    r"""The product of hyperbolic spaces of several dimensions and curvatures, with :math:`d(x, y)^2 = \sum_i d_i(x_i, y_i)^2`.

    Parameters
    ----------
    dims : sequence of int
        How many coordinates of a row belong to each factor, in order.
    c : number, Parameter or Curvature, or a sequence of them, one for each factor
        A factor has curvature -c; c = 0 is flat space. One number is a curvature of its own in every factor.
    learnable : bool
        Whether curvatures given as numbers are learned.
    model : "ball" or "lorentz"
        Whether points are those of `tersor.hyperbolic` or, as their space parts, those of `tersor.lorentz`.
    device : device
        Of the curvatures.

    Attributes
    ----------
    curvatures : ModuleList of Curvature

    Notes
    -----
    Gu, Sala, Gunel, Ré, "Learning Mixed-Curvature Representations in Product Spaces" (2019), without spheres.

    Examples
    --------
    >>> import torch
    >>> from tersor import nn
    >>> space = nn.ProductSpace([2, 3], [1.0, 0.5])
    >>> tables = space.embeddings(100)
    >>> x, y = space.join([table(torch.tensor([3, 14])) for table in tables])
    >>> space.dist(x, y).shape
    torch.Size([])
    """

    def __init__(
        self,
        dims: Sequence[int],
        c: Any = 1.0,
        *,
        learnable: bool = False,
        model: str = "ball",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.dims = tuple(whole("ProductSpace: dims", d) for d in dims)
        if not self.dims or min(self.dims) < 1:
            raise ValueError(f"ProductSpace: dims must be positive numbers, got {list(dims)}")
        one_of("ProductSpace: model", model, MODELS)
        several = list(c) if isinstance(c, (list, tuple)) else [c] * len(self.dims)
        if len(several) != len(self.dims):
            raise ValueError(f"ProductSpace: {len(several)} curvatures for {len(self.dims)} factors")
        self.model = model
        self.curvatures = nn.ModuleList(curvature(one, learnable, device) for one in several)

    @property
    def space(self) -> Any:
        return MODELS[self.model]

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The points of the factors, as views of the rows."""
        if not isinstance(x, Tensor) or not x.ndim or x.shape[-1] != sum(self.dims):
            got = sizes(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"ProductSpace: rows of {sum(self.dims)} coordinates are needed, got {got}")
        return x.split(self.dims, -1)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows of the points of all factors."""
        sizes = tuple(p.shape[-1] for p in parts)
        if sizes != self.dims:
            raise ValueError(f"ProductSpace: factors have {list(self.dims)} coordinates, got {list(sizes)}")
        return torch.cat(list(parts), -1)

    def embeddings(self, num_embeddings: int, **options: Any) -> nn.ModuleList:
        """A table of points for each factor (`HEmbedding`), which tells optimisers where it lives."""
        return nn.ModuleList(
            HEmbedding(num_embeddings, d, c, model=self.model, **options)
            for d, c in zip(self.dims, self.curvatures, strict=True)
        )

    def _each(self, f: Callable[..., Tensor], *xs: Tensor) -> list[Tensor]:
        parts = zip(*map(self.split, xs), strict=True)
        return [f(*part, c()) for part, c in zip(parts, self.curvatures, strict=True)]

    def expmap0(self, v: Tensor) -> Tensor:
        """Points of tangent vectors at the origin [..., Σ dims]."""
        return self.join(self._each(self.space.expmap0, v))

    def logmap0(self, x: Tensor) -> Tensor:
        """Tangent vectors at the origin of points."""
        return self.join(self._each(self.space.logmap0, x))

    def expmap(self, x: Tensor, v: Tensor) -> Tensor:
        """Points of tangent vectors v at points x."""
        return self.join(self._each(self.space.expmap, x, v))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Tangent vectors at points x that lead to points y."""
        return self.join(self._each(self.space.logmap, x, y))

    def dist2(self, x: Tensor, y: Tensor) -> Tensor:
        """Squared distances, with all their derivatives."""
        return torch.stack(self._each(self.space.dist2, x, y)).sum(0)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances; the gradient between equal points is 0."""
        d: Tensor = root(torch.stack(self._each(self.space.dist, x, y)).square().sum(0))
        return d

    def cdist(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances of all points x [..., N, Σ dims] to all points y [..., M, Σ dims]."""
        d: Tensor = root(sum(d.square() for d in self._each(self.space.cdist, x, y)))
        return d

    def extra_repr(self) -> str:
        return f"{list(self.dims)}" + ("" if self.model == "ball" else f", model={self.model!r}")
