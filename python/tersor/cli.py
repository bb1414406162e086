"""The command line ``tersor``. The one rule: whatever goes wrong ends in one message on stderr and an exit status that says
whose fault it was (0 done, 1 the content, 2 usage or a file, 130 and 143 stopped), never in a traceback."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

try:
    import click

    from tersor._console import console, count, listener_gone, prepare, progress, shown, silence, size
except ModuleNotFoundError as missing:
    print(f"tersor: the command line needs {missing.name}: pip install 'tersor[cli]'", file=sys.stderr)
    sys.exit(2)

import tersor
from tersor.checkpoint._format import Misuse


class Terminated(BaseException):
    """SIGTERM arrived."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its status."""

    def terminate(*_: Any) -> NoReturn:
        raise Terminated

    prepare()
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
    except SystemExit as error:
        if not listener_gone(error):
            raise
        silence()
    except OSError as error:
        if listener_gone(error):  # the reader of our output has gone: nothing is wrong, and nobody listens
            silence()
        else:
            where = f"{error.filename}: " if error.filename else ""
            message, status = where + (error.strerror or str(error)), 2
    except MemoryError as error:
        message, status = f"out of memory {error}".strip(), 2
    except Misuse as error:
        message, status = str(error), 2
    except ValueError as error:
        message, status = str(error), 1
    except Exception as error:
        message, status = f"internal error, please report it: {type(error).__name__}: {error}", 1
    if message:
        with contextlib.suppress(OSError):
            print("tersor:", shown(" ".join(message.split())), file=sys.stderr)
    sys.exit(status)


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tersor.__version__, message="tersor %(version)s")
def commands() -> None:
    """Make neural representations small: inspect, prune and quantize checkpoints."""


SOURCE = click.argument("source", metavar="IN", type=click.Path(exists=True, path_type=Path))
OUTPUT = click.option(
    "-o",
    "--output",
    metavar="OUT",
    required=True,
    type=click.Path(path_type=str),
    help="A file for a file (or a folder to write it into), a folder for a folder, replaced as a whole.",
)
INCLUDE = click.option(
    "--include",
    metavar="PATTERN",
    multiple=True,
    help="Only tensors or modules so named (a shell pattern; repeatable).",
)
EXCLUDE = click.option(
    "--exclude", metavar="PATTERN", multiple=True, help="No tensors or modules so named (repeatable)."
)


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


def _table(out: Any, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Three columns to the left, the others to the right, a line a row: as fast for a hundred thousand as it can be printed."""
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    for row in [headings, *rows]:
        cells = [c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        out.file.write(" ".join(cells).rstrip() + "\n")


@commands.command()
@SOURCE
@click.option("--histogram/--no-histogram", default=True, help="Read the numbers too, not only the headers.")
def inspect(source: Path, histogram: bool) -> None:
    """Tensors, dtypes, sizes, zeros and the distribution of magnitudes of a file or model folder."""
    from tersor import summary
    from tersor.checkpoint import Model
    from tersor.checkpoint._quantized import described, evidence

    rows: list[tuple[str, ...]] = []
    total = summary.Magnitudes()
    tensors = numbers = nbytes = 0
    with Model(source) as model:
        entries = list(model.tensors())
        work = sum(e.nbytes for _, e in entries if e.dtype in summary.LAYOUTS)
        done = 0
        with progress("reading") as show:
            for reader, e in entries:
                zeros = largest = ""
                if histogram and e.dtype in summary.LAYOUTS and e.nbytes:
                    found = summary.Magnitudes()
                    for piece in reader.chunks(e):
                        found.update(e.dtype, piece)
                        done += piece.nbytes
                        show(done, work)
                    total.merge(found)
                    zeros, largest = f"{100 * found.sparsity:.1f} %", f"{found.largest:.4g}"
                    if found.nonfinite:
                        largest = f"{found.nonfinite} inf, nan"
                rows.append((shown(e.name), e.dtype, "×".join(map(str, e.shape)), size(e.nbytes), zeros, largest))
                tensors, numbers, nbytes = tensors + 1, numbers + math.prod(e.shape), nbytes + e.nbytes
        files = f" in {len(model.readers)} files" if len(model.readers) > 1 else ""
        how = described(model) if evidence(model) else ""
    out = console()
    _table(out, ("tensor", "dtype", "shape", "size", "zeros", "largest"), rows)
    out.print(f"\n{tensors} tensors{files}, {count(numbers)} numbers, {size(nbytes)}", highlight=False)
    if how:
        out.print(how, markup=False, highlight=False)
    if total.count:
        out.print(f"\nmagnitudes of {count(total.count)} floats, {100 * total.sparsity:.2f} % of them zero")
        for line in summary.histogram(total, width=max(10, min(60, out.width - 24))):
            out.print(line, markup=False)


def _number(context: click.Context, option: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("nan is no share", context, option)
    return value


def _left(names: tuple[str, ...]) -> None:
    """Says what a folder's result was not given."""
    if names:
        from tersor.checkpoint._beside import in_few

        text = f"left behind (the same weights in other formats, and what is no part of a model): {in_few(list(names))}"
        console().print(shown(text), markup=False)


@commands.command()
@SOURCE
@OUTPUT
@click.option(
    "--sparsity",
    required=True,
    type=click.FloatRange(0, 1),
    callback=_number,
    help="The share of weights to set to zero.",
)
@click.option("--min-keep", default=0, type=click.IntRange(min=0), help="Weights that every tensor keeps at least.")
@INCLUDE
@EXCLUDE
@click.option("--resume", is_flag=True, help="Go on from where an interrupted run into the same folder got to.")
def prune(
    source: Path,
    output: str,
    sparsity: float,
    min_keep: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    resume: bool,
) -> None:
    """Set the smallest weights of all tensors together to zero, exactly the asked share of them."""
    from tersor.prune.files import prune_safetensors

    with progress("pruning") as show:
        made = prune_safetensors(
            source,
            output,
            sparsity,
            min_keep=min_keep,
            include=include,
            exclude=exclude,
            resume=resume,
            progress=show,
        )
    share = 100 * made.pruned / made.total if made.total else 0.0
    largest = "" if made.threshold is None else f", the largest of magnitude {made.threshold}"
    out = console()
    out.print(f"{made.pruned} of {made.total} weights pruned ({share:.2f} %){largest}")
    if empty := [shown(name) for name, kept in made.kept.items() if not kept]:
        more = ", …" if len(empty) > 3 else ""
        out.print(f"nothing is left of {len(empty)}: {', '.join(empty[:3])}{more}", markup=False)
    _left(made.left)


@commands.command()
@SOURCE
@OUTPUT
@click.option("--scheme", required=True, metavar="SCHEME", help="int8-row, int4-g128, or another of 8 or 4 bits.")
@click.option("--embeddings", is_flag=True, help="Quantize the tables of embeddings too.")
@INCLUDE
@EXCLUDE
def quantize(
    source: Path, output: str, scheme: str, embeddings: bool, include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    """Write the matrices as codes of 8 or 4 bits with scales, as compressed-tensors and transformers read them."""
    from tersor import compressed
    from tersor.checkpoint import Model
    from tersor.convert import quantize_safetensors

    try:
        compressed.Scheme.parse(scheme)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--scheme") from None
    with Model(source) as model:
        if model.folder and Path(output).exists() and model.folder.samefile(output):
            raise click.UsageError("a folder is quantized into another folder: OUT is IN")
    with progress("quantizing") as show:
        made = quantize_safetensors(
            source, output, scheme, include=include, exclude=exclude, embeddings=embeddings, progress=show
        )
    out = console()
    out.print(
        f"{size(made.before)} -> {size(made.after)}, {len(made.choice.quantized)} weights in {scheme}, "
        f"chosen by {made.choice.rule}",
        markup=False,
    )
    for why in sorted(set(made.choice.dense.values())):
        names = [shown(name) for name, reason in made.choice.dense.items() if reason == why]
        more = ", …" if len(names) > 3 else ""
        out.print(f"left as it is, {why}: {len(names)} ({', '.join(names[:3])}{more})", markup=False)
    _left(made.left)


@commands.command()
@click.argument("family", nargs=-1)
@click.option("--match", default="", metavar="TEXT", help="Only cases with this in their name.")
@click.option(
    "--seconds", default=3.0, type=click.FloatRange(min=0), show_default=True, help="About how long a case is measured."
)
@click.option("--brief", is_flag=True, help="One case of each family, one line each.")
@click.option("--all", "every", is_flag=True, help="Every operator at every size, which may take an hour.")
def bench(family: tuple[str, ...], match: str, seconds: float, brief: bool, every: bool) -> int:
    """Ratios against peers, in one process on one thread."""
    from tersor.bench import FAMILIES
    from tersor.bench.__main__ import run

    for name in family:
        if name not in FAMILIES:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(FAMILIES)}", param_hint="FAMILY")
    return run(
        [
            *family,
            "--match",
            match,
            "--seconds",
            str(seconds),
            *(["--brief"] if brief else []),
            *(["--all"] if every else []),
        ]
    )
