"""Widths within a budget. The one rule: what is chosen is compared with every choice there is, in exact integers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tersor import quant

torch = pytest.importorskip("torch")


#: numbers are multiples of it, and their sums exact integers
GRAIN = 2.0**-45


def every(loss, cost, budget):
    """The best of all choices: least loss, then least cost, then lowest levels."""
    v, c = ((x / GRAIN).astype(int).tolist() for x in (loss, cost))
    found = (
        (sum(map(list.__getitem__, v, choice)), sum(map(list.__getitem__, c, choice)), choice)
        for choice in itertools.product(range(loss.shape[1]), repeat=len(loss))
    )
    v, c, choice = min(one for one in found if one[1] * GRAIN <= budget)
    return v * GRAIN, c * GRAIN, choice


def sums(x, choice):
    return math.fsum(float(x[i, k]) for i, k in enumerate(choice))


def real(layers, levels, seed=0):
    """Losses that fall about as 4^-bits, of layers of very different sizes; costs without a divisor in common."""
    rng = np.random.default_rng(seed)
    bits = np.arange(2, 2 + levels)
    loss = rng.lognormal(0, 2, (layers, 1)) * 4.0**-bits * rng.uniform(0.7, 1.3, (layers, levels))
    return loss, rng.uniform(1e4, 1e7, (layers, 1)) * (bits + rng.uniform(0, 0.3, (layers, 1)))


def table(n, k, low, high):
    """Small integers, many of them equal, or any numbers."""
    small = st.integers(low, high).map(float)
    any_one = st.integers(low * 2**45, high * 2**45).map(lambda i: i * GRAIN)
    rows = st.lists(st.lists(small | any_one, min_size=k, max_size=k), min_size=n, max_size=n)
    return rows.map(lambda rows: np.array(rows, float).reshape(n, k))


tables = st.tuples(st.integers(0, 4), st.integers(1, 4)).flatmap(
    lambda size: st.tuples(table(*size, -4, 6), table(*size, -1, 6))
)


@given(tables, st.floats(0, 1))
@example((np.zeros((3, 2)), np.zeros((3, 2))), 0.0)
@example((np.array([[1.0, 1, 0]] * 2), np.array([[0.5, 0.5, 0.75]] * 2)), 0.5)
def test_the_choice_is_the_best_of_all(given_tables, share):
    loss, cost = given_tables
    least, most = (math.fsum(edge(row) for row in cost) for edge in (min, max))
    budget = max(least, min(most, least + share * (most - least)))
    made = quant.bit_allocate(loss, cost, budget)
    v, c, choice = every(loss, cost, budget)
    assert (tuple(made.choice), made.loss, made.cost) == (choice, v, c) and made.bound == made.loss
    quick = quant.bit_allocate(loss, cost, budget, method="lagrangian")
    assert quick.bound <= made.loss <= quick.loss and quick.cost <= budget
    for got in (made, quick):
        assert got.loss == pytest.approx(sums(loss, got.choice), abs=1e-15) and got.cost <= budget
        same = quant.bit_allocate(
            torch.from_numpy(loss), torch.from_numpy(cost), budget, method="dp" if got is made else "lagrangian"
        )
        assert same.choice.dtype == torch.int64 and same.choice.tolist() == got.choice.tolist()
        assert same[1:] == got[1:]


@pytest.mark.parametrize("method", ["dp", "lagrangian"])
def test_more_budget_never_loses(method):
    loss, cost = real(60, 5)
    least, most = cost.min(1).sum(), cost.max(1).sum()
    found = [quant.bit_allocate(loss, cost, b, method=method) for b in np.linspace(least * 1.0001, most * 1.1, 40)]
    for one, other in itertools.pairwise(found):
        assert other.loss <= one.loss and other.bound <= one.bound * (1 + 1e-12)
    assert [made.choice.tolist() for made in found[-3:]] == [[4] * 60] * 3  # all that there is
    assert quant.bit_allocate(loss, cost, math.inf, method=method).choice.tolist() == [4] * 60


@pytest.mark.parametrize("seed", range(4))
def test_large_tables_are_solved_to_within_their_gap(seed):
    loss, cost = real(300, 6, seed)
    budget = 4.25 / 2.15 * cost[:, 0].sum()
    made, quick = (quant.bit_allocate(loss, cost, budget, method=m) for m in ("dp", "lagrangian"))
    assert quick.bound <= made.loss <= quick.loss <= 1.05 * quick.bound
    assert sums(cost, made.choice) == made.cost <= budget and sums(loss, made.choice) == pytest.approx(made.loss)
    # no exchange of two levels makes it better
    at = np.arange(300)
    own_v, own_c = loss[at, made.choice][:, None], cost[at, made.choice][:, None]
    dv, dc = (loss - own_v).ravel(), (cost - own_c).ravel()
    better = (dv[:, None] + dv < -1e-12 * made.loss) & (dc[:, None] + dc <= budget - made.cost)
    layer = np.repeat(at, 6)
    assert not (better & (layer[:, None] != layer)).any()


def test_integers_count_as_numbers():
    loss, cost = np.array([[9, 4, 0], [5, 2, 1]]), np.array([[2, 4, 8]] * 2, np.int32)
    assert quant.bit_allocate(loss, cost, 8).choice.tolist() == [1, 1]
    assert quant.bit_allocate(loss.astype(np.float16), cost, 10).choice.tolist() == [2, 0]


def test_who_is_refused():
    loss, cost = np.ones((2, 3)), np.full((2, 3), 2.5)
    with pytest.raises(ValueError, match=r"bit_allocate: budget 4.5 is below the least cost, 5$"):
        quant.bit_allocate(loss, cost, 4.5)
    for error, said, call in [
        (ValueError, "budget NaN is below", lambda: quant.bit_allocate(loss, cost, math.nan)),
        (ValueError, "loss has shape", lambda: quant.bit_allocate(loss, cost[:1], 9)),
        (ValueError, r"loss must be \[layers, levels\]", lambda: quant.bit_allocate(loss[0], cost, 9)),
        (ValueError, r"cost must be \[layers, levels\]", lambda: quant.bit_allocate(loss, cost[:, :0], 9)),
        (ValueError, "loss holds non-finite", lambda: quant.bit_allocate(loss * np.inf, cost, 9)),
        (ValueError, "cost holds non-finite", lambda: quant.bit_allocate(loss, cost * np.nan, 9)),
        (ValueError, "sums of cost are beyond float64", lambda: quant.bit_allocate(loss, cost * 6e307, 9)),
        (ValueError, "method must be one of", lambda: quant.bit_allocate(loss, cost, 9, method="greedy")),
        (TypeError, "cost must be float64", lambda: quant.bit_allocate(loss, cost > 0, 9)),
        (TypeError, "loss must be a", lambda: quant.bit_allocate([[1.0]], cost, 9)),
    ]:
        with pytest.raises(error, match=f"bit_allocate: {said}"):
            call()


def test_what_grows_without_end_is_cut_off():
    """Costs that are their own gains: no choice but the one that meets the budget can be told from the best."""
    cost = np.random.default_rng(0).integers(2**49, 2**50, (60, 2)) * [0, 1]
    budget = float(cost.sum() // 2)
    with pytest.raises(ValueError, match=r"partial choices are open at layer \d+ of 60: method='lagrangian'"):
        quant.bit_allocate(-cost, cost, budget)
    quick = quant.bit_allocate(-cost, cost, budget, method="lagrangian")
    assert -budget * (1 + 1e-14) <= quick.bound <= quick.loss <= -budget + 2**50
