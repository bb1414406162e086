"""Replacing a folder. The one rule: under its name there is the old folder or the whole new one, whatever happens and when.

The new folder is filled under another name beside the old one, made durable, and the two exchange their names in one step;
then the old one goes. The writer holds a lock on the new folder, so that the next run can tell what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tersor.checkpoint._atomic import SUFFIX, is_temporary, lock, prefix, stale, sync_folder

#: marks an old folder that was moved aside, where the system cannot exchange two names in one step
ASIDE = "-old"


def guard(path: str) -> None:
    """Refuses to replace what is there unless it is an empty folder or a model's.

    Raises
    ------
    OSError
        If it is a file, a folder of something else, under version control, or one that cannot be renamed.
    """
    if not os.path.lexists(path):
        return
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, "is a file, and a model folder gives a folder", path)
    real = os.path.realpath(path)
    if os.path.ismount(real):
        raise OSError(errno.EBUSY, "is a mount point, which cannot be replaced: name a folder in it", path)
    here = os.path.realpath(os.getcwd())
    if os.path.commonpath([here, real]) == real:
        what = "is the current folder" if here == real else "holds the current folder"
        raise OSError(errno.EBUSY, f"{what}, and a result replaces a folder as a whole: go out of it first", path)
    names = [name for name in os.listdir(real) if not is_temporary(name)]
    if ".git" in names:
        raise FileExistsError(errno.EEXIST, "is a git repository, which a result does not replace", path)
    if names and not any(n == "config.json" or n.endswith((".safetensors", ".safetensors.index.json")) for n in names):
        raise FileExistsError(errno.EEXIST, "is not empty and not a model folder: it is left alone", path)


class AtomicFolder:
    """A folder that appears under ``path`` when the block ends, and not at all if it fails.

    Parameters
    ----------
    path
        What to replace. A link is followed, and what it points to replaced; a folder that is there keeps its mode, and so
        do files that come again; a new one gets what the umask leaves. Folders above it are made.
    adopt
        Asked of each folder that a dead run into the same path left, whether to go on in it.

    keep
        Whether the unfinished folder stays when the block fails.

    Raises
    ------
    OSError
        If something other than a model folder has the name (see `guard`), or it cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], adopt: Callable[[Path], bool] | None = None, keep: bool = False
    ) -> None:
        self.given = os.fspath(path)
        self.path = os.path.realpath(self.given)
        self.parent, self.name = os.path.split(self.path)
        self.keep = keep
        self._adopt = adopt
        self._fd = -1
        self._temporary = ""
        self._made: list[str] = []

    @property
    def folder(self) -> Path:
        return Path(self._temporary)

    def __enter__(self) -> Path:
        guard(self.given)
        try:
            self._parents()
            self._clear()
            while not self._temporary:
                self._begin()
        except BaseException as error:
            self.named(error)
            self._discard()
            raise
        return self.folder

    def _parents(self) -> None:
        above, missing = self.parent, []
        while not os.path.isdir(above):
            missing.append(above)
            above = os.path.dirname(above)
        for folder in reversed(missing):
            os.mkdir(folder)
            self._made.append(folder)

    def _clear(self) -> None:
        """Takes over or removes what dead runs left; puts an old folder back that was moved aside and not replaced."""
        for path, fd in stale(self.parent, self.name):
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            elif path.endswith(ASIDE + SUFFIX) and not os.path.lexists(self.path):
                os.rename(path, self.path)
            elif self._adopt and not self._temporary and self._adopt(Path(path)):
                self._temporary, self._fd = path, os.dup(fd)  # the lock goes with it
            else:
                shutil.rmtree(path, ignore_errors=True)

    def _begin(self) -> None:
        path = os.path.join(self.parent, prefix(self.name) + secrets.token_hex(6) + SUFFIX)
        os.mkdir(path, 0o700 if os.path.isdir(self.path) else 0o777)
        self._temporary = path
        if os.name != "posix":
            return
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # between the two calls a run that cleans up may have taken it for a stale one
        if lock(self._fd) is False or not os.path.isdir(path):
            self._close()
            self._temporary = ""

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if error is not None:
            self.named(error)
            if not self.keep:
                self._discard()
            self._close()
            return
        try:
            guard(self.given)  # what came there meanwhile
            self._settle()
            old = self._swap()
        except BaseException as failure:
            self.named(failure)
            self._discard()
            raise
        sync_folder(self.parent)
        if old:
            shutil.rmtree(old, ignore_errors=True)
        self._close()

    def _settle(self) -> None:
        """Gives the new folder the modes of the old one, and makes its names durable."""
        for where, _, files in os.walk(self._temporary):
            before = os.path.normpath(os.path.join(self.path, os.path.relpath(where, self._temporary)))
            for name in [*files, ""]:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    old = os.lstat(os.path.join(before, name))
                    new = os.path.join(where, name)
                    if not stat.S_ISLNK(old.st_mode) and not os.path.islink(new):
                        os.chmod(new, stat.S_IMODE(old.st_mode))
            sync_folder(where)

    def _swap(self) -> str:
        """Puts the new folder in place; where the old one is now, if there was one."""
        if not os.path.lexists(self.path):
            os.rename(self._temporary, self.path)
            return ""
        if exchange(self._temporary, self.path):
            return self._temporary
        aside = self._temporary.removesuffix(SUFFIX) + ASIDE + SUFFIX
        os.rename(self.path, aside)
        try:
            os.rename(self._temporary, self.path)
        except BaseException:
            os.rename(aside, self.path)
            raise
        return aside

    def named(self, error: BaseException) -> None:
        """Makes an error name what the user named, and not the folder that is on its way there."""
        if not isinstance(error, OSError):
            return
        for attribute in ("filename", "filename2"):
            name = getattr(error, attribute)
            if not isinstance(name, (str, os.PathLike)):
                continue
            name = os.fspath(name)
            if self._temporary and name.startswith(self._temporary):
                rest = name[len(self._temporary) :].lstrip(os.sep)
                setattr(error, attribute, os.path.join(self.given, rest) if rest else self.given)
            elif is_temporary(os.path.basename(name)):
                setattr(error, attribute, self.given)
        if error.filename is None and error.errno is not None:
            error.filename = self.given

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _discard(self) -> None:
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)
        self._close()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def exchange(one: str, other: str) -> bool:
    """Exchanges two names in one step; False where the system or the file system has no such call."""
    import ctypes

    try:
        libc = ctypes.CDLL(None, use_errno=True)
        a, b = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            failed = libc.renamex_np(a, b, 2)  # RENAME_SWAP
        else:
            failed = libc.renameat2(-100, a, -100, b, 2)  # AT_FDCWD, RENAME_EXCHANGE
    except (OSError, AttributeError, TypeError):
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), other)
