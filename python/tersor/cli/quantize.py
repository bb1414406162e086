"""``tersor quantize``. The one rule: as `tersor.convert.quantize_safetensors`, and what it left is said."""

from __future__ import annotations

from pathlib import Path

import click

from tersor.cli._console import counting, progress
from tersor.cli._options import EMBEDDINGS, EXCLUDE, INCLUDE, MAYBE, RESUME, SOURCE, one_of_output
from tersor.cli._told import told


def _widths(_: click.Context, __: click.Parameter, value: str | None) -> str | tuple[int, ...] | None:
    if value is None or value == "auto":
        return value
    try:
        return tuple(int(b) for b in value.split(","))
    except ValueError:
        raise click.BadParameter(f"auto, or widths with commas between (4,8), not {value!r}") from None


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        pattern, equals, scheme = value.rpartition("=")
        if not (pattern and equals and scheme):
            raise click.BadParameter(f"PATTERN=SCHEME ('lm_head=int8-row'), not {value!r}")
        if pattern in found:
            raise click.BadParameter(f"{pattern!r} is given twice")
        found[pattern] = scheme
    return found


@click.command()
@SOURCE
@MAYBE
@click.option(
    "--scheme",
    metavar="SCHEME",
    help="int<b>-row or int<b>-g<N>: bits, from 2 to 8, and a scale per row or per N weights of it (int8-row, int4-g128, "
    "int3-g64); uint in place of int has a zero point beside each scale. "
    "With -gptq after it, codes are found by what the layers are given of the texts of --calibration; with -awq, inputs are "
    "scaled by it; with -adaround, each code is learned to be the one below or the one above, which takes far longer.",
)
@click.option(
    "--scheme-for",
    "schemes",
    metavar="PATTERN=SCHEME",
    multiple=True,
    callback=_pairs,
    help="Another scheme for the tensors that a shell pattern names, as --include does ('lm_head=int8-row'); repeatable, the "
    "first that names a tensor decides.",
)
@click.option(
    "--calibration",
    metavar="TEXTS",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text file, a sentence or a document a line: what the model is run on, for a scheme that ends in -gptq, "
    "-awq or -adaround.",
)
@click.option(
    "--bits",
    metavar="WIDTHS",
    callback=_widths,
    help="auto, or widths to choose from for each weight (4,8): those that lose least within --budget. The scheme then has "
    "none (int-g128-gptq, the default with --bits).",
)
@click.option(
    "--budget",
    type=float,
    metavar="BITS",
    help="Bits a weight on average, scales among them, for --bits: 4.25 is int4-g128.",
)
@EMBEDDINGS
@click.option(
    "--convolutions",
    is_flag=True,
    help="Quantize filters of convolutions too, each as a row, which tersor reads back and transformers does not.",
)
@click.option(
    "--experts",
    is_flag=True,
    help="Quantize experts that lie in one tensor of three axes too, each as a matrix.",
)
@click.option(
    "--fallback",
    is_flag=True,
    help="Rows that groups do not divide take smaller groups, or a scale a row, where they would stay dense.",
)
@click.option(
    "--rotate",
    is_flag=True,
    help="Turn weights by Hadamard matrices before they are calibrated, where the model then gives the same.",
)
@click.option(
    "--smooth",
    type=click.FloatRange(0, 1),
    metavar="ALPHA",
    help="How much of what is hard to round goes from the inputs of layers to their weights before they are calibrated, from 0 "
    "to 1 (.5 is usual), for layers with int8 activations.",
)
@click.option(
    "--method",
    type=click.Choice(["minmax", "mse"]),
    help="How scales are chosen: by the largest magnitude (minmax), or by a search for the least squares (mse), which loses "
    "less of 4 bits. Calibrated schemes have mse, others minmax.",
)
@INCLUDE
@EXCLUDE
@click.option("--dry-run", is_flag=True, help="Write nothing: say what would become of each tensor.")
@RESUME
def quantize(
    source: Path,
    output: str | None,
    scheme: str | None,
    schemes: dict[str, str],
    calibration: Path | None,
    bits: str | tuple[int, ...] | None,
    budget: float | None,
    embeddings: bool,
    convolutions: bool,
    experts: bool,
    fallback: bool,
    rotate: bool,
    smooth: float | None,
    method: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    resume: bool,
) -> None:
    """Write the matrices as codes of a few bits with scales.

    As compressed-tensors and transformers read them. IN is a safetensors file, a model folder, or the index of a sharded one.
    Weights of linear layers are quantized, as the model's own modules tell them where transformers is installed.

    \b
    tersor quantize model/ -o small/ --scheme int4-g128
    tersor quantize model/ -o small/ --scheme int4-g128-gptq --calibration texts.txt
    tersor quantize model/ -o small/ --scheme int4-g128 --scheme-for 'lm_head=int8-row' --scheme-for '*.down_proj=int8-g128'
    tersor quantize model/ -o small/ --bits auto --budget 4.25 --calibration texts.txt
    tersor quantize in.safetensors -o out.safetensors --scheme int8-row --exclude lm_head
    tersor quantize model/ --scheme int4-g128 --fallback --dry-run
    """
    from tersor.checkpoint import Model
    from tersor.jobs import compressed
    from tersor.jobs._schemes import Schemes
    from tersor.jobs.quantize import quantize_safetensors
    from tersor.jobs.running import read_texts
    from tersor.quant._recipes import widths_of

    if (bits is None) != (budget is None):
        raise click.UsageError("--bits and --budget go together")
    if budget is not None and not 1 <= budget <= 32:
        raise click.BadParameter(f"bits a weight, from 1 to 32, got {budget:g}", param_hint="--budget")
    if bits is not None:
        try:
            widths_of(bits, budget, "--bits")
        except (TypeError, ValueError) as error:
            raise click.BadParameter(str(error), param_hint="--bits") from None
    scheme = scheme or ("int-g128-gptq" if bits else None)
    if scheme is None:
        raise click.UsageError("Missing option '--scheme'.")
    try:
        how = compressed.Scheme.parse(scheme)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--scheme") from None
    if (bits is None) != bool(how.bits):
        what = (
            f"has its width, --bits wants one without: int{scheme[4:]}"
            if bits
            else "has no width: give --bits and --budget"
        )
        raise click.UsageError(f"--scheme {scheme} {what}")
    try:
        asked = Schemes.of(how, schemes)
    except ValueError as error:
        raise click.BadParameter(str(error).removeprefix("schemes: "), param_hint="--scheme-for") from None
    name = asked.name
    if rotate and not asked.solver:
        raise click.UsageError(f"--rotate goes with --calibration, and --scheme {name} takes none")
    if smooth is not None and (asked.solver in ("", "awq") or not how.bits):
        raise click.UsageError(f"--smooth goes with a width and -gptq or -adaround, not with --scheme {name}")
    if bool(asked.solver) != (calibration is not None):
        what = (
            "needs --calibration TEXTS"
            if asked.solver
            else "takes no --calibration: schemes that end in -gptq, -awq or -adaround do"
        )
        raise click.UsageError(f"--scheme {name} {what}")
    one_of_output(output, dry_run)
    if resume and (dry_run or asked.solver):
        what = "--dry-run" if dry_run else f"--scheme {name}: calibration begins anew"
        raise click.UsageError(f"--resume does not go with {what}")
    texts = None if calibration is None else read_texts(calibration)
    with Model(source) as model:
        if model.folder and output and Path(output).exists() and model.folder.samefile(output):
            raise click.UsageError("a folder is quantized into another folder: OUT is IN")
    with counting("calibrating", texts) as count, progress("quantizing") as show:
        made = quantize_safetensors(
            source,
            output,
            scheme,
            schemes=schemes,
            include=include,
            exclude=exclude,
            embeddings=embeddings,
            convolutions=convolutions,
            experts=experts,
            fallback=fallback,
            method=method,
            calibration=texts,
            bits=bits,
            budget=budget,
            rotate=rotate,
            smooth=smooth,
            resume=resume,
            progress=show,
            calibrating=count,
        )
    told(made, how, source, dry_run)
