"""Arrays to prune, and the sort that says which of their numbers go. The one rule: of equal magnitudes the first are kept."""

import ml_dtypes
import numpy as np
import torch
from hypothesis import strategies as st

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def tensor(x):
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    return torch.tensor(x)


def fill(rng, kind, shape, dtype):
    """Numbers of every temper: spread, ties, zeros of both signs, denormals, all equal, large."""
    x = rng.standard_normal(shape)
    x = {
        "spread": lambda: x,
        "ties": lambda: np.round(2 * x),
        "two values": lambda: np.where(x > 0, 1.5, -0.5),
        "zeros": lambda: np.where(x > 0, 0.0, -0.0),
        "equal": lambda: np.full(shape, -0.25),
        "sparse": lambda: np.where(x > 1, x, 0),
        "denormal": lambda: x * float(ml_dtypes.finfo(dtype).smallest_subnormal) * 4,
        "large": lambda: np.clip(x, -1, 1) * float(ml_dtypes.finfo(dtype).max),
    }[kind]()
    return np.asarray(x).astype(dtype)


KINDS = ["spread", "ties", "two values", "zeros", "equal", "sparse", "denormal", "large"]


def oracle(arrays, k, *, protect=None, high=False):
    """Masks by the definition: protect the top of each array, prune the first k of the rest."""
    flat = np.concatenate([np.abs(np.asarray(a, np.float64)).ravel() for a in arrays] or [np.zeros(0)])
    index = np.arange(flat.size) if high else -np.arange(flat.size)
    order = np.lexsort((index, flat))
    safe = np.zeros(flat.size, bool)
    at = 0
    for a, m in zip(arrays, protect or [0] * len(arrays), strict=True):
        mine = order[(order >= at) & (order < at + a.size)]
        safe[mine[mine.size - min(m, a.size) :]] = True
        at += a.size
    mask = np.ones(flat.size, bool)
    mask[order[~safe[order]][:k]] = False
    return [
        m.reshape(a.shape)
        for m, a in zip(np.split(mask, np.cumsum([a.size for a in arrays])[:-1]), arrays, strict=True)
    ]


def same(got, want):
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        g = g.numpy() if isinstance(g, torch.Tensor) else g
        assert g.dtype == bool and g.shape == w.shape
        np.testing.assert_array_equal(g, w)


SHAPES = st.lists(
    st.one_of(st.just(()), st.tuples(st.integers(0, 131)), st.tuples(st.integers(0, 5), st.integers(0, 40))),
    min_size=1,
    max_size=5,
)


@st.composite
def cases(draw, kinds=None):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(st.sampled_from(kinds or list(DTYPES)), min_size=1, max_size=2))
    arrays = [
        fill(rng, draw(st.sampled_from(KINDS)), shape, DTYPES[names[i % len(names)]])
        for i, shape in enumerate(draw(SHAPES))
    ]
    n = sum(a.size for a in arrays)
    return arrays, draw(st.one_of(st.integers(0, n), st.sampled_from([0, n // 2, n])))
