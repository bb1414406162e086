"""``tersor prune``. The one rule: as `tersor.prune.prune_safetensors`, and what it left is said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tersor.cli._console import console, counting, progress, shown, table
from tersor.cli._options import EMBEDDINGS, EXCLUDE, INCLUDE, MAYBE, RESUME, SOURCE, one_of_output
from tersor.cli._said import chosen, decoded, dense, left

if TYPE_CHECKING:
    from rich.table import Table

    from tersor.jobs._pruned import Pruned


def _number(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no share", context, option)
    return value


def _pattern(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, Any]:
    """What a pattern is called where files are pruned."""
    if value is None:
        return {}
    from tersor.jobs.prune_blocks import block_of
    from tersor.prune.patterns import nm_of

    try:
        if value == "rows" or value.startswith("block:"):
            block_of("--pattern", blocks := value.removeprefix("block:"))
            return {"blocks": blocks}
        return {"nm": nm_of("--pattern", value)}
    except (TypeError, ValueError) as error:
        said = str(error).removeprefix("--pattern: ")
        raise click.BadParameter(f"{said}; a pattern is N:M, block:RxC or rows") from None


def _schedule(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    name, steps = value.partition(":")[::2]
    if name not in ("linear", "cubic", "cosine") or not steps.isdecimal() or not 1 <= int(steps) <= 1000:
        raise click.BadParameter(f"{value!r} is none of linear:N, cubic:N and cosine:N, N steps from 1 to 1000")
    return name, int(steps)


@click.command()
@SOURCE
@MAYBE
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1),
    callback=_number,
    help="The share of weights to set to zero.",
)
@click.option(
    "--pattern",
    metavar="PATTERN",
    callback=_pattern,
    help="N:M keeps the N largest of every M weights in a row, instead of a share (2:4). With a share, block:RxC prunes whole "
    "blocks of R rows and C columns (block:4x1), rows whole rows, those of the least norm.",
)
@click.option(
    "--scope",
    type=click.Choice(["global", "layer"]),
    help="Rank the weights, blocks or rows of all tensors together (what is meant if nothing is said), or each by itself.",
)
@click.option(
    "--method",
    default="magnitude",
    show_default=True,
    type=click.Choice(["magnitude", "wanda", "sparsegpt"]),
    help="The smallest of all tensors together, or, in every linear layer, those that matter least to what it gives of the "
    "texts of --calibration; sparsegpt lets the rest answer for them.",
)
@click.option(
    "--calibration",
    metavar="TEXTS",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text file, a sentence or a document a line: what the model is run on, for wanda and sparsegpt.",
)
@click.option(
    "--schedule",
    metavar="NAME:STEPS",
    callback=_schedule,
    help="For wanda and sparsegpt: reach the share in steps (linear:4, cubic:4, cosine:4), running the model at each.",
)
@click.option("--min-keep", default=0, type=click.IntRange(min=0), help="Weights that every tensor keeps at least.")
@EMBEDDINGS
@INCLUDE
@EXCLUDE
@click.option("--dry-run", is_flag=True, help="Write nothing: say what would be left of each tensor.")
@RESUME
def prune(
    source: Path,
    output: str | None,
    sparsity: float | None,
    pattern: dict[str, Any],
    scope: str | None,
    method: str,
    calibration: Path | None,
    schedule: tuple[str, int] | None,
    min_keep: int,
    embeddings: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    resume: bool,
) -> None:
    """Set weights to zero, exactly the share asked for.

    The smallest of all, those that matter least to what layers give, all but N of every M, or whole blocks and rows. IN is a
    safetensors file, a model folder, or the index of a sharded one. Float tensors of two dimensions or more count; tables of
    embeddings and routers of experts are left as they are unless asked for.

    \b
    tersor prune model/ -o pruned/ --sparsity 0.5
    tersor prune in.safetensors -o out.safetensors --sparsity 0.3 --exclude lm_head
    tersor prune model/ -o pruned/ --pattern 2:4 --method sparsegpt --calibration texts.txt
    tersor prune model/ --sparsity 0.5 --pattern block:4x1 --scope layer --dry-run
    """
    from tersor.jobs.running import read_texts
    from tersor.prune import prune_safetensors

    _together(sparsity, pattern, scope, method, calibration, schedule)
    if (min_keep or resume) and (pattern or calibration):
        raise click.UsageError("--min-keep and --resume go with --sparsity and --method magnitude")
    if resume and (scope == "layer" or dry_run):
        raise click.UsageError(f"--resume does not go with {'--dry-run' if dry_run else '--scope layer'}")
    one_of_output(output, dry_run)
    texts = None if calibration is None else read_texts(calibration)
    with counting("calibrating", texts) as count, progress("pruning") as show:
        made = prune_safetensors(
            source,
            output,
            sparsity,
            **pattern,
            scope=scope,
            method=method,
            calibration=texts,
            schedule=_shares(schedule, sparsity),
            min_keep=min_keep,
            include=include,
            exclude=exclude,
            embeddings=embeddings,
            resume=resume,
            progress=show,
            calibrating=count,
        )
    share = 100 * made.pruned / made.total if made.total else 0.0
    largest = "" if made.threshold is None else f", the largest of magnitude {made.threshold}"
    out = console()
    if dry_run:
        out.print(_report(made))
    would = "would be pruned" if dry_run else "pruned"
    out.print(f"{made.pruned} of {made.total} weights {would} ({share:.2f} %){largest}")
    if empty := [shown(name) for name, kept in made.kept.items() if not kept]:
        more = ", …" if len(empty) > 3 else ""
        out.print(f"nothing is left of {len(empty)}: {', '.join(empty[:3])}{more}", markup=False)
    if made.dense:
        out.print(f"what to prune was chosen by {chosen(made.rule, source)}", markup=False)
    dense(made.dense)
    decoded(made.decoded)
    left(made.left, made.untouched)


def _together(
    sparsity: float | None,
    pattern: dict[str, Any],
    scope: str | None,
    method: str,
    calibration: Path | None,
    schedule: tuple[str, int] | None,
) -> None:
    """Refuses options that do not go together."""
    if (sparsity is None) == ("nm" not in pattern):
        said = "--sparsity or --pattern N:M" if pattern else "one of --sparsity and --pattern is needed"
        raise click.UsageError("--sparsity is needed, the share of blocks or rows" if "blocks" in pattern else said)
    if (method == "magnitude") != (calibration is None):
        needs = "needs --calibration TEXTS" if calibration is None else "takes no --calibration"
        raise click.UsageError(f"--method {method} {needs}")
    if "blocks" in pattern and method != "magnitude":
        raise click.UsageError(f"--method {method} takes no blocks or rows")
    if scope == "global" and ("nm" in pattern or method != "magnitude"):
        raise click.UsageError(
            "--scope global goes with --method magnitude and without N:M, which know the layer alone"
        )
    if schedule is not None and (method == "magnitude" or pattern):
        raise click.UsageError("--schedule goes with --sparsity and --method wanda or sparsegpt")


def _shares(schedule: tuple[str, int] | None, sparsity: float | None) -> list[float] | None:
    """The shares on the way."""
    if schedule is None or sparsity is None:
        return None
    from tersor import prune

    name, steps = schedule
    share = getattr(prune, f"{name}_schedule")
    return [share(step, 0, steps, 0.0, sparsity) for step in range(1, steps)]


def _report(made: Pruned) -> Table:
    """What would be left of each tensor."""
    rows = []
    for name, size in made.sizes.items():
        kept = made.kept.get(name, size)
        rows.append((name, str(size), str(kept), f"{100 * (size - kept) / size:.2f} %" if size else ""))
    return table(("tensor",), ("weights", "left", "zeros"), rows)
