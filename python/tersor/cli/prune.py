"""``tersor prune``. The one rule: as `tersor.prune.prune_safetensors`, and what it left is said."""

from __future__ import annotations

import math
from pathlib import Path

import click

from tersor.cli._console import console, counting, progress, shown
from tersor.cli._options import EMBEDDINGS, EXCLUDE, INCLUDE, OUTPUT, SOURCE
from tersor.cli._said import chosen, decoded, dense, left


def _number(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no share", context, option)
    return value


def _pattern(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    from tersor.prune.patterns import nm_of

    try:
        return nm_of("--pattern", value)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error).removeprefix("--pattern: ")) from None


@click.command()
@SOURCE
@OUTPUT
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1),
    callback=_number,
    help="The share of weights to set to zero.",
)
@click.option(
    "--pattern",
    metavar="N:M",
    callback=_pattern,
    help="Instead of a share: of every M weights in a row the N largest are kept (2:4).",
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
@click.option("--min-keep", default=0, type=click.IntRange(min=0), help="Weights that every tensor keeps at least.")
@EMBEDDINGS
@INCLUDE
@EXCLUDE
@click.option("--resume", is_flag=True, help="Go on from where an interrupted run into the same folder got to.")
def prune(
    source: Path,
    output: str,
    sparsity: float | None,
    pattern: tuple[int, int] | None,
    method: str,
    calibration: Path | None,
    min_keep: int,
    embeddings: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    resume: bool,
) -> None:
    """Set weights to zero, exactly the share asked for.

    The smallest of all, those that matter least to what layers give, or all but N of every M. IN is a safetensors file, a model
    folder, or the index of a sharded one. Float tensors of two dimensions or more count; tables of embeddings and routers of
    experts are left as they are unless asked for.

    \b
    tersor prune model/ -o pruned/ --sparsity 0.5
    tersor prune in.safetensors -o out.safetensors --sparsity 0.3 --exclude lm_head
    tersor prune model/ -o pruned/ --pattern 2:4 --method sparsegpt --calibration texts.txt
    """
    from tersor.jobs.running import read_texts
    from tersor.prune import prune_safetensors

    if (sparsity is None) == (pattern is None):
        raise click.UsageError(
            "one of --sparsity and --pattern is needed" if pattern is None else "--sparsity or --pattern"
        )
    if (method == "magnitude") != (calibration is None):
        needs = "needs --calibration TEXTS" if calibration is None else "takes no --calibration"
        raise click.UsageError(f"--method {method} {needs}")
    if (min_keep or resume) and (pattern or calibration):
        raise click.UsageError("--min-keep and --resume go with --sparsity and --method magnitude")
    texts = None if calibration is None else read_texts(calibration)
    with counting("calibrating", texts) as count, progress("pruning") as show:
        made = prune_safetensors(
            source,
            output,
            sparsity,
            nm=pattern,
            method=method,
            calibration=texts,
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
    out.print(f"{made.pruned} of {made.total} weights pruned ({share:.2f} %){largest}")
    if empty := [shown(name) for name, kept in made.kept.items() if not kept]:
        more = ", …" if len(empty) > 3 else ""
        out.print(f"nothing is left of {len(empty)}: {', '.join(empty[:3])}{more}", markup=False)
    if made.dense:
        out.print(f"what to prune was chosen by {chosen(made.rule, source)}", markup=False)
    dense(made.dense)
    decoded(made.decoded)
    left(made.left, made.untouched)
