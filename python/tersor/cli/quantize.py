"""``tersor quantize``. The one rule: as `tersor.convert.quantize_safetensors`, and what it left is said."""

from __future__ import annotations

from pathlib import Path

import click

from tersor.cli._console import console, progress, several, size
from tersor.cli._options import EMBEDDINGS, EXCLUDE, INCLUDE, OUTPUT, SOURCE
from tersor.cli._said import chosen, dense, left


@click.command()
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
        f"chosen by {chosen(made.choice.rule, source)}",
        markup=False,
    )
    dense(made.choice.dense)
    left(made.left, made.untouched)
