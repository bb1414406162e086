"""What an interrupted pruning of a folder has done, for the next one to go on from. The one rule: a file counts as done only if
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
NAME = f".prune.resume{SUFFIX}"


def _state(path: Path) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


class Journal:
    """The state of a run: where the layers are cut, which files are done, what their tensors keep.

    It lies in the unfinished folder, which the next run finds by asking `takes` of those that dead runs left.
    """

    def __init__(self, model: Model, **arguments: Any) -> None:
        assert model.folder is not None
        sources = {file: _state(model.folder / file) for file in model.readers}
        # through JSON, so that it compares with what was read
        self.job = json.loads(json.dumps({"version": __version__, "sources": sources, **arguments}))
        self.folder = Path()
        self.cuts: Plan | None = None
        self.key = 0
        self.done: dict[str, list[int] | None] = {}
        self.kept: dict[str, int] = {}

    def takes(self, folder: Path) -> bool:
        """Whether a folder is the unfinished work of this very job; what in it is not known to be done goes."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            if self._read(folder, json.loads((folder / NAME).read_bytes())):
                for path in folder.iterdir():
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    elif path.name not in self.done and path.name != NAME:
                        path.unlink()
                return True
        self.cuts = None
        return False

    def _read(self, folder: Path, found: dict[str, Any]) -> bool:
        if found["job"] != self.job:
            return False
        shared = Cut(*map(int, found["shared"])) if found["shared"] else None
        cuts = Plan([Cut(*map(int, c)) for c in found["cuts"]], shared)
        done, kept = dict(found["done"]), {str(k): int(v) for k, v in found["kept"].items()}
        if not all(state == _state(folder / file) for file, state in done.items()):
            return False
        self.key, self.cuts, self.done, self.kept = int(found["key"]), cuts, done, kept
        return True

    def begin(self, folder: Path) -> None:
        """Goes on in this folder, which `takes` has found or which is new."""
        self.folder = folder

    def plan(self, key: int, cuts: Plan) -> None:
        """Notes where the layers are cut."""
        self.key, self.cuts, self.done, self.kept = key, cuts, {}, {}
        self._write()

    def end(self, file: str) -> None:
        """Notes that a file is complete, and what is left of the cuts after it."""
        self.done[file] = _state(self.folder / file)
        self._write()

    def _write(self) -> None:
        assert self.cuts is not None
        shared = self.cuts.shared
        state = {
            "job": self.job,
            "key": self.key,
            "shared": [shared.key, shared.keep] if shared else None,
            "cuts": [[c.key, c.keep] for c in self.cuts.cuts],
            "done": self.done,
            "kept": self.kept,
        }
        with AtomicFile(self.folder / NAME) as out:
            out.write(json.dumps(state).encode())

    def remove(self) -> None:
        """Forgets the run: its work is complete."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / NAME).unlink()
