"""Rows of which n of every m neighbours are stored. The one rule: what is stored gives back every number that was there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor._arrays import is_tensor, whole
from tersor._op import op
from tersor._sample import Draw
from tersor._values import called, check_values

Array = Any

MOST = 16


def bits_of(m: int) -> int:
    """Bits of a position among m."""
    return 1 if m < 3 else 2 if m < 5 else 4


def _longs(x: Array) -> Array:
    return x.long() if is_tensor(x) else x.astype(np.int64)


def _columns(meta: Array, n: int, m: int, kept: int) -> Array:
    """Where the stored values of rows stand."""
    bits = bits_of(m)
    j = _range(meta, kept) if is_tensor(meta) else np.arange(kept)
    words = _longs(meta)[..., j * bits // 8]
    return j // max(n, 1) * m + ((words >> (j * bits % 8)) & ((1 << bits) - 1))


def _range(meta: Array, n: int) -> Array:
    import torch

    return torch.arange(n, device=meta.device)


def _drawn(draw: Draw) -> tuple[Array, Array, dict[str, Any]]:
    """A matrix with no more than n nonzeros in a group, and where they stand."""
    rng, m = draw.rng, int(draw.rng.integers(1, MOST + 1))
    n = int(rng.integers(0, m + 1))
    w = rng.standard_normal((*draw.lead, draw.d, m)) * draw.scale
    gone = np.argsort(rng.random(w.shape), axis=-1)[..., : m - int(rng.integers(0, n + 1))]
    np.put_along_axis(w, gone, 0, -1)
    w = draw.cast(w.reshape(*draw.lead, draw.d * m))
    return w, _nm_meta.op.reference(np.asarray(w, np.float64), n, m), {"n": n, "m": m}  # type: ignore[attr-defined]


def _meta_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    w, _, scalars = _drawn(draw)
    return [w], scalars


def _take_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    w, meta, scalars = _drawn(draw)
    return [w, meta], scalars


def _values(draw: Draw, w: Array, n: int, m: int) -> Array:
    return draw.normal(*w.shape[:-1], w.shape[-1] // m * n)


def _take_bwd_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    w, meta, scalars = _drawn(draw)
    return [_values(draw, w, **scalars), w, meta], scalars


def _put_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    w, meta, scalars = _drawn(draw)
    return [_values(draw, w, **scalars), meta], {**scalars, "cols": w.shape[-1]}


def _put_bwd_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    w, meta, scalars = _drawn(draw)
    return [draw.normal(*w.shape), _values(draw, w, **scalars), meta], {**scalars, "cols": w.shape[-1]}


@op(sample=_meta_sample, integer=True)
def _nm_meta(w: Array, n: int, m: int) -> Array:
    """Where the nonzeros of each group stand, and as many of its first zeros as are missing; a few bits each."""
    bits, lead, kept = bits_of(m), tuple(w.shape[:-1]), w.shape[-1] // m * n
    zero = w.reshape(*lead, w.shape[-1] // m, m) == 0
    left = n - (~zero).sum(-1, keepdims=True)
    missing = _longs(~zero | (zero.cumsum(-1) <= left)) == 0
    order = _longs(missing).argsort(dim=-1, stable=True) if is_tensor(w) else np.argsort(missing, -1, kind="stable")
    positions = order[..., :n].reshape(*lead, kept)
    per, size = 8 // bits, (kept * bits + 7) // 8
    words = positions << (_range(w, kept) if is_tensor(w) else np.arange(kept)) % per * bits
    room = words.new_zeros(*lead, size * per) if is_tensor(w) else np.zeros((*lead, size * per), np.int64)
    room[..., :kept] = words
    meta = room.reshape(*lead, size, per).sum(-1)
    return meta.byte() if is_tensor(w) else meta.astype(np.uint8)


@op(sample=_take_sample, any_dtype=True)
def _nm_take(w: Array, meta: Array, n: int, m: int) -> Array:
    """The stored values of rows."""
    columns = _columns(meta, n, m, w.shape[-1] // m * n)
    return w.take_along_dim(columns, -1) if is_tensor(w) else np.take_along_axis(w, columns, -1)


@op(sample=_take_bwd_sample)
def _nm_take_bwd(g: Array, w: Array, meta: Array, n: int, m: int) -> Array:
    """Gradient of `nm_take`: g where values are stored, 0 elsewhere."""
    return _spread(g, meta, n, m, w.shape[-1])


def _spread(values: Array, meta: Array, n: int, m: int, cols: int) -> Array:
    columns = _columns(meta, n, m, values.shape[-1])
    if is_tensor(values):
        return values.new_zeros((*values.shape[:-1], cols)).scatter(-1, columns, values)
    w = np.zeros((*values.shape[:-1], cols), values.dtype)
    np.put_along_axis(w, columns, values, -1)
    return w


@op(sample=_put_sample, any_dtype=True)
def _nm_put(values: Array, meta: Array, n: int, m: int, cols: int) -> Array:
    """Rows with their stored values, +0 elsewhere."""
    return _spread(values, meta, n, m, cols)


@op(sample=_put_bwd_sample)
def _nm_put_bwd(g: Array, values: Array, meta: Array, n: int, m: int, cols: int) -> Array:
    """Gradient of `nm_put`: that of the stored values."""
    return _nm_take.op.reference(g, meta, n, m)  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class NMTensor:
    """Rows of which n of every m neighbours are stored.

    Attributes
    ----------
    values : array or tensor [..., K·n/m]
        Group after group, ascending in each.
    meta : uint8 array or tensor [..., bytes]
        The position of each value in its group: 1 bit for m ≤ 2, 2 for m ≤ 4, else 4, from the lowest bit of the first byte on.
        Of 2:4, a byte is two groups.
    n, m : int
    shape : the shape of the dense rows, [..., K]
    """

    values: Any
    meta: Any
    n: int
    m: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that are stored."""
        return sum(int(x.nbytes) for x in (self.values, self.meta))

    def to_dense(self) -> Array:
        """As `nm_decompress`."""
        return nm_decompress(self)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.shape))
        return f"NMTensor({shape}, {self.n}:{self.m}, {str(self.dtype).rpartition('.')[2]})"


def nm_compress(w: Array, n: int, m: int) -> NMTensor:
    """Stores rows that have no more than n nonzeros in every m neighbours.

    Parameters
    ----------
    w : array or tensor [..., K], float64, float32, float16 or bfloat16
        Pruned already: ``apply_mask(w, nm_mask(w, n, m))`` is.
    n, m : int
        How many are stored of how many: 2 and 4 for 2:4. From 0 to m, and from 1 to 16; m divides K.

    Returns
    -------
    NMTensor
        Its values are differentiable with respect to w: the gradient goes to what is stored.

    Raises
    ------
    TypeError
        If w is not a float array.
    ValueError
        If n or m is out of range, m does not divide K, or a group has more than n nonzeros: nothing is lost silently.

    Notes
    -----
    Two reads. Where a group has fewer nonzeros than n, its first zeros are stored too. -0 is a zero, and comes back only where
    it is stored.

    Examples
    --------
    >>> import numpy as np
    >>> t = nm_compress(np.array([0.0, 5.0, 0.0, 7.0]), 2, 4)
    >>> t.values, t.meta
    (array([5., 7.]), array([13], dtype=uint8))
    >>> nm_decompress(t)
    array([0., 5., 0., 7.])
    """
    who = "nm_compress"
    check_values(who, "w", w)
    if not w.ndim:
        raise ValueError(f"{who}: w needs an axis, got a 0-d array")
    if not 1 <= m <= MOST or not 0 <= n <= m:
        raise ValueError(f"{who}: n of m must be 0 ≤ n ≤ m and 1 ≤ m ≤ {MOST}, got {n} of {m}")
    if w.shape[-1] % m:
        raise ValueError(f"{who}: rows of w have {w.shape[-1]} elements, no whole groups of m = {m}")
    meta = called(who, _nm_meta, w.detach() if is_tensor(w) else w, n, m)
    return NMTensor(called(who, _nm_take, w, meta, n, m), meta, n, m, tuple(w.shape))


def nm_decompress(t: NMTensor) -> Array:
    """The dense rows of an `NMTensor`.

    Parameters
    ----------
    t : NMTensor

    Returns
    -------
    array or tensor [..., K], of the type of the values
        +0 where nothing is stored; differentiable with respect to the values.

    Raises
    ------
    TypeError
        If t is no NMTensor.
    ValueError
        If its parts do not go together, or a position is outside its group or out of order.

    Notes
    -----
    One read and one write; every position is checked as it is read.
    """
    if not isinstance(t, NMTensor):
        raise TypeError(f"nm_decompress: t must be an NMTensor, got {type(t).__name__}")
    for name, x in (("values", t.values), ("meta", t.meta)):
        if not is_tensor(x) and not isinstance(x, np.ndarray):
            raise TypeError(f"nm_decompress: {name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    n, m = (whole(f"nm_decompress: {name}", v) for name, v in (("n", t.n), ("m", t.m)))
    if not t.shape or not 1 <= m <= MOST or not 0 <= n <= m or t.shape[-1] % m:
        raise ValueError(
            f"nm_decompress: rows must have whole groups of m, 1 ≤ m ≤ {MOST} and 0 ≤ n ≤ m, got {n}:{m} of {t.shape}"
        )
    kept = t.shape[-1] // m * n
    want = (*t.shape[:-1], kept), (*t.shape[:-1], (kept * bits_of(t.m) + 7) // 8)
    if (tuple(t.values.shape), tuple(t.meta.shape)) != want:
        raise ValueError(
            f"nm_decompress: {t.n}:{t.m} of {t.shape} has values {want[0]} and meta {want[1]}, "
            f"got {tuple(t.values.shape)} and {tuple(t.meta.shape)}"
        )
    return called("nm_decompress", _nm_put, t.values, t.meta, t.n, t.m, t.shape[-1])
