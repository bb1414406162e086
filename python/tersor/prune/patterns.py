"""Masks with a pattern: n of every m neighbours, whole blocks. The one rule: the order of selection is that of all masks, of
equals the lowest index is kept."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tersor._arrays import Number, Ranked, an_axis, dtype_name, is_tensor, whole
from tersor._keys import FORMATS, NAN
from tersor._op import op
from tersor._reference import quiet, wide, xp
from tersor._sample import Draw
from tersor._values import one_of
from tersor.prune._bytes import widened
from tersor.prune._operators import _keys
from tersor.prune.masks import global_masks

Array = Any

#: the most elements of a group, as in `groups.rs`
MOST = 16


def _nm_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    m = int(draw.rng.integers(1, MOST + 1))
    x = draw.rng.standard_normal((*draw.lead, draw.d, m)) * draw.scale
    if draw.seed % 2:  # ties
        x = np.round(x)
    scalars = {"n": int(draw.rng.integers(0, m + 1)), "m": m, "format": FORMATS.index(draw.dtype)}
    return [draw.cast(x).reshape(*draw.lead, draw.d * m)], scalars | {"signed": bool(draw.rng.integers(2))}


@op(sample=_nm_sample, integer=True)
def _nm_mask(x: Array, n: int, m: int, format: int, signed: bool = False, nan: int = 0) -> Array:
    """Which elements are among the n largest of their group of m."""
    keys = _keys(x, format, signed, nan)
    order = np.argsort(~keys.reshape(-1, m), axis=-1, kind="stable")
    mask = np.zeros(order.shape, bool)
    np.put_along_axis(mask, order[:, :n], True, -1)
    return mask.reshape(keys.shape)


def nm_of(who: str, nm: Any) -> tuple[int, int]:
    """A pattern that is said by two numbers, or by text like "2:4"."""
    if isinstance(nm, str):
        nm = tuple(int(v) if v.isdecimal() else v for v in nm.split(":"))
    if not isinstance(nm, (tuple, list)) or len(nm) != 2:
        raise TypeError(f"{who}: nm must be two numbers or text like '2:4', got {nm!r}")
    return pattern(who, *nm)


def pattern(who: str, n: int, m: int) -> tuple[int, int]:
    """n of m, checked."""
    n, m = whole(f"{who}: n", n), whole(f"{who}: m", m)
    if not 1 <= m <= MOST or not 0 <= n <= m:
        raise ValueError(f"{who}: n of m must be 0 ≤ n ≤ m and 1 ≤ m ≤ {MOST}, got {n} of {m}")
    return n, m


def _contiguous(x: Array) -> Array:
    return x.contiguous() if is_tensor(x) else np.ascontiguousarray(x)


def nm_mask(w: Ranked, n: int, m: int, *, axis: int = -1, score: Number | None = None, nan: str = "raise") -> Array:
    """The mask that keeps the n largest magnitudes of every m neighbours.

    Parameters
    ----------
    w : array or tensor, float64, float32, float16, bfloat16 or float8 (as of `global_masks`)
        Of one axis or more.
    n, m : int
        How many are kept of how many: 2 and 4 for 2:4. From 0 to m, and from 1 to 16.
    axis : int
        Along which neighbours follow one another; m divides its length. For a linear layer [out, in] it is the last one.
    score : float array or tensor of the shape of w, optional
        What to rank by instead, the largest first, with its sign.
    nan : "raise", "keep" or "prune"
        What NaN counts as: an error, as infinities too; the largest; the smallest.

    Returns
    -------
    bool array or tensor of the shape of w
        True where a weight is kept: exactly n of each group, of equals the lowest index.

    Raises
    ------
    TypeError
        If w or the score is not a float array.
    ValueError
        If n or m is out of range, m does not divide the axis, shapes differ, or what is ranked is not finite.

    Notes
    -----
    One read and one write of a byte for each weight; each pair of a group is compared once, those of sixty-four
    weights side by side.

    Examples
    --------
    >>> import numpy as np
    >>> nm_mask(np.array([3.0, -4.0, 1.0, 2.0]), 2, 4)
    array([ True,  True, False, False])
    """
    n, m = pattern("nm_mask", n, m)
    if not w.ndim:
        raise ValueError("nm_mask: w needs an axis, got a 0-d array")
    an_axis("nm_mask", axis, w.ndim)
    if w.shape[axis] % m:
        raise ValueError(f"nm_mask: axis {axis} of w has {w.shape[axis]} elements, no whole groups of m = {m}")
    x = w if score is None else score
    if tuple(getattr(x, "shape", ())) != tuple(w.shape):
        raise ValueError(f"nm_mask: score has shape {tuple(getattr(x, 'shape', ()))}, w {tuple(w.shape)}")
    x = widened(x.detach() if is_tensor(x) else x)
    last = axis in (-1, w.ndim - 1)
    turn = np.moveaxis if isinstance(x, np.ndarray) else type(x).movedim
    x = x if last else _contiguous(turn(x, axis, -1))
    order = FORMATS.index(dtype_name(x.dtype)), score is not None, NAN[one_of("nan", nan, tuple(NAN))]
    mask = _nm_mask(x, n, m, *order)
    return mask if last else _contiguous(turn(mask, -1, axis))


def _powers(parts: Iterable[Array], norm: float) -> Array:
    """The sum of powers, one after another."""
    total: Any = 0.0
    for part in parts:
        total = total + (part * part if norm == 2 else part if norm == 1 else part**norm)
    return total


def block_mask(
    w: Ranked,
    sparsity: float | None = None,
    *,
    k: int | None = None,
    block: Sequence[int] = (4, 1),
    norm: float = 2,
) -> Array:
    r"""The mask that prunes whole blocks of a matrix: exactly k of them, those of the least norm.

    Parameters
    ----------
    w : array or tensor [..., R, C], float64, float32, float16, bfloat16 or float8 (as of `global_masks`)
        A matrix, or several, whose blocks are ranked together.
    sparsity : float between 0 and 1
        The share of blocks to prune; their number is rounded half to even. Either this or ``k``.
    k : int
        How many blocks to prune.
    block : (int, int)
        Rows and columns of a block; they divide R and C.
    norm : float
        p of :math:`(\sum |w|^p)^{1/p}`, above 0; ``math.inf`` is the largest magnitude.

    Returns
    -------
    bool array or tensor of the shape of w
        True where a weight is kept. Of blocks of equal norm the lowest index is kept.

    Raises
    ------
    TypeError
        If w is not a float array.
    ValueError
        If a block does not divide the axes, the norm is not above 0, or the norm of a block is not finite.

    Notes
    -----
    Sums of powers in float64, element by element of a block in row order: the same bits in both libraries. Where a power is
    beyond float64, parts of the largest element of their block are raised to it. Memory of some 32 bytes a block.
    """
    total, _ = block_norms("block_mask", w, block, norm)
    *lead, rows, cols = w.shape
    a, b = block
    (mask,) = global_masks([total], sparsity, k=k)
    mask = mask[..., :, None, :, None]
    shape = (*lead, rows // a, a, cols // b, b)
    spread = mask.expand(shape) if is_tensor(mask) else np.broadcast_to(mask, shape)
    return _contiguous(spread.reshape(w.shape))


def block_norms(who: str, w: Array, block: Sequence[int], norm: float = 2, root: bool = False) -> tuple[Array, bool]:
    """The sums of powers of the blocks of a matrix, or of several, in float64; their roots where powers are beyond it, or if
    that is asked for; and which of the two."""
    if w.ndim < 2:
        raise ValueError(f"{who}: w must be [..., R, C], got shape {tuple(w.shape)}")
    if len(block) != 2 or min(block) < 1 or w.shape[-2] % block[0] or w.shape[-1] % block[1]:
        raise ValueError(f"{who}: blocks of {tuple(block)} do not divide w of shape {tuple(w.shape)}")
    if not norm > 0:
        raise ValueError(f"{who}: norm must be above 0, got {norm}")
    w = widened(w.detach() if is_tensor(w) else w)
    *lead, rows, cols = w.shape
    a, b = block
    parts = w.reshape(*lead, rows // a, a, cols // b, b)

    def elements() -> Iterator[Array]:
        return (abs(wide(parts[..., i, :, j])) for i in range(a) for j in range(b))

    with quiet(w):
        if norm == math.inf:
            total = functools.reduce(xp.maximum, elements())
        else:
            total = _powers(elements(), norm)
            if root or not bool(((total >= np.finfo(np.float64).tiny) & xp.isfinite(total)).all()):
                most = functools.reduce(xp.maximum, elements())
                fine = (total >= np.finfo(np.float64).tiny) & xp.isfinite(total) | (most == 0)
                if root or not bool(fine.all()):  # powers that float64 does not have
                    root = True
                    unit = xp.where(most > 0, most, 1.0)
                    total = most * _powers((x / unit for x in elements()), norm) ** (1 / norm)
    if not bool(xp.isfinite(total).all()):
        raise ValueError(f"{who}: the norm of a block is not finite (non-finite values in w, or beyond float64)")
    return total, root
