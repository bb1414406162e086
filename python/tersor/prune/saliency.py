"""What groups of weights are worth, by their values and gradients. The one rule: each is read once, into three sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, an_axis, dtype_name, is_tensor, whole
from tersor._op import op
from tersor._reference import wide, xp
from tersor._sample import Draw

Array = Any

#: the parts of HESSO's score and their weights
PARTS = {"magnitude": 0.2, "average": 0.2, "cosine": 0.2, "taylor1": 0.2, "taylor2": 0.2}


def _sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    shape = (int(draw.rng.integers(1, 4)), draw.d, int(draw.rng.integers(1, 90)))
    return [draw.normal(*shape), draw.normal(*shape)], {}


@op(sample=_sample, integer=False, gradcheck=False)
def _group_sums(x: Array, g: Array) -> Array:
    """Σ x², Σ g² and Σ x g over the first and the last axis, for each of the second."""
    x, g = wide(x), wide(g)
    return xp.stack([(v.sum(-1)).sum(0) for v in (x * x, g * g, x * g)], -1)


def _views(i: int, node: Any, grad: Any, axis: Any, groups: int | None) -> tuple[list[tuple[Array, Array]], int]:
    """The arrays of a node as [outer, groups, inner], and how many groups there are."""
    tensors, grads = (list(v) if isinstance(v, (list, tuple)) else [v] for v in (node, grad))
    if len(tensors) != len(grads) or not tensors:
        raise ValueError(f"group_saliency: tensors[{i}] has {len(tensors)} arrays, grads[{i}] {len(grads)}")
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis] * len(tensors)
    if len(axes) != len(tensors):
        raise ValueError(f"group_saliency: axis[{i}] has {len(axes)} numbers for {len(tensors)} arrays")
    views = []
    for x, g, at in zip(tensors, grads, axes, strict=True):
        for name, v in (("tensors", x), ("grads", g)):
            if not (is_tensor(v) or isinstance(v, np.ndarray)) or dtype_name(v.dtype) not in FLOATS:
                kind = dtype_name(v.dtype) if hasattr(v, "dtype") else type(v).__name__
                raise TypeError(f"group_saliency: {name}[{i}] must be a float array, got {kind}")
        if tuple(x.shape) != tuple(g.shape) or x.dtype != g.dtype:
            raise ValueError(
                f"group_saliency: tensors[{i}] is {dtype_name(x.dtype)} {tuple(x.shape)}, "
                f"its gradient {dtype_name(g.dtype)} {tuple(g.shape)}"
            )
        at = an_axis("group_saliency", whole("group_saliency: axis", at), x.ndim)
        groups = x.shape[at] if groups is None else whole("group_saliency: groups", groups)
        if groups < 1 or x.shape[at] % groups:
            raise ValueError(
                f"group_saliency: axis {at} of tensors[{i}] has {x.shape[at]} elements, which are no {groups} groups"
            )
        shape = (int(np.prod(x.shape[:at], dtype=int)), groups, x.size if isinstance(x, np.ndarray) else x.numel())
        shape = (shape[0], groups, shape[2] // max(shape[0] * groups, 1))
        views.append(tuple((v.detach() if is_tensor(v) else v).reshape(shape) for v in (x, g)))
    return views, groups or 0


def _norm(parts: list[Array]) -> float:
    """The 2-norm of all together, also where squares are beyond float64."""
    with np.errstate(all="ignore"):
        norm = sum(float((x**2).sum()) for x in parts) ** 0.5
    if 1e-140 <= norm < math.inf:
        return norm
    most = max((float(abs(x).max()) for x in parts if len(x)), default=0.0)
    return most * sum(float(((x / most) ** 2).sum()) for x in parts) ** 0.5 if 0 < most < math.inf else norm


def group_saliency(
    tensors: Sequence[Any],
    grads: Sequence[Any],
    *,
    axis: int | Sequence[Any] = 0,
    groups: Sequence[int | None] | None = None,
    parts: Mapping[str, float] | None = None,
) -> list[Array]:
    r"""The saliency of groups of weights that are to go together, in one pass over weights and gradients.

    With x all weights of a group and g their gradients, n of them:

    .. math:: \|x\|,\quad \frac{\|x\|}{n},\quad 1 + \frac{\langle x, g\rangle}{\|x\|\,\|g\|},\quad |\langle x, g\rangle|,\quad
              \tfrac12 \langle x, g\rangle^2

    each divided by its 2-norm over all groups of all nodes, and added with its weight.

    Parameters
    ----------
    tensors : list of nodes
        A node is an array or tensor, or a list of them whose groups are the same channels: a convolution, its bias and its
        batch norm.
    grads : the same list of gradients
    axis : int, or one for each node, or a list of them for each array of a node
        Along which groups follow one another: 0 for the rows of a weight [out, in], 1 for its columns.
    groups : one number or None for each node, optional
        How many groups there are, where that is not the length of the axis of the first array: each is then as many neighbours
        along it as divide evenly. Of a projection to heads, the number of heads.
    parts : mapping, optional
        The weights of "magnitude", "average", "cosine", "taylor1" and "taylor2"; 0.2 each if absent.

    Returns
    -------
    list of float64 arrays or tensors [groups], one for each node
        The lower, the sooner to go. A part that is 0 everywhere counts 0, and so does the cosine of a group that is 0.

    Raises
    ------
    TypeError
        If an array is not of a float type.
    ValueError
        If lists or shapes differ, an axis is not so many groups, or a part is unknown.

    Notes
    -----
    Sums in float64, in an order that follows from the shapes. Chen, Ding, Zhu, Chen, Wu, Zharkov and Liang, "HESSO: Towards
    Automatic Efficient and User Friendly Any Neural Network Training and Pruning" (2024).

    Examples
    --------
    >>> import numpy as np
    >>> w, g = np.array([[3.0, 4.0], [0.0, 0.0]]), np.ones((2, 2))
    >>> group_saliency([w], [g], parts={"magnitude": 1.0})
    [array([1., 0.])]
    """
    parts = PARTS if parts is None else parts
    for name in parts:
        if name not in PARTS:
            raise ValueError(f"group_saliency: parts are {', '.join(PARTS)}, got {name!r}")
    if len(tensors) != len(grads):
        raise ValueError(f"group_saliency: {len(tensors)} tensors, {len(grads)} gradients")
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis] * len(tensors)
    counts = [None] * len(tensors) if groups is None else list(groups)
    if len(axes) != len(tensors) or len(counts) != len(tensors):
        raise ValueError(
            f"group_saliency: {len(axes)} axes and {len(counts)} numbers of groups for {len(tensors)} nodes"
        )
    found: list[dict[str, Array]] = []
    for i, (node, grad) in enumerate(zip(tensors, grads, strict=True)):
        views, n = _views(i, node, grad, axes[i], counts[i])
        total: Any = 0.0
        for x, g in views:
            total = total + _group_sums(x, g)
        if total.shape[0] != n:
            raise ValueError(f"group_saliency: the arrays of tensors[{i}] have {total.shape[0]} and {n} groups")
        xx, gg, xg = (total[:, k] for k in range(3))
        size = max(sum(int(np.prod(x.shape, dtype=int)) for x, _ in views) // max(n, 1), 1)
        norm = xp.sqrt(xx)
        length = norm * xp.sqrt(gg)
        turn = xp.where(length > 0, 1 + xg / xp.where(length > 0, length, 1.0), 0.0 * length)
        dot = abs(xg)
        found.append(
            {"magnitude": norm, "average": norm / size, "cosine": turn, "taylor1": dot, "taylor2": 0.5 * dot * dot}
        )
    scores: list[Any] = [0.0 * node["magnitude"] for node in found]
    for name, weight in parts.items():
        norm = _norm([node[name] for node in found])
        if norm > 0:
            scores = [s + weight / norm * node[name] for s, node in zip(scores, found, strict=True)]
    return scores
