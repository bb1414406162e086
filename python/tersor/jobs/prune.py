"""Pruning of files larger than memory. The one rule: the bytes written are those that the weights in memory would give, and
a chunk is all that is held of them.

Weights are read once per 16 bits of their keys and once more to be written (see `tersor.prune.histogram`); the order for
ties is file name, then place in the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tersor._keys import Order
from tersor._public import opened
from tersor._values import one_of
from tersor.checkpoint import Entry, Reader, Writer
from tersor.checkpoint._format import located
from tersor.checkpoint._modules import LINEAR, TABLE, Tree, rule_of, tree
from tersor.checkpoint._parts import ROUTER, held, is_table
from tersor.checkpoint._patterns import Patterns
from tersor.checkpoint._quantized import evidence
from tersor.checkpoint.model import Output
from tersor.jobs import prune_rows as rows
from tersor.jobs import running
from tersor.jobs._journal import Journal
from tersor.jobs.floats8 import Dense
from tersor.jobs.stored import TYPES, Meter, Progress, Stored, eligible
from tersor.prune._rank import Plan, plan, search, share
from tersor.prune._run import integer, order_of
from tersor.prune.calibrate import METHODS
from tersor.prune.patterns import nm_of


class Pruned(NamedTuple):
    """What was pruned: of how many weights how many, up to which magnitude (None if none), and what each tensor keeps.

    ``left`` names what a folder's result was not given: the same weights in other formats, and states of a training;
    ``dense`` the tensors that were held back, with the reason, and ``rule`` what decided that; ``untouched`` the files of
    weights in subfolders, parts of their own that went along as they are; ``decoded`` the weights that were 8-bit floats with
    scales, and were decoded as they were read.
    """

    total: int
    pruned: int
    threshold: float | None
    kept: dict[str, int]
    left: tuple[str, ...]
    dense: dict[str, str]
    rule: str
    untouched: tuple[str, ...] = ()
    decoded: tuple[str, ...] = ()


@opened("tersor.prune")
def prune_safetensors(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    sparsity: float | None = None,
    *,
    k: int | None = None,
    min_keep: int = 0,
    method: str = "magnitude",
    nm: tuple[int, int] | str | None = None,
    calibration: Sequence[str] | None = None,
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
        when its successor is complete. A folder's other files are carried over, except the same weights in other formats.
    sparsity : float between 0 and 1
        Share of the chosen weights to prune.
    k : int
        Number of weights to prune, instead of the share.
    min_keep : int
        The largest so many weights of each tensor are kept, though fewer than the share be pruned.
    method : "magnitude", "wanda" or "sparsegpt"
        The last two run the model (a folder that transformers knows, with its tokenizer) on texts and prune its linear layers
        one by one, as `calibrate` does: each gives up the same share. What they say nothing of is left dense.
    nm : (n, m) or "n:m"
        Instead of a share: of every m weights along the last axis, n are kept.
    calibration : sequence of str
        The texts, a sentence or a document each.
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
    Pruned(total, pruned, threshold, kept, left, dense, rule, untouched)

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
    Memory: 4 MiB of data and 2 MB of counters; the methods that run the model hold it whole, in float32. One read per 16
    bits of the widest type and one for the writing, one more with
    min_keep. Floats of 64, 32, 16 and 8 bits are ranked by value; all other bytes of a file, its header among them, stay as
    they are. By magnitude it is bit for bit the result of `global_prune` on the same tensors, by file name, then place in the
    file.
    """
    src, dst = located("prune_safetensors", src, "src"), located("prune_safetensors", dst, "dst")
    one_of("method", method, ("magnitude", *METHODS))
    if (sparsity is not None) + (k is not None) + (nm is not None) != 1:
        raise ValueError("exactly one of sparsity, k and nm must be given")
    within = nm is not None or method != "magnitude"
    if within and (k is not None or min_keep or resume):
        raise ValueError("k, min_keep and resume go with method='magnitude' and without nm")
    if (calibration is not None) != (method != "magnitude"):
        needs = "needs texts for calibration" if calibration is None else "is not calibrated"
        raise ValueError(f"method={method!r} {needs}")
    groups = None if nm is None else nm_of("prune_safetensors", nm)
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
        if within:
            return _within(
                model, src, dst, layers, known, dense, sparsity, groups, method, calibration, progress, calibrating
            )
        some = list(layers.values())
        total = sum(layer.size for layer in some)
        protect = [min(integer("min_keep", min_keep), layer.size) for layer in some]
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
        if resume and model.folder is not None:
            journal = Journal(model, k=count, protect=protect, names=list(layers))
        untouched = model.weights_of_others()
        with model.output(dst, journal.takes if journal else None, keep=journal is not None) as target:
            if journal:
                journal.begin(target.path)
            if journal and journal.cuts:
                key, cuts, kept_by = journal.key, journal.cuts, journal.kept
            else:
                key, cuts = _solve(some, count, order, protect)
                kept_by = {}
                if journal:
                    journal.plan(key, cuts)
                    kept_by = journal.kept
            meter.done, meter.end = meter.end, meter.total
            left = model.carry(target)
            places = {name: i for i, name in enumerate(layers)}

            def pieces(reader: Reader, entry: Entry) -> Iterator[np.ndarray]:
                layer = layers.get(entry.name)
                if layer is None:
                    return reader.chunks(entry)
                return _pruned(reader, layer, order, cuts, places[entry.name], kept_by)

            _rewrite(model, target, pieces, step, journal)
            model.carry_index(target)
            if journal:
                journal.remove()
        threshold = order.value(key) if count else None
        return Pruned(total, count, threshold, kept_by, left, dense, rule_of(known), untouched, model.decoded)


def _within(
    model: Dense,
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    layers: dict[str, Stored],
    known: Tree | None,
    dense: dict[str, str],
    sparsity: float | None,
    nm: tuple[int, int] | None,
    method: str,
    texts: Sequence[str] | None,
    progress: Progress | None,
    calibrating: Progress | None,
) -> Pruned:
    """Tensors one by one, by a pattern or by what their layers are given."""
    if nm:
        dense |= (unfit := rows.unfit({name: layer.entry for name, layer in layers.items()}, nm[1]))
        layers = {name: layer for name, layer in layers.items() if name not in unfit}
    solved = rows.Solved()
    if texts is not None:
        folder = running.folder_of(model.folder, model.decoded, src, "prune it by magnitude")
        entries = {name: layer.entry for name, layer in layers.items()}
        solved = rows.solve(folder, model.config, known, entries, texts, sparsity, nm, method, calibrating)
        dense |= solved.left
        layers = {name: layer for name, layer in layers.items() if name in solved.values}
    if not layers:
        raise ValueError(
            f"{os.fspath(src)}: no tensor is pruned ({'; '.join(f'{k}: {v}' for k, v in list(dense.items())[:3])})"
        )
    meter = Meter(progress)
    meter.end = meter.total = sum(r.size for r in model.readers.values())
    kept = solved.kept
    untouched = model.weights_of_others()
    with model.output(dst) as target:
        left = model.carry(target)

        def pieces(reader: Reader, entry: Entry) -> Iterator[np.ndarray]:
            name = entry.name
            if name in solved.values:
                return iter([solved.values.pop(name)])
            if name not in layers or not nm:
                return reader.chunks(entry)
            kept[name] = layers[name].size // nm[1] * nm[0]
            return rows.pattern(reader, entry, layers[name].decode, nm)

        _rewrite(model, target, pieces, meter.step)
        model.carry_index(target)
    total = sum(layer.size for layer in layers.values())
    return Pruned(total, total - sum(kept.values()), None, kept, left, dense, rule_of(known), untouched, model.decoded)


def _solve(layers: Sequence[Stored], k: int, order: Order, protect: Sequence[int]) -> tuple[int, Plan]:
    """The key of the threshold, and how to cut every tensor."""
    try:
        h = search(layers, [k], order, protect)
    except ValueError:
        _blame(layers)
        raise
    return h.keys[0], plan(layers, h, "low", protect)


def _rewrite(
    model: Dense,
    target: Output,
    pieces: Callable[[Reader, Entry], Iterator[np.ndarray]],
    step: Callable[[int], None],
    journal: Journal | None = None,
) -> None:
    """The model's files anew, laid out the same, with what ``pieces`` gives for each tensor; those that are done stay."""
    for file, reader in model.readers.items():
        if journal and file in journal.done:
            step(reader.size)
            continue
        path = target.path / file if model.folder is not None else target.path
        with Writer(path, head=reader.head, size=reader.size) as out:
            step(len(reader.head))
            for entry in reader.entries.values():
                for raw in pieces(reader, entry):
                    out.write(raw)
                    step(raw.nbytes)
        if journal:
            journal.end(file)


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
