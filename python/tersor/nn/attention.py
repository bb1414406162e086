r"""Attention. The one rule: a query looks at the keys by their distances, and what it sees is the midpoint of the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersor import hyperbolic
from tersor._arrays import sizes
from tersor.hyperbolic._words import margin
from tersor.nn._cast import accept, autocast_type, exactly, positive
from tersor.nn.beta import beta_concat, beta_split
from tersor.nn.curvature import Curvature, curvature
from tersor.nn.linear import PoincareLinear


def shares(distances: Tensor, scale: Any, mask: Tensor | None) -> Tensor:
    r""":math:`\operatorname{softmax}(-\text{scale}\cdot d)` where a query may look; zeros where it may look nowhere."""
    logits = -scale * distances
    if mask is None:
        return torch.softmax(logits, -1)
    weights = torch.softmax(logits.masked_fill(~mask, -torch.inf), -1)
    return torch.where(mask.any(-1, keepdim=True), weights, 0)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    c: Any = 1.0,
    *,
    scale: Any = 1.0,
    mask: Tensor | None = None,
    ball: bool = False,
    eps: float | str = "tight",
) -> Tensor:
    r"""Midpoints of values, weighed by :math:`\operatorname{softmax}(-\text{scale}\cdot d(q, k))`.

    Parameters
    ----------
    q : tensor [..., N, d]; k : tensor [..., M, d]; v : tensor [..., M, e]
        Points of the ball, or tangent vectors at the origin.
    c : float or 0-d tensor
        The ball has curvature -c.
    scale : float or tensor that broadcasts to [..., N, M]
        The inverse temperature.
    mask : bool tensor that broadcasts to [..., N, M], or None
        Where a query may look; a query that may look nowhere sees the origin.
    ball : bool
        Which of the two forms.
    eps : float or str
        How far inside the ball results stay.

    Returns
    -------
    tensor [..., N, e]
        In the form of v.

    Notes
    -----
    Gulcehre et al., "Hyperbolic attention networks" (2019); Shimizu et al. (2021), section 3.5.
    """
    if autocast_type(q) is not None:
        return exactly(attention, q, k, v, c, scale=scale, mask=mask, ball=ball, eps=eps)
    if not ball:
        q, k, v = (hyperbolic.expmap0(x, c) for x in (q, k, v))
    weights = shares(hyperbolic.cdist(q, k, c), scale, mask)
    y: Tensor = hyperbolic.weighted_midpoint_bmm(v, weights.to(v.dtype), c, eps)
    return y if ball else hyperbolic.logmap0(y, c)


class Attention(nn.Module):
    """What attention layers have in common: four linear layers, a scale for each head, and queries that stand for keys and
    values which are not given."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        shared: Curvature,
        linear: Callable[[], nn.Module],
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        positive(self, embed_dim=embed_dim, num_heads=num_heads)
        if embed_dim % num_heads:
            raise ValueError(f"{type(self).__name__}: {num_heads} heads do not divide {embed_dim}")
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.curvature = shared
        self.q, self.k, self.v, self.out = linear(), linear(), linear(), linear()
        self.log_scale = nn.Parameter(torch.zeros(num_heads, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """The scales of the heads; the layers within have their own first weights."""
        nn.init.zeros_(self.log_scale)

    def forward(
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """[..., N, embed_dim] from queries [..., N, embed_dim], keys and values [..., M, embed_dim] (None: the queries)."""
        key = query if key is None else key
        value = key if value is None else value
        for x in (query, key, value):
            accept(self, x, self.embed_dim, like=self.log_scale)
            if x.ndim < 2:
                who = type(self).__name__
                raise ValueError(f"{who}: the input must be [..., N, {self.embed_dim}], got shape {sizes(x.shape)}")
        c, scale = self.curvature(), self.log_scale.exp()[:, None, None]
        q, k, v = (self._heads(y, c) for y in (self.q(query), self.k(key), self.v(value)))
        y: Tensor = self.out(self._joined(self._attend(q, k, v, c, scale, mask), c))
        return y

    def _heads(self, x: Tensor, c: Any) -> Tensor:
        """[..., N, embed_dim] as [..., heads, N, embed_dim / heads]."""
        raise NotImplementedError

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, c: Any, scale: Tensor, mask: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _joined(self, heads: Tensor, c: Any) -> Tensor:
        """The reverse of `_heads`."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, num_heads={self.num_heads}"


class PoincareAttention(Attention):
    """Multi-head attention: hyperbolic layers make queries, keys and values, heads are β-split and β-concatenated.

    Parameters
    ----------
    embed_dim, num_heads : int
        The second divides the first.
    bias, c, learnable, ball, eps, device, dtype
        As `PoincareLinear` takes them.

    Attributes
    ----------
    log_scale : [num_heads], the logarithm of each head's inverse temperature
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 1,
        bias: bool = True,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        learnable: bool = False,
        ball: bool = False,
        eps: float | str = "tight",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        own = curvature(c, learnable, device)

        def linear() -> PoincareLinear:
            return PoincareLinear(embed_dim, embed_dim, bias, own, ball=ball, eps=eps, device=device, dtype=dtype)

        super().__init__(embed_dim, num_heads, own, linear, device, dtype)
        self.ball, self.eps = ball, margin(type(self).__name__, "eps", eps)

    @property
    def _form(self) -> dict[str, Any]:
        return {"ball": self.ball, "eps": self.eps}

    def _heads(self, x: Tensor, c: Any) -> Tensor:
        return torch.stack(beta_split(x, self.embed_dim // self.num_heads, c=c, **self._form), -3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, c: Any, scale: Tensor, mask: Tensor | None) -> Tensor:
        return exactly(attention, q, k, v, c, scale=scale, mask=mask, **self._form)

    def _joined(self, heads: Tensor, c: Any) -> Tensor:
        return beta_concat(heads.unbind(-3), c=c, **self._form)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", ball" if self.ball else "")
