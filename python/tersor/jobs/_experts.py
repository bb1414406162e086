"""The tensors of a file that a model holds in one for all experts. The one rule: which rows of which expert a tensor is, its
numbers say; what is not found in the model is left, and said.

Most files have experts one by one (``…experts.3.w1.weight``), of which transformers makes ``…experts.gate_up_proj``, the rows
of two of them one below the other; some have them side by side, as the model has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tersor._routed import unknown
from tersor.checkpoint import Model
from tersor.checkpoint._modules import Tree
from tersor.jobs import compressed

_NUMBER = re.compile(r"\.(\d+)\.")


class Piece(NamedTuple):
    """A tensor of the file: all experts (None), or some rows of one."""

    name: str
    expert: int | None = None
    start: int = 0
    stop: int = 0

    def rows(self, x: Any) -> Any:
        """Its part of what is [experts, rows, …], as a matrix."""
        return x.reshape(-1, x.shape[-1]) if self.expert is None else x[self.expert, self.start : self.stop]


def placed(folder: Path, model: Any, tree: Tree, names: Iterable[str]) -> dict[str, list[Piece]]:
    """By the parameter of all experts the tensors that are its parts, of those that are here in all their parts."""
    by: dict[str, list[str]] = {}
    for name in names:
        by.setdefault(tree.targets[name], []).append(name)
    found: dict[str, list[Piece]] = {}
    with Model(folder) as file:
        readers = {e.name: reader for reader, e in file.tensors()}
        for target, some in by.items():
            owner, _, part = target.rpartition(".")
            module = dict(model.named_modules()).get(owner)
            parameter = None if module is None else module._parameters.get(part)
            if module is None or parameter is None or parameter.ndim != 3 or unknown(module) or module.is_transposed:
                continue
            weight = parameter.detach().numpy()
            pieces = [_piece(name, _array(readers[name], name), weight, tree) for name in some]
            if all(pieces) and sum(p.stop - p.start for p in pieces if p) == len(weight) * weight.shape[1]:
                found[target] = [p for p in pieces if p]
    return found


def _array(reader: Any, name: str) -> np.ndarray:
    e = reader.entries[name]
    octets = next(reader.chunks(e, e.nbytes + 24))
    return np.asarray(compressed.widen(octets, e.dtype).reshape(e.shape), np.float32)


def _piece(name: str, x: np.ndarray, weight: np.ndarray, tree: Tree) -> Piece | None:
    """Where the model has what a tensor holds, or None."""
    many, rows, _ = weight.shape
    if x.shape == weight.shape:
        return Piece(name, None, 0, many * rows) if np.array_equal(x, weight) else None
    number = _NUMBER.findall(name)
    if x.ndim != 2 or not number or int(number[-1]) >= many or rows % len(x):
        return None
    own = weight[int(number[-1])]
    for start in range(0, rows, len(x)):
        if np.array_equal(own[start : start + len(x)], x):
            return Piece(name, int(number[-1]), start, start + len(x))
    return None


def said(
    few: Mapping[str, tuple[int, ...]], places: Mapping[str, list[Piece]], many: Mapping[str, int]
) -> dict[str, str]:
    """Which tensors of the file hold experts that were given too few rows to be calibrated."""
    found = {}
    for target, which in few.items():
        for piece in places[target]:
            if piece.expert is None:
                some = ", ".join(map(str, which[:8])) + ", …" * (len(which) > 8)
                found[piece.name] = f"{len(which)} of {many[target]} experts ({some}), of fewer rows than columns"
            elif piece.expert in which:
                found[piece.name] = "an expert of fewer rows than columns"
    return found
