"""Codes of rows and groups of rows: no nearer code, the first of equals, and the optimum where trying all finds it."""

import itertools

import numpy as np
import pytest
import tersor
from hypothesis import given
from hypothesis import strategies as st
from tersor import quant

torch = pytest.importorskip("torch")


def scores(x, c, metric):
    x, c = np.asarray(x, np.float64), np.asarray(c, np.float64)
    if metric == "l2":
        return ((x[:, None] - c) ** 2).sum(-1)
    dot = x @ c.T
    return -dot if metric == "ip" else -dot / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(c, axis=1)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("d", [1, 2, 7, 64])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_no_code_is_nearer(metric, d, k, kind):
    rng = np.random.default_rng(d)
    x, c = rng.normal(size=(301, d)).astype(kind), rng.normal(size=(37, d)).astype(kind)
    got = quant.codebook_assign(x, c, k=k, metric=metric)
    assert got.dtype == np.int64 and got.shape == ((301,) if k == 1 else (301, k))
    s = scores(x, c, metric)
    best = np.sort(s, 1)[:, :k]
    np.testing.assert_allclose(np.take_along_axis(s, got.reshape(301, k), 1), best, rtol=1e-12, atol=1e-12)
    other = quant.codebook_assign(torch.from_numpy(x), torch.from_numpy(c), k=k, metric=metric)
    np.testing.assert_array_equal(other.numpy(), got)
    before = tersor.get_num_threads()
    try:
        tersor.set_num_threads(1)
        np.testing.assert_array_equal(quant.codebook_assign(x, c, k=k, metric=metric), got)
    finally:
        tersor.set_num_threads(before)


@pytest.mark.parametrize("d", [1, 3])
def test_of_equals_the_first(d):
    c = np.array([2.0, -1, 0, 2, 0, -1, 0])[:, None] * np.ones(d)
    x = np.array([2.0, 1, 0.999, 1.001, -0.5, -9, 9, -0.0])[:, None] * np.ones(d)
    # 1 lies between 0 (places 2, 4, 6) and 2 (place 0); -0.5 between -1 (1, 5) and 0 (2)
    assert quant.codebook_assign(x, c).tolist() == [0, 0, 2, 0, 1, 1, 0, 2]
    assert quant.codebook_assign(x[:1], c, k=3).tolist() == [[0, 3, 2]]


@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_numbers_by_search_are_rows_by_tiles(n, k, seed):
    """The search for one number a row finds what the tiles find, on a grid where many are equally near."""
    rng = np.random.default_rng(seed)
    x, c = rng.integers(-9, 10, (n, 1)) / 2, rng.integers(-9, 10, (k, 1)) / 2.0
    wide = np.concatenate([x, np.zeros_like(x)], 1), np.concatenate([c, np.zeros_like(c)], 1)
    np.testing.assert_array_equal(quant.codebook_assign(x, c), quant.codebook_assign(*wide))


def test_a_step_of_averages():
    rng = np.random.default_rng(0)
    x, code = rng.normal(size=(200, 3)), rng.normal(size=(4, 3))
    size, total = rng.uniform(1, 9, 4), rng.normal(size=(4, 3))
    labels = quant.codebook_assign(x, code)
    got = quant.codebook_ema(code, size, total, x, decay=0.8, eps=1e-3)
    n = 0.8 * size + 0.2 * np.bincount(labels, minlength=4)
    s = 0.8 * total + 0.2 * np.stack([x[labels == j].sum(0) for j in range(4)])
    smooth = (n + 1e-3) / (n.sum() + 4e-3) * n.sum()
    for a, b in zip(got, (s / smooth[:, None], n, s), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    again = quant.codebook_ema(labels, size, total, x, decay=0.8, eps=1e-3)
    tensors = quant.codebook_ema(*map(torch.from_numpy, (code, size, total, x)), decay=0.8, eps=1e-3)
    for a, b, t in zip(got, again, tensors, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(t.numpy(), a, rtol=1e-12)
    # decay 0 and eps 0: the means of the batch, and a code without rows stays
    lonely = np.concatenate([code, np.full((1, 3), 1e6)])
    means = quant.codebook_ema(lonely, np.zeros(5), np.zeros((5, 3)), x, decay=0, eps=0)
    np.testing.assert_allclose(means.code[:4], [x[labels == j].mean(0) for j in range(4)])
    assert means.code[4].tolist() == [1e6] * 3


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_groups_of_numbers_are_the_best_there_are(n, k, seed, weighted):
    rng = np.random.default_rng(seed)
    k = min(k, n)
    x, w = rng.integers(-6, 7, n) / 2, rng.integers(1, 4, n).astype(float) if weighted else None
    labels, centers, inertia = quant.kmeans_1d(x, k, weights=w)
    mass = np.ones(n) if w is None else w
    values = np.unique(x)
    groups = min(k, len(values))

    def cost(part):
        inside = np.isin(x, part)
        m = np.average(x[inside], weights=mass[inside])
        return (mass[inside] * (x[inside] - m) ** 2).sum()

    best = min(
        sum(cost(values[a:b]) for a, b in itertools.pairwise((0, *cuts, len(values))))
        for cuts in itertools.combinations(range(1, len(values)), groups - 1)
    )
    assert inertia == pytest.approx(best, abs=1e-12)
    assert (mass * (x - centers[labels]) ** 2).sum() == pytest.approx(best, abs=1e-12)
    assert (np.diff(centers[:groups]) > 0).all() and np.isnan(centers[groups:]).all()


def test_tight_groups_far_from_the_median():
    """Sums of squares about the median would lose these groups in f64."""
    x = np.concatenate([np.zeros(50), 1e8 + np.array([0, 0, 1, 1, 1e-6, 2])])
    x[-2] = 1e8
    labels, centers, inertia = quant.kmeans_1d(x, 4)
    assert labels[:50].tolist() == [0] * 50
    assert centers.tolist() == [0, 1e8, 1e8 + 1, 1e8 + 2] and inertia == 0
    two = quant.kmeans_1d(x, 2)
    tail = x[50:] - 1e8
    assert two.inertia == pytest.approx(((tail - tail.mean()) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_kmeans(library):
    rng = np.random.default_rng(3)
    middles = rng.normal(size=(6, 4)) * 20
    x = (middles[rng.integers(0, 6, 600)] + rng.normal(size=(600, 4))).astype(np.float32)
    groups = quant.kmeans(library(x), 6, seed=1)
    labels, centers = np.asarray(groups.labels), np.asarray(groups.centers)
    np.testing.assert_allclose(centers, [x[labels == j].mean(0) for j in range(6)], rtol=1e-5)
    assert groups.inertia == pytest.approx(((x - centers[labels]) ** 2).sum(), rel=1e-5)
    np.testing.assert_array_equal(labels, quant.codebook_assign(x, centers))
    again = quant.kmeans(library(x), 6, seed=1)
    np.testing.assert_array_equal(np.asarray(again.centers), centers)
    steps = [quant.kmeans(library(x), 6, seed=2, iterations=i).inertia for i in (1, 2, 3, 8)]
    assert steps == sorted(steps, reverse=True)
    # as many groups as rows; and rows that are all the same
    assert quant.kmeans(library(x[:7]), 7).inertia == 0
    same = quant.kmeans(library(np.ones((5, 2), np.float32)), 3)
    assert same.inertia == 0 and np.isfinite(np.asarray(same.centers)).all()


def test_the_best_of_numbers_is_no_worse_than_what_is_found():
    x = np.random.default_rng(0).standard_t(3, 4000)
    for k in (2, 5, 16):
        best = quant.kmeans_1d(x, k)
        found = min(quant.kmeans(x[:, None], k, seed=s).inertia for s in range(3))
        assert best.inertia <= found * (1 + 1e-12)
        np.testing.assert_allclose([x[best.labels == j].mean() for j in range(k)], best.centers, rtol=1e-12)


def test_what_is_refused():
    x, c = np.ones((4, 2)), np.ones((3, 2))
    bad = np.array([[1.0, np.nan]])
    for error, match, call in [
        (
            ValueError,
            "codebook_assign: k must lie within 1 and the 3",
            lambda: quant.codebook_assign(x, c, k=4),
        ),
        (ValueError, "codebook_assign: x holds non-finite", lambda: quant.codebook_assign(bad, c)),
        (ValueError, "codebook_assign: c holds non-finite", lambda: quant.codebook_assign(x, bad)),
        (ValueError, "codebook_assign: metric must be one of", lambda: quant.codebook_assign(x, c, metric="l1")),
        (ValueError, "codebook_assign: ", lambda: quant.codebook_assign(x, c[:, :1])),
        (TypeError, "codebook_assign: ", lambda: quant.codebook_assign(x, c.astype(np.float32))),
        (
            ValueError,
            "kmeans_1d: k must lie within 1 and the 4 numbers of x, got 0",
            lambda: quant.kmeans_1d(x[:, 0], 0),
        ),
        (ValueError, "kmeans_1d: x holds non-finite", lambda: quant.kmeans_1d(bad[0], 1)),
        (ValueError, "kmeans_1d: weights must be positive", lambda: quant.kmeans_1d(x[:, 0], 2, weights=np.zeros(4))),
        (ValueError, "kmeans: x holds non-finite", lambda: quant.kmeans(bad, 1)),
        (ValueError, "kmeans: k must lie within 1 and the 4 rows of x, got 5", lambda: quant.kmeans(x, 5)),
        (ValueError, "codebook_ema: decay must lie", lambda: quant.codebook_ema(c, np.ones(3), c, x, decay=2)),
        (ValueError, "codebook_ema: arrays", lambda: quant.codebook_ema(c, np.ones(2), c, x)),
        (
            ValueError,
            "codebook_ema: labels must lie within 0 and 2",
            lambda: quant.codebook_ema(np.full(4, 3), np.ones(3), c, x),
        ),
    ]:
        with pytest.raises(error, match=match):
            call()
