"""Equal rows and the information that they hold. The one rule: it is that of counting."""

import math

import numpy as np
import pytest
import torch
from drawn import LIBRARIES, draw
from hypothesis import given
from hypothesis import strategies as st
from tersor import metrics, reduce


@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 20), st.sampled_from(["u1", "i2", "i8", "?", "i4"]))
def test_ids_of_rows(seed, n, width, kind):
    rows = draw(seed).integers(0, 2, (n, width)).astype(kind)
    got = reduce.row_ids(rows)
    seen = {}
    want = [seen.setdefault(row.tobytes(), len(seen)) for row in rows]
    assert got.ids.tolist() == want
    assert got.first.tolist() == [want.index(i) for i in range(len(seen))]
    assert got.counts.tolist() == [want.count(i) for i in range(len(seen))]


def test_rows_that_share_a_key_are_told_apart():
    """The words are those that give two rows the same 64 bits, after what the first word made of them."""
    factor, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    mixed = [key ^ key >> 29 for key in ((word * factor) & mask for word in (1, 2))]
    rows = np.array([[1, 5 ^ mixed[0]], [2, 5 ^ mixed[1]]] * 3, np.uint64).view(np.int64)
    assert reduce.row_ids(rows).ids.tolist() == [0, 1] * 3
    assert reduce.row_ids(torch.from_numpy(rows)).counts.tolist() == [3, 3]


@pytest.mark.parametrize("width", [1, 7, 8, 9])
def test_ids_of_many_rows(width):
    rows = draw(14).integers(0, 9, (50_000, width)).astype(np.int16)
    got, want = reduce.row_ids(rows), np.unique(rows, axis=0, return_index=True, return_counts=True)
    order = np.argsort(want[1])
    assert (got.first == want[1][order]).all() and (got.counts == want[2][order]).all()
    assert (rows[got.first[got.ids]] == rows).all()
    gaps = np.repeat(rows, 2, 1)[::-1, ::2]
    assert (reduce.row_ids(gaps).ids == reduce.row_ids(gaps.copy()).ids).all()


def entropy(items):
    n = len(items)
    counts = {}
    for i in items:
        counts[i] = counts.get(i, 0) + 1
    return -sum(c / n * math.log2(c / n) for c in counts.values())


@LIBRARIES
def test_information_is_that_of_counting(library):
    t, y = draw().standard_normal((150, 2)), draw(1).integers(-2, 3, 150)
    low, high, n = -1.0, 1.5, 4
    edges = [low + (high - low) * k / n for k in range(1, n)]
    states = [tuple(sum(e <= v for e in edges) for v in row) for row in t]
    h = entropy(states)
    given_y = sum((y == c).mean() * entropy([s for s, l in zip(states, y, strict=True) if l == c]) for c in set(y))
    got = metrics.binned_mutual_information(library(t), library(y), n_bins=n, range=(low, high))
    assert math.isclose(got.h_t, h, rel_tol=1e-13) and got.h_t == got.i_xt
    assert math.isclose(got.i_ty, h - given_y, rel_tol=1e-12)
    alone = metrics.binned_mutual_information(library(t), n_bins=n, range=(low, high))
    assert float(alone.h_t) == float(got.h_t) and math.isnan(alone.i_ty)


def test_information_of_what_is_known():
    y = np.repeat(np.arange(8), 3)
    got = metrics.binned_mutual_information(y[:, None].astype(np.float32), y, n_bins=8)
    assert got.h_t == got.i_ty == 3
    assert metrics.binned_mutual_information(np.full((7, 3), 0.3), y[:7]) == (0, 0, 0)
    wide = metrics.binned_mutual_information(np.array([[-5.0], [0.2], [9.0]]), n_bins=2, range=(0, 1))
    assert math.isclose(wide.h_t, entropy([0, 0, 1]))
    for bad in (np.array([[np.nan]]), np.array([[np.inf]])):
        with pytest.raises(ValueError, match="activations holds non-finite"):
            metrics.binned_mutual_information(bad)
    with pytest.raises(ValueError, match="activations has no rows"):
        metrics.binned_mutual_information(np.zeros((0, 2)))
