"""Scores and shares. The one rule: what is computed in one pass is compared with the definition, and every share adds up."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tersor import prune

rng = np.random.default_rng(0)


def test_lamp_is_its_definition():
    for w in (
        rng.standard_normal((7, 9)),
        rng.integers(-2, 3, (6, 8)).astype(float),
        np.zeros((2, 3)),
        np.zeros((0, 3)),
    ):
        order = sorted(range(w.size), key=lambda i: (abs(w.flat[i]), -i))
        want = np.zeros(w.size)
        for at, i in enumerate(order):
            total = math.fsum(w.flat[j] ** 2 for j in order[at:])
            want[i] = w.flat[i] ** 2 / total if total else 0
        got = prune.lamp_scores(w)
        np.testing.assert_allclose(got.reshape(-1), want, rtol=1e-13)
        np.testing.assert_allclose(prune.lamp_scores(torch.from_numpy(w)).numpy(), got, rtol=1e-15)
    # sums run from the top: a million weights lose no digits
    w = rng.standard_normal(10**6).astype(np.float32)
    least = np.argmin(abs(w))
    assert prune.lamp_scores(w)[least] == pytest.approx(
        float(w[least]) ** 2 / math.fsum(w.astype(float) ** 2), rel=1e-9
    )
    for size in (1e-200, 1e200, 5e-324):  # no square overflows or is lost
        assert prune.lamp_scores(np.array([size, -size])).tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match="lamp_scores: w holds non-finite"):
        prune.lamp_scores(np.array([np.nan]))


def test_lamp_leaves_no_layer_empty():
    layers = [rng.standard_normal((20, 20)) * s for s in (1e-3, 1, 50)]
    masks = prune.global_masks(layers, k=1197, scores=[prune.lamp_scores(w) for w in layers])
    assert [m.sum() for m in masks] == [1, 1, 1]


shapes = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=4), min_size=1, max_size=8)


@given(shapes, st.floats(0, 1), st.floats(0, 2))
def test_shares_add_up(layers, sparsity, power):
    sizes = [math.prod(s) for s in layers]
    for got in (prune.erk_densities(layers, sparsity, power=power), prune.uniform_densities(layers, sparsity)):
        assert all(-1e-12 <= d <= 1 + 1e-12 for d in got)
        assert math.fsum(d * n for d, n in zip(got, sizes, strict=True)) == pytest.approx(
            (1 - sparsity) * sum(sizes), abs=1e-6
        )
    made = prune.erk_densities(layers, sparsity, power=power)
    raw = [(sum(s) / n) ** power for s, n in zip(layers, sizes, strict=True)]
    free = [i for i, d in enumerate(made) if d < 1 - 1e-9]
    for i in free:  # in proportion, but for those that are dense
        assert made[i] * raw[free[0]] == pytest.approx(made[free[0]] * raw[i], rel=1e-9)


def test_shares_that_are_exact_and_types_of_numbers():
    assert prune.uniform_densities([(4, 4)], 0.9, first=0.1) == [0.1]
    assert prune.uniform_densities([(4, 4), (3, 3)], 0.9, first=0.1, last=0.1) == [0.1, 0.1]
    with pytest.raises(ValueError, match=r"first=0\.2 and last=0\.0 do not go"):
        prune.uniform_densities([(4, 4), (3, 3)], 0.9, first=0.2)
    layers = [(5, 3), (9, 9)]
    for f in (prune.erk_densities, prune.uniform_densities):
        assert f(layers, np.float32(0.3)) == f(layers, float(np.float32(0.3)))
        assert all(type(d) is float for d in f(layers, np.float32(0.3)))
    for power in (1e4, -1e4, math.inf, math.nan):
        with pytest.raises(ValueError, match="erk_densities: power must leave shares that are positive numbers"):
            prune.erk_densities(layers, 0.5, power=power)


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_parts_of_saliency_have_no_scale(scale):
    w, g = rng.standard_normal((2, 6, 5))
    (want,) = prune.group_saliency([w], [g])
    (got,) = prune.group_saliency([w * scale], [g * scale])
    np.testing.assert_allclose(got, want, rtol=1e-12)
    (got,) = prune.group_saliency([torch.from_numpy(w * scale)], [torch.from_numpy(g * scale)])
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_uniform_with_ends_held():
    layers = [(27, 64), (64, 576), (576, 576), (10, 576)]
    sizes = [math.prod(s) for s in layers]
    made = prune.uniform_densities(layers, 0.95, first=1.0, last=0.2)
    assert made[0] == 1 and made[3] == 0.2 and made[1] == made[2]
    assert math.fsum(d * n for d, n in zip(made, sizes, strict=True)) == pytest.approx(0.05 * sum(sizes))
    assert prune.uniform_densities(layers, 0.5, last=0.2) == [0.5] * 4
    with pytest.raises(ValueError, match=r"first=1\.0 and last=0\.0 do not go with a sparsity of 0\.999"):
        prune.uniform_densities(layers, 0.999, first=1.0)
    for call, said in [
        (lambda: prune.erk_densities([(3, 0)], 0.5), r"erk_densities: shapes\[0\] must have axes of 1 or more"),
        (lambda: prune.erk_densities([(3, 2)], 1.5), "erk_densities: sparsity must be between 0 and 1, got 1.5"),
        (lambda: prune.uniform_densities([(3, 2)], 0.5, first=2.0), "first must be between 0 and 1, got 2.0"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match="shapes must be a list of shapes"):
        prune.erk_densities([3], 0.5)


def hesso(x, g):
    """The five parts of each row, as they are defined."""
    size, slope = np.linalg.norm(x, axis=1), np.linalg.norm(g, axis=1)
    dot = (x * g).sum(1)
    turn = np.where(size * slope > 0, dot / np.where(size * slope > 0, size * slope, 1) + 1, 0)
    return [size, size / x.shape[1], turn, abs(dot), dot**2 / 2]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_saliency_is_the_sum_of_its_parts(dtype):
    heads = 4
    q, g = (rng.standard_normal((8, 6)).astype(dtype) for _ in range(2))
    conv, bias = rng.standard_normal((5, 3, 3, 3)).astype(dtype), rng.standard_normal(5).astype(dtype)
    cg, bg = rng.standard_normal(conv.shape).astype(dtype), rng.standard_normal(5).astype(dtype)
    out, og = rng.standard_normal((6, 8)).astype(dtype), rng.standard_normal((6, 8)).astype(dtype)
    got = prune.group_saliency([[q, out], [conv, bias]], [[g, og], [cg, bg]], axis=[[0, 1], 0], groups=[heads, None])
    nodes = [
        hesso(
            *(
                np.concatenate([a.reshape(heads, -1), b.T.reshape(heads, -1)], 1).astype(float)
                for a, b in ((q, out), (g, og))
            )
        ),
        hesso(*(np.concatenate([a.reshape(5, -1), b[:, None]], 1).astype(float) for a, b in ((conv, bias), (cg, bg)))),
    ]
    want = [np.zeros(heads), np.zeros(5)]
    for parts in zip(*nodes, strict=True):
        norm = np.sqrt(sum((p**2).sum() for p in parts))
        want = [w + 0.2 * p / norm for w, p in zip(want, parts, strict=True)]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    t = torch.from_numpy
    same = prune.group_saliency(
        [[t(q), t(out)], [t(conv), t(bias)]], [[t(g), t(og)], [t(cg), t(bg)]], axis=[[0, 1], 0], groups=[heads, None]
    )
    for a, b in zip(got, same, strict=True):
        np.testing.assert_allclose(b.numpy(), a, rtol=1e-15)


def test_groups_of_zeros_and_who_is_refused():
    zero = np.zeros((3, 4))
    assert prune.group_saliency([zero], [zero])[0].tolist() == [0, 0, 0]
    w = np.ones((3, 4))
    w[1] = 0
    turn = prune.group_saliency([w], [np.ones((3, 4))], parts={"cosine": 1.0})[0]
    np.testing.assert_allclose(turn, [0.5**0.5, 0, 0.5**0.5])
    for error, said, call in [
        (ValueError, "2 tensors, 1 gradients", lambda: prune.group_saliency([w, w], [w])),
        (
            ValueError,
            r"tensors\[0\] is float64 \(3, 4\), its gradient float64 \(4, 3\)",
            lambda: prune.group_saliency([w], [w.T]),
        ),
        (
            ValueError,
            r"axis 0 of tensors\[0\] has 3 elements, which are no 2 groups",
            lambda: prune.group_saliency([w], [w], groups=[2]),
        ),
        (ValueError, "parts are magnitude, average", lambda: prune.group_saliency([w], [w], parts={"hessian": 1.0})),
        (
            TypeError,
            r"tensors\[0\] must be a float array, got int64",
            lambda: prune.group_saliency([w.astype(int)], [w]),
        ),
        (ValueError, "axis 2 is out of bounds", lambda: prune.group_saliency([w], [w], axis=2)),
    ]:
        with pytest.raises(error, match=said):
            call()


GRAIN = 2.0**-20


@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(1, 5), st.integers(1, 5))
def test_amounts_are_within_the_budget_and_the_best(seed, share, layers, amounts):
    r = np.random.default_rng(seed)
    costs, losses = (r.integers(0, 40, (layers, amounts)) * (1.0 if seed % 2 else GRAIN * 1000) for _ in range(2))
    least, most = costs.min(1).sum(), costs.max(1).sum()
    budget = least + share * (most - least)
    every = [
        (sum(losses[i, k] for i, k in enumerate(c)), sum(costs[i, k] for i, k in enumerate(c)), c)
        for c in itertools.product(range(amounts), repeat=layers)
    ]
    v, c, choice = min(one for one in every if one[1] <= budget)
    made = prune.budget_allocate(costs, losses, budget)
    assert (made.loss, made.cost, tuple(made.choice), made.bound) == (v, c, choice, v)
    for method in ("binned", "lagrange"):
        got = prune.budget_allocate(costs, losses, budget, method=method)
        assert got.cost <= budget and got.bound <= v <= got.loss
        assert got.loss == losses[np.arange(layers), got.choice].sum()
        again = prune.budget_allocate(costs, losses * 8, budget, method=method)
        np.testing.assert_array_equal(again.choice, got.choice)


def test_bins_close_the_gap_where_the_multiplier_leaves_one():
    """53 layers of 101 amounts, convex losses and others: never worse than the multiplier, within 2 % of the best."""
    r = np.random.default_rng(0)
    sizes = r.lognormal(11, 1.5, 53)
    kept = np.linspace(1, 0, 101)
    losses = r.lognormal(0, 1, (53, 1)) * (1 - kept) ** r.uniform(0.5, 3, (53, 1)) * r.uniform(0.9, 1.1, (53, 101))
    costs = sizes[:, None] * kept
    for share in (0.05, 0.41, 0.9):
        budget = share * sizes.sum()
        best, quick, binned = (
            prune.budget_allocate(costs, losses, budget, method=m) for m in ("exact", "lagrange", "binned")
        )
        assert binned.cost <= budget and quick.bound <= best.loss <= binned.loss <= quick.loss
        assert binned.loss <= 1.02 * best.loss
    # a feasible case that bins of whole costs would lose: only the cheapest amounts fit
    tight = prune.budget_allocate(costs + 1e6, losses, (costs[:, -1] + 1e6).sum(), method="binned")
    assert (tight.choice == 100).all()
    with pytest.raises(ValueError, match="budget_allocate: budget 1 is below the least cost, 5"):
        prune.budget_allocate(np.full((2, 1), 2.5), np.ones((2, 1)), 1)
    with pytest.raises(
        ValueError, match="budget_allocate: method must be one of exact, binned, lagrange, got 'greedy'"
    ):
        prune.budget_allocate(costs, losses, 1e9, method="greedy")


def test_what_bins_leave_of_a_budget_is_spent():
    rng = np.random.default_rng(1)
    for _ in range(20):
        costs = np.sort(rng.uniform(0, 1, (40, 3)), 1) * np.array([1.0, 1e-6, 1.0])[rng.integers(0, 3, (40, 1))]
        losses = -np.sort(-rng.uniform(0, 1, (40, 3)), 1)
        budget = float(costs.min(1).sum() + 0.4 * (costs.max(1) - costs.min(1)).sum())
        made = prune.budget_allocate(costs, losses, budget, method="binned")
        assert made.cost == math.fsum(costs[np.arange(40), made.choice]) <= budget and made.bound <= made.loss
        # nothing that is left out fits
        more, gain = (
            costs - costs[np.arange(40), made.choice][:, None],
            losses[np.arange(40), made.choice][:, None] - losses,
        )
        assert not ((gain > 0) & (more < budget - made.cost - 1e-12)).any()
        tensor = prune.budget_allocate(torch.from_numpy(costs), torch.from_numpy(losses), budget, method="binned")
        assert tensor.choice.tolist() == made.choice.tolist() and tensor.loss == made.loss
