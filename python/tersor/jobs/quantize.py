"""Checkpoints quantized as a stream. The one rule: memory is bounded by some rows and the scales of one file, and a result is
there whole or not at all.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tersor._arrays import flag
from tersor.checkpoint import Entry, Reader, Writer
from tersor.checkpoint._format import BITS, Misuse, StrPath, located
from tersor.checkpoint._modules import Tree, tree
from tersor.checkpoint._quantized import evidence
from tersor.checkpoint.reader import CHUNK
from tersor.checkpoint.writer import write_json
from tersor.jobs import calibrate, compressed, running
from tersor.jobs.choice import Choice, called, choose, configuration
from tersor.jobs.floats8 import Dense
from tersor.quant import pack
from tersor.quant._arguments import one_of

Progress = Callable[[int, int], None]
Step = Callable[[int], None]


@dataclass(frozen=True)
class Summary:
    """What was done: the choice of tensors, bytes of weights before and after, and what a folder was not given.

    ``untouched`` names the files of weights in subfolders, parts of their own that went along as they are; ``rounded`` the
    tensors that calibration had nothing to say of, with the reason: they are rounded to the nearest. ``widths`` has the bits of
    each tensor where they were to be chosen, ``bits`` what a quantized weight takes on average, its share of scales with it.
    ``unscaled`` has the tensors whose inputs took no scales (``-awq``, smooth), with the reason. ``unread`` says why
    transformers cannot read the folder by itself (`load` can), if it cannot. ``decoded`` names the weights that were 8-bit
    floats with scales, and were decoded as they were read. ``rotated`` says with what the weights were turned that were,
    ``unrotated`` why others were not. ``curve`` has the bits a weight and the loss that other budgets come to, ``chosen`` this
    one's, of the weights that calibration reached. ``choice.smaller`` has the groups of what those of the scheme do not divide.
    """

    choice: Choice
    before: int
    after: int
    left: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()
    rounded: Mapping[str, str] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    bits: float = 0.0
    unread: str | None = None
    unscaled: Mapping[str, str] = field(default_factory=dict)
    decoded: tuple[str, ...] = ()
    rotated: Mapping[str, str] = field(default_factory=dict)
    unrotated: Mapping[str, str] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    chosen: tuple[float, float] | None = None


def quantize_safetensors(
    src: StrPath,
    dst: StrPath,
    scheme: str,
    *,
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
    progress: Progress | None = None,
    calibrating: Progress | None = None,
) -> Summary:
    """Quantizes the matrices of a safetensors file or a model folder into another one.

    Parameters
    ----------
    src : a ``.safetensors`` file, a model folder, or the index of a sharded one; of 8-bit floats with scales too, which are
        decoded to the type that ``config.json`` gives the model (bfloat16 if none)
    dst : a file for a file, a folder for a folder
    scheme : ``int8-row``, ``int4-g128`` or another of 8 or 4 bits, per row or per group; ``uint4-g128`` has zero points; with
        ``-gptq``, ``-awq`` or ``-adaround`` after it, codes are found by what the layers are given of the texts in
        ``calibration``;
        ``int-g128-gptq`` goes with ``bits``
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
        folder would replace itself, the scheme and ``calibration`` do not go together, the method is unknown, or the model
        cannot be run on texts.
    TypeError
        If include or exclude is a string, scheme is none, or a flag is no bool.
    OSError
        If a file cannot be read or written.

    Notes
    -----
    The result is what the `compressed-tensors` package calls ``pack-quantized`` (see `tersor.compressed`). Each file is put
    in place whole, and so is a folder: what was there under its name goes, the files of an earlier run among it.
    """
    src, dst = located("quantize_safetensors", src, "src"), located("quantize_safetensors", dst, "dst")
    embeddings, convolutions, experts, fallback, rotate = (
        flag(f"quantize_safetensors: {name}", value)
        for name, value in (
            ("embeddings", embeddings),
            ("convolutions", convolutions),
            ("experts", experts),
            ("fallback", fallback),
            ("rotate", rotate),
        )
    )
    how = compressed.Scheme.parse(scheme)
    if (bits is None) != (budget is None) or (bits is None) != bool(how.bits):
        raise Misuse(
            f"scheme {scheme}: a scheme without a width (int-g128-gptq) goes with bits and budget, one with a width without; "
            f"got bits={bits!r} and budget={budget!r}"
        )
    if rotate and not how.calibrated:
        raise Misuse(f"scheme {scheme}: rotate goes with calibration, which this scheme has none of")
    if smooth is not None and (not how.calibrated or how.solver == "awq" or not how.bits):
        raise Misuse(f"scheme {scheme}: smooth goes with a width that is calibrated by -gptq or -adaround")
    if how.calibrated != (calibration is not None):
        raise Misuse(f"scheme {scheme}: " + ("needs texts for calibration" if how.calibrated else "is not calibrated"))
    if method is not None:
        one_of("quantize_safetensors", "method", method, ("minmax", "mse"))
        how = replace(how, method=method)
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
            model_type=config.get("model_type"),
            tree=(modules := tree(model.folder, config, [name for name, _, _ in shapes]) if model.folder else None),
        )
        if not chosen.quantized:
            reasons = "; ".join(sorted({f"{name}: {why}" for name, why in chosen.dense.items()})[:3])
            rows = f"; int{how.bits}-row needs no groups" if "into groups" in reasons else ""
            raise ValueError(f"{os.fspath(src)}: no weight to quantize" + (f" ({reasons}{rows})" if reasons else ""))
        if model.folder and Path(dst).exists() and model.folder.samefile(dst):
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
        schemes = {
            name: replace(chosen.scheme(name, how), bits=solved.widths.get(name, how.bits)) for name in chosen.quantized
        }
        apart = {name: (own.bits, own.group) for name, own in schemes.items()}
        readers = {module: kind for name, kind in apart.items() for module in called(name, modules)}
        names: dict[str, str] = {}
        after = read = 0
        before = sum(e.nbytes for _, e in model.tensors())

        def step(n: int) -> None:
            nonlocal read
            read += n
            if progress:
                progress(read, before)

        left: tuple[str, ...] = ()
        unread: str | None = None
        untouched = model.weights_of_others()
        with model.output(dst) as target:
            for file, reader in model.readers.items():
                path = target.path / file if model.folder else target.path
                written = _file(reader, path, how, schemes, chosen.transposed, solved, step)
                names |= dict.fromkeys(written, file)
                after += sum(written.values())
            if model.folder:
                left = model.carry(target, skip=("config.json",))
                if model.index:
                    write_json(target.path / model.index, model.index_of(names, after))
                said = configuration(how, chosen, readers)
                write_json(target.path / "config.json", config | {"quantization_config": said})
                unread = _unread(chosen, shapes, said, target.path, modules, how.affine) or solved.unread(target.path)
        sizes = {name: (schemes[name].size(shape, dtype), shape) for name, dtype, shape in shapes if name in schemes}
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
            solved.curve,
            solved.chosen,
        )


def _unread(
    chosen: Choice,
    shapes: Sequence[tuple[str, str, Sequence[int]]],
    said: Mapping[str, Any],
    folder: Path,
    modules: Tree | None,
    affine: bool,
) -> str | None:
    """Why transformers does not read a folder by itself, as far as its tensors and its configuration tell."""
    several = len(said["config_groups"]) > 1
    for name, _, shape in shapes:
        if name not in chosen.quantized or len(shape) == 2:
            continue
        if name not in chosen.stacked:
            return f"{name} is a convolution, which transformers does not read packed"
        becomes = modules.targets[name] if modules else name
        if several or not name.endswith(".weight") or not becomes.endswith(".weight"):
            return f"{name} holds experts, which transformers does not read packed"
    if several and affine:
        return "zero points of weights of several kinds, which transformers takes for those of the first"
    if several and chosen.transposed:
        return f"{chosen.transposed[0]} is transposed, which transformers reads where all weights are of one kind"
    if several and (folder / "modules.json").exists():
        return "SentenceTransformer, whose modules.json is here, never makes the call that decodes weights of several kinds"
    return None


def _file(
    reader: Reader,
    path: Path,
    scheme: compressed.Scheme,
    schemes: Mapping[str, compressed.Scheme],
    transposed: Sequence[str],
    solved: calibrate.Solved,
    step: Step,
) -> dict[str, int]:
    """One file quantized into another, with what is ``solved``; the names that it now holds, with their bytes."""
    parts: list[tuple[str, str, Sequence[int], Entry]] = []
    for e in reader.entries.values():
        if e.name in schemes:
            parts += [(*part, e) for part in compressed.layout(e.name, e.dtype, e.shape, schemes[e.name])]
        else:
            parts.append((e.name, e.dtype, e.shape, e))
    parts.sort(key=lambda part: -BITS[part[1]])  # the widest first: all stay aligned
    held: dict[str, np.ndarray] = {}
    metadata = {"format": "pt"} | (reader.metadata or {}) | {"tersor.scheme": str(scheme)}
    if turned := [name for name in transposed if name in reader.entries]:
        metadata[compressed.TURNED] = json.dumps(turned)
    with Writer(path, [part[:3] for part in parts], metadata) as out:
        for name, _, _, e in parts:
            given = solved.changed.get(e.name)
            if e.name not in schemes and given is not None:
                out.write(given)
                step(e.nbytes)
            elif e.name not in schemes:
                for piece in reader.chunks(e):
                    out.write(piece)
                    step(piece.nbytes)
            elif name == f"{e.name}_shape":
                out.write(np.array(e.shape, "<i8"))
            elif name == f"{e.name}_packed" and e.name in solved.codes:
                words, held[f"{e.name}_scale"] = solved.codes.pop(e.name)
                out.write(words)
                step(e.nbytes)
            elif name == f"{e.name}_packed":
                held |= {e.name + part: x for part, x in _rows(reader, e, schemes[e.name], given, out, step).items()}
            else:
                out.write(held.pop(name))
    return {name: int(np.prod(shape, dtype=object)) * BITS[dtype] // 8 for name, dtype, shape, _ in parts}


def _rows(
    reader: Reader, e: Entry, scheme: compressed.Scheme, given: np.ndarray | None, out: Writer, step: Step
) -> dict[str, np.ndarray]:
    """Writes the packed rows of a weight, or of what it has become, and returns the scales and zero points beside them."""
    many, high, k = scheme.matrices(e.shape)
    n = many * high
    width = e.nbytes // n
    block = max(1, CHUNK // width)
    scales, zeros = [], []
    for row in range(0, n, block):
        rows = min(block, n - row)
        piece = e._replace(start=e.start + row * width, stop=e.start + (row + rows) * width)
        if given is None:
            octets = next(reader.chunks(piece, piece.nbytes + 24))
        else:
            octets = np.ascontiguousarray(given[row : row + rows]).view(np.uint8).reshape(-1)
        floats = compressed.widen(octets, e.dtype).reshape(rows, k)
        try:
            if scheme.affine:
                words, scale, zero = compressed.encode_affine(floats, e.dtype, scheme)
                zeros.append(zero)
            else:
                words, scale = compressed.encode(floats, e.dtype, scheme)
        except ValueError as error:
            what = str(error)
            if not np.isfinite(floats).all():
                large = e.dtype == "F64" and np.isfinite(octets.view("<f8")).all()
                what = "has values beyond float32" if large else "has non-finite values"
            raise ValueError(f"{reader.path}: tensor {e.name!r} {what}") from None
        out.write(words)
        scales.append(scale)
        step(piece.nbytes)
    found = {"_scale": np.concatenate(scales)}
    if zeros:  # packed down the rows of each matrix
        every = np.concatenate(zeros).reshape(many, high, -1)
        found["_zero_point"] = np.stack([np.asarray(pack(z, scheme.bits, "ct_dense", axis=0)) for z in every])
    return found
