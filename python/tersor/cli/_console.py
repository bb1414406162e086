"""Where the command line writes. The one rule: no terminal, pipe, encoding or closed stream makes a command fail that did its
work."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import rich.console

if TYPE_CHECKING:
    from rich.table import Table

Progress = Callable[[int, int], None]

#: what stands for a character that the terminal's encoding does not have
PLAIN = {"×": "x", "→": "->", "…": "...", "█": "#", "▏": "|", "·": "."}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end


def prepare() -> None:
    """Gives closed streams somewhere to go, and characters that cannot be written a stand-in."""
    codecs.register_error("tersor.plain", _plainly)
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        # the lowest free number: no file that is opened later can be taken for the stream
        os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="tersor.plain")  # type: ignore[union-attr]


def listener_gone(error: BaseException) -> bool:
    """Whether an exception says that the reader of a pipe has gone: as such, or as click's exit, which wraps the streams."""
    if isinstance(error, SystemExit):
        return "PacifyFlushWrapper" in type(sys.stdout).__name__
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def silence() -> None:
    """Nobody reads any more: what is still in buffers goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)


class Console(rich.console.Console):
    """A console that leaves it to the command line what a closed pipe means."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError(errno.EPIPE, "the reader has gone")


def console() -> Console:
    """Where results go: as wide as the terminal, or a wide page in a pipe."""
    return Console(width=None if sys.stdout.isatty() else 110, highlight=False)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A bar on stderr over bytes done and bytes in all, if somebody is looking."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = [TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def counting(what: str, wanted: object) -> Iterator[Progress | None]:
    """A bar on stderr over things done and things in all, if it is wanted and somebody is looking."""
    if wanted is None or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table(texts: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Rows under heads, of texts and then of numbers; whatever a file calls its tensors."""
    from rich.table import Column, Table
    from rich.text import Text

    heads = [*(Column(k, overflow="fold") for k in texts), *(Column(k, justify="right", no_wrap=True) for k in numbers)]
    made = Table(*heads, pad_edge=False)
    for row in rows:
        made.add_row(*(Text(shown(cell)) for cell in row))
    return made


def shown(name: str) -> str:
    """A name from a file, with what would steer a terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def several(n: int, what: str) -> str:
    """So many of a thing: 1 weight, 2 weights."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def size(n: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n:.0f} B"


def count(n: int) -> str:
    """A number of things in a few digits: 22.7 M, 512."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return str(n)
