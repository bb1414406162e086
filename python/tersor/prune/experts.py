"""Experts of a mixture made fewer. The one rule: hidden units are put in one order before weights are added, so that what is
merged computes alike; what is kept of anything is an exact number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import Number, dtype_name, is_tensor
from tersor._reference import rounded, wide, xp
from tersor._values import check_values, readable
from tersor.prune.assign import assign
from tersor.prune.masks import global_masks

Array = Any


def _matrix(w: Array, axis: int) -> Array:
    """The weights of each hidden unit, in a row of float64."""
    w = wide(w.detach() if is_tensor(w) else w)
    w = w.movedim(axis, 0) if is_tensor(w) else np.moveaxis(w, axis, 0)
    return w.reshape(w.shape[0], -1)


def expert_align(reference: Sequence[Any], expert: Sequence[Any], *, axes: Sequence[int] | None = None) -> Array:
    r"""The order of an expert's hidden units in which they are most like those of another.

    .. math:: \pi = \arg\max_\pi \sum_i \sum_l \langle R^l_i, W^l_{\pi(i)} \rangle

    Parameters
    ----------
    reference, expert : lists of arrays or tensors of the same shapes
        The weights of two experts that have the hidden units along one axis: [hidden, in] and [out, hidden], with the gate and
        biases if there are any.
    axes : sequence of int, optional
        Along which axis of each; if absent 0 for all but the last array, and that one's last.

    Returns
    -------
    int64 array or tensor [hidden]
        ``w[order]`` of rows and ``w[:, order]`` of columns is the same expert.

    Raises
    ------
    TypeError
        If an entry is not a float array.
    ValueError
        If lists or shapes differ, or weights are not finite.

    See Also
    --------
    assign, expert_groups, expert_merge

    Notes
    -----
    One product [hidden, hidden] for each array, then `assign`. Li et al., "Merge, Then Compress: Demystify Efficient SMoE with
    Hints from Its Routing Policy" (2024).

    Examples
    --------
    >>> import numpy as np
    >>> w1, w2 = np.eye(3), np.diag([1.0, 2.0, 3.0])
    >>> expert_align([w1, w2], [w1[[2, 0, 1]], w2[:, [2, 0, 1]]])
    array([1, 2, 0])
    """
    who = "expert_align"
    one, other = list(reference), list(expert)
    if len(one) != len(other) or not one:
        raise ValueError(f"{who}: reference has {len(one)} arrays, expert {len(other)}")
    along = [0] * (len(one) - 1) + [-1] if axes is None else list(axes)
    if len(along) != len(one):
        raise ValueError(f"{who}: axes must be {len(one)} numbers, got {len(along)}")
    total: Any = 0.0
    for i, (r, w, axis) in enumerate(zip(one, other, along, strict=True)):
        for name, v in (("reference", r), ("expert", w)):
            check_values(who, f"{name}[{i}]", v)
            readable(who, **{f"{name}[{i}]": v})
        if tuple(r.shape) != tuple(w.shape):
            raise ValueError(f"{who}: reference[{i}] has shape {tuple(r.shape)}, expert[{i}] {tuple(w.shape)}")
        if not -r.ndim <= axis < r.ndim:
            raise ValueError(f"{who}: axes[{i}] must be an axis of an array of shape {tuple(r.shape)}, got {axis}")
        for name, v in (("reference", r), ("expert", w)):
            if is_tensor(v) != is_tensor(one[0]):
                like = "a torch tensor" if is_tensor(one[0]) else "a NumPy array"
                raise TypeError(f"{who}: {name}[{i}] must be {like} like reference[0], got {type(v).__name__}")
        a, b = _matrix(r, axis), _matrix(w, axis)
        if not isinstance(total, float) and total.shape[0] != a.shape[0]:
            raise ValueError(f"{who}: reference[{i}] has {a.shape[0]} hidden units, those before it {total.shape[0]}")
        total = total + a @ b.T
    try:
        return assign(total, maximize=True)
    except ValueError:
        raise ValueError(f"{who}: weights have non-finite values, or their products are") from None


def expert_groups(usage: Sequence[Any], logits: Sequence[Any], groups: int) -> list[Array]:
    r"""Which experts of each layer are to become one: all go with the most used ones that their router treats alike.

    Parameters
    ----------
    usage : list of arrays or tensors [E], one for each layer
        How often each expert was chosen, not negative; those of a layer are divided by the largest of them.
    logits : list of arrays or tensors [tokens, E]
        What the router gave each expert on the same tokens.
    groups : int
        How many experts are left of all layers together: the most used ones, at least one of each layer.

    Returns
    -------
    list of int64 arrays or tensors [E]
        The expert that each goes with, which goes with itself: the one whose column of logits has the largest cosine, of
        equals the lowest index.

    Raises
    ------
    TypeError
        If an entry is not a float array.
    ValueError
        If lists or shapes differ, a usage is negative or not finite, or groups are fewer than layers or more than experts.

    See Also
    --------
    expert_align, expert_merge

    Notes
    -----
    The published count keeps fewer where uses are equal at the cut; this one is exact. Li et al. (2024).

    Examples
    --------
    >>> import numpy as np
    >>> expert_groups([np.array([5.0, 1.0, 3.0])], [np.array([[1.0, 0.9, -1.0], [0.5, 0.6, 2.0]])], 2)
    [array([0, 0, 2])]
    """
    who, counts, columns = "expert_groups", list(usage), list(logits)
    if len(counts) != len(columns) or not counts:
        raise ValueError(f"{who}: usage has {len(counts)} layers, logits {len(columns)}")
    for i, (f, z) in enumerate(zip(counts, columns, strict=True)):
        check_values(who, f"usage[{i}]", f)
        check_values(who, f"logits[{i}]", z)
        readable(who, **{f"usage[{i}]": f, f"logits[{i}]": z})
        if f.ndim != 1 or z.ndim != 2 or z.shape[1] != f.shape[0] or not f.shape[0]:
            raise ValueError(
                f"{who}: usage[{i}] must be [experts] and logits[{i}] [tokens, experts], "
                f"got {tuple(f.shape)} and {tuple(z.shape)}"
            )
        if not z.shape[0]:
            raise ValueError(f"{who}: logits[{i}] has no tokens, its shape is {tuple(z.shape)}")
        if is_tensor(f) != is_tensor(counts[0]) or is_tensor(z) != is_tensor(counts[0]):
            raise TypeError(f"{who}: usage[{i}] and logits[{i}] must be of one library, that of usage[0]")
        if not bool((f >= 0).all() & xp.isfinite(f).all()):
            raise ValueError(f"{who}: usage[{i}] must be finite and not negative")
        if not bool(xp.isfinite(z).all()):
            raise ValueError(f"{who}: logits[{i}] has non-finite values")
    experts = sum(int(f.shape[0]) for f in counts)
    if not len(counts) <= groups <= experts:
        raise ValueError(f"{who}: groups must be from {len(counts)}, one for each layer, to {experts}, got {groups}")
    shares = [wide(f.detach() if is_tensor(f) else f) for f in counts]
    shares = [f / (f.max() if f.max() > 0 else 1.0) for f in shares]
    chosen = global_masks(shares, k=experts - groups, scores=shares, min_keep=1)
    return [_nearest(z, kept) for z, kept in zip(columns, chosen, strict=True)]


def _nearest(logits: Array, kept: Array) -> Array:
    """For each column the kept one of the largest cosine."""
    z = wide(logits.detach() if is_tensor(logits) else logits)
    z = z / xp.where(abs(z).max() > 0, abs(z).max(), 1.0)
    norm = xp.sqrt((z * z).sum(0))
    z = z / xp.where(norm > 0, norm, 1.0)
    cosine = xp.where(kept[None, :], z.T @ z, -np.inf)
    best = cosine.argmax(1)
    places = xp.where(kept, kept, kept).nonzero()
    own = places[0] if isinstance(kept, np.ndarray) else places[:, 0]
    best[own] = own
    return best


def expert_merge(weights: Array, usage: Number, groups: Any = None) -> Array:
    r"""Experts as their means, weighed by how often each was chosen.

    .. math:: W_g = \frac{\sum_{e \in g} f_e W_e}{\sum_{e \in g} f_e}

    Parameters
    ----------
    weights : array or tensor [E, ...], float64, float32, float16 or bfloat16
        In one order of hidden units (`expert_align`).
    usage : float array or tensor [E]
        f, not negative. A group that was never chosen has the plain mean.
    groups : int64 array or tensor [E], optional
        The expert that each goes with (`expert_groups`); all are one if absent.

    Returns
    -------
    array or tensor [E, ...], or [...] without groups
        Each expert as that of its group, so that routing stays as it is; ``[groups.unique()]`` are those to store.

    Raises
    ------
    TypeError
        If an array is not of a float type, or groups no integers.
    ValueError
        If shapes do not go together, usage is negative or not finite, or a group is no expert.

    Notes
    -----
    One read of each expert; sums in float64, in the order of experts. Differentiable in the weights. Li et al. (2024).

    Examples
    --------
    >>> import numpy as np
    >>> expert_merge(np.array([[1.0, 2.0], [5.0, 6.0]]), np.array([3.0, 1.0]))
    array([2., 3.])
    """
    who = "expert_merge"
    readable(who, weights=weights, usage=usage, groups=groups)
    if not weights.ndim or not weights.shape[0]:
        raise ValueError(f"{who}: weights must be [experts, ...], got shape {tuple(weights.shape)}")
    n = weights.shape[0]
    if tuple(getattr(usage, "shape", ())) != (n,):
        raise ValueError(f"{who}: usage has shape {tuple(getattr(usage, 'shape', ()))}, weights have {n} experts")
    f = wide(usage.detach() if is_tensor(usage) else usage)
    if not bool((f >= 0).all() & xp.isfinite(f).all()):
        raise ValueError(f"{who}: usage must be finite and not negative")
    labels = np.zeros(n, np.int64) if groups is None else _labels(who, groups, n)
    factors = f.cpu().numpy() if is_tensor(f) else f
    made: list[Any] = [None] * n
    for g in sorted(set(labels.tolist())):
        own = np.flatnonzero(labels == g)
        share_of = factors[own] / factors[own].max() if factors[own].max() > 0 else np.ones(len(own))
        total = sum(float(a) * wide(weights[int(e)]) for a, e in zip(share_of / share_of.sum(), own, strict=True))
        for e in own:
            made[e] = total
    if groups is None:
        return rounded(np.asarray(made[0]) if not is_tensor(weights) else made[0], weights)
    return rounded(xp.stack(made), weights)


def _labels(who: str, groups: Any, n: int) -> np.ndarray:
    if not hasattr(groups, "dtype") or dtype_name(groups.dtype) not in ("int64", "int32"):
        kind = dtype_name(groups.dtype) if hasattr(groups, "dtype") else type(groups).__name__
        raise TypeError(f"{who}: groups must be an int64 or int32 array, got {kind}")
    labels = np.asarray(groups.cpu() if is_tensor(groups) else groups, np.int64)
    if labels.shape != (n,) or ((labels < 0) | (labels >= n)).any():
        raise ValueError(f"{who}: groups must be {n} numbers from 0 to {n - 1}, got shape {labels.shape}")
    return labels
