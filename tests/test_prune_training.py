"""Schedules and masks that move, against their definitions. The one rule: every mask is an exact selection, so that
comparisons are equalities.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tersor import prune, random

SCHEDULES = (prune.cubic_schedule, prune.linear_schedule, prune.cosine_schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(-50, 50), st.integers(0, 50), st.integers(-200, 200))
def test_schedules_go_from_one_value_to_the_other(schedule, initial, final, begin, length, step):
    end = begin + length
    s = schedule(step, begin, end, initial, final)
    assert min(initial, final) <= s <= max(initial, final)
    if step >= end:
        assert s == final
    elif step <= begin:
        assert s == initial
    further = schedule(step + 1, begin, end, initial, final)
    assert further >= s if final >= initial else further <= s


def test_schedules_are_their_formulas():
    assert [f(3, 2, 6, 0.2, 1.0) for f in SCHEDULES] == pytest.approx(
        [1 - 0.8 * 0.75**3, 0.4, 0.2 + 0.8 * (1 - math.cos(math.pi / 4)) / 2], rel=1e-15
    )
    for f in SCHEDULES:
        for given_, text in (
            ((0, 0, 1, 1.5, 0), "initial"),
            ((0, 0, 1, 0, math.nan), "final"),
            ((0, 2, 1, 0, 1), "begin"),
        ):
            with pytest.raises(ValueError, match=f"^{f.__name__}: {text}"):
                f(*given_)
        with pytest.raises(ValueError, match="step must be finite"):
            f(math.inf, 0, 1, 0, 1)
        with pytest.raises(TypeError, match=f"^{f.__name__}: end must be a number"):
            f(0, 0, "1", 0, 1)


def moved(rng, dtype="float32"):
    shape = tuple(rng.integers(1, 9, rng.integers(1, 4)))
    w, g = (np.round(rng.standard_normal(shape) * 3).astype(dtype) for _ in range(2))  # with ties, and zeros
    return w, g, rng.random(shape) < rng.random(), float(rng.random())


def brute_rigl(w, g, mask, fraction, regrow=True):
    flat, grad, kept = np.abs(w).ravel(), np.abs(g).ravel(), mask.ravel().copy()
    n = int(fraction * kept.sum())
    if not regrow:
        n = min(n, kept.size - kept.sum())
    before = kept.copy()
    order = sorted(np.flatnonzero(kept), key=lambda i: (flat[i], -i))
    kept[order[:n]] = False
    free = np.flatnonzero(~kept if regrow else ~before)
    kept[sorted(free, key=lambda i: (-grad[i], i))[:n]] = True
    return kept.reshape(mask.shape)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("regrow", [True, False])
@pytest.mark.parametrize("seed", range(25))
def test_rigl_is_its_definition(seed, dtype, regrow):
    w, g, mask, fraction = moved(np.random.default_rng(seed), dtype)
    w = np.where(mask, w, np.nan).astype(dtype)  # what is pruned may hold anything
    made = prune.rigl_update(w, g, mask, fraction, regrow=regrow)
    assert made.dtype == bool and made.sum() == mask.sum()
    assert (made == brute_rigl(w, g, mask, fraction, regrow)).all()
    assert (prune.rigl_update(w, g, mask, 0.0) == mask).all()
    for t in (torch.from_numpy, lambda x: torch.from_numpy(np.ascontiguousarray(x.T)).permute(*range(x.ndim)[::-1])):
        again = prune.rigl_update(t(w).requires_grad_(), t(g), t(mask), fraction, regrow=regrow)
        assert (again.numpy() == made).all()


@pytest.mark.parametrize("seed", range(25))
def test_set_keeps_the_largest_and_grows_by_words_alone(seed):
    w, _, mask, fraction = moved(np.random.default_rng(seed))
    made = prune.set_update(w, mask, fraction, seed=seed)
    n = int(fraction * mask.sum())
    assert made.sum() == mask.sum() and (made & mask).sum() >= mask.sum() - n
    order = np.abs(w)[mask]
    assert made[mask & (np.abs(w) > np.sort(order)[n - 1] if n else mask)].all()
    assert (prune.set_update(torch.from_numpy(w), torch.from_numpy(mask), fraction, seed=seed).numpy() == made).all()


@pytest.mark.parametrize("of", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("kept", [True, False])
def test_one_weight_without_axes(of, kept):
    w, mask = of(1.0), of(kept)
    for share in (0.0, 1.0):
        for made in (prune.rigl_update(w, w, mask, share), prune.set_update(w, mask, share, seed=1)):
            assert type(made) is type(mask) and made.shape == () and bool(made) is kept


def test_set_grows_everywhere_alike():
    """Of 400 free places of equal chance each grows a tenth of the time."""
    w, mask = np.ones((21, 21)), np.zeros((21, 21), bool)
    mask.ravel()[:41] = True
    grown = sum(prune.set_update(w, mask, 1.0, seed=s).astype(int) for s in range(300))
    p = 41 / 441
    assert abs(grown - 300 * p).max() < 5 * math.sqrt(300 * p * (1 - p))
    # and as the page of bits says
    words = random.philox4x32(
        np.array([[b, 0, 0, 32 + 256] for b in range(111)], np.uint32), np.array([7, 1], np.uint32)
    ).reshape(-1)[:441]
    made = prune.set_update(w, mask, 1.0, seed=7 + 2**32)
    assert set(np.flatnonzero(made)) == set(np.argsort(-words.astype(np.int64), kind="stable")[:41])


def test_what_moving_masks_say():
    w, mask = np.ones((2, 3), np.float32), np.array([[True, False, True], [True, False, False]])
    for f in (
        lambda *a, **k: prune.rigl_update(a[0], w, *a[1:], **k),
        lambda *a, **k: prune.set_update(*a, seed=0, **k),
    ):
        with pytest.raises(ValueError, match=r"_update: mask must have the shape of w, \(2, 3\), got \(3,\)"):
            f(w, mask[0], 0.5)
        with pytest.raises(ValueError, match=r"_update: fraction must be between 0 and 1, got 1.5"):
            f(w, mask, 1.5)
        with pytest.raises(TypeError, match=r"_update: fraction must be a number, got str"):
            f(w, mask, "half")
        with pytest.raises(TypeError, match=r"_update: mask must be bool, got float32"):
            f(w, mask.astype(np.float32), 0.5)
        with pytest.raises(ValueError, match=r"_update: w has non-finite values"):
            f(np.where(mask, np.float32(np.nan), w), mask, 0.5)
        with pytest.raises(TypeError, match=r"_update: w must be .*, got list"):
            f([1.0], mask, 0.5)
    with pytest.raises(ValueError, match=r"rigl_update: grad has non-finite values"):
        prune.rigl_update(w, np.where(mask, w, np.inf).astype(np.float32), mask, 0.5)
    with pytest.raises(ValueError, match=r"rigl_update: grad must have the shape of w"):
        prune.rigl_update(w, w[:1], mask, 0.5)
    with pytest.raises(TypeError, match=r"rigl_update: grad is float64, w is float32"):
        prune.rigl_update(w, w.astype(np.float64), mask, 0.5)
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=r"set_update: seed must be in \[0, 2\^64\)"):
            prune.set_update(w, mask, 0.5, seed=seed)
    with pytest.raises(TypeError, match=r"set_update: seed must be an integer"):
        prune.set_update(w, mask, 0.5, seed=0.5)
    empty = np.zeros((0, 3), np.float32)
    assert prune.rigl_update(empty, empty, empty > 0, 0.5).shape == (0, 3)
    assert prune.set_update(empty, empty > 0, 0.5, seed=1).shape == (0, 3)
