"""Checkpoints quantized as a stream. The one rule: memory is bounded by some rows and the scales of one file, and a folder
has no ``config.json`` until everything it speaks of is in place.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tersor import compressed
from tersor._atomic import AtomicFile, sync_folder
from tersor._op import FormatError
from tersor.checkpoint import Entry, Model, Reader, Writer
from tersor.checkpoint._format import BITS, StrPath
from tersor.checkpoint.reader import CHUNK

__all__ = ["Summary", "quantize_safetensors"]

Progress = Callable[[int, int], None]
Step = Callable[[int], None]


@dataclass(frozen=True)
class Summary:
    """What was done: the choice of tensors, and bytes of weights before and after."""

    choice: compressed.Choice
    before: int
    after: int


def quantize_safetensors(
    src: StrPath,
    dst: StrPath,
    scheme: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    embeddings: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Quantizes the matrices of a safetensors file or a model folder into another one.

    Parameters
    ----------
    src : a ``.safetensors`` file, a model folder, or the index of a sharded one
    dst : a file for a file, a folder for a folder
    scheme : ``int8-row``, ``int4-g128`` or another of 8 or 4 bits, per row or per group
    include, exclude : shell patterns on names of tensors
    embeddings : quantize tables of embeddings too; ``transformers`` then reads the folder only with
        ``CompressedTensorsConfig(dequantize=True)``
    progress : called as ``progress(done, total)``, in bytes, after every chunk

    Returns
    -------
    Summary

    Raises
    ------
    FormatError
        If a file is malformed.
    ValueError
        If a weight is not finite, nothing is there to quantize, it is quantized already, or a folder would replace itself.
    OSError
        If a file cannot be read or written.

    Notes
    -----
    The result is what the `compressed-tensors` package calls ``pack-quantized`` (see `tersor.compressed`). Each file is put
    in place whole; in a folder ``config.json`` comes last.
    """
    how = compressed.Scheme.parse(scheme)
    with Model(src) as model:
        config = model.config
        if "quantization_config" in config or any(e.name.endswith(".weight_packed") for _, e in model.tensors()):
            raise ValueError(f"{os.fspath(src)}: is quantized already")
        choice = compressed.choose(
            ((e.name, e.dtype, e.shape) for _, e in model.tensors()),
            how,
            include=include,
            exclude=exclude,
            embeddings=embeddings,
            model_type=config.get("model_type"),
        )
        if not choice.quantized:
            reasons = "; ".join(sorted({f"{name} is {why}" for name, why in choice.dense.items()})[:3])
            raise ValueError(f"{os.fspath(src)}: no weight to quantize" + (f" ({reasons})" if reasons else ""))
        if model.folder and Path(dst).exists() and model.folder.samefile(dst):
            raise ValueError(f"{os.fspath(dst)}: a folder is quantized into another folder, this one is both")
        target = model.target(dst)
        if model.folder:
            with contextlib.suppress(FileNotFoundError):
                (target / "config.json").unlink()
        names: dict[str, str] = {}
        after = read = 0
        before = sum(e.nbytes for _, e in model.tensors())

        def step(n: int) -> None:
            nonlocal read
            read += n
            if progress:
                progress(read, before)

        for file, reader in model.readers.items():
            path = target / file if model.folder else target
            written = _file(reader, path, how, frozenset(choice.quantized), step)
            names |= dict.fromkeys(written, file)
            after += sum(written.values())
        if model.folder:
            model.carry(target, skip=("config.json",))
            if model.index:
                _json(target / model.index, {"metadata": {"total_size": after}, "weight_map": names})
            settings = compressed.configuration(how, choice, embeddings=embeddings)
            _json(target / "config.json", config | {"quantization_config": settings})
            sync_folder(str(target))
        return Summary(choice, before, after)


def _json(path: Path, value: Any) -> None:
    with AtomicFile(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _file(
    reader: Reader, path: Path, scheme: compressed.Scheme, quantized: frozenset[str], step: Step
) -> dict[str, int]:
    """One file quantized into another; the names that it now holds, with their bytes."""
    parts: list[tuple[str, str, Sequence[int], Entry]] = []
    for e in reader.entries.values():
        if e.name in quantized:
            parts += [(*part, e) for part in compressed.layout(e.name, e.dtype, e.shape, scheme)]
        else:
            parts.append((e.name, e.dtype, e.shape, e))
    parts.sort(key=lambda part: -BITS[part[1]])  # the widest first: all stay aligned
    scales: dict[str, np.ndarray] = {}
    metadata = {"format": "pt"} | (reader.metadata or {}) | {"tersor.scheme": str(scheme)}
    with Writer(path, [part[:3] for part in parts], metadata) as out:
        for name, _, _, e in parts:
            if e.name not in quantized:
                for piece in reader.chunks(e):
                    out.write(piece)
                    step(piece.nbytes)
            elif name.endswith("weight_shape"):
                out.write(np.array(e.shape, "<i8"))
            elif name.endswith("weight_packed"):
                scales[e.name] = _rows(reader, e, scheme, out, step)
            else:
                out.write(scales.pop(e.name))
    return {name: int(np.prod(shape, dtype=object)) * BITS[dtype] // 8 for name, dtype, shape, _ in parts}


def _rows(reader: Reader, e: Entry, scheme: compressed.Scheme, out: Writer, step: Step) -> np.ndarray:
    """Writes the packed rows of a weight and returns its scales."""
    n, k = e.shape
    width = e.nbytes // n
    block = max(1, CHUNK // width)
    scales = []
    for row in range(0, n, block):
        rows = min(block, n - row)
        piece = e._replace(start=e.start + row * width, stop=e.start + (row + rows) * width)
        octets = next(reader.chunks(piece, piece.nbytes + 24))
        try:
            words, scale = compressed.encode(compressed.widen(octets, e.dtype).reshape(rows, k), e.dtype, scheme)
        except ValueError as error:
            raise ValueError(f"{reader.path}: tensor {e.name!r}: {error}") from None
        out.write(words)
        scales.append(scale)
        step(piece.nbytes)
    return np.concatenate(scales)


def load(path: StrPath) -> dict[str, np.ndarray]:
    """All tensors of a file or model folder, quantized weights as dense float32.

    Parameters
    ----------
    path : a ``.safetensors`` file, a folder, or the index of a sharded one

    Raises
    ------
    FormatError
        If a file is malformed, or the parts of a weight do not fit.
    """
    found: dict[str, np.ndarray] = {}
    with Model(path) as model:
        where = {e.name: reader for reader, e in model.tensors()}
        bits = _bits(model)
        for name, reader in where.items():
            module, _, part = name.rpartition(".")
            packed = f"{module}.weight_packed"
            if part not in compressed.PARTS or packed not in where:
                found[name] = reader.array(name)
            elif name == packed:
                parts = [f"{module}.{p}" for p in compressed.PARTS]
                for p in parts:
                    if p not in where:
                        raise FormatError(f"{reader.path}: tensor {p!r} is missing beside {packed!r}")
                words, scale, shape = (where[p].array(p) for p in parts)
                found[f"{module}.weight"] = compressed.restore(module, words, scale, shape, bits)
    return found


def _bits(model: Model) -> int:
    """The width of a quantized model's codes: as its configuration says, or its files, or else its shapes."""
    with contextlib.suppress(AttributeError, KeyError, TypeError, StopIteration):
        groups = model.config["quantization_config"]["config_groups"]
        return int(next(iter(groups.values()))["weights"]["num_bits"])
    for reader in model.readers.values():
        if scheme := (reader.metadata or {}).get("tersor.scheme"):
            return compressed.Scheme.parse(scheme).bits
    for reader, e in model.tensors():
        module, _, part = e.name.rpartition(".")
        if part == "weight_packed" and f"{module}.weight_shape" in reader.entries and len(e.shape) == 2:
            bits = compressed.width(e.shape[1], int(reader.array(f"{module}.weight_shape")[-1]))
            if bits:
                return bits
    return 8
