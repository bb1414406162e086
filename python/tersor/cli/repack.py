"""``tersor repack``. The one rule: as `tersor.convert.repack`, and what it left is said."""

from __future__ import annotations

from pathlib import Path

import click

from tersor.cli._console import console, counting, several, size
from tersor.cli._options import OUTPUT, SOURCE
from tersor.cli._said import left


@click.command()
@SOURCE
@OUTPUT
@click.option(
    "--to",
    required=True,
    type=click.Choice(["ct", "gptq", "gptq_v2", "awq", "gguf"]),
    help="The format: compressed-tensors, GPTQ (of either version), AWQ or GGUF.",
)
def repack(source: Path, output: str, to: str) -> None:
    """Write a quantized checkpoint in another format.

    No weight changes, not by a bit: codes, zero points and scales are those of IN, and what the other format has no place for
    is refused by name. IN is a folder of compressed-tensors, GPTQ or AWQ, or a GGUF file.

    \b
    tersor repack model-GPTQ/ -o model-ct/ --to ct
    tersor repack model-AWQ/ -o model-GPTQ/ --to gptq
    tersor repack small/ -o model.gguf --to gguf
    """
    from tersor.jobs.repack import repack as repacked

    with counting("repacking", True) as show:
        made = repacked(source, output, to, progress=show)
    widths = sorted(set(made.weights.values()))
    of = " and ".join(map(str, widths))
    console().print(
        f"{size(made.before)} -> {size(made.after)}, {several(len(made.weights), 'weight')} of {of} bits in {to}, unchanged",
        markup=False,
    )
    left(made.left, made.untouched)
