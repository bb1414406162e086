"""The operators of a selection. The one rule: they count and mark keys, and decide nothing by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._keys import FORMATS, INF, WIDTH
from tersor._op import op
from tersor._sample import Draw
from tersor._values import signed_word

Array = Any


def _keys(x: Array, format: int, signed: bool = False, nan: int = 0) -> np.ndarray:
    """Floats as unsigned numbers in the same order."""
    width, name = WIDTH[format], FORMATS[format]
    with np.errstate(all="ignore"):
        if name == "bfloat16":
            bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64) >> np.uint64(16)
        else:
            bits = np.asarray(x, name).view(f"u{width // 8}").astype(np.uint64)
    top, ones = np.uint64(1 << (width - 1)), np.uint64((1 << width) - 1)
    magnitude = (bits << np.uint64(1)) & ones
    keys = np.where(bits > top, bits ^ ones, bits | top) if signed else magnitude
    if nan:
        keys = np.where(magnitude > np.uint64(INF[format] << 1), ones if nan == 1 else np.uint64(0), keys)
    return keys


def _format(draw: Draw) -> int:
    return FORMATS.index(draw.dtype)


def _count_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x, f = draw.normal(*draw.lead, draw.d), _format(draw)
    bits = int(draw.rng.integers(1, min(16, WIDTH[f]) + 1))
    shift = int(draw.rng.integers(0, WIDTH[f] - bits + 1))
    signed = bool(draw.rng.integers(2))
    prefixes = np.zeros(1, np.int64)
    if shift + bits < WIDTH[f]:
        found = _keys(np.asarray(x, np.float64), f, signed) >> np.uint64(shift + bits)
        prefixes = np.unique(found)[: int(draw.rng.integers(1, 5))].view(np.int64)
    start = draw.rng.integers(0, 5, len(prefixes) << bits)
    return [x, prefixes, start], {"format": f, "shift": shift, "bits": bits, "signed": signed, "nan": 0}


@op(sample=_count_sample, integer=True)
def _magnitude_count(
    x: Array, prefixes: Array, start: Array, format: int, shift: int, bits: int, signed: bool = False, nan: int = 0
) -> Array:
    r"""A round of radix selection: ``counts[p << bits | d] = start[...] +`` how many keys begin with prefix p and digit d.

    A key is a float as an unsigned number in the same order; its digit are the ``bits`` bits above the lowest ``shift``, its
    prefix is what is above the digit. One read of x. ``counts`` may be ``start`` itself.
    """
    keys = _keys(x, format, signed, nan).reshape(-1)
    digits = (keys >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
    above = np.zeros_like(keys) if shift + bits == WIDTH[format] else keys >> np.uint64(shift + bits)
    counts = np.array(start)
    for i, prefix in enumerate(prefixes):
        here = digits[above == np.uint64(prefix)].astype(np.int64)
        counts[i << bits : (i + 1) << bits] += np.bincount(here, minlength=1 << bits)
    return counts


def _thresholds(draw: Draw, x: Array, n: int) -> np.ndarray:
    keys = np.unique(_keys(np.asarray(x, np.float64), _format(draw)))
    return draw.rng.permutation(keys)[:n].view(np.int64)


def _tally_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x = draw.normal(*draw.lead, draw.d)
    return [x, _thresholds(draw, x, 3)], {"format": _format(draw)}


@op(sample=_tally_sample, integer=True)
def _magnitude_tally(x: Array, thresholds: Array, format: int, signed: bool = False, nan: int = 0) -> Array:
    """How many keys of x lie above each threshold, and how many are equal to it: ``[thresholds, 2]``."""
    keys = _keys(x, format, signed, nan).reshape(-1)
    found = [(np.sum(keys > t), np.sum(keys == t)) for t in thresholds.view(np.uint64)]
    return np.array(found, np.int64).reshape(-1, 2)


def _mask_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x = draw.normal(*draw.lead, draw.d)
    if draw.rng.integers(2) and draw.dtype != "float64":  # ties
        x = draw.cast(np.round(np.asarray(x, np.float64)))
    threshold = int(_thresholds(draw, x, 1).sum())
    high, keep = bool(draw.rng.integers(2)), int(draw.rng.integers(0, 10))
    return [x], {"threshold": threshold, "keep": keep, "high": high, "format": _format(draw)}


@op(sample=_mask_sample, integer=True)
def _magnitude_mask(
    x: Array, threshold: int, keep: int, high: bool, format: int, signed: bool = False, nan: int = 0
) -> tuple[Array, Array]:
    """The mask of keys above a threshold and of the first ``keep`` equal to it (the last, if ``high``), and both counts."""
    keys = _keys(x, format, signed, nan).reshape(-1)
    word = np.uint64(threshold & (2**64 - 1))
    mask, equal = keys > word, np.flatnonzero(keys == word)
    tally = np.array([mask.sum(), len(equal)], np.int64)
    mask[equal[max(len(equal) - keep, 0) :] if high else equal[:keep]] = True
    return mask.reshape(np.shape(x)), tally


def _split_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    x = draw.normal(*draw.lead, draw.d)
    low, high = sorted([0, 0, *_thresholds(draw, x, 2).view(np.uint64).tolist()])[-2:]
    return [x], {
        "low": signed_word(low),
        "high": signed_word(high),
        "room": int(draw.rng.integers(0, 50)),
        "format": _format(draw),
    }


@op(sample=_split_sample, integer=True)
def _magnitude_split(x: Array, low: int, high: int, room: int, format: int) -> tuple[Array, Array, Array, Array]:
    """The mask of magnitudes above a window of keys, places and keys of those inside, and how many are below and inside.

    The last number found is 1 if x is not finite. The lists are filled up with -1, and hold nothing if there is no room.
    """
    keys = _keys(x, format).reshape(-1)
    lo, hi = np.array([low, high], np.int64).view(np.uint64)
    inside = np.flatnonzero((keys >= lo) & (keys <= hi))
    places, listed = np.full(room, -1), np.full(room, -1)
    if len(inside) <= room:
        places[: len(inside)], listed[: len(inside)] = inside, keys[inside].view(np.int64)
    wrong = np.any(keys >= np.uint64(INF[format] << 1))
    found = np.array([np.sum(keys < lo), len(inside), wrong], np.int64)
    return (keys > hi).reshape(np.shape(x)), places, listed, found


def _apply_sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    return [draw.normal(*draw.lead, draw.d), draw.rng.integers(0, 2, (*draw.lead, draw.d)) > 0], {}


@op(sample=_apply_sample)
def _apply_mask(x: Array, mask: Array) -> Array:
    """x where the mask is true, +0 elsewhere."""
    return np.where(mask, x, 0)


@op(sample=_apply_sample)
def _apply_mask_bwd(g: Array, mask: Array) -> Array:
    """Gradient of `apply_mask`: g where the mask is true, +0 elsewhere."""
    return np.where(mask, g, 0)
