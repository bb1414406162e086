"""Reductions over segments against NumPy's over the parts. The one rule: each part is taken out and reduced by itself."""

import math
import re

import numpy as np
import pytest
import tersor
import torch
from tersor import metrics, reduce
from tersor.testing import ulps

R = np.random.default_rng(0)
X = R.standard_normal((7, 5, 6))
ids = np.array([0, 2, -1, 2, 2, 0, 4])
PLAIN = {
    "sum": lambda v, a: v.sum(a),
    "mean": lambda v, a: v.mean(a),
    "var": lambda v, a: v.var(a),
    "std": lambda v, a: v.std(a),
    "min": lambda v, a: v.min(a),
    "max": lambda v, a: v.max(a),
    "count": lambda v, a: np.full(v.sum(a).shape, v.size // v.sum(a).size),
    "logsumexp": lambda v, a: np.log(np.exp(v).sum(a)),
}
EMPTY = {"sum": 0, "count": 0, "min": math.inf, "max": -math.inf, "logsumexp": -math.inf}


@pytest.mark.parametrize("op", PLAIN)
@pytest.mark.parametrize("dim", [None, 0, 1, (0, 2), (1, 2), -1])
def test_axes(op, dim):
    np.testing.assert_allclose(reduce.segment_reduce(X, op, dim=dim), PLAIN[op](X, dim), rtol=1e-13)
    tensor, array = (
        reduce.segment_reduce(torch.from_numpy(X), op, dim=dim).numpy(),
        reduce.segment_reduce(X, op, dim=dim),
    )
    # torch's root of float64 is not the nearest number on every processor
    assert (tensor == array).all() if op != "std" else (abs(tensor - array) <= np.spacing(array)).all()


@pytest.mark.parametrize("op", PLAIN)
def test_labels_and_offsets(op):
    got = reduce.segment_reduce(X, op, dim=0, labels=ids)
    assert got.shape == (5, 5, 6)
    for k in range(5):
        part = X[ids == k]
        want = PLAIN[op](part, 0) if len(part) else np.full((5, 6), EMPTY.get(op, math.nan))
        np.testing.assert_allclose(got[k], want, rtol=1e-13)
    ptr = np.array([0, 2, 2, 6, 7])
    got = reduce.segment_reduce(X, op, dim=0, offsets=ptr)
    for k in (0, 2, 3):
        np.testing.assert_allclose(got[k], PLAIN[op](X[ptr[k] : ptr[k + 1]], 0), rtol=1e-13)
    wide = np.broadcast_to(ids[:, None, None], X.shape).copy()
    every = reduce.segment_reduce(X, op, labels=wide, num_segments=5)
    for k in (0, 2, 4):
        np.testing.assert_allclose(every[k], PLAIN[op](X[ids == k], None), rtol=1e-13)


@pytest.mark.parametrize("op", ["sum", "mean", "var", "std", "min", "max", "logsumexp"])
@pytest.mark.parametrize("labelled", [False, True])
def test_gradients(op, labelled):
    given = {"labels": torch.from_numpy(ids), "num_segments": 5} if labelled else {}
    leaves = [torch.from_numpy(X[:, :2, :2].copy()).requires_grad_()]
    if op in ("sum", "mean", "var", "std"):
        leaves.append(torch.rand(7, dtype=torch.float64).add(0.1).requires_grad_())

    def f(x, *w):
        y = reduce.segment_reduce(x, op, dim=0, weight=w[0] if w else None, **given)
        return y[[0, 2, 4]] if labelled else y

    some = [op not in ("std", "var") or not labelled]
    if some[0]:
        assert torch.autograd.gradcheck(f, leaves)
    torch._dynamo.reset()  # or the cases before count against this one
    traced = torch.compile(f, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(traced(*leaves), f(*leaves))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(("op", "slope"), [("sum", 1.0), ("mean", 0.25)])
def test_an_infinite_number_has_a_slope_like_any_other(op, slope, labelled, dtype):
    x = torch.tensor([math.inf, 1, -math.inf, 2], dtype=dtype, requires_grad=True)
    given = {"labels": torch.zeros(4, dtype=torch.int64), "num_segments": 1} if labelled else {}
    reduce.segment_reduce(x, op, **given).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [slope] * 4
    w = torch.ones(4, dtype=dtype, requires_grad=True)
    reduce.segment_reduce(x.detach(), op, weight=w, **given).sum().backward()
    assert w.grad is not None
    if op == "sum":
        assert w.grad.tolist() == [math.inf, 1, -math.inf, 2]


def test_sums_are_twice_as_precise():
    assert reduce.segment_reduce(np.array([1e16, 1.0, -1e16])) == 1.0
    big = np.concatenate([np.full(5000, 1e16), np.ones(5000), np.full(5000, -1e16)])
    assert reduce.segment_reduce(big) == 5000.0
    assert reduce.segment_reduce(big[:, None] * np.ones(3), dim=0).tolist() == [5000.0] * 3
    x = R.standard_normal(100_000).astype(np.float32)
    assert ulps(reduce.segment_reduce(x), math.fsum(x.tolist()), "float32") <= 1
    for values in ([1e308, 1e308], [math.inf, 1.0], [math.inf, -math.inf], [math.nan]):
        with np.errstate(all="ignore"):
            want = np.array(values).sum()
        np.testing.assert_equal(float(reduce.segment_reduce(np.array(values))), want)


def test_sums_and_means_that_leave_the_range_on_the_way():
    far = 1.5 * 2.0**1023
    for made in (np.asarray, torch.as_tensor):
        x = made(np.array([far, far, -far, -far, 1.0, math.inf, far, far]))
        runs = made(np.array([0, 3, 5, 6, 8]))
        sums = reduce.segment_reduce(x, "sum", offsets=runs)
        assert sums.tolist() == [far, -far, math.inf, math.inf]
        ids = made(np.array([0, 1, 0, 1, 1, 2, 3, 3]))
        assert reduce.segment_reduce(x, "sum", labels=ids).tolist() == [0.0, 1.0, math.inf, math.inf]
        rows = made(np.array([[far, -far], [far, far], [1.0, math.inf]]))
        assert reduce.segment_reduce(rows, "mean", dim=1).tolist() == [0.0, far, math.inf]
        var = reduce.segment_moments(rows, dim=1).var.tolist()
        assert var[:2] == [math.inf, 0.0] and math.isnan(var[2])
    both = reduce.segment_reduce(
        np.array([math.inf, -math.inf, math.nan, 1.0, far, far]), offsets=np.array([0, 2, 4, 6])
    )
    assert np.isnan(both[:2]).all() and both[2] == math.inf


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_moments_at_any_offset(kind, seed):
    rng = np.random.default_rng(seed)
    for offset in (0.0, 1e3, 1e6):
        x = (rng.standard_normal((3, 20_000)) + offset).astype(kind)
        found = reduce.segment_moments(x, dim=1)
        wide = x.astype(np.longdouble)
        mean = wide.mean(1)
        var = ((wide - mean[:, None]) ** 2).mean(1)
        # of deviation 1: what rounding of x - x[0] leaves does not shrink with the mean
        np.testing.assert_allclose(found.mean, mean.astype(float), rtol=4e-16, atol=4e-16)
        # parts of 4096 have means that lie at most 5/64 apart, and know these to an eps of the offset
        near = 2**-52 * offset * 5 / 64
        np.testing.assert_allclose(found.var, var.astype(float), rtol=1e-13, atol=near)
        turned = reduce.segment_moments(np.ascontiguousarray(x.T), dim=0)
        np.testing.assert_allclose(turned.var, var.astype(float), rtol=1e-13, atol=near)


def test_moments_merge():
    x = R.standard_normal((100, 4)) + 1e4
    parts = [reduce.segment_moments(p, dim=0) for p in (x[:30], x[30:30], x[30:])]
    with np.errstate(all="raise"):
        joined = reduce.merge_moments(reduce.merge_moments(parts[0], parts[1]), parts[2])
    whole = reduce.segment_moments(x, dim=0)
    np.testing.assert_allclose(joined.mean, whole.mean, rtol=1e-15)
    np.testing.assert_allclose(joined.var, whole.var, rtol=1e-12)
    with np.errstate(all="raise"):
        same = reduce.merge_moments(parts[0], parts[1])
        wild = reduce.segment_moments(np.array([math.inf, 1.0]))
        assert reduce.merge_moments(wild, wild).mean == math.inf
    assert all((a == b).all() for a, b in zip(same, parts[0], strict=True))


def test_the_first_of_equals_is_selected():
    x = torch.tensor([1.0, 3.0, 3.0, math.nan], dtype=torch.float64, requires_grad=True)
    reduce.segment_reduce(x[:3], "max").backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert reduce.segment_reduce(x, "max").isnan() and reduce.segment_reduce(x, "min").isnan()
    got = reduce.segment_reduce(x.detach(), "max", labels=torch.tensor([0, 0, 0, 1]))
    assert got[0] == 3 and got[1].isnan()


def test_segments_of_none_of_one_and_of_equals():
    """Out of order, so that no two neighbours are of one: against a loop."""
    n = 5000
    labels = R.permutation(np.concatenate([np.arange(n // 2) * 2, np.arange(n // 2) // 5 * 10]))
    x = R.standard_normal(n)
    x[labels % 20 == 0] = 0.1
    found = reduce.segment_moments(x, labels=labels, num_segments=n + 1)
    best = reduce.segment_reduce(x, "min", labels=labels, num_segments=n + 1)
    parts = [[] for _ in range(n + 1)]
    for v, k in zip(x, labels, strict=True):
        parts[k].append(v)
    assert {0, 1, 6} <= {len(p) for p in parts}
    for p, w, mean, var, least in zip(parts, *found, best, strict=True):
        assert w == len(p) and least == min(p, default=math.inf)
        if not p:
            assert np.isnan(mean) and np.isnan(var)
        elif min(p) == max(p):
            assert mean == p[0] and var == 0
        else:
            np.testing.assert_allclose((mean, var), (np.mean(p), np.var(p)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint8])
def test_extremes_of_integers_are_those_of_the_reference(kind):
    ends = np.iinfo(kind)
    x = np.array([ends.min, ends.max, 3, 3, ends.max - 1, ends.min], kind)
    labels = np.array([0, 0, 1, 1, 2, 2])
    for largest in (False, True):
        for given in ((x, labels), (torch.from_numpy(x), torch.from_numpy(labels))):
            got, at = reduce._ops._segment_extreme.op.reference(*given, 0, -4, largest)
            want = reduce.segment_reduce(x, "max" if largest else "min", labels=labels, num_segments=4)
            assert np.asarray(got).dtype == kind and (np.ravel(got) == want).all()
            assert np.ravel(at).tolist() == ([1, 2, 4, -1] if largest else [0, 2, 5, -1])


def test_integers():
    x = R.integers(-100, 100, (7, 3)).astype(np.int32)
    got = reduce.segment_reduce(x, "sum", dim=0, labels=ids)
    assert got.dtype == np.int64 and (got[2] == x[ids == 2].sum(0)).all()
    assert reduce.segment_reduce(x, "max").dtype == np.int32
    assert reduce.segment_reduce(x.astype(np.uint8), "min") == x.astype(np.uint8).min()
    with pytest.raises(ValueError, match="which no int64 holds"):
        reduce.segment_reduce(np.array([2**62, 2**62]))
    with pytest.raises(TypeError, match="op 'mean' is of floats"):
        reduce.segment_reduce(x, "mean")


@pytest.mark.parametrize("shape", [(200_000,), (64, 4000), (4000, 64), (3, 50, 3000)])
def test_bits_do_not_depend_on_threads(shape):
    x = R.standard_normal(shape).astype(np.float32)
    labels = R.integers(-1, 50, shape)
    found, before = [], tersor.get_num_threads()
    try:
        for n in (1, 2, 3):
            tersor.set_num_threads(n)
            found.append(
                [reduce.segment_reduce(x, op, dim=0).tobytes() for op in ("sum", "var")]
                + [reduce.segment_reduce(x, op, labels=labels).tobytes() for op in ("sum", "mean", "logsumexp")]
            )
    finally:
        tersor.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_what_does_not_fit_is_refused():
    for given, match in (
        ({"op": "median"}, "op must be one of"),
        ({"op": "max", "weight": np.ones(7), "dim": 0}, "takes no weight"),
        ({"labels": ids, "num_segments": 4, "dim": 0}, r"labels\[6\] is 4"),
        ({"labels": ids[:5], "dim": 0}, "cannot go along"),
        ({"labels": ids, "dim": 0, "offsets": np.array([0, 7])}, "two ways"),
        ({"offsets": np.array([0, 5]), "dim": 0}, "rise from 0 to 7"),
        ({"offsets": np.array([0, 5, 3, 7]), "dim": 0}, "without falling"),
        ({"num_segments": 3}, "without labels"),
        ({"weight": np.full(7, np.nan), "dim": 0}, r": weight\[0\] is NaN"),
    ):
        with pytest.raises(ValueError, match=match):
            reduce.segment_reduce(X, **given)
    with pytest.raises(TypeError, match="labels must be"):
        reduce.segment_reduce(X, dim=0, labels=np.ones(7))
    with pytest.raises(TypeError, match="merge_moments: a must be Moments"):
        reduce.merge_moments((1, 2, 3), 4)


def test_a_correction_of_the_whole() -> None:
    x = np.array([1.0, 2.0, 4.0])
    assert reduce.segment_reduce(x, "var", correction=1) == pytest.approx(x.var(ddof=1))
    assert np.isnan(reduce.segment_reduce(x, "std", correction=3))
    with np.errstate(all="raise"):  # nothing is said of a variance beyond its type
        assert reduce.segment_reduce(np.array([1e300, -1e300]), "var") == np.inf


@pytest.mark.parametrize("made", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("correction", [0, 1])
def test_deviations_whose_squares_leave_float64(made, correction) -> None:
    one = np.array([[1.0, 2.0, 4.0, 9.0], [3.0, 1.0, 2.0, 9.5]])
    w = made(np.array([1.0, 2.0, 0.5, 1.0]))
    for weight in (None, w):
        want = np.asarray(reduce.segment_reduce(made(one), "std", dim=1, weight=weight, correction=correction))
        for power in (-1074 + 30, -700, -520, 0, 520, 700, 1019):
            x = np.ldexp(one, power)
            x = np.concatenate([x, one, np.zeros((1, 4)), [[np.inf, 1, 2, 3]], np.full((1, 4), 1e300)])
            got = np.asarray(reduce.segment_reduce(made(x), "std", dim=1, weight=weight, correction=correction))
            np.testing.assert_allclose(got[:2], np.ldexp(want, power), rtol=1e-15 if power > -1000 else 1e-7)
            assert (got[2:4] == want).all() and got[4] == 0 and np.isnan(got[5]) and got[6] == 0
    labels = made(np.array([0, 1, 0, 1]))
    x = made(np.array([1e200, 1e-200, 3e200, 3e-200]))
    got = reduce.segment_reduce(x, "std", labels=labels, num_segments=3)
    np.testing.assert_allclose(np.asarray(got)[:2], [1e200, 1e-200], rtol=1e-15)
    assert reduce.segment_reduce(made(np.array([1.5e308, -1.5e308])), "std") == 1.5e308


def test_the_slope_of_deviations_whose_squares_leave_float64() -> None:
    for size in (1e200, 1.0, 1e-200):
        x = torch.tensor([[1.0, 2.0, 4.0], [5.0, 5.0, 5.0]], dtype=torch.float64) * size
        x.requires_grad_()
        (g,) = torch.autograd.grad(reduce.segment_reduce(x, "std", dim=1).sum(), x)
        y = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
        (want,) = torch.autograd.grad(y.std(correction=0), y)
        torch.testing.assert_close(g, torch.stack([want, 0 * want]), rtol=1e-14, atol=0)


def test_moments_that_are_none_are_named() -> None:
    a, b = reduce.segment_moments(np.ones(3)), reduce.segment_moments(torch.ones(3))
    with pytest.raises(TypeError, match=r"merge_moments: b.count must be a NumPy array like a.count, got Tensor"):
        reduce.merge_moments(a, b)
    with pytest.raises(TypeError, match=r"merge_moments: a.count must be a NumPy array like a.count, got float"):
        reduce.merge_moments(reduce.Moments(1.0, 2.0, 3.0), a)
    with pytest.raises(ValueError, match="num_segments must be positive, got -3"):
        reduce.segment_reduce(np.ones(2), labels=np.zeros(2, np.int64), num_segments=-3)


def test_offsets_of_compiled_graphs_are_refused_by_name():
    graph = torch.compile(
        lambda x, offsets: reduce.segment_reduce(x, dim=0, offsets=offsets), fullgraph=True, backend="aot_eager"
    )
    x = torch.arange(8.0).reshape(4, 2)
    for runs in ([0, 0, 1, 4], [0, 4, 4, 4], [0, 1, 2, 4]):
        for kind in (torch.int32, torch.int64):
            offsets = torch.tensor(runs, dtype=kind)
            assert torch.equal(graph(x, offsets), reduce.segment_reduce(x, dim=0, offsets=offsets))
    for runs in ([0, 5, 4, 4], [0, 1, 2, 3], [0, 1, 2, 5], [1, 2, 3, 4], [0, 3, 2, 4], [0, -1, 2, 4], [-2, 1, 2, 4]):
        with pytest.raises(ValueError, match="segment_reduce: offsets must rise from 0 to 4") as plain:
            reduce.segment_reduce(x, dim=0, offsets=torch.tensor(runs))
        with pytest.raises(ValueError, match=f"^{re.escape(str(plain.value))}$"):
            graph(x, torch.tensor(runs))


def test_labels_without_memory_need_their_number() -> None:
    x = torch.ones(4, 2, device="meta")
    offsets, labels = torch.zeros(3, dtype=torch.int64, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta")
    assert reduce.segment_reduce(x, dim=0, offsets=offsets).shape == (2, 2)
    with pytest.raises(ValueError, match="segment_reduce: num_segments must be said"):
        reduce.segment_reduce(x, dim=0, labels=labels)


LENGTHS = (1, 15, 16, 17, 31, 33, 4095, 4096, 4097, 8193)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("groups", [1, 2, 4, 5])
def test_few_labels_in_vectors_and_more_of_them(groups, kind):
    """Around the ends of steps and pieces; what lies in another segment, or in none, is not met, whatever it is."""
    for n in LENGTHS:
        offset = 0.0 if kind == np.float16 else 3e4
        x = (R.standard_normal((2, n)) + offset).astype(kind)
        labels = R.integers(-1, groups, n)
        x[0, labels == -1] = np.inf
        x[1, labels == 0] = np.nan if n > 1 else 0.1
        x[0, labels == groups - 1] = kind(0.1)
        found = reduce.segment_moments(x, dim=1, labels=labels, num_segments=groups)
        for i in range(2):
            for k in range(groups):
                part = x[i, labels == k].astype(np.longdouble)
                got = [float(v[k, i]) for v in found]
                assert got[0] == len(part)
                if not len(part) or np.isnan(part).any():
                    assert np.isnan(got[1]) and np.isnan(got[2])
                elif (part == part[0]).all():
                    assert got[1] == float(part[0]) and got[2] == 0
                else:
                    want = np.array([part.mean(), ((part - part.mean()) ** 2).mean()], np.float64)
                    if kind != np.float64:
                        assert ulps(np.array(got[1:], np.float32), want, "float32").max() <= 1
                    np.testing.assert_allclose(got[1:], want, rtol=1e-12)


def test_few_labels_give_the_same_bits_on_any_threads():
    x, labels = R.standard_normal((9, 50_000)), R.integers(-1, 3, (1, 50_000))
    given = {"dim": 1, "labels": labels, "num_segments": 3}
    before = tersor.get_num_threads()
    try:
        made = []
        for threads in (1, 2, 5):
            tersor.set_num_threads(threads)
            made.append([v.tobytes() for v in reduce.segment_moments(x, **given)])
    finally:
        tersor.set_num_threads(before)
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("groups", [2, 6])
def test_sums_that_leave_the_range_on_the_way(groups, weighted):
    """Means and variances that are numbers, of labels, of runs and of kept axes, whose sums or squares are none."""
    far = 1.7e308
    x = np.array([far, -far, far, far, -far, far, 1.0, 3.0])
    labels = (
        np.array([0, 0, 0, 1, 1, 1, groups - 1, groups - 1]) if groups > 2 else np.array([0, 0, 0, 1, 1, 1, -1, -1])
    )
    w = np.full(8, 2.0) if weighted else None
    given = {"weight": w, "num_segments": groups}
    mean = reduce.segment_reduce(x, "mean", labels=labels, **given)
    np.testing.assert_allclose(mean[:2], [far / 3, far / 3], rtol=1e-15)
    assert groups == 2 or mean[-1] == 2
    turned = reduce.segment_reduce(np.stack([x, x], 1), "mean", dim=0, labels=labels, **given)
    np.testing.assert_allclose(turned[:2], np.full((2, 2), far / 3), rtol=1e-15)
    runs = reduce.segment_reduce(x, "mean", offsets=np.array([0, 3, 6, 8]), weight=w)
    np.testing.assert_allclose(runs, [far / 3, far / 3, 2], rtol=1e-15)
    near = np.tile([1e154, -1e154], 100)
    got = reduce.segment_reduce(
        near, "var", labels=np.zeros(200, np.int64), num_segments=1, weight=None if w is None else np.full(200, 2.0)
    )
    np.testing.assert_allclose(got, 1e308, rtol=1e-14)
    still = reduce.segment_moments(np.array([np.inf, 1.0, far, far]), labels=np.array([0, 0, 1, 1]), num_segments=2)
    assert not np.isfinite(still.mean[0]) and np.isnan(still.var[0]) and still.mean[1] == far and still.var[1] == 0


#: how segments are told: x [2, n] of two of them -> x, and the arguments that say so
TOLD = {
    "rows": lambda x: (x, {"dim": 1}),
    "columns": lambda x: (x.T.copy(), {"dim": 0}),
    "few labels": lambda x: (x.T.ravel(), {"labels": np.tile([0, 1], x.shape[1]), "num_segments": 2}),
    "many labels": lambda x: (x.T.ravel(), {"labels": np.tile([0, 1], x.shape[1]), "num_segments": 7}),
    "labels of rows": lambda x: (
        x.T.reshape(-1, 1).repeat(3, 1),
        {"dim": 0, "labels": np.tile([0, 1], x.shape[1]), "num_segments": 2},
    ),
    "weights": lambda x: (x, {"dim": 1, "weight": np.full(x.shape[1], 0.5, x.dtype)}),
    "runs": lambda x: (x.ravel(), {"offsets": np.array([0, x.shape[1], x.size])}),
}


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("told", TOLD)
def test_infinite_numbers_wherever_they_stand(told, kind):
    """One makes the mean infinite, two that are opposed make it none; other segments do not see them."""
    for n in (1, 3, 40, 5000):
        for at in {0, n // 2, n - 1}:
            for v, both in ((math.inf, False), (-math.inf, False), (math.nan, False), (math.inf, True)):
                x = np.full((2, n), 3.0, kind)
                x[0, at] = v
                if both and n > 1:
                    x[0, at - 1] = -v
                    v = math.nan
                made, given = TOLD[told](x)
                mean, var = (np.asarray(found, np.float64) for found in reduce.segment_moments(made, **given)[1:])
                np.testing.assert_array_equal(mean[:2].T, np.broadcast_to([v, 3.0], mean[:2].T.shape))
                np.testing.assert_array_equal(var[:2].T, np.broadcast_to([math.nan, 0.0], mean[:2].T.shape))
                found = np.asarray(reduce.segment_reduce(made, "mean", **given))
                np.testing.assert_array_equal(found, mean.astype(kind))


@pytest.mark.parametrize("library", [np.array, lambda v: torch.tensor(v, dtype=torch.float64)])
def test_infinite_means_merge(library):
    inf = math.inf
    for a, b, want in (
        ([inf, 1.0], [2.0], inf),
        ([2.0], [1.0, -inf], -inf),
        ([inf], [inf], inf),
        ([inf], [-inf], math.nan),
    ):
        parts = (reduce.segment_moments(library(v)) for v in (a, b))
        with np.errstate(all="ignore"):
            found = reduce.merge_moments(*parts)
        np.testing.assert_array_equal([float(v) for v in found], [len(a) + len(b), want, math.nan])
        running = metrics.RunningMoments()
        for v in (a, b):
            running.update(library(v))
        np.testing.assert_array_equal([float(v) for v in running.compute()], [len(a) + len(b), want, math.nan])
