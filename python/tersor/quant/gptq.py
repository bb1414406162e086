"""Codes that answer for each other's errors. The one rule: one factorisation, in float64, by products of the array library; all
else is the kernel's."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import FLOATS, Level, Number, dtype_name
from tersor._op import op
from tersor._sample import Draw
from tersor.quant import _plain as plain
from tersor.quant._arguments import Array, code_range, detached, one_of, within
from tersor.quant.qparams import cast, choose_qparams, torch_module

#: columns of a factor that are found together
_BLOCK = 256


def _sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    """Numbers of few bits, so that every sum is exact and every code decided."""
    n, k, rng = math.prod(draw.lead), draw.d, draw.rng
    kind = np.float64 if draw.dtype == "float64" else np.float32
    table = draw.seed % 2 == 1
    grain = [(), (n, 1), (n, k)][draw.seed % 3]
    w = draw.cast(rng.integers(-64, 64, (n, k)) / 32)
    ldl = np.asarray(rng.integers(-16, 17, (k, k)) / 128, kind)
    scale = np.asarray(2.0 ** rng.integers(-3, 0, grain), kind)
    zero = None if table else np.asarray(rng.integers(0, 8, grain), np.int32)
    book = np.asarray(rng.integers(-16, 17, 7) / 4, kind) if table else None
    return [w, ldl, rng.permutation(k), scale, zero, book], {"lo": 0, "hi": 6 if table else 15, "damp": 0.25}


@op(sample=_sample, exempt=("ldl", "scale", "codebook"), native=True, integer=True)
def _ldlq(
    w: Array,
    ldl: Array,
    order: Array,
    scale: Array,
    zero_point: Array = None,
    codebook: Array = None,
    lo: int = -128,
    hi: int = 127,
    damp: float = 0.0,
) -> tuple[Array, Array]:
    """Codes of x_k = w_k + sum over j < k of (w_j - y_j) M_jk, and the sums of (x_k - y_k)² D_k - damp (w_k - y_k)²."""
    x, order = plain.real(w), np.asarray(order)
    m, s = np.asarray(ldl, x.dtype), plain.spread(np.asarray(scale, x.dtype), x.shape)
    z = plain.zeros(zero_point, x.shape, x.dtype)
    q, sent, error = np.zeros(x.shape, np.int16), np.zeros(x.shape, x.dtype), np.zeros(len(x))
    for k, column in enumerate(order):
        own, step, zero = x[:, column], s[:, column], z[:, column]
        v = own + sent[:, :k] @ m[:k, k]
        if codebook is None or np.size(codebook) == 0:
            r = np.rint(np.clip(v / step, lo - zero, hi - zero))
            q[:, column], y = r + zero, r * step
        else:
            q[:, column] = np.argmin(np.abs((v / step)[:, None] - codebook), 1)
            y = np.asarray(codebook, x.dtype)[q[:, column]] * step
        sent[:, k] = own - y
        error += (v - y).astype(float) ** 2 * float(m[k, k]) - sent[:, k].astype(float) ** 2 * damp
    return q.astype(np.int8 if lo < 0 else np.uint8), error


class GPTQ(NamedTuple):
    """What `gptq` makes of a matrix: ``tersor.quant.dequantize(codes, scale, zero_point)`` are its numbers.

    Attributes
    ----------
    codes : int8 or uint8 [N, K]
    scale : float64 or float32 [N, 1] or [N, K/G], or as it was given
    zero_point : int32 like scale, None for symmetric signed codes and for a codebook
    error : float64 [N]
        :math:`\\delta H \\delta^\\top` of each row, of which the sum is :math:`\\mathrm{tr}(\\Delta H \\Delta^\\top)`.
    """

    codes: Any
    scale: Any
    zero_point: Any
    error: Any


class Factor(NamedTuple):
    """What of a Hessian the codes are decided by; `gptq` takes it in its place, for several widths of one layer."""

    ldl: Any
    #: λ
    weight: float
    order: Any
    #: columns whose inputs were all 0 and become 0, or None
    dead: Any


def factored(
    h: Number,
    k: int,
    *,
    act_order: bool,
    damp: float,
    compat: str | None = None,
    compute: str = "float64",
    name: str = "gptq",
) -> Factor:
    """The factor of a Hessian [k, k], which is read only, for codes of weights that are summed in a type."""
    h = detached(name, h)
    xp = np if isinstance(h, np.ndarray) else torch_module()
    diagonal, dead = cast(xp, xp.diagonal(h), "float64"), None
    if not _finite(xp, h):
        raise ValueError(f"{name}: h holds non-finite values")
    if k and float(diagonal.min()) < 0:
        raise ValueError(f"{name}: h is no Gram matrix: {float(diagonal.min()):g} on its diagonal")
    if compat == "gptq":
        dead = diagonal == 0
        h = h + xp.diag(cast(xp, dead, dtype_name(h.dtype)))
        diagonal = cast(xp, xp.diagonal(h), "float64")
    order = xp.arange(k, **({} if xp is np else {"device": h.device}))
    if act_order:
        order = np.argsort(-diagonal, kind="stable") if xp is np else xp.argsort(diagonal, descending=True, stable=True)
    return Factor(*_factor(xp, h, order if act_order else None, float(damp), compute), order, dead)


def _finite(xp: Any, x: Array) -> bool:
    """Whether all numbers are finite: one pass where they are, as their sum then is but for numbers near the largest."""
    with np.errstate(all="ignore"):
        total = float(x.sum())
    return math.isfinite(total) or bool(xp.isfinite(x).all())


def gptq(
    w: Array,
    h: Number,
    dtype: Any = "int4",
    *,
    scale: Number | None = None,
    zero_point: Level | None = None,
    group: int | None = None,
    symmetric: bool = True,
    method: str = "minmax",
    act_order: bool = False,
    damp: float = 0.01,
    codebook: Number | None = None,
    compat: str | None = None,
) -> GPTQ:
    r"""Codes of a matrix for which :math:`\mathrm{tr}(\Delta H \Delta^\top)`, the squared error of a layer, is small.

    Column after column, each sees the errors of those before it:

    .. math:: q_k = \mathrm{code}\Big(w_k + \sum_{j<k} (w_j - \hat w_j)\, M_{jk}\Big), \qquad
              H + \lambda I = R R^\top,\quad M = R / \mathrm{diag}\,R,\quad \lambda = \mathrm{damp} \cdot \overline{H_{ii}}

    with R upper triangular. These are the codes of GPTQ, which inverts H and factors it twice.

    Parameters
    ----------
    w : array or tensor [N, K] of float64, float32, float16 or bfloat16
        The weight of a linear layer: N results, K inputs.
    h : float64 or float32 [K, K]
        `hessian` of its inputs; symmetric (its upper triangle is read) and positive semidefinite. Its scale has no say in the
        codes.
    dtype : str, type or (int, int)
        As of `quantize`. Not read where there is a codebook.
    scale, zero_point : optional
        As of `quantize`, of any granularity. If absent, `choose_qparams` makes them of w, once: a row's, or with ``group`` one
        for every so many columns as they lie (static groups, whatever the order).
    symmetric, method
        Of the scales that are made, as of `choose_qparams`; "mse" costs twenty roundings of w and mostly pays.
    act_order : bool
        Columns in the order of falling :math:`H_{ii}`: what matters most is decided while there is most freedom left.
    damp : float
        Not negative. Where the factorisation fails even so, λ is doubled until it reaches the mean itself.
    codebook : float [C], C at most 256, optional
        Codes are the places (uint8) of the entries c for which :math:`\hat w = c\,s`; the nearest, of two equally near the
        first. A scale that is absent is made so that the largest entry reaches the largest weight.
    compat : "gptq", optional
        Columns whose inputs were all 0 (:math:`H_{ii} = 0`) become 0, and count 1 in the mean that λ is made of, as in the
        published code. Otherwise they are rounded to the nearest: nothing is known against their weights.

    Returns
    -------
    GPTQ

    Raises
    ------
    TypeError
        If w is not a float array, or h not of float64 or float32.
    ValueError
        If w or h holds non-finite values, h is no Gram matrix, shapes do not fit, or an argument is unknown.

    Notes
    -----
    :math:`K^3/3` operations in float64 for the factor, :math:`N K^2` in the type of w (float32 for 16 bits) for the codes; rows
    side by side, the same codes for any number of threads, given the factor. With a diagonal H this is `quantize`. Frantar et
    al., "GPTQ" (2022); Chee et al., "QuIP" (2023), for the form without the inverse.
    """
    name = "gptq"
    w = detached(name, w)
    h = h if isinstance(h, Factor) else detached(name, h)
    xp = np if isinstance(w, np.ndarray) else torch_module()
    kind = dtype_name(w.dtype)
    if kind not in FLOATS:
        raise TypeError(f"{name}: w must be a float array, got {kind}")
    if w.ndim != 2:
        raise ValueError(f"{name}: w must be a matrix, got shape {tuple(w.shape)}")
    n, k = w.shape
    if not _finite(xp, w):
        raise ValueError(f"{name}: w holds non-finite values")
    if not isinstance(h, Factor):
        if dtype_name(h.dtype) not in ("float64", "float32"):
            raise TypeError(f"{name}: h must be float64 or float32, got {dtype_name(h.dtype)}")
        if tuple(h.shape) != (k, k):
            raise ValueError(f"{name}: h must have shape {(k, k)} for w of shape {(n, k)}, got {tuple(h.shape)}")
    if not (isinstance(damp, (int, float)) and 0 <= damp < math.inf):
        raise ValueError(f"{name}: damp must be finite and not negative, got {damp}")
    one_of(name, "compat", compat, (None, "gptq"))
    if zero_point is not None and (scale is None or codebook is not None):
        raise ValueError(f"{name}: zero_point needs a scale and no codebook")
    if scale is not None and group is not None:
        raise ValueError(f"{name}: scale has its granularity in its shape, group={group} is another")
    compute = "float64" if kind == "float64" else "float32"
    grain: dict[str, Any] = {"axis": 0} if group is None else {"group": group}
    if codebook is None:
        lo, hi = code_range(dtype, name)
        if scale is None:
            scale, zero_point = choose_qparams(w, (lo, hi), symmetric=symmetric, method=method, **grain)
            zero_point = None if symmetric and lo < 0 else zero_point
        else:
            within(name, zero_point, lo, hi)
    else:
        codebook = cast(xp, detached(name, codebook), compute)
        lo, hi = 0, 255
        if codebook.ndim != 1 or not 1 <= len(codebook) <= 256 or not bool(xp.isfinite(codebook).all()):
            raise ValueError(f"{name}: codebook must be 1 to 256 finite numbers, got shape {tuple(codebook.shape)}")
        top = float(xp.abs(codebook).max())
        if scale is None:
            if not top:
                raise ValueError(f"{name}: codebook has no entry but 0")
            scale = choose_qparams(w, (-1, 1), **grain)[0] / top
    if scale is not None and getattr(scale, "ndim", 0) == 1 and group is None and tuple(scale.shape) == (n,):
        scale = scale.reshape(n, 1)
        zero_point = zero_point.reshape(n, 1) if zero_point is not None and zero_point.ndim else zero_point
    if not isinstance(h, Factor):
        h = factored(h, k, act_order=act_order, damp=damp, compat=compat, compute=compute)
    if h.dead is not None:
        w = xp.where(h.dead, xp.zeros_like(w), w)
    codes, error = _ldlq(w, h.ldl, h.order, scale, zero_point, codebook, lo, hi, h.weight)
    if not bool(xp.isfinite(error).all()):
        raise ValueError(f"{name}: errors grow beyond {compute}: h is too near to singular for damp={damp:g}")
    return GPTQ(codes, scale, zero_point, xp.clip(error, 0.0, None))


def _factor(xp: Any, h: Array, order: Array | None, damp: float, compute: str) -> tuple[Array, float]:
    """M above the diagonal and D on it, of H + λI in an order, in the type of the codes' sums; and λ."""
    mean = float(cast(xp, xp.diagonal(h), "float64").mean()) if len(h) else 0.0
    step = weight = damp * mean if mean else damp or 1.0
    while True:
        ldl = _decomposed(xp, h, order, weight, compute)
        if ldl is not None:
            return ldl, weight
        if not step:
            raise ValueError("gptq: h is not positive definite, which it must be with damp=0")
        if weight >= mean:
            raise ValueError(f"gptq: h is no Gram matrix: with {weight:g} on its diagonal not positive definite yet")
        weight *= 2


def _decomposed(xp: Any, h: Array, order: Array | None, weight: float, compute: str) -> Array | None:
    """M and D of H + λI = R Rᵀ, or None: columns from the last to the first, some hundred together, so that nearly all is one
    product each, and neither H in its order nor R turned round is ever made."""
    k = len(h)
    like = {} if xp is np else {"device": h.device}
    r = xp.empty((k, k), dtype=xp.float64, **like)
    ldl = xp.empty((k, k), dtype=getattr(xp, compute), **like)
    for to in range(k, 0, -_BLOCK):
        at = max(0, to - _BLOCK)
        some = h[:to, at:to] if order is None else h[order[:to, None], order[None, at:to]]
        c = cast(xp, some, "float64") - r[:to, to:] @ r[at:to, to:].T
        own = c[at:]
        places = range(to - at)
        own[places, places] += weight
        # R is upper triangular: Cholesky's factor of what is turned round, turned round
        lower = _cholesky(xp, xp.flip(own, (0, 1)))
        if lower is None:
            return None
        upper = xp.flip(lower, (0, 1))
        above = c[:at] @ xp.linalg.inv(upper).T
        diagonal = xp.diagonal(upper)
        r[:at, at:to], r[at:to, at:to] = above, upper
        # rounded once, as they are put down
        ldl[:at, at:to], ldl[at:to, at:to] = above / diagonal, upper / diagonal
        corner = ldl[at:to, at:to]
        corner[places, places] = cast(xp, diagonal * diagonal, compute)
    return ldl


def _cholesky(xp: Any, a: Array) -> Array | None:
    if xp is np:
        try:
            return np.linalg.cholesky(a)
        except np.linalg.LinAlgError:
            return None
    lower, info = xp.linalg.cholesky_ex(a)
    return None if int(info) else lower
