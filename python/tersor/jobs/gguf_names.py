"""The tensors of a GGUF file by the names that a model of transformers has for them. The one rule: how an architecture's
converter lays matrices is known and undone, or it is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tersor._op import FormatError
from tersor.quant import Encoded

#: architectures whose matrices lie in the file as transformers has them
_AS_THEY_ARE = ("gemma2", "gemma3", "phi3", "qwen2", "qwen3", "stablelm", "starcoder2")
#: those whose queries and keys have the two halves of a head side by side, as their rotations want them there
_IN_PAIRS = {"llama": {"attn_q": "head_count", "attn_k": "head_count_kv"}}
KNOWN = tuple(sorted((*_AS_THEY_ARE, *_IN_PAIRS)))


def renamed(
    path: str, values: Mapping[str, Any], codes: Mapping[str, Encoded], names: Iterable[str]
) -> dict[str, Encoded]:
    """Codes by those of ``names`` that they are of, with rows in the order that transformers has them in."""
    kind = values.get("general.architecture")
    if kind not in KNOWN:
        raise FormatError(f"{path}: the layout of {kind!r} is not known beside a model ({', '.join(KNOWN)} are)")
    table = _table(path, str(kind), _number(path, values, f"{kind}.block_count"))
    called: dict[str, str] = {}
    for name in names:
        if found := table.get_name(name, try_suffixes=(".weight",)):
            called.setdefault(found, name)
    made = {}
    for name, e in codes.items():
        if name not in called:
            raise FormatError(f"{path}: tensor {name!r} is of no parameter of the model")
        heads = next((v for part, v in _IN_PAIRS.get(str(kind), {}).items() if f".{part}." in name), None)
        made[called[name]] = e if heads is None else _halves(path, e, _heads(path, values, str(kind), heads))
    return made


def _table(path: str, kind: str, blocks: int) -> Any:
    try:
        import gguf
    except ImportError:
        raise ImportError(
            f"{path}: the package gguf knows what tensors are called in models: pip install 'tersor[gguf]'"
        ) from None
    return gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == kind), blocks)


def _number(path: str, values: Mapping[str, Any], key: str) -> int:
    found = values.get(key)
    if not isinstance(found, np.integer) or not 1 <= found < 1 << 16:
        raise FormatError(f"{path}: {key} is {found!r:.40}, which is no count")
    return int(found)


def _heads(path: str, values: Mapping[str, Any], kind: str, key: str) -> int:
    key = f"{kind}.attention.{key}"
    # as many keys as queries where the file does not say
    return _number(path, values, key if key in values else f"{kind}.attention.head_count")


def _halves(path: str, e: Encoded, heads: int) -> Encoded:
    """Rows 0, 2, 4, … of each head, then 1, 3, 5, …"""
    n = e.shape[0]
    if n % (2 * heads):
        raise FormatError(f"{path}: {n} rows of queries or keys are not those of {heads} heads")
    order = np.arange(n).reshape(heads, n // heads // 2, 2).swapaxes(1, 2).reshape(-1)
    return replace(e, data=np.ascontiguousarray(e.data[order]))
