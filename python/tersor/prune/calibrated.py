"""Pruning by what a layer was given to read. The one rule: exact counts, and one factorisation, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor._arrays import Number, dtype_name, is_tensor
from tersor._op import op
from tersor._reference import quiet, scaled, wide, xp
from tersor._sample import Draw
from tersor._values import readable
from tersor.prune._rank import share
from tersor.prune.masks import global_masks
from tersor.prune.patterns import nm_mask, nm_of
from tersor.prune.topk import _topk_indices

Array = Any


def _sample(draw: Draw) -> tuple[list[Array], dict[str, Any]]:
    """Numbers of few bits, and columns that send or receive but not both, so that every sum is exact."""
    rng, m = draw.rng, int(draw.rng.integers(1, 5))
    rows, cols = int(np.prod(draw.lead, dtype=int)), draw.d * m
    kind = np.float64 if draw.dtype == "float64" else np.float32
    x = np.asarray(rng.integers(-8, 9, (rows, cols)) / 4, kind)
    factor = rng.integers(-4, 5, (cols, cols)) / 4
    even = np.arange(cols) % 2 == 0
    factor *= even[:, None] & ~even
    factor[np.arange(cols), np.arange(cols)] = 2.0 ** rng.integers(-2, 3, cols)
    mask = rng.random((rows, cols)) < 0.5 if draw.seed % 2 else None
    return [x, np.asarray(factor, kind), mask], {"n": int(rng.integers(0, m + 1)), "m": m}


@op(sample=_sample, native=True, integer=True, dtypes=("float64", "float32"))
def _obs_strip(x: Array, factor: Array, mask: Array = None, n: int = 0, m: int = 0) -> tuple[Array, Array]:
    """Columns one after another as they are when they are decided, and which stay; what goes is sent to those after it."""
    ys, kepts, rest, held = [], [], x, None
    for k in range(x.shape[1]):
        if mask is not None and mask.shape != (0,):
            kept = mask[:, k]
        else:
            if k % m == 0:
                lost = rest[:, :m] * rest[:, :m] * xp.diagonal(factor)[k : k + m]
                mine, other = lost[:, :, None], lost[:, None, :]
                earlier = np.tri(m, k=-1, dtype=bool)
                if is_tensor(x):
                    earlier = _like(earlier, x)
                held = ((other > mine) | ((other == mine) & earlier)).sum(-1) < n
            kept = held[:, k % m]  # type: ignore[index]
        ys.append(rest[:, 0])
        gone = xp.where(kept, 0.0, rest[:, 0])
        rest = rest[:, 1:] - gone[:, None] * factor[k, k + 1 :]
        kepts.append(kept)
    if not ys:
        return x, x != 0
    return xp.stack(ys, -1), xp.stack(kepts, -1)


def _like(x: np.ndarray, w: Array) -> Array:
    import torch

    return torch.from_numpy(x).to(w.device)


def _kept(who: str, sparsity: Any, nm: Any, cols: int) -> tuple[int, int] | None:
    """The pattern n of m, if that is what was asked for."""
    if (sparsity is None) == (nm is None):
        raise ValueError(f"{who}: exactly one of sparsity and nm must be given")
    if nm is None:
        share(sparsity, cols)  # which says what is wrong with it
        return None
    n, m = nm_of(who, nm)
    if cols % m:
        raise ValueError(f"{who}: w has {cols} columns, no whole groups of m = {m}")
    return n, m


def wanda_mask(w: Array, x_norm: Number, sparsity: float | None = None, *, nm: Any = None) -> Array:
    r"""The mask of Wanda: in each row, the weights of the largest :math:`|w_{ij}| \, \|x_j\|_2` are kept.

    Parameters
    ----------
    w : array or tensor [out, in], float64, float32, float16 or bfloat16
        The weight of a linear layer.
    x_norm : float64 or float32 array or tensor [in]
        The 2-norm of each of its inputs over the calibration data: the root of the diagonal of `tersor.quant.hessian`, whose
        scale has no say.
    sparsity : float between 0 and 1
        Of every row; the number of weights to prune is rounded half to even. Either this or ``nm``.
    nm : (n, m) or "n:m"
        Kept of how many neighbours, in place of a share.

    Returns
    -------
    bool array or tensor of the shape of w
        Of equal scores the lowest index is kept.

    Raises
    ------
    TypeError
        If an array is not of a float type, or a tensor without memory.
    ValueError
        If shapes differ, numbers are out of range, or a score is not finite.

    Notes
    -----
    Scores in float64 where one of the arrays is, else in float32; radix selection, O(in) a row. Sun, Liu, Bair and Kolter,
    "A Simple and Effective Pruning Approach for Large Language Models" (2024).

    Examples
    --------
    >>> import numpy as np
    >>> wanda_mask(np.array([[3.0, 1.0, 2.0, 4.0]]), np.array([1.0, 9.0, 1.0, 1.0]), 0.5)
    array([[False,  True, False,  True]])
    """
    who = "wanda_mask"
    if w.ndim != 2:
        raise ValueError(f"{who}: w must be [out, in], got shape {tuple(w.shape)}")
    readable(who, w=w, x_norm=x_norm)
    if tuple(getattr(x_norm, "shape", ())) != (w.shape[1],):
        raise ValueError(f"{who}: x_norm has shape {tuple(getattr(x_norm, 'shape', ()))}, w {w.shape[1]} columns")
    of = _kept(who, sparsity, nm, w.shape[1])
    kind = "float64" if "float64" in (dtype_name(w.dtype), dtype_name(x_norm.dtype)) else "float32"
    w, x_norm = _as(w, kind), _as(_to_one(x_norm), kind)
    score = abs(w) * abs(x_norm)
    if of is not None:
        return nm_mask(score, *of)
    rows, cols = w.shape
    kept = _topk_indices(score, cols - share(sparsity, cols), False, 0)  # type: ignore[arg-type]
    if is_tensor(score):
        import torch

        return torch.zeros(score.shape, dtype=torch.bool, device=score.device).scatter_(-1, kept, True)
    mask = np.zeros((rows, cols), bool)
    np.put_along_axis(mask, kept, True, -1)
    return mask


def _to_one(x: Array) -> Array:
    """By the power of two that makes the largest about 1, in float64: products with it are numbers of their type."""
    if not x.shape[0]:
        return x
    x = wide(x)
    _, e = xp.frexp(xp.amax(abs(x)))
    return scaled(x, -e)


def _as(v: Array, kind: str) -> Array:
    """Without its gradient, in a type to compute in."""
    if is_tensor(v):
        return v.detach().double() if kind == "float64" else v.detach().float()
    return v.astype(kind)


def _factor(who: str, h: Array, damp: float) -> tuple[Array, Array, Array]:
    """V above the diagonal and a multiple of R_kk² on it, that diagonal, and which columns were never read."""
    diagonal = xp.diagonal(h)
    if not bool(xp.isfinite(h).all()):
        raise ValueError(f"{who}: hessian holds non-finite values")
    if bool((diagonal < 0).any()):
        raise ValueError(f"{who}: hessian is no Gram matrix: {float(diagonal.min()):g} on its diagonal")
    dead = diagonal == 0
    whole = h + xp.diag(xp.where(dead, 1.0, damp * diagonal.mean() + 0 * diagonal))
    try:
        if is_tensor(whole):
            import torch

            r = torch.linalg.cholesky(whole.flip(0, 1)).flip(0, 1)
        else:
            r = np.linalg.cholesky(whole[::-1, ::-1])[::-1, ::-1]
    except (np.linalg.LinAlgError, RuntimeError) as e:
        raise ValueError(
            f"{who}: hessian is not positive definite with damp = {damp:g}; a larger one makes it so ({e})"
        ) from None
    roots = xp.diagonal(r)
    # what ranks: by a power of two, so that it is a number of a small type, whatever the scale of the Hessian
    weight = xp.where(dead, 0.0, roots * roots)
    weight = weight / 2.0 ** min(math.frexp(float(weight.max()))[1], 1023)
    unit = r / roots
    if is_tensor(unit):
        import torch

        inverse = torch.linalg.solve_triangular(unit, torch.eye(len(unit)).to(unit), upper=True, unitriangular=True)
    else:
        inverse = np.triu(np.linalg.inv(unit))
    return inverse - xp.diag(xp.diagonal(inverse)) + xp.diag(weight), weight, dead


def sparsegpt(
    w: Array,
    hessian: Number,
    sparsity: float | None = None,
    *,
    nm: Any = None,
    blocksize: int = 128,
    damp: float = 0.01,
) -> tuple[Array, Array]:
    r"""Weights of which some are pruned and those after them make up for it, so that the layer gives about the same.

    Column after column, each hears what became of those before it:

    .. math:: x_k = w_k - \sum_{i<k} (x_i - \hat w_i)\, V_{ik}, \qquad \hat w_k = m_k x_k, \qquad
              H + \lambda I = R R^\top,\quad V = (R / \mathrm{diag}\,R)^{-1}

    with R upper triangular and :math:`\lambda` the damping: the best that is left to do with those before k fixed. These are
    the weights of SparseGPT, which inverts H and factors it twice. The loss of pruning weight k is :math:`x_k^2 R_{kk}^2`; the
    least of each block of columns, all rows together, go.

    Parameters
    ----------
    w : array or tensor [out, in], float64, float32, float16 or bfloat16
        The weight of a linear layer.
    hessian : float64 or float32 array or tensor [in, in]
        `tersor.quant.hessian` of its inputs; symmetric and positive semidefinite. Its scale has no say.
    sparsity : float between 0 and 1
        Of the whole matrix, rounded half to even. Either this or ``nm``.
    nm : (n, m) or "n:m"
        Kept of how many neighbours in a row, in place of a share; decided by the weights as they are when the first of the
        group is reached.
    blocksize : int
        Columns that are ranked together.
    damp : float
        Not negative: the share of the mean of the diagonal that is added to it.

    Returns
    -------
    w : array or tensor [out, in], of the type of w
        The new weights, +0 where pruned.
    mask : bool array or tensor [out, in]
        True where a weight is kept. Columns whose inputs were all 0 are worth nothing and are the first to go.

    Raises
    ------
    TypeError
        If an array is not of a float type, or a tensor without memory.
    ValueError
        If shapes differ, numbers are out of range, w or the Hessian is not finite, no factor of it exists, or a new weight is
        beyond the type of w.

    Notes
    -----
    One factorisation and one triangular inverse in float64; all else in float64 for float64 weights, else in float32:
    2 in³/3 + out·in²/2 multiply-adds.
    Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot" (2023).
    """
    who = "sparsegpt"
    if w.ndim != 2:
        raise ValueError(f"{who}: w must be [out, in], got shape {tuple(w.shape)}")
    readable(who, w=w, hessian=hessian)
    rows, cols = w.shape
    if tuple(getattr(hessian, "shape", ())) != (cols, cols):
        raise ValueError(f"{who}: hessian has shape {tuple(getattr(hessian, 'shape', ()))}, w {cols} columns")
    of = _kept(who, sparsity, nm, cols)
    if blocksize < 1:
        raise ValueError(f"{who}: blocksize must be 1 or more, got {blocksize}")
    if not damp >= 0:
        raise ValueError(f"{who}: damp must not be negative, got {damp}")
    kind = "float64" if dtype_name(w.dtype) == "float64" else "float32"
    old = _as(w, kind)
    if not bool(xp.isfinite(old).all()):
        raise ValueError(f"{who}: w holds non-finite values")
    if not rows or not cols:
        return (old + 0 * old).astype(w.dtype) if isinstance(w, np.ndarray) else w.detach().clone(), old != 0
    # squares of small numbers and products with large ones stay in the type: powers of two change no digit
    most = {"float32": 126, "float64": 1022}[kind]
    high = max(-most, min(most, math.frexp(float(abs(old).max()))[1]))
    old, h = old * 2.0**-high, _as(hessian, "float64")
    if bool(xp.isfinite(h).all()):
        h = h * 2.0 ** -max(-1022, min(1022, math.frexp(float(abs(h).max()))[1]))
    factor, weight, dead = _factor(who, h, float(damp))
    factor, weight = (_as(v, kind) for v in (factor, weight))
    # what is never read is worth nothing
    old = xp.where(dead, 0.0, old)
    if of is not None:
        blocksize = -(-blocksize // of[1]) * of[1]
    new, kept, gone = [], [], 0 * old
    done = pruned = 0
    for start in range(0, cols, blocksize):
        end = min(start + blocksize, cols)
        x, own = old[:, start:end], factor[start:end, start:end]
        if start:
            x = x - gone[:, :start] @ factor[:start, start:end]
        mask = None
        if of is None:
            done += rows * (end - start)
            k = share(sparsity, done) - pruned  # type: ignore[arg-type]
            pruned += k
            (mask,) = global_masks([x * x * weight[start:end]], k=k)
        x, stays = _obs_strip(_whole(x), _whole(own), mask, *(of or (0, 0)))
        gone[:, start:end] = xp.where(stays, 0.0, x)
        new.append(xp.where(stays, x, 0.0))
        kept.append(stays)
    y, mask = (xp.concatenate(parts, 1) for parts in (new, kept))
    with quiet(y):
        y = y * 2.0**high
        made = y.astype(w.dtype) if isinstance(w, np.ndarray) else y.to(w.dtype)
    if not bool(xp.isfinite(made).all()):
        beyond = float(abs(wide(y)).max())
        raise ValueError(
            f"{who}: a weight that makes up for others is {beyond:g}, beyond {dtype_name(w.dtype)}; prune w in a wider type, "
            "or with a larger damp"
        )
    return made, mask


def _whole(x: Array) -> Array:
    return x.contiguous() if is_tensor(x) else np.ascontiguousarray(x)
