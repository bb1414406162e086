"""The metrics against other ways to the same number. The one rule: references are written out here, or are scipy's."""

import itertools
import math
import pickle
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import tersor
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tersor import metrics, reduce

LIBRARIES = pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


def draw(seed=0):
    return np.random.default_rng(seed)


def probabilities(n, k, seed=0):
    p = np.exp(3 * draw(seed).standard_normal((n, k)))
    return p / p.sum(1, keepdims=True)


# --- calibration ---


def bin_of(p, n):
    """The number of edges k/n strictly below p."""
    return sum(k / n < p for k in range(1, n))


def errors(p, hit, bins):
    """l1, l2, max and mean, of fractions."""
    parts = {}
    for v, h, b in zip(p, hit, bins, strict=True):
        parts.setdefault(b, []).append(Fraction(int(h)) - Fraction(float(v)))
    n = len(p)
    gaps = [(len(v), abs(sum(v)) / len(v)) for v in parts.values()]
    return {
        "l1": float(sum(m * g for m, g in gaps) / n),
        "l2": math.sqrt(sum(m * g * g for m, g in gaps) / n),
        "max": float(max(g for _, g in gaps)),
        "mean": float(sum(g for _, g in gaps) / len(gaps)),
    }


@LIBRARIES
@pytest.mark.parametrize("norm", ["l1", "l2", "max", "mean"])
def test_calibration_is_that_of_fractions(library, norm):
    p = probabilities(300, 4)
    y = draw(1).integers(0, 4, 300)
    top = p.max(1)
    for n in (1, 2, 15, 100):
        want = errors(top, p.argmax(1) == y, [bin_of(v, n) for v in top])[norm]
        got = metrics.calibration_error(library(p), library(y), n_bins=n, norm=norm)
        assert math.isclose(got, want, rel_tol=1e-13, abs_tol=1e-15)
        each = [errors(p[:, k], y == k, [bin_of(v, n) for v in p[:, k]])[norm] for k in range(4)]
        got = metrics.calibration_error(library(p), library(y), n_bins=n, norm=norm, classwise=True)
        assert math.isclose(got, np.mean(each), rel_tol=1e-13, abs_tol=1e-15)
        binary = metrics.calibration_error(library(top), library(p.argmax(1) == y), n_bins=n, norm=norm)
        assert binary == metrics.calibration_error(library(p), library(y), n_bins=n, norm=norm)


@given(st.integers(1, 200), st.data())
def test_bins_are_decided_by_their_edges(n, data):
    k = data.draw(st.integers(0, n))
    near = [k / n, np.nextafter(k / n, 0), np.nextafter(k / n, 1)]
    p = np.array([v for v in near if 0 <= v <= 1])
    table = metrics.calibration_curve(p, np.zeros(len(p), np.int64), n_bins=n)
    want = np.bincount([bin_of(v, n) for v in p], minlength=n)
    assert (table.count == want).all()


def test_the_edges_that_rounding_misses():
    table = metrics.calibration_curve(np.array([0.28, 0.0, 1.0]), np.array([1, 0, 1]), n_bins=100)
    assert table.count[27] == table.count[0] == table.count[99] == 1
    assert table.accuracy[27] == 1 and math.isnan(table.confidence[5])
    assert table.edges.shape == (101,) and table.edges[28] == 0.28


@given(st.integers(0, 100), st.integers(1, 12))
def test_bins_of_equal_mass_do_not_depend_on_the_order(seed, n):
    rng = draw(seed)
    p = rng.integers(0, 8, 40) / 8
    y = rng.integers(0, 2, 40)
    ordered = np.sort(p)
    want = [np.searchsorted(ordered, v) * n // 40 for v in p]
    mixed = rng.permutation(40)
    for norm, e in errors(p, y, want).items():
        got = metrics.calibration_error(p, y, n_bins=n, norm=norm, binning="quantile")
        assert math.isclose(got, e, abs_tol=1e-14)
        other = metrics.calibration_error(p[mixed], y[mixed], n_bins=n, norm=norm, binning="quantile")
        assert math.isclose(got, other, abs_tol=1e-15)
    table = metrics.calibration_curve(p, y, n_bins=n, binning="quantile")
    assert (np.bincount(want, minlength=n) == table.count).all()
    assert all(p[np.array(want) == b].max() == table.edges[b + 1] for b in set(want))


def test_calibration_of_several_numbers_of_bins():
    p, y = probabilities(200, 3), draw(2).integers(0, 3, 200)
    got = metrics.calibration_error(p, y, n_bins=[5, 15])
    assert got.tolist() == [metrics.calibration_error(p, y, n_bins=n) for n in (5, 15)]
    same = metrics.calibration_error(torch.from_numpy(p), torch.from_numpy(y), n_bins=[5, 15])
    assert same.dtype is torch.float64 and same.tolist() == got.tolist()


@pytest.mark.parametrize(
    ("kind", "said", "call"),
    [
        (ValueError, "probs has no rows", lambda: metrics.calibration_error(np.zeros((0, 3)), np.zeros(0, int))),
        (ValueError, r"got 1.5 at \(1,\)", lambda: metrics.calibration_error(np.array([0, 1.5]), np.array([0, 1]))),
        (ValueError, "got nan at", lambda: metrics.calibration_curve(np.array([np.nan]), np.array([0]))),
        (ValueError, r"target\[1\] is 2", lambda: metrics.calibration_error(np.ones(2), np.array([0, 2]))),
        (ValueError, "target has 3 rows, probs 2", lambda: metrics.calibration_error(np.ones(2), np.array([0, 1, 1]))),
        (TypeError, "target must be", lambda: metrics.calibration_error(np.ones(2), np.ones(2))),
        (ValueError, "n_bins must lie", lambda: metrics.calibration_error(np.ones(2), np.ones(2, int), n_bins=0)),
        (ValueError, "norm must be", lambda: metrics.calibration_error(np.ones(2), np.ones(2, int), norm="l3")),
        (ValueError, "probs must have", lambda: metrics.calibration_curve(np.ones(2), np.ones(2, int), classwise=True)),
    ],
)
def test_what_calibration_refuses(kind, said, call):
    with pytest.raises(kind, match=f"calibration_(error|curve): .*{said}"):
        call()


@given(st.integers(1, 2000), st.sampled_from([np.float16, np.float32, ml_dtypes.bfloat16]), st.data())
def test_bins_of_short_numbers_are_decided_by_their_edges(n, kind, data):
    k = data.draw(st.integers(0, n))
    middle = np.array(k / n).astype(kind)
    near = np.array([middle, np.nextafter(middle, kind(0)), np.nextafter(middle, kind(2))], kind)
    p = near[(near >= 0) & (near <= 1)]
    table = metrics.calibration_curve(p, np.zeros(len(p), np.int64), n_bins=n)
    want = np.bincount([bin_of(float(v), n) for v in p], minlength=n)
    assert (table.count == want).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(300_000,), (40_000, 3), (700, 600), (5, 1300)])
def test_tables_of_much_are_those_of_numpy(kind, shape):
    """Several blocks, rows longer than what is looked at together, and numbers at edges among others."""
    rng = draw(3)
    p = rng.random(shape).astype(kind)
    p = np.where(rng.random(shape) < 0.2, p.round(1), p)
    classes = shape[1] if len(shape) > 1 else 2
    y = rng.integers(0, classes, shape[0])
    for n in (7, 300):
        edges = np.arange(1, n) / n
        columns = p.T if len(shape) > 1 else p[None]
        table = metrics.calibration_curve(p, y, n_bins=n, classwise=len(shape) > 1)
        for row, count, accuracy, confidence in zip(
            range(len(columns)),
            *(np.atleast_2d(v) for v in (table.count, table.accuracy, table.confidence)),
            strict=True,
        ):
            wide, hit = columns[row].astype(np.float64), y == (row if len(shape) > 1 else 1)
            at = np.searchsorted(edges, wide)
            assert (count == np.bincount(at, minlength=n)).all()
            some = count > 0
            assert np.isnan(accuracy[~some]).all() and np.isnan(confidence[~some]).all()
            np.testing.assert_array_equal((accuracy * count)[some].round(), np.bincount(at, hit, n)[some])
            np.testing.assert_allclose((confidence * count)[some], np.bincount(at, wide, n)[some], rtol=1e-12)


def test_calibration_has_the_same_bits_for_any_threads():
    p, y = probabilities(50_000, 7, 4), draw(5).integers(0, 7, 50_000)
    before = tersor.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            tersor.set_num_threads(threads)
            calls = itertools.product(["uniform", "quantile"], [False, True])
            found.append(
                [metrics.calibration_error(p, y, n_bins=[9, 40], binning=b, classwise=c).tobytes() for b, c in calls]
            )
    finally:
        tersor.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_of_equal_confidences_the_first_is_the_answer():
    p = np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.25], [-0.0, 0.0, 0.0]])
    for y, hits in (([0, 0, 0], 3), ([1, 1, 1], 0), ([2, 0, 2], 1)):
        for of in (p, np.tile(p, (1, 400)) * np.float32(1)):
            table = metrics.calibration_curve(of, np.array(y), n_bins=1)
            assert table.count.tolist() == [3] and table.accuracy[0] * 3 == pytest.approx(hits)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "int64"])
def test_targets_of_every_type(kind):
    p, y = probabilities(60, 5), draw(6).integers(0, 5, 60)
    for binning in ("uniform", "quantile"):
        want = metrics.calibration_error(p, y, binning=binning)
        assert metrics.calibration_error(p, y.astype(kind), binning=binning) == want
        strided = np.repeat(p, 2, 1)[:, ::2]
        assert metrics.calibration_error(strided[::-1], y.astype(kind)[::-1], binning=binning) == pytest.approx(want)


@pytest.mark.parametrize("classwise", [False, True])
@pytest.mark.parametrize("binning", ["uniform", "quantile"])
def test_what_is_refused_is_the_first_of_it(binning, classwise):
    p, y = np.full((40_000, 3), 0.25, np.float32), np.zeros(40_000, np.int64)
    p[[30_000, 20_000], [0, 2]] = 1.1, np.nan
    y[10], y[11] = -1, 5
    given_ = {"binning": binning, "classwise": classwise}
    with pytest.raises(ValueError, match=r"^calibration_error: probs .* got nan at \(20000, 2\)$"):
        metrics.calibration_error(p, y, **given_)
    p[20_000, 2] = 0
    with pytest.raises(ValueError, match=r"^calibration_curve: probs .* got 1.1 at \(30000, 0\)$"):
        metrics.calibration_curve(p, y, **given_)
    p[30_000, 0] = 1
    metric = metrics.CalibrationError(**given_)
    with pytest.raises(ValueError, match=r"^CalibrationError.update: target\[10\] is -1; classes lie within 0 and 2$"):
        metric.update(p, y)
    y[10] = 2
    with pytest.raises(ValueError, match=r"^calibration_error: target\[11\] is 5; classes lie within 0 and 2$"):
        metrics.calibration_error(p, y, **given_)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [{}, {"classwise": True, "n_bins": [4, 9], "norm": "l2"}, {"binning": "quantile", "norm": "max"}]
)
def test_calibration_is_traced(options, kind):
    p, y = torch.from_numpy(probabilities(200, 4)).to(kind), torch.from_numpy(draw(7).integers(0, 4, 200))
    traced = torch.compile(lambda p, y: metrics.calibration_error(p, y, **options), backend="aot_eager", fullgraph=True)
    want = metrics.calibration_error(p, y, **options)
    assert traced(p, y).dtype is torch.float64
    torch.testing.assert_close(traced(p, y), want, rtol=1e-14, atol=1e-16)
    options = {k: v for k, v in options.items() if k != "norm"} | {"n_bins": 6}
    traced = torch.compile(lambda p, y: metrics.calibration_curve(p, y, **options), backend="aot_eager", fullgraph=True)
    for got, wanted in zip(traced(p, y), metrics.calibration_curve(p, y, **options), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-14, atol=1e-16, equal_nan=True)
    with pytest.raises(ValueError, match="probs must lie within 0 and 1"):
        traced(2 * p, y)


# --- ranks ---

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


# --- alignment ---


def cka_of_samples(x, y, debiased=False):
    """By the centred Gram matrices."""
    n = len(x)

    def gram(v):
        k = v @ v.T
        if debiased:
            np.fill_diagonal(k, 0)
            return k
        h = np.eye(n) - 1 / n
        return h @ k @ h

    def hsic(k, l):
        if not debiased:
            return (k * l).sum()
        whole = k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l).sum() / (n - 2)
        return (np.trace(k @ l) + whole) / (n * (n - 3))

    k, l = gram(x), gram(y)
    return hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("shape", [(40, 5, 7), (9, 20, 3), (12, 30, 40)])
def test_cka_is_that_of_gram_matrices(shape, debiased):
    n, d, e = shape
    x, y = draw().standard_normal((n, d)), draw(1).standard_normal((n, e))
    y[:, :3] += x[:, :3]
    want = cka_of_samples(x, y, debiased)
    assert math.isclose(metrics.cka(x, y, debiased=debiased), want, rel_tol=1e-11, abs_tol=1e-13)
    by_grams = metrics.cka(x @ x.T, y @ y.T, debiased=debiased, gram=True)
    assert math.isclose(by_grams, want, rel_tol=1e-11, abs_tol=1e-13)
    turn = np.linalg.qr(draw(2).standard_normal((d, d)))[0]
    same = metrics.cka(3e7 * (x @ turn) + 11, 1e-9 * y - 5e-7, debiased=debiased)
    assert math.isclose(same, want, rel_tol=1e-11, abs_tol=1e-12)
    far = (x + 1000).astype(np.float32), (y - 1000).astype(np.float32)
    assert abs(metrics.cka(*far, debiased=debiased) - want) <= 2e-4
    exact = cka_of_samples(*(v.astype(np.float64) - v.astype(np.float64).mean(0) for v in far), debiased)
    assert math.isclose(metrics.cka(*far, debiased=debiased), exact, rel_tol=2e-5)


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("debiased", [False, True])
def test_cka_has_its_gradient(gram, debiased):
    x, y = (torch.from_numpy(draw(i).standard_normal((6, 6 if gram else 3 + 5 * i))) for i in range(2))
    x, y = ((v @ v.T if gram else v).requires_grad_() for v in (x, y))
    assert torch.autograd.gradcheck(lambda a, b: metrics.cka(a, b, debiased=debiased, gram=gram), (x, y))
    x, y = x.detach(), y.detach()
    assert math.isclose(metrics.cka(x, y), metrics.cka(x.numpy(), y.numpy()), rel_tol=1e-13)


def test_the_gradient_of_cka_is_the_formulas():
    x, y = (torch.from_numpy(draw(i).standard_normal((20, 4 + i))).requires_grad_() for i in range(2))
    metrics.cka(x, y).backward()
    a, b = ((v - v.mean(0)).detach() for v in (x, y))
    A, B, C = ((v.T @ u).norm() for u, v in ((a, b), (a, a), (b, b)))
    dx = 2 / (B * C) * b @ (b.T @ a) - 2 * A**2 / (B**3 * C) * a @ (a.T @ a)
    torch.testing.assert_close(x.grad, dx, rtol=1e-12, atol=1e-15)


@LIBRARIES
@pytest.mark.parametrize("debiased", [False, True])
def test_a_matrix_of_cka_is_of_its_pairs(library, debiased):
    layers = [library(draw(i).standard_normal((12, 3 + 6 * i))) for i in range(3)]
    table = metrics.cka_matrix(layers, debiased=debiased)
    other = metrics.cka_matrix(layers[:2], layers, debiased=debiased)
    for i, x in enumerate(layers):
        for j, y in enumerate(layers):
            assert math.isclose(table[i, j], metrics.cka(x, y, debiased=debiased), rel_tol=1e-13)
    np.testing.assert_allclose(np.asarray(other), np.asarray(table)[:2], rtol=1e-13)


def test_cka_of_what_does_not_vary():
    x = draw().standard_normal((8, 3))
    assert math.isnan(metrics.cka(np.full((8, 2), 0.1), x))
    assert math.isnan(metrics.cka(x.astype(np.float32), np.full((8, 9), 0.1, np.float32)))
    for call, said in (
        (lambda: metrics.cka(x[:1], x[:1]), "x has 1 rows, it takes 2"),
        (lambda: metrics.cka(x[:3], x[:3], debiased=True), "x has 3 rows, it takes 4"),
        (lambda: metrics.cka(x, x[:5]), "y has 5 rows, x 8"),
        (lambda: metrics.cka(x, x, gram=True), "x must be square"),
        (lambda: metrics.CKA(debiased=True), "debiased must be False"),
        (lambda: metrics.cka_matrix([]), "xs is empty"),
        (lambda: metrics.cka_matrix([x, x[:4]]), r"xs\[1\] has 4 rows"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match=r"cka_matrix: xs\[1\] is float32"):
        metrics.cka_matrix([x, x.astype(np.float32)])


# --- collapse ---


def collapse_by_definition(h, y, center, w=None, b=None):
    """Matrices as the papers have them."""
    k, d, n = int(y.max()) + 1, h.shape[1], len(h)
    means = np.stack([h[y == c].mean(0) for c in range(k)])
    middle = {"classes": means.mean(0), "samples": h.mean(0), "none": np.zeros(d)}[center]
    m = means - middle
    within = sum(np.outer(v, v) for v in h - means[y]) / n
    between = m.T @ m / k
    found = {"nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-13)) / k}
    found["nc1_ratio"] = np.trace(within) / np.trace(between)
    length = np.linalg.norm(m, axis=1)
    found["nc2_norms"] = length.std() / length.mean()
    cos = m @ m.T / np.outer(length, length)
    off = [(i, j) for i in range(k) for j in range(k) if i != j]
    found["nc2_angles"] = np.mean([abs(cos[p] + 1 / (k - 1)) for p in off])
    t = np.eye(k) - 1 / k
    gap = lambda a, b: np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b))  # noqa: E731
    found["nc2"] = gap(m @ m.T, t)
    s = np.array([((h[y == c] - means[c]) ** 2).sum(1).mean() for c in range(k)])
    found["cdnv"] = np.mean([(s[i] + s[j]) / (2 * ((means[i] - means[j]) ** 2).sum()) for i, j in off])
    if w is not None:
        found["nc3"], found["nc3_align"] = gap(w @ m.T, t), gap(w, m)
        near = ((h[:, None] - means) ** 2).sum(-1).argmin(1)
        found["nc4"] = ((h @ w.T + b).argmax(1) == near).mean()
    return found


@LIBRARIES
@pytest.mark.parametrize("center", ["classes", "samples", "none"])
@pytest.mark.parametrize("d", [3, 12])
def test_collapse_is_that_of_its_definition(library, center, d):
    y = draw().permutation(np.repeat(np.arange(5), [4, 9, 6, 5, 8]))
    h = draw(1).standard_normal((32, d)) + 2 * draw(2).standard_normal((5, d))[y]
    w, b = draw(3).standard_normal((5, d)), draw(4).standard_normal(5)
    want = collapse_by_definition(h, y, center, w, b)
    got = metrics.neural_collapse(library(h), library(y), weight=library(w), bias=library(b), center=center)
    assert got.keys() == want.keys()
    for key, v in want.items():
        assert math.isclose(got[key], v, rel_tol=1e-10), key
    assert metrics.neural_collapse(library(h), library(y)).keys() == want.keys() - {"nc3", "nc3_align", "nc4"}
    if center != "none":
        moved = metrics.neural_collapse(
            library(7 * h @ np.linalg.qr(draw(5).standard_normal((d, d)))[0] + 3), library(y), center=center
        )
        assert all(math.isclose(moved[key], got[key], rel_tol=1e-10) for key in moved)


def test_a_simplex_has_collapsed():
    k, y = 6, np.repeat(np.arange(6), 4)
    means = np.eye(k) - 1 / k
    got = metrics.neural_collapse(means[y] + 5, y, weight=means, bias=np.zeros(k))
    assert got["nc1"] == got["nc1_ratio"] == got["cdnv"] == 0 and got["nc4"] == 1
    assert all(got[key] <= 1e-14 for key in ("nc2", "nc2_norms", "nc2_angles", "nc3", "nc3_align"))
    frame = np.diag(np.arange(1.0, 6))
    y = np.arange(5)
    got = metrics.neural_collapse(frame[y], y, center="none", target_gram=frame @ frame.T)
    assert got["nc2"] <= 1e-12


@pytest.mark.parametrize(
    ("said", "y", "options"),
    [
        ("class 1 of 3 has no samples", [0, 2, 2, 0], {}),
        ("class 3 of 4 has no samples", [0, 1, 2, 0], {"num_classes": 4}),
        (r"labels\[2\] is 2; classes lie within 0 and 1", [0, 1, 2, 0], {"num_classes": 2}),
        ("labels reach from -1 to 2", [0, -1, 2, 0], {}),
        ("labels reach from 0 to 0", [0, 0, 0, 0], {}),
        ("num_classes must be 2 or more", [0, 0, 0, 0], {"num_classes": 1}),
        ("labels reach from 0 to 9000", [0, 9000, 1, 2], {}),
        (r"weight must have shape \(2, 3\)", [0, 1, 1, 0], {"weight": np.ones((3, 3))}),
        ("bias is given without", [0, 1, 1, 0], {"bias": np.ones(2)}),
        ("center must be one of", [0, 1, 1, 0], {"center": "mean"}),
        ("target_gram must have shape", [0, 1, 1, 0], {"target_gram": np.ones((3, 3))}),
    ],
)
def test_what_collapse_refuses(said, y, options):
    with pytest.raises(ValueError, match=f"neural_collapse: {said}"):
        metrics.neural_collapse(draw().standard_normal((4, 3)), np.array(y), **options)


# --- rows and information ---


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


# --- power laws, slopes, layers ---


@LIBRARIES
def test_a_power_law_is_a_line(library):
    x = np.exp(draw().standard_normal(30))
    y = 3.0 * x**-0.8 * np.exp(0.1 * draw(1).standard_normal(30))
    want = stats.linregress(np.log(x), np.log(y))
    got = metrics.fit_power_law(library(x), library(y))
    for a, b in zip(
        got, (-want.slope, want.intercept, want.stderr, want.intercept_stderr, want.rvalue**2), strict=True
    ):
        assert math.isclose(a, b, rel_tol=1e-11)
    w = draw(2).integers(1, 4, 30)
    doubled = metrics.fit_power_law(library(np.repeat(x, w)), library(np.repeat(y, w)))
    heavy = metrics.fit_power_law(library(x), library(y), weight=library(w.astype(np.float64)))
    assert all(
        math.isclose(a, b, rel_tol=1e-11)
        for a, b in zip((*doubled[:2], doubled.r2), (*heavy[:2], heavy.r2), strict=True)
    )
    two = metrics.fit_power_law(library(np.array([1.0, 2.0])), library(np.array([4.0, 1.0])))
    assert math.isclose(two.alpha, 2) and math.isclose(two.log_c, math.log(4)) and math.isnan(two.alpha_stderr)


@pytest.mark.parametrize(
    ("said", "x", "y"),
    [
        ("x must be positive, got 0", [0.0, 1], [1.0, 1]),
        ("y must be positive, got -1", [2.0, 1], [1.0, -1]),
        ("x must have two different values", [2.0, 2], [1.0, 3]),
        ("y holds non-finite", [2.0, 3], [1.0, np.inf]),
        ("y has 1 rows, x 2", [2.0, 3], [1.0]),
    ],
)
def test_what_a_power_law_refuses(said, x, y):
    with pytest.raises(ValueError, match=f"fit_power_law: {said}"):
        metrics.fit_power_law(np.array(x), np.array(y))


def steepest(x, y):
    best = 0.0
    for i in range(len(x)):
        for j in range(i):
            d, rise = (
                math.sqrt(sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(x[i], x[j], strict=True))),
                abs(y[i] - y[j]),
            )
            if rise:
                best = max(best, float(rise) / d if d else math.inf)
    return best


@LIBRARIES
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e4, 1e-3), (-1e6, 1.0), (0.0, 1e150)])
def test_the_steepest_pair(library, offset, scale):
    x = offset + scale * draw().standard_normal((70, 3))
    y = draw(1).standard_normal(70)
    assert math.isclose(metrics.label_sharpness(library(x), library(y)), steepest(x.tolist(), y), rel_tol=1e-12)


def test_the_steepest_pair_lies_in_different_tiles():
    x = 100 * draw().standard_normal((700, 4))
    x[650] = x[3] + 1e-7
    y = (np.arange(700) % 2).astype(np.int64)
    y[650], y[3] = 0, 1
    assert math.isclose(metrics.label_sharpness(x, y), 1 / np.linalg.norm(x[650] - x[3]), rel_tol=1e-15)
    x[650] = x[3]
    assert metrics.label_sharpness(x, y) == math.inf
    assert metrics.label_sharpness(x[:, :0], np.zeros(700, int)) == 0
    with pytest.raises(ValueError, match="x has 1 rows"):
        metrics.label_sharpness(x[:1], y[:1])


@LIBRARIES
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_what_a_block_adds(library, kind):
    u, r = draw().standard_normal((5, 2, 7)).astype(kind), draw(1).standard_normal((5, 2, 7)).astype(kind)
    u[0, 0], r[0, 1], u[1, 0], r[1, 0] = 0, 0, 0, 0
    ratio, cosine = metrics.residual_contribution(library(u), library(r))
    a, b = u.astype(float), r.astype(float)
    with np.errstate(all="ignore"):
        want = np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        angle = np.nan_to_num((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
    assert np.asarray(ratio).dtype == np.asarray(cosine).dtype == kind
    np.testing.assert_allclose(np.asarray(ratio), want.astype(kind), rtol=2 * np.finfo(kind).eps)
    np.testing.assert_allclose(np.asarray(cosine), angle.astype(kind), rtol=4 * np.finfo(kind).eps, atol=1e-15)
    assert ratio[0, 0] == 0 and math.isinf(ratio[0, 1]) and math.isnan(ratio[1, 0]) and cosine[0, 1] == 0
    big, small = metrics.residual_contribution(library(1e200 * a), library(1e-200 * b))
    assert math.isinf(big[2, 0]) and math.isclose(small[2, 0], angle[2, 0], rel_tol=1e-13)


@LIBRARIES
def test_norms_of_gradients_are_those_of_the_weights_gradient(library):
    """Each place's part of the gradient of a convolution's weight, by unfolding."""
    a, g = draw().standard_normal((2, 3, 5, 6)), draw(1).standard_normal((2, 4, 5, 6))
    patches = torch.nn.functional.unfold(torch.from_numpy(a), 3, padding=1).numpy().reshape(2, 27, 5, 6)
    for kind, rows in (("conv1", a), ("conv3", patches)):
        outer = np.einsum("nchw,ndhw->nhwcd", rows, g)
        got = metrics.norm_grad(library(a), library(g), kind)
        np.testing.assert_allclose(np.asarray(got), np.sqrt((outer**2).sum((-1, -2))), rtol=1e-13)
    same = np.asarray(metrics.norm_grad(library(a), library(g[:, :3].copy()), "scaling"))
    np.testing.assert_allclose(same, np.linalg.norm(a * g[:, :3], axis=1), rtol=1e-13)
    np.testing.assert_allclose(np.asarray(metrics.norm_grad(library(a), library(g), "bias")), np.linalg.norm(g, axis=1))
    for wrong, kind in ((g, "scaling"), (g[..., :2].copy(), "conv1"), (g[0], "conv3")):
        with pytest.raises(ValueError, match="norm_grad: activation and gradient must have"):
            metrics.norm_grad(library(a), library(wrong), kind)
    with pytest.raises(ValueError, match="norm_grad: kind must be one of"):
        metrics.norm_grad(library(a), library(g), "conv5")


@LIBRARIES
def test_barriers(library):
    losses = np.array([[1.0, 3.0, 2.0], [1.0, 1.0, 2.0], [0.0, np.nan, 1.0], [0.1, 0.2, np.inf]])
    got = np.asarray(metrics.loss_barrier(library(losses)))
    np.testing.assert_array_equal(got, [1.5, 0, np.nan, np.nan])
    skew = np.asarray(metrics.loss_barrier(library(losses[:1]), [0, 0.9, 1]))
    np.testing.assert_allclose(skew, [3 - 1.9])
    one = metrics.loss_barrier(library(losses[0].astype(np.float32)))
    assert one == 1.5 and (isinstance(one, float) or one.dtype is torch.float64)
    for wrong in ([0, 1], [0, 0.5, 0.9], [0, 2, 1], [0.1, 0.5, 1]):
        with pytest.raises(ValueError, match="loss_barrier: alphas must"):
            metrics.loss_barrier(library(losses), wrong)
    with pytest.raises(ValueError, match="losses must have two or more"):
        metrics.loss_barrier(library(losses[:, :1]))


@LIBRARIES
def test_class_correlation(library):
    p = probabilities(20, 3)
    got = np.asarray(metrics.class_correlation(library(p)))
    want = p.T @ p
    np.testing.assert_allclose(got, want / want.sum(1, keepdims=True), rtol=1e-14)
    assert np.isnan(np.asarray(metrics.class_correlation(library(p * [1, 0, 1])))[1]).all()


def test_windows_of_a_curriculum():
    assert metrics.curriculum_window(10, 0) == range(10)
    assert [metrics.curriculum_window(10, i).start for i in range(1, 8)] == [1, 2, 3, 4, 5, 0, 1]
    assert len(metrics.curriculum_window(5, 1)) == 2  # 2.5, half to even
    for wrong in ((10, 1, 0.04), (10, 1, 1.2), (10, -1), (0, 1), (10, 1, math.nan)):
        with pytest.raises(ValueError, match="curriculum_window: "):
            metrics.curriculum_window(*wrong)


def test_groups_of_numbers_are_the_quantizers():
    from tersor import quant

    assert metrics.kmeans_1d is quant.kmeans_1d and "kmeans_1d" in metrics.__all__


# --- masks ---


def shifted(m, di, dj):
    """A mask moved by so much, with False where nothing comes from."""
    out = np.zeros_like(m)
    for i, j in np.argwhere(m):
        if 0 <= i + di < m.shape[0] and 0 <= j + dj < m.shape[1]:
            out[i + di, j + dj] = True
    return out


def cross(m):
    return m | shifted(m, 1, 0) | shifted(m, -1, 0) | shifted(m, 0, 1) | shifted(m, 0, -1)


@LIBRARIES
@pytest.mark.parametrize("relax", [0, 1, 2, 30])
def test_relaxed_errors_are_those_of_their_definition(library, relax):
    rng = draw(relax)
    for _ in range(10):
        p, t, skeleton = (cross(cross(rng.random((14, 11)) < 0.03 * k)) for k in (1, 1, 0.3))
        deep = p | t
        for _ in range(relax):
            rest = np.pad(deep, 1, constant_values=True)  # what is outside the image is set
            deep = rest[1:-1, :-2] & rest[1:-1, 2:] & rest[:-2, 1:-1] & rest[2:, 1:-1] & rest[1:-1, 1:-1]
        want = []
        for wrong, other in ((p & ~t, t), (t & ~p, p)):
            grown = wrong & deep
            for _ in range(relax):
                grown = cross(grown) & ~other
            want.append(grown & wrong)
        fp, fn = metrics.relaxed_errors(library(p), library(t), library(skeleton), relax)
        np.testing.assert_array_equal(np.asarray(fp), want[0])
        np.testing.assert_array_equal(np.asarray(fn), want[1] | (skeleton & ~p))


@LIBRARIES
def test_corrections_of_squares(library):
    t = np.zeros((80, 80), bool)
    t[20:60, 20:60] = True
    effort = lambda p, **o: metrics.human_correction_effort(library(p), library(t), **o)  # noqa: E731
    assert effort(t) == (0, 0, 0, 0)
    assert effort(np.roll(t, (1, 1), (0, 1))) == (0, 0, 0, 0)  # off by a pixel is not off
    island = t.copy()
    island[0:12, 0:12] = True
    assert effort(island) == (0, 1, 0, 0)
    hole = t.copy()
    hole[32:48, 32:48] = False
    # pixels missed within: nothing but what is right around them
    assert effort(hole) == (0, 0, 0, 1)
    side = t.copy()
    side[20:60, 60:75] = True
    assert effort(side) == (2, 0, 0, 0)  # one straight border with what is right
    bite = t.copy()
    bite[20:60, 20:36] = False
    assert effort(bite, relax=0) == (0, 0, 4, 0)  # along three sides
    assert effort(bite) == (0, 0, 6, 0)  # growth with the cross leaves two corners out
    slit = t.copy()
    slit[30:50, 40] = False
    assert effort(slit) == (0, 0, 0, 1)
    spur = t.copy()
    spur[40, 60:75] = True
    with_spur = lambda **o: metrics.human_correction_effort(library(t), library(spur), **o)  # noqa: E731
    assert with_spur() == (0, 0, 0, 0)  # too thin to be seen, but for its skeleton
    assert with_spur(skeleton=library(spur & ~t)) == (0, 0, 2, 0)
    nothing = np.zeros_like(t)
    assert effort(nothing)[:2] == (0, 0) and effort(nothing).fn_points >= 4
    for wrong, said in (({"relax": -1}, "relax must not be"), ({"epsilon": math.nan}, "epsilon must be")):
        with pytest.raises(ValueError, match=f"human_correction_effort: {said}"):
            effort(t, **wrong)
    with pytest.raises(ValueError, match=r"target has shape \(80, 80\), pred \(4, 80\)"):
        effort(t[:4])


def test_borders_are_followed_once():
    from scipy import ndimage
    from tersor.metrics import masks

    for seed in range(30):
        m = draw(seed).random((9, 12)) < 0.1 + 0.03 * seed
        label = masks._regions(m)
        want, regions = ndimage.label(m, np.ones((3, 3)))
        assert label.max(initial=-1) + 1 == regions
        assert len({(a, b) for a, b in zip(label.ravel(), want.ravel(), strict=True)}) == regions + (not m.all())
        borders = masks._borders(m)
        edge = m & ~ndimage.binary_erosion(m, border_value=0)
        assert {p for path in borders for p in path} == set(map(tuple, np.argwhere(edge).tolist()))
        holes = ndimage.label(~np.pad(m, 1))[1] - 1
        assert len(borders) == regions + holes
        for path in borders:
            assert all(
                max(abs(a - c), abs(b - d)) <= 1 for (a, b), (c, d) in zip(path, path[1:] + path[:1], strict=True)
            )


# --- parts of data ---


def parts_of(seed=0):
    """Every class: how it is made, batches, and what it computes of all of them at once."""
    n = 60
    p, y = probabilities(n, 4, seed), draw(seed).integers(0, 4, n)
    y[:4] = range(4)
    x, z = draw(seed + 1).standard_normal((n, 5)) + 100, draw(seed + 2).standard_normal((n, 3))
    z[:, 0] += x[:, 1]
    w = draw(seed + 3).random(n)
    several = [5, 15]

    def moments(weights=None):
        mean = np.average(x, 0, weights)
        count = float(n if weights is None else weights.sum())
        return metrics.Moments(count, mean, np.average((x - mean) ** 2, 0, weights))

    made = {
        "calibration": (metrics.CalibrationError, {}, (p, y), metrics.calibration_error(p, y)),
        "calibrations": (
            metrics.CalibrationError,
            {"n_bins": several, "classwise": True, "num_classes": 4},
            (p, y),
            metrics.calibration_error(p, y, n_bins=several, classwise=True),
        ),
        "equal mass": (
            metrics.CalibrationError,
            {"binning": "quantile", "norm": "max"},
            (p, y),
            metrics.calibration_error(p, y, binning="quantile", norm="max"),
        ),
        "cka": (metrics.CKA, {}, (x, z), metrics.cka(x, z)),
        "collapse": (metrics.NeuralCollapse, {"num_classes": 4}, (x, y), metrics.neural_collapse(x, y)),
        "collapse about samples": (
            metrics.NeuralCollapse,
            {"num_classes": 4, "center": "samples"},
            (x, y),
            metrics.neural_collapse(x, y, center="samples"),
        ),
        "information": (
            metrics.MutualInformation,
            {"n_bins": 3, "range": (98, 102)},
            (x, y),
            metrics.binned_mutual_information(x, y, n_bins=3, range=(98, 102)),
        ),
        "moments": (metrics.RunningMoments, {}, (x,), moments()),
        "weighted moments": (metrics.RunningMoments, {"weighted": True}, (x, w), moments(w)),
    }
    return made


PARTS = pytest.mark.parametrize("key", sorted(parts_of()))


def numbers(y):
    """What `compute` gave, as one array."""
    values = y.values() if isinstance(y, dict) else y if isinstance(y, tuple) else [y]
    return np.concatenate([np.ravel(v).astype(np.float64) for v in values])


def same(a, b):
    """Whether two metrics hold the same bytes."""
    s, t = a.state_dict(), b.state_dict()
    return s.keys() == t.keys() and all(s[k].tobytes() == t[k].tobytes() and s[k].dtype == t[k].dtype for k in s)


def fed(kind, options, data, cuts, library=np.asarray):
    metric = kind(**options)
    for a, b in itertools.pairwise(cuts):
        metric.update(*[library(v[a:b].copy()) for v in data])
    return metric


@LIBRARIES
@PARTS
def test_parts_are_the_whole(key, library):
    kind, options, data, want = parts_of()[key]
    exact = key == "information"
    for cuts in ([0, 60], [0, 1, 30, 60], [0, 17, 17, 18, 40, 60]):
        got = numbers(fed(kind, options, data, cuts, library).compute())
        np.testing.assert_allclose(got, numbers(want), rtol=1e-11, atol=1e-14)
        assert not exact or (got == numbers(want)).all()


@PARTS
def test_states_merge(key):
    kind, options, data, _ = parts_of()[key]
    whole = fed(kind, options, data, [0, 20, 60])
    a, b = fed(kind, options, data, [0, 20]), fed(kind, options, data, [20, 60])
    before = b.state_dict()
    a.merge_state(b)
    assert same(a, whole)
    assert all((before[k] == b.state_dict()[k]).all() for k in before)
    a.merge_state(kind(**options))  # nothing is added by nothing
    assert same(a, whole)
    empty = kind(**options)
    empty.merge_state(a)
    empty.update(*[v[:0] for v in data])
    assert same(empty, a)


@PARTS
def test_states_are_kept(key):
    kind, options, data, _ = parts_of()[key]
    a = fed(kind, options, data, [0, 40])
    assert same(pickle.loads(pickle.dumps(a)), a)
    b = kind(**options)
    b.load_state_dict(a.state_dict())
    for metric in (a, b):
        metric.update(*[v[40:] for v in data])
    assert same(a, b) and (numbers(a.compute()) == numbers(b.compute())).all()
    state = a.state_dict()
    for v in state.values():
        v[...] = 0  # it was a copy
    assert same(a, b)
    a.reset()
    assert a.state_dict() == {}
    with pytest.raises(ValueError, match=f"{kind.__name__}.compute: nothing was seen"):
        a.compute()
    b.load_state_dict({})
    assert same(a, b)


@PARTS
def test_what_fails_changes_nothing(key):
    kind, options, data, _ = parts_of()[key]
    a = fed(kind, options, data, [0, 40])
    kept = pickle.loads(pickle.dumps(a))
    wrong = [
        [v[:5, :-1] if v.ndim == 2 else v[:5] for v in data],
        [v[: 5 + i] for i, v in enumerate(data)] if len(data) > 1 else [np.float64(3.0)],
        [v.astype(complex) for v in data],
    ]
    if key in ("calibration", "equal mass"):  # a row of fewer classes is as good
        wrong = wrong[1:]
    for bad in wrong:
        with pytest.raises((TypeError, ValueError), match=f"{kind.__name__}.update: "):
            a.update(*bad)
        assert same(a, kept)
    other = next(k for k in (metrics.CKA, metrics.RunningMoments) if k is not kind)
    with pytest.raises(TypeError, match="merge_state: other must be"):
        a.merge_state(other())
    state = a.state_dict()
    first = next(iter(state))
    for broken, error in (
        ({first: state[first]} if len(state) > 1 else {}, ValueError),
        (state | {"more": np.zeros(1)}, ValueError),
        (state | {first: state[first].astype(np.float32)}, TypeError),
        (state | {k: v[..., None] for k, v in state.items() if v.ndim}, ValueError),
        ([], TypeError),
    ):
        if (
            key.endswith("moments")
            and broken is not None
            and "more" not in broken
            and error is ValueError
            and len(broken) > 1
        ):
            continue  # entries of any shape
        with pytest.raises(error, match="load_state_dict: "):
            a.load_state_dict(broken)
        assert same(a, kept)


def test_settings_are_those_of_both():
    for a, b in (
        (metrics.CalibrationError(5), metrics.CalibrationError(6)),
        (metrics.NeuralCollapse(3), metrics.NeuralCollapse(4)),
        (metrics.MutualInformation(3, (0, 1)), metrics.MutualInformation(3, (0, 2))),
        (metrics.RunningMoments(True), metrics.RunningMoments()),
    ):
        with pytest.raises(ValueError, match="merge_state: the settings are"):
            a.merge_state(b)


def test_moments_of_what_does_not_vary():
    x = np.full((7, 2, 3), 0.1, np.float32)
    m = metrics.RunningMoments()
    for part in (x[:2], x[2:]):
        m.update(part)
    got = m.compute()
    assert (got.mean == np.float64(np.float32(0.1))).all() and (got.var == 0).all() and got.count == 7
    far = draw().standard_normal(1000) + 3e5
    m = metrics.RunningMoments()
    for part in np.array_split(far.astype(np.float32), 9):
        m.update(part)
    exact = [Fraction(float(v)) for v in far.astype(np.float32)]
    mean = sum(exact) / 1000
    assert math.isclose(m.compute().var, float(sum((v - mean) ** 2 for v in exact) / 1000), rel_tol=1e-13)


def test_agreement_is_nc4():
    kind, options, (x, y), _ = parts_of()["collapse"]
    metric = fed(kind, options, (x, y), [0, 30, 60])
    w, b = draw(8).standard_normal((4, 5)), draw(9).standard_normal(4)
    want = metrics.neural_collapse(x, y, weight=w, bias=b)
    assert metric.agreement(x, y, w, b) == want["nc4"]
    got = metric.compute(weight=w)
    assert math.isclose(got["nc3"], want["nc3"], rel_tol=1e-12)
    assert math.isclose(got["nc3_align"], want["nc3_align"], rel_tol=1e-12)
    few = metrics.NeuralCollapse(4)
    few.update(x[:1], y[:1])
    for call in (few.compute, lambda: few.agreement(x, y, w)):
        with pytest.raises(ValueError, match="class 1 of 4"):
            call()


def test_there_is_no_group():
    with pytest.raises(ValueError, match=r"CKA.sync: there is no process group"):
        metrics.CKA().sync()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_numbers_of_16_bits_are_read_as_they_are(kind):
    p = torch.from_numpy(probabilities(50, 3)).to(kind)
    y = torch.from_numpy(draw().integers(0, 3, 50))
    wide = p.double()
    assert metrics.calibration_error(p, y) == metrics.calibration_error(wide, y)
    assert metrics.spearman_corrcoef(p, p.flip(1)).tolist() == metrics.spearman_corrcoef(wide, wide.flip(1)).tolist()
    assert metrics.cka(p, p[:, :2]) == metrics.cka(wide, wide[:, :2])
    assert metrics.neural_collapse(p, y) == metrics.neural_collapse(wide, y)
    assert metrics.residual_contribution(p, p)[0].dtype is kind
    theirs = ml_dtypes.bfloat16 if kind is torch.bfloat16 else np.float16
    q = p.view(torch.int16).numpy().view(theirs)
    assert metrics.calibration_error(q, y.numpy()) == float(metrics.calibration_error(p, y))
    assert math.isclose(metrics.cka(q, q[:, :2]), metrics.cka(p, p[:, :2]), rel_tol=1e-13)
    assert metrics.residual_contribution(q, q)[0].dtype == theirs
