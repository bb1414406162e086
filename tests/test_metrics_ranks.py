"""Correlations of ranks. The one rule: they are scipy's, of every type and of ties."""

import math

import numpy as np
import pytest
import torch
from drawn import LIBRARIES, draw
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tersor import metrics

NUMBERS = st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 1.0, 1.5, np.inf])


def equal(got, want, within=1e-14):
    assert (math.isnan(got) and math.isnan(want)) or abs(got - want) <= within, (got, want)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=40))
@pytest.mark.filterwarnings("ignore")
def test_ranks_are_scipys(pairs):
    x, y = np.array(pairs).T
    equal(metrics.spearman_corrcoef(x, y), stats.spearmanr(x, y).statistic)
    for variant in "bc":
        equal(metrics.kendall_rank_corrcoef(x, y, variant), stats.kendalltau(x, y, variant=variant).statistic)
    signs = np.sign(x[:, None] - x + 0, where=x[:, None] != x, out=np.zeros((len(x),) * 2))
    signs *= np.sign(y[:, None] - y, where=y[:, None] != y, out=np.zeros((len(x),) * 2))
    equal(metrics.kendall_rank_corrcoef(x, y, "a"), signs.sum() / (len(x) * (len(x) - 1)))


@LIBRARIES
def test_ranks_of_many_numbers_and_columns(library):
    x = draw().standard_normal((5000, 2)).round(2)
    y = (x + draw(1).standard_normal((5000, 2))).astype(np.float64)
    for ours, theirs in (
        (metrics.spearman_corrcoef, lambda a, b: stats.spearmanr(a, b).statistic),
        (metrics.kendall_rank_corrcoef, lambda a, b: stats.kendalltau(a, b).statistic),
    ):
        got = ours(library(x), library(y))
        assert got.shape == (2,)
        for k in range(2):
            equal(float(got[k]), theirs(x[:, k], y[:, k]))
            assert float(ours(library(x[:, k].copy()), library(y[:, k].copy()))) == float(got[k])


@pytest.mark.parametrize("kinds", ["f8 f8", "f4 f4", "f2 f2", "i8 f8", "f4 i2", "u1 i1", "i4 i4"])
def test_ranks_of_every_type(kinds):
    a, b = kinds.split()
    x = (40 * draw(8).random(3000)).astype(a)
    y = (x.astype(np.float64) + 9 * draw(9).random(3000)).astype(b)
    equal(metrics.spearman_corrcoef(x, y), stats.spearmanr(x, y).statistic)
    for variant in "bc":
        equal(metrics.kendall_rank_corrcoef(x, y, variant), stats.kendalltau(x, y, variant=variant).statistic)
    assert metrics.kendall_rank_corrcoef(torch.from_numpy(x), torch.from_numpy(y)) == metrics.kendall_rank_corrcoef(
        x, y
    )


def test_ranks_of_what_float64_does_not_tell_apart():
    x = np.array([2**62, 2**62 + 1, 2**62 + 2, -(2**63), 2**63 - 1])
    y = np.array([1.0, 2.0, 3.0, -np.inf, np.inf])
    assert metrics.kendall_rank_corrcoef(x, y) == metrics.spearman_corrcoef(x, y) == 1
    assert metrics.kendall_rank_corrcoef(np.array([5e-324, 0.0, -5e-324]), y[2::-1]) == 1


@pytest.mark.parametrize("rounded", [0, 3, 9])
def test_ranks_of_very_many_numbers(rounded):
    x = draw(10).standard_normal(60_000).round(rounded)
    y = (x + draw(11).standard_normal(60_000)).round(rounded)
    equal(metrics.spearman_corrcoef(x, y), stats.spearmanr(x, y).statistic)
    equal(metrics.kendall_rank_corrcoef(x, y), stats.kendalltau(x, y).statistic)


def test_ranks_are_traced():
    x, y = (torch.from_numpy(draw(i).standard_normal((30, 2))) for i in (12, 13))
    for f in (metrics.spearman_corrcoef, metrics.kendall_rank_corrcoef):
        traced = torch.compile(f, backend="aot_eager", fullgraph=True)
        assert (
            traced(x, y).tolist() == f(x, y).tolist() and traced(x[:, 0], y[:, 0]).item() == f(x[:, 0], y[:, 0]).item()
        )
        with pytest.raises(ValueError, match="preds holds NaN"):
            traced(x * math.nan, y)


def test_ranks_of_nothing_that_varies():
    one, x = np.ones(5), np.arange(5.0)
    for f in (metrics.spearman_corrcoef, metrics.kendall_rank_corrcoef):
        assert math.isnan(f(one, x)) and math.isnan(f(x[:1], x[:1])) and math.isnan(f(x[:0], x[:0]))
        assert f(x, x) == 1 and f(x, -x) == -1
        assert f(x.astype(int), x) == 1
        with pytest.raises(ValueError, match="target holds NaN"):
            f(x, x * np.nan)
        with pytest.raises(ValueError, match="target has shape"):
            f(x, x[:3])
    assert metrics.kendall_rank_corrcoef(one, x, "a") == 0
    with pytest.raises(ValueError, match="variant must be"):
        metrics.kendall_rank_corrcoef(x, x, "d")
