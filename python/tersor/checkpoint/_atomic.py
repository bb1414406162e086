"""Replacing a file. The one rule: under its name there is the old file or the whole new one, whatever happens and when.

A new file is written under another name in the same folder, made durable, and renamed. The writer holds a lock on it, so
that the next run can tell what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be removed there, which is the lock
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".tersor-tmp"
#: names of files that say what is in them
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is the unfinished work of a writer."""
    return name.startswith(".") and name.endswith(SUFFIX)


def prefix(name: str) -> str:
    """How the names of temporaries on their way to ``name`` begin."""
    return f".{name.encode()[:200].decode(errors='ignore')}."


def lock(fd: int) -> bool | None:
    """True: the file is ours; False: its writer lives; None: this file system cannot tell."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def stale(folder: str, name: str) -> Iterator[tuple[str, int]]:
    """What dead writers of ``folder/name`` left: paths, and their open and locked descriptors."""
    ours = re.compile(re.escape(prefix(name)) + r"[0-9a-f]+(-old)?" + re.escape(SUFFIX))
    with contextlib.suppress(OSError):
        for found in os.listdir(folder):
            if not ours.fullmatch(found):
                continue
            path = os.path.join(folder, found)
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
                try:
                    if lock(fd):
                        yield path, fd
                finally:
                    os.close(fd)


def remove_stale(folder: str, name: str) -> None:
    """Removes the files that killed writers of ``folder/name`` left."""
    for path, _ in stale(folder, name):
        with contextlib.suppress(OSError):
            os.unlink(path)


class AtomicFile:
    """A file that appears under ``path`` when the block ends, and not at all if it fails.

    Parameters
    ----------
    path
        What to replace. A link is followed, and what it points to replaced, unless that is called by the hash of its
        content, as in the cache of a hub: then the link is. A file that is there keeps its mode, a new one gets 0666 less
        the umask.

    Raises
    ------
    OSError
        If the file cannot be written, or something that is not a file has the name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.given = os.fspath(path)
        self.path = os.path.realpath(self.given)
        if _HASH.fullmatch(os.path.basename(self.path)) and os.path.islink(self.given):
            self.path = os.path.join(os.path.realpath(os.path.dirname(self.given)), os.path.basename(self.given))
        self.folder, self.name = os.path.split(self.path)
        self.size = 0
        self._fd = -1
        self._temporary = ""

    def __enter__(self) -> AtomicFile:
        mode = 0o666
        try:
            old = os.stat(self.path)
        except FileNotFoundError:
            self._mode = None
        else:
            if stat.S_ISDIR(old.st_mode):
                raise IsADirectoryError(21, "is a folder", self.given)
            if not stat.S_ISREG(old.st_mode):
                raise OSError(22, "is not a regular file", self.given)
            self._mode, mode = stat.S_IMODE(old.st_mode), 0o600
        remove_stale(self.folder, self.name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            for _ in range(100):
                self._temporary = os.path.join(self.folder, prefix(self.name) + secrets.token_hex(6) + SUFFIX)
                self._fd = os.open(self._temporary, flags, mode)
                # between the two calls a run that cleans up may have taken it for a stale one
                if lock(self._fd) is not False and os.fstat(self._fd).st_nlink:
                    return self
                self._discard()
            raise OSError(16, "its temporary files vanish", self.given)
        except BaseException as error:
            self._discard()
            self._named(error)
            raise

    def write(self, data: Any) -> None:
        """Appends bytes or the memory of a contiguous array."""
        view = memoryview(data).cast("B")
        while view:
            try:
                n = os.write(self._fd, view)
            except OSError as error:  # it names no file by itself
                error.filename = self.given
                raise
            self.size += n
            view = view[n:]

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            if self._mode is not None:
                os.chmod(self._temporary, self._mode)
            os.fsync(self._fd)
            if fcntl is None:
                self._close()
            os.replace(self._temporary, self.path)
        except BaseException as error:
            self._discard()
            self._named(error)
            raise
        self._close()
        sync_folder(self.folder)

    def _named(self, error: BaseException) -> None:
        """Makes an error name what the user named, and not a temporary."""
        if isinstance(error, OSError) and error.errno is not None:
            if isinstance(error, FileNotFoundError) and not os.path.isdir(self.folder):
                error.strerror = "its folder does not exist"
            error.filename = self.given
            if error.filename2 is not None:
                error.filename2 = self.given

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._close()
        if self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)


def sync_folder(folder: str) -> None:
    """Makes the names in a folder durable, where the system can."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def copy(source: str, target: str, chunk: int = 1 << 22, done: Callable[[int], None] | None = None) -> None:
    """Replaces ``target`` by the contents of ``source``."""
    with open(source, "rb", buffering=0) as file, AtomicFile(target) as out:
        while True:
            try:
                data = file.read(chunk)
            except OSError as error:  # it names no file by itself
                error.filename = source
                raise
            if not data:
                return
            out.write(data)
            if done:
                done(len(data))
