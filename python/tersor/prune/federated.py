"""Masks that move by what clients send. The one rule: of weights that are pruned only the K largest gradients leave a client,
and the server's mask keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import Kept, dtype_name, is_tensor
from tersor._reference import wide, xp
from tersor._values import check_dense, check_values, readable
from tersor.prune.regrow import swapped
from tersor.prune.topk import topk_rows

Array = Any


def fedtiny_count(step: int, total: int, kept: int, *, rate: float = 0.15) -> int:
    r"""How many weights of a layer change places in a round: :math:`\lfloor \rho\,(1 + \cos(\pi t / T))\, n \rfloor`.

    Parameters
    ----------
    step, total : int
        t, from 0 to T, and T, 1 or more.
    kept : int
        n, the weights that the layer keeps.
    rate : float
        :math:`\rho`, from 0 to 0.5.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If a number is none, or no integer.
    ValueError
        If a number is out of range.

    Notes
    -----
    Huang et al., "Distributed Pruning Towards Tiny Neural Networks in Federated Learning" (2022).

    Examples
    --------
    >>> [fedtiny_count(t, 10, 100) for t in (0, 5, 10)]
    [30, 15, 0]
    """
    who = "fedtiny_count"
    if total < 1 or not 0 <= step <= total:
        raise ValueError(f"{who}: step must be from 0 to total, and that 1 or more, got {step} and {total}")
    if kept < 0:
        raise ValueError(f"{who}: kept must not be negative, got {kept}")
    if not 0 <= rate <= 0.5:
        raise ValueError(f"{who}: rate must be between 0 and 0.5, got {rate}")
    return math.floor(rate * (1 + math.cos(math.pi * step / total)) * kept)


def fedtiny_send(grad: Array, mask: Kept, k: int) -> tuple[Array, Array]:
    """What a client sends of a layer: the k largest gradients of the weights that are pruned.

    Parameters
    ----------
    grad : array or tensor, float64, float32, float16 or bfloat16
        Of all weights.
    mask : bool array or tensor of the same shape, or its bits (`pack_mask`)
        True where a weight is kept.
    k : int
        Not negative; no more are sent than are pruned.

    Returns
    -------
    values : array or tensor [n], of the type of grad
    indices : int64 array or tensor [n]
        Ascending places in the flat array; of equal magnitudes the lowest. n is k, or what is pruned.

    Raises
    ------
    TypeError
        If grad is not a float array or mask not bool, or a tensor is a DTensor.
    ValueError
        If shapes differ, k is negative, or what is ranked is not finite.

    Notes
    -----
    Radix selection of one copy of what is pruned; what is kept may hold anything.

    Examples
    --------
    >>> import numpy as np
    >>> fedtiny_send(np.array([9.0, 1.0, -3.0, 2.0]), np.array([True, False, False, False]), 2)
    (array([-3.,  2.]), array([2, 3]))
    """
    who = "fedtiny_send"
    readable(who, grad=grad, mask=mask)
    if tuple(mask.shape) != tuple(grad.shape):
        raise ValueError(f"{who}: mask must have the shape of grad, {tuple(grad.shape)}, got {tuple(mask.shape)}")
    if k < 0:
        raise ValueError(f"{who}: k must not be negative, got {k}")
    if is_tensor(grad):
        check_dense(who, "grad", grad)
        places = (~mask).reshape(-1).nonzero()[:, 0]
        values = grad.detach().reshape(-1)[places]
    else:
        places = np.flatnonzero(~mask)
        values = grad.reshape(-1)[places]
    try:
        values, found = topk_rows(values, min(k, len(places)), magnitude=True)
    except ValueError:
        raise ValueError(f"{who}: grad has non-finite values among those that are ranked") from None
    return values, places[found]


def fedtiny_update(
    w: Array, mask: Kept, sent: Sequence[tuple[Any, Any]], k: int, *, counts: Sequence[float] | None = None
) -> Array:
    r"""The server's mask of a layer: the k smallest weights go, the k largest means of what clients sent grow.

    .. math:: \bar g = \frac{\sum_c n_c\, g_c}{\sum_c n_c}, \qquad
              M' = M \setminus \operatorname{least}_k(|w|, M) \cup \operatorname{most}_k(|\bar g|, \bar M)

    where what a client did not send counts 0.

    Parameters
    ----------
    w : array or tensor, float64, float32, float16 or bfloat16
    mask : bool array or tensor of the same shape, or its bits (`pack_mask`)
        M.
    sent : list of pairs (values, indices)
        As of `fedtiny_send`, one for each client; their order has no say but in the last bits of the means.
    k : int
        Not negative; no more change places than there are weights, or sent ones that are not 0.
    counts : sequence of float, optional
        :math:`n_c`, the rows of each client; alike if absent.

    Returns
    -------
    bool array or tensor
        :math:`M'`, with as many weights as M. What grows was pruned, and starts at 0.

    Raises
    ------
    TypeError
        If w is not a float array or mask not bool, or an entry of sent no pair of arrays.
    ValueError
        If shapes differ, an index is out of range or of a weight that is kept, a number is out of range, or what is ranked
        is not finite.

    See Also
    --------
    rigl_update, fedtiny_count

    Notes
    -----
    Means in float64. O(n), and O(k) for each client. Huang et al. (2022).

    Examples
    --------
    >>> import numpy as np
    >>> w, mask = np.array([5.0, 1.0, 0.0, 0.0]), np.array([True, True, False, False])
    >>> fedtiny_update(w, mask, [(np.array([0.5]), np.array([3])), (np.array([0.2]), np.array([2]))], 1)
    array([ True, False, False,  True])
    """
    who = "fedtiny_update"
    readable(who, w=w, mask=mask)
    if tuple(mask.shape) != tuple(w.shape):
        raise ValueError(f"{who}: mask must have the shape of w, {tuple(w.shape)}, got {tuple(mask.shape)}")
    if k < 0:
        raise ValueError(f"{who}: k must not be negative, got {k}")
    pairs = list(sent)
    shares = [1.0] * len(pairs) if counts is None else [float(c) for c in counts]
    if len(shares) != len(pairs) or any(not 0 <= c < math.inf for c in shares) or (pairs and not sum(shares) > 0):
        raise ValueError(f"{who}: counts must be {len(pairs)} numbers, not negative and not all 0, got {counts}")
    flat = mask.reshape(-1)
    if is_tensor(w):
        import torch

        check_dense(who, "w", w)
        mean: Any = torch.zeros(w.numel(), dtype=torch.float64, device=w.device)
    else:
        mean = np.zeros(w.size)
    for i, pair in enumerate(pairs):
        values, indices = _pair(who, i, pair, flat)
        mean[indices] = mean[indices] + shares[i] / sum(shares) * wide(values)
    return swapped(who, w, mask, mean.reshape(w.shape), min(k, int((mean != 0).sum())))


def _pair(who: str, i: int, pair: Any, mask: Array) -> tuple[Array, Array]:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"{who}: sent[{i}] must be a pair (values, indices), got {type(pair).__name__}")
    values, indices = pair
    check_values(who, f"sent[{i}][0]", values)
    if is_tensor(values) != is_tensor(mask) or not hasattr(indices, "dtype") or dtype_name(indices.dtype) != "int64":
        raise TypeError(f"{who}: sent[{i}] must be a float and an int64 array of the library of w")
    if values.ndim != 1 or tuple(indices.shape) != tuple(values.shape):
        raise ValueError(
            f"{who}: sent[{i}] has values of shape {tuple(values.shape)}, indices of {tuple(indices.shape)}"
        )
    n = mask.shape[0]
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < n:
        raise ValueError(
            f"{who}: sent[{i}] has indices from {int(indices.min())} to {int(indices.max())}, w {n} weights"
        )
    if len(set(indices.tolist())) < len(indices):
        raise ValueError(f"{who}: sent[{i}] has an index twice")
    if not bool(xp.isfinite(values).all()):
        raise ValueError(f"{who}: sent[{i}] holds non-finite values")
    if bool(mask[indices].any()):
        raise ValueError(f"{who}: sent[{i}] has gradients of weights that are kept")
    return values, indices
