"""Quantized files read back, as numbers or as their codes. The one rule: what is not understood whole is refused by
name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from tersor._op import FormatError
from tersor.checkpoint import Model
from tersor.checkpoint._format import Misuse, StrPath
from tersor.checkpoint._quantized import settings
from tersor.checkpoint.gguf import is_gguf
from tersor.jobs import compressed, encoded, gguf, gguf_names, restore
from tersor.quant import Encoded

T = TypeVar("T")


def load(path: StrPath) -> dict[str, np.ndarray]:
    """All tensors of a file or model folder, quantized weights as dense float32.

    Quantized are those of compressed-tensors, 8-bit floats with scales by blocks, and what GPTQ and AWQ write (weights come
    back [out, in], as a ``torch.nn.Linear`` has them); and the blocks of GGUF files, whose tensors keep the names they have
    there; of one that was split, ``…-00001-of-00003.gguf``, all parts are read.

    Parameters
    ----------
    path : a ``.safetensors`` or ``.gguf`` file, a folder, or the index of a sharded one

    Raises
    ------
    FormatError
        If a file is malformed, the parts of a weight do not fit, or it is in a format that is not read (bitsandbytes, HQQ, …).
    ImportError
        If a GGUF file has blocks that only the package gguf decodes (K-quants and others), and it is not installed.
    """
    if is_gguf(path):
        with gguf.opened(path) as files:
            return gguf.dense(files)
    return _read(path, restore.dense)


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
        False leaves out tensors of a GGUF file whose blocks no scheme is (K-quants); a model keeps what it has for them.

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
    if is_gguf(path):
        with gguf.opened(path) as files:
            codes = gguf.encoded(files, strict)
            if model is None:
                return codes
            names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
            return gguf_names.renamed(os.fspath(path), files[0].values, codes, names)
    if model is not None or not strict:
        raise Misuse(f"load_encoded: model and strict=False are for GGUF files, {os.fspath(path)} is none")
    return _read(path, encoded.encoded)


def _read(path: StrPath, weights: Callable[..., Iterable[tuple[str, T]]]) -> dict[str, T]:
    with Model(path) as model:
        where = {e.name: reader for reader, e in model.tensors()}
        entries = {e.name: e for _, e in model.tensors()}
        said = settings(model) or {}
        try:
            restore.check(said, entries)
            known = restore.known(said) or schemes_of(model)
            return dict(weights(entries, lambda name: where[name].array(name), known))
        except FormatError as error:
            raise FormatError(f"{os.fspath(path)}: {error}") from None


def schemes_of(model: Model) -> list[restore.Known]:
    """What its files say they were written with."""
    said = {(reader.metadata or {}).get("tersor.scheme") for reader in model.readers.values()}
    schemes = [compressed.Scheme.parse(scheme) for scheme in sorted(filter(None, said))]
    return [restore.Known(bits=scheme.bits or None, shared=(1, scheme.group)) for scheme in schemes]
