r"""Hyperbolic fully connected layers and multinomial regression (Shimizu et al., "Hyperbolic neural networks++", 2021).

The rule of this file: the dense product is NumPy's or torch's, and what follows is one operator on rows of it.

A hyperplane k has a normal z_k, column k of Z, and a bias r_k, the signed distance of the plane from the origin along z_k.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import is_distributed
from tersor._reference import Array, rounded, wide
from tersor._values import check_alike
from tersor.hyperbolic._ball_layer import Layer
from tersor.hyperbolic._chunks import by_chunks
from tersor.hyperbolic._planes import fc_rows, mlr_rows, square_norm
from tersor.hyperbolic._words import EPS
from tersor.hyperbolic.conformal import lambda_x, project


def _product(x: Array, z: Array, r: Array | None) -> tuple[Array, Array, Array]:
    """x Z, the norms of the columns of Z, and the biases."""
    if isinstance(x, np.ndarray):
        narrow = x.dtype.itemsize == 2  # NumPy multiplies no bfloat16
        xs, zs = (x.astype(np.float32), z.astype(np.float32)) if narrow else (x, z)
        t = (xs @ zs).astype(x.dtype)
        n = np.sqrt(np.sum(np.square(zs, dtype=np.float64), 0)).astype(x.dtype)
        return t, n, np.zeros_like(n) if r is None else r
    import torch

    n = torch.linalg.vector_norm(z, dim=0)
    return torch.nn.functional.linear(x, z.t()), n, torch.zeros_like(n) if r is None else r


def _check(name: str, x: Array, z: Array, r: Array | None) -> None:
    check_alike(name, x=x, z=z, r=r)
    for k, a in (("z", z), ("r", r)):
        if a is not None and getattr(a, "dtype", None) != x.dtype:
            raise TypeError(f"{name}: {k} is {getattr(a, 'dtype', type(a).__name__)}, the rows are {x.dtype}")
    if z.ndim != 2 or x.ndim == 0 or x.shape[-1] != z.shape[0]:
        raise ValueError(f"{name}: rows of shape {tuple(x.shape)} do not go with z of shape {tuple(z.shape)}")
    if r is not None and tuple(r.shape) != (z.shape[1],):
        raise ValueError(f"{name}: r must have shape ({z.shape[1]},), got {tuple(r.shape)}")
    if is_distributed(x):  # what is summed over an axis must not be split along it
        from tersor._dtensor import local

        local(name, "the rows", x)
        local(name, "z, by columns,", z.t())


def _tangent(name: str, v: Array, z: Array, r: Array | None, c: Any, fc: bool) -> Array:
    """The tangent form: one autograd node in torch."""
    _check(name, v, z, r)
    if isinstance(v, np.ndarray):
        t, n, r = _product(v, z, r)
        return fc_rows(t, square_norm(v), n, r, c) if fc else mlr_rows(t, square_norm(v), n, r, c)
    from tersor.hyperbolic import _node

    return _node.tangent(v, z.t(), r, c, fc=fc)


def poincare_fc_tangent(v: Array, z: Array, r: Array | None = None, c: Any = 1.0) -> Array:
    r"""Hyperbolic fully connected layer from tangent vectors at 0 to tangent vectors at 0,
    :math:`\log_0 \circ \mathrm{FC} \circ \exp_0` with nothing clamped.

    .. math:: p_k = \sinh\sigma\cosh\beta_k\,\langle\hat v, \hat z_k\rangle - \cosh\sigma\sinh\beta_k,\quad
        w_k = \frac{\sinh(2\|z_k\|\operatorname{arsinh} p_k)}{\sqrt c},\quad
        y = \frac{\operatorname{arsinh}(\sqrt c\,\|w\|)}{2\sqrt c\,\|w\|}w

    with :math:`\sigma = 2\sqrt c\,\|v\|`, :math:`\beta = 2\sqrt c\,r`.

    Parameters
    ----------
    v : array or tensor [..., i], float64, float32, float16 or bfloat16
        Tangent vectors at the origin.
    z : like v [i, o]
        Normals, one per column. Z = I/2 with r = 0 is the identity.
    r : like v [o], or None
        Biases; None: 0.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative. c = 0 gives :math:`2(vZ - r\|z\|)`.

    Returns
    -------
    array or tensor [..., o]
        Tangent vectors at the origin.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    2io operations per row for the product, and a logarithm and an exponential per result. Right at any radius: there is no
    :math:`1 - c\|x\|^2` in it. A column z = 0 gives 0, and its gradient is that along v, so that it is trained too.
    Shimizu et al. (2021), section 3.2, between the maps at the origin.
    """
    return _tangent("poincare_fc_tangent", v, z, r, c, True)


def poincare_fc(x: Array, z: Array, r: Array | None = None, c: Any = 1.0, eps: float | str = 0.0) -> Array:
    r"""Hyperbolic fully connected layer on points of the ball.

    .. math:: p_k = \sqrt c\,\lambda_x\langle x, \hat z_k\rangle\cosh\beta_k - (\lambda_x - 1)\sinh\beta_k,\quad
        w_k = \frac{\sinh(2\|z_k\|\operatorname{arsinh} p_k)}{\sqrt c},\quad y = \frac{w}{1 + \sqrt{1 + c\|w\|^2}}

    Parameters
    ----------
    x : array or tensor [..., i], float64, float32, float16 or bfloat16
        Points of the ball.
    z, r, c
        As `poincare_fc_tangent` takes them.
    {eps}

    Returns
    -------
    array or tensor [..., o]
        Points of the ball, strictly inside after rounding.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    Z = I/2 with r = 0 is the identity. Smaller types are computed in float64, product and all: far out what pulls x along its
    radius cancels, and half of the digits of float32 go with it. HypLL's ``poincare_fully_connected``. Shimizu et al. (2021),
    section 3.2.
    """
    _check("poincare_fc", x, z, r)

    def rows(x: Array, z: Array, r: Array | None, c: Any) -> Array:
        p = wide(x)
        t, n, b = _product(p, wide(z), r if r is None else wide(r))
        y = fc_rows(t, lambda_x(p, c), n, b, c, True, eps)
        return y if x.dtype.itemsize == 8 else project(rounded(y, x), c, eps)

    margin = EPS["eps"].get(eps, eps) if isinstance(eps, str) else eps
    fast = Layer(margin) if isinstance(margin, (int, float)) and margin < 1 else None
    return by_chunks(rows, x, (z, r), c, z.shape[1], fast)


def poincare_mlr(x: Array, z: Array, r: Array | None = None, c: Any = 1.0, *, tangent: bool = False) -> Array:
    r"""Logits of a hyperbolic multinomial regression, the signed distances of points to hyperplanes times 2‖z‖.

    .. math:: y_k = \frac{2\|z_k\|}{\sqrt c}\operatorname{arsinh} p_k

    with :math:`p_k` as in `poincare_fc` or `poincare_fc_tangent`.

    Parameters
    ----------
    x : array or tensor [..., i], float64, float32, float16 or bfloat16
        Points of the ball, or, with `tangent`, tangent vectors at the origin.
    z, r, c
        As `poincare_fc_tangent` takes them; c = 0 gives :math:`4(xZ - r\|z\|)`.
    tangent : bool
        What x is.

    Returns
    -------
    array or tensor [..., o]
        Logits.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If c is negative or not finite, or shapes do not go together.

    Notes
    -----
    Shimizu et al. (2021), section 3.1.
    """
    if tangent:
        return _tangent("poincare_mlr", x, z, r, c, False)
    _check("poincare_mlr", x, z, r)
    t, n, r = _product(x, z, r)
    return mlr_rows(t, lambda_x(x, c), n, r, c, True)
