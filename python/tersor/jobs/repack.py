"""Quantized checkpoints from one format into another. The one rule: no code, zero point or scale changes; all is checked before
anything is written.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tersor._op import FormatError
from tersor.checkpoint import GGUF, Entry, Model, Reader, Writer
from tersor.checkpoint._format import BITS, Misuse, StrPath, located
from tersor.checkpoint._ggml import AXES, NAME, NUMBERS, TYPES
from tersor.checkpoint._parts import is_table
from tersor.checkpoint._quantized import settings
from tersor.checkpoint.gguf import GGUFWriter, is_gguf
from tersor.checkpoint.writer import write_json
from tersor.jobs import declared, encoded, gguf
from tersor.jobs.containers import CONTAINERS, Codes, Container, Grain, Part, block
from tersor.jobs.load import schemes_of, turned
from tersor.jobs.quantize import Progress

FORMATS = (*CONTAINERS, "gguf")
#: files that say how a model is quantized, of which config.json is written anew
_SETTINGS = ("config.json", "quantize_config.json", "quant_config.json")
#: bytes of tensors that are kept from the first reading to the second
_SMALL = 64


@dataclass(frozen=True)
class Repacked:
    """What was done: bits of each weight by name, bytes before and after, and what a folder was not given (see `Summary`)."""

    weights: Mapping[str, int]
    before: int
    after: int
    left: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Whole:
    """A quantized checkpoint: where the codes of each weight are and how to read them, and the tensors that go along."""

    sources: Mapping[str, encoded.Source]
    where: Mapping[str, str]
    others: Mapping[str, Entry]

    def codes(self, name: str) -> Codes:
        return Codes.of(name, self.sources[name].read())

    def parts(self, name: str, container: Container) -> list[Part]:
        return container.parts(self.codes(name), self.sources[name].scales)


def repack(src: StrPath, dst: StrPath, to: str, *, progress: Progress | None = None) -> Repacked:
    """Writes a quantized checkpoint in another format; every weight is the same number, bit for bit.

    Parameters
    ----------
    src : a folder of compressed-tensors (integers), GPTQ or AWQ, a ``.safetensors`` file of the first, or a ``.gguf`` file
    dst : a folder for a folder, a file for a file; a ``.gguf`` file for GGUF
    to : "ct", "gptq", "gptq_v2", "awq" or "gguf"
        Compressed-tensors, GPTQ (2, 3, 4, 8 bits) with zero points stored less 1 or as they are, AWQ (4 bits), and blocks of
        GGUF (symmetric codes of 4, 5 and 8 bits in groups of whole 32s).
    progress : called as ``progress(done, total)``, in weights, twice for each: it is checked, then written

    Returns
    -------
    Repacked

    Raises
    ------
    FormatError
        If a file is malformed, nothing in it is quantized, or a weight is what the other format has no place for: other bits,
        several widths or groups, zero points, scales that float16 does not hold, columns in an order of their own.
    ValueError
        If the format is unknown, or source and destination do not go together.
    OSError
        If a file cannot be read or written.

    Notes
    -----
    ``quantization_config`` in ``config.json`` is written anew. GPTQ and AWQ hold weights as inputs by outputs: codes are
    transposed on the way. Memory holds one weight at a time. GGUF keeps the names of the tensors, and says of the model no more
    than its type: what a runtime wants to know besides is not made up.
    """
    src, dst = located("repack", src, "src"), located("repack", dst, "dst")
    if to not in FORMATS:
        raise Misuse(f"repack: the format must be one of {', '.join(FORMATS)}, got {to!r}")
    if is_gguf(src):
        with GGUF(src) as file:
            return _from_gguf(file, dst, to, progress)
    with Model(src) as model:
        readers = {e.name: reader for reader, e in model.tensors()}
        files = {e.name: file for file, reader in model.readers.items() for e in reader.entries.values()}
        entries = {e.name: e for _, e in model.tensors()}
        said = settings(model) or {}
        try:
            declared.check(said, entries)
            known = declared.known(said) or schemes_of(model)
            if names := turned(model):
                raise FormatError(f"{min(names)} is transposed (Conv1D), with codes along its outputs")
            if filters := [
                n
                for n, e in entries.items()
                if n.endswith("_shape")
                and f"{n.removesuffix('_shape')}_packed" in entries
                and e.shape not in ((2,), (1, 2))
            ]:
                raise FormatError(f"{filters[0]} is of a convolution or of experts, which only its own layout holds")
            sources = encoded.sources(entries, lambda name: readers[name].array(name), known)
            used = {part for source in sources.values() for part in source.parts}
            others = {name: e for name, e in entries.items() if name not in used}
            whole = _Whole(sources, {n: files[s.parts[0]] for n, s in sources.items()}, others)
            if to == "gguf":
                kind = model.config.get("model_type")
                values = {"general.architecture": kind} if isinstance(kind, str) else {}
                made = _to_gguf(whole, lambda e: readers[e.name].array(e.name), dst, values, progress)
                return replace(made, before=sum(e.nbytes for e in entries.values()))
            return _to_safetensors(model, whole, dst, to, progress)
        except FormatError as error:
            raise FormatError(f"{os.fspath(src)}: {error}") from None


def _steps(whole: _Whole, progress: Progress | None) -> Callable[[], None]:
    if not whole.sources:
        raise FormatError("no weight in it is quantized")
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, 2 * len(whole.sources))

    return step


@dataclass
class _Plan:
    """What becomes of each weight: its tensors with types and shapes, the small ones whole, and what is said of it."""

    tensors: dict[str, list[tuple[str, str, tuple[int, ...]]]]
    small: dict[str, np.ndarray]
    grains: dict[str, Grain]

    @classmethod
    def of(cls, whole: _Whole, container: Container, step: Callable[[], None]) -> _Plan:
        plan = cls({}, {}, {})
        for name in whole.sources:
            codes = whole.codes(name)
            parts = container.parts(codes, whole.sources[name].scales)
            plan.tensors[name] = [(p.name, p.dtype, p.data.shape) for p in parts]
            plan.small |= {p.name: p.data for p in parts if p.data.nbytes <= _SMALL}
            plan.grains[codes.stem.removesuffix(".")] = codes.grain
            step()
        return plan


def _to_safetensors(model: Model, whole: _Whole, dst: StrPath, to: str, progress: Progress | None) -> Repacked:
    container, step = CONTAINERS[to], _steps(whole, progress)
    if model.folder is None and not container.alone:
        raise Misuse(f"repack: {to} says in config.json how a model is quantized: give its folder")
    if model.folder and Path(dst).exists() and model.folder.samefile(dst):
        raise Misuse(f"{os.fspath(dst)}: a folder is repacked into another folder, this one is both")
    plan = _Plan.of(whole, container, step)
    said = container.said(plan.grains, _dense(whole, settings(model) or {}))
    names: dict[str, str] = {}
    after = 0
    with model.output(dst) as target:
        for file, reader in model.readers.items():
            path = target.path / file if model.folder else target.path
            here = [name for name in whole.sources if whole.where[name] == file]
            others = [e for e in reader.entries.values() if e.name in whole.others]
            old = {k: v for k, v in (reader.metadata or {}).items() if not k.startswith("tersor.scheme")}
            metadata = {"format": "pt"} | old
            sizes = _write(path, whole, container, plan, here, others, reader, metadata, step)
            names |= dict.fromkeys(sizes, file)
            after += sum(sizes.values())
        left: tuple[str, ...] = ()
        if model.folder:
            left = model.carry(target, skip=_SETTINGS)
            if model.index:
                write_json(target.path / model.index, model.index_of(names, after))
            config = {k: v for k, v in model.config.items() if k != "compression_config"}
            write_json(target.path / "config.json", config | {"quantization_config": said})
    before = sum(e.nbytes for _, e in model.tensors())
    bits = {n: plan.grains[n.removesuffix(".weight")].bits for n in whole.sources}
    return Repacked(bits, before, after, left, model.weights_of_others())


def _dense(whole: _Whole, said: Mapping[str, Any]) -> list[str]:
    """Modules that readers must not take for quantized ones: of matrices without codes, and those that IN says."""
    stems = (n.removesuffix(".weight") for n, e in whole.others.items() if n.endswith(".weight") and len(e.shape) == 2)
    named = [*(said.get("ignore") or []), *(said.get("modules_to_not_convert") or []), *stems]
    found = {m for m in named if isinstance(m, str) and not m.startswith("re:")}
    return sorted(m for m in found if not is_table(f"{m}.weight"))


def _write(
    path: Path,
    whole: _Whole,
    container: Container,
    plan: _Plan,
    here: list[str],
    others: list[Entry],
    reader: Reader,
    metadata: Mapping[str, str],
    step: Callable[[], None],
) -> dict[str, int]:
    """One file; the bytes of its tensors by name."""
    parts = [(*part, name) for name in here for part in plan.tensors[name]] + [(*e[:3], "") for e in others]
    parts.sort(key=lambda part: -BITS[part[1]])  # the widest first: all stay aligned
    held: dict[str, np.ndarray] = {}
    with Writer(path, [part[:3] for part in parts], metadata) as out:
        for name, _, _, weight in parts:
            if not weight:
                for piece in reader.chunks(reader.entries[name]):
                    out.write(piece)
                continue
            if name not in plan.small and name not in held:
                held |= {p.name: p.data for p in whole.parts(weight, container)}
                step()
            out.write(plan.small[name] if name in plan.small else held.pop(name))
    return {name: BITS[dtype] * math.prod(shape) // 8 for name, dtype, shape, _ in parts}


def _to_gguf(
    whole: _Whole,
    read: Callable[[Entry], np.ndarray],
    dst: StrPath,
    values: Mapping[str, Any],
    progress: Progress | None,
) -> Repacked:
    step = _steps(whole, progress)
    if not os.fspath(dst).lower().endswith(".gguf"):
        raise Misuse(f"{os.fspath(dst)}: GGUF is one file: name it with .gguf at its end")
    entries: list[tuple[str, str, tuple[int, ...]]] = []
    bits = {}
    for name in whole.sources:
        made = block(codes := whole.codes(name))
        entries.append((name, made.scheme.upper(), made.shape))
        bits[name] = codes.grain.bits
        step()
    for name, e in whole.others.items():
        if e.dtype not in NUMBERS or not 1 <= len(e.shape) <= AXES:
            raise FormatError(f"{name}: {e.dtype} of {len(e.shape)} axes, which GGUF has no place for")
        entries.append((name, e.dtype, e.shape))
    if long := next((name for name, _, _ in entries if len(name.encode()) > NAME), None):
        raise FormatError(f"{long}: is a name of {len(long.encode())} bytes, readers of GGUF take {NAME} at most")
    with GGUFWriter(dst, entries, values) as out:
        for name, _, _ in entries:
            if name in whole.sources:
                out.write(np.asarray(block(whole.codes(name)).data))
                step()
            else:
                out.write(read(whole.others[name]))
    after = sum(math.prod(s) // TYPES[t].elements * TYPES[t].bytes for _, t, s in entries)
    return Repacked(bits, 0, after)


def _from_gguf(file: GGUF, dst: StrPath, to: str, progress: Progress | None) -> Repacked:
    if to == "gguf" or not CONTAINERS[to].alone:
        raise Misuse(
            f"repack: a GGUF file has no config.json, which {to} needs: --to ct"
            if to != "gguf"
            else f"{os.fspath(file.path)}: is GGUF already"
        )
    if not os.fspath(dst).lower().endswith(".safetensors"):
        raise Misuse(f"{os.fspath(dst)}: what a GGUF file becomes is one file: name it with .safetensors at its end")
    if (parts := gguf.parts(file)) > 1:
        raise FormatError(f"{file.path}: is one of {parts} parts; repack reads whole files")
    others = {name: e for name, e in file.entries.items() if e.dtype in NUMBERS}
    sources = {
        name: encoded.Source((name,), "F16", partial(gguf.one, file, name))
        for name in file.entries
        if name not in others
    }
    whole = _Whole(sources, dict.fromkeys(sources, ""), others)
    container, step = CONTAINERS[to], _steps(whole, progress)
    plan = _Plan.of(whole, container, step)
    sizes = _write(
        Path(dst), whole, container, plan, list(sources), list(others.values()), file, {"format": "pt"}, step
    )
    bits = {n: plan.grains[n.removesuffix(".weight")].bits for n in sources}
    return Repacked(bits, sum(e.nbytes for e in file.entries.values()), sum(sizes.values()))
