"""The command line ``tersor``. The one rule: whatever goes wrong ends in one message on stderr and an exit status that says
whose fault it was (0 done, 1 the content, 2 usage or a file, 130 and 143 stopped), never in a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

try:
    import click
    import rich.console
except ModuleNotFoundError as missing:
    print(f"tersor: the command line needs {missing.name}: pip install 'tersor[cli]'", file=sys.stderr)
    sys.exit(2)

import tersor

Advance = Callable[[int], None]


class Terminated(BaseException):
    """SIGTERM arrived."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its status."""

    def terminate(*_: Any) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    message, status = "", 0
    try:
        outcome = commands.main(arguments, "tersor", standalone_mode=False)
        status = outcome if isinstance(outcome, int) else 0
        sys.stdout.flush()
    except click.UsageError as error:
        help_for = error.ctx.command_path if error.ctx else "tersor"
        message, status = f"{error.format_message()} (see {help_for} --help)", 2
    except click.ClickException as error:
        message, status = error.format_message(), 2
    except (click.Abort, KeyboardInterrupt):
        message, status = "interrupted", 130
    except Terminated:
        message, status = "terminated", 143
    except BrokenPipeError:  # the reader of our output has gone: nothing is wrong, and nobody listens
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message, status = where + (error.strerror or str(error)), 2
    except MemoryError as error:
        message, status = f"out of memory {error}".strip(), 2
    except ValueError as error:
        message, status = str(error), 1
    except Exception as error:
        message, status = f"internal error, please report it: {type(error).__name__}: {error}", 1
    if message:
        with contextlib.suppress(OSError):
            print("tersor:", " ".join(message.split()), file=sys.stderr)
    sys.exit(status)


def console() -> rich.console.Console:
    """Where results go: as wide as the terminal, or a wide page in a pipe."""
    return rich.console.Console(width=None if sys.stdout.isatty() else 110, highlight=False)


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """A bar on stderr over ``total`` bytes, if somebody is looking."""
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = [TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=rich.console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)


def size(n: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n:.0f} B"


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tersor.__version__, message="tersor %(version)s")
def commands() -> None:
    """Make neural representations small: inspect, prune and quantize checkpoints."""


SOURCE = click.argument("source", metavar="IN", type=click.Path(exists=True, path_type=Path))
OUTPUT = click.option(
    "-o", "--output", metavar="OUT", required=True, type=click.Path(path_type=Path), help="Where to write."
)
INCLUDE = click.option(
    "--include", metavar="PATTERN", multiple=True, help="Only tensors with such names (a shell pattern)."
)
EXCLUDE = click.option("--exclude", metavar="PATTERN", multiple=True, help="No tensors with such names.")


@commands.command()
def info() -> None:
    """Version, instruction set, threads, and what was found beside tersor."""
    import importlib.metadata
    import platform

    from rich.table import Table

    level, levels = tersor._core.level()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("tersor", tersor.__version__)
    table.add_row("instruction set", f"{level} (of {', '.join(levels)})")
    table.add_row("threads", str(tersor.get_num_threads()))
    table.add_row("python", platform.python_version())
    for package in ("numpy", "torch", "triton"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            table.add_row(package, importlib.metadata.version(package))
            continue
        table.add_row(package, "not installed")
    table.add_row("GPU", _gpu())
    console().print(table)


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return "unknown without torch"
    if not torch.cuda.is_available():
        return "none found"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


@commands.command()
@click.argument("family", nargs=-1)
@click.option("--match", default="", metavar="TEXT", help="Only cases with this in their name.")
@click.option(
    "--seconds", default=3.0, type=click.FloatRange(min=0), show_default=True, help="About how long a case is measured."
)
@click.option("--brief", is_flag=True, help="One case of each family, one line each.")
def bench(family: tuple[str, ...], match: str, seconds: float, brief: bool) -> int:
    """Ratios against peers, in one process on one thread."""
    from tersor.bench import FAMILIES
    from tersor.bench.__main__ import run

    for name in family:
        if name not in FAMILIES:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(FAMILIES)}", param_hint="FAMILY")
    return run([*family, "--match", match, "--seconds", str(seconds), *(["--brief"] if brief else [])])
