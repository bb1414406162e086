"""Checkpoints quantized as a stream. The one rule: memory is bounded by some rows and the scales of one file, and a result is
there whole or not at all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tersor._arrays import flag
from tersor.checkpoint._format import Misuse, StrPath, located
from tersor.checkpoint._modules import tree
from tersor.checkpoint._quantized import evidence
from tersor.checkpoint.writer import write_json
from tersor.jobs import calibrate, compressed, running
from tersor.jobs._journal import Journal
from tersor.jobs._quantized import Laid, Step, Summary, becomes, not_read
from tersor.jobs._schemes import Schemes
from tersor.jobs.choice import called, choose, configuration
from tersor.jobs.floats8 import Dense
from tersor.quant._arguments import one_of

Progress = Callable[[int, int], None]


def quantize_safetensors(
    src: StrPath,
    dst: StrPath | None,
    scheme: str,
    *,
    schemes: Mapping[str, str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    embeddings: bool = False,
    convolutions: bool = False,
    experts: bool = False,
    fallback: bool = False,
    method: str | None = None,
    calibration: Sequence[str] | None = None,
    bits: str | Sequence[int] | None = None,
    budget: float | None = None,
    rotate: bool = False,
    smooth: float | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    calibrating: Progress | None = None,
) -> Summary:
    """Quantizes the matrices of a safetensors file or a model folder into another one.

    Parameters
    ----------
    src : a ``.safetensors`` file, a model folder, or the index of a sharded one; of 8-bit floats with scales too, which are
        decoded to the type that ``config.json`` gives the model (bfloat16 if none)
    dst : a file for a file, a folder for a folder; None writes nothing: what would be written is counted, from the headers
        alone but where the model is run
    scheme : ``int8-row``, ``int4-g128`` or another of 2 to 8 bits, per row or per group; ``uint4-g128`` has zero points; with
        ``-gptq``, ``-awq`` or ``-adaround`` after it, codes are found by what the layers are given of the texts in
        ``calibration``;
        ``int-g128-gptq`` goes with ``bits``
    schemes : mapping of shell patterns to schemes, for weights that have another one: ``{"lm_head": "int8-row", "*.down_proj":
        "int8-g128-gptq"}``; a pattern is as in ``include``, the first that names a weight decides, and it includes nothing that
        is left without it. Of those that are calibrated all are in one way; the others are rounded to the nearest beside them.
        Not with ``bits``.
    include, exclude : shell patterns on names of tensors or of their modules; what is included is quantized even if it is a
        table of embeddings or a router
    embeddings : quantize tables of embeddings too
    convolutions : quantize filters of convolutions too, each as a row; `load`, `load_encoded` and so ``nn.convert`` read them,
        transformers does not
    experts : quantize experts that lie in one tensor ``[experts, rows, columns]`` too, each as a matrix; transformers reads
        those of tensors that are called weight, `load` and `load_encoded` all
    fallback : rows that groups do not divide take the largest power of two from 16 on that does, or a scale for the whole row,
        where they would stay dense; readers are then told of each weight, as with ``bits``
    method : "minmax" or "mse", optional
        How scales are chosen: by the largest magnitude, or by a search for the least squares, which uses the whole range of
        codes and of 4 bits loses a tenth to a quarter less. "mse" for what is calibrated, else "minmax".
    calibration : texts, a sentence or a document each, which the model (a folder that transformers knows, with its tokenizer)
        is run on; what it never gives to a layer, that layer's weight is rounded to the nearest
    bits, budget : ``"auto"``, or the widths that a weight may have, and the average bits a weight that all of them together may
        take, scales among them: those are chosen that lose least (`tersor.quant.calibrate`)
    rotate : turn weights by Hadamard matrices before they are calibrated, where the model then gives the same as before
        (`tersor.quant.calibrate`)
    smooth : from 0 to 1, how much of what is hard to round goes from the inputs of layers to their weights before they are
        calibrated, for layers with int8 activations (`tersor.quant.calibrate`)
    resume : of a folder, without calibration: note which files are done, and go on from there if an earlier run with the same
        sources, destination and arguments was interrupted. What is done waits in a hidden folder beside ``dst``. A single file
        begins anew.
    progress : called as ``progress(done, total)``, in bytes, after every chunk
    calibrating : called as ``calibrating(done, total)``, in layers

    Returns
    -------
    Summary

    Raises
    ------
    FormatError
        If a file is malformed.
    ValueError
        If a weight is not finite, nothing is there to quantize, it is quantized already, a pattern matches nothing, a
        folder would replace itself, the scheme and ``calibration`` do not go together, or ``resume`` with one of them, the
        method is unknown, or the model cannot be run on texts.
    TypeError
        If include or exclude is a string, scheme is none, or a flag is no bool.
    OSError
        If a file cannot be read or written.

    Notes
    -----
    The result is what the `compressed-tensors` package calls ``pack-quantized`` (see `tersor.compressed`). Each file is put
    in place whole, and so is a folder: what was there under its name goes, the files of an earlier run among it.
    """
    src = located("quantize_safetensors", src, "src")
    dst = None if dst is None else located("quantize_safetensors", dst, "dst")
    embeddings, convolutions, experts, fallback, rotate, resume = (
        flag(f"quantize_safetensors: {name}", value)
        for name, value in (
            ("embeddings", embeddings),
            ("convolutions", convolutions),
            ("experts", experts),
            ("fallback", fallback),
            ("rotate", rotate),
            ("resume", resume),
        )
    )
    asked = Schemes.of(compressed.Scheme.parse(scheme), schemes)
    how = asked.scheme
    asked.check(
        bits=bits, budget=budget, rotate=rotate, smooth=smooth, texts=calibration is not None, resume=resume, dst=dst
    )
    if method is not None:
        one_of("quantize_safetensors", "method", method, ("minmax", "mse"))
        asked = Schemes.of(how, schemes, method)
        how = asked.scheme
    with Dense(src) as model:
        config = model.config
        if found := evidence(model):
            raise ValueError(f"{os.fspath(src)}: is quantized already: {found}")
        shapes = [(e.name, e.dtype, e.shape) for _, e in model.tensors()]
        chosen = choose(
            shapes,
            how,
            include=include,
            exclude=exclude,
            embeddings=embeddings,
            convolutions=convolutions,
            experts=experts,
            fallback=fallback,
            schemes=asked.own,
            model_type=config.get("model_type"),
            tree=(modules := tree(model.folder, config, [name for name, _, _ in shapes]) if model.folder else None),
        )
        if not chosen.quantized:
            reasons = "; ".join(sorted({f"{name}: {why}" for name, why in chosen.dense.items()})[:3])
            rows = f"; int{how.bits}-row needs no groups" if "into groups" in reasons else ""
            raise ValueError(f"{os.fspath(src)}: no weight to quantize" + (f" ({reasons}{rows})" if reasons else ""))
        if model.folder and dst is not None and Path(dst).exists() and model.folder.samefile(dst):
            raise Misuse(f"{os.fspath(dst)}: a folder is quantized into another folder, this one is both")
        solved = calibrate.Solved()
        if calibration is not None:
            folder = running.folder_of(model.folder, model.decoded, src, f"--scheme {how.codes}")
            kinds = {name: (dtype, shape) for name, dtype, shape in shapes}
            solved = calibrate.solve(
                folder,
                config,
                modules,
                kinds,
                {name: chosen.scheme(name, how) for name in chosen.quantized},
                how,
                calibration,
                bits=bits,
                budget=budget,
                rotate=rotate,
                smooth=smooth,
                progress=calibrating,
            )
        each = {name: chosen.scheme(name, how) for name in chosen.quantized}
        each = {name: replace(own, bits=solved.widths.get(name, own.bits)) for name, own in each.items()}
        apart = {name: (own.bits, own.group, own.affine) for name, own in each.items()}
        readers = {module: kind for name, kind in apart.items() for module in called(name, modules)}
        laid = {file: Laid(r, str(how), each, chosen) for file, r in model.readers.items()}
        after = sum(sum(one.bytes.values()) for one in laid.values())
        before = sum(e.nbytes for _, e in model.tensors())
        layers = becomes(laid.values(), chosen, solved)
        read = 0

        def step(n: int) -> None:
            nonlocal read
            read += n
            if progress:
                progress(read, before)

        said = configuration(how, chosen, readers)
        left: tuple[str, ...] = ()
        untouched: tuple[str, ...] = ()
        unread: str | None = None
        config = config | {"quantization_config": said}
        if dst is None:
            step(before)
        else:
            untouched = model.weights_of_others()
            journal = None
            if resume and model.folder is not None:
                all_ = {name: asdict(own) for name, own in each.items()}
                journal = Journal(model, "quantize", schemes=all_, transposed=chosen.transposed)
            left, unread = _write(model, dst, laid, solved, step, journal, config, after)
        if model.folder:
            affine = any(own.affine for own in each.values())
            unread = not_read(chosen, shapes, said, model.folder, modules, affine) or unread
        sizes = {name: (each[name].size(shape, dtype), shape) for name, dtype, shape in shapes if name in each}
        average = sum(size for size, _ in sizes.values()) / sum(math.prod(shape) for _, shape in sizes.values())
        widths = {} if how.bits else solved.widths
        return Summary(
            chosen,
            before,
            after,
            left,
            untouched,
            solved.rounded,
            widths,
            average,
            unread,
            solved.unscaled,
            model.decoded,
            solved.rotated,
            solved.unrotated,
            layers,
            solved.curve,
            solved.chosen,
            solved.scarce,
        )


def _write(
    model: Dense,
    dst: StrPath,
    laid: dict[str, Laid],
    solved: calibrate.Solved,
    step: Step,
    journal: Journal | None,
    config: dict[str, Any],
    size: int,
) -> tuple[tuple[str, ...], str | None]:
    """Writes the files, but those that are done, with a configuration and an index of ``size`` bytes; what a folder was not
    given, and why transformers does not read it."""
    with model.output(dst, journal.takes if journal else None, keep=journal is not None) as target:
        if journal:
            journal.begin(target.path)
        for file, one in laid.items():
            if journal and file in journal.done:
                step(sum(e.nbytes for e in model.readers[file].entries.values()))
                continue
            one.write(target.path / file if model.folder else target.path, solved, step)
            if journal:
                journal.end(file)
        if not model.folder:
            return (), None
        left = model.carry(target, skip=("config.json",))
        if model.index:
            names = {name: file for file, one in laid.items() for name in one.bytes}
            write_json(target.path / model.index, model.index_of(names, size))
        write_json(target.path / "config.json", config)
        unread = solved.unread(target.path)
        if journal:
            journal.remove()
    return left, unread
