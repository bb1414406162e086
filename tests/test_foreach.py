"""Functions over lists: norms, combinations, averages. The one rule: what a list gives is what its arrays give one by
one, to the bit where it is one operation, and the numbers are those of higher precision."""

import math

import ml_dtypes
import numpy as np
import pytest
import tersor
import torch
from tersor import foreach, metrics, random
from tersor.testing import ulps

RNG = np.random.default_rng(0)


def some(*shapes, dtype=np.float32, scale=1.0):
    return [np.asarray(RNG.standard_normal(s) * scale).astype(dtype) for s in shapes]


SHAPES = [(3, 5), (), (0,), (1,), (40000,), (7, 1, 2), (98309,), (17,)]


def exact(xs):
    """The norm of order 2 in exact arithmetic, rounded."""
    from fractions import Fraction

    total = sum((Fraction(float(v)) ** 2 for x in xs for v in np.ravel(x)), Fraction(0))
    if not total:
        return 0.0
    power = (total.numerator.bit_length() - total.denominator.bit_length()) // 2 - 60
    return math.ldexp(math.isqrt(int(total / Fraction(4) ** power)), power)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16], ids=str)
def test_norms_are_right_to_two_units(dtype):
    xs = some((300,), (3, 5), (0,), (), (4099,), dtype=dtype)
    want = np.array([exact([x]) for x in xs])
    assert ulps(foreach.norms(xs), want).max() <= 2
    assert ulps(foreach.norms(xs, groups="all"), [exact(xs)]).max() <= 2
    assert (
        ulps(
            foreach.norms(xs, groups=[1, 3, 1, 0, 3]), [exact(xs[3:4]), exact(xs[:1]), 0.0, exact([xs[1], xs[4]])]
        ).max()
        <= 2
    )
    flat = np.concatenate([np.float64(x).ravel() for x in xs])
    assert foreach.norms(xs, np.inf, groups="all") == np.abs(flat).max()
    assert ulps(foreach.norms(xs, 1, groups="all"), [math.fsum(abs(flat))]).max() <= 1


def test_norms_of_long_lists_do_not_drift():
    xs = [np.full(400_000, 0.1, np.float32), np.full(3, 1e4)]
    assert ulps(foreach.norms(xs, groups="all"), [math.sqrt(400_000 * float(np.float32(0.1)) ** 2 + 3e8)]).max() <= 1


@pytest.mark.parametrize("size", [1e200, 1e-200, 1e300, 5e-324, 2e-308, 1.7e308 / 4])
def test_no_square_overflows_or_vanishes(size):
    ones, two = np.array([size] * 4), np.array([3.0, 4.0])
    assert foreach.norms([ones, two]).tolist() == [2 * size, 5.0]
    assert ulps(foreach.norms([ones, two], groups="all"), [math.hypot(2 * size, 5.0)]).max() <= 1
    t = torch.from_numpy(ones)
    assert foreach.norms([t]).tolist() == [2 * size]
    (g,) = torch.autograd.grad(foreach.norms([t.requires_grad_()]).sum(), [t])
    assert g.tolist() == [0.5] * 4
    mixed = np.array([1e200, 1e-200, 1e200])
    assert ulps(foreach.norms([mixed]), [math.hypot(1e200, 1e200)]).max() <= 1
    assert foreach.norms([np.array([1.7e308] * 4)]) == np.inf  # the norm itself is none
    assert foreach.norms([np.array([1.7e308] * 4)], 1) == np.inf
    assert ulps(foreach.norms([np.float32([3e38] * 4)]), [2 * float(np.float32(3e38))]).max() == 0


@pytest.mark.parametrize("ord", [1, 2, np.inf])
def test_nan_wins_over_infinity_in_its_group_alone(ord):
    xs = [np.array([1.0, np.nan, np.inf]), np.array([-np.inf, 1.0]), np.array([3.0])]
    np.testing.assert_array_equal(foreach.norms(xs, ord), [np.nan, np.inf, 3.0])
    np.testing.assert_array_equal(foreach.norms(xs, ord, groups=[0, 0, 1]), [np.nan, 3.0])


def test_nothing_has_the_norm_0():
    assert foreach.norms([]).shape == (0,) and foreach.norms([], groups="all").tolist() == [0.0]
    assert foreach.norms([], samples=True).shape == (0, 0)
    assert foreach.norms([np.zeros((0, 3)), np.zeros(4)]).tolist() == [0.0, 0.0]
    assert foreach.norms([np.zeros((2, 0)), np.zeros((2, 4))], samples=True).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert foreach.norms([np.zeros((0, 3))], samples=True).shape == (1, 0)
    assert foreach.lincomb([1.0], []) == [] and foreach.ema([], [], 0.5) == []
    assert foreach.lincomb([[], []][:0] or np.zeros((0, 2)), [], []) == []


def test_samples_are_apart():
    xs = some((3, 40000), (3,), (3, 2, 2))
    got = foreach.norms(xs, groups=[1, 0, 1], samples=True)
    for b in range(3):
        assert np.array_equal(got[:, b], foreach.norms([np.asarray(x[b]) for x in xs], groups=[1, 0, 1]))
    with pytest.raises(ValueError, match=r"norms: xs\[1\] must have the samples of xs\[0\]"):
        foreach.norms([xs[0], xs[1][:2]], samples=True)
    with pytest.raises(ValueError, match=r"norms: xs\[1\]"):
        foreach.norms([xs[0], np.array(1.0)], samples=True)


def test_an_array_that_stands_twice_is_one():
    x, y = some((5,), (5,))
    assert np.array_equal(foreach.norms([x, y, x], groups="all"), foreach.norms([x, y], groups="all"))
    assert np.array_equal(foreach.norms([x, y, x], groups=[0, 0, 1]), foreach.norms([x, y, x.copy()], groups=[0, 0, 1]))
    assert len(foreach.norms([x, x])) == 2
    t = torch.from_numpy(x).requires_grad_()
    one, two = foreach.norms([t, t], groups="all"), foreach.norms([t], groups="all")
    assert torch.equal(*(torch.autograd.grad(n.sum(), [t])[0] for n in (one, two)))
    f = torch.compile(lambda t: foreach.norms([t, 2 * t, t], groups="all"), fullgraph=True, backend="aot_eager")
    d = t.detach()
    assert torch.equal(f(d), foreach.norms([d, 2 * d, d], groups="all"))


def test_an_entry_does_not_see_the_list_nor_threads():
    xs, ys = some(*SHAPES), some(*SHAPES)
    before = tersor.get_num_threads()
    try:
        for n in (1, 3):
            tersor.set_num_threads(n)
            assert [foreach.norms([x])[0] for x in xs] == foreach.norms(xs).tolist()
            for f in (lambda a, b: foreach.lincomb([0.3, -1.7], a, b), lambda a, b: foreach.ema(a, b, 0.9)):
                whole = f(xs, ys)
                assert [y.tobytes() for y in whole] == [f([a], [b])[0].tobytes() for a, b in zip(xs, ys, strict=True)]
    finally:
        tersor.set_num_threads(before)


def test_combinations():
    lists = [some(*SHAPES) for _ in range(3)]
    c = RNG.standard_normal((len(SHAPES), 3))
    for y, row, *xs in zip(foreach.lincomb(c, *lists), c, *lists, strict=True):
        want = sum(a * np.float64(x) for a, x in zip(row, xs, strict=True))
        assert y.dtype == np.float32 and np.array_equal(y, np.float32(want))
    one = foreach.lincomb([2.0, 0, 1], *lists)
    assert all(np.array_equal(a, b) for a, b in zip(one, foreach.lincomb(np.float32([2, 0, 1]), *lists), strict=True))
    nan = foreach.lincomb([0.0, 1.0], [np.array([np.nan, 1.0])], [np.ones(2)])
    np.testing.assert_array_equal(nan[0], [np.nan, 1.0])
    out = lists[1]
    want = [y.tobytes() for y in foreach.lincomb(c, *lists)]
    assert foreach.lincomb(c, *lists, out=out) is out and [y.tobytes() for y in out] == want
    halves = foreach.lincomb([1.0, 1.0], [np.float16([1.0])], [np.float16([2.0**-11 + 2.0**-20])])
    assert halves[0] == np.float16(1 + 2**-10)  # rounded once


def test_gradients_of_combinations():
    lists = [[torch.from_numpy(x).double().requires_grad_() for x in some((2, 3), (), (0,), (4,))] for _ in range(3)]
    for shape in ((3,), (4, 3)):
        c = torch.from_numpy(RNG.standard_normal(shape)).requires_grad_()
        f = lambda c, *xs: tuple(foreach.lincomb(c, *(xs[i : i + 4] for i in (0, 4, 8))))  # noqa: E731
        assert torch.autograd.gradcheck(f, [c, *(x for xs in lists for x in xs)])
        assert torch.autograd.gradcheck(lambda c, f=f: f(c, *(x.detach() for xs in lists for x in xs)), [c])
        x = lists[2][3]
        g = torch.autograd.grad(sum(y.sum() for y in f(c, *(x for xs in lists for x in xs))), [x, c])
        assert g[0].shape == x.shape and g[1].shape == c.shape
    half = [torch.ones(5, dtype=torch.bfloat16, requires_grad=True)]
    c = torch.tensor([1.0], requires_grad=True)
    foreach.lincomb(c, half)[0].sum().backward()
    assert half[0].grad.dtype == torch.bfloat16 and c.grad.tolist() == [5.0]


def rounded(v, dtype):
    """Once, as ml_dtypes does not."""
    if dtype is ml_dtypes.bfloat16:
        place = np.maximum(np.frexp(v)[1] - 1, -126) - 7
        v = np.ldexp(np.rint(np.ldexp(v, -place)), place)
    return np.asarray(v).astype(dtype)


def test_averages():
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        ts, xs = some(*SHAPES, dtype=dtype), some(*SHAPES, dtype=dtype)
        for t, x, y in zip(ts, xs, foreach.ema(ts, xs, 0.9), strict=True):
            a, b = np.float64(t), np.float64(x)
            assert y.tobytes() == rounded(a + (1 - 0.9) * (b - a), dtype).tobytes()
        assert [y.tobytes() for y in foreach.ema(ts, xs, 1.0)] == [t.tobytes() for t in ts]
        assert [y.tobytes() for y in foreach.ema(ts, xs, 0)] == [x.tobytes() for x in xs]
    masters, xs = some(*SHAPES), some(*SHAPES, dtype=ml_dtypes.bfloat16)
    got = foreach.ema(masters, xs, 0.5)
    assert all(y.dtype == np.float32 for y in got)
    assert np.array_equal(got[0], np.float32(masters[0] + 0.5 * (np.float64(xs[0]) - masters[0])))
    kept = [t.copy() for t in masters]
    assert foreach.ema(masters, xs, 0.5, out=masters) is masters
    assert [t.tobytes() for t in masters] == [y.tobytes() for y in got] != [t.tobytes() for t in kept]
    odd = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, np.inf, -0.0])
    np.testing.assert_array_equal(foreach.ema([odd], [odd[::-1].copy()], 1.0)[0], odd)
    with np.errstate(all="ignore"):
        far = foreach.ema([np.array([1.7e308, np.inf, np.inf])], [np.array([-1.7e308, np.inf, -np.inf])], 0.5)[0]
    np.testing.assert_array_equal(far, [0.0, np.inf, np.nan])
    t = [torch.tensor([1.0, 2.0])]
    x = [torch.nn.Parameter(torch.tensor([3.0, 4.0]))]
    with torch.no_grad():
        foreach.ema(t, x, 0.75, out=t)
    assert t[0].tolist() == [1.5, 2.5]
    with pytest.raises(RuntimeError, match="ema: out="):
        foreach.ema(t, x, 0.75, out=t)
    with pytest.raises(NotImplementedError, match="ema: not differentiable"):
        foreach.ema(t, x, 0.75)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stochastic_averages_move(dtype):
    """To the nearest they stand still at 1; at random they are where they should be, on average."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    t, x = [np.ones(20000, kind)], [np.full(20000, 2.0, kind)]
    exact = 1.0
    for step in range(40):
        foreach.ema(t, x, 0.999, rounding="stochastic", seed=7, step=step, out=t)
        exact += 0.001 * (2 - exact)
    assert abs(np.float64(t[0]).mean() - exact) < 4e-4
    if dtype == "bfloat16":
        assert np.array_equal(foreach.ema([np.ones(3, kind)], [np.full(3, 2.0, kind)], 0.999)[0], np.ones(3))
    y = foreach.ema(t, x, 0.3, rounding="stochastic", seed=2**64 - 1, step=5)[0]
    again = foreach.ema([torch.ones(3), torch.from_numpy(t[0].view(np.int16)).view(getattr(torch, dtype))][1:],
                        [torch.from_numpy(x[0].view(np.int16)).view(getattr(torch, dtype))],
                        0.3, rounding="stochastic", seed=2**64 - 1, step=5)[0]  # fmt: skip
    assert again.view(torch.int16).numpy().tobytes() == y.tobytes()
    assert not np.array_equal(y, foreach.ema(t, x, 0.3, rounding="stochastic", seed=0, step=5)[0])
    w = random.words(2**64 - 1, 32, 5, 0, np.arange(20000))
    exact = np.float64(t[0]) + 0.7 * (2 - np.float64(t[0]))
    digits = 11 if dtype == "float16" else 8
    q = np.ldexp(exact, digits - 1 - (np.frexp(exact)[1] - 1))
    assert np.array_equal(
        np.float64(y), np.ldexp(np.floor(q) + ((w >> 8) * 2.0**-24 < q % 1), np.frexp(exact)[1] - digits)
    )
    single = [np.float32([1.0, 3.0])]
    same = foreach.ema(single, single, 0.5, rounding="stochastic")
    assert np.array_equal(same[0], single[0])
    tiny = np.array([2.0**-133, 0.0, -0.0], kind) if dtype == "bfloat16" else np.array([2.0**-24, 0.0, -0.0], kind)
    low = foreach.ema([tiny], [np.zeros(3, kind)], 0.5, rounding="stochastic", seed=3)[0]
    assert low[0] in (0.0, tiny[0]) and not low[1:].any()


def test_orders_without_a_gradient_say_so():
    x = [torch.ones(3, requires_grad=True)]
    for ord in (1, math.inf):
        with pytest.raises(RuntimeError, match=f"norms: not differentiable with ord={ord}"):
            foreach.norms(x, ord)
        with torch.no_grad():
            assert foreach.norms(x, ord).tolist() == [3.0 if ord == 1 else 1.0]
    assert torch.autograd.gradcheck(
        lambda *xs: foreach.norms(list(xs), groups=[0, 1, 0]),
        [torch.from_numpy(x).double().requires_grad_() for x in some((3,), (2, 2), (4,))],
    )
    zero = torch.zeros(3, requires_grad=True)
    foreach.norms([zero]).sum().backward()
    assert zero.grad.tolist() == [0.0] * 3


def test_what_is_refused():
    x, t = np.ones(3), torch.ones(3)
    cases = [
        (TypeError, r"norms: xs must be a list of arrays, got ndarray", lambda: foreach.norms(x)),
        (TypeError, r"norms: xs must be a list of arrays, got dict", lambda: foreach.norms({"x": x})),
        (TypeError, r"norms: xs must be a list of arrays, got set", lambda: foreach.norms({1, 2})),
        (TypeError, r"norms: xs must be a list of arrays, got str", lambda: foreach.norms("words")),
        (TypeError, r"norms: xs must be a list of arrays, got Linear", lambda: foreach.norms(torch.nn.Linear(2, 2))),
        (TypeError, r"norms: xs\[0\] must be a NumPy array or a torch tensor, got str",
         lambda: foreach.norms(k for k in "x")),
        (TypeError, r"norms: xs\[1\] must be float64.*got int64", lambda: foreach.norms([x, np.ones(3, int)])),
        (TypeError, r"norms: xs\[1\] must be a NumPy array or a torch tensor", lambda: foreach.norms([x, 1.0])),
        (TypeError, r"norms: xs\[1\] must be a NumPy array like", lambda: foreach.norms([x, t])),
        (TypeError, r"norms: xs\[1\] must be a torch tensor like", lambda: foreach.norms([t, x])),
        (TypeError, r"norms: xs\[0\] must be a dense tensor", lambda: foreach.norms([t.to_sparse()])),
        (ValueError, r"norms: xs\[1\] is on meta", lambda: foreach.norms([t, t.to("meta")])),
        (ValueError, "norms: ord must be 1, 2 or inf, got 3", lambda: foreach.norms([x], 3)),
        (ValueError, "norms: groups must be 'each', 'all'", lambda: foreach.norms([x], groups="some")),
        (TypeError, "norms: groups must be .* list of integers", lambda: foreach.norms([x], groups=[0.5])),
        (ValueError, "norms: groups has 2 ids, xs 1", lambda: foreach.norms([x], groups=[0, 1])),
        (ValueError, r"norms: groups\[1\] must not be negative", lambda: foreach.norms([x, x], groups=[0, -1])),
        (MemoryError, "norms", lambda: foreach.norms([x], groups=[2**60])),
        (TypeError, "lincomb: at least one list", lambda: foreach.lincomb([])),
        (ValueError, r"lincomb: coefficients must have shape \[2\]", lambda: foreach.lincomb([1.0], [x], [x])),
        (TypeError, "lincomb: coefficients must be numbers", lambda: foreach.lincomb(["a"], [x])),
        (TypeError, "lincomb: coefficients must be a NumPy", lambda: foreach.lincomb(torch.ones(1), [x])),
        (ValueError, r"lincomb: lists\[0\] has 1 entries, lists\[1\]", lambda: foreach.lincomb([1, 1], [x], [x, x])),
        (ValueError, r"lists\[0\]\[0\] has shape \(3,\), lists\[1\]", lambda: foreach.lincomb([1, 1], [x], [x[:2]])),
        (TypeError, r"lists\[1\]\[0\] is float32", lambda: foreach.lincomb([1, 1], [x], [x.astype(np.float32)])),
        (TypeError, r"lincomb: lists\[1\]\[0\] must be a NumPy array", lambda: foreach.lincomb([1, 1], [x], [t])),
        (ValueError, "lincomb: out has 0 entries, 1 are needed", lambda: foreach.lincomb([1], [x], out=[])),
        (TypeError, "lincomb: out must be a list of arrays, got ndarray", lambda: foreach.lincomb([1], [x], out=x)),
        (ValueError, r"lincomb: out\[1\] overlaps out\[0\]", lambda: foreach.lincomb([1], [x, 2 * x], out=[x, x])),
        (ValueError, r"ema: decay must be between 0 and 1, got 1.5", lambda: foreach.ema([x], [x], 1.5)),
        (ValueError, r"ema: decay must be between 0 and 1, got nan", lambda: foreach.ema([x], [x], math.nan)),
        (TypeError, r"ema: decay must be a number", lambda: foreach.ema([x], [x], "0.5")),
        (ValueError, r"ema: rounding must be", lambda: foreach.ema([x], [x], 0.5, rounding="up")),
        (ValueError, r"ema: seed must be in", lambda: foreach.ema([x], [x], 0.5, seed=-1)),
        (ValueError, r"ema: step must be in", lambda: foreach.ema([x], [x], 0.5, step=2**24)),
        (TypeError, r"ema: step must be an integer", lambda: foreach.ema([x], [x], 0.5, step=0.5)),
        (TypeError, r"ema: targets\[0\] is float64, xs\[0\] is float16",
         lambda: foreach.ema([x], [x.astype(np.float16)], 0.5)),
        (TypeError, r"ema: targets\[0\] is float16, xs\[0\] is float32",
         lambda: foreach.ema([x.astype(np.float16)], [x.astype(np.float32)], 0.5)),
        (ValueError, r"ema: out\[0\] overlaps xs\[1\]",
         lambda: foreach.ema([x.copy(), x.copy()], [2 * x, x], 0.5, out=[x, x.copy()])),
    ]  # fmt: skip
    for error, match, f in cases:
        with pytest.raises(error, match=match):
            f()
    targets = [np.ones(3), np.ones(3)]
    with pytest.raises(ValueError, match="overlaps"):
        foreach.ema(targets, [2 * x, 2 * x], 0.5, out=[targets[1], targets[0]])
    assert all((v == 1).all() for v in targets)


def test_what_gives_one_after_another_is_a_list():
    """Generators once, the parameters of a model, values of a dict; in a graph too."""
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ps, qs = list(model.parameters()), [p.detach().clone() for p in other.parameters()]
    values = dict(other.named_parameters()).values()
    with torch.no_grad():
        want = foreach.lincomb([1.0, 2.0], ps, qs)
        for given in (model.parameters(), torch.nn.ParameterList(ps), (p for p in ps), iter(ps)):
            made = foreach.lincomb([1.0, 2.0], given, values)
            assert all(torch.equal(a, b) for a, b in zip(made, want, strict=True))
        foreach.ema(other.parameters(), model.parameters(), 0.25, out=other.parameters())
        means = foreach.ema(qs, ps, 0.25)
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), means, strict=True))
        held = torch.nn.ParameterList(ps)
        for f in (lambda: foreach.norms(model.parameters()), lambda: foreach.norms(held)):
            assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(), foreach.norms(ps))
    assert foreach.norms(x for x in [np.ones(4)]).tolist() == [2.0]
    x = np.random.default_rng(0).standard_normal((30, 4))
    assert np.array_equal(metrics.cka_matrix(iter([x, x[:, :2]])), metrics.cka_matrix([x, x[:, :2]]))


def test_compiled():
    xs = [torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(5), torch.tensor(2.0)]
    ys = [2 * x for x in xs]

    def f(xs, ys, c):
        n = foreach.norms(xs, groups="all")
        return n, foreach.lincomb(c, xs, ys), foreach.ema(xs, ys, 0.9), foreach.norms(ys, math.inf)

    c = torch.tensor([0.5, 0.25])
    with torch.no_grad():
        got, want = torch.compile(f, fullgraph=True, backend="aot_eager")(xs, ys, c), f(xs, ys, c)
    for g, w in zip(torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(want), strict=True):
        assert torch.equal(g, w)

    def step(targets, xs):
        foreach.ema(targets, xs, 0.5, out=targets)
        return targets[0] + 1

    mine, theirs = [x.clone() for x in xs], [x.clone() for x in xs]
    with torch.no_grad():
        assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(mine, ys), step(theirs, ys))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_a_write_is_counted():
    from tersor import nn, norm, quant

    w, x = torch.ones(3, requires_grad=True), torch.ones(3)
    for write in (
        lambda: foreach.lincomb([2], [x], out=[x]),
        lambda: foreach.ema([x], [2 * x], 0.5, out=[x]),
        lambda: norm.rms_norm(2 * x, 3, out=x),
    ):
        y = (w * x).sum()
        write()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()
    layer = nn.QuantLinear(quant.encode(torch.randn(256, 256), "int4-g128"))
    rows = torch.randn(33, 256)
    before = layer(rows)
    foreach.lincomb([2], [layer.scale], out=[layer.scale])
    assert torch.allclose(layer(rows), 2 * before, rtol=1e-4, atol=1e-4)


def test_numbers_are_coefficients_in_a_graph():
    a, b = torch.randn(3), torch.randn(3)

    def mean(a, b, t):
        return foreach.lincomb([t, 1 - t], [a], [b])[0], foreach.lincomb([[0.1, 3], (1, 2)], [a, b], [b, a])[1]

    compiled = torch.compile(mean, fullgraph=True, backend="aot_eager")
    for t in (0.1, 0.2, 0.7):
        assert all(map(torch.equal, compiled(a, b, t), mean(a, b, t)))


@pytest.mark.parametrize(
    "c",
    [
        np.array([1, 3.0, 2])[::-2],
        np.array([2, 1], ml_dtypes.bfloat16),
        np.array([2, 1], ">f8"),
        [np.float32(2), np.array(1)],
        (torch.tensor(2), 1.0),
    ],
    ids=["turned", "bfloat16", "swapped", "scalars", "tensors"],
)
def test_coefficients_of_all_kinds(c):
    assert foreach.lincomb(c, [torch.ones(1)], [torch.ones(1)])[0] == 3.0
    assert foreach.lincomb(c, [np.ones(1)], [np.ones(1)])[0] == 3.0


@pytest.mark.parametrize(
    ("c", "error", "text"),
    [
        (np.ma.array([1.0, 2.0], mask=[0, 1]), TypeError, "coefficients must be a plain array"),
        (torch.ones(2).to_sparse(), TypeError, "coefficients must be a dense tensor"),
        (torch.ones(2, device="meta"), ValueError, "coefficients are on meta, lists on cpu"),
        ([torch.tensor(1.0, requires_grad=True), 1.0], TypeError, "coefficients with a gradient must be one tensor"),
        ([[1.0, 2.0], [1.0]], ValueError, r"rows of coefficients must be of one length, got \[2, 1\]"),
        ([True, False], TypeError, "coefficients must be numbers, got bool"),
        ([None, 1j], TypeError, "coefficients must be numbers, got NoneType"),
    ],
)
def test_what_is_no_coefficient(c, error, text):
    with pytest.raises(error, match=f"^lincomb: {text}"):
        foreach.lincomb(c, [torch.ones(1)], [torch.ones(1)])


def test_groups_and_samples_that_cannot_be():
    with pytest.raises(ValueError, match=r"^norms: groups\[1\] must be less than 2\^62"):
        foreach.norms([np.ones(1), np.ones(1)], groups=[0, 1 << 70])
    with pytest.raises(ValueError, match=r"^norms: xs\[0\] must have a first axis, of samples, got shape \(\)"):
        foreach.norms([np.array(1.0)], samples=True)
