"""A table of points of hyperbolic space. The one rule: c is said here once, and the table tells it to who asks: distances,
neighbours, optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersor import hyperbolic, lorentz
from tersor._arrays import sizes, whole
from tersor._values import one_of
from tersor.nn._cast import positive
from tersor.nn.curvature import Curvature, curvature
from tersor.norm._arguments import checked_eps

#: the models of hyperbolic space, by the families that have their maps
MODELS: dict[str, Any] = {"ball": hyperbolic, "lorentz": lorentz}


class HEmbedding(nn.Module):
    r"""A table of points, :math:`y_i = W_{x_i}`, rows of the ball or of the hyperboloid.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows, and numbers in each.
    c : float, Parameter or Curvature
        Points are of curvature -c; see `PoincareLinear`.
    padding_idx : int, optional
        A row that is the origin and has no gradient.
    learnable : bool
        Whether a curvature given as a number is learned.
    model : "ball" or "lorentz"
        Whether points are those of `tersor.hyperbolic` or, as their space parts, those of `tersor.lorentz`.
    sparse : bool
        Whether gradients name the rows that were looked up and no others, as in ``torch.nn.Embedding``.
    std : float
        The points at first are :math:`\exp_0` of normal vectors of this deviation.
    init : callable, optional
        Fills a tensor of tangent vectors at the origin in place, in place of that: one of ``torch.nn.init``.
    device, dtype
        Of the points.

    Attributes
    ----------
    weight : [num_embeddings, embedding_dim], the points
    curvature : Curvature
    space : `tersor.hyperbolic` or `tersor.lorentz`, whose functions are for these points

    Raises
    ------
    ValueError
        If a size is not positive, a row is not there or the model is unknown.

    Notes
    -----
    `weight` says where it lives: ``optim.RiemannianAdam(net.parameters())`` moves it along geodesics of the present curvature,
    beside whatever else the net has, a learned curvature too. Nickel, Kiela, "Poincaré Embeddings" (2017).

    Examples
    --------
    >>> import torch
    >>> from tersor import nn, optim
    >>> table = nn.HEmbedding(100, 5, c=0.5, sparse=True)
    >>> optimizer = optim.RiemannianSGD(table.parameters(), lr=0.3)
    >>> near, far = table(torch.tensor([[3, 14], [15, 92]])).unbind(1)
    >>> table.dist(near, far).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        c: float | nn.Parameter | Curvature = 1.0,
        padding_idx: int | None = None,
        *,
        learnable: bool = False,
        model: str = "ball",
        sparse: bool = False,
        std: float = 0.01,
        init: Callable[[Tensor], Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        padding_idx = None if padding_idx is None else whole("HEmbedding: padding_idx", padding_idx)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"HEmbedding: padding_idx must be one of {num_embeddings} rows, got {padding_idx}")
        one_of("HEmbedding: model", model, MODELS)
        self.num_embeddings, self.embedding_dim, self.sparse = num_embeddings, embedding_dim, sparse
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.model, self.std, self.init = model, checked_eps("HEmbedding", std, "std"), init
        self.curvature = curvature(c, learnable, device)
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "weight":  # also what others put there: sharded ones, say
            self._tell()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._tell()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HEmbedding:
        super()._apply(fn, recurse)
        self._tell()
        return self

    def _tell(self) -> None:
        weight: Any = self.weight
        weight.curvature, weight.model = self.curvature, self.model

    @property
    def space(self) -> Any:
        return MODELS[self.model]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Points near the origin, as `std` or `init` say."""
        v: Any = torch.empty_like(self.weight)
        nn.init.normal_(v, std=self.std) if self.init is None else self.init(v)
        if self.padding_idx is not None:
            v[self.padding_idx] = 0
        self.weight.copy_(self.space.expmap0(v, self.curvature()))

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.dtype not in (torch.int64, torch.int32):
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"HEmbedding: the input must be a tensor of int64 or int32, got {got}")
        try:
            return nn.functional.embedding(x, self.weight, self.padding_idx, sparse=self.sparse)
        except IndexError:
            low, high = int(x.min()), int(x.max())
            raise IndexError(
                f"HEmbedding: rows {low} to {high} are asked for, there are {self.num_embeddings}"
            ) from None

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances of points [..., d], rows of the table or others of its space."""
        d: Tensor = self.space.dist(x, y, self.curvature())
        return d

    def cdist(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Distances of all points x [..., N, d] to all points y [..., M, d]; None: to all rows of the table."""
        d: Tensor = self.space.cdist(x, self.weight if y is None else y, self.curvature())
        return d

    @torch.no_grad()
    def nearest(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances and indices [N, k] of the rows that are nearest to the rows x [N] of the table, without those themselves.

        Of equal distances the lowest index comes first. On the hyperboloid all distances are made first.
        """
        if not isinstance(x, Tensor) or x.ndim != 1:
            got = sizes(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"HEmbedding: nearest takes indices [N], got {got}")
        if not 0 <= whole("HEmbedding: k", k) < self.num_embeddings:
            raise ValueError(f"HEmbedding: k must be between 0 and {self.num_embeddings - 1} other rows, got {k}")
        points = self(x)
        if self.model == "ball":
            d, at = hyperbolic.knn(points, self.weight, k + 1, self.curvature())
        else:
            d, at = hyperbolic.pairwise.nearest(self.cdist(points), k + 1)
        return hyperbolic.pairwise.without(d, at, x[:, None])

    def extra_repr(self) -> str:
        form = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        form += "" if self.model == "ball" else f", model={self.model!r}"
        return f"{self.num_embeddings}, {self.embedding_dim}{form}" + (", sparse=True" if self.sparse else "")
