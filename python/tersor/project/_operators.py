"""The operators of a random projection: applied, transposed, to sparse rows, written out. The one rule: a matrix is its numbers
(kind, seed, stream, window), and no operator keeps more of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._op import OPS, op
from tersor._sample import Draw
from tersor.project._forms import KINDS, TRANSFORMS, bits, matrix
from tersor.random import TAGS

Array = Any


#: kinds of which samples of each operator are drawn
_ENTRIES = tuple(k for k in KINDS if k not in TRANSFORMS)


def _draw(draw: Draw, d: int, kinds: tuple[str, ...], *, adjoint: bool = False) -> dict[str, Any]:
    """The scalars of a matrix that takes rows of d numbers."""
    other, kind = 1 + int(draw.rng.integers(0, 40)), kinds[draw.seed % len(kinds)]
    rows, cols = (d, other) if adjoint else (other, d)
    row, col = draw.seed % 130, draw.seed % 3 * (2**32 - 7)
    own, size = 1, 1.0
    if kind == "sparse":
        own = int(2**31 / (1 + draw.seed % 7) + 0.5)
        size = 2**31 / own
    elif kind == "countsketch":
        own = 1 << 32 | max(row + rows, 1)
    elif kind == "osnap":
        own = 3 << 32 | max(-(-(row + rows) // 3), 1)
    elif kind in TRANSFORMS:
        row, col = draw.seed % 5, draw.seed % 3
        inner = bits(col + cols)
        m = max(inner, bits(row + rows))
        own = {
            "srht": m,
            "spinner": inner | (1 + draw.seed % 2 * 2) << 8,
            "fastfood": m | inner << 8 | draw.seed % 2 << 16,
        }[kind]
    return {
        "kind": TAGS[kind],
        "seed": draw.seed - 2**31,
        "stream": draw.seed % 5,
        "param": own,
        "row": row,
        "rows": rows,
        "col": col,
        "cols": cols,
        "scale": math.sqrt(size / rows),
    }


def _sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    adjoint = draw.seed % 2 == 1
    scalars = _draw(draw, draw.d, _ENTRIES, adjoint=adjoint)
    return [draw.normal(*draw.lead, draw.d)], {**scalars, "adjoint": adjoint}


def _sample_transform(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    adjoint = draw.seed % 4 > 1
    scalars = _draw(draw, draw.d, TRANSFORMS, adjoint=adjoint)
    return [draw.normal(*draw.lead, draw.d)], {**scalars, "adjoint": adjoint}


def _sample_transform_bwd(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    adjoint = draw.seed % 4 > 1
    scalars = _draw(draw, draw.d, TRANSFORMS, adjoint=not adjoint)
    return [draw.normal(*draw.lead, draw.d)], {**scalars, "adjoint": adjoint}


def _sample_bwd(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    adjoint = draw.seed % 2 == 1
    scalars = _draw(draw, draw.d, _ENTRIES, adjoint=not adjoint)
    return [draw.normal(*draw.lead, draw.d)], {**scalars, "adjoint": adjoint}


# sums of up to 130 terms of either sign, judged against the largest result or input
_TOLERANCE = {"float64": 64, "float32": 4, "float16": 2, "bfloat16": 2}


@op(sample=_sample, tolerance=_TOLERANCE, triton_tolerance=128)
def _project(x, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """Rows of x times the transpose of the matrix (the adjoint: times the matrix)."""
    p = matrix(kind, seed, stream, param, row, rows, col, cols)
    return x @ (p if adjoint else p.T) * scale


@op(sample=_sample_bwd, tolerance=_TOLERANCE, triton_tolerance=128)
def _project_bwd(g, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """The gradient of `project` is its adjoint."""
    p = matrix(kind, seed, stream, param, row, rows, col, cols)
    return g @ (p.T if adjoint else p) * scale


@op(sample=_sample, tolerance=_TOLERANCE, triton_tolerance=128)
def _project_bwd_bwd(gg, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """The gradient of the adjoint is the projection."""
    p = matrix(kind, seed, stream, param, row, rows, col, cols)
    return gg @ (p if adjoint else p.T) * scale


# two or three transforms of up to 256 numbers in the type itself
_TURNED = {"float64": 64, "float32": 64, "float16": 2, "bfloat16": 2}


@op(sample=_sample_transform, tolerance=_TURNED, triton_tolerance=128)
def _project_transform(x, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """`project` of the kinds that are made of Walsh–Hadamard transforms."""
    p = matrix(kind, seed, stream, param, row, rows, col, cols)
    return x @ (p if adjoint else p.T) * scale


@op(sample=_sample_transform_bwd, tolerance=_TURNED, triton_tolerance=128)
def _project_transform_bwd(g, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """The gradient of `project_transform` is its adjoint."""
    p = matrix(kind, seed, stream, param, row, rows, col, cols)
    return g @ (p.T if adjoint else p) * scale


@op(sample=_sample_transform, tolerance=_TURNED, triton_tolerance=128)
def _project_transform_bwd_bwd(gg, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """The gradient of the adjoint is the transform."""
    p = matrix(kind, seed, stream, param, row, rows, col, cols)
    return gg @ (p if adjoint else p.T) * scale


def _sample_csr(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    _, scalars = _sample(draw)
    counts = draw.rng.integers(0, 5, math.prod(draw.lead))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    indices = draw.rng.integers(0, draw.d, int(indptr[-1])).astype(np.int32)
    return [draw.normal(len(indices)), indices, indptr], scalars


@op(sample=_sample_csr, tolerance=_TOLERANCE)
def _project_csr(data, indices, indptr, kind, seed, stream, param, row, rows, col, cols, scale, adjoint=False):
    """`project` of sparse rows: columns that come twice are added up."""
    x = np.zeros((len(indptr) - 1, rows if adjoint else cols))
    at = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr).astype(np.int64))
    np.add.at(x, (at, np.asarray(indices, np.int64)), data)
    return OPS["project.project"].reference(x, kind, seed, stream, param, row, rows, col, cols, scale, adjoint)


def _sample_matrix(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    return [draw.cast(np.empty(0))], _draw(draw, draw.d, (*_ENTRIES, "srht"))


@op(sample=_sample_matrix, tolerance={"float64": 1, "float32": 1, "float16": 1, "bfloat16": 1})
def _materialise(like, kind, seed, stream, param, row, rows, col, cols, scale):
    """The matrix written out, in the dtype of `like`."""
    return matrix(kind, seed, stream, param, row, rows, col, cols) * scale
