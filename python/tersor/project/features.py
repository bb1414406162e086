"""Random features: vectors whose inner products are those of a kernel, on average. The one rule: what is drawn is a
`Projection`, so that nothing is stored and the same seed gives the same features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tersor._arrays import cast, dtype_name, is_tensor, torch_module, whole
from tersor._matrix import SparseMatrix
from tersor._reference import rounded
from tersor._values import check_values, number
from tersor.project._entries import extents
from tersor.project.projection import Projection, is_scipy

Array = Any

#: streams of one seed: of the matrix, and of what is added to its results or follows it
_MATRIX, _PHASES = 0, 1


def _rows(who: str, x: Any) -> tuple[int, Array]:
    """The length of the rows of x, and an array of its library and type: x itself, or one beside a sparse matrix."""
    sparse = isinstance(x, SparseMatrix) or is_scipy(x)
    like = x._data if isinstance(x, SparseMatrix) else np.empty(0, x.dtype) if sparse else x
    check_values(who, "x", like)
    shape = tuple(x.shape) if sparse else extents(who, x)
    if not shape or not shape[-1]:
        raise ValueError(f"{who}: x needs a last axis that is not empty, got shape {shape}")
    return shape[-1], like


def _positive(who: str, name: str, value: Any, *, least: float = math.ulp(0.0)) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{who}: {name} must be a number, got {type(value).__name__}")
    value = number(who, name, value)
    if not least <= value < math.inf:
        raise ValueError(f"{who}: {name} must be {'positive' if least else 'not negative'} and finite, got {value}")
    return value


def _phases(x: Array, k: int, seed: int) -> Array:
    """k angles, uniform on the circle: those of the points whose coordinates are two normals."""
    wide = dtype_name(x.dtype) == "float64"
    xp: Any = torch_module() if is_tensor(x) else np
    # the kernels make two normals of a length and an angle, which is uniform
    pairs = (
        Projection(1, 2 * k, seed=seed, stream=_PHASES).materialise(xp.float64 if wide else xp.float32).reshape(k, 2)
    )
    angles = xp.arctan2(pairs[:, 1], pairs[:, 0])
    return angles.to(x.device, x.dtype) if is_tensor(x) else angles.astype(x.dtype)


def _many(k: int) -> int:
    """Rows of k numbers that go together: what the second cache holds beside what is made of them."""
    return max(16, (1 << 16) // k)


def _parts(y: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of y, many at a time."""
    many = _many(y.shape[1])
    return (y[first : first + many] for first in range(0, len(y), many))


def _fourier() -> Any:
    """SciPy's transforms, which take several rows in one vector, or NumPy's, row by row, where there is no SciPy."""
    try:
        from scipy import fft
    except ImportError:
        return np.fft
    return fft


def rff(x: Any, k: int, gamma: float = 1.0, kind: str = "gaussian", *, seed: int = 0) -> Array:
    r"""Random Fourier features: :math:`\mathbb E\langle z(x), z(y)\rangle = e^{-\gamma\|x-y\|^2}`.

    .. math:: z_i(x) = \sqrt{2/k}\,\cos(\sqrt{2\gamma}\, w_i\cdot x + b_i)

    with w normal and b uniform on the circle.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16; SciPy sparse matrix or `CSR` [n, d]
    k : int
        How many features.
    gamma : float
        Of the kernel, positive.
    kind : "gaussian" or "orthogonal"
        "orthogonal" makes the w of N rows, N the power of two from d on, orthogonal and of length :math:`\sqrt N`, of three
        turns :math:`H D`: N log N additions for N features, and less variance. Its mean is the kernel's only as d grows (the
        bias is about 0.06 at d = 4 and 0.004 at 16).
    seed : int in [0, 2^64)

    Returns
    -------
    array or tensor [..., k], in the type of x, dense also where x is not

    Raises
    ------
    TypeError
        If x is no float array, or an argument no number.
    ValueError
        If gamma is not positive, kind unknown, or x has no last axis.

    Notes
    -----
    n·d·k operations for n rows ("gaussian"), n·k·log d ("orthogonal"). Rahimi, Recht, "Random features for large-scale kernel
    machines" (2007); Yu et al., "Orthogonal random features" (2016).
    """
    (d, like), gamma = _rows("rff", x), _positive("rff", "gamma", gamma)
    kinds = {"gaussian": "gaussian", "orthogonal": "spinner"}
    if kind not in kinds:
        raise ValueError(f"rff: kind must be 'gaussian' or 'orthogonal', got {kind!r}")
    p = Projection(d, k, kinds[kind], seed=seed, stream=_MATRIX)
    # an angle of 16 bits has lost the turn it is in
    wide = x if like.dtype.itemsize > 2 else x.float() if is_tensor(x) else x.astype("float32")
    y, size, length = p(wide), math.sqrt(2 * gamma * p.k), math.sqrt(2 / p.k)
    if is_tensor(like):
        return rounded((y * size + _phases(y, p.k, p.seed)).cos() * length, like)
    # in place, some rows at a time: what is done to a number is done while it is near
    phases, rows = _phases(y, p.k, p.seed), y.reshape(-1, p.k)
    for part in _parts(rows):
        part *= size
        part += phases
        np.cos(part, out=part)
        part *= length
    return rounded(y, like)


def arccos_features(x: Any, k: int, order: int = 1, *, seed: int = 0) -> Array:
    r"""Features of the arc-cosine kernel: :math:`z_i(x) = \sqrt{2/k}\,\max(w_i\cdot x, 0)^p`, w normal.

    :math:`\mathbb E\langle z(x), z(y)\rangle = \frac1\pi\|x\|^p\|y\|^p J_p(\theta)` with θ the angle between x and y,
    :math:`J_0 = \pi - \theta`, :math:`J_1 = \sin\theta + (\pi - \theta)\cos\theta`,
    :math:`J_2 = 3\sin\theta\cos\theta + (\pi-\theta)(1 + 2\cos^2\theta)`: what a layer of infinitely many units computes.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16; SciPy sparse matrix or `CSR` [n, d]
    k : int
    order : 0, 1 or 2
        The power p: steps, ReLU, squared ReLU. A step has no gradient.
    seed : int in [0, 2^64)

    Returns
    -------
    array or tensor [..., k], in the type of x, dense also where x is not

    Raises
    ------
    TypeError
        If x is no float array, or an argument no integer.
    ValueError
        If order is another, or x has no last axis.

    Notes
    -----
    n·d·k operations for n rows. Cho, Saul, "Kernel methods for deep learning" (2009).
    """
    (d, like), order = _rows("arccos_features", x), whole("arccos_features: order", order)
    if order not in (0, 1, 2):
        raise ValueError(f"arccos_features: order must be 0, 1 or 2, got {order}")
    p = Projection(d, k, seed=seed, stream=_MATRIX)
    # the scale 1/√k of the projection is undone, so that w has variance 1
    root = math.sqrt(2 / p.k) * math.sqrt(p.k) ** order
    y = p(x)
    if order == 0:
        return rounded(cast(torch_module() if is_tensor(y) else np, y > 0, dtype_name(y.dtype)) * root, like)
    y = y.relu() if is_tensor(y) else np.maximum(y, 0)
    return rounded((y if order == 1 else y * y) * root, like)


def tensorsketch(x: Any, k: int, degree: int = 2, gamma: float = 1.0, coef0: float = 0.0, *, seed: int = 0) -> Array:
    r"""Features of the polynomial kernel: :math:`\mathbb E\langle z(x), z(y)\rangle = (\gamma\,x\cdot y + c_0)^p`.

    The p-fold tensor power of :math:`(\sqrt\gamma x, \sqrt{c_0})`, of which no entry is made, goes through a count sketch,
    which is the circular convolution of p count sketches: :math:`z = F^{-1}(F S_1 x \cdots F S_p x)`.

    Parameters
    ----------
    x : array or tensor [..., d], float64 or float32; SciPy sparse matrix or `CSR` [n, d]
    k : int
    degree : int
        The power p, in 1 .. 64.
    gamma : float
        Positive.
    coef0 : float
        :math:`c_0`, not negative.
    seed : int in [0, 2^64)

    Returns
    -------
    array or tensor [..., k], in the type of x, dense also where x is not

    Raises
    ------
    TypeError
        If x is no float array, of 16 bits (of which there are no Fourier transforms), or an argument no number.
    ValueError
        If degree, gamma or coef0 is out of its range, or x has no last axis.

    Notes
    -----
    n·p·(d + k log k) operations for n rows. Pham, Pagh, "Fast and scalable polynomial kernels via explicit feature maps"
    (2013).
    """
    (d, like), degree = _rows("tensorsketch", x), whole("tensorsketch: degree", degree)
    gamma = _positive("tensorsketch", "gamma", gamma)
    coef0 = _positive("tensorsketch", "coef0", coef0, least=0)
    if not 1 <= degree <= 64:
        raise ValueError(f"tensorsketch: degree must be in 1..64, got {degree}")
    if dtype_name(like.dtype) not in ("float64", "float32"):
        raise TypeError(f"tensorsketch: x must be float64 or float32, got {dtype_name(like.dtype)}")
    k = whole("tensorsketch: k", k)
    # the constant is one more column, of which the sketch is one entry of its own
    sketches = [Projection(d + 1, k, "countsketch", seed=seed, stream=stream) for stream in range(degree)]

    def convolved(x: Any, fft: Any) -> Array:
        total: Any = None
        for p in sketches:
            s = p.cols(0, d)(x) * math.sqrt(gamma)
            if coef0:
                one = p.cols(d, d + 1).materialise(like.dtype)[:, 0] * math.sqrt(coef0)
                s = s + (one.to(like.device) if is_tensor(like) else one)
            s = fft.rfft(s)
            total = s if total is None else total * s
        return fft.irfft(total, n=k)

    if is_tensor(like):
        return convolved(x, torch_module().fft)
    fft, y = _fourier(), np.empty((*x.shape[:-1], k), like.dtype)
    many = _many(k)
    rows = x.reshape(-1, d) if x is like else x.tocsr() if is_scipy(x) else x
    for first, part in zip(range(0, rows.shape[0], many), _parts(y.reshape(-1, k)), strict=True):
        part[:] = convolved(rows[first : first + many], fft)
    return y
