"""``tersor prune``. The one rule: as `tersor.prune.prune_safetensors`, and what it left is said."""

from __future__ import annotations

import math
from pathlib import Path

import click

from tersor.cli._console import console, progress, shown
from tersor.cli._options import EMBEDDINGS, EXCLUDE, INCLUDE, OUTPUT, SOURCE
from tersor.cli._said import chosen, decoded, dense, left


def _number(context: click.Context, option: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("nan is no share", context, option)
    return value


@click.command()
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
        out.print(f"what to prune was chosen by {chosen(made.rule, source)}", markup=False)
    dense(made.dense)
    decoded(made.decoded)
    left(made.left, made.untouched)
