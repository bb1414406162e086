"""What a pruned checkpoint is made of: how it is written, and what is said of it. The one rule: without a destination all is
counted and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tersor.checkpoint import Entry, Reader, Writer
from tersor.checkpoint.model import Output
from tersor.jobs._journal import Journal
from tersor.jobs.floats8 import Dense

Pieces = Callable[[Reader, Entry], Iterator[np.ndarray]]


class Pruned(NamedTuple):
    """What was pruned: of how many weights how many, up to which magnitude (None if none), and what each tensor keeps.

    ``left`` names what a folder's result was not given: the same weights in other formats, and states of a training;
    ``dense`` the tensors that were held back, with the reason, and ``rule`` what decided that; ``untouched`` the files of
    weights in subfolders, parts of their own that went along as they are; ``decoded`` the weights that were 8-bit floats with
    scales, and were decoded as they were read. ``sizes`` are the weights of each tensor.
    """

    total: int
    pruned: int
    threshold: float | None
    kept: dict[str, int]
    left: tuple[str, ...]
    dense: dict[str, str]
    rule: str
    untouched: tuple[str, ...] = ()
    decoded: tuple[str, ...] = ()
    sizes: Mapping[str, int] = MappingProxyType({})


def rewrite(
    model: Dense,
    target: Output,
    pieces: Pieces,
    step: Callable[[int], None],
    journal: Journal | None = None,
) -> None:
    """The model's files anew, laid out the same, with what ``pieces`` gives for each tensor; those that are done stay."""
    for file, reader in model.readers.items():
        if journal and file in journal.done:
            step(reader.size)
            continue
        path = target.path / file if model.folder is not None else target.path
        with Writer(path, head=reader.head, size=reader.size) as out:
            step(len(reader.head))
            for entry in reader.entries.values():
                for raw in pieces(reader, entry):
                    out.write(raw)
                    step(raw.nbytes)
        if journal:
            journal.end(file)


def written(
    model: Dense, dst: str | os.PathLike[str] | None, pieces: Pieces, names: Iterable[str], step: Callable[[int], None]
) -> tuple[str, ...]:
    """The model's files with what ``pieces`` gives for each tensor, and what was not carried over; without a destination the
    pieces of these tensors are made and let go."""
    if dst is None:
        chosen = set(names)
        whole = sum(reader.size for reader in model.readers.values())
        step(whole - sum(entry.nbytes for _, entry in model.tensors() if entry.name in chosen))  # which nobody reads
        for reader, entry in model.tensors():
            if entry.name in chosen:
                for raw in pieces(reader, entry):
                    step(raw.nbytes)
        return ()
    with model.output(dst) as target:
        left = model.carry(target)
        rewrite(model, target, pieces, step)
        model.carry_index(target)
    return left
