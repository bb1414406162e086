"""Limits and locality of infinitely wide networks: the vote of the deepest ones, and kernels of patches. The one rule: both are
made of gaps 1 - ρ, which differences of vectors give with all digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import dtype_name, is_tensor, torch_module, whole
from tersor._reference import quiet, rounded, wide
from tersor._values import check_values, number
from tersor.project.dual import _EPS, _layer

Array = Any

#: numbers of the differences of patches that are held at a time
BLOCK = 1 << 20


def _alike(who: str, **arrays: Array) -> Any:
    """The library of arrays of one type."""
    (first, x), *others = arrays.items()
    check_values(who, first, x)
    for name, y in others:
        check_values(who, name, y)
        if is_tensor(x) != is_tensor(y) or x.dtype != y.dtype:
            raise TypeError(
                f"{who}: {name} must be of the library and type of {first}, {dtype_name(x.dtype)}, got {y.dtype}"
            )
    return torch_module() if is_tensor(x) else np


def singular_vote(gap: Array, y: Array, d: float) -> Array:
    r"""The vote of what an infinitely deep network remembers, :math:`\sum_i y_i\,(2 s_i)^{-d/2}` over its largest term.

    Parameters
    ----------
    gap : array or tensor [m, n], any float type
        :math:`s`, 1 minus the correlations of m rows with the n that are known: of unit vectors :math:`\|x-y\|^2/2`.
    y : array or tensor [n] or [n, c], like gap
        What is known of them, signs or numbers of classes.
    d : float
        The exponent, not negative: 0 is the majority, a large one the nearest. Networks that are consistent have the dimension
        of the sphere that the data are on ("poly3" of `dual`: 2).

    Returns
    -------
    array or tensor [m] or [m, c], like gap
        Where a gap is 0, rows of gap 0 alone vote, with weight 1. Differentiable.

    Raises
    ------
    TypeError
        If arrays are not of one float type and library.
    ValueError
        If shapes do not fit, d is negative or not finite, or (of NumPy) a gap is negative by more than 8 ε.

    Notes
    -----
    m·n·c operations, in float64, of logarithms, so that no d overflows. Radhakrishnan, Belkin, Uhler, "Wide and deep neural
    networks achieve consistency for classification" (2023), Theorem 1; Devroye, Györfi, Krzyżak, "The Hilbert kernel
    regression estimate" (1998).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor.project import singular_vote
    >>> singular_vote(np.array([[0.02, 0.5], [0.5, 0.0]]), np.array([1.0, -1.0]), 2)
    array([ 0.96, -1.  ])
    """
    xp = _alike("singular_vote", gap=gap, y=y)
    if gap.ndim != 2 or y.ndim not in (1, 2) or y.shape[0] != gap.shape[1]:
        raise ValueError(
            f"singular_vote: gap must be [m, n] and y [n] or [n, c], got {tuple(gap.shape)}, {tuple(y.shape)}"
        )
    power = number("singular_vote", "d", d) / 2
    if not 0 <= power < float("inf"):
        raise ValueError(f"singular_vote: d must be finite and not negative, got {d}")
    s = wide(gap)
    s = xp.where((s < 0) & (s >= -8 * _EPS[dtype_name(gap.dtype)]), 0.0, s)
    if xp is np and bool((s < 0).any()):
        raise ValueError(f"singular_vote: gaps must not be negative, got {float(s[s < 0][0])}")
    if not gap.shape[1]:
        return rounded(s @ wide(y), gap)
    same = s == 0
    with quiet(gap):
        logs = xp.log(xp.where(same, 1.0, s))  # the 2 is in all of them
        least = xp.amin(logs, 1)[:, None]
        share = xp.where(same.any(1)[:, None], xp.where(same, 1.0, 0.0), xp.exp(power * (least - logs)))
        return rounded(share @ wide(y), gap)


def patch_kernel(x: Array, z: Array, patch: int, kind: Any = "relu", *, wrap: bool = True) -> Array:
    r"""The kernel of a wide convolutional layer, :math:`\frac1P\sum_p |x_p|\,|z_p|\,\check\varphi(\cos\angle(x_p, z_p))`.

    Parameters
    ----------
    x, z : array or tensor [m, d], [n, d], any float type
    patch : int in 1 .. d
        Numbers of a patch, which are neighbours.
    kind : as of `dual`
    wrap : bool
        Whether the d numbers are a ring, with a patch from each (P = d), or a line (P = d - patch + 1).

    Returns
    -------
    array or tensor [m, n], like x
        Differentiable with respect to both.

    Raises
    ------
    TypeError
        If x and z are not of one float type and library, or patch is no integer.
    ValueError
        If shapes do not fit, patch is out of range, or kind is unknown.

    Notes
    -----
    2·P·m·n·patch operations in float64; cosines come from differences of unit patches, a block of rows at a time. A patch of
    zeros adds 0. One patch of all numbers is the kernel of a dense layer. Favero, Cagnetta, Wyart, "Locality defeats the curse
    of dimensionality in convolutional teacher-student scenarios" (2021); Cagnetta, Favero, Wyart, "What can be learnt with wide
    convolutional neural networks?" (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor.project import patch_kernel
    >>> patch_kernel(np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [-3.0, -4.0]]), 2, wrap=False)
    array([[25.,  0.]])
    """
    xp = _alike("patch_kernel", x=x, z=z)
    if x.ndim != 2 or z.ndim != 2 or x.shape[1] != z.shape[1] or not x.shape[1]:
        raise ValueError(f"patch_kernel: x must be [m, d] and z [n, d], got {tuple(x.shape)} and {tuple(z.shape)}")
    width, d = whole("patch_kernel: patch", patch), int(x.shape[1])
    if not 1 <= width <= d:
        raise ValueError(f"patch_kernel: patch must be in 1 .. {d}, got {width}")
    (step, _), count = _layer("patch_kernel", kind), d if wrap else d - width + 1
    total: Any = 0.0
    with quiet(x):
        for p in range(count):
            at = [(p + i) % d for i in range(width)]
            (u, lu, tu), (v, lv, tv) = (_units(xp, wide(a)[:, at]) for a in (x, z))
            gap = _gaps(xp, u, v)
            value = step(xp, (1 - gap, gap))[0][0]
            size = (lu[:, None] * lv) * (tu[:, None] * tv)
            total = total + value * size / count
    return rounded(total, x)


def _units(xp: Any, a: Array) -> tuple[Array, Array, Array]:
    """Rows of length 1 (of zeros: 0) and their lengths, in two factors: of a subnormal row the product has few digits."""
    top = xp.amax(abs(a), 1)[:, None]
    top = xp.where(top > 0, top, 1.0)
    b = a / top
    square = (b * b).sum(1)[:, None]
    there = square > 0
    length = xp.where(there, xp.sqrt(xp.where(there, square, 1.0)), 0.0)
    return b / xp.where(there, length, 1.0), length[:, 0], top[:, 0]


def _gaps(xp: Any, u: Array, v: Array) -> Array:
    """1 minus the cosines of unit rows, by their differences."""
    if xp is not np:
        return xp.cdist(u, v, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
    rows = max(BLOCK // max(v.size, 1), 1)
    parts = [np.square(u[i : i + rows, None] - v).sum(-1) / 2 for i in range(0, len(u), rows)]
    return np.concatenate([np.zeros((0, len(v))), *parts])
