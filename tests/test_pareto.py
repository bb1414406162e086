"""What every budget gives. The one rule: a point is what the exact choice for its own cost is, and no choice is
below the line of two."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tersor import quant

torch = pytest.importorskip("torch")


def table(n, k):
    numbers = st.integers(-4, 6).map(float) | st.floats(-3, 3) | st.sampled_from([1e-300, 5e-324, 1e300])
    return st.lists(st.lists(numbers, min_size=k, max_size=k), min_size=n, max_size=n).map(
        lambda rows: np.array(rows, float).reshape(n, k)
    )


tables = st.tuples(st.integers(0, 4), st.integers(1, 4)).flatmap(lambda size: st.tuples(table(*size), table(*size)))


@given(tables)
@example((np.array([[3.0, 2.0, 1.0]] * 2), np.array([[1.0, 2.0, 3.0]] * 2)))  # all steps alike
@example((np.zeros((2, 2)), np.zeros((2, 2))))
@example((np.array([[1.0, 1.0, 0.0]]), np.array([[2.0, 1.0, 1.0]])))
def test_the_corners_of_all_choices(both):
    loss, cost = both
    made = quant.bit_pareto(loss, cost)
    v, c = ([[Fraction(x) for x in row] for row in t.tolist()] for t in both)
    every = [
        (sum(map(list.__getitem__, c, k), Fraction()), sum(map(list.__getitem__, v, k), Fraction()))
        for k in itertools.product(range(loss.shape[1]), repeat=len(loss))
    ]
    points = []
    for i in range(len(made.cost)):
        choice = made.choice(i)
        points.append(tuple(sum((row[k] for row, k in zip(t, choice, strict=True)), Fraction()) for t in (c, v)))
        assert (float(points[-1][0]), float(points[-1][1])) == (made.cost[i], made.loss[i])
    assert points[0] == min(every) and points[-1][1] == min(b for _, b in every)
    for (c0, v0), (c1, v1) in itertools.pairwise(points):
        assert c0 < c1 and v0 > v1
        assert all((b - v0) * (c1 - c0) >= (v1 - v0) * (a - c0) for a, b in every)  # on or above the line
    same = quant.bit_pareto(torch.from_numpy(loss), torch.from_numpy(cost))
    for a, b in zip(made, same, strict=True):
        assert np.array_equal(a, b.numpy()) and a.dtype == b.numpy().dtype
    assert same.choice(-1).tolist() == made.choice(-1).tolist()


def test_points_are_what_their_budgets_choose():
    rng = np.random.default_rng(0)
    bits = np.arange(2, 8)
    loss = rng.lognormal(0, 2, (60, 1)) * 4.0**-bits * rng.uniform(0.7, 1.3, (60, 6))
    cost = rng.uniform(1e4, 1e6, (60, 1)) * bits
    made = quant.bit_pareto(loss, cost)
    for i in range(0, len(made.cost), 29):
        one = quant.bit_allocate(loss, cost, made.cost[i])
        assert one.loss == made.loss[i] and one.choice.tolist() == made.choice(i).tolist()
        assert made.within(made.cost[i]) == i == made.within(np.nextafter(made.cost[i], math.inf))
    with pytest.raises(ValueError, match=r"Pareto.within: budget 1 is below the least cost"):
        made.within(1)
    with pytest.raises(IndexError, match=r"^Pareto.choice: point must be one of "):
        made.choice(len(made.cost))
    with pytest.raises(TypeError, match=r"^Pareto.choice: point must be an integer, got float"):
        made.choice(1.5)
    for wrong in ("1", None, True):
        with pytest.raises(TypeError, match=r"^Pareto.within: budget must be a number, got "):
            made.within(wrong)
    with pytest.raises(ValueError, match=r"^Pareto.within: budget nan is below"):
        made.within(math.nan)
    assert made.within(10**400) == made.within(torch.tensor(math.inf)) == len(made.cost) - 1


def test_who_is_refused():
    ones = np.ones((2, 3))
    for error, said, call in [
        (ValueError, "loss holds non-finite", lambda: quant.bit_pareto(ones * np.inf, ones)),
        (ValueError, "cost holds non-finite", lambda: quant.bit_pareto(ones, ones * np.nan)),
        (ValueError, "loss has shape", lambda: quant.bit_pareto(ones, ones[:1])),
        (ValueError, r"loss must be \[layers, levels\]", lambda: quant.bit_pareto(ones[0], ones)),
        (ValueError, "sums of loss or cost are beyond float64", lambda: quant.bit_pareto(ones, ones * 1.5e308)),
        (TypeError, "cost must be float64", lambda: quant.bit_pareto(ones, ones > 0)),
        (TypeError, "loss must be a", lambda: quant.bit_pareto([[1.0]], ones)),
    ]:
        with pytest.raises(error, match=f"bit_pareto: {said}"):
            call()
    assert quant.bit_pareto(ones.astype(np.int32), ones.astype(np.float16)).loss.tolist() == [2.0]


def test_a_calibrated_module_says_what_other_budgets_lose(capsys):
    from tersor.cli._said import budgets
    from test_calibrate import net, seen

    made = quant.calibrate(net(), [seen(60)], "int-row-gptq", bits="auto", budget=4.8)
    bits, loss = np.array(made.curve).T
    assert (np.diff(bits) > 0).all() and (np.diff(loss) < 0).all() and bits[0] < made.chosen[0] <= 4.8 < bits[-1]
    assert np.interp(made.chosen[0], bits, loss) * (1 - 1e-12) <= made.chosen[1] <= loss[bits <= 4.8][-1]
    other = quant.calibrate(net(), [seen(60)], "int-row-gptq", bits="auto", budget=float(bits[3]) * (1 + 1e-12))
    assert other.chosen == pytest.approx(made.curve[3], rel=1e-12) and other.curve == made.curve
    assert quant.calibrate(net(), [seen(60)], "int4-row-gptq").curve == ()
    budgets(made.curve, made.chosen)
    said = capsys.readouterr().out.replace("\n", " ")
    assert said.startswith(f"loss by bits a weight, that of {made.chosen[0]:.2f} being 1: {bits[0]:.2f}: ")
    assert f"{loss[0] / made.chosen[1]:.3g}" in said and f"{bits[-1]:.2f}: {loss[-1] / made.chosen[1]:.3g}" in said
    for nothing in (((), None), (made.curve[:1], made.chosen), (made.curve, (4.0, 0.0))):
        budgets(*nothing)
    assert not capsys.readouterr().out
