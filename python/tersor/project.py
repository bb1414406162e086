r"""Random projections that are never stored, and the fast Walsh–Hadamard transform.

A `Projection` is a :math:`k \times d` random matrix with :math:`\mathbb E\|Px\|^2 = \|x\|^2`, of which a few numbers are kept:
each entry is made from (seed, stream, row, column) where it is needed (the table in `tersor.random` says how). The same
seed gives the same matrix for any number of threads, on any machine, whatever part of it is asked for.

=============  ================================================  ===========================================
kind           entries                                           variance of :math:`\|Px\|^2`, unit x
=============  ================================================  ===========================================
gaussian       normal, variance 1/k                              :math:`2/k`
rademacher     :math:`\pm 1/\sqrt k`                             :math:`(2 - 2\sum x_j^4)/k`
sparse         :math:`\pm\sqrt{s/k}`, one in s, the rest 0       :math:`(2 + (s - 3)\sum x_j^4)/k`
=============  ================================================  ===========================================
"""

from __future__ import annotations

import math
import operator
import sys
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np

from tersor._op import OPS, op
from tersor._sample import Draw
from tersor.random import TAGS, words

__all__ = ["Projection", "fwht", "jl_dim", "project"]

Array = Any

#: the kinds that there are
KINDS = ("gaussian", "rademacher", "sparse")

_MOST = {"d": 2**63 - 1, "k": 2**34, "seed": 2**64 - 1, "stream": 2**24 - 1}


# --- the float64 reference of the entries ---


def _f32(*values: float) -> list[np.float32]:
    return [np.float32(v) for v in values]


_LN = _f32(0.06915147, -0.11789696, 0.118730165, -0.1238437, 0.14218655, -0.1666925, 0.20002227, -0.24999987, 0.3333331)
_LN2_HI, _LN2_LO, _TAU, _TAU_LO = _f32(0.69314575, 1.4286068e-6, 2 * math.pi, -1.7484556e-7)
_SIN = _f32(41.487576, -76.69838, 81.60521, -41.3417)
_COS = _f32(59.245964, -85.44374, 64.93932, -19.739208)


def _polynomial(coefficients: list[np.float32], x: np.ndarray) -> np.ndarray:
    p = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        p = p * x + c
    return p


def _normals(w: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Box and Muller in float32, step by step as the kernels do it, so that the bits are the same."""
    bits = ((w >> 8) + 1).astype(np.float32).view(np.int32) - np.int32(0x3F3504F3)
    e = ((bits >> 23) - 24).astype(np.float32)
    f = ((bits & 0x007FFFFF) + np.int32(0x3F3504F3)).view(np.float32) - np.float32(1)
    f2 = f * f
    small = (f2 * f) * _polynomial(_LN, f) + e * _LN2_LO - np.float32(0.5) * f2
    r = np.sqrt(np.float32(0) - np.float32(2) * (e * _LN2_HI + (f + small)))
    n = (v >> 8).astype(np.int32)
    q = (n + (1 << 21)) >> 22
    t = (n - (q << 22)).astype(np.float32) * np.float32(2.0**-24)
    z = t * t
    sin = t * _TAU + t * (_TAU_LO + z * _polynomial(_SIN, z))
    cos = np.float32(1) + z * _polynomial(_COS, z)
    odd = q & 1 == 1
    x = np.where((q + 1) >> 1 & 1 == 1, -1, 1).astype(np.float32) * np.where(odd, sin, cos)
    y = np.where(q >> 1 & 1 == 1, -1, 1).astype(np.float32) * np.where(odd, cos, sin)
    return r * x, r * y


def _entries(kind: int, seed: int, stream: int, threshold: int, row: int, rows: int, col: int, cols: int) -> np.ndarray:
    """The matrix without its scale, float64."""
    a = np.uint64(col) + np.arange(cols, dtype=np.uint64)
    b = np.uint64(row) + np.arange(rows, dtype=np.uint64)[:, None]

    def word(b: np.ndarray) -> np.ndarray:
        return words(seed, kind, stream, a, b)

    if kind == TAGS["rademacher"]:
        bit = word(b >> np.uint64(5)) >> (b & np.uint64(31)).astype(np.uint32) & 1
        return 1.0 - 2.0 * bit
    if kind == TAGS["sparse"]:
        w = word(b)
        return np.where((w & 0x7FFFFFFF) < threshold, np.where(w >> 31 == 1, -1.0, 1.0), 0.0)
    even = b & ~np.uint64(1)
    cos, sin = _normals(word(even), word(even + np.uint64(1)))
    return np.where(b & np.uint64(1) == 0, cos, sin).astype(np.float64)


# --- the operators ---


def _draw(draw: Draw, d: int, *, adjoint: bool = False) -> dict[str, Any]:
    """The scalars of a matrix that takes rows of d numbers."""
    other, kind = 1 + int(draw.rng.integers(0, 40)), KINDS[draw.seed % 3]
    rows, cols = (d, other) if adjoint else (other, d)
    threshold = int(2**31 / (1 + draw.seed % 7) + 0.5)
    return {
        "kind": TAGS[kind],
        "seed": draw.seed - 2**31,
        "stream": draw.seed % 5,
        "threshold": threshold,
        "row": draw.seed % 130,
        "rows": rows,
        "col": draw.seed % 3 * (2**32 - 7),
        "cols": cols,
        "scale": math.sqrt((2**31 / threshold if kind == "sparse" else 1) / rows),
    }


def _sample(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    adjoint = draw.seed % 2 == 1
    scalars = _draw(draw, draw.d, adjoint=adjoint)
    return [draw.normal(*draw.lead, draw.d)], {**scalars, "adjoint": adjoint}


def _sample_bwd(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    adjoint = draw.seed % 2 == 1
    scalars = _draw(draw, draw.d, adjoint=not adjoint)
    return [draw.normal(*draw.lead, draw.d)], {**scalars, "adjoint": adjoint}


def _shape(x: Array, *, rows: int, cols: int, adjoint: bool = False, **_: Any) -> list[tuple[tuple[int, ...], Any]]:
    return [((*x.shape[:-1], cols if adjoint else rows), x.dtype)]


def _shape_bwd(g: Array, *, rows: int, cols: int, adjoint: bool = False, **_: Any) -> list[tuple[tuple[int, ...], Any]]:
    return [((*g.shape[:-1], rows if adjoint else cols), g.dtype)]


# sums of up to 130 terms of either sign, judged against the largest result or input
_TOLERANCE = {"float64": 64, "float32": 4, "float16": 2, "bfloat16": 2}


@op(meta=_shape, sample=_sample, tolerance=_TOLERANCE, triton_tolerance=128)
def _project(x, kind, seed, stream, threshold, row, rows, col, cols, scale, adjoint=False):
    """Rows of x times the transpose of the matrix (the adjoint: times the matrix)."""
    p = _entries(kind, seed, stream, threshold, row, rows, col, cols)
    return x @ (p if adjoint else p.T) * scale


@op(outputs=("dx",), meta=_shape_bwd, sample=_sample_bwd, tolerance=_TOLERANCE, triton_tolerance=128)
def _project_bwd(g, kind, seed, stream, threshold, row, rows, col, cols, scale, adjoint=False):
    """The gradient of `project` is its adjoint."""
    p = _entries(kind, seed, stream, threshold, row, rows, col, cols)
    return g @ (p.T if adjoint else p) * scale


@op(outputs=("dg",), meta=_shape, sample=_sample, tolerance=_TOLERANCE, triton_tolerance=128)
def _project_bwd_bwd(gg, kind, seed, stream, threshold, row, rows, col, cols, scale, adjoint=False):
    """The gradient of the adjoint is the projection."""
    p = _entries(kind, seed, stream, threshold, row, rows, col, cols)
    return gg @ (p if adjoint else p.T) * scale


def _sample_csr(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    _, scalars = _sample(draw)
    counts = draw.rng.integers(0, 5, math.prod(draw.lead))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    indices = draw.rng.integers(0, draw.d, int(indptr[-1])).astype(np.int32)
    return [draw.normal(len(indices)), indices, indptr], scalars


def _shape_csr(
    data: Array, indices: Array, indptr: Array, *, rows: int, cols: int, adjoint: bool = False, **_: Any
) -> list[tuple[tuple[int, ...], Any]]:
    return [((max(math.prod(indptr.shape) - 1, 0), cols if adjoint else rows), data.dtype)]


@op(meta=_shape_csr, sample=_sample_csr, tolerance=_TOLERANCE)
def _project_csr(data, indices, indptr, kind, seed, stream, threshold, row, rows, col, cols, scale, adjoint=False):
    """`project` of sparse rows: columns that come twice are added up."""
    x = np.zeros((len(indptr) - 1, rows if adjoint else cols))
    at = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr).astype(np.int64))
    np.add.at(x, (at, np.asarray(indices, np.int64)), data)
    return OPS["project"].reference(x, kind, seed, stream, threshold, row, rows, col, cols, scale, adjoint)


def _sample_matrix(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    return [draw.cast(np.empty(0))], _draw(draw, draw.d)


@op(
    meta=lambda like, rows, cols, **_: [((rows, cols), like.dtype)],
    sample=_sample_matrix,
    tolerance={"float64": 1, "float32": 1, "float16": 1, "bfloat16": 1},
)
def _materialise(like, kind, seed, stream, threshold, row, rows, col, cols, scale):
    """The matrix written out, in the dtype of `like`."""
    return _entries(kind, seed, stream, threshold, row, rows, col, cols) * scale


# --- the public face ---


def _integer(name: str, value: Any, least: int) -> int:
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"project: {name} must be an integer, got {type(value).__name__}") from None
    if not least <= value <= _MOST[name]:
        raise ValueError(f"project: {name} must be in {least}..{_MOST[name]}, got {value}")
    return value


def _extents(name: str, x: Any) -> tuple[int, ...]:
    shape = getattr(x, "shape", None)
    if shape is None:
        raise TypeError(f"{name}: x must be a NumPy array or a torch tensor, got {type(x).__name__}")
    return tuple(shape)


@dataclass(frozen=True)
class Projection:
    r"""A random :math:`k \times d` matrix P with :math:`\mathbb E\|Px\|^2 = \|x\|^2`, never stored.

    ``P(x)`` maps ``[..., d]`` to ``[..., k]``. A few numbers describe all of it: it pickles in less than a kilobyte, and equal
    descriptions are equal objects.

    Parameters
    ----------
    d, k : int
        Dimensions from and to.
    kind : "gaussian", "rademacher" or "sparse"
    seed : int in [0, 2^64)
    stream : int in [0, 2^24)
        Further independent matrices of one seed.
    s : float in [1, 2^31]
        Of kind "sparse": one entry in s is not zero. 3 is Achlioptas' choice; the default is :math:`\sqrt d`.

    Raises
    ------
    ValueError
        If a number is out of its range or the kind is unknown; when applied, if the last axis is not d.
    TypeError
        If a number is no number; when applied, if x is not a float array, tensor or SciPy sparse matrix.

    Notes
    -----
    The cost of ``P(x)`` for n rows is n·d·k/s additions (s = 1 for the other kinds) and making d·k entries once per thousand
    rows, or once per call for kind "sparse". float32 data is summed in float64, float64 data with the rounding errors
    kept; a result's error stays below :math:`(\lceil\log_2 d\rceil + 8)\,\epsilon\sum_j|P_{ij}x_j|`. A row of the result
    depends on no other row, on neither threads nor chunks; of kinds "rademacher" and "sparse" the bits are the same on
    any machine with fused multiplication.

    Johnson, Lindenstrauss (1984); Achlioptas, "Database-friendly random projections" (2003); Li, Hastie, Church, "Very
    sparse random projections" (2006).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor.project import Projection
    >>> P = Projection(10_000, 256, "sparse", seed=1)
    >>> P(np.ones((3, 10_000), np.float32)).shape
    (3, 256)
    """

    d: int
    k: int
    kind: str = "gaussian"
    _: KW_ONLY
    seed: int = 0
    stream: int = 0
    s: float | None = None
    #: first and last row, first and last column of a slice
    window: tuple[int, int, int, int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name, least in (("d", 1), ("k", 1), ("seed", 0), ("stream", 0)):
            put(self, name, _integer(name, getattr(self, name), least))
        if self.kind not in KINDS:
            raise ValueError(f"project: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "sparse":
            if self.s is not None and not isinstance(self.s, (int, float, np.integer, np.floating)):
                raise TypeError(f"project: s must be a number, got {type(self.s).__name__}")
            s = math.sqrt(self.d) if self.s is None else float(self.s)
            if not 1 <= s <= 2**31:
                raise ValueError(f"project: s must be in 1..2^31, got {s}")
            put(self, "s", s)
        elif self.s is not None:
            raise ValueError(f"project: s is a parameter of kind 'sparse', not of {self.kind!r}")
        if self.window is None:
            put(self, "window", (0, self.k, 0, self.d))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: (k, d), or those of a slice."""
        a, b, c, d = self._window
        return b - a, d - c

    @property
    def _window(self) -> tuple[int, int, int, int]:
        assert self.window is not None
        return self.window

    def _scalars(self) -> tuple[Any, ...]:
        threshold, size = 1, 1.0
        if self.s is not None:
            threshold = int(2**31 / self.s + 0.5)
            size = 2**31 / threshold
        seed = self.seed - 2**64 if self.seed >= 2**63 else self.seed
        a, b, c, d = self._window
        return TAGS[self.kind], seed, self.stream, threshold, a, b - a, c, d - c, math.sqrt(size / self.k)

    def _apply(self, x: Array, *, adjoint: bool) -> Array:
        if type(x).__module__.partition(".")[0] == "scipy" and hasattr(x, "tocsr"):
            return self._sparse(x, adjoint)
        shape, last = _extents("project", x), self.shape[0 if adjoint else 1]
        if not shape or shape[-1] != last:
            raise ValueError(f"project: the last axis of x must be {last}, got shape {shape}")
        return _project(x, *(*self._scalars(), adjoint))

    def _sparse(self, x: Any, adjoint: bool) -> np.ndarray:
        last = self.shape[0 if adjoint else 1]
        if x.ndim != 2 or x.shape[1] != last:
            raise ValueError(f"project: the last axis of x must be {last}, got shape {tuple(x.shape)}")
        x = x.tocsr()
        return _project_csr(x.data, x.indices, x.indptr, *(*self._scalars(), adjoint))

    def __call__(self, x: Array) -> Array:
        """Px for every row: [..., d] to [..., k], in the dtype of x; a SciPy sparse matrix gives an array."""
        return self._apply(x, adjoint=False)

    def adjoint(self, y: Array) -> Array:
        """Pᵀy for every row: [..., k] to [..., d]."""
        return self._apply(y, adjoint=True)

    def _slice(self, name: str, a: Any, b: Any) -> Projection:
        size = self.shape[0 if name == "rows" else 1]
        a, b = operator.index(a), operator.index(b)
        if not 0 <= a <= b <= size:
            raise ValueError(f"project: {name} must be 0 <= a <= b <= {size}, got {a} and {b}")
        r, _, c, _ = self._window
        if name == "rows":
            return replace(self, window=(r + a, r + b, *self._window[2:]))
        return replace(self, window=(*self._window[:2], c + a, c + b))

    def rows(self, a: int, b: int) -> Projection:
        """The rows a, …, b - 1 of the matrix: ``P.rows(a, b)(x)`` is ``P(x)[..., a:b]``, bit for bit."""
        return self._slice("rows", a, b)

    def cols(self, a: int, b: int) -> Projection:
        """The columns a, …, b - 1: the sum of ``P.cols(a, b)(x[..., a:b])`` over blocks is ``P(x)``, up to rounding."""
        return self._slice("cols", a, b)

    def materialise(self, dtype: Any = np.float64) -> Array:
        """The matrix as an array (of a NumPy dtype or its name) or a tensor (of a torch dtype)."""
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(dtype, torch.dtype):
            return _materialise(torch.empty(0, dtype=dtype), *self._scalars())
        if isinstance(dtype, str) and dtype == "bfloat16":
            import ml_dtypes

            dtype = ml_dtypes.bfloat16
        return _materialise(np.empty(0, dtype), *self._scalars())


def project(x: Array, k: int, kind: str = "sparse", *, seed: int = 0, stream: int = 0, s: float | None = None) -> Array:
    r"""Projects rows to k dimensions: ``Projection(x.shape[-1], k, kind, seed=seed, ...)(x)``.

    Parameters
    ----------
    x : array, tensor or SciPy sparse matrix [..., d], float64, float32, float16 or bfloat16
    k : int
    kind, seed, stream, s : see `Projection`

    Returns
    -------
    array or tensor [..., k], in the dtype of x

    Raises
    ------
    TypeError, ValueError
        As `Projection`; a 0-d array is a ValueError.
    """
    shape = _extents("project", x)
    if not shape:
        raise ValueError("project: x needs a last axis, got a 0-d array")
    return Projection(shape[-1], k, kind, seed=seed, stream=stream, s=s)(x)


def jl_dim(n: int, eps: float = 0.1, *, compat: str | None = None) -> int:
    r"""The least k for which n points keep all their distances: :math:`k \ge 4\ln n/(\epsilon^2/2 - \epsilon^3/3)`.

    Parameters
    ----------
    n : int
        Number of points, at least 1.
    eps : float in (0, 1)
        Squared distances stay within :math:`1 \pm \epsilon`, for some projection and for most.
    compat : None or "sklearn"
        scikit-learn rounds down, which is one too few.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If n or eps is out of its range.

    Notes
    -----
    Dasgupta, Gupta, "An elementary proof of a theorem of Johnson and Lindenstrauss" (2003), theorem 2.1.
    """
    if compat not in (None, "sklearn"):
        raise ValueError(f"jl_dim: compat must be None or 'sklearn', got {compat!r}")
    if not n >= 1:
        raise ValueError(f"jl_dim: n must be at least 1, got {n}")
    if not 0 < eps < 1:
        raise ValueError(f"jl_dim: eps must be in (0, 1), got {eps}")
    k = 4 * math.log(n) / (eps**2 / 2 - eps**3 / 3)
    return int(k) if compat else max(math.ceil(k), 1)


# --- the Walsh-Hadamard transform ---


def _hadamard(n: int) -> np.ndarray:
    """The matrix of order n, float64: H_K ⊗ H_2 ⊗ … ⊗ H_2, and H_K by Paley's second construction where n is no power of 2."""
    odd = n // (n & -n)
    h: Any = np.ones((1, 1))
    if odd > 1:
        q = {3: 5, 5: 9, 7: 13}[odd]
        if q == 9:  # GF(3)[i], a + bi at index a + 3b
            x = np.arange(9)
            re, im = x % 3, x // 3
            squares = {*((re * re + 2 * im * im) % 3 + 3 * (2 * re * im % 3))}
            difference = (re[:, None] - re) % 3 + 3 * ((im[:, None] - im) % 3)
        else:
            squares = {*(np.arange(q) ** 2 % q)}
            difference = (np.arange(q)[:, None] - np.arange(q)) % q
        c = np.ones((q + 1, q + 1))
        c[1:, 1:] = np.where(np.isin(difference, list(squares)), 1, -1)
        np.fill_diagonal(c, 0)
        h = np.kron(c, [[1, 1], [1, -1]]) + np.kron(np.eye(q + 1), [[1, -1], [-1, -1]])
    while len(h) < n:
        h = np.kron(h, [[1, 1], [1, -1]])
    return h


def _sample_fwht(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
    sizes = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 64, 80, 96, 112, 128)
    n = sizes[draw.d % len(sizes)]
    return [draw.normal(*draw.lead, n)], {"ortho": draw.seed % 2 == 1}


_FWHT = {"float64": 512, "float32": 512, "float16": 128, "bfloat16": 128}


def _transform(x: np.ndarray, ortho: bool) -> np.ndarray:
    n = x.shape[-1]
    return x @ _hadamard(n) / (math.sqrt(n) if ortho else 1)


@op(sample=_sample_fwht, tolerance=_FWHT, triton_tolerance=512)
def _fwht(x, ortho=False):
    """The transform over the last axis."""
    return _transform(x, ortho)


@op(outputs=("dx",), sample=_sample_fwht, tolerance=_FWHT, triton_tolerance=512)
def _fwht_bwd(g, ortho=False):
    """The transform is symmetric: it is its own adjoint."""
    return _transform(g, ortho)


@op(outputs=("dg",), sample=_sample_fwht, tolerance=_FWHT, triton_tolerance=512)
def _fwht_bwd_bwd(gg, ortho=False):
    """As `fwht`."""
    return _transform(gg, ortho)


def fwht(x: Array, axis: int = -1, norm: str | None = None, out: Array = None) -> Array:
    r"""Fast Walsh–Hadamard transform along an axis, :math:`y = H_n x`.

    For :math:`n = 2^m` in Sylvester's order, :math:`H_{2n} = \begin{pmatrix} H_n & H_n \\ H_n & -H_n \end{pmatrix}`; for
    :math:`n = K 2^m` with K = 12, 20, 28 it is :math:`H_K \otimes H_{2^m}` with Paley's symmetric :math:`H_K`.

    Parameters
    ----------
    x : array or tensor, float64, float32, float16 or bfloat16
    axis : int
        Of length 2^m, 12·2^m, 20·2^m or 28·2^m.
    norm : None or "ortho"
        "ortho" divides by :math:`\sqrt n`: an orthogonal matrix, which is its own inverse.
    out : array or tensor like x, contiguous
        May be x itself.

    Returns
    -------
    array or tensor like x

    Raises
    ------
    TypeError
        If x is not a float array, or out has another dtype.
    ValueError
        If the axis has another length, x is 0-d, norm is unknown or out has another shape; AxisError if there is no such axis.

    Notes
    -----
    n log₂ n additions per row; rows that fit in the first caches cost one read and one write of memory. The sums are taken
    in the same order whatever the blocking. The 16-bit types are transformed in float32 and rounded once. Fino, Algazi,
    "Unified matrix treatment of the fast Walsh-Hadamard transform" (1976); Paley, "On orthogonal matrices" (1933).
    """
    if norm not in (None, "ortho"):
        raise ValueError(f"fwht: norm must be None or 'ortho', got {norm!r}")
    ortho, ndim = norm == "ortho", len(_extents("fwht", x))
    if ndim == 0:
        raise ValueError("fwht: x needs an axis, got a 0-d array")
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim, "fwht")
    if axis in (-1, ndim - 1):
        return _fwht(x, ortho, **({} if out is None else {"out": out}))
    y = _fwht(x.swapaxes(axis, -1), ortho).swapaxes(axis, -1)
    if out is None:
        return y
    if isinstance(x, np.ndarray):
        OPS["fwht"].check_out([out], [(x.shape, x.dtype)], np.ndarray, lambda v: v.dtype.name)
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError("fwht: out must be C-contiguous and writable")
        out[...] = y
    else:
        import torch

        if y.requires_grad:
            raise RuntimeError("fwht: out= does not support automatic differentiation")
        OPS["fwht"].check_out([out], [(x.shape, x.dtype)], torch.Tensor, lambda v: str(v.dtype).rpartition(".")[2])
        if not out.is_contiguous():
            raise ValueError("fwht: out must be contiguous")
        out.copy_(y)
    return out
