r"""Philox4x32-10, the counter-based generator behind every random operator of this library.

A random value here is a function of a seed, a tag (which operator), a stream and a position, so that nothing random is
stored, and threads, chunks and devices see the same bits:

.. math::

   \operatorname{word}(\text{tag}, \text{stream}; a, b) = \operatorname{Philox}(\text{key} = \text{seed};\;
   \text{counter} = \lfloor b/4 \rfloor,\, a_{lo},\, a_{hi},\, \text{tag} + 256\,\text{stream})_{b \bmod 4}

=============  ===  =========================================================================
operator       tag  a
=============  ===  =========================================================================
gaussian       1    column
rademacher     2    column; bit b is bit b mod 32 of word b // 32, a sign is 1 - 2 bit
sparse         3    column
countsketch    4    column
osnap          4    column
srht           5    0: signs, 1: permutation
spinner        6    3 block + turn
fastfood       7    0: B, 1: permutation, 2: G
hash           17   value as 64 bits; the stream is the feature
rounding       32   element ``// 2**34``; b is the element mod ``2**34``
growth         32   as rounding, of stream 1 (rounding has stream 0)
=============  ===  =========================================================================

The first eight are the kinds of `tersor.project.Projection`, then come the rows of `tersor.embed.hash_ids`, stochastic rounding
in `tersor.quant`, and what grows in `tersor.prune.set_update`. `tersor.foreach.ema` rounds too: a is the place in the list, b
the element, the stream the step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Words
from tersor._op import OPS, op
from tersor._reference import quiet, xp
from tersor._sample import Draw

__all__ = ["TAGS", "philox4x32"]

Array = Any

#: which operator draws: the low byte of the last counter word
TAGS = {
    "gaussian": 1,
    "rademacher": 2,
    "sparse": 3,
    "countsketch": 4,
    "osnap": 4,
    "srht": 5,
    "spinner": 6,
    "fastfood": 7,
    "hash": 17,
    "rounding": 32,
    "growth": 32,
}

_WORD = 0xFFFFFFFF
_LOW = np.uint64(_WORD)
_HALF = np.uint64(32)


def _sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    counter = draw.rng.integers(0, 2**32, (*draw.lead, 4), np.uint32)
    return [counter, draw.rng.integers(0, 2**32, 2, np.uint32)], {}


@op(sample=_sample, dtypes=("uint32",), native=True, integer=True)
def philox4x32(counter: Words, key: Words) -> Array:
    r"""The four words of Philox4x32-10 for each counter.

    Ten rounds of :math:`(c_0, c_1, c_2, c_3) \leftarrow (hi(M_1 c_2) \oplus c_1 \oplus k_0,\; lo(M_1 c_2),\;
    hi(M_0 c_0) \oplus c_3 \oplus k_1,\; lo(M_0 c_0))`.

    Parameters
    ----------
    counter : array or tensor [..., 4], uint32
    key : array or tensor [2], uint32
        The low and the high word of the seed.

    Returns
    -------
    array or tensor [..., 4], uint32

    Raises
    ------
    TypeError
        If an argument is not uint32.
    ValueError
        If counter does not end in an axis of 4, or key is not of shape [2].

    Notes
    -----
    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The same words as Random123's
    ``philox4x32`` and Triton's ``tl.philox`` with 32-bit counter words.
    """
    # products of 32-bit words lose nothing but their sign, which the mask takes away
    c, k = (x.astype(np.int64) if isinstance(x, np.ndarray) else x.long() for x in (counter, key))
    (c0, c1, c2, c3), (k0, k1) = (c[..., i] for i in range(4)), (k[i] for i in range(2))
    with quiet(counter):
        for _ in range(10):
            p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
            c0, c1, c2, c3 = (p1 >> 32 & _WORD) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32 & _WORD) ^ c3 ^ k1, p0 & _WORD
            k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
    four = xp.stack([c0, c1, c2, c3], -1)
    return four.astype(np.uint32) if isinstance(four, np.ndarray) else four.to(counter.dtype)


def words(seed: int, tag: int, stream: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The reference of `word` for arrays of positions, in NumPy alone."""
    a, b = np.broadcast_arrays(np.asarray(a, np.uint64), np.asarray(b, np.uint64))
    last = np.full(a.shape, tag + 256 * stream, np.uint64)
    counter = np.stack([b >> np.uint64(2), a & _LOW, a >> _HALF, last], -1).astype(np.uint32)
    key = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)
    four = OPS["random.philox4x32"].reference(counter, key)
    return np.take_along_axis(four, (b & np.uint64(3)).astype(np.intp)[..., None], -1)[..., 0]


def draws(seed: int, tag: int, stream: int, a: np.ndarray, width: int) -> np.ndarray:
    """The words b = 0, …, width - 1 of each position a, as [len(a), width]: what kernels draw, of any keys."""
    quads = -(-width // 4)
    counter = np.empty((len(a), quads, 4), np.uint32)
    counter[..., 0] = np.arange(quads, dtype=np.uint32)
    counter[..., 1], counter[..., 2] = (a & _LOW)[:, None], (a >> _HALF)[:, None]
    counter[..., 3] = tag + 256 * stream
    key = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)
    return philox4x32(counter, key).reshape(len(a), 4 * quads)[:, :width]
