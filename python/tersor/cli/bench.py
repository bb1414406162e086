"""``tersor bench``. The one rule: measured is in a process of its own, on one thread."""

from __future__ import annotations

import click


@click.command()
@click.argument("family", nargs=-1)
@click.option("--match", default="", metavar="TEXT", help="Only cases with this in their name.")
@click.option(
    "--seconds", default=3.0, type=click.FloatRange(min=0), show_default=True, help="About how long a case is measured."
)
@click.option("--brief", is_flag=True, help="One case of each family, one line each.")
@click.option("--targets", is_flag=True, help="One line for each target, and how many hold.")
@click.option("--all", "every", is_flag=True, help="Every operator at every size, which may take an hour.")
def bench(family: tuple[str, ...], match: str, seconds: float, brief: bool, targets: bool, every: bool) -> int:
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
            *(["--targets"] if targets else []),
            *(["--all"] if every else []),
        ]
    )
