"""Calibration errors. The one rule: bins and their errors are those of fractions."""

import itertools
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import tersor
import torch
from drawn import LIBRARIES, draw, probabilities
from hypothesis import given
from hypothesis import strategies as st
from tersor import metrics


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
    # the bits of one are those it has alone, beside a table too large for copies of its own
    p, y = draw(3).random(140_000), draw(4).integers(0, 2, 140_000)
    assert metrics.calibration_error(p, y, n_bins=[15, 400])[0] == metrics.calibration_error(p, y)


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
