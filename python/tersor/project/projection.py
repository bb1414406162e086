"""Random projections as users hold them. The one rule: a projection is its description, and equal ones are equal."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tersor._arrays import FLOATS, is_tensor, numpy_type
from tersor._matrix import Matrix, SparseMatrix, turned
from tersor._values import called, check_values, float_name, signed_word
from tersor.project._entries import extents
from tersor.project._forms import KINDS, TRANSFORMS, bits
from tersor.project._numbers import OWN, Window, check_sizes, checked_window, integer, own
from tersor.project._operators import _materialise, _project, _project_csr, _project_transform
from tersor.random import TAGS

Array = Any


def is_scipy(x: Any) -> bool:
    """Whether x is one of SciPy's sparse matrices, without importing SciPy."""
    return type(x).__module__.partition(".")[0] == "scipy" and hasattr(x, "tocsr")


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Projection(Matrix):
    r"""A random :math:`k \times d` matrix P with :math:`\mathbb E\|Px\|^2 = \|x\|^2`, never stored.

    ``P(x)`` maps ``[..., d]`` to ``[..., k]``, row by row; ``P @ x`` is the product with columns, ``x @ P`` the adjoint's.
    A few numbers describe all of it: it pickles in less than a kilobyte, equal descriptions are equal objects,
    ``dataclasses.replace`` gives another one (``given`` and ``window`` are what it passes on, and nothing to give), and the
    repr is Python that makes an equal one.

    Parameters
    ----------
    d, k : int
        Dimensions from and to.
    kind : "gaussian", "rademacher", "sparse", "countsketch", "osnap", "srht", "spinner" or "fastfood"
        See the head of `tersor.project`.
    seed : int in [0, 2^64)
    stream : int in [0, 2^24)
        Further independent matrices of one seed.
    s : float in [1, 2^31]
        Of kind "sparse": one entry in s is not zero. 3 is Achlioptas' choice; the default is :math:`\sqrt d`, so that
        another d is another matrix: give s where columns will be added, and those there are stay as they are.
    c : int
        Of kind "osnap": nonzeros of a column, which divide k; 4 if not given.
    blocks : int in 1 .. 3
        Of kind "spinner": turns H D, one after another; 3 if not given.
    g : "gaussian" or "rademacher"
        Of kind "fastfood": what its diagonal G is made of. Signs make it orthogonal where k is a power of two and d <= k.

    Raises
    ------
    ValueError
        If a number is out of its range or the kind is unknown; when applied, if the last axis is not d.
    TypeError
        If a number is no number; when applied, if x is not a float array, a dense tensor, a SciPy sparse matrix or a `CSR`.

    Notes
    -----
    The cost of ``P(x)`` for n rows is n·d·k/s additions (s = 1 for "gaussian" and "rademacher") and making d·k entries once
    per thousand rows, or once per call for kind "sparse"; n·d·c additions of kinds "countsketch" (c = 1) and "osnap";
    N log₂ N additions a row for the kinds made of transforms, N the power of two from d on ("srht"; as many for every turn
    and every N rows of a "spinner") or from max(d, k) on ("fastfood"). These compute in the type of the data, which for 16
    bits is float32; of the others, float32 data is summed in float64, float64 data with the rounding errors
    kept; a result's error stays below :math:`(\lceil\log_2 d\rceil + 8)\,\epsilon\sum_j|P_{ij}x_j|`. A row of the result
    depends on no other row, on neither threads nor chunks; of kinds "rademacher" and "sparse" the bits are the same on
    any machine with fused multiplication. "srht" and "fastfood" know d and k: another k is another matrix of the second.

    Johnson, Lindenstrauss (1984); Achlioptas, "Database-friendly random projections" (2003); Li, Hastie, Church, "Very
    sparse random projections" (2006); Charikar, Chen, Farach-Colton, "Finding frequent items in data streams" (2002);
    Nelson, Nguyen, "OSNAP" (2013); Tropp, "Improved analysis of the subsampled randomized Hadamard transform" (2011);
    Bojarski et al., "Structured adaptive and random spinners" (2017); Le, Sarlós, Smola, "Fastfood" (2013), in the form of
    Li et al., "Measuring the intrinsic dimension of objective landscapes" (2018).

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
    seed: int = field(default=0, kw_only=True)
    stream: int = field(default=0, kw_only=True)
    # what was given, not what follows from it: that is made anew when a field is replaced
    given: tuple[str, Any] | None = field(default=None, kw_only=True, repr=False)
    window: Window | None = field(default=None, kw_only=True, repr=False)

    def __init__(
        self,
        d: int,
        k: int,
        kind: str = "gaussian",
        *,
        seed: int = 0,
        stream: int = 0,
        s: float | None = None,
        c: int | None = None,
        blocks: int | None = None,
        g: str | None = None,
        given: tuple[str, Any] | None = None,
        window: Sequence[int | None] | None = None,
    ) -> None:
        put = object.__setattr__
        for name, value, least in (("d", d, 1), ("k", k, 1), ("seed", seed, 0), ("stream", stream, 0)):
            put(self, name, integer(name, value, least))
        if not isinstance(kind, str):
            raise TypeError(f"project: kind must be a string, got {type(kind).__name__}")
        if kind not in KINDS:
            raise ValueError(f"project: kind must be one of {', '.join(KINDS)}, got {kind!r}")
        put(self, "kind", str(kind))
        check_sizes(kind, self.d, self.k)
        mine = OWN[kind][0] if kind in OWN else None
        offered: dict[str, Any] = {"s": s, "c": c, "blocks": blocks, "g": g}
        for said, value in offered.items():
            if value is None:
                continue
            if said != mine:
                owner = next(k for k, (theirs, _) in OWN.items() if theirs == said)
                raise ValueError(f"project: {said} is a parameter of kind {owner!r}, not of {kind!r}")
            given = said, value
        # what stands in a projection of one kind means nothing to one made of it of another kind
        put(self, "given", (mine, own(kind, given[1], self.k)) if given is not None and given[0] == mine else None)
        if kind == "osnap" and self.given is None:
            own(kind, self.c, self.k)
        put(self, "window", checked_window(window, self.k, self.d))

    def _own(self, name: str) -> Any:
        """The parameter that a kind has of its own: as given, or what it is otherwise. None for other kinds."""
        if OWN.get(self.kind, ("",))[0] != name:
            return None
        if self.given is not None:
            return self.given[1]
        return math.sqrt(self.d) if name == "s" else OWN[self.kind][1]

    @property
    def s(self) -> float | None:
        """One entry in s is not zero, of kind "sparse": as given, or :math:`\\sqrt d`. None for other kinds."""
        return self._own("s")

    @property
    def c(self) -> int | None:
        """Nonzeros of a column of kind "osnap". None for other kinds."""
        return self._own("c")

    @property
    def blocks(self) -> int | None:
        """Turns of kind "spinner". None for other kinds."""
        return self._own("blocks")

    @property
    def g(self) -> str | None:
        """What the diagonal of kind "fastfood" is made of. None for other kinds."""
        return self._own("g")

    def _key(self) -> tuple[Any, ...]:
        own_number = self.s, self.c, self.blocks, self.g
        return self.d, self.k, self.kind, self.seed, self.stream, own_number, self.window

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Projection) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        name = OWN[self.kind][0] if self.kind in OWN else ""
        own = f", {name}={self._own(name)!r}" if name else ""
        whole = f"Projection(d={self.d}, k={self.k}, kind={self.kind!r}, seed={self.seed}, stream={self.stream}{own})"
        a, b, c, d = self.window or (None,) * 4
        return whole + ("" if a is None else f".rows({a}, {b})") + ("" if c is None else f".cols({c}, {d})")

    def __setstate__(self, state: dict[str, Any]) -> None:
        Projection.__init__(self, **state)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: (k, d), or those of a slice."""
        a, b, c, d = self._window
        return b - a, d - c

    @property
    def _window(self) -> tuple[int, int, int, int]:
        a, b, c, d = self.window or (None,) * 4
        rows = (0, self.k) if a is None or b is None else (a, b)
        return (*rows, 0, self.d) if c is None or d is None else (*rows, c, d)

    def _scalars(self) -> tuple[Any, ...]:
        number, scale = self._number()
        a, b, c, d = self._window
        return TAGS[self.kind], signed_word(self.seed), self.stream, number, a, b - a, c, d - c, scale

    def _number(self) -> tuple[int, float]:
        """What the operators must know of the kind beside the seed, as one number, and the scale of results."""
        if self.s is not None:
            threshold = int(2**31 / self.s + 0.5)
            return threshold, math.sqrt(2**31 / threshold / self.k)
        if self.kind in ("countsketch", "osnap"):
            c = self.c or 1
            return c << 32 | self.k // c, 1 / math.sqrt(c)
        wide = bits(self.d)
        number = {"srht": wide, "spinner": wide | (self.blocks or 0) << 8}.get(self.kind, 1)
        if self.kind == "fastfood":
            number = max(wide, bits(self.k)) | wide << 8 | (self.g == "rademacher") << 16
        return number, 1 / math.sqrt(self.k)

    def _apply(self, x: Array, *, adjoint: bool) -> Array:
        last = self.shape[0 if adjoint else 1]
        if isinstance(x, SparseMatrix):
            return self._sparse(x, x._data, x._pattern.indices, x._pattern.indptr, last, adjoint)
        if is_scipy(x):
            if x.ndim != 2:
                raise ValueError(f"project: a sparse x must have two axes, got shape {tuple(x.shape)}")
            x = x.tocsr()
            return self._sparse(x, x.data, x.indices, x.indptr, last, adjoint)
        check_values("project", "x", x)
        shape = extents("project", x)
        if not shape or shape[-1] != last:
            raise ValueError(f"project: the last axis of x must be {last}, got shape {shape}")
        op = _project_transform if self.kind in TRANSFORMS else _project
        return op(x, *(*self._scalars(), adjoint))

    def _sparse(self, x: Any, data: Array, indices: Array, indptr: Array, last: int, adjoint: bool) -> Array:
        check_values("project", "x", data)
        if x.shape[1] != last:
            raise ValueError(f"project: the last axis of x must be {last}, got shape {tuple(x.shape)}")
        if is_tensor(data) and data.requires_grad:
            raise NotImplementedError(
                "project: the values of a CSR get no gradient; detach() it, or project its to_dense()"
            )
        return called("project", _project_csr, data, indices, indptr, *(*self._scalars(), adjoint))

    def __call__(self, x: Array) -> Array:
        """Px for every row: [..., d] to [..., k], in the dtype of x; SciPy sparse matrices and `CSR` give a dense result."""
        return self._apply(x, adjoint=False)

    def adjoint(self, y: Array) -> Array:
        """Pᵀy for every row: [..., k] to [..., d]."""
        return self._apply(y, adjoint=True)

    def __matmul__(self, x: Array) -> Array:
        """The matrix times x: [d] to [k], [..., d, n] to [..., k, n]."""
        if isinstance(x, SparseMatrix) or is_scipy(x):
            return turned(self(x.T))
        check_values("Projection @ x", "x", x)
        rows, cols = self.shape
        if not x.ndim or x.shape[-2 if x.ndim > 1 else 0] != cols:
            raise ValueError(f"Projection @ x: x has shape {tuple(x.shape)}, the matrix {rows} rows and {cols} columns")
        return turned(self(turned(x)))

    def __rmatmul__(self, x: Array) -> Array:
        """x times the matrix: [..., k] to [..., d], as `adjoint`."""
        check_values("x @ Projection", "x", x)
        rows, cols = self.shape
        if not x.ndim or x.shape[-1] != rows:
            raise ValueError(f"x @ Projection: x has shape {tuple(x.shape)}, the matrix {rows} rows and {cols} columns")
        return self.adjoint(x)

    def _slice(self, name: str, a: Any, b: Any) -> Projection:
        size = self.shape[0 if name == "rows" else 1]
        try:
            a, b = operator.index(a), operator.index(b)
        except TypeError:
            kinds = " and ".join(type(v).__name__ for v in (a, b))
            raise TypeError(f"project: {name} takes two integers, got {kinds}") from None
        if not 0 <= a <= b <= size:
            raise ValueError(f"project: {name} must be 0 <= a <= b <= {size}, got {a} and {b}")
        r, _, c, _ = self._window
        mine = self.window or (None,) * 4
        if name == "rows":
            return replace(self, window=(r + a, r + b, *mine[2:]))
        return replace(self, window=(*mine[:2], c + a, c + b))

    def rows(self, a: int, b: int) -> Projection:
        """The rows a, …, b - 1 of the matrix: ``P.rows(a, b)(x)`` is ``P(x)[..., a:b]``, bit for bit."""
        return self._slice("rows", a, b)

    def cols(self, a: int, b: int) -> Projection:
        """The columns a, …, b - 1: the sum of ``P.cols(a, b)(x[..., a:b])`` over blocks is ``P(x)``, up to rounding."""
        return self._slice("cols", a, b)

    def materialise(self, dtype: Any = np.float64) -> Array:
        """The matrix as an array (of a NumPy dtype or its name) or a tensor (of a torch dtype)."""
        if float_name(dtype) not in FLOATS:
            names = ", ".join(FLOATS[:-1])
            raise TypeError(f"materialise: dtype must be {names} or {FLOATS[-1]}, got {float_name(dtype)}")
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(dtype, torch.dtype):
            return _materialise(torch.empty(0, dtype=dtype), *self._scalars())
        return _materialise(np.empty(0, numpy_type(dtype)), *self._scalars())


def project(
    x: Any,
    k: int,
    kind: str = "sparse",
    *,
    seed: int = 0,
    stream: int = 0,
    s: float | None = None,
    c: int | None = None,
    blocks: int | None = None,
    g: str | None = None,
) -> Array:
    r"""Projects rows to k dimensions: ``Projection(x.shape[-1], k, kind, seed=seed, ...)(x)``.

    Parameters
    ----------
    x : array, tensor, SciPy sparse matrix or CSR [..., d], float64, float32, float16 or bfloat16
    k : int
    kind, seed, stream, s, c, blocks, g : see `Projection`

    Returns
    -------
    array or tensor [..., k], in the dtype of x

    Raises
    ------
    TypeError, ValueError
        As `Projection`; a 0-d array is a ValueError.
    """
    if is_tensor(x):
        check_values("project", "x", x)
    shape = extents("project", x)
    if not shape:
        raise ValueError("project: x needs a last axis, got a 0-d array")
    return Projection(shape[-1], k, kind, seed=seed, stream=stream, s=s, c=c, blocks=blocks, g=g)(x)
