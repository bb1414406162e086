"""Thresholds of what is met in parts. The one rule: histograms merged in any order are one of the whole."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranked import cases
from tersor.prune import MagnitudeHistogram


@given(cases(), st.randoms(use_true_random=False), st.data())
def test_histograms_merge(case, random, data):
    arrays, k = case
    names = {a.dtype.name for a in arrays}
    n = sum(a.size for a in arrays)
    several = data.draw(st.booleans())
    ks = [k, *data.draw(st.lists(st.integers(0, n), max_size=4))] if several else k
    whole = MagnitudeHistogram(list(names), ks)
    rounds = 0
    while not whole.done:
        parts = [pickle.loads(pickle.dumps(whole)) for _ in arrays]
        for part, a in zip(parts, arrays, strict=True):
            part.update(a)
        random.shuffle(parts)
        for part in parts:
            whole.merge(part)
        whole.advance()
        rounds += 1
    # a round for every 16 bits that decide; several k share one budget of memory and spend rounds instead
    fewest = {16: 1, 32: 2, 64: 4}[whole.order.width]
    assert rounds <= (2 * fewest if several else fewest)
    flat = np.sort(np.concatenate([np.abs(np.asarray(a, np.float64)).ravel() for a in arrays]))
    want = [float(flat[v - 1]) if v else None for v in (ks if several else [ks])]
    assert whole.threshold == (want if several else want[0])


def test_a_few_megabytes_for_any_number_of_ranks():
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    h = MagnitudeHistogram("float32", list(range(0, 100_000, 1000)))
    sizes = []
    while not h.done:
        sizes.append(h.counts.nbytes)
        h.update(x)
        h.advance()
    assert max(sizes) <= 2 << 20
    flat = np.sort(np.abs(x))
    assert h.threshold == [float(flat[k - 1]) if k else None for k in h.k]


def test_histogram_as_documented():
    x = torch.randn(1000)
    h = MagnitudeHistogram(torch.float32, 500)
    while not h.done:
        h.update(x[:300])
        h.update(x[300:].numpy())
        torch.from_numpy(h.counts).mul_(1)  # what an all-reduce does
        h.advance()
    assert h.threshold == x.abs().kthvalue(500).values.item()
    with pytest.raises(ValueError, match="done"):
        h.update(x)
    with pytest.raises(ValueError, match="done"):
        h.advance()
    other = MagnitudeHistogram("float32", 3)
    with pytest.raises(ValueError, match="not done"):
        _ = other.threshold
    with pytest.raises(ValueError, match="same search"):
        other.merge(h)
    other.update(x[:2])
    with pytest.raises(ValueError, match="k = 3 of 2"):
        copy.deepcopy(other).advance()
    for bad, error in ((-1, ValueError), (True, TypeError), (2.0, TypeError), ("3", TypeError)):
        with pytest.raises(error):
            MagnitudeHistogram("float32", bad)
    with pytest.raises(TypeError, match="floats"):
        MagnitudeHistogram("int8", 3)
