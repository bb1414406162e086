"""Metrics of data that comes in parts. The one rule: parts in any order, merged and saved, are the whole."""

import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from drawn import LIBRARIES, draw, probabilities
from tersor import metrics


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
