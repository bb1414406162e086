"""The command line ``tersor``. The one rule: whatever goes wrong ends in one message on stderr and an exit status that says
whose fault it was (0 done, 1 the content, 2 usage or a file, 130 and 143 stopped), never in a traceback."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

try:
    import click

    from tersor._console import console, count, listener_gone, prepare, progress, several, shown, silence, size
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
    """Make neural representations small: inspect, prune and quantize checkpoints.

    \b
    tersor inspect model/
    tersor prune model/ -o pruned/ --sparsity 0.5
    tersor quantize model/ -o small/ --scheme int4-g128
    """


SOURCE = click.argument("source", metavar="IN", type=click.Path(exists=True, path_type=Path))
OUTPUT = click.option(
    "-o",
    "--output",
    metavar="OUT",
    required=True,
    type=click.Path(path_type=str),
    help="A file for a file (or a folder to write it into), a folder for a folder, replaced as a whole.",
)
PATTERN = "that a shell pattern names, by the tensor's name or its module's (layers.0.*, lm_head); repeatable."
INCLUDE = click.option("--include", metavar="PATTERN", multiple=True, help=f"Only what is asked for: tensors {PATTERN}")
EXCLUDE = click.option("--exclude", metavar="PATTERN", multiple=True, help=f"Leave out tensors {PATTERN}")
EMBEDDINGS = click.option(
    "--embeddings", is_flag=True, help="Tables of embeddings too, which are otherwise left as they are."
)


@commands.command()
def info() -> None:
    """Version, instruction set, threads, packages.

    What was found beside tersor: NumPy, torch, Triton, a GPU.
    """
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
    """List tensors, zeros and magnitudes of a checkpoint.

    IN is a safetensors file, a model folder, or the index of a sharded one (*.safetensors.index.json). A model that is
    quantized says how.
    """
    from tersor.checkpoint import Model, summary
    from tersor.checkpoint._quantized import described, evidence

    rows: list[tuple[str, ...]] = []
    total = summary.Magnitudes()
    tensors = numbers = nbytes = 0
    with Model(source) as model:
        entries = list(model.tensors())
        work = sum(e.nbytes for _, e in entries if e.dtype in summary.FLOATS)
        done = 0
        with progress("reading") as show:
            for reader, e in entries:
                zeros = largest = ""
                if histogram and e.dtype in summary.FLOATS and e.nbytes:
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
        how, weights, stood = described(model) if evidence(model) else ("", 0, 0)
    out = console()
    _table(out, ("tensor", "dtype", "shape", "size", "zeros", "largest"), rows)
    out.print(f"\n{several(tensors, 'tensor')}{files}, {count(numbers)} numbers, {size(nbytes)}", highlight=False)
    if how:
        codes = f"; {several(weights, 'weight')} of {count(stood)} numbers in codes" if weights else ""
        out.print(f"quantized: {shown(how)}{codes}", markup=False, highlight=False)
    if total.count:
        out.print(f"\nmagnitudes of {count(total.count)} floats, {100 * total.sparsity:.2f} % of them zero")
        for line in summary.histogram(total, width=max(10, min(60, out.width - 24))):
            out.print(line, markup=False)


def _number(context: click.Context, option: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("nan is no share", context, option)
    return value


def _chosen(rule: str, source: Path) -> str:
    """What decided about the tensors, and what would decide better if it were there."""
    if rule == "names" and source.is_dir() and importlib.util.find_spec("transformers") is None:
        return "names (pip install 'tersor[models]' asks the model's own modules)"
    return rule


def _dense(reasons: Mapping[str, str]) -> None:
    """Says which tensors were left as they are, and why."""
    for why in sorted(set(reasons.values())):
        names = [shown(name) for name, reason in reasons.items() if reason == why]
        more = ", …" if len(names) > 3 else ""
        console().print(f"left as it is, {why}: {len(names)} ({', '.join(names[:3])}{more})", markup=False)


def _left(names: tuple[str, ...], untouched: tuple[str, ...]) -> None:
    """Says what a folder's result was not given, and what of it is as it was."""
    from tersor.checkpoint._beside import in_few

    for what, some in (
        ("left as they are: {} (weights in folders of their own; each such folder can be IN)", untouched),
        ("left behind (the same weights in other formats, and what is no part of a model): {}", names),
    ):
        if some:
            console().print(shown(what.format(in_few(list(some)))), markup=False)


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
@EMBEDDINGS
@INCLUDE
@EXCLUDE
@click.option("--resume", is_flag=True, help="Go on from where an interrupted run into the same folder got to.")
def prune(
    source: Path,
    output: str,
    sparsity: float,
    min_keep: int,
    embeddings: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    resume: bool,
) -> None:
    """Set the smallest weights to zero, of all tensors together.

    Exactly the asked share of them. IN is a safetensors file, a model folder, or the index of a sharded one. Float tensors
    of two dimensions or more count; tables of embeddings and routers of experts are left as they are unless asked for.

    \b
    tersor prune model/ -o pruned/ --sparsity 0.5
    tersor prune in.safetensors -o out.safetensors --sparsity 0.3 --exclude lm_head
    """
    from tersor.prune import prune_safetensors

    with progress("pruning") as show:
        made = prune_safetensors(
            source,
            output,
            sparsity,
            min_keep=min_keep,
            include=include,
            exclude=exclude,
            embeddings=embeddings,
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
    if made.dense:
        out.print(f"what to prune was chosen by {_chosen(made.rule, source)}", markup=False)
    _dense(made.dense)
    _left(made.left, made.untouched)


@commands.command()
@SOURCE
@OUTPUT
@click.option(
    "--scheme",
    required=True,
    metavar="SCHEME",
    help="int8-row, int4-row, int8-g<N> or int4-g<N>: bits, and a scale per row or per N weights of it (int4-g128).",
)
@EMBEDDINGS
@INCLUDE
@EXCLUDE
def quantize(
    source: Path, output: str, scheme: str, embeddings: bool, include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    """Write the matrices as codes of 8 or 4 bits with scales.

    As compressed-tensors and transformers read them. IN is a safetensors file, a model folder, or the index of a sharded one.
    Weights of linear layers are quantized, as the model's own modules tell them where transformers is installed.

    \b
    tersor quantize model/ -o small/ --scheme int4-g128
    tersor quantize in.safetensors -o out.safetensors --scheme int8-row --exclude lm_head
    """
    from tersor.checkpoint import Model
    from tersor.jobs import compressed
    from tersor.jobs.quantize import quantize_safetensors

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
        f"{size(made.before)} -> {size(made.after)}, {several(len(made.choice.quantized), 'weight')} in {scheme}, "
        f"chosen by {_chosen(made.choice.rule, source)}",
        markup=False,
    )
    _dense(made.choice.dense)
    _left(made.left, made.untouched)


@commands.command()
@click.argument("family", nargs=-1)
@click.option("--match", default="", metavar="TEXT", help="Only cases with this in their name.")
@click.option(
    "--seconds", default=3.0, type=click.FloatRange(min=0), show_default=True, help="About how long a case is measured."
)
@click.option("--brief", is_flag=True, help="One case of each family, one line each.")
@click.option("--all", "every", is_flag=True, help="Every operator at every size, which may take an hour.")
def bench(family: tuple[str, ...], match: str, seconds: float, brief: bool, every: bool) -> int:
    """Measure ratios against peers, on one thread.

    FAMILY is a module of operators (quant, prune, …); all of them where none is named.
    """
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
