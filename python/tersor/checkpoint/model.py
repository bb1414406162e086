"""Model folders: weights in one file or several, and what lies beside them. The one rule: nothing outside the folder is read or
written, whatever an index says.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from tersor._atomic import copy, is_temporary, sync_folder
from tersor._op import FormatError
from tersor.checkpoint._format import MAX_HEADER, Entry, StrPath
from tersor.checkpoint.reader import Reader

INDEX = ".safetensors.index.json"


class Model:
    """A safetensors file, or a model folder: weights in one file or several (``*.safetensors.index.json``), other files.

    Parameters
    ----------
    path : a ``.safetensors`` file, a folder, or the index of a sharded one

    Attributes
    ----------
    folder : the folder, or None for a single file
    readers : file name -> `Reader`, in the order of the names, which is the order of their tensors for ties
    index : the file name of the index, or None

    Raises
    ------
    FormatError
        If a file is malformed, the index names files outside the folder or tensors that are not there, or a tensor is in two
        files.
    OSError
        If a file cannot be opened, or a folder has no weights.
    """

    def __init__(self, path: StrPath) -> None:
        path = Path(path)
        self.readers: dict[str, Reader] = {}
        self.index: str | None = None
        self.folder: Path | None = None
        self.map: dict[str, str] = {}
        if path.name.endswith(INDEX) and path.is_file():
            self.folder, self.index = path.parent, path.name
        elif path.is_dir():
            self.folder = path
        try:
            for name in self._names(path):
                self.readers[name] = Reader(path if self.folder is None else self.folder / name)
            self._check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        for reader in self.readers.values():
            reader.close()

    def _names(self, path: Path) -> list[str]:
        if self.folder is None:
            return [path.name]
        if self.index is None:
            names = sorted(f.name for f in self.folder.iterdir() if not f.name.startswith("."))
            indices = [n for n in names if n.endswith(INDEX)]
            files = [n for n in names if n.endswith(".safetensors")]
            one = f"model{INDEX}" if f"model{INDEX}" in indices else indices[0] if len(indices) == 1 else None
            if "model.safetensors" in files and one != f"model{INDEX}":
                return ["model.safetensors"]
            if one is None:
                if len(files) == 1:
                    return files
                found = f"several safetensors files and no {INDEX[1:]}" if files else "no safetensors file"
                raise FileNotFoundError(2, f"no model here: {found}", str(self.folder))
            self.index = one
        self.map = self._read_index(self.folder / self.index)
        return sorted(set(self.map.values()))

    @staticmethod
    def _read_index(path: Path) -> dict[str, str]:
        if path.stat().st_size > MAX_HEADER:
            raise FormatError(f"{path}: more than {MAX_HEADER} bytes")
        try:
            index = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not JSON: {error}") from None
        names = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(names, dict) or not names or not all(isinstance(v, str) for v in names.values()):
            raise FormatError(f"{path}: weight_map is not an object of file names")
        for file in names.values():
            if file != os.path.basename(file) or not file.endswith(".safetensors") or "\0" in file or "\\" in file:
                raise FormatError(f"{path}: weight_map names {file!r:.80}, which is no safetensors file of the folder")
        return names

    def _check(self) -> None:
        where: dict[str, str] = {}
        for file, reader in self.readers.items():
            for name in reader.entries:
                if name in where:
                    raise FormatError(f"{reader.path}: tensor {name!r} is in {where[name]} too")
                where[name] = file
        for name, file in self.map.items():
            if where.get(name) != file:
                raise FormatError(f"{self.folder}/{self.index}: tensor {name!r} is not in {file}")

    def tensors(self) -> Iterator[tuple[Reader, Entry]]:
        """Every tensor with its file, by file name, then by data offset."""
        for reader in self.readers.values():
            for entry in reader.entries.values():
                yield reader, entry

    @property
    def config(self) -> dict[str, Any]:
        """``config.json`` of the folder; empty if there is none."""
        path = self.folder / "config.json" if self.folder else None
        if path is None or not path.is_file():
            return {}
        try:
            config = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not JSON: {error}") from None
        if not isinstance(config, dict):
            raise FormatError(f"{path}: not an object")
        return config

    def target(self, path: StrPath) -> Path:
        """Where to write: a folder for a folder (made if need be), a file for a file.

        Raises
        ------
        OSError
            If the other kind is there.
        ValueError
            If one folder lies in the other.
        """
        path = Path(path)
        if self.folder is None:
            return path
        here, there = self.folder.resolve(), path.resolve()
        if here != there and (here in there.parents or there in here.parents):
            raise ValueError(f"{path} and {self.folder} lie in one another")
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(20, "is a file, and a model folder gives a folder", str(path))
        path.mkdir(parents=True, exist_ok=True)
        return path

    def others(self) -> Iterator[str]:
        """Relative paths of the folder's other files; links count as what they point to."""
        if self.folder is None:
            return
        seen = set()
        for where, folders, files in os.walk(self.folder, followlinks=True):
            info = os.stat(where)
            if (info.st_dev, info.st_ino) in seen:
                folders.clear()  # a link that leads back up
                continue
            seen.add((info.st_dev, info.st_ino))
            folders.sort()
            for file in sorted(files):
                name = os.path.relpath(os.path.join(where, file), self.folder)
                if name not in self.readers and name != self.index and not is_temporary(file):
                    with contextlib.suppress(FileNotFoundError):
                        if stat.S_ISREG(os.stat(os.path.join(where, file)).st_mode):
                            yield name

    def carry(self, target: Path, skip: Sequence[str] = (), done: Callable[[int], None] | None = None) -> None:
        """Copies the folder's other files into the folder ``target``."""
        if self.folder is None or self.folder.resolve() == target.resolve():
            return
        for name in self.others():
            if name not in skip:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                copy(str(self.folder / name), str(target / name), done=done)

    def carry_index(self, target: Path) -> None:
        """Copies the index, which makes a sharded folder whole: call it last."""
        if self.folder is not None and self.index is not None and self.folder.resolve() != target.resolve():
            copy(str(self.folder / self.index), str(target / self.index))
            sync_folder(str(target))


def chosen(name: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> bool:
    """Whether a name matches some shell pattern of ``include`` (all do if there is none) and none of ``exclude``."""
    return (not include or any(fnmatchcase(name, p) for p in include)) and not any(
        fnmatchcase(name, p) for p in exclude
    )


def load(path: StrPath) -> dict[str, np.ndarray]:
    """All tensors of a file or model folder.

    Parameters
    ----------
    path : a ``.safetensors`` file, a folder, or the index of a sharded one

    Raises
    ------
    FormatError
        If a file is malformed.
    ImportError
        If there are bfloat16 or 8-bit floats and the package ml_dtypes is not installed.
    """
    with Model(path) as model:
        return {entry.name: reader.array(entry.name) for reader, entry in model.tensors()}
