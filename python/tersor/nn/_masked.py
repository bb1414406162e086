"""Which parameters of a model have a mask. The one rule: the same that `tersor prune` takes, and what is left has its
reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tersor._arrays import FLOATS, dtype_name, is_distributed
from tersor.checkpoint._modules import TABLE, TIED
from tersor.checkpoint._parts import held, is_table
from tersor.checkpoint._patterns import Patterns

#: what a buffer is called beside its weight
SUFFIX = "_mask"
Place = tuple[nn.Module, str]


def chosen(who: str, model: nn.Module, patterns: Patterns, left: dict[str, str]) -> dict[str, list[Place]]:
    """The places of each weight that gets a mask, by its first name; why others of two axes have none stands in `left`."""
    names: dict[int, list[str]] = {}
    places: dict[int, list[Place]] = {}
    tables = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, p in module._parameters.items():
            if p is None:
                continue
            names.setdefault(id(p), []).append(f"{prefix}.{attribute}".lstrip("."))
            here = places.setdefault(id(p), [])
            if not any(m is module and a == attribute for m, a in here):
                here.append((module, attribute))
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or is_table(names[id(p)][-1]):
                tables.add(id(p))
    patterns.check(name for every in names.values() for name in every)
    made: dict[str, list[Place]] = {}
    for key, every in names.items():
        asked = any(map(patterns.included, every))
        module, attribute = places[key][0]
        weight = module._parameters[attribute]
        if any(map(patterns.excluded, every)):
            why: str | None = "excluded"
        elif patterns.include:
            ends = [p for p in patterns.include if p.rpartition(".")[2] == attribute]
            by_name = any(fnmatchcase(name, p) for name in every for p in ends)
            why = "not included" if not asked else "of one axis" if _axes(weight) < 2 and not by_name else None
        else:
            part = "" if key not in tables else TIED if len(every) > 1 else TABLE
            why = next((w for name in every if (w := held(name, part))), None) or _unfit(weight)
        if why is None:
            _check(who, every[0], module, weight)
            made[every[0]] = places[key]
        elif _axes(weight) > 1:
            left[every[0]] = why
    if not made:
        raise ValueError(f"{who}: the model has no weights to mask" + (f"; left: {left}" if left else ""))
    return made


def _axes(weight: Any) -> int:
    """Of a parameter without its first value, as many as make it an error."""
    return 2 if isinstance(weight, nn.UninitializedParameter) else weight.ndim


def _unfit(weight: Any) -> str | None:
    """Why a parameter that nobody asked for is none of those that are pruned."""
    if _axes(weight) < 2:
        return "of one axis"
    lazy = isinstance(weight, nn.UninitializedParameter)
    return None if lazy or dtype_name(weight.dtype) in FLOATS else f"of type {dtype_name(weight.dtype)}"


def _check(who: str, name: str, module: nn.Module, weight: Any) -> None:
    if isinstance(weight, nn.UninitializedParameter):
        raise TypeError(f"{who}: {name} has no values yet: a lazy layer gets them in its first call")
    if isinstance(module, parametrize.ParametrizationList):
        raise TypeError(f"{who}: {name} is what a parametrisation makes a weight of; remove_parametrizations() first")
    if name.endswith("_orig"):
        raise TypeError(f"{who}: {name} is pruned by torch.nn.utils.prune; prune.remove() makes it a weight")
    if is_distributed(weight):
        raise TypeError(f"{who}: {name} is a DTensor; masks are held on whole weights")
    if dtype_name(weight.dtype) not in FLOATS:
        raise TypeError(f"{who}: {name} must be float64, float32, float16 or bfloat16, got {dtype_name(weight.dtype)}")


def buffered(who: str, module: nn.Module, attribute: str) -> Tensor | None:
    """The mask that stands beside a weight."""
    name = attribute + SUFFIX
    mask = module._buffers.get(name)
    if mask is None and not hasattr(module, name):
        return None
    weight = module._parameters[attribute]
    assert weight is not None
    if mask is None or mask.dtype != torch.bool or mask.shape != weight.shape:
        raise ValueError(f"{who}: {type(module).__name__}.{name} is there and is no mask of {attribute}")
    return mask


def each(argument: str, value: Any, n: int) -> list[Any]:
    """An argument that is one for all, or a list of one for each."""
    if not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"{argument} must be one or {n}, got {len(value)}")
    return list(value)


@contextmanager
def said(who: str, names: Sequence[str]) -> Iterator[None]:
    """Errors of a selection in the words of who called: with names for the places of a list."""
    try:
        yield
    except (TypeError, ValueError) as e:
        text = re.sub(
            r"\b(arrays|scores)\[(\d+)\]", lambda m: f"{m[1].replace('arrays', 'weight')} {names[int(m[2])]!r}", str(e)
        )
        for inner in ("global_masks", "row_scores", "prune", who.partition(".")[0]):
            text = text.removeprefix(f"{inner}: ")
        raise type(e)(f"{who}: {text}") from None


def scored(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> list[Tensor]:
    """The scores of each weight."""
    if not isinstance(scores, Mapping):
        raise TypeError(f"scores must be a mapping of names to tensors, got {type(scores).__name__}")
    if scores.keys() != masks.keys():
        odd = ", ".join(sorted(map(str, scores.keys() ^ masks.keys())))
        raise ValueError(f"scores must have the names of all weights; missing or unknown: {odd}")
    for name, mask in masks.items():
        if not isinstance(scores[name], Tensor):
            raise TypeError(f"scores of {name!r} must be a tensor, got {type(scores[name]).__name__}")
        if scores[name].shape != mask.shape:
            raise ValueError(f"scores of {name!r} must have shape {tuple(mask.shape)}, got {tuple(scores[name].shape)}")
    return [scores[name].detach() for name in masks]
