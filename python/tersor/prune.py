r"""Magnitude pruning: exact masks over any number of arrays, files larger than memory, top-k of rows.

The order of selection is by (:math:`|w|`, minus the index): exactly the first k weights in it are pruned, so that of equal
magnitudes the one with the lowest index is kept (arrays in the order given, then flat index). Masks are bool, True where a
weight is kept; a pruned weight is +0. Masks of a larger k are subsets of those of a smaller one. Results do not depend on
threads, on the sizes of chunks or on whether weights come from memory or from a file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tersor import _window
from tersor._keys import FORMATS, INF, NAN, WIDTH, Order
from tersor._op import dtype_name, op
from tersor._prune_files import Pruned, prune_safetensors
from tersor._rank import (
    MagnitudeHistogram,
    Plan,
    integer,
    one_of,
    order_of,
    plan,
    ready,
    run,
    search,
    share,
    signed_word,
    tallies,
)
from tersor._sample import Draw

__all__ = [
    "MagnitudeHistogram",
    "Pruned",
    "Threshold",
    "apply_mask",
    "global_masks",
    "global_prune",
    "global_threshold",
    "prune_safetensors",
    "topk_rows",
]

Array = Any
Arrays = Sequence[Any]

#: how many weights peers prune, and what they do with equals: rounding, ties, one more than asked
COMPAT = {
    "torch": ("round", "low", 0),
    "globalmp": ("floor", "all", 0),
    "mc-smoe": ("floor", "all", 0),
    "llm-compressor": ("floor", "none", 0),
    "sparsegpt": ("floor", "none", 1),
    "wanda": ("floor", "none", 1),
}


class Threshold(NamedTuple):
    """The largest magnitude that was pruned (None if nothing was), and how many weights each array keeps."""

    value: float | None
    kept: list[int]


# --- the operators of a selection ---


def _keys(x: Array, format: int, signed: bool = False, nan: int = 0) -> np.ndarray:
    """Floats as unsigned numbers in the same order."""
    width, name = WIDTH[format], FORMATS[format]
    with np.errstate(all="ignore"):
        if name == "bfloat16":
            bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64) >> np.uint64(16)
        else:
            bits = np.asarray(x, name).view(f"u{width // 8}").astype(np.uint64)
    top, ones = np.uint64(1 << (width - 1)), np.uint64((1 << width) - 1)
    magnitude = (bits << np.uint64(1)) & ones
    keys = np.where(bits > top, bits ^ ones, bits | top) if signed else magnitude
    if nan:
        keys = np.where(magnitude > np.uint64(INF[format] << 1), ones if nan == 1 else np.uint64(0), keys)
    return keys


def _format(draw: Draw) -> int:
    return FORMATS.index(draw.dtype)


def _count_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x, f = draw.normal(*draw.lead, draw.d), _format(draw)
    bits = int(draw.rng.integers(1, min(16, WIDTH[f]) + 1))
    shift = int(draw.rng.integers(0, WIDTH[f] - bits + 1))
    signed = bool(draw.rng.integers(2))
    prefixes = np.zeros(1, np.int64)
    if shift + bits < WIDTH[f]:
        found = _keys(np.asarray(x, np.float64), f, signed) >> np.uint64(shift + bits)
        prefixes = np.unique(found)[: int(draw.rng.integers(1, 5))].view(np.int64)
    start = draw.rng.integers(0, 5, len(prefixes) << bits)
    return [x, prefixes, start], {"format": f, "shift": shift, "bits": bits, "signed": signed, "nan": 0}


@op(sample=_count_sample, integer=True)
def _magnitude_count(
    x: Array, prefixes: Array, start: Array, format: int, shift: int, bits: int, signed: bool = False, nan: int = 0
) -> Array:
    r"""A round of radix selection: ``counts[p << bits | d] = start[...] +`` how many keys begin with prefix p and digit d.

    A key is a float as an unsigned number in the same order; its digit are the ``bits`` bits above the lowest ``shift``, its
    prefix is what is above the digit. One read of x. ``counts`` may be ``start`` itself.
    """
    keys = _keys(x, format, signed, nan).reshape(-1)
    digits = (keys >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
    above = np.zeros_like(keys) if shift + bits == WIDTH[format] else keys >> np.uint64(shift + bits)
    counts = np.array(start)
    for i, prefix in enumerate(prefixes):
        here = digits[above == np.uint64(prefix)].astype(np.int64)
        counts[i << bits : (i + 1) << bits] += np.bincount(here, minlength=1 << bits)
    return counts


def _thresholds(draw: Draw, x: Array, n: int) -> np.ndarray:
    keys = np.unique(_keys(np.asarray(x, np.float64), _format(draw)))
    return draw.rng.permutation(keys)[:n].view(np.int64)


def _tally_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x = draw.normal(*draw.lead, draw.d)
    return [x, _thresholds(draw, x, 3)], {"format": _format(draw)}


@op(
    meta=lambda x, thresholds, **_: [((thresholds.shape[0], 2), "int64")],
    sample=_tally_sample,
    integer=True,
)
def _magnitude_tally(x: Array, thresholds: Array, format: int, signed: bool = False, nan: int = 0) -> Array:
    """How many keys of x lie above each threshold, and how many are equal to it: ``[thresholds, 2]``."""
    keys = _keys(x, format, signed, nan).reshape(-1)
    found = [(np.sum(keys > t), np.sum(keys == t)) for t in thresholds.view(np.uint64)]
    return np.array(found, np.int64).reshape(-1, 2)


def _mask_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x = draw.normal(*draw.lead, draw.d)
    if draw.rng.integers(2) and draw.dtype != "float64":  # ties
        x = draw.cast(np.round(np.asarray(x, np.float64)))
    threshold = int(_thresholds(draw, x, 1).sum())
    high, keep = bool(draw.rng.integers(2)), int(draw.rng.integers(0, 10))
    return [x], {"threshold": threshold, "keep": keep, "high": high, "format": _format(draw)}


@op(
    meta=lambda x, **_: [(tuple(x.shape), "bool"), ((2,), "int64")],
    sample=_mask_sample,
    integer=True,
)
def _magnitude_mask(
    x: Array, threshold: int, keep: int, high: bool, format: int, signed: bool = False, nan: int = 0
) -> tuple[Array, Array]:
    """The mask of keys above a threshold and of the first ``keep`` equal to it (the last, if ``high``), and both counts."""
    keys = _keys(x, format, signed, nan).reshape(-1)
    word = np.uint64(threshold & (2**64 - 1))
    mask, equal = keys > word, np.flatnonzero(keys == word)
    tally = np.array([mask.sum(), len(equal)], np.int64)
    mask[equal[max(len(equal) - keep, 0) :] if high else equal[:keep]] = True
    return mask.reshape(np.shape(x)), tally


def _split_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x = draw.normal(*draw.lead, draw.d)
    low, high = sorted([0, 0, *_thresholds(draw, x, 2).view(np.uint64).tolist()])[-2:]
    return [x], {
        "low": signed_word(low),
        "high": signed_word(high),
        "room": int(draw.rng.integers(0, 50)),
        "format": _format(draw),
    }


@op(
    meta=lambda x, room, **_: [(tuple(x.shape), "bool"), ((room,), "int64"), ((room,), "int64"), ((3,), "int64")],
    sample=_split_sample,
    integer=True,
)
def _magnitude_split(x: Array, low: int, high: int, room: int, format: int) -> tuple[Array, Array, Array, Array]:
    """The mask of magnitudes above a window of keys, places and keys of those inside, and how many are below and inside.

    The last number found is 1 if x is not finite. The lists are filled up with -1, and hold nothing if there is no room.
    """
    keys = _keys(x, format).reshape(-1)
    lo, hi = np.array([low, high], np.int64).view(np.uint64)
    inside = np.flatnonzero((keys >= lo) & (keys <= hi))
    places, listed = np.full(room, -1), np.full(room, -1)
    if len(inside) <= room:
        places[: len(inside)], listed[: len(inside)] = inside, keys[inside].view(np.int64)
    wrong = np.any(keys >= np.uint64(INF[format] << 1))
    found = np.array([np.sum(keys < lo), len(inside), wrong], np.int64)
    return (keys > hi).reshape(np.shape(x)), places, listed, found


def _apply_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    return [draw.normal(*draw.lead, draw.d), draw.rng.integers(0, 2, (*draw.lead, draw.d)) > 0], {}


@op(sample=_apply_sample)
def apply_mask(x: Array, mask: Array) -> Array:
    """The weights that a mask keeps, +0 elsewhere (whatever x is there, also NaN).

    Parameters
    ----------
    x : array or tensor, float64, float32, float16 or bfloat16
    mask : bool array or tensor of the same shape
        True where x is kept.

    Returns
    -------
    array or tensor
        Of the shape and type of x; ``out=x`` prunes in place.

    Raises
    ------
    TypeError
        If x is not a float array or the mask not bool.
    ValueError
        If the shapes differ.

    Notes
    -----
    One read and one write. The gradient is the gradient under the same mask.
    """
    return np.where(mask, x, 0)


@op(outputs=("dx",), sample=_apply_sample)
def apply_mask_bwd(g: Array, mask: Array) -> Array:
    """Gradient of `apply_mask`: g where the mask is true, +0 elsewhere."""
    return np.where(mask, g, 0)


def _topk_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x = draw.normal(*draw.lead, draw.d)
    return [x], {"k": int(draw.rng.integers(0, draw.d + 1)), "magnitude": bool(draw.rng.integers(2))}


@op(
    meta=lambda x, k, **_: [((*x.shape[:-1], k), "int64")],
    sample=_topk_sample,
    integer=True,
)
def _topk_indices(x: Array, k: int, magnitude: bool = False, nan: int = 0) -> Array:
    """Indices of the k largest of each row, ascending; of equals the lowest index is selected."""
    rank = np.abs(x) if magnitude else np.asarray(x)
    return np.sort(np.argsort(-rank, axis=-1, kind="stable")[..., :k], axis=-1)


def _gather_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x, k = draw.normal(*draw.lead, draw.d), int(draw.rng.integers(0, draw.d + 1))
    order = np.argsort(draw.rng.standard_normal((*draw.lead, draw.d)), axis=-1)
    return [x, np.ascontiguousarray(np.sort(order[..., :k], axis=-1))], {}


def _gather_bwd_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x, indices = _gather_sample(draw)[0]
    return [draw.normal(*indices.shape), x, indices], {}


@op(meta=lambda x, indices: [(tuple(indices.shape), x.dtype)], sample=_gather_sample, any_dtype=True)
def _gather_rows(x: Array, indices: Array) -> Array:
    """The entries of each row of x at the indices of the same row."""
    return np.take_along_axis(x, indices, -1)


@op(outputs=("dx",), sample=_gather_bwd_sample)
def _gather_rows_bwd(g: Array, x: Array, indices: Array) -> Array:
    """Gradient of the gathering: g at the indices of each row, 0 elsewhere. No index may come twice in a row."""
    dx = np.zeros(np.shape(x))
    np.put_along_axis(dx, indices, g, -1)
    return dx


# --- what users call ---


class _Whole:
    """An array in memory, as a layer of one chunk."""

    def __init__(self, x: Array, name: str) -> None:
        self.x, self.name = x, name
        self.size = math.prod(x.shape)

    def chunks(self) -> Any:
        yield ready(self.x, self.name)


def _checked(arrays: Any, what: str) -> list[Array]:
    if isinstance(arrays, np.ndarray) or hasattr(arrays, "detach") or isinstance(arrays, (str, dict)):
        raise TypeError(f"{what} must be a list of arrays, got {type(arrays).__name__}")
    arrays = list(arrays)
    for i, x in enumerate(arrays):
        torch = any(t.__module__.partition(".")[0] == "torch" for t in type(x).__mro__)
        if not (torch or isinstance(x, np.ndarray)):
            raise TypeError(f"{what}[{i}] must be a NumPy array or a torch tensor, got {type(x).__name__}")
        if isinstance(x, np.ndarray) == hasattr(arrays[0], "detach"):
            raise TypeError(f"{what} must all be NumPy arrays or all torch tensors, {what}[{i}] is not like {what}[0]")
        if dtype_name(x.dtype) not in FORMATS:
            raise TypeError(f"{what}[{i}] must hold floats, got {dtype_name(x.dtype)}")
    return arrays


class _Job:
    """The arguments that all functions share, made whole."""

    def __init__(
        self,
        arrays: Any,
        sparsity: Any,
        k: Any,
        min_keep: int | Sequence[int] = 0,
        scope: str = "global",
        scores: Any = None,
        ties: str = "low",
        rounding: str = "round",
        compat: str | None = None,
        nan: str = "raise",
    ) -> None:
        self.arrays = _checked(arrays, "arrays")
        signed = scores is not None and compat != "torch"
        ranked = self.arrays
        if scores is not None:
            ranked = _checked(scores, "scores")
            if [tuple(s.shape) for s in ranked] != [tuple(x.shape) for x in self.arrays]:
                raise ValueError("scores must have the shapes of the arrays")
        self.ranked = ranked
        self.order = order_of([dtype_name(x.dtype) for x in ranked], signed=signed, nan=nan)
        self.layers = [_Whole(x, f"{'arrays' if scores is None else 'scores'}[{i}]") for i, x in enumerate(ranked)]
        self.extra = 0
        if compat is not None:
            if compat not in COMPAT:
                raise ValueError(f"compat must be one of {', '.join(COMPAT)}, got {compat!r}")
            if ties != "low" or rounding != "round":
                raise ValueError("compat says how to round and what to do with ties: leave out rounding and ties")
            rounding, ties, self.extra = COMPAT[compat]
        self.least = 1 if compat == "globalmp" else 0
        self.ties = one_of("ties", ties, ("low", "high", "all", "none"))
        self.rounding = one_of("rounding", rounding, ("round", "floor", "ceil"))
        self.scope = one_of("scope", scope, ("global", "layer"))
        if (sparsity is None) == (k is None):
            raise ValueError("exactly one of sparsity and k must be given")
        self.sparsity, self.k = sparsity, k
        n = len(self.layers)
        wanted = list(min_keep) if isinstance(min_keep, (list, tuple)) else [min_keep] * n
        if len(wanted) != n:
            raise ValueError(f"min_keep has {len(wanted)} numbers for {n} arrays")
        self.protect = [min(integer("min_keep", m), layer.size) for m, layer in zip(wanted, self.layers, strict=True)]

    def count(self, which: Sequence[int], k: Any, sparsity: Any) -> int:
        """How many weights of these layers to prune."""
        total = sum(self.layers[i].size for i in which)
        free = total - sum(self.protect[i] for i in which)
        if k is None:
            k = share(sparsity, total, self.rounding)
        k = integer("k", k)
        if k > free:
            kept = f" with min_keep for {total - free} of them" if free < total else ""
            raise ValueError(f"cannot prune k = {k} of {total} weights{kept}")
        return min(max(k + self.extra, self.least), free)

    def parts(self) -> list[tuple[list[int], int]]:
        """Which layers are ranked together, and how many of their weights to prune."""
        every = list(range(len(self.layers)))
        if self.scope == "global":
            return [(every, self.count(every, self.k, self.sparsity))]
        given = self.k if self.sparsity is None else self.sparsity
        each = list(given) if isinstance(given, (list, tuple)) else [given] * len(every)
        if len(each) != len(every):
            raise ValueError(f"{len(each)} numbers for {len(every)} arrays")
        if self.sparsity is None:
            return [([i], self.count([i], each[i], None)) for i in every]
        return [([i], self.count([i], None, each[i])) for i in every]

    def solve(self, which: Sequence[int], k: int) -> tuple[MagnitudeHistogram, Plan]:
        layers, protect = [self.layers[i] for i in which], [self.protect[i] for i in which]
        h = search(layers, [k], self.order, protect)
        return h, plan(layers, h, self.ties, protect)

    def walk(self, which: Sequence[int]) -> list[tuple[int, int]]:
        """Places in `which` and layers, in the order in which they get their share of the ties."""
        pairs = list(enumerate(which))
        return pairs[::-1] if self.ties == "high" else pairs


def _empty_mask(x: Array) -> Array:
    if isinstance(x, np.ndarray):
        return np.empty(x.shape, bool)
    import torch

    return torch.empty(x.shape, dtype=torch.bool, device=x.device)


def _simple(job: _Job) -> bool:
    """Whether one read will do: magnitudes of one type on the CPU, NaN refused, nothing protected."""
    return (
        job.order == Order(job.order.format)
        and not any(job.protect)
        and all(
            dtype_name(x.dtype) == FORMATS[job.order.format] and (isinstance(x, np.ndarray) or x.device.type == "cpu")
            for x in job.ranked
        )
    )


def global_masks(
    arrays: Arrays,
    sparsity: float | Sequence[float] | None = None,
    *,
    k: int | Sequence[int] | None = None,
    min_keep: int | Sequence[int] = 0,
    scope: str = "global",
    scores: Arrays | None = None,
    ties: str = "low",
    rounding: str = "round",
    compat: str | None = None,
    nan: str = "raise",
) -> list[Array]:
    r"""Masks that keep all but exactly k weights, those first in the order by (:math:`|w|`, minus the index).

    Parameters
    ----------
    arrays : list of arrays or tensors, float64, float32, float16 or bfloat16
        Types may differ: weights are ranked by value.
    sparsity : float between 0 and 1
        Share of the weights to prune; k is its product with their number, rounded. One per array if ``scope="layer"``.
    k : int
        Number of weights to prune, instead of the share.
    min_keep : int, or one per array
        The largest so many weights of each array are kept whatever the others are like.
    scope : "global" or "layer"
        Rank all weights together, or each array by itself.
    scores : list of arrays of the same shapes
        Rank these (with their sign: the lowest are pruned) instead of magnitudes.
    ties : "low", "high", "all" or "none"
        Which of the weights equal to the threshold stay: those of the lowest indices, of the highest (exactly k are
        pruned either way), all (fewer are pruned) or none (more are).
    rounding : "round", "floor" or "ceil"
        How the share becomes a number; "round" takes the half to the even one.
    compat : "torch", "globalmp", "mc-smoe", "llm-compressor", "sparsegpt" or "wanda"
        Count and treat ties as this project does (torch breaks ties by its own algorithm, and ranks scores without
        their sign).
    nan : "raise", "keep" or "prune"
        What NaN counts as: an error, as infinities too; the largest weight; zero.

    Returns
    -------
    list of bool arrays or tensors
        True where a weight is kept; the same shapes, on the same devices.

    Raises
    ------
    TypeError
        If arrays are not a list of float arrays of one library.
    ValueError
        If weights are not finite, k is more than can be pruned, or an argument is out of range.

    See Also
    --------
    global_prune, global_threshold, MagnitudeHistogram, prune_safetensors

    Notes
    -----
    No weights are copied: the masks and at most 0.2 bytes per weight are the memory used. One read of the weights where a
    sample brackets the threshold, else three for float32 (two for 16-bit types, five for float64), and one more with
    min_keep. Han, Pool, Tran, Dally, "Learning both Weights and Connections" (2015), with exact counts.
    """
    job = _Job(arrays, sparsity, k, min_keep, scope, scores, ties, rounding, compat, nan)
    parts = job.parts()
    masks = [_empty_mask(x) for x in job.arrays]
    simple = _simple(job)
    for which, count in parts:
        some = [masks[i] for i in which]
        if simple:
            chunks = [next(job.layers[i].chunks()) for i in which]
            if _window.masks(chunks, some, count, job.order, job.ties) is not None:
                continue
        _, cuts = job.solve(which, count)
        for at, i in job.walk(which):
            _mask(job, cuts, at, next(job.layers[i].chunks()), masks[i])
    return masks


def _mask(job: _Job, cuts: Plan, at: int, x: Array, out: Array) -> None:
    cut, o = cuts.cut(at), job.order
    tally = np.empty(2, np.int64)
    run("magnitude_mask", x, out, tally, signed_word(cut.key), cut.keep, job.ties == "high",
        o.format, o.signed, o.nan)  # fmt: skip
    cuts.spend(at, int(tally[1]))


def global_threshold(
    arrays: Arrays,
    sparsity: float | Sequence[float] | None = None,
    *,
    k: int | Sequence[int] | None = None,
    min_keep: int | Sequence[int] = 0,
    scores: Arrays | None = None,
    ties: str = "low",
    rounding: str = "round",
    compat: str | None = None,
    nan: str = "raise",
) -> Threshold | list[Threshold]:
    """The magnitude at which `global_masks` cuts, and how many weights each array keeps.

    Parameters
    ----------
    arrays, min_keep, scores, ties, rounding, compat, nan
        As in `global_masks`.
    sparsity : float, or a list of them
        Share of the weights to prune; a list gives a list of thresholds from the same reads.
    k : int, or a list of them
        Number of weights to prune, instead of the share.

    Returns
    -------
    Threshold(value, kept), or a list of them
        The largest magnitude pruned (None if none is), and the weights kept in each array.

    Raises
    ------
    TypeError, ValueError
        As `global_masks`.

    Notes
    -----
    No mask is made: 2 MB of counters, whatever the arrays' sizes. Two reads of float32, one of 16-bit types, four of
    float64, then one to count what is kept; several k share them (with min_keep each k has its own).
    """
    job = _Job(arrays, sparsity, k, min_keep, "global", scores, ties, rounding, compat, nan)
    given: Any = k if sparsity is None else sparsity
    several = isinstance(given, (list, tuple))
    every = list(range(len(job.layers)))
    counts = [
        job.count(every, v, None) if sparsity is None else job.count(every, None, v)
        for v in (given if several else [given])
    ]
    if any(job.protect):
        found = [_kept(job, every, *job.solve(every, count)) for count in counts]
    else:
        h = search(job.layers, counts, job.order)
        tables = [tallies(layer, job.order, h.keys).tolist() for layer in job.layers]
        found = []
        for i, count in enumerate(counts):
            left = {"all": math.inf, "none": 0}.get(job.ties, h.equal[i] - h.ties[i])
            kept = [layer.size for layer in job.layers]
            for _, layer in job.walk(every) if count else []:
                above, equal = tables[layer][i]
                kept[layer] = above + int(min(left, equal))
                left -= min(left, equal)
            found.append(Threshold(job.order.value(h.keys[i]) if count else None, kept))
    return found if several else found[0]


def _kept(job: _Job, which: Sequence[int], h: MagnitudeHistogram, cuts: Plan) -> Threshold:
    kept = [0] * len(which)
    for at, i in job.walk(which):
        cut = cuts.cut(at)
        [[above, equal]] = tallies(job.layers[i], job.order, [cut.key]).tolist()
        kept[at] = above + cuts.spend(at, equal)
    return Threshold(job.order.value(h.keys[0]) if h.k[0] else None, kept)


def global_prune(
    arrays: Arrays,
    sparsity: float | Sequence[float] | None = None,
    *,
    k: int | Sequence[int] | None = None,
    inplace: bool = False,
    **options: Any,
) -> list[Array]:
    """The weights under the masks of `global_masks`: exactly k of them are +0, the others as they were.

    Parameters
    ----------
    arrays, sparsity, k
        As in `global_masks`.
    inplace : bool
        Write into the arrays (and return them).
    **options
        min_keep, scope, scores, ties, rounding, compat and nan of `global_masks`.

    Returns
    -------
    list of arrays or tensors
        Tensors that record gradients pass them on to the weights kept.

    Raises
    ------
    TypeError, ValueError
        As `global_masks`; ValueError too if an array is read-only and ``inplace`` is true. After an error no array has
        changed.
    """
    arrays = _checked(arrays, "arrays")
    if inplace:
        for i, x in enumerate(arrays):
            if isinstance(x, np.ndarray) and not x.flags.writeable:
                raise ValueError(f"arrays[{i}] is read-only")
    masks = global_masks(arrays, sparsity, k=k, **options)
    if not inplace:
        return [apply_mask(x, mask) for x, mask in zip(arrays, masks, strict=True)]
    for i, x in enumerate(arrays):
        _prune_inplace(x, masks[i])
        masks[i] = None
    return arrays


def _prune_inplace(x: Array, mask: Array) -> None:
    if isinstance(x, np.ndarray):
        if x.flags.c_contiguous and x.flags.aligned:
            apply_mask(x, mask, out=x)
        else:
            x[~mask] = 0
        return
    import torch

    with torch.no_grad():
        if x.is_contiguous():
            apply_mask(x.detach(), mask, out=x.detach())
            torch.autograd.graph.increment_version(x)
        else:
            x.masked_fill_(~mask, 0)


def topk_rows(x: Array, k: int, *, magnitude: bool = False, nan: str = "raise") -> tuple[Array, Array]:
    """The k largest entries of each row, in the order in which they stand there.

    Parameters
    ----------
    x : array or tensor [..., n], float64, float32, float16 or bfloat16
    k : int
        From 0 to n.
    magnitude : bool
        The largest magnitudes instead of the largest values.
    nan : "raise", "keep" or "prune"
        What NaN counts as: an error, as infinities too; the largest; the smallest.

    Returns
    -------
    values : array or tensor [..., k], of the type of x
    indices : int64 array or tensor [..., k]
        Ascending; of equal entries the lowest index is selected.

    Raises
    ------
    TypeError
        If x is not a float array.
    ValueError
        If k is not between 0 and n, or x not finite.

    Notes
    -----
    Radix selection, O(n) a row whatever k is. The gradient goes to the selected entries.
    """
    k = integer("k", k)
    indices = _topk_indices(x, k, bool(magnitude), NAN[one_of("nan", nan, tuple(NAN))])
    return _gather_rows(x, indices), indices
