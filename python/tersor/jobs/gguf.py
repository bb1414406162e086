"""Tensors of GGUF files as numbers, as codes, and back. The one rule: a block's bytes are never changed; what has no decoder
here or in GGUF's own package is refused by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from tersor._arrays import check_order, dtype_name, is_tensor, ordinary, torch_module
from tersor._op import FormatError
from tersor.checkpoint._format import NUMPY, Misuse, StrPath, located
from tersor.checkpoint._ggml import NUMBERS
from tersor.checkpoint.gguf import GGUF, GGUFWriter
from tersor.quant import Encoded, decode
from tersor.quant._gguf import KINDS

#: schemes of `encode` by ggml's names
SCHEMES = {scheme.upper().removeprefix("GGUF_"): scheme for scheme in KINDS}
_NAMES = {scheme: name for name, scheme in SCHEMES.items()}


@contextmanager
def opened(path: StrPath) -> Iterator[list[GGUF]]:
    """A file; if it is a part of one that was split, all parts in their order."""
    path = os.fspath(path)
    with ExitStack() as stack:
        file = stack.enter_context(GGUF(path))
        if (count := parts(file)) == 1:
            yield [file]
            return
        found = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})(\.gguf)", path, re.IGNORECASE | re.DOTALL)
        if not found or int(found[2]) != count:
            raise FormatError(f"{path}: is one of {count} parts, and its name does not say what the others are called")
        files: list[GGUF] = []
        for i in range(count):
            part = stack.enter_context(GGUF(f"{found[1]}-{i + 1:05}-of-{found[2]}{found[3]}"))
            if parts(part) != count or not _same(part.values.get("split.no"), i):
                raise FormatError(f"{part.path}: is not part {i + 1} of {count}, as its name says")
            if twice := next((n for n in part.entries if any(n in f.entries for f in files)), None):
                raise FormatError(f"{part.path}: tensor {twice!r} is in another part too")
            files.append(part)
        want = files[0].values.get("split.tensors.count")
        if want is not None and not _same(want, sum(len(f.entries) for f in files)):
            raise FormatError(f"{path}: its {count} parts have not the {want} tensors that they say")
        yield files


def _same(value: Any, number: int) -> bool:
    return isinstance(value, np.integer) and int(value) == number


def parts(file: GGUF) -> int:
    """How many files the tensors were split over."""
    found = file.values.get("split.count", np.uint16(1))
    if not isinstance(found, np.integer) or found < 0:
        raise FormatError(f"{file.path}: split.count is {found!r:.40}, which is no count")
    return max(int(found), 1)


def dense(files: Iterable[GGUF]) -> dict[str, np.ndarray]:
    """All tensors as numbers: floats as they are, blocks as float32."""
    return {name: _numbers(file, name) for file in files for name in file.entries}


def _numbers(file: GGUF, name: str) -> np.ndarray:
    e = file.entries[name]
    if e.dtype in NUMBERS:
        return file.array(name)
    if e.dtype in SCHEMES:
        return np.asarray(decode(one(file, name)))
    try:
        import gguf
    except ImportError:
        raise ImportError(
            f"{file.path}: tensor {name!r} is {e.dtype}, which the package gguf decodes: pip install 'tersor[gguf]'"
        ) from None
    try:
        return np.asarray(gguf.quants.dequantize(file.array(name), gguf.GGMLQuantizationType[e.dtype])).reshape(e.shape)
    except (NotImplementedError, KeyError):
        raise FormatError(f"{file.path}: tensor {name!r} is {e.dtype}, which is not decoded") from None


def one(file: GGUF, name: str) -> Encoded:
    """A tensor in blocks, as the bytes that they are."""
    e = file.entries[name]
    if e.dtype not in SCHEMES:
        raise FormatError(
            f"{file.path}: tensor {name!r} is {e.dtype}, which no scheme of encode is; tersor.convert.load reads it as a dense "
            "weight, and load_encoded(path, strict=False) leaves it out"
        )
    return Encoded(file.array(name), None, None, SCHEMES[e.dtype], e.shape, "float32")


def encoded(files: Iterable[GGUF], strict: bool = True) -> dict[str, Encoded]:
    """All tensors in blocks; those that no scheme is are left out if it is not ``strict``."""
    return {
        name: one(file, name)
        for file in files
        for name, e in file.entries.items()
        if e.dtype not in NUMBERS and (strict or e.dtype in SCHEMES)
    }


def _described(name: str, x: Any) -> tuple[str, Any]:
    """The ggml type of a tensor, and its array."""
    if is_tensor(bytes_of := x.data if isinstance(x, Encoded) else x) and bytes_of.device.type == "meta":
        raise ValueError(f"write_gguf: tensor {name!r} is on meta, where there is no memory")
    if isinstance(x, Encoded):
        if x.scheme not in _NAMES:
            raise ValueError(f"write_gguf: tensor {name!r} is {x.scheme}; GGUF has {', '.join(_NAMES)}")
        return _NAMES[x.scheme], replace(x, data=x.data.detach().cpu()) if is_tensor(x.data) else x
    ordinary("write_gguf", f": tensor {name!r}", x)
    if not is_tensor(x):
        x = np.asarray(x)
        check_order("write_gguf", f"tensor {name!r}", x)
    dtype = dtype_name(x.dtype)
    kind = next((k for k, v in NUMPY.items() if v == dtype and k in NUMBERS), None)
    if kind is None:
        raise TypeError(f"write_gguf: tensor {name!r} is {dtype}, which GGUF has no type for")
    if is_tensor(x):
        x = x.detach().cpu()
        if dtype == "bfloat16":
            import ml_dtypes

            # the same bits under NumPy's name for them
            x = x.view(torch_module().int16).numpy().view(ml_dtypes.bfloat16)
    return kind, np.asarray(x)


def write_gguf(path: StrPath, tensors: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a GGUF file: whole under its name, or not at all.

    Parameters
    ----------
    path : path of the file, which ends in ``.gguf`` and is replaced
    tensors : arrays or tensors of numbers, and `tersor.quant.Encoded` of "q4_0", "q4_1", "q5_0", "q8_0" or "gguf_mxfp4"
        By the names that the file is to have, of 63 bytes at most. A runtime finds them by its own (``blk.0.attn_q.weight``).
    metadata : mapping, optional
        Strings, numbers, lists of one type of them, one-dimensional arrays. Runtimes ask for ``general.architecture`` and for
        the sizes of the model, which are not made up here.

    Raises
    ------
    TypeError
        If a tensor or a value is of a type that GGUF does not have.
    ValueError
        If path ends otherwise, a name is longer, or it or a key is empty or has a NUL, an `Encoded` is of another scheme, a
        shape has none or more than four axes, a list has several types, a number is beyond its type, or a tensor is on meta.
    OSError
        If the file cannot be written.

    Notes
    -----
    Version 3, little-endian, aligned to 32 bytes or ``general.alignment``. One write of the bytes.
    """
    path = located("write_gguf", path)
    if not os.fspath(path).lower().endswith(".gguf"):
        raise Misuse(f"write_gguf: path {os.fspath(path)!r} must end in .gguf, by which readers know such a file")
    for argument, given in (("tensors", tensors), ("metadata", {} if metadata is None else metadata)):
        if not isinstance(given, Mapping):
            raise TypeError(f"write_gguf: {argument} must be a mapping of names, got {type(given).__name__}")
    described = {name: _described(name, x) for name, x in tensors.items()}
    entries = [(name, kind, tuple(x.shape)) for name, (kind, x) in described.items()]
    with GGUFWriter(path, entries, metadata) as out:
        for _, x in described.values():
            out.write(np.asarray(x.data if isinstance(x, Encoded) else x))
