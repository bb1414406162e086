"""Masks whose weights change places while their number stays. The one rule: what is dropped and what grows are exact
selections, so that every process and every device that has the same numbers makes the same mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Kept, is_tensor
from tersor._values import check_dense, seeded
from tersor.prune.masks import global_masks
from tersor.random import TAGS, philox4x32

Array = Any

#: the stream of the words that say what grows; rounding has the first with the same tag
_STREAM = 1


def _count(who: str, w: Array, mask: Array, fraction: float, **arrays: Array) -> int:
    """How many weights change places."""
    for name, x in {"w": w, "mask": mask, **arrays}.items():
        if is_tensor(x):
            check_dense(who, name, x)
        if tuple(x.shape) != tuple(w.shape):
            raise ValueError(f"{who}: {name} must have the shape of w, {tuple(w.shape)}, got {tuple(x.shape)}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"{who}: fraction must be between 0 and 1, got {fraction}")
    return int(float(fraction) * int(mask.sum()))


def _largest(who: str, name: str, x: Array, among: Array, n: int) -> Array:
    """The mask of the n largest magnitudes of x where `among` is true, of equals those of the lowest index."""
    some = (x.detach() if is_tensor(x) else x)[among]
    try:
        (kept,) = global_masks([some], k=len(some) - n)
    except ValueError:
        raise ValueError(f"{who}: {name} has non-finite values among those that are ranked") from None
    made = among.clone() if is_tensor(among) else np.array(among)
    made[among] = kept
    return made


def _both(a: Array, b: Array) -> Array:
    """Either mask; of no axes, NumPy would make a number of them."""
    return a | b if is_tensor(a) else np.asarray(a | b)


def rigl_update(w: Array, grad: Array, mask: Kept, fraction: float, *, regrow: bool = True) -> Array:
    r"""RigL: the smallest weights are dropped, and as many grow where the gradient is largest.

    .. math::
        n = \lfloor \zeta\, |M| \rfloor, \quad K = M \setminus \operatorname{least}_n(|w|, M), \quad
        M' = K \cup \operatorname{most}_n(|g|, \bar K)

    Parameters
    ----------
    w : array or tensor, float64, float32, float16 or bfloat16
    grad : array or tensor of the same shape and type
        The dense gradient g, of weights that are pruned too.
    mask : bool array or tensor of the same shape, or its bits (`pack_mask`)
        M, True where a weight is kept.
    fraction : float between 0 and 1
        The share :math:`\zeta` of the weights kept that change places.
    regrow : bool
        Whether what is dropped may grow again at once, as in RigL. Without, weights grow where none was, which is the
        step of FedTiny (no more than there is room for).

    Returns
    -------
    bool array or tensor
        :math:`M'`, with as many weights as M.

    Raises
    ------
    TypeError
        If w or grad are not float arrays of one library and type, mask not bool, or a tensor is a DTensor.
    ValueError
        If shapes differ, fraction is out of range, or what is ranked is not finite.

    See Also
    --------
    set_update, tersor.nn.DynamicSparse

    Notes
    -----
    Of equals the lowest index is kept, and grows. What is dropped and grows again keeps its value and its momentum; those of
    ``made & ~mask`` start at 0. What is left out of a ranking may hold anything. O(n) in time, copies of the weights kept and
    of the gradients of the others. Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery" (2020); Huang et al.,
    "Distributed Pruning Towards Tiny Neural Networks in Federated Learning" (2022).
    """
    n = _count("rigl_update", w, mask, fraction, grad=grad)
    if not regrow:
        n = min(n, int((~mask).sum()))
    return swapped("rigl_update", w, mask, grad, n, regrow)


def swapped(who: str, w: Array, mask: Array, grad: Array, n: int, regrow: bool = False) -> Array:
    """The mask without its n smallest weights and with the n largest gradients of what is pruned then, or was before."""
    kept = _largest(who, "w", w, mask, int(mask.sum()) - n)
    return _both(kept, _largest(who, "grad", grad, ~kept if regrow else ~mask, n))


def set_update(w: Array, mask: Kept, fraction: float, *, seed: int) -> Array:
    r"""SET: the smallest weights are dropped, and as many grow anywhere.

    Parameters
    ----------
    w : array or tensor, float64, float32, float16 or bfloat16
    mask : bool array or tensor of the same shape, or its bits (`pack_mask`)
        True where a weight is kept.
    fraction : float between 0 and 1
        The share of the weights kept that change places.
    seed : int in [0, 2^64)
        Where they grow is a function of it and of the places that are free: another one each time, and for each array.

    Returns
    -------
    bool array or tensor
        With as many weights as mask.

    Raises
    ------
    TypeError
        If w is not a float array, mask not bool, seed not an integer, or a tensor is a DTensor.
    ValueError
        If shapes differ, fraction or seed is out of range, or weights that are kept are not finite.

    See Also
    --------
    rigl_update, tersor.nn.DynamicSparse

    Notes
    -----
    A weight grows where its word of Philox is among the largest, of equals at the lowest index; what was just dropped may grow
    again. Weights are dropped by magnitude; the paper drops the same share of the positive and of the negative ones. Words
    are drawn in memory, 16 bytes for each element. Mocanu et al., "Scalable training of artificial neural networks with
    adaptive sparse connectivity inspired by network science" (2018).
    """
    n, seed = _count("set_update", w, mask, fraction), seeded("set_update", seed)
    kept = _largest("set_update", "w", w, mask, int(mask.sum()) - n)
    free = np.asarray(~kept.cpu().numpy() if is_tensor(kept) else ~kept)
    drawn = _words(seed, free.size).astype(np.float64).reshape(free.shape)
    grown = _largest("set_update", "words", drawn, free, n)
    if is_tensor(kept):
        import torch

        grown = torch.from_numpy(grown).to(kept.device)
    return _both(kept, grown)


def _words(seed: int, n: int) -> np.ndarray:
    """The words of n elements, as `tersor.random` numbers them."""
    four = np.arange((n + 3) // 4, dtype=np.uint64)
    counter = np.zeros((len(four), 4), np.uint32)
    counter[:, 0], counter[:, 1] = four & np.uint64(0xFFFFFFFF), four >> np.uint64(32)
    counter[:, 3] = TAGS["growth"] + 256 * _STREAM
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
    return np.asarray(philox4x32(counter, key)).reshape(-1)[:n]
