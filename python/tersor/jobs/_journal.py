"""What an interrupted job on a folder has done, for the next one to go on from. The one rule: a file counts as done only if
the sources and the arguments are those it was made from, and it is as it was left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from tersor._core import __version__
from tersor.checkpoint import Model
from tersor.checkpoint._atomic import SUFFIX, AtomicFile
from tersor.prune._rank import Cut, Plan

#: no part of a model: folders are carried over without files of this suffix
NAME = f".resume{SUFFIX}"


def _state(path: Path) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


class Journal:
    """The state of a run: which files are done, and what else `notes` says is needed to make the others.

    It lies in the unfinished folder, which the next run finds by asking `takes` of those that dead runs left.
    """

    def __init__(self, model: Model, job: str, **arguments: Any) -> None:
        assert model.folder is not None
        sources = {file: _state(model.folder / file) for file in model.readers}
        # as they are read: the types of what is decoded stand in no file of weights
        tensors = [[e.name, e.dtype, *e.shape] for _, e in model.tensors()]
        known = {"version": __version__, "job": job, "sources": sources, "tensors": tensors, **arguments}
        # through JSON, so that it compares with what was read
        self.job = json.loads(json.dumps(known))
        self.folder = Path()
        self.done: dict[str, list[int] | None] = {}

    def notes(self) -> dict[str, Any]:
        """What is written beside the names of the files that are done."""
        return {}

    def recall(self, found: dict[str, Any]) -> None:
        """Takes over what `notes` were; an error if they are none."""

    def takes(self, folder: Path) -> bool:
        """Whether a folder is the unfinished work of this very job; what in it is not known to be done goes."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            found = json.loads((folder / NAME).read_bytes())
            done = dict(found["done"])
            if found["job"] == self.job and all(state == _state(folder / file) for file, state in done.items()):
                for path in folder.iterdir():
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    elif path.name not in done and path.name != NAME:
                        path.unlink()
                self.recall(found)
                self.done = done
                return True
        return False

    def begin(self, folder: Path) -> None:
        """Goes on in this folder, which `takes` has found or which is new."""
        self.folder = folder

    def end(self, file: str) -> None:
        """Notes that a file is complete, and what is left to be known after it."""
        self.done[file] = _state(self.folder / file)
        self._write()

    def _write(self) -> None:
        with AtomicFile(self.folder / NAME) as out:
            out.write(json.dumps({"job": self.job, "done": self.done, **self.notes()}).encode())

    def remove(self) -> None:
        """Forgets the run: its work is complete."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / NAME).unlink()


class Cuts(Journal):
    """The state of a pruning: where the layers are cut too, and what their tensors keep."""

    def __init__(self, model: Model, **arguments: Any) -> None:
        super().__init__(model, "prune", **arguments)
        self.cuts: Plan | None = None
        self.key = 0
        self.kept: dict[str, int] = {}

    def notes(self) -> dict[str, Any]:
        assert self.cuts is not None
        shared = self.cuts.shared
        return {
            "key": self.key,
            "shared": [shared.key, shared.keep] if shared else None,
            "cuts": [[c.key, c.keep] for c in self.cuts.cuts],
            "kept": self.kept,
        }

    def recall(self, found: dict[str, Any]) -> None:
        shared = Cut(*map(int, found["shared"])) if found["shared"] else None
        cuts = Plan([Cut(*map(int, c)) for c in found["cuts"]], shared)
        kept = {str(k): int(v) for k, v in found["kept"].items()}
        self.key, self.cuts, self.kept = int(found["key"]), cuts, kept

    def plan(self, key: int, cuts: Plan) -> None:
        """Notes where the layers are cut."""
        self.key, self.cuts, self.done, self.kept = key, cuts, {}, {}
        self._write()
