"""Norms of lists. The one rule: an array that stands twice in a group is one array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import Array, Arrays, in_trace, integer, is_tensor, sizes
from tersor._lists import entries
from tersor._values import called
from tersor.foreach._operators import _norms


def ids_of(who: str, n: int, groups: Any) -> tuple[list[int], int]:
    """The group of each of n entries, and how many groups there are."""
    if isinstance(groups, str):
        if groups not in ("each", "all"):
            raise ValueError(f"{who}: groups must be 'each', 'all' or a list of ids, got {groups!r}")
        return (list(range(n)), n) if groups == "each" else ([0] * n, 1)
    ids = groups.tolist() if hasattr(groups, "tolist") else groups
    if not isinstance(ids, (list, tuple)) or not all(map(integer, ids)):
        raise TypeError(f"{who}: groups must be 'each', 'all' or a list of integers, got {type(groups).__name__}")
    if len(ids) != n:
        raise ValueError(f"{who}: groups has {len(ids)} ids, xs {n} entries")
    ids = [int(i) for i in ids]
    for i, own in enumerate(ids):
        if own < 0:
            raise ValueError(f"{who}: groups[{i}] must not be negative, got {own}")
        if own >= 1 << 62:
            raise ValueError(f"{who}: groups[{i}] must be less than 2^62, got {own}")
    return ids, max(ids, default=-1) + 1


def once(xs: Sequence[Any], ids: Sequence[int]) -> list[int]:
    """The places of the entries that do not stand in their group before."""
    if in_trace():  # which knows no addresses
        return [
            i for i, x in enumerate(xs) if not any(x is y and a == ids[i] for y, a in zip(xs[:i], ids, strict=False))
        ]
    found: dict[tuple[int, int], int] = {}
    for i, (x, own) in enumerate(zip(xs, ids, strict=True)):
        found.setdefault((id(x), own), i)
    return list(found.values())


def norms(xs: Arrays, ord: float = 2, *, groups: Any = "each", samples: bool = False) -> Array:
    r"""The norms of the arrays of a list, each by itself or several together, in one walk.

    .. math:: n_\gamma = \Big(\sum_{i \in \gamma} \sum |x_i|^p\Big)^{1/p}, \qquad p \in \{1, 2, \infty\}

    Parameters
    ----------
    xs : list of n arrays or tensors of any shapes, float64, float32, float16 or bfloat16, also mixed
    ord : 1, 2 or infinity
    groups : "each", "all" or n integers
        Which arrays belong together: every one by itself, all, or those of the same id 0, 1, …; an id that is not there
        has the norm 0.
    samples : bool
        Whether the arrays have a first axis of one length B in common, along which norms are apart: those of the gradients
        of B examples, say.

    Returns
    -------
    float64 array or tensor [G], or [G, B]
        Of a list of no entries an array of NumPy.

    Raises
    ------
    TypeError
        If xs is no list, an entry is no float array, libraries are mixed, or groups are no integers.
    ValueError
        If ord is another number, there are not as many ids as arrays, one is negative, devices differ, or, with samples, first
        axes do.
    NotImplementedError
        If a gradient is recorded and ord is not 2; ``torch.no_grad()`` and ``detach()`` say that none is wanted.

    Notes
    -----
    Sums are made in twice the precision of float64, so that the error is at most 2 units in the last place however long the
    lists are; no square overflows or vanishes: where the sum of a group leaves the middle of float64, its arrays are read a
    second time and scaled by a power of two. NaN gives NaN, else an infinity gives infinity. A tensor that stands twice in a
    group counts once. One pass over the arrays, in blocks of 32 Ki elements of one array, small arrays carried out together:
    the same bits for any number of threads and whatever else is in the list. The gradient :math:`g\,x/n` is 0 where n is 0.
    On a GPU torch's own operations do it, array by array, in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import foreach
    >>> xs = [np.array([3.0, 4.0]), np.array([[12.0]], np.float32)]
    >>> foreach.norms(xs)
    array([ 5., 12.])
    >>> foreach.norms(xs, groups="all")
    array([13.])
    >>> foreach.norms(xs, np.inf, groups=[1, 1])
    array([ 0., 12.])
    """
    xs = entries("norms", "xs", xs)
    order = float(ord)
    if order != 1 and order != 2 and order != math.inf:
        raise ValueError(f"norms: ord must be 1, 2 or inf, got {ord}")
    ids, count = ids_of("norms", len(xs), groups)
    batch = 1
    if samples:
        for i, x in enumerate(xs):
            if not x.ndim:
                raise ValueError(f"norms: xs[{i}] must have a first axis, of samples, got shape ()")
            if x.shape[0] != xs[0].shape[0]:
                its, first = sizes(x.shape), sizes(xs[0].shape)
                raise ValueError(f"norms: xs[{i}] must have the samples of xs[0], of shape {first}, got shape {its}")
        batch = xs[0].shape[0] if xs else 0
    if not isinstance(groups, str) or groups == "all":
        kept = once(xs, ids)
        xs, ids = type(xs)(xs[i] for i in kept), [ids[i] for i in kept]
    if order != 2 and any(is_tensor(x) and x.requires_grad for x in xs):
        import torch

        if torch.is_grad_enabled():
            raise NotImplementedError(f"norms: not differentiable with ord={ord}; detach() the tensors")
    if xs and is_tensor(xs[0]):
        import torch

        own: Any = torch.tensor(ids, dtype=torch.int64, device=xs[0].device)
    else:
        own = np.array(ids, np.int64)
    found = called("norms", _norms, xs, own, count, batch, bool(samples), order)
    return found if samples else found.reshape(count)
