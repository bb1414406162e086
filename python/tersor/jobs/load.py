"""Quantized files read back, as numbers or as their codes. The one rule: what is not understood whole is refused by
name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from tersor._arrays import FLOATS, flag, numpy_type
from tersor._op import FormatError
from tersor._values import one_of
from tersor.checkpoint import Model
from tersor.checkpoint._format import Misuse, StrPath, located
from tersor.checkpoint._quantized import settings
from tersor.checkpoint.gguf import is_gguf
from tersor.jobs import compressed, declared, encoded, gguf, gguf_names, stacks
from tersor.quant import Encoded

T = TypeVar("T")


def load(path: StrPath, *, dtype: str | None = None) -> dict[str, np.ndarray]:
    """All tensors of a file or model folder, quantized weights as dense float32, or all floats in one type.

    Quantized are those of compressed-tensors, 8-bit floats with scales by blocks, and what GPTQ and AWQ write (weights come
    back [out, in], as a ``torch.nn.Linear`` has them); and the blocks of GGUF files, whose tensors keep the names they have
    there; of one that was split, ``…-00001-of-00003.gguf``, all parts are read.

    Parameters
    ----------
    path : a ``.safetensors`` or ``.gguf`` file, a folder, or the index of a sharded one
    dtype : "float64", "float32", "float16" or "bfloat16", optional
        What floats become, decoded ones and those that are stored; rounded to nearest. If absent, decoded ones are float32, in
        which they are computed, and all else is what is stored.

    Raises
    ------
    FormatError
        If a file is malformed, the parts of a weight do not fit, or it is in a format that is not read (bitsandbytes, HQQ, …).
    ValueError
        If dtype is none of these, or a tensor has finite values that it does not hold.
    ImportError
        If a GGUF file has blocks that only the package gguf decodes (K-quants and others), and it is not installed; or there
        are bfloat16 numbers or 8-bit floats without the package ml_dtypes.
    """
    path = located("load", path)
    if dtype is not None:
        one_of("load: dtype", dtype, FLOATS)
    typed = partial(_typed, dtype) if dtype else lambda _, x: x
    if is_gguf(path):
        with gguf.opened(path) as files:
            return {name: typed(name, x) for name, x in gguf.dense(files).items()}
    return _read(path, lambda *given: ((name, typed(name, x)) for name, x in stacks.every(*given)))


def _typed(dtype: str, name: str, x: np.ndarray) -> np.ndarray:
    """A tensor of floats in a type; what is none stays."""
    if x.dtype.kind not in "fV":  # V are those of ml_dtypes
        return x
    with np.errstate(over="ignore"):
        y = x.astype(numpy_type(dtype), copy=False)
    wide = np.float64 if x.dtype == np.float64 else np.float32
    if y is not x and (np.isinf(y.astype(np.float64)) & np.isfinite(x.astype(wide))).any():
        raise ValueError(f"load: tensor {name!r} has values beyond {dtype}")
    return y


def load_encoded(path: StrPath, *, model: Any = None, strict: bool = True) -> dict[str, Encoded]:
    """The quantized weights of a file or model folder as the codes it holds, by the names of the dense ones.

    What ``tersor.nn.convert(model, load_encoded(path))`` makes layers of: codes that were calibrated stay what they are, where
    rounding the decoded weights again would move some. The rest of the model must be that of the file (`load`, or
    ``from_pretrained(path)``): where weights were scaled, as ``-awq`` does, its norms were changed too.

    Parameters
    ----------
    path : a ``.safetensors`` or ``.gguf`` file, a folder, or the index of a sharded one
    model : torch.nn.Module, optional
        Of transformers, for a GGUF file: codes go by the names of its parameters, with rows as transformers has them, where
        the names of the file (``blk.0.attn_q.weight``) would be those of no layer. Of gemma2, gemma3, llama (mistral too),
        phi3, qwen2, qwen3, stablelm and starcoder2. Its other parameters must be the file's:
        ``from_pretrained(folder, gguf_file=name)``.
    strict : bool
        False leaves out what no `Encoded` of a layer is, for which a model keeps what it has: tensors of a GGUF file whose
        blocks no scheme is (K-quants), and transposed layers (Conv1D of GPT-2 and its like), whose codes go along the outputs.

    Returns
    -------
    dict of `tersor.quant.Encoded` of NumPy arrays
        Symmetric codes of 2 to 8 bits with scales by row, group or tensor as ``int<b>-…``, codes with zero points as
        ``uint<b>-…``; blocks of GGUF as ``q4_0``, ``q4_1``, ``q5_0``, ``q8_0`` and ``gguf_mxfp4``. Tensors that are not
        quantized are not in it.

    Raises
    ------
    FormatError
        As `load`; and if a weight is quantized otherwise: 8-bit floats, scales by blocks of rows, columns in another order,
        other blocks of GGUF, or an architecture that is not known beside a ``model``.
    ImportError
        If there is a ``model``, and the package gguf, which knows the names, is not installed.
    """
    path = located("load_encoded", path)
    if model is not None and not hasattr(model, "named_parameters"):
        raise TypeError(f"load_encoded: model must be a torch.nn.Module, got {type(model).__name__}")
    strict = flag("load_encoded: strict", strict)
    if is_gguf(path):
        with gguf.opened(path) as files:
            codes = gguf.encoded(files, strict)
            if model is None:
                return codes
            names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
            return gguf_names.renamed(path, files[0].values, codes, names)
    if model is not None:
        raise Misuse(f"load_encoded: a model is for GGUF files, {path} is none")
    return _read(path, encoded.encoded, None if strict else False)


def turned(model: Model) -> set[str]:
    """The weights that their files say are transposed."""
    found = _json(model, compressed.TURNED, list, "list of names")
    return {name for some in found for name in some if isinstance(name, str)}


def _json(model: Model, key: str, kind: type, what: str) -> list[Any]:
    """What the metadata of its files have under a name."""
    said = ((reader.metadata or {}).get(key) for reader in model.readers.values())
    found = []
    for text in filter(None, said):
        try:
            one = json.loads(text)
        except ValueError:
            one = None
        if not isinstance(one, kind):
            raise FormatError(f"{key} is no {what}")
        found.append(one)
    return found


def _read(
    path: StrPath, weights: Callable[..., Iterable[tuple[str, T]]], transposed: bool | None = True
) -> dict[str, T]:
    """All weights; those that are transposed are left out (False) or refused (None) on request."""
    with Model(path) as model:
        where = {e.name: reader for reader, e in model.tensors()}
        entries = {e.name: e for _, e in model.tensors()}
        said = settings(model) or {}
        try:
            declared.check(said, entries)
            known = declared.known(said) or schemes_of(model)
            if not transposed and (names := turned(model)):
                if transposed is None:
                    raise FormatError(
                        f"{min(names)}: is transposed (Conv1D), and has codes along its outputs, which no layer multiplies; "
                        "tersor.convert.load reads it as a dense weight, and load_encoded(path, strict=False) leaves it out"
                    )
                beside = {name + part for name in names for part in stacks.BESIDE}
                entries = {name: e for name, e in entries.items() if name not in beside}
            return dict(weights(entries, lambda name: where[name].array(name), known))
        except FormatError as error:
            raise FormatError(f"{os.fspath(path)}: {error}") from None


def schemes_of(model: Model) -> list[declared.Known]:
    """What its files say they were written with."""
    said = {(reader.metadata or {}).get("tersor.scheme") for reader in model.readers.values()}
    schemes = [compressed.Scheme.parse(scheme) for scheme in sorted(filter(None, said))]
    own: dict[int, list[str]] = {}
    for some in _json(model, compressed.OWN, dict, "mapping of names to schemes"):
        for name, scheme in some.items():
            try:
                own.setdefault(compressed.Scheme.parse(scheme).bits, []).append(stacks.module(name))
            except (TypeError, ValueError):
                raise FormatError(f"{compressed.OWN} says {scheme!r:.80} of {name}, which is no scheme") from None
    # how many share a scale follows from the scales, of each weight for itself
    return [
        *(declared.Known(bits=scheme.bits or None) for scheme in schemes),
        *(declared.Known(tuple(names), bits) for bits, names in sorted(own.items())),
    ]
