"""Model folders: weights in one file or several, and what lies beside them. The one rule: nothing outside the folder is read or
written, whatever an index says.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from tersor._op import FormatError
from tersor.checkpoint._atomic import copy
from tersor.checkpoint._beside import holds_weights, link, walk
from tersor.checkpoint._folder import AtomicFolder
from tersor.checkpoint._foreign import others
from tersor.checkpoint._format import MAX_HEADER, Entry, Misuse, StrPath, located
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
        path = Path(located("Model", path))
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

    def __enter__(self) -> Self:
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
                found = f"several safetensors files and no {INDEX[1:]}" if files else others(names)
                raise FileNotFoundError(2, f"no model here: {found}", str(self.folder))
            self.index = one
        self.map = self._read_index(self.folder / self.index)
        return sorted(set(self.map.values()))

    @staticmethod
    def _read_index(path: Path) -> dict[str, str]:
        if path.stat().st_size > MAX_HEADER:
            raise FormatError(f"{path}: more than {MAX_HEADER} bytes")
        index = _json(path)
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
        config = _json(path)
        if not isinstance(config, dict):
            raise FormatError(f"{path}: not an object")
        return config

    @contextlib.contextmanager
    def output(
        self, path: StrPath, adopt: Callable[[Path], bool] | None = None, keep: bool = False
    ) -> Iterator[Output]:
        """Where to write what is made of this model: a file for a file, a folder for a folder.

        A folder is filled beside its destination and put in place as a whole when the block ends, and not at all if it
        fails (`AtomicFolder`).

        Parameters
        ----------
        path : the destination; for a single file also a folder, which gets it under the name of the source
        adopt : asked of each folder that an interrupted run into the same destination left, whether to go on in it
        keep : the unfinished folder stays if the block fails

        Raises
        ------
        OSError
            If the other kind is there, or a folder that is none of a model.
        Misuse
            If one folder lies in the other.
        """
        if self.folder is None:
            yield Output(self.file_for(path), False)
            return
        path = Path(path)
        here, there = self.folder.resolve(), path.resolve()
        if here != there and (here in there.parents or there in here.parents):
            raise Misuse(f"{path} and {self.folder} lie in one another: write into a folder of its own")
        with AtomicFolder(path, adopt, keep) as folder:
            yield Output(folder, here == there)

    def file_for(self, path: StrPath) -> Path:
        """The file that a destination names for a single file: itself, or one called like the source in a folder."""
        path = os.fspath(path)
        if not path.endswith((os.sep, os.altsep or os.sep)) and not os.path.isdir(path):
            return Path(path)
        (source,) = self.readers.values()
        inside = Path(path) / os.path.basename(source.path)
        if inside.exists() and inside.samefile(source.path):
            raise Misuse(f"{inside} is what is read: name the file to replace it, and not its folder")
        Path(path).mkdir(exist_ok=True)
        return inside

    @property
    def own(self) -> frozenset[str]:
        """The names of its files of weights and its index."""
        return frozenset({*self.readers, *([self.index] if self.index else [])})

    def others(self) -> Iterator[str]:
        """Relative paths of the folder's other files that go along with it; links count as what they point to."""
        if self.folder is not None:
            yield from (name for name, goes in walk(self.folder, self.own) if goes)

    def weights_of_others(self) -> tuple[str, ...]:
        """The files among `others` that hold weights: those of the parts that have folders of their own."""
        return tuple(name for name in self.others() if holds_weights(name))

    def carry(
        self, target: Output, skip: Sequence[str] = (), done: Callable[[int], None] | None = None
    ) -> tuple[str, ...]:
        """Brings the folder's other files into an `output`; what stays behind, because it is the weights once more.

        In place of the folder itself everything stays.
        """
        if self.folder is None:
            return ()
        if target.in_place:
            link(self.folder, target.path, self.own | frozenset(skip))
            return ()
        left = []
        for name, goes in walk(self.folder, self.own):
            if not goes:
                left.append(name)
            elif name not in skip:
                (target.path / name).parent.mkdir(parents=True, exist_ok=True)
                copy(str(self.folder / name), str(target.path / name), done=done)
        return tuple(left)

    def index_of(self, names: Mapping[str, str], size: int) -> dict[str, Any]:
        """The index of a result that holds tensors ``names`` in those files, ``size`` bytes of data in all.

        What else its metadata says is kept: the number of parameters among it, which no format of weights changes.
        """
        assert self.folder is not None and self.index is not None
        metadata = json.loads((self.folder / self.index).read_bytes()).get("metadata")
        kept = metadata if isinstance(metadata, dict) else {}
        return {"metadata": {**kept, "total_size": size}, "weight_map": dict(names)}

    def carry_index(self, target: Output) -> None:
        """Copies the index of a result whose files hold what the source's do."""
        if self.folder is not None and self.index is not None:
            copy(str(self.folder / self.index), str(target.path / self.index))


def _json(path: Path) -> Any:
    """What a file says in JSON, all of which can be written again."""
    try:
        found = json.loads(path.read_bytes())
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"{path}: has half a character ({error.object[error.start]!a})") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from None
    return found


class Output(NamedTuple):
    """Where to write: a file, or the folder that will replace one; and whether it takes the place of the source."""

    path: Path
    in_place: bool


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
