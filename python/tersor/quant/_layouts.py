"""Where layouts of packed codes put each of them. The one rule: a layout is a permutation of codes before the dense kernel, and
of the bits of its words after it, so that one kernel packs all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tersor._arrays import dtype_name
from tersor.quant.qparams import torch_module

Array = Any
#: rows of a block of `aten_int4`, the two halves of which share bytes; a last block of fewer shares them by neighbours
_BLOCK = 64


@dataclass(frozen=True)
class Layout:
    """How the codes along an axis fill bytes, or words of 32 bits."""

    words: bool = False
    bits: Collection[int] = range(1, 9)
    #: the axis that is packed where none is named
    axis: int = -1
    #: whether a matrix is [in, out]
    turned: bool = False
    #: of how many codes the axis is a multiple
    multiple: int = 1
    #: whether a word holds whole codes only: its highest bits may be empty
    whole: bool = False
    #: whether the codes of a word are as far apart as there are words, and the first is the highest
    apart: bool = False
    falling: bool = False
    #: exchanges within a word: the bits of a mask with those so many places higher
    swaps: tuple[tuple[int, int], ...] = ()
    #: what zero points are stored less
    less: int = 0
    #: whether matrices are packed whole, in blocks of rows
    blocks: bool = False

    @property
    def dtype(self) -> str:
        return "int32" if self.words else "uint8"

    @property
    def width(self) -> int:
        """Bits of a word."""
        return 32 if self.words else 8


LAYOUTS = {
    "dense": Layout(),
    "ct_dense": Layout(words=True),
    "ct_padded": Layout(words=True, whole=True),
    "gptq_v1": Layout(words=True, bits=(2, 3, 4, 8), axis=-2, turned=True, less=1),
    "gptq_v2": Layout(words=True, bits=(2, 3, 4, 8), axis=-2, turned=True),
    "awq": Layout(words=True, bits=(4,), turned=True, multiple=8, swaps=((0x00F000F0, 4), (0x0000FF00, 8))),
    "bnb": Layout(bits=(4,), multiple=2, swaps=((0x0F, 4),)),
    "hqq": Layout(bits=(1, 2, 3, 4, 8), axis=0, whole=True, apart=True, falling=True),
    "quanto": Layout(bits=(2, 4), axis=0, whole=True, apart=True),
    "aten_int4": Layout(bits=(4,), multiple=2, blocks=True),
}


def find(who: str, name: str, bits: int, known: Layout) -> Layout:
    """A layout as it is with codes of so many bits."""
    if bits not in known.bits:
        these = ", ".join(map(str, known.bits))
        raise ValueError(f'{who}: layout "{name}" holds codes of {these} bits, got bits = {bits}')
    # HQQ keeps ten codes of 3 bits in a word of 32
    return replace(known, words=True) if name == "hqq" and bits == 3 else known


def moved(x: Array, axis: int, to: int) -> Array:
    return np.moveaxis(x, axis, to) if isinstance(x, np.ndarray) else x.movedim(axis, to)


def to_words(q: Array, bits: int, axis: int, how: Layout) -> Array:
    """Codes as [..., n], those of each word, filled up with the lowest code; the words lie along the first axis where codes are
    apart, else along the last but one."""
    n, k = how.width // bits, q.shape[axis]
    words = -(-k // n)
    q = _filled(q, axis, words * n - k, -(1 << bits - 1) if dtype_name(q.dtype) == "int8" else 0)
    if not how.apart:
        q = moved(q, axis, -1)
        return q.reshape(*q.shape[:-1], words, n)
    q = moved(q, axis, 0)
    return _turned(moved(q.reshape(n, words, *q.shape[1:]), 0, -1), how)


def of_words(q: Array, k: int, axis: int, how: Layout) -> Array:
    """The inverse of `to_words`, of an axis of k codes."""
    if not how.apart:
        return moved(q.reshape(*q.shape[:-2], q.shape[-2] * q.shape[-1])[..., :k], -1, axis)
    q = moved(_turned(q, how), -1, 0)
    return moved(q.reshape(q.shape[0] * q.shape[1], *q.shape[2:])[:k], 0, axis)


def _turned(q: Array, how: Layout) -> Array:
    if not how.falling:
        return q
    return q[..., ::-1] if isinstance(q, np.ndarray) else q.flip(-1)


def _filled(q: Array, axis: int, n: int, code: int) -> Array:
    if not n:
        return q
    if isinstance(q, np.ndarray):
        return np.pad(q, [(0, n if i == axis % q.ndim else 0) for i in range(q.ndim)], constant_values=code)
    return torch_module().nn.functional.pad(q, (0, 0) * (-axis - 1) + (0, n), value=code)


def to_blocks(q: Array) -> Array:
    """Codes of a matrix [N, K] in the order of `aten_int4`, in a row."""
    (n, k), xp = q.shape, np if isinstance(q, np.ndarray) else torch_module()
    whole = n - n % _BLOCK
    blocks = q[:whole].reshape(whole // _BLOCK, 2, _BLOCK // 2, k).swapaxes(1, 3)
    return xp.concatenate([blocks.reshape(whole * k), q[whole:].swapaxes(0, 1).reshape((n - whole) * k)])


def of_blocks(q: Array, n: int, k: int) -> Array:
    """The inverse of `to_blocks`."""
    xp: Any = np if isinstance(q, np.ndarray) else torch_module()
    whole = n - n % _BLOCK
    blocks = q[: whole * k].reshape(whole // _BLOCK, k, _BLOCK // 2, 2).swapaxes(1, 3)
    return xp.concatenate([blocks.reshape(whole, k), q[whole * k :].reshape(k, n - whole).swapaxes(0, 1)])


def exchanged(w: Array, how: Layout, back: bool = False) -> Array:
    """Words with their bits in the order of the layout, or in that of their codes again."""
    for mask, places in how.swaps[::-1] if back else how.swaps:
        moved = (w ^ w >> places) & mask
        w = w ^ moved ^ moved << places
    return w
