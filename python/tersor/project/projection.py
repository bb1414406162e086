"""Random projections as users hold them. The one rule: a projection is its description, and equal ones are equal."""

from __future__ import annotations

import math
import operator
import sys
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np

from tersor.project._entries import KINDS, extents
from tersor.project._operators import _materialise, _project, _project_csr
from tersor.random import TAGS

Array = Any

_MOST = {"d": 2**63 - 1, "k": 2**34, "seed": 2**64 - 1, "stream": 2**24 - 1}


def _integer(name: str, value: Any, least: int) -> int:
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"project: {name} must be an integer, got {type(value).__name__}") from None
    if not least <= value <= _MOST[name]:
        raise ValueError(f"project: {name} must be in {least}..{_MOST[name]}, got {value}")
    return value


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
        shape, last = extents("project", x), self.shape[0 if adjoint else 1]
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
    shape = extents("project", x)
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
