"""``tersor inspect``. The one rule: memory is bounded by a chunk, and the numbers are read once, or not at all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from tersor.cli._console import console, count, progress, several, shown, size
from tersor.cli._options import SOURCE


def _table(out: Any, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Three columns to the left, the others to the right, a line a row: as fast for a hundred thousand as it can be printed."""
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    for row in [headings, *rows]:
        cells = [c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        out.file.write(" ".join(cells).rstrip() + "\n")


@click.command()
@SOURCE
@click.option("--histogram/--no-histogram", default=True, help="Read the numbers too, not only the headers.")
def inspect(source: Path, histogram: bool) -> None:
    """List tensors, zeros and magnitudes of a checkpoint.

    IN is a safetensors file, a model folder, the index of a sharded one (*.safetensors.index.json), or a GGUF file. A model
    that is quantized says how.
    """
    from tersor.checkpoint import GGUF, Model, summary
    from tersor.checkpoint._quantized import blocks, described, evidence
    from tersor.checkpoint.gguf import is_gguf

    rows: list[tuple[str, ...]] = []
    total = summary.Magnitudes()
    tensors = numbers = nbytes = 0
    model: Any = GGUF(source) if is_gguf(source) else Model(source)
    with model:
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
        if isinstance(model, GGUF):
            files, (how, weights, stood) = "", blocks(model)
        else:
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
