"""Division by a mean of squares that is given, with the backward pass that such norms declare. The one rule: what is sent back
is what is said here, which is a derivative only where the mean of squares is that of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tersor._arrays import Array, Number, Weight, as_type, dtype_name, is_tensor, torch_module
from tersor._reference import quiet
from tersor._segments import rounded_to
from tersor.norm._arguments import alike, checked_eps


def running_rms_norm(
    x: Array,
    psi: Weight,
    weight: Weight = None,
    bias: Weight = None,
    *,
    carry: Weight = None,
    share: Number = 0.0,
    ratio: Number = 1.0,
    gz: Weight = None,
    eps: float = 1e-5,
    channel_dim: int = -1,
) -> Array:
    r"""Division by the root of a running mean of squares, :math:`\gamma z + \beta`, :math:`z = x/\sqrt{\psi + \varepsilon}`.

    Its backward pass is declared: with the gradient g of y, :math:`h = r\,\gamma g`, the means :math:`G = \overline{hz}` over
    all but the channels and :math:`\Gamma = \text{carry} + \text{share}\cdot G`,

    .. math:: dx = (h - \Gamma z)/\sqrt{\psi + \varepsilon}, \quad d\gamma = \sum g z, \quad d\beta = \sum g.

    With ψ the mean square of x itself, no carry and a share of 1 that is the derivative; elsewhere it is one that was smoothed
    over batches.

    Parameters
    ----------
    x : array or tensor [..., C, ...], float64, float32, float16 or bfloat16
    psi : [C], of any float type
        Not negative; no gradient goes to it.
    weight, bias : [C], of x's type or float32 beside 16-bit x, optional
    carry : [C], of any float type, optional
        Of a tensor x.
    share, ratio : float, or a tensor of one number or [C]
        Share and r above. Of a tensor x.
    gz : tensor [C], optional
        Is given G when gradients are sent back.
    eps : float
    channel_dim : int
        Which axis the channels lie on.

    Returns
    -------
    array or tensor of x's shape and type
        Gradients to x, weight and bias, once.

    Raises
    ------
    TypeError
        If types do not go together, or an array is given what is for the backward pass.
    ValueError
        If shapes do not go together, or eps is negative or not finite.

    Notes
    -----
    O(n), composed: float64 of float64 data, float32 of the others, means in float64. Shen et al., "PowerNorm" (2020), algorithm
    2; Yang et al., "Unified Normalization" (2022), equations 9 to 14.

    Examples
    --------
    >>> import numpy as np
    >>> running_rms_norm(np.array([[2.0, 3.0], [4.0, 0.0]]), np.array([4.0, 9.0]), eps=0.0)
    array([[1., 1.],
           [2., 0.]])
    """
    who = "running_rms_norm"
    eps = checked_eps(who, eps)
    if not -x.ndim <= channel_dim < x.ndim:
        raise ValueError(f"{who}: channel_dim={channel_dim} is no axis of shape {tuple(x.shape)}")
    c, at = x.shape[channel_dim], channel_dim % x.ndim
    alike(who, x, weight, bias)
    for name, p in (("psi", psi), ("weight", weight), ("bias", bias), ("carry", carry), ("gz", gz)):
        if p is not None and tuple(p.shape) != (c,):
            raise ValueError(f"{who}: {name} must have shape {(c,)}, got {tuple(p.shape)} for x {tuple(x.shape)}")
    shape = tuple(c if i == at else 1 for i in range(x.ndim))
    kind = "float64" if dtype_name(x.dtype) == "float64" else "float32"
    if is_tensor(x):
        sent = _sent(who, c, carry, share, ratio)
        from tersor.norm._running_torch import Divided

        return Divided.apply(x, psi.detach(), weight, bias, *sent, gz, eps, at, kind)
    for name, p in (("carry", carry), ("gz", gz), ("share", share), ("ratio", ratio)):
        if hasattr(p, "dtype"):
            raise TypeError(f"{who}: {name} is for the gradient, which NumPy has none of: it takes no array of it")
    root = np.sqrt(psi.astype(np.float64) + eps).astype(kind).reshape(shape)
    with quiet(x):
        y = as_type(x, kind) / root
        y = y if weight is None else y * as_type(weight.reshape(shape), kind)
        return rounded_to(y if bias is None else y + as_type(bias.reshape(shape), kind), x)


def _sent(who: str, c: int, *given: Any) -> list[Any]:
    """Carry, share and ratio as they go into the backward pass: float64, over channels."""
    torch, found = torch_module(), []
    for name, p in zip(("carry", "share", "ratio"), given, strict=True):
        if is_tensor(p):
            if tuple(p.shape) not in ((), (c,)):
                raise ValueError(f"{who}: {name} must be a number or of shape {(c,)}, got {tuple(p.shape)}")
            p = p.detach().to(torch.float64)
        found.append(p)
    return found
