"""Codebooks: the codes of rows, and codebooks of rows. The one rule: of equally near codes the first is taken, and no array of
all rows and all codes is made.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import FLOATS, Array, dtype_name, is_tensor, whole
from tersor._op import op
from tersor._sample import Draw
from tersor.quant._arguments import detached, one_of

METRICS = {"l2": 0, "ip": 1, "cosine": 2}


def _pairs(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    n = int(np.prod(draw.lead))
    metrics = 3 if draw.d > 1 else 2  # cosines of one number tie
    return [draw.normal(n, draw.d), draw.normal(7, draw.d)], {"top": 1 + draw.seed % 3, "metric": draw.seed % metrics}


def _labelled(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    n = int(np.prod(draw.lead))
    return [draw.normal(n, draw.d), draw.rng.integers(0, 5, n)], {"k": 5}


@op(sample=_pairs, native=True, integer=True)
def _codebook_assign(x: Array, c: Array, top: int = 1, metric: int = 0) -> Array:
    """The places of the `top` best rows of c for each row of x: least |x - c|^2, greatest <x, c>, greatest cosine."""
    x, c = np.asarray(x, np.float64), np.asarray(c, np.float64)
    if metric == 0:
        scores = ((x[:, None] - c) ** 2).sum(-1)
    else:
        scores = -(x[:, None] * c).sum(-1)
    if metric == 2:
        x, c = (v / np.where(v.any(-1, keepdims=True), np.abs(v).max(-1, keepdims=True, initial=0), 1) for v in (x, c))
        scores = -(x[:, None] * c).sum(-1)
        size = np.sqrt((x * x).sum(-1))[:, None] * np.sqrt((c * c).sum(-1))
        scores = np.where(size == 0, 0, scores / np.where(size == 0, 1, size))
    return np.argsort(scores, 1, kind="stable")[:, :top]


@op(sample=_labelled)
def _codebook_sums(x: Array, labels: Array, k: int = 1) -> tuple[Array, Array]:
    """The sum of the rows of each label, and how many they are."""
    total, size = np.zeros((k, x.shape[1])), np.zeros(k)
    np.add.at(total, labels, np.asarray(x, np.float64))
    np.add.at(size, labels, 1.0)
    return total, size


def codebook_assign(x: Array, c: Array, *, k: int = 1, metric: str = "l2") -> Array:
    r"""The codes of rows: the places of the nearest rows of a codebook, without an array of all pairs.

    Parameters
    ----------
    x : array or tensor ``[n, d]``
    c : array or tensor ``[K, d]`` of x's dtype
        The codebook.
    k : int
        How many codes a row is given, the best first.
    metric : "l2", "ip" or "cosine"
        The least distance, the greatest inner product or the greatest cosine; the cosine of a zero row is 0.

    Returns
    -------
    int64 array or tensor, ``[n]`` for k = 1 and ``[n, k]`` else; of equally good codes the first

    Raises
    ------
    TypeError
        If x and c are not floats of one type.
    ValueError
        If shapes do not fit, x or c hold non-finite values, or k is not within 1 and K.

    Notes
    -----
    2 n K d operations in tiles, scores summed in float64; for d = 1, k = 1 and distances a search in the codebook in order,
    n log K. It has no gradient: see Guo et al., "Codebook Features" (2023), for a straight-through one.
    """
    name = "codebook_assign"
    x, c, k = detached(name, x), _codebook(name, c, x), whole(f"{name}: k", k)
    number = one_of(name, "metric", metric, METRICS)
    if c.ndim == 2 and not 1 <= k <= max(c.shape[0], 1):
        raise ValueError(f"{name}: k must lie within 1 and the {c.shape[0]} rows of c, got {k}")
    labels = _codebook_assign(x, c, k, number)
    return labels.reshape(-1) if k == 1 else labels


def _codebook(name: str, c: Array, x: Array) -> Array:
    if not (isinstance(c, np.ndarray) or is_tensor(c)):
        raise TypeError(
            f"{name}: c must be a {'torch tensor' if is_tensor(x) else 'NumPy array'}, got {type(c).__name__}"
        )
    return c.detach() if is_tensor(c) else c


class Codebook(NamedTuple):
    """The state of a codebook that follows the mean of its rows."""

    code: Any
    size: Any
    total: Any


def codebook_ema(code: Any, size: Array, total: Array, x: Array, *, decay: float = 0.99, eps: float = 1e-5) -> Codebook:
    r"""A codebook that follows the means of its rows: one step of exponential averages.

    With :math:`n_j` rows of x nearest to code j: :math:`size_j \leftarrow \lambda\,size_j + (1 - \lambda) n_j`,
    :math:`total_j \leftarrow \lambda\,total_j + (1 - \lambda) \sum x`, and :math:`code_j = total_j / \tilde n_j`,
    :math:`\tilde n_j = (size_j + \epsilon)\,N / (N + K \epsilon)`, :math:`N = \sum size`.

    Parameters
    ----------
    code : array or tensor ``[K, d]``
        The codebook; or integers ``[n]``, the codes that the rows of x have been assigned already.
    size : array or tensor ``[K]``
    total : array or tensor ``[K, d]``
        The averages so far.
    x : array or tensor ``[n, d]``
    decay : float
        :math:`\lambda`, within 0 and 1.
    eps : float
        What keeps a code without rows from a division by 0: its code moves towards 0, unless its size and eps are 0, where a
        given codebook keeps its code.

    Returns
    -------
    Codebook(code, size, total), new arrays like the old ones, a code like total

    Raises
    ------
    TypeError
        If arrays are not of the kinds above.
    ValueError
        If shapes do not fit, x holds non-finite values, or decay or eps are out of range.

    Notes
    -----
    Sums are float64, in one order whatever the threads. van den Oord, Vinyals, Kavukcuoglu, "Neural Discrete Representation
    Learning" (2017), appendix A.1, with the smoothing of its authors' code.
    """
    name = "codebook_ema"
    x, size, total = (detached(name, v) for v in (x, size, total))
    if not 0 <= decay <= 1:
        raise ValueError(f"{name}: decay must lie within 0 and 1, got {decay}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"{name}: eps must be finite and not negative, got {eps}")
    if total.ndim != 2 or tuple(size.shape) != tuple(total.shape[:1]) or x.ndim != 2 or x.shape[1] != total.shape[1]:
        shapes = f"size {tuple(size.shape)}, total {tuple(total.shape)}, x {tuple(x.shape)}"
        raise ValueError(f"{name}: arrays [K], [K, d] and [n, d] are needed, got {shapes}")
    for what, v in (("x", x), ("size", size), ("total", total)):
        if not bool(_library(v).isfinite(v).all()):
            raise ValueError(f"{name}: {what} holds non-finite values")
    assigned = hasattr(code, "dtype") and dtype_name(code.dtype) not in FLOATS
    labels = code if assigned else codebook_assign(x, code)
    sums, counts = _codebook_sums(x, _long(labels), int(size.shape[0]))
    new_size = decay * _wide(size) + (1 - decay) * counts
    new_total = decay * _wide(total) + (1 - decay) * sums
    n = new_size.sum()
    smooth = (new_size + eps) * (n / (n + new_size.shape[0] * eps)) if eps else new_size
    empty = (smooth == 0)[:, None]
    where = _library(x).where
    codes = where(empty, 0.0 if assigned else _wide(code), new_total / where(empty, 1.0, smooth[:, None]))
    return Codebook(_like(codes, total), _like(new_size, size), _like(new_total, total))


def _library(x: Array) -> Any:
    if is_tensor(x):
        import torch

        return torch
    return np


def _long(x: Array) -> Array:
    return x.long() if is_tensor(x) else np.asarray(x, np.int64)


def _wide(x: Array) -> Array:
    return x.detach().double() if is_tensor(x) else np.asarray(x, np.float64)


def _like(y: Array, x: Array) -> Array:
    return y.to(x.dtype) if is_tensor(x) else y.astype(x.dtype)
