"""Codes of a file for the experts of a mixture. The one rule: a module of experts has all of its codes, along its inputs, or
none.

A file has the experts side by side, ``…experts.gate_up_proj`` [experts, out, in], or one by one, ``…experts.3.up_proj.weight``
(or ``w1``), of which a model that has them side by side makes one tensor, the gate's rows first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tersor._arrays import is_tensor
from tersor._routed import matrix, projections
from tersor.checkpoint._modules import targets
from tersor.quant import Encoded

#: the parts of an expert that a file has by itself, in the order of their rows
_ONE = re.compile(r"^(.*)\.(\d+)\.(\w+?)(\.weight)?$")
_FIRST, _SECOND, _DOWN = ("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")
#: of each expert, the codes of its parts
Parts = dict[int, dict[str, Encoded]]


def codes_of_experts(
    model: Any, modules: Mapping[str, Any], codes: Mapping[str, Encoded], left: dict[str, str]
) -> tuple[dict[str, tuple[list[Encoded], list[Encoded]]], dict[str, Encoded]]:
    """By module of experts the codes of its two weights, expert by expert, and the codes that are of no experts."""
    rest = dict(codes)
    found: dict[str, dict[str, Any]] = {name: {} for name in modules}
    if not modules:
        return {}, rest
    renamed = targets(model, codes)
    for name, code in codes.items():
        if not isinstance(name, str) or not isinstance(code, Encoded):
            continue  # an error, which names it, of what pairs the rest
        placed = _placed(name, renamed[name], modules)
        if placed is None:
            continue
        owners, part, expert = placed
        del rest[name]
        if len(owners) != 1:
            left[name] = f"codes that may be of {' or '.join(owners)}"
            continue
        taken = found[owners[0]].setdefault(part, {})
        if expert in taken:
            raise ValueError(f"convert: {name!r} are codes of {owners[0]!r} once more")
        taken[expert] = code
    made = {}
    for owner, parts in found.items():
        if not parts:
            continue
        try:
            made[owner] = _both(modules[owner], parts)
        except ValueError as error:
            left[owner] = str(error)
    return made, rest


def _placed(name: str, target: str, modules: Mapping[str, Any]) -> tuple[list[str], str, int | None] | None:
    """The modules that codes may be of, and which part of which expert (None: of all)."""
    one, expert = _ONE.match(name), None
    owner, _, part = target.removesuffix(".weight").rpartition(".")
    if target in (name, name.removesuffix(".weight")) and one:  # nothing says what becomes of it
        owner, part = one[1], one[3]
    if one:
        part, expert = one[3], int(one[2])
    else:
        part = part if any(part in projections(m) for m in modules.values()) else ""
    alike = [k for k in modules if f".{k}".endswith(f".{owner}") or f".{owner}".endswith(f".{k}")] if owner else []
    return (alike, part, expert) if alike and part else None


def _both(module: Any, parts: Mapping[str, Mapping[int | None, Encoded]]) -> tuple[list[Encoded], list[Encoded]]:
    if not module.is_concatenated and not any(None in of for of in parts.values()):
        raise ValueError("codes of experts one by one, whose rows its model has in turns")
    up, down = projections(module)
    return _every(module, up, parts), _every(module, down, parts)


def _every(module: Any, name: str, parts: Mapping[str, Mapping[int | None, Encoded]]) -> list[Encoded]:
    """The codes of one weight, expert by expert."""
    many, *shape = matrix(module, name).shape
    whole = parts.get(name, {}).get(None)
    if whole is not None:
        if module.is_transposed:
            raise ValueError(f"its file has {name} with the scales of outputs, where layers have those of inputs")
        if tuple(whole.shape) != (many, *shape):
            raise ValueError(f"codes of {name} are of shape {tuple(whole.shape)}, the weight is {(many, *shape)}")
        return [_one(whole, i) for i in range(many)]
    kinds = [_FIRST, _SECOND] if name == "gate_up_proj" else [_DOWN if name == "down_proj" else _SECOND]
    made = []
    for i in range(many):
        rows = [next((parts[k][i] for k in names if i in parts.get(k, {})), None) for names in kinds]
        missing = [names[0] for names, code in zip(kinds, rows, strict=True) if code is None]
        if missing:
            raise ValueError(f"there are no codes of its expert {i} ({missing[0]})")
        made.append(_below([code for code in rows if code is not None], i))
        if tuple(made[-1].shape) != tuple(shape):
            raise ValueError(
                f"codes of {name} of expert {i} are of shape {tuple(made[-1].shape)}, it is {tuple(shape)}"
            )
    return made


def _one(e: Encoded, i: int) -> Encoded:
    return replace(e, shape=tuple(e.shape[1:]), **{k: v[i] for k, v in e.parts.items()})


def _below(some: Sequence[Encoded], expert: int) -> Encoded:
    """Codes of matrices one below the other."""
    first = some[0]
    if len(some) == 1:
        return first
    alike = all(e.scheme == first.scheme and e.shape[1:] == first.shape[1:] for e in some)
    if not alike or any(e.scale.ndim != 2 or e.outer is not None for e in some):
        raise ValueError(
            f"codes of its expert {expert} are {' and '.join(e.scheme for e in some)}, which are not one's rows"
        )
    rows = sum(e.shape[0] for e in some)
    parts = {k: _cat([e.parts[k] for e in some]) for k in first.parts}
    return replace(first, shape=(rows, first.shape[1]), **parts)


def _cat(xs: Sequence[Any]) -> Any:
    if is_tensor(xs[0]):
        import torch

        return torch.cat(list(xs))
    return np.concatenate(xs)
