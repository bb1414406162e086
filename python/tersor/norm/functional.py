"""The norms of torch and a few beside them, each one standardisation. The one rule: a function names its segments, no more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor._arrays import (
    FLOATS,
    INTEGERS,
    Array,
    Labels,
    Number,
    Weight,
    dtype_name,
    in_trace,
    is_tensor,
    torch_module,
)
from tersor._reference import xp
from tersor._segments import Moments
from tersor._values import at_hand
from tersor.norm._arguments import alike, checked_eps, last_axes
from tersor.norm._ops import MODES, _standardize
from tersor.norm.standard import standardize


def _affine(who: str, x: Array, shape: tuple[int, ...], as_: tuple[int, ...], *given: Any) -> list[Any]:
    """γ and β, which must be of `shape`, as they broadcast."""
    alike(who, x, *given)
    for name, p in zip(("weight", "bias"), given, strict=True):
        if p is not None and tuple(p.shape) != shape:
            raise ValueError(f"{who}: {name} must have shape {shape}, got {tuple(p.shape)} for x {tuple(x.shape)}")
    return [None if p is None else p.reshape(as_) for p in given]


def _channels(who: str, x: Array) -> Any:
    if x.ndim < 2:
        raise ValueError(f"{who}: x must be [N, C, ...], got shape {tuple(x.shape)}")
    return x.shape[1]


def layer_norm(
    x: Array, normalized_shape: int | Sequence[int], weight: Weight = None, bias: Weight = None, eps: float = 1e-5
) -> Array:
    r"""Layer normalisation, :math:`\gamma(x - \mu)/\sqrt{v + \varepsilon} + \beta` over the last axes.

    Parameters
    ----------
    x : array or tensor [..., *normalized_shape], float64, float32, float16 or bfloat16
    normalized_shape : int or tuple of int
    weight, bias : of normalized_shape, of x's type or float32 beside 16-bit x, optional
    eps : float

    Returns
    -------
    array or tensor of x's shape and type
        Differentiable, twice too, with respect to x, weight and bias.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit.

    Notes
    -----
    float32 rows are right to a unit in the last place of y and half of one of :math:`\gamma z` and of :math:`\beta`, at any
    ratio of mean to deviation; next to the mean to what float64 knows of it. Ba, Kiros and Hinton (2016).

    Examples
    --------
    >>> import numpy as np
    >>> layer_norm(np.array([[1e6, 1e6 + 2], [3.0, 3.0]]), 2).round(4)
    array([[-1.,  1.],
           [ 0.,  0.]])
    """
    shape = last_axes("layer_norm", x, normalized_shape)
    eps = checked_eps("layer_norm", eps)
    affine = _affine("layer_norm", x, shape, shape, weight, bias)
    kept = (1 << (x.ndim - len(shape))) - 1
    return _standardize(x, *affine, None, None, None, None, kept, 0, MODES["var"], eps)[0]


def crms_norm(x: Array, weight: Weight = None, eps: float = 1e-6) -> Array:
    r"""Completed root mean square norm of rows, :math:`\gamma x/\sqrt{(\sum x^2 + (\sum x)^2)/(d + 1) + \varepsilon}`.

    It is the layer norm of a row of mean 0 of which the last number was left out.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
    weight : [d], of x's type or float32 beside 16-bit x, optional
    eps : float

    Returns
    -------
    array or tensor of x's shape and type

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit.

    Notes
    -----
    Jiang et al., "Pre-RMSNorm and Pre-CRMSNorm Transformers" (2023).

    Examples
    --------
    >>> import numpy as np
    >>> crms_norm(np.array([[1.0, -1.0, 2.0]])).round(4)
    array([[ 0.6325, -0.6325,  1.2649]])
    """
    if not x.ndim:
        raise ValueError("crms_norm: x needs a last axis, got a 0-d array")
    eps, shape = checked_eps("crms_norm", eps), (x.shape[-1],)
    (weight, _) = _affine("crms_norm", x, shape, shape, weight, None)
    kept = (1 << (x.ndim - 1)) - 1
    return _standardize(x, weight, None, None, None, None, None, kept, 0, MODES["crms"], eps)[0]


def group_norm(x: Array, num_groups: int, weight: Weight = None, bias: Weight = None, eps: float = 1e-5) -> Array:
    r"""Group normalisation: each sample's channels in groups that are normalised with their pixels.

    Parameters
    ----------
    x : array or tensor [N, C, ...], float64, float32, float16 or bfloat16
    num_groups : int
        Divides C.
    weight, bias : [C], of x's type or float32 beside 16-bit x, optional
    eps : float

    Returns
    -------
    array or tensor of x's shape and type
        Differentiable, twice too, with respect to x, weight and bias.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, or the groups do not divide the channels.

    Notes
    -----
    Wu and He, "Group Normalization" (2018).

    Examples
    --------
    >>> import numpy as np
    >>> group_norm(np.array([[[1.0], [3.0], [5.0], [9.0]]]), 2).ravel().round(4)
    array([-1.,  1., -1.,  1.])
    """
    c, eps = _channels("group_norm", x), checked_eps("group_norm", eps)
    if num_groups < 1 or c % num_groups:
        raise ValueError(
            f"group_norm: num_groups={num_groups} does not divide {c} channels, got shape {tuple(x.shape)}"
        )
    split = (num_groups, c // num_groups)
    affine = _affine("group_norm", x, (c,), (1, *split, *(1,) * (x.ndim - 2)), weight, bias)
    parts = x.reshape((x.shape[0], *split, *x.shape[2:]))
    return _standardize(parts, *affine, None, None, None, None, 3, 0, MODES["var"], eps)[0].reshape(x.shape)


def instance_norm(x: Array, weight: Weight = None, bias: Weight = None, eps: float = 1e-5) -> Array:
    r"""Instance normalisation: each channel of each sample by itself.

    Parameters
    ----------
    x : array or tensor [N, C, ...], float64, float32, float16 or bfloat16
    weight, bias : [C], of x's type or float32 beside 16-bit x, optional
    eps : float

    Returns
    -------
    array or tensor of x's shape and type
        Differentiable, twice too, with respect to x, weight and bias.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit.

    Notes
    -----
    Ulyanov, Vedaldi and Lempitsky (2016).

    Examples
    --------
    >>> import numpy as np
    >>> instance_norm(np.array([[[1.0, 3.0], [7.0, 7.0]]])).round(4)
    array([[[-1.,  1.],
            [ 0.,  0.]]])
    """
    c, eps = _channels("instance_norm", x), checked_eps("instance_norm", eps)
    affine = _affine("instance_norm", x, (c,), (1, c, *(1,) * (x.ndim - 2)), weight, bias)
    return _standardize(x, *affine, None, None, None, None, 3, 0, MODES["var"], eps)[0]


def batch_norm(
    x: Array,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Weight = None,
    bias: Weight = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    alpha: float | None = None,
    sample_weight: Number = None,
) -> Array:
    r"""Batch normalisation: each channel over samples and pixels, or by running statistics.

    Parameters
    ----------
    x : array or tensor [N, C, ...], float64, float32, float16 or bfloat16
    running_mean, running_var : [C], floats, optional
        Constants by which x is normalised, unless ``training``; then they are moved, in place, by ``momentum`` to the mean and
        the unbiased variance of the batch.
    weight, bias : [C], of x's type or float32 beside 16-bit x, optional
    training : bool
    momentum : float
    eps : float
    alpha : float in [0, 1], optional
        Outside training, the share of the running statistics; the rest are those of the batch, with their gradient.
    sample_weight : floats that broadcast to x, or one for each sample, optional
        How much an element counts in the batch's statistics. Where all weights are 0 no statistics are moved, where their sum
        is 1 (to 2^-10) or less no variance: there is no unbiased one.

    Returns
    -------
    array or tensor of x's shape and type
        Differentiable, twice too, with respect to x, weight, bias and sample_weight.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit; if there is one element for a channel in training; if nothing says by what to normalise.

    Notes
    -----
    Ioffe and Szegedy (2015). ``alpha``: α-BN of You et al. (2021).

    Examples
    --------
    >>> import numpy as np
    >>> batch_norm(np.array([[1.0, 5.0], [3.0, 5.0]]), training=True).round(4)
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    who = "batch_norm"
    c, eps = _channels(who, x), checked_eps(who, eps)
    running = (running_mean, running_var)
    for name, p in zip(("running_mean", "running_var"), running, strict=True):
        _running(who, x, c, name, p, training)
    if (running_mean is None) != (running_var is None):
        raise ValueError(f"{who}: running_mean and running_var go together, got one of them")
    if not training and running_mean is None:
        raise ValueError(
            f"{who}: without running_mean and running_var there is nothing to normalise by but in training"
        )
    if alpha is not None and training:
        raise ValueError(f"{who}: alpha={alpha} mixes running statistics, which training does not use")
    affine = _affine(who, x, (c,), (1, c, *(1,) * (x.ndim - 2)), weight, bias)
    size = math.prod([n for i, n in enumerate(x.shape) if i != 1])
    if training and size == 1:
        raise ValueError(f"{who}: one element for each channel has no variance, got shape {tuple(x.shape)}")
    if sample_weight is not None and getattr(sample_weight, "ndim", 0) == 1:
        sample_weight = sample_weight.reshape((-1, *(1,) * (x.ndim - 1)))
    share = 0.0 if training else 1.0 if alpha is None else float(alpha)
    if not 0 <= share <= 1:
        raise ValueError(f"{who}: alpha must lie in [0, 1], got {alpha}")
    fixed = (None, None) if training else running
    y, count, mean, var = _standardize(
        x, *affine, None, sample_weight, *fixed, 2, 0, MODES["var"], eps, 0.0, share, False
    )
    if training and running_mean is not None and size:
        follow(running_mean, running_var, Moments(*(s.reshape(c) for s in (count, mean, var))), momentum)
    return y


def _running(who: str, x: Array, c: int, name: str, p: Any, moved: bool = False) -> None:
    """Raises unless `p`, if it is there, is floats of the library of `x`, one for each channel, that can be moved."""
    if p is None:
        return
    if is_tensor(p) != is_tensor(x) or not hasattr(p, "dtype"):
        like = "a torch tensor" if is_tensor(x) else "a NumPy array"
        raise TypeError(f"{who}: {name} must be {like} like x, got {type(p).__name__}")
    if dtype_name(p.dtype) not in FLOATS:
        raise TypeError(f"{who}: {name} must be {', '.join(FLOATS)}, got {dtype_name(p.dtype)}")
    if tuple(p.shape) != (c,):
        raise ValueError(f"{who}: {name} must have shape {(c,)}, got {tuple(p.shape)}")
    if moved and not is_tensor(p) and not p.flags.writeable:
        raise ValueError(f"{who}: {name} is moved in training, got a read-only array")


def follow(running_mean: Any, running_var: Any, seen: Moments, momentum: Any) -> None:
    """Moves running statistics towards the mean and the unbiased variance of a batch, in place, where they are known."""
    # weights of sum 1 add up to a little more, of which a variance would be a million times itself
    some, spread = seen.count > 0, seen.count > 1 + 2.0**-10
    free = xp.where(spread, seen.count - 1, 1.0)
    _moved(running_mean, seen.mean, some, momentum)
    _moved(running_var, seen.var * (seen.count / free), spread, momentum)


def _moved(running: Any, seen: Any, known: Any, momentum: float) -> None:
    """Moves running statistics towards those of a batch, in place, where it knows them."""
    if is_tensor(seen):
        seen = seen.detach().to(running.dtype)
        running.lerp_(xp.where(known, seen, running), momentum)
    else:
        running += (momentum * (np.where(known, seen, running) - running)).astype(running.dtype)


def region_norm(x: Array, mask: Labels, weight: Weight = None, bias: Weight = None, eps: float = 1e-5) -> Array:
    r"""Region normalisation: each channel over samples and pixels, inside a mask and outside of it by themselves.

    Parameters
    ----------
    x : array or tensor [N, C, H, W], float64, float32, float16 or bfloat16
    mask : bool or 0 and 1 [N, 1, H, W], or of two to four axes that broadcast beside x
    weight, bias : [2, C], outside first, of x's type or float32 beside 16-bit x, optional
    eps : float

    Returns
    -------
    array or tensor of x's shape and type
        Differentiable, twice too, with respect to x, weight and bias.

    Raises
    ------
    TypeError, ValueError
        If types or shapes do not fit, or a number of the mask is neither 0 nor 1.

    Notes
    -----
    Yu et al., "Region Normalization for Image Inpainting" (2020); each β acts in its own region.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1.0, 3.0, 10.0, 10.0]).reshape(1, 1, 2, 2)
    >>> region_norm(x, (x > 5)).ravel().round(4)
    array([-1.,  1.,  0.,  0.])
    """
    if x.ndim != 4:
        raise ValueError(f"region_norm: x must have four axes [N, C, H, W], got shape {tuple(x.shape)}")
    affine = _affine("region_norm", x, (2, x.shape[1]), (-1,), weight, bias)
    if hasattr(mask, "dtype") and dtype_name(mask.dtype) in (*INTEGERS, "bool"):
        sizes = list(zip(mask.shape[::-1], x.shape[::-1], strict=False))
        if not 2 <= mask.ndim <= 4 or any(n not in (1, m) for n, m in sizes):
            n, _, h, w = x.shape
            raise ValueError(f"region_norm: mask must be [{n}, 1, {h}, {w}] beside x, got shape {tuple(mask.shape)}")
        mask = mask if dtype_name(mask.dtype) == "bool" else _regions(mask)
    given = {"labels": mask, "num_segments": 2, "segment_affine": True}
    return standardize(x, *affine, dim=(0, 2, 3), eps=eps, **given)


def _regions(mask: Any) -> Any:
    """A mask of integers, or an error where one is no region: in a trace when it runs; on devices it is left to the kernel, to
    which -1 would be no segment."""
    odd = (mask < 0) | (mask > 1)
    if in_trace() and mask.device.type == "cpu":
        torch_module()._assert_async(~odd.any(), "region_norm: the numbers of mask must be 0 or 1")
        return mask
    if (not is_tensor(mask) or at_hand(mask)) and bool(odd.any()):
        at = int(np.flatnonzero(np.asarray(odd))[0])
        raise ValueError(f"region_norm: mask[{at}] is {int(mask.reshape(-1)[at])}, it must be 0 or 1")
    return xp.where(mask < 0, 2, mask)
