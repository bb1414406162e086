"""What tersor is tested with, for users to test their own code against it (extra ``testing``: Hypothesis).

`draws` makes the inputs of any operator of the registry; `rows`, `ball_points`, `codes` and `csr` are plain arrays;
`reference` is an operator's float64 reference; `ulps` and `assert_close` compare with the resolution of a dtype in mind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tersor._arrays import dtype_name
from tersor._op import OPS, Op
from tersor._sample import Draw

__all__ = [
    "EPS",
    "LEAST",
    "assert_close",
    "ball_points",
    "codes",
    "csr",
    "draws",
    "reference",
    "rows",
    "ulps",
]

#: distance from 1 to the next number
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

#: the least positive number
LEAST = {"float64": 5e-324, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}

_LEADS = st.one_of(
    st.just(()),
    st.tuples(st.integers(0, 70)),
    st.tuples(st.integers(0, 4), st.integers(0, 9)),
)


def draws(dtype: str = "float64", *, max_scale: float = 3.0) -> st.SearchStrategy[Draw]:
    """Draws for the samples of the registry: empty, one element, tails, tiny and large scales, flat and curved."""
    return st.builds(
        Draw,
        seed=st.integers(0, 2**32 - 1),
        dtype=st.just(dtype),
        lead=_LEADS,
        d=st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 127, 128, 130])),
        scale=st.one_of(st.floats(0.01, max_scale), st.sampled_from([0.0, 1e-6, 1e-3])),
        c=st.one_of(st.floats(0.05, 2.0), st.sampled_from([0.0, 1e-9, 1.0])),
        c_rows=st.booleans(),
    )


def rows(dtype: str = "float64", *, scale: float = 1.0) -> st.SearchStrategy[np.ndarray]:
    """Arrays ``[..., d]`` of Gaussian rows."""
    return draws(dtype).map(lambda w: w.cast(w.rng.standard_normal((*w.lead, w.d)) * scale))


def ball_points(dtype: str = "float64", c: float = 1.0, *, radius: float = 3.0) -> st.SearchStrategy[np.ndarray]:
    """Points of the ball of curvature -c at distance up to `radius` from its centre."""

    def points(w: Draw) -> np.ndarray:
        x = w.rng.standard_normal((*w.lead, w.d))
        norm = np.linalg.norm(x, axis=-1, keepdims=True)
        root = np.sqrt(c) if c else 1.0
        r = np.tanh(root * w.rng.uniform(0, radius, (*w.lead, 1)) / 2) / root
        return w.cast(x / np.where(norm > 0, norm, 1) * r)

    return draws(dtype).map(points)


def codes(bits: int, *, signed: bool = False) -> st.SearchStrategy[np.ndarray]:
    """Arrays of `bits`-bit codes, one per byte."""
    low, kind = (-(1 << bits - 1), np.int8) if signed else (0, np.uint8)
    return draws().map(lambda w: w.rng.integers(low, low + (1 << bits), (*w.lead, w.d)).astype(kind))


def csr(
    dtype: str = "float64",
) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]]:
    """(data, indices, indptr, shape): empty rows, unsorted and repeated columns among them."""

    def build(w: Draw) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
        m, n = int(w.rng.integers(0, 40)), w.d
        counts = w.rng.integers(0, 2 + int(w.rng.integers(0, n + 1)), m)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(w.rng.choice(["int32", "int64"]))
        indices = w.rng.integers(0, n, int(indptr[-1])).astype(indptr.dtype)
        return w.normal(len(indices)), indices, indptr, (m, n)

    return draws(dtype).map(build)


def reference(operator: str | Callable[..., Any]) -> Callable[..., Any]:
    """The float64 reference of an operator, given by name or as the public function."""
    spec: Op = OPS[operator] if isinstance(operator, str) else operator.op  # type: ignore[attr-defined]
    return spec.reference


def ulps(got: Any, want: Any, dtype: str | None = None) -> np.ndarray:
    """``abs(got - want)`` in units of the last place of `want` in `dtype` (that of `got`), entry by entry.

    Two NaN, and two infinities of one sign, are 0 apart.
    """
    name = dtype or np.asarray(got).dtype.name
    least = LEAST[name]
    g, w = np.asarray(got, np.float64), np.asarray(want, np.float64)
    with np.errstate(all="ignore"):
        ulp = np.maximum(2.0 ** np.floor(np.log2(np.abs(w))) * EPS[name], least)
        apart = np.abs(g - w) / ulp
    same = (np.isnan(g) & np.isnan(w)) | (g == w)
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def assert_close(got: Any, want: Any, tolerance: float, *, scale: Any = None) -> None:
    """Entries within ``tolerance * max(scale, largest |want|)``; NaN and infinities in the same places.

    Below its normal range a dtype has no relative precision: its least number is allowed on top.
    """
    least = LEAST.get(dtype_name(np.asarray(got).dtype), 0.0)
    g, w = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert g.shape == w.shape, f"shape {g.shape}, expected {w.shape}"
    if g.size == 0:
        return
    finite = np.isfinite(w)
    assert (np.isfinite(g) == finite).all(), "not finite in different places"
    top = np.max(np.abs(w[finite]), initial=0.0 if scale is None else float(scale))
    error = np.max(np.abs(g[finite] - w[finite]), initial=0.0)
    assert error <= tolerance * top + least, f"off by {error:.3g}, allowed {tolerance:.3g} of {top:.3g}"
