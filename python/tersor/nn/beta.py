r"""β-concatenation and β-splitting. The one rule: tangent vectors at 0 are scaled so that the expected norm does not depend on
how a vector is cut, :math:`\beta_n = B(n/2, 1/2)`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tersor import hyperbolic
from tersor.nn._cast import autocast_type, exactly


def beta_ratio(part: int, whole: int) -> float:
    """B(whole/2, 1/2)/B(part/2, 1/2): what vectors of `part` dimensions are multiplied with to become a part of one of
    `whole`."""
    if part < 1 or whole < 1:
        raise ValueError(f"beta_ratio: dimensions are positive, got {part} and {whole}")

    def log_beta(n: int) -> float:
        return math.lgamma(n / 2) - math.lgamma((n + 1) / 2)

    return math.exp(log_beta(whole) - log_beta(part))


def beta_concat(
    xs: Sequence[Tensor], dim: int = -1, *, c: Any = 1.0, ball: bool = False, eps: float | str = "tight"
) -> Tensor:
    r"""One vector of several, each multiplied with :math:`\beta_n/\beta_{n_i}` as a tangent vector at 0.

    Parameters
    ----------
    xs : sequence of tensors
        Alike but for the size n_i along `dim`; their sizes add up to n.
    dim : int
        The axis of the vectors.
    c, eps
        With `ball`, the curvature, and how far inside the ball results stay.
    ball : bool
        Whether vectors are points of the ball; else tangent vectors at the origin.

    Returns
    -------
    tensor
        In the form of xs.

    Notes
    -----
    Shimizu et al., "Hyperbolic neural networks++" (2021), section 3.3.
    """
    if autocast_type(xs[0]) is not None:
        return exactly(beta_concat, list(xs), dim, c=c, ball=ball, eps=eps)
    whole = sum(x.shape[dim] for x in xs)
    tangents = [hyperbolic.logmap0(x, c, dim=dim) for x in xs] if ball else xs
    y = torch.cat([v * beta_ratio(v.shape[dim], whole) for v in tangents], dim)
    return hyperbolic.expmap0(y, c, eps, dim=dim) if ball else y


def beta_split(
    x: Tensor,
    sizes: int | Sequence[int],
    dim: int = -1,
    *,
    c: Any = 1.0,
    ball: bool = False,
    eps: float | str = "tight",
) -> tuple[Tensor, ...]:
    """The inverse of `beta_concat`: vectors of the sizes given (or of one size each) out of one.

    Parameters
    ----------
    x : tensor
        Vectors along `dim`.
    sizes : int or sequence of int
        As ``torch.split`` takes them.
    dim, c, ball, eps
        As `beta_concat` takes them.

    Returns
    -------
    tuple of tensors
        In the form of x.
    """
    if autocast_type(x) is not None:
        return exactly(beta_split, x, sizes, dim, c=c, ball=ball, eps=eps)
    v = hyperbolic.logmap0(x, c, dim=dim) if ball else x
    whole = x.shape[dim]
    parts = [p * beta_ratio(whole, p.shape[dim]) for p in torch.split(v, sizes, dim)]
    return tuple(hyperbolic.expmap0(p, c, eps, dim=dim) if ball else p for p in parts)
