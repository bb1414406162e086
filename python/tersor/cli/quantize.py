"""``tersor quantize``. The one rule: as `tersor.convert.quantize_safetensors`, and what it left is said."""

from __future__ import annotations

from pathlib import Path

import click

from tersor.cli._console import console, counting, progress, several, size
from tersor.cli._options import EMBEDDINGS, EXCLUDE, INCLUDE, OUTPUT, SOURCE
from tersor.cli._said import chosen, dense, left, rounded


@click.command()
@SOURCE
@OUTPUT
@click.option(
    "--scheme",
    required=True,
    metavar="SCHEME",
    help="int8-row, int4-row, int8-g<N> or int4-g<N>: bits, and a scale per row or per N weights of it (int4-g128). "
    "With -gptq after it, codes are found by what the layers are given of the texts of --calibration.",
)
@click.option(
    "--calibration",
    metavar="TEXTS",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text file, a sentence or a document a line: what the model is run on, for a scheme that ends in -gptq.",
)
@EMBEDDINGS
@INCLUDE
@EXCLUDE
def quantize(
    source: Path,
    output: str,
    scheme: str,
    calibration: Path | None,
    embeddings: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> None:
    """Write the matrices as codes of 8 or 4 bits with scales.

    As compressed-tensors and transformers read them. IN is a safetensors file, a model folder, or the index of a sharded one.
    Weights of linear layers are quantized, as the model's own modules tell them where transformers is installed.

    \b
    tersor quantize model/ -o small/ --scheme int4-g128
    tersor quantize model/ -o small/ --scheme int4-g128-gptq --calibration texts.txt
    tersor quantize in.safetensors -o out.safetensors --scheme int8-row --exclude lm_head
    """
    from tersor.checkpoint import Model
    from tersor.jobs import compressed
    from tersor.jobs.calibrate import read_texts
    from tersor.jobs.quantize import quantize_safetensors

    try:
        how = compressed.Scheme.parse(scheme)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--scheme") from None
    if how.calibrated != (calibration is not None):
        what = "needs --calibration TEXTS" if how.calibrated else "takes no --calibration: schemes that end in -gptq do"
        raise click.UsageError(f"--scheme {scheme} {what}")
    texts = None if calibration is None else read_texts(calibration)
    with Model(source) as model:
        if model.folder and Path(output).exists() and model.folder.samefile(output):
            raise click.UsageError("a folder is quantized into another folder: OUT is IN")
    with counting("calibrating", texts) as count, progress("quantizing") as show:
        made = quantize_safetensors(
            source,
            output,
            scheme,
            include=include,
            exclude=exclude,
            embeddings=embeddings,
            calibration=texts,
            progress=show,
            calibrating=count,
        )
    out = console()
    out.print(
        f"{size(made.before)} -> {size(made.after)}, {several(len(made.choice.quantized), 'weight')} in {scheme}, "
        f"chosen by {chosen(made.choice.rule, source)}",
        markup=False,
    )
    dense(made.choice.dense)
    rounded(made.rounded)
    left(made.left, made.untouched)
