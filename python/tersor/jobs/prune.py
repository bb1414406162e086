"""Pruning of files larger than memory. The one rule: the bytes written are those that the weights in memory would give, and
a chunk is all that is held of them.

Weights are read once per 16 bits of their keys and once more to be written (see `tersor.prune.histogram`); the order for
ties is file name, then place in the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tersor._keys import Order
from tersor._public import opened
from tersor._values import one_of
from tersor.checkpoint import Entry, Reader
from tersor.checkpoint._format import located
from tersor.checkpoint._modules import LINEAR, TABLE, rule_of, tree
from tersor.checkpoint._parts import ROUTER, held, is_table
from tersor.checkpoint._patterns import Patterns
from tersor.checkpoint._quantized import evidence
from tersor.jobs import prune_rows as rows
from tersor.jobs._journal import Cuts
from tersor.jobs._pruned import Pruned, rewrite, written
from tersor.jobs.floats8 import Dense
from tersor.jobs.prune_blocks import block_of, in_blocks
from tersor.jobs.stored import TYPES, Meter, Progress, Stored, eligible
from tersor.prune._rank import Plan, plan, search, share
from tersor.prune._run import integer, order_of
from tersor.prune.calibrate import METHODS
from tersor.prune.patterns import nm_of


@opened("tersor.prune")
def prune_safetensors(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str] | None,
    sparsity: float | None = None,
    *,
    k: int | None = None,
    min_keep: int = 0,
    scope: str | None = None,
    method: str = "magnitude",
    nm: tuple[int, int] | str | None = None,
    blocks: tuple[int, int] | str | None = None,
    calibration: Sequence[str] | None = None,
    schedule: Sequence[float] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    embeddings: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    calibrating: Progress | None = None,
) -> Pruned:
    """Prunes the weights of a safetensors file or model folder: the smallest of all, by patterns, or by what layers do.

    Parameters
    ----------
    src : path
        A ``.safetensors`` file, a model folder, or the index of a sharded one; of 8-bit floats with scales too, which are
        decoded to the type that ``config.json`` gives the model (bfloat16 if none).
    dst : path
        Where to write: a file for a file, a folder for a folder; may be ``src`` itself. What is there is replaced as a whole
        when its successor is complete. A folder's other files are carried over, except the same weights in other formats. None
        writes nothing: what would be pruned is counted.
    sparsity : float between 0 and 1
        Share of the chosen weights to prune, of blocks or rows with ``blocks``.
    k : int
        Number of weights to prune, instead of the share.
    min_keep : int
        The largest so many weights of each tensor are kept, though fewer than the share be pruned.
    scope : "global" or "layer"
        Rank all weights together, which is meant if nothing is said, or those of each tensor by themselves. Patterns n:m and
        methods that run the model know the layer alone.
    method : "magnitude", "wanda" or "sparsegpt"
        The last two run the model (a folder that transformers knows, with its tokenizer) on texts and prune its linear layers
        one by one, as `calibrate` does: each gives up the same share. What they say nothing of is left dense.
    nm : (n, m) or "n:m"
        Instead of a share: of every m weights along the last axis, n are kept.
    blocks : (rows, columns), "rows:columns" or "rows"
        Prune whole blocks of the last two axes, those of the least 2-norm (`block_mask`), or whole rows of the first axis: what
        a layer gives, filters of convolutions. What blocks do not divide is left dense.
    calibration : sequence of str
        The texts, a sentence or a document each.
    schedule : sequence of floats
        Shares on the way from 0 to ``sparsity``, none below the one before, for methods that run the model: it is run and
        pruned once for each, and what is left answers each time. By magnitude the way makes no difference.
    include, exclude : sequences of str
        Shell patterns of names of tensors or of their modules. Without ``include`` all float tensors of two dimensions or
        more are chosen but tables of embeddings, what is tied to one, and routers, as `quantize_safetensors` tells them; with
        it the float tensors that match. ``exclude`` takes some away.
    embeddings : bool
        Tables of embeddings and what is tied to one are chosen too.
    resume : bool
        Of a folder: note which files are done, and go on from there if an earlier run with the same sources, destination and
        arguments was interrupted. What is done waits in a hidden folder beside ``dst``. A single file begins anew.
    progress : callable
        ``progress(done, total)`` in bytes, called after every chunk.
    calibrating : callable
        ``calibrating(done, total)`` in layers.

    Returns
    -------
    Pruned(total, pruned, threshold, kept, left, dense, rule, untouched, decoded, sizes)

    Raises
    ------
    FormatError
        If a file is malformed.
    TypeError
        If a number is no number.
    ValueError
        If the checkpoint is quantized, no tensor is chosen, a pattern matches nothing, weights are not finite, k is more
        than can be pruned, or arguments do not go together: k, min_keep and resume are for magnitude without a pattern, texts
        for the methods that run the model.
    OSError
        If a file cannot be read or written.

    Notes
    -----
    Memory: 4 MiB of data and 2 MB of counters; the methods that run the model hold it whole, in float32. One read per 16 bits
    of the widest type and one for the writing, one more with min_keep. Floats of 64, 32, 16 and 8 bits are ranked by value;
    all other bytes of a file, its header among them, stay as they are. By magnitude it is bit for bit the result of
    `global_prune` on the same tensors, by file name, then place in the file.
    """
    src = located("prune_safetensors", src, "src")
    dst = None if dst is None else located("prune_safetensors", dst, "dst")
    one_of("method", method, ("magnitude", *METHODS))
    if (sparsity is not None) + (k is not None) + (nm is not None) != 1:
        raise ValueError("exactly one of sparsity, k and nm must be given")
    one_of("scope", scope or "global", ("global", "layer"))
    within = nm is not None or method != "magnitude"
    if (within or blocks is not None) and (k is not None or min_keep or resume):
        raise ValueError("k, min_keep and resume go with method='magnitude' and without nm and blocks")
    if within and (blocks is not None or scope == "global"):
        what = "blocks" if blocks is not None else "scope='global'"
        raise ValueError(f"{what} goes with method='magnitude' and without nm, which know the layer alone")
    if scope == "layer" and (k is not None or resume):
        raise ValueError("k and resume go with scope='global'")
    if dst is None and resume:
        raise ValueError("resume needs a destination")
    if (calibration is not None) != (method != "magnitude"):
        needs = "needs texts for calibration" if calibration is None else "is not calibrated"
        raise ValueError(f"method={method!r} {needs}")
    if schedule is not None and (method == "magnitude" or sparsity is None):
        raise ValueError("a schedule goes with a sparsity and a method that runs the model")
    shares = _shares(schedule, sparsity)
    groups = None if nm is None else nm_of("prune_safetensors", nm)
    size = None if blocks is None else block_of("prune_safetensors", blocks)
    patterns = Patterns(include, exclude)
    with Dense(src) as model:
        meter = Meter(progress)
        step = meter.step
        if found := evidence(model):
            raise ValueError(
                f"{os.fspath(src)}: is quantized already: {found}; prune the dense model, then quantize it"
            )
        patterns.check(e.name for _, e in model.tensors())
        layers = {e.name: Stored(r, e, step) for r, e in model.tensors() if eligible(e, patterns)}
        known, dense = None, {}
        if model.folder and not patterns.include:
            known = tree(model.folder, model.config, [e.name for _, e in model.tensors()])
        for name in [] if patterns.include else list(layers):
            part = known.parts[name] if known else TABLE if is_table(name) else LINEAR
            if (why := held(name, part)) and (why == ROUTER or not embeddings):
                dense[name] = why
                del layers[name]
        if not layers:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(dense.items())[:3])
            raise ValueError(f"{os.fspath(src)}: no float tensor is chosen" + (f" ({reasons})" if reasons else ""))
        if within or size is not None:
            chosen = rows.Chosen(model, src, dst, layers, known, dense, Meter(progress))
            if size is not None:
                return in_blocks(chosen, sparsity, size, scope or "global")
            return rows.within(chosen, (*shares, sparsity), groups, method, calibration, calibrating)
        some = list(layers.values())
        total = sum(layer.size for layer in some)
        protect = [min(integer("min_keep", min_keep), layer.size) for layer in some]
        if scope == "layer":
            return _by_layer(rows.Chosen(model, src, dst, layers, known, dense, meter), sparsity, protect)
        free = total - sum(protect)
        count = integer("k", min(share(sparsity, total), free) if sparsity is not None else k)
        if count > free:
            kept = f" with min_keep for {sum(protect)} of them" if any(protect) else ""
            raise ValueError(f"{src}: cannot prune k = {count} of {total} weights{kept}")
        order = order_of([TYPES[layer.entry.dtype] for layer in some])
        reads = (order.width // 16 if count else 1) + any(protect)
        meter.end = reads * sum(layer.entry.nbytes for layer in some)
        meter.total = meter.end + sum(r.size for r in model.readers.values())
        journal = None
        sizes = {name: layer.size for name, layer in layers.items()}
        places = {name: i for i, name in enumerate(layers)}
        kept_by: dict[str, int] = {}

        def pieces(reader: Reader, entry: Entry) -> Iterator[np.ndarray]:
            layer = layers.get(entry.name)
            if layer is None:
                return reader.chunks(entry)
            return _pruned(reader, layer, order, cuts, places[entry.name], kept_by)

        if dst is None:
            key, cuts = _solve(some, count, order, protect)
            meter.done, meter.end = meter.end, meter.total
            written(model, None, pieces, layers, step)
            highest = order.value(key) if count else None
            return Pruned(total, count, highest, kept_by, (), dense, rule_of(known), (), model.decoded, sizes)
        if resume and model.folder is not None:
            journal = Cuts(model, k=count, protect=protect, names=list(layers))
        untouched = model.weights_of_others()
        with model.output(dst, journal.takes if journal else None, keep=journal is not None) as target:
            if journal:
                journal.begin(target.path)
            if journal and journal.cuts:
                key, cuts, kept_by = journal.key, journal.cuts, journal.kept
            else:
                key, cuts = _solve(some, count, order, protect)
                if journal:
                    journal.plan(key, cuts)
                    kept_by = journal.kept
            meter.done, meter.end = meter.end, meter.total
            left = model.carry(target)
            rewrite(model, target, pieces, step, journal)
            model.carry_index(target)
            if journal:
                journal.remove()
        threshold = order.value(key) if count else None
        return Pruned(total, count, threshold, kept_by, left, dense, rule_of(known), untouched, model.decoded, sizes)


def _shares(schedule: Any, sparsity: Any) -> tuple[float, ...]:
    """The shares on the way: what is pruned stays pruned, so that none may be more than what comes after it."""
    if schedule is None:
        return ()
    given: Any = [None] if isinstance(schedule, (str, bytes)) else schedule
    try:
        shares = [float(s) for s in given]
    except (TypeError, ValueError):
        raise TypeError(f"schedule must be a sequence of numbers, got {schedule!r}") from None
    least = 0.0
    for s in (*shares, sparsity):
        if not least <= s:
            raise ValueError(f"schedule must rise from 0 to sparsity = {sparsity}, got {shares}")
        least = s
    return tuple(shares)


def _by_layer(chosen: rows.Chosen, sparsity: Any, protect: Sequence[int]) -> Pruned:
    """The share of each tensor by itself."""
    layers, meter, cuts, kept, highest = chosen.layers, chosen.meter, {}, dict[str, int](), None
    for layer, least in zip(layers.values(), protect, strict=True):
        meter.end += (order_of([TYPES[layer.entry.dtype]]).width // 16 + bool(least)) * layer.entry.nbytes
    meter.total = meter.end + sum(r.size for r in chosen.model.readers.values())
    for (name, layer), least in zip(layers.items(), protect, strict=True):
        order, count = order_of([TYPES[layer.entry.dtype]]), min(share(sparsity, layer.size), layer.size - least)
        key, plan = _solve([layer], count, order, [least])
        cuts[name] = order, plan
        if count:
            highest = max(highest or 0.0, order.value(key))
    meter.done, meter.end = meter.end, meter.total

    def pieces(reader: Reader, entry: Entry) -> Iterator[np.ndarray]:
        layer = layers.get(entry.name)
        return reader.chunks(entry) if layer is None else _pruned(reader, layer, *cuts[entry.name], 0, kept)

    return chosen.made(pieces, kept, {name: layer.size for name, layer in layers.items()}, highest)


def _solve(layers: Sequence[Stored], k: int, order: Order, protect: Sequence[int]) -> tuple[int, Plan]:
    """The key of the threshold, and how to cut every tensor."""
    try:
        h = search(layers, [k], order, protect)
    except ValueError:
        _blame(layers)
        raise
    return h.keys[0], plan(layers, h, "low", protect)


def _pruned(
    reader: Reader, layer: Stored, order: Order, cuts: Plan, i: int, kept_by: dict[str, int]
) -> Iterator[np.ndarray]:
    """The bytes of a tensor without what is cut of it."""
    kept = 0
    for raw in reader.chunks(layer.entry):
        above, equal = layer.prune(raw, order, cuts.cut(i))
        kept += above + cuts.spend(i, equal)
        yield raw
    kept_by[layer.entry.name] = kept


def _blame(layers: Sequence[Stored]) -> None:
    """Says which tensor is not finite, if one is."""
    for layer in layers:
        for raw in layer.reader.chunks(layer.entry):
            values = layer.decode(raw)
            words = values.view(np.uint16).astype(np.uint32) << 16 if layer.entry.dtype == "BF16" else None
            finite = np.isfinite(values if words is None else words.view(np.float32))
            if not finite.all():
                raise ValueError(f"{layer.reader.path}: tensor {layer.entry.name!r} has non-finite values")
