"""Masks, thresholds and pruned weights of arrays in memory. The one rule: masks are the exact ones of the order of selection,
whichever way they are found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tersor._values import one_of, signed_word
from tersor.prune import _window
from tersor.prune._bytes import clear, is_bytes
from tersor.prune._job import Job, checked
from tersor.prune._operators import _apply_mask
from tersor.prune._rank import Plan, search, tallies
from tersor.prune._run import run
from tersor.prune._same import check_apart, first_places, once
from tersor.prune._spread import Spread, spreading
from tersor.prune.apply import prune_inplace
from tersor.prune.bits import pack_mask
from tersor.prune.histogram import MagnitudeHistogram

Array = Any
Arrays = Sequence[Any]


class Threshold(NamedTuple):
    """The largest magnitude that was pruned (None if nothing was), and how many weights each array keeps."""

    value: float | None
    kept: list[int]


def _counted(of: Spread, made: Threshold | list[Threshold]) -> Threshold | list[Threshold]:
    """Thresholds of parts of tensors as those of the tensors."""
    if isinstance(made, list):
        return [Threshold(t.value, of.counts(t.kept)) for t in made]
    return Threshold(made.value, of.counts(made.kept))


def _firsts(arrays: Any, group: Any) -> tuple[Any, list[int]]:
    """The list, and the places of the first of equal arrays; the processes of a group ask that together, in their `Job`."""
    if group is not None:
        return arrays, []
    arrays = checked(arrays, "arrays")
    return arrays, first_places(arrays)


def _empty_mask(x: Array) -> Array:
    if isinstance(x, np.ndarray):
        return np.empty(x.shape, bool)
    import torch

    return torch.empty(x.shape, dtype=torch.bool, device=x.device)


@spreading(Spread.masks, ("sparsity", "k", "min_keep", "scores"))
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
    group: Any = None,
    shard: str = "tensors",
    mixed: bool = False,
    out: str = "bool",
) -> list[Array]:
    r"""Masks that keep all but exactly k weights, those first in the order by (:math:`|w|`, minus the index).

    Parameters
    ----------
    arrays : list of arrays or tensors, float64, float32, float16, bfloat16 or float8 (e4m3fn, e5m2 and their fnuz forms)
        All of one type, but with ``mixed``. An array that stands twice in the list (tied weights) is one array;
        arrays that share part of their memory are refused. DTensors, whole or sharded along their first axis over one axis of
        their mesh, are ranked as the tensors that they stand for, by all processes together.
    sparsity : float between 0 and 1
        Share of all weights to prune, zeros among them; k is its product with their number, rounded. One per array if
        ``scope="layer"``. To prune n times a share s of what is left, give :math:`1 - (1 - s)^n`: 20 % three times is 0.488.
    k : int
        Number of weights to prune, instead of the share.
    min_keep : int, or one per array
        The largest so many weights of each array are kept whatever the others are like: where the share leaves fewer, fewer
        than the share are pruned (sparsity 1 prunes all but those), while a k that is too large is an error.
    scope : "global" or "layer"
        Rank all weights together, or each array by itself.
    scores : list of arrays of the same shapes
        Rank these (with their sign: the lowest are pruned) instead of magnitudes.
    ties : "low", "high", "all" or "none"
        Which of the weights equal to the threshold stay: those of the lowest indices, of the highest (exactly k are
        pruned either way), all (fewer are pruned) or none (more are).
    rounding : "round", "floor" or "ceil"
        How the share becomes a number; "round" takes the half to the even one.
    compat : "torch", "globalmp", "mc-smoe", "llm-compressor", "sparsegpt", "wanda" or "wanda-magnitude"
        Count and treat ties as this project does (torch breaks ties by its own algorithm, and ranks scores without
        their sign). "wanda" prunes the integer part of the share of each row, of equals the lowest index; give it rows with
        ``scope="layer"`` and its scores. "wanda-magnitude" is the baseline in the same code, which prunes up to a threshold.
    nan : "raise", "keep" or "prune"
        What NaN counts as: an error, as infinities too; the largest weight; zero.
    group : torch.distributed.ProcessGroup
        Rank the weights of all its processes together. Each gives its own arrays, the same other arguments, and gets its own
        masks; what travels are counts of keys, 1 MB a round at most. An error in one process is raised in all.
    shard : "tensors" or "rows"
        How the weights are spread over the group: each process has arrays of its own (in the order of selection by rank,
        then as given), or a part of every array along the first axis (array by array, then by rank).
    mixed : bool
        Take arrays of several float types: weights are ranked by value, those of 8 bits as float16, which holds them exactly.
    out : "bool" or "bits"
        Masks of one byte a weight, or of one bit as `pack_mask` makes them (not of DTensors).

    Returns
    -------
    list of bool arrays or tensors
        True where a weight is kept; the same shapes, on the same devices. With ``out="bits"``, uint8 of one axis.

    Raises
    ------
    TypeError
        If arrays are not a list of float arrays of one library and type, or DTensors are placed otherwise.
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
    if one_of("out", out, ("bool", "bits")) == "bits":
        whole = global_masks(arrays, sparsity, k=k, min_keep=min_keep, scope=scope, scores=scores, ties=ties, rounding=rounding,
                             compat=compat, nan=nan, group=group, shard=shard, mixed=mixed)  # fmt: skip
        # one after another, so that a mask of bytes goes as its bits come
        whole.reverse()
        return [pack_mask(whole.pop()) for _ in range(len(whole))]
    arrays, firsts = _firsts(arrays, group)
    if any(first != i for i, first in enumerate(firsts)):
        given: dict[str, Any] = {"sparsity": sparsity, "k": k, "min_keep": min_keep, "scores": scores}
        rest: dict[str, Any] = {"scope": scope, "ties": ties, "rounding": rounding, "compat": compat, "nan": nan}
        kept = [i for i, first in enumerate(firsts) if i == first]
        options = {**rest, **once(given, firsts), "group": group, "shard": shard, "mixed": mixed}
        made = dict(zip(kept, global_masks([arrays[i] for i in kept], **options), strict=True))
        return [made[first] for first in firsts]
    job = Job(arrays, sparsity, k, min_keep, scope, scores, ties, rounding, compat, nan, group, shard, mixed)
    parts = job.parts()
    masks = {i: _empty_mask(x) for i, x in zip(job.local, job.arrays, strict=True)}
    simple = job.simple
    for which, count in parts:
        if simple:
            chunks, some = [job.layers[i].array() for i in which], [masks[i] for i in which]
            if _window.masks(chunks, some, count, job.order, job.ties) is not None:
                continue
        _, cuts = job.solve(which, count)
        for at, i in job.walk(which):
            _mask(job, cuts, at, job.layers[i].array(), masks[i])
    return list(masks.values())


def _mask(job: Job, cuts: Plan, at: int, x: Array, out: Array) -> None:
    cut, o = cuts.cut(at), job.order
    tally = np.empty(2, np.int64)
    run("magnitude_mask", x, out, tally, signed_word(cut.key), cut.keep, job.ties == "high",
        o.format, o.signed, o.nan)  # fmt: skip
    cuts.spend(at, int(tally[1]))


@spreading(_counted, ("min_keep", "scores"))
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
    group: Any = None,
    shard: str = "tensors",
    mixed: bool = False,
) -> Threshold | list[Threshold]:
    """The magnitude at which `global_masks` cuts, and how many weights each array keeps.

    Parameters
    ----------
    arrays, min_keep, scores, ties, rounding, compat, nan, group, shard, mixed
        As in `global_masks`.
    sparsity : float, or a list of them
        Share of the weights to prune; a list gives a list of thresholds from the same reads.
    k : int, or a list of them
        Number of weights to prune, instead of the share.

    Returns
    -------
    Threshold(value, kept), or a list of them
        The largest magnitude pruned (None if none is), and the weights kept in each array given here.

    Raises
    ------
    TypeError, ValueError
        As `global_masks`.

    Notes
    -----
    No mask is made: 2 MB of counters, whatever the arrays' sizes. Two reads of float32, one of 16-bit types, four of
    float64, then one to count what is kept; several k share them (with min_keep each k has its own).
    """
    arrays, firsts = _firsts(arrays, group)
    if any(first != i for i, first in enumerate(firsts)):
        kept = [i for i, first in enumerate(firsts) if i == first]
        each = once({"min_keep": min_keep, "scores": scores}, firsts)
        rest: dict[str, Any] = {"ties": ties, "rounding": rounding, "compat": compat, "nan": nan, "mixed": mixed}
        made = global_threshold([arrays[i] for i in kept], sparsity, k=k, **each, **rest, group=group, shard=shard)

        def spread(t: Threshold) -> Threshold:
            return Threshold(t.value, [dict(zip(kept, t.kept, strict=True))[first] for first in firsts])

        return [spread(t) for t in made] if isinstance(made, list) else spread(made)
    job = Job(arrays, sparsity, k, min_keep, "global", scores, ties, rounding, compat, nan, group, shard, mixed)
    given: Any = k if sparsity is None else sparsity
    several = isinstance(given, (list, tuple))
    every = list(range(len(job.layers)))
    counts = [
        job.count(every, v, None) if sparsity is None else job.count(every, None, v)
        for v in (given if several else [given])
    ]
    if any(job.protect) or job.ranks.size > 1:
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


def _kept(job: Job, which: Sequence[int], h: MagnitudeHistogram, cuts: Plan) -> Threshold:
    kept = dict.fromkeys(job.local, 0)
    for at, i in job.walk(which):
        cut = cuts.cut(at)
        [[above, equal]] = tallies(job.layers[i], job.order, [cut.key]).tolist()
        kept[i] = above + cuts.spend(at, equal)
    return Threshold(job.order.value(h.keys[0]) if h.k[0] else None, list(kept.values()))


def _under(x: Array, mask: Array) -> Array:
    if not is_bytes(x):
        return _apply_mask(x, mask)
    y = x.copy() if isinstance(x, np.ndarray) else x.detach().clone()
    clear(y, mask)
    return y


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
        min_keep, scope, scores, ties, rounding, compat, nan, group, shard and mixed of `global_masks`.

    Returns
    -------
    list of arrays or tensors
        Tensors that record gradients pass them on to the weights kept.

    Raises
    ------
    TypeError, ValueError
        As `global_masks`; with ``inplace``, ValueError too if an array is read-only or elements of it share memory. After
        an error no array has changed.
    """
    if "out" in options:
        raise TypeError("global_prune: out is of global_masks; here the weights are given back")
    arrays = checked(arrays, "arrays")
    if inplace:
        for i, x in enumerate(arrays):
            if isinstance(x, np.ndarray) and not x.flags.writeable:
                raise ValueError(f"arrays[{i}] is read-only")
        check_apart(arrays)
    masks = global_masks(arrays, sparsity, k=k, **options)
    if not inplace:
        return [_under(x, mask) for x, mask in zip(arrays, masks, strict=True)]
    for i, x in enumerate(arrays):
        prune_inplace(x, masks[i])
        masks[i] = None
    return arrays
