"""``tersor embed``. The one rule: an edge list is read once, and the result is there as a whole or not at all."""

from __future__ import annotations

import click

from tersor.cli._console import console, count, progress, size


def _numbers(_: object, __: object, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(v) for v in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"numbers apart by commas, got {text!r}") from None


@click.command()
@click.argument("source", metavar="EDGES", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(), help="An .npy file, a row a node.")
@click.option("--dim", default=128, show_default=True, type=click.IntRange(1), help="Numbers of a node.")
@click.option("--weights", metavar="W1,W2,…", callback=_numbers, help="Of the hops.  [default: 1,1,1]", default="1,1,1")
@click.option("--alpha", type=float, help="Nodes send their degree to this power.")
@click.option("--variant", type=click.Choice(["paper", "gds"]), default="paper", show_default=True)
@click.option("--directed", is_flag=True, help="Edges are walked from source to target alone.")
@click.option(
    "--header/--no-header", default=None, help="Whether the first line says what columns are.  [default: as it looks]"
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1))
@click.option(
    "--nodes", metavar="FILE", type=click.Path(), help="Where the nodes of the rows are written, a line each."
)
def embed(
    source: str,
    output: str,
    dim: int,
    weights: list[float],
    alpha: float | None,
    variant: str,
    directed: bool,
    header: bool | None,
    seed: int,
    nodes: str | None,
) -> None:
    """Embed the nodes of a graph by FastRP.

    EDGES is a text file, plain or gzip, with a line "source target" or "source target weight" for each edge, or a parquet file
    of such columns. Rows are nodes in ascending order of their numbers, or names in the order in which they come.
    """
    from tersor.jobs.embed import embed as run

    with progress("reading") as show:
        n, m = run(
            source,
            output,
            dim,
            weights,
            directed=directed,
            header=header,
            nodes=nodes,
            progress=show,
            alpha=alpha,
            variant=variant,
            seed=seed,
        )
    console().print(f"{count(n)} nodes, {count(m)} edges, {dim} numbers a node, {size(4 * n * dim)}")
