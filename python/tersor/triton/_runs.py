"""Where the elements of segments lie, for a GPU. The rule: a list of places is in the order of memory, so that what is found of
a segment does not depend on how it was said; what is wrong is an error before anything is written.
"""

import math
from typing import Any, NamedTuple

import torch

from tersor._reference import there
from tersor._segments import ids, shape_of

#: the most pieces of a segment, and how many elements make one worth while
PIECES, PIECE = 64, 4096
#: the most elements of a step
TILE = 1024


class Runs(NamedTuple):
    """Segments as runs of a list of places: of segment s those from ``starts[s]`` to ``starts[s + 1]``."""

    #: the places, run after run; None where the array is [outer, count, inner] and segments lie along the middle
    order: Any
    starts: Any
    count: int
    inner: int
    #: into how many pieces each run is cut, and how many elements of one are taken at once
    pieces: int
    tile: int
    #: the segment of each element, -1 of none; None where there is no order
    own: Any


def runs(x: Any, labels: Any, kept: int, groups: int) -> Runs:
    """The runs of `x` by the axes that are kept and by labels."""
    count, n = math.prod(shape_of(x, kept, groups)), x.numel()
    inner = _inner(kept, x.shape)
    if there(labels) or inner is None:
        if there(labels):
            _inside(labels, -groups)
        own = ids(x, labels, kept, groups)[0].reshape(-1)
        found, order = torch.sort(own, stable=True)
        starts = torch.searchsorted(found, torch.arange(count + 1, device=x.device))
    else:
        own = order = None
        starts = torch.arange(count + 1, device=x.device) * (n // max(count, 1))
    each = n // max(count, 1)
    pieces = min(max(each // PIECE, 1), PIECES)
    tile = min(max(1 << (each // pieces - 1).bit_length(), 16), TILE)
    return Runs(order, starts, count, inner or 1, pieces, tile, own)


def _inner(kept: int, shape: Any) -> int | None:
    """How many elements of a segment follow one another, if the axes that are kept do; None if they do not."""
    axes = [i for i, n in enumerate(shape) if kept >> i & 1 and n != 1]
    if not axes:
        return math.prod(shape)
    between = range(axes[0], axes[-1] + 1)
    if any(not kept >> i & 1 and shape[i] != 1 for i in between):
        return None
    return math.prod(shape[axes[-1] + 1 :])


def _first(wrong: Any) -> int | None:
    flat = wrong.reshape(-1)
    return int(flat.int().argmax()) if bool(flat.any()) else None


def _inside(labels: Any, most: int) -> None:
    at = _first((labels < -1) | (labels >= most))
    if at is not None:
        raise ValueError(f"labels[{at}] is {int(labels.reshape(-1)[at])}, it must lie in [-1, {most})")


def weights(x: Any, weight: Any, name: str) -> Any:
    """A weight for each element of `x`, None where there are none."""
    if not there(weight):
        return None
    at = _first(~((weight >= 0) & (weight < math.inf)))
    if at is not None:
        told = f"{weight.reshape(-1)[at].item():g}".replace("nan", "NaN")
        raise ValueError(f"{name}[{at}] is {told}, weights must be finite and not negative")
    return weight.expand(x.shape).contiguous()
