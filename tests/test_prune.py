"""Magnitude pruning against a stable sort of all magnitudes. The one rule: counts, ties and bits are exact, so every
comparison here is an equality."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import tersor
import torch
from hypothesis import given
from hypothesis import strategies as st
from tersor._keys import FORMATS, WIDTH
from tersor._op import OPS
from tersor.checkpoint import Model, Reader, Writer, load
from tersor.checkpoint._atomic import SUFFIX
from tersor.jobs import _journal
from tersor.prune import (
    MagnitudeHistogram,
    Threshold,
    _window,
    apply_mask,
    global_masks,
    global_prune,
    global_threshold,
    prune_safetensors,
    topk_rows,
)
from tersor.prune._job import COMPAT
from tersor.prune._run import dispatched, run

ml_dtypes = pytest.importorskip("ml_dtypes")

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def tensor(x):
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    return torch.tensor(x)


def fill(rng, kind, shape, dtype):
    """Numbers of every temper: spread, ties, zeros of both signs, denormals, all equal, large."""
    x = rng.standard_normal(shape)
    x = {
        "spread": lambda: x,
        "ties": lambda: np.round(2 * x),
        "two values": lambda: np.where(x > 0, 1.5, -0.5),
        "zeros": lambda: np.where(x > 0, 0.0, -0.0),
        "equal": lambda: np.full(shape, -0.25),
        "sparse": lambda: np.where(x > 1, x, 0),
        "denormal": lambda: x * float(ml_dtypes.finfo(dtype).smallest_subnormal) * 4,
        "large": lambda: np.clip(x, -1, 1) * float(ml_dtypes.finfo(dtype).max),
    }[kind]()
    return np.asarray(x).astype(dtype)


KINDS = ["spread", "ties", "two values", "zeros", "equal", "sparse", "denormal", "large"]


def oracle(arrays, k, *, protect=None, high=False):
    """Masks by the definition: protect the top of each array, prune the first k of the rest."""
    flat = np.concatenate([np.abs(np.asarray(a, np.float64)).ravel() for a in arrays] or [np.zeros(0)])
    index = np.arange(flat.size) if high else -np.arange(flat.size)
    order = np.lexsort((index, flat))
    safe = np.zeros(flat.size, bool)
    at = 0
    for a, m in zip(arrays, protect or [0] * len(arrays), strict=True):
        mine = order[(order >= at) & (order < at + a.size)]
        safe[mine[mine.size - min(m, a.size) :]] = True
        at += a.size
    mask = np.ones(flat.size, bool)
    mask[order[~safe[order]][:k]] = False
    return [
        m.reshape(a.shape)
        for m, a in zip(np.split(mask, np.cumsum([a.size for a in arrays])[:-1]), arrays, strict=True)
    ]


def same(got, want):
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        g = g.numpy() if isinstance(g, torch.Tensor) else g
        assert g.dtype == bool and g.shape == w.shape
        np.testing.assert_array_equal(g, w)


SHAPES = st.lists(
    st.one_of(st.just(()), st.tuples(st.integers(0, 131)), st.tuples(st.integers(0, 5), st.integers(0, 40))),
    min_size=1,
    max_size=5,
)


@st.composite
def cases(draw, kinds=None):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(st.sampled_from(kinds or list(DTYPES)), min_size=1, max_size=2))
    arrays = [
        fill(rng, draw(st.sampled_from(KINDS)), shape, DTYPES[names[i % len(names)]])
        for i, shape in enumerate(draw(SHAPES))
    ]
    n = sum(a.size for a in arrays)
    return arrays, draw(st.one_of(st.integers(0, n), st.sampled_from([0, n // 2, n])))


@given(cases())
def test_masks_are_those_of_a_sort(case):
    arrays, k = case
    want = oracle(arrays, k)
    same(global_masks(arrays, k=k, mixed=True), want)
    same(global_masks([tensor(a) for a in arrays], k=k, mixed=True), want)
    same(global_masks(arrays, k=k, mixed=True, ties="high"), oracle(arrays, k, high=True))
    sizes = [a.size for a in arrays]
    found = global_threshold(arrays, k=k, mixed=True)
    assert found.kept == [int(w.sum()) for w in want] and sum(sizes) - sum(found.kept) == k
    if k:
        flat = np.sort(np.concatenate([np.abs(np.asarray(a, np.float64)).ravel() for a in arrays]))
        assert found.value == flat[k - 1]
        pruned = np.concatenate([np.abs(np.asarray(a, np.float64)).ravel() for a in arrays])
        all_, none = (global_masks(arrays, k=k, mixed=True, ties=t) for t in ("all", "none"))
        same([np.concatenate([m.ravel() for m in all_])], [pruned >= found.value])
        same([np.concatenate([m.ravel() for m in none])], [pruned > found.value])
    else:
        assert found.value is None


@given(cases(), st.data())
def test_a_least_number_is_kept_of_each_array(case, data):
    arrays, _ = case
    least = [data.draw(st.integers(0, a.size + 3)) for a in arrays]
    free = sum(a.size for a in arrays) - sum(min(m, a.size) for m, a in zip(least, arrays, strict=True))
    k = data.draw(st.integers(0, free))
    want = oracle(arrays, k, protect=least)
    same(global_masks(arrays, k=k, mixed=True, min_keep=least), want)
    same(
        global_masks(arrays, k=k, mixed=True, min_keep=least, ties="high"), oracle(arrays, k, protect=least, high=True)
    )
    assert global_threshold(arrays, k=k, mixed=True, min_keep=least).kept == [int(w.sum()) for w in want]
    with pytest.raises(ValueError, match="cannot prune"):
        global_masks(arrays, k=free + 1, mixed=True, min_keep=least)


@given(cases(), st.data())
def test_masks_are_nested(case, data):
    arrays, _ = case
    n = sum(a.size for a in arrays)
    m = data.draw(st.integers(0, n // 3))
    free = n - sum(min(m, a.size) for a in arrays)
    few, many = sorted(data.draw(st.tuples(st.integers(0, free), st.integers(0, free))))
    for less, more in zip(
        global_masks(arrays, k=few, mixed=True, min_keep=m),
        global_masks(arrays, k=many, mixed=True, min_keep=m),
        strict=True,
    ):
        assert not (more & ~less).any()


@given(cases(), st.floats(0, 1))
def test_each_array_by_itself(case, sparsity):
    arrays, _ = case
    got = global_masks(arrays, sparsity, scope="layer", mixed=True)
    same(got, [oracle([a], round(sparsity * a.size))[0] for a in arrays])
    each = [round(sparsity * a.size) for a in arrays]
    same(global_masks(arrays, k=each, mixed=True, scope="layer"), got)


@given(cases(["float32", "float64"]))
def test_scores_are_ranked_with_their_sign(case):
    arrays, k = case
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal(a.shape).astype(np.float16) for a in arrays]
    weights = [np.asarray(w) for w in weights]
    flat = np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])
    mask = np.ones(flat.size, bool)
    mask[np.lexsort((-np.arange(flat.size), flat + 0.0))[:k]] = False
    got = global_masks(weights, k=k, mixed=True, scores=arrays)
    np.testing.assert_array_equal(np.concatenate([g.ravel() for g in got]), mask)
    same(global_masks(weights, k=k, mixed=True, scores=arrays, compat="torch"), oracle(arrays, k))


# --- the one read with a window ---


@pytest.fixture
def eager(monkeypatch):
    """The window is tried on arrays of any size; says how often it was used, and how often it missed."""
    monkeypatch.setattr(_window, "LEAST", 1)
    monkeypatch.setattr(_window, "LINES", 64)
    monkeypatch.setattr(_window, "MOST", 0.2)
    real, seen = _window.masks, {True: 0, False: 0}

    def masks(*args):
        kept = real(*args)
        seen[kept is not None] += 1
        return kept

    monkeypatch.setattr(_window, "masks", masks)
    return seen


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigmas", [4.5, 0.3])
def test_the_window_and_the_digits_agree(eager, monkeypatch, dtype, sigmas):
    monkeypatch.setattr(_window, "SIGMAS", sigmas)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        kind = KINDS[seed % len(KINDS)] if seed % 3 else "spread"
        shapes = [(300, 40), (7,), (0, 3), (65, 129), (2000,)]
        arrays = [
            (fill(rng, kind, s, DTYPES[dtype]) * np.asarray(1 / (1 + i), DTYPES[dtype])).astype(DTYPES[dtype])
            for i, s in enumerate(shapes)
        ]
        n = sum(a.size for a in arrays)
        for k in (1, n // 10, n // 2, 9 * n // 10, n - 1):
            same(global_masks(arrays, k=k), oracle(arrays, k))
            same(global_masks([tensor(a) for a in arrays], k=k, ties="high"), oracle(arrays, k, high=True))
    assert eager[True] > 10
    if sigmas < 1:
        assert eager[False] > 0  # it missed, and the masks were right all the same


def test_large_arrays_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in [(1100, 1000), (77,), (300, 1001)]]
    arrays[0][:300] = np.round(arrays[0][:300] * 4) / 4
    before, results = tersor.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            tersor.set_num_threads(threads)
            for options in ({}, {"nan": "keep"}, {"min_keep": 10}):
                results.append(global_masks(arrays, 0.9, **options))
    finally:
        tersor.set_num_threads(before)
    want = oracle(arrays, round(0.9 * sum(a.size for a in arrays)))
    for got in results:
        same(got, want)


# --- numbers that are not finite ---


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [10, 3_000_000])
def test_non_finite_is_an_error(bad, dtype, n):
    if n > 10 and dtype not in ("float32", "bfloat16"):
        pytest.skip("one of each width is enough where it is large")
    x = np.linspace(-1, 1, n).astype(DTYPES[dtype])
    x[n // 2] = bad
    before = x.copy()
    for call in (global_masks, global_threshold, global_prune):
        for sparsity in (0, 0.5):
            with pytest.raises(ValueError, match="non-finite"):
                call([x], sparsity)
    with pytest.raises(ValueError, match="non-finite"):
        global_prune([np.ones(5, x.dtype), x], 0.5, inplace=True)
    with pytest.raises(ValueError, match="non-finite"):
        topk_rows(x, 3)
    h = MagnitudeHistogram(dtype, 3)
    h.update(np.ones(5, x.dtype))
    counts = h.counts.copy()
    with pytest.raises(ValueError, match="non-finite"):
        h.update(x)
    assert x.tobytes() == before.tobytes() and (h.counts == counts).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_may_be_kept_or_pruned(dtype):
    x = np.array([3, np.nan, -np.inf, 1, -np.nan, 0, 2]).astype(DTYPES[dtype])
    (keep,) = global_masks([x], k=4, nan="keep")
    assert keep.tolist() == [False, True, True, False, True, False, False]
    (gone,) = global_masks([x], k=4, nan="prune")
    assert gone.tolist() == [True, False, True, False, False, False, True]
    (y,) = global_prune([x], k=4, nan="prune")
    assert (np.asarray(y, np.float64) == [3, 0, -np.inf, 0, 0, 0, 2]).all()
    values, indices = topk_rows(x, 2, nan="keep")
    assert np.isnan(np.asarray(values, np.float64)).all() and indices.tolist() == [1, 4]
    assert topk_rows(x, 2, nan="prune")[1].tolist() == [0, 6]


# --- counts and what peers do ---


def test_rounding():
    x = [np.arange(1.0, 101)]
    count = lambda s, n, **kw: n - int(global_masks([np.arange(1.0, n + 1)], s, **kw)[0].sum())  # noqa: E731
    assert count(0.5, 5) == 2 and count(0.5, 7) == 4
    assert count(0.29, 100, rounding="floor") == 28 and count(0.29, 100) == 29
    assert count(0.291, 100, rounding="ceil") == 30 and count(1.0, 7, rounding="ceil") == 7
    assert global_threshold(x, 0.1) == Threshold(10.0, [90])


def peer_masks(x, s, name):
    """The peers' own lines, on one layer (kthvalue and topk by sorting)."""
    magnitudes = np.sort(np.abs(x))
    if name == "globalmp":
        return np.abs(x) >= magnitudes[max(int(s * x.size), 1) - 1]
    if name == "mc-smoe":
        k = int(s * x.size)
        return np.abs(x) >= magnitudes[k - 1] if k else np.ones(x.size, bool)
    if name == "wanda":
        keep = np.ones(x.size, bool)
        keep[np.argsort(np.abs(x), kind="stable")[: int(x.size * s)]] = False
        return keep
    if name == "llm-compressor":
        k = int(x.size * s)
        return np.abs(x) > magnitudes[:k][-1] if k else np.ones(x.size, bool)
    return np.abs(x) > magnitudes[min(int(x.size * s), x.size - 1)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0, 1), st.sampled_from(sorted(COMPAT)))
def test_compat(seed, n, sparsity, name):
    x = np.round(np.random.default_rng(seed).standard_normal(n) * 4) / 4
    (got,) = global_masks([x], sparsity, compat=name)
    if name == "torch":
        from torch.nn.utils import prune as peer

        layer = torch.nn.Linear(n, 1, bias=False).double()
        layer.weight.data[:] = torch.tensor(x)
        peer.l1_unstructured(layer, "weight", sparsity)
        want = layer.weight_mask.numpy().reshape(-1).astype(bool)
        assert got.sum() == want.sum()
        edge = np.abs(x) == (global_threshold([x], sparsity).value or -1)
        assert (got == want)[~edge].all()
    else:
        assert (got == peer_masks(x, sparsity, name)).all()


def test_many_ranks_in_the_same_reads():
    rng = np.random.default_rng(3)
    arrays = [fill(rng, kind, (40, 50), np.float32) for kind in ("spread", "ties", "sparse")]
    n = sum(a.size for a in arrays)
    ks = [0, n, *rng.integers(0, n, 100).tolist(), 7, 7]
    found = global_threshold(arrays, k=ks)
    for k, one in zip(ks, found, strict=True):
        assert one == global_threshold(arrays, k=k)
    shares = global_threshold(arrays, [0.1, 0.9], min_keep=30)
    assert shares == [global_threshold(arrays, s, min_keep=30) for s in (0.1, 0.9)]


# --- the histogram ---


@given(cases(), st.randoms(use_true_random=False), st.data())
def test_histograms_merge(case, random, data):
    arrays, k = case
    names = {a.dtype.name for a in arrays}
    n = sum(a.size for a in arrays)
    several = data.draw(st.booleans())
    ks = [k, *data.draw(st.lists(st.integers(0, n), max_size=4))] if several else k
    whole = MagnitudeHistogram(list(names), ks)
    rounds = 0
    while not whole.done:
        parts = [pickle.loads(pickle.dumps(whole)) for _ in arrays]
        for part, a in zip(parts, arrays, strict=True):
            part.update(a)
        random.shuffle(parts)
        for part in parts:
            whole.merge(part)
        whole.advance()
        rounds += 1
    # a round for every 16 bits that decide; several k share one budget of memory and spend rounds instead
    fewest = {16: 1, 32: 2, 64: 4}[whole.order.width]
    assert rounds <= (2 * fewest if several else fewest)
    flat = np.sort(np.concatenate([np.abs(np.asarray(a, np.float64)).ravel() for a in arrays]))
    want = [float(flat[v - 1]) if v else None for v in (ks if several else [ks])]
    assert whole.threshold == (want if several else want[0])


def test_a_few_megabytes_for_any_number_of_ranks():
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    h = MagnitudeHistogram("float32", list(range(0, 100_000, 1000)))
    sizes = []
    while not h.done:
        sizes.append(h.counts.nbytes)
        h.update(x)
        h.advance()
    assert max(sizes) <= 2 << 20
    flat = np.sort(np.abs(x))
    assert h.threshold == [float(flat[k - 1]) if k else None for k in h.k]


def test_histogram_as_documented():
    x = torch.randn(1000)
    h = MagnitudeHistogram(torch.float32, 500)
    while not h.done:
        h.update(x[:300])
        h.update(x[300:].numpy())
        torch.from_numpy(h.counts).mul_(1)  # what an all-reduce does
        h.advance()
    assert h.threshold == x.abs().kthvalue(500).values.item()
    with pytest.raises(ValueError, match="done"):
        h.update(x)
    with pytest.raises(ValueError, match="done"):
        h.advance()
    other = MagnitudeHistogram("float32", 3)
    with pytest.raises(ValueError, match="not done"):
        _ = other.threshold
    with pytest.raises(ValueError, match="same search"):
        other.merge(h)
    other.update(x[:2])
    with pytest.raises(ValueError, match="k = 3 of 2"):
        copy.deepcopy(other).advance()
    for bad, error in ((-1, ValueError), (True, TypeError), (2.0, TypeError), ("3", TypeError)):
        with pytest.raises(error):
            MagnitudeHistogram("float32", bad)
    with pytest.raises(TypeError, match="floats"):
        MagnitudeHistogram("int8", 3)


# --- pruned weights ---


@given(cases())
def test_pruned_weights(case):
    arrays, k = case
    masks = oracle(arrays, k)
    want = [np.where(m, a, np.zeros((), a.dtype)) for m, a in zip(masks, arrays, strict=True)]
    got = global_prune(arrays, k=k, mixed=True)
    assert [g.tobytes() for g in got] == [w.tobytes() for w in want]  # +0, and the others bit for bit
    tensors = [tensor(a) for a in arrays]
    again = global_prune(tensors, k=k, mixed=True, inplace=True)
    assert all(a is t for a, t in zip(again, tensors, strict=True))
    for t, w in zip(tensors, want, strict=True):
        words = t.view(torch.int16).numpy() if t.dtype == torch.bfloat16 else t.numpy()
        assert words.tobytes() == w.tobytes()
    copies = [a.copy() for a in arrays]
    global_prune(copies, k=k, mixed=True, inplace=True)
    assert [c.tobytes() for c in copies] == [w.tobytes() for w in want]
    once = global_prune(got, k=k, mixed=True)
    assert [g.tobytes() for g in once] == [w.tobytes() for w in want]  # idempotent


def test_layouts_and_views():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((30, 40)).astype(np.float32)
    want = oracle([base], 700)[0]
    for x in (
        np.asfortranarray(base),
        np.repeat(base, 2, axis=1)[:, ::2],
        base[::-1][::-1],
        np.ascontiguousarray(base[:, ::-1])[:, ::-1],
    ):
        same(global_masks([x], k=700), [want])
        y = x.copy(order="K") if not x.flags.c_contiguous else x.copy()
        view = np.empty((30, 80), np.float32)[:, ::2]
        view[...] = y
        assert global_prune([view], k=700, inplace=True)[0] is view
        np.testing.assert_array_equal(view, np.where(want, base, 0))
    t = torch.tensor(base).T
    same(global_masks([t], k=700), oracle([base.T], 700))
    global_prune([t], k=700, inplace=True)
    np.testing.assert_array_equal(t.numpy(), np.where(oracle([base.T], 700)[0], base.T, 0))


def test_gradients_pass_to_what_is_kept():
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    (y,) = global_prune([x], 0.5)
    y.sum().backward()
    (mask,) = global_masks([x], 0.5)
    assert mask.dtype == torch.bool and torch.equal(x.grad, mask.double())
    before = x._version
    global_prune([x], 0.5, inplace=True)
    assert x._version > before and x.requires_grad and torch.equal(x != 0, mask)


def test_bad_arguments():
    x = np.ones((3, 4), np.float32)
    frozen = x.copy()
    frozen.flags.writeable = False
    for args, kwargs, error, match in [
        ((x,), {"k": 1}, TypeError, "list of arrays"),
        (([x],), {}, ValueError, "exactly one"),
        (([x], 0.5), {"k": 1}, ValueError, "exactly one"),
        (([x], 1.5), {}, ValueError, "between 0 and 1"),
        (([x], math.nan), {}, ValueError, "between 0 and 1"),
        (([x], "0.5"), {}, TypeError, "sparsity"),
        (([x], True), {}, TypeError, "sparsity"),
        (([x],), {"k": 13}, ValueError, "k = 13 of 12"),
        (([x],), {"k": -1}, ValueError, "negative"),
        (([x],), {"k": 1.0}, TypeError, "integer"),
        (([x], 0.5), {"min_keep": -1}, ValueError, "negative"),
        (([x], 0.5), {"min_keep": [1, 2]}, ValueError, "2 numbers for 1"),
        (([x], 0.5), {"ties": "some"}, ValueError, "ties"),
        (([x], 0.5), {"scope": "all"}, ValueError, "scope"),
        (([x], 0.5), {"rounding": "up"}, ValueError, "rounding"),
        (([x], 0.5), {"nan": "ignore"}, ValueError, "nan"),
        (([x], 0.5), {"compat": "nobody"}, ValueError, "compat"),
        (([x], 0.5), {"compat": "torch", "ties": "high"}, ValueError, "leave out"),
        (([x], 0.5), {"scores": [x[:2]]}, ValueError, "shapes"),
        (([x, torch.ones(3)], 0.5), {}, TypeError, "all"),
        (([[1.0]], 0.5), {}, TypeError, "NumPy array"),
        (([x.astype(np.int32)], 0.5), {}, TypeError, "floats"),
        (([x.astype(">f4")], 0.5), {}, TypeError, "byte order"),
        (([torch.ones(3, device="meta")], 0.5), {}, ValueError, "meta"),
    ]:
        with pytest.raises(error, match=match):
            global_masks(*args, **kwargs)
    with pytest.raises(ValueError, match="read-only"):
        global_prune([x, frozen], 0.5, inplace=True)
    assert (x == 1).all()
    with pytest.raises(ValueError, match="shape"):
        apply_mask(x, np.ones((4, 3), bool))
    with pytest.raises(TypeError, match="bool"):
        apply_mask(x, np.ones((3, 4), np.uint8))
    for k, error in ((5, ValueError), (-1, ValueError), (1.0, TypeError)):
        with pytest.raises(error):
            topk_rows(x, k)
    assert global_masks([], 0.5) == [] and global_threshold([], 0.5) == Threshold(None, [])


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 700),
    st.sampled_from(KINDS),
    st.sampled_from(sorted(DTYPES)),
    st.booleans(),
)
def test_topk_rows(seed, n, kind, dtype, magnitude):
    rng = np.random.default_rng(seed)
    x = fill(rng, kind, (3, n), DTYPES[dtype])
    k = int(rng.integers(0, n + 1))
    values, indices = topk_rows(x, k, magnitude=magnitude)
    rank = np.asarray(x, np.float64)
    rank = np.abs(rank) if magnitude else rank
    want = np.sort(np.argsort(-rank, axis=-1, kind="stable")[:, :k], axis=-1)
    np.testing.assert_array_equal(indices, want)
    assert values.tobytes() == np.take_along_axis(x, want, -1).tobytes()
    tv, ti = topk_rows(tensor(x), k, magnitude=magnitude)
    np.testing.assert_array_equal(ti.numpy(), want)
    assert tv.shape == (3, k)


def test_topk_rows_gradient():
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: topk_rows(x, 3)[0], x)
    values, indices = topk_rows(x, 3)
    values.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x).scatter_(1, indices, 1))


# --- files ---

SAFE = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def save(path, arrays, metadata=None):
    with Writer(path, [(k, SAFE.get(a.dtype.name, "I64"), a.shape) for k, a in arrays.items()], metadata) as file:
        for a in arrays.values():
            file.write(a)


def in_memory(arrays, k, names, **options):
    pruned = dict(zip(names, global_prune([arrays[n] for n in names], k=k, mixed=True, **options), strict=True))
    return {n: pruned.get(n, a) for n, a in arrays.items()}


@pytest.mark.parametrize("chunk", [24, 240, 1 << 22])
@pytest.mark.parametrize(
    "dtypes", [["float32"], ["bfloat16"], ["float16", "bfloat16"], ["float32", "bfloat16", "float64"]]
)
@pytest.mark.parametrize("min_keep", [0, 50])
def test_the_file_is_pruned_as_the_memory(tmp_path, monkeypatch, chunk, dtypes, min_keep):
    monkeypatch.setattr(Reader.chunks, "__defaults__", (chunk,))
    rng = np.random.default_rng(5)
    arrays = {f"w{i}": (fill(rng, kind, (9, 13), DTYPES[dtypes[i % len(dtypes)]])) for i, kind in enumerate(KINDS[:7])}
    arrays["bias"] = rng.standard_normal(9).astype(np.float32)
    arrays["ids"] = np.arange(8).reshape(2, 4)
    names = [n for n in arrays if n.startswith("w")]
    src, dst, want = tmp_path / "in.safetensors", tmp_path / "out.safetensors", tmp_path / "want.safetensors"
    save(src, arrays, {"made": "here"})
    n = sum(arrays[name].size for name in names)
    for k in (0, 1, n // 2, n - 50 * len(names)):
        steps = []
        report = prune_safetensors(src, dst, k=k, min_keep=min_keep, progress=lambda *at, steps=steps: steps.append(at))
        save(want, in_memory(arrays, k, names, min_keep=min_keep), {"made": "here"})
        assert dst.read_bytes() == want.read_bytes()
        assert report.total == n and report.pruned == k == n - sum(report.kept.values())
        assert report.kept == dict(
            zip(
                names,
                global_threshold([arrays[m] for m in names], k=k, mixed=True, min_keep=min_keep).kept,
                strict=True,
            )
        )
        assert steps == sorted(steps) and steps[-1][0] == steps[-1][1]
    prune_safetensors(src, src, k=n // 2, min_keep=min_keep)  # onto itself
    prune_safetensors(src, src, k=n // 2, min_keep=min_keep)
    save(want, in_memory(arrays, n // 2, names, min_keep=min_keep), {"made": "here"})
    assert src.read_bytes() == want.read_bytes()


def test_which_tensors(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {n: rng.standard_normal(s) for n, s in [("a.weight", (3, 4)), ("b.weight", (5, 5)), ("b.bias", (5,))]}
    src, dst = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save(src, arrays)
    for options, names in [
        ({}, ["a.weight", "b.weight"]),
        ({"include": ["b.*"]}, ["b.weight", "b.bias"]),
        ({"exclude": ["a*"]}, ["b.weight"]),
        ({"exclude": ["a"]}, ["b.weight"]),
        ({"include": ["*"], "exclude": ["*.bias"]}, ["a.weight", "b.weight"]),
    ]:
        assert list(prune_safetensors(src, dst, 0.5, **options).kept) == names
    with pytest.raises(ValueError, match="include: no tensor and no module is called 'c'"):
        prune_safetensors(src, dst, 0.5, include=["c"])
    with pytest.raises(TypeError, match="sequence of shell patterns"):
        prune_safetensors(src, dst, 0.5, include="b.*")
    with pytest.raises(ValueError, match="cannot prune"):
        prune_safetensors(src, dst, k=30, min_keep=10)
    with pytest.raises(ValueError, match="exactly one"):
        prune_safetensors(src, dst)
    arrays["b.weight"][2, 2] = np.nan
    save(src, arrays)
    dst.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"in\.safetensors: tensor 'b\.weight' has non-finite"):
        prune_safetensors(src, dst, 0.5)
    assert dst.read_bytes() == b"old"


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"])
def test_8_bit_floats_are_ranked_by_value(tmp_path, dtype):
    kind = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}.get(dtype, "float8_" + dtype[3:].lower())
    words = np.arange(256, dtype=np.uint8)
    values = words.view(getattr(ml_dtypes, kind)).astype(np.float64)
    words, values = words[np.isfinite(values)], values[np.isfinite(values)]
    src, dst = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    with Writer(src, [("w", dtype, (1, words.size))]) as file:
        file.write(words)
    report = prune_safetensors(src, dst, 0.5)
    (mask,) = oracle([values], report.pruned)
    with Reader(dst) as reader:
        got = b"".join(map(bytes, reader.chunks(reader.entries["w"])))
    assert got == (words * mask).tobytes()
    assert report.threshold == np.sort(np.abs(values))[report.pruned - 1]


def sharded(src, shards):
    """A model folder of so many files of two tensors with many equals: file name -> arrays."""
    rng = np.random.default_rng(0)
    src.mkdir()
    files = {
        f"model-{i:05d}-of-{shards:05d}.safetensors": {
            f"l{i}.{j}": np.round(rng.standard_normal((6, 7)) * 2) for j in range(2)
        }
        for i in range(1, shards + 1)
    }
    for file, arrays in files.items():
        save(src / file, arrays)
    where = {n: f for f, arrays in files.items() for n in arrays}
    (src / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (src / "config.json").write_text("{}")
    return files


@pytest.mark.parametrize("in_place", [False, True])
def test_a_model_folder(tmp_path, in_place):
    src = tmp_path / "model"
    files = sharded(src, 2)
    dst = src if in_place else tmp_path / "out"
    report = prune_safetensors(src / "model.safetensors.index.json" if in_place else src, dst, 0.6)
    arrays = {n: a for some in files.values() for n, a in some.items()}
    want = in_memory(arrays, report.pruned, list(arrays))
    got = load(dst)
    assert got.keys() == want.keys() and all(got[n].tobytes() == want[n].tobytes() for n in want)
    assert sorted(p.name for p in dst.iterdir()) == sorted([*files, "config.json", "model.safetensors.index.json"])
    with Model(dst) as model:
        assert list(model.readers) == sorted(files)


@pytest.mark.parametrize("name", ["l.weight_scale", "l.weight_scale_inv", "l.qweight", "l.weight_packed"])
def test_what_is_quantized_is_not_pruned(tmp_path, name):
    save(tmp_path / "in.safetensors", {"l.weight": np.ones((4, 4)), name: np.ones((4, 1))})
    with pytest.raises(ValueError, match=f"quantized already: it has '{name}'"):
        prune_safetensors(tmp_path / "in.safetensors", tmp_path / "out.safetensors", 0.5)


class Stopped(Exception):
    pass


def stopped_after(part):
    """A progress that gives up when so much of the work is done."""

    def progress(done, total):
        if done > part * total:
            raise Stopped

    return progress


@pytest.mark.parametrize("min_keep", [0, 15])
@pytest.mark.parametrize("change", ["nothing", "share", "source", "result", "journal"])
def test_resume_goes_on_where_it_stopped(tmp_path, change, min_keep):
    src, dst, whole = tmp_path / "model", tmp_path / "out", tmp_path / "whole"
    files = sorted(sharded(src, 6))
    with pytest.raises(Stopped):
        prune_safetensors(src, dst, 0.5, min_keep=min_keep, resume=True, progress=stopped_after(0.85))
    (half,) = tmp_path.glob(f".out.*{SUFFIX}")  # what is done waits beside the destination
    done = {f: (half / f).stat().st_mtime_ns for f in files if (half / f).exists()}
    assert 0 < len(done) < 6 and not dst.exists()
    share = 0.4 if change == "share" else 0.5
    if change == "source":
        save(src / files[0], {"l1.0": np.full((6, 7), 9.0), "l1.1": np.full((6, 7), 9.0)})
    elif change == "result":
        (half / files[0]).write_bytes(b"of another")
    elif change == "journal":
        (half / _journal.NAME).write_bytes(b'{"job": 3, "cuts": [')
    want = prune_safetensors(src, whole, share, min_keep=min_keep)
    with pytest.raises(Stopped):  # and stops again
        prune_safetensors(src, dst, share, min_keep=min_keep, resume=True, progress=stopped_after(0.95))
    assert prune_safetensors(src, dst, share, min_keep=min_keep, resume=True) == want
    assert not list(tmp_path.glob(f".out.*{SUFFIX}"))
    assert {p.name: p.read_bytes() for p in dst.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}
    kept = [f for f, written in done.items() if (dst / f).stat().st_mtime_ns == written]
    assert kept == (list(done) if change == "nothing" else [])


@pytest.mark.parametrize("min_keep", [0, 15])
def test_in_place_a_second_run_finishes_what_the_first_began(tmp_path, min_keep):
    src, whole = tmp_path / "model", tmp_path / "whole"
    files = sharded(src, 6)
    want = prune_safetensors(src, whole, 0.5, min_keep=min_keep)
    with pytest.raises(Stopped):
        prune_safetensors(src, src, 0.5, min_keep=min_keep, resume=True, progress=stopped_after(0.85))
    assert prune_safetensors(src, src, 0.5, min_keep=min_keep, resume=True) == want
    assert all((src / f).read_bytes() == (whole / f).read_bytes() for f in files)


def test_memory_is_a_chunk(tmp_path):
    import subprocess
    import sys

    src = tmp_path / "in.safetensors"
    with Writer(src, [("w", "F32", (24, 1 << 20))]) as file:
        for i in range(24):
            file.write(np.random.default_rng(i).standard_normal(1 << 20, np.float32))
    code = """
import resource, sys
from tersor.prune import prune_safetensors
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
prune_safetensors(sys.argv[1], sys.argv[2], 0.5)
print((peak() - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(src), str(tmp_path / "out.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 32  # of 96 MB


def test_an_array_that_stands_twice_is_one():
    e, o = torch.tensor([0.1, 0.2]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    masks = global_masks([e, o, e], 0.5)
    assert [m.tolist() for m in masks] == [[False, False], [False, True, True, True], [False, False]]
    assert [t.tolist() for t in global_prune([e.clone(), o], 0.5)] == [[0, 0], [0, 2, 3, 4]]
    t = np.array([1.0, 2.0, 3.0])
    a, b = global_masks([t, t], k=1)
    assert a.tolist() == b.tolist() == [False, True, True]
    assert global_threshold([t, t[:]], k=1) == (1.0, [2, 2])
    global_prune([e, o, e], 0.5, inplace=True)
    assert e.tolist() == [0, 0] and o.tolist() == [0, 2, 3, 4]
    with pytest.raises(ValueError, match="min_keep differs"):
        global_masks([t, t], k=1, min_keep=[0, 1])


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_arrays_that_share_some_memory_are_refused(library):
    x = np.arange(12.0)
    with pytest.raises(ValueError, match=r"arrays\[0\] and arrays\[2\] share memory"):
        global_masks([library(x[:8]), library(np.ones(3)), library(x[4:])], 0.5)
    assert len(global_masks([library(x[:4]), library(x[4:])], 0.5)) == 2
    columns = x.reshape(3, 4)
    assert len(global_masks([library(columns[:, ::2]), library(columns[:, 1::2])], 0.5)) == 2


def peers(share):
    """What the projects compute of one matrix of scores, as their code reads."""

    def wanda(s):
        mask = torch.zeros_like(s, dtype=torch.bool)
        indices = torch.sort(s, dim=-1, stable=True)[1][:, : int(s.shape[1] * share)]
        return ~mask.scatter_(1, indices, True)

    def wanda_magnitude(s):
        return s > torch.sort(s.flatten())[0][int(s.numel() * share)]

    def sparsegpt(s):
        return s > torch.sort(s.flatten())[0][int(s.numel() * share)]

    return {"wanda": wanda, "wanda-magnitude": wanda_magnitude, "sparsegpt": sparsegpt}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.77])
@pytest.mark.parametrize("name", ["wanda", "wanda-magnitude", "sparsegpt"])
@pytest.mark.parametrize("levels", [3, 1000])
def test_presets_are_the_peers(name, share, levels):
    generator = torch.Generator().manual_seed(levels)
    w = torch.randint(1, levels, (6, 20), generator=generator).float()
    want = peers(share)[name](w)
    if name == "wanda":
        got = torch.stack(global_masks(list(w), share, scope="layer", scores=list(w.abs()), compat="wanda"))
    else:
        (got,) = global_masks([w], share, compat=name)
    assert torch.equal(got, want)


def test_what_is_no_list_of_arrays_is_named():
    for wrong, says in [
        (torch.nn.Linear(2, 2), "got Linear"),
        ([torch.nn.Linear(2, 2)], r"arrays\[0\] must be a NumPy array or a torch tensor, got Linear"),
        ([torch.eye(2).to_sparse()], "layout"),
        ([np.ma.masked_array(np.ones(3), [0, 1, 0])], "MaskedArray"),
        ([np.arange(3)], "int64"),
    ]:
        with pytest.raises(TypeError, match=says):
            global_masks(wrong, 0.5)
    with pytest.raises(TypeError, match=r"topk_rows: x must be float64, .* got int64"):
        topk_rows(np.arange(4).reshape(1, 4), 1)


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_what_shares_memory_with_itself_is_not_written(library):
    as_strided = np.lib.stride_tricks.as_strided
    for shape, steps, fine in (
        ((4,), (0,), False),
        ((3, 2), (1, 1), False),
        ((3, 2), (2, 1), True),
        ((3, 2), (3, 4), True),  # 0 3 6 and 4 7 10
        ((5, 2), (3, 9), False),
        ((1, 2), (0, 1), True),
        ((0, 2), (0, 0), True),
    ):
        memory = np.ones(40, np.float32)
        x = library(memory)
        if isinstance(x, np.ndarray):
            x = as_strided(x, shape, [4 * s for s in steps])
        else:
            x = x.as_strided(shape, steps)
        if fine:
            global_prune([x], 1.0, inplace=True)
            assert not x.any()
            continue
        with pytest.raises(ValueError, match=r"global_prune: arrays\[0\]: elements share memory"):
            global_prune([x], 0.5, inplace=True)
        assert memory.all()
        with pytest.raises(ValueError, match=r"apply_mask: .*contiguous"):
            apply_mask(x, x > 0, out=x)
        assert int((global_prune([x], k=1)[0] == 0).sum()) == 1


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_any_number_of_axes(library):
    for n in (6, 1 << 20):
        flat = np.random.default_rng(0).standard_normal(2 * n).astype(np.float32)
        x = library(flat.reshape((1,) * 16 + (n, 2)))
        for options in ({}, {"min_keep": n}, {"ties": "high", "nan": "keep"}):
            (mask,), (want,) = global_masks([x], 0.5, **options), global_masks([flat], 0.5, **options)
            assert tuple(mask.shape) == tuple(x.shape)
            np.testing.assert_array_equal(np.asarray(mask).reshape(-1), want)
            assert global_threshold([x], 0.5, **options) == global_threshold([flat], 0.5, **options)
        np.testing.assert_array_equal(np.asarray(global_prune([x], 0.5)[0]).reshape(-1), np.where(want, flat, 0))
        global_prune([x], 0.5, inplace=True)
        np.testing.assert_array_equal(np.asarray(x).reshape(-1), np.where(want, flat, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dispatcher_runs_a_selection(dtype):
    """The way to other devices, on this one: what the kernels write when they are called is what torch's dispatcher makes."""
    x = fill(np.random.default_rng(3), "ties", (40, 7), DTYPES[dtype])
    form = FORMATS.index(dtype)
    keys = np.array([0, 1 << 13], np.int64)
    for name, makes, scalars in (
        ("magnitude_count", lambda: [np.zeros(1, np.int64), np.arange(1 << 9), np.zeros(1 << 9, np.int64)],
         [form, WIDTH[form] - 9, 9, False, 0]),
        ("magnitude_tally", lambda: [keys, np.zeros((2, 2), np.int64)], [form, False, 0]),
        ("magnitude_mask", lambda: [torch.zeros(x.shape, dtype=torch.bool), np.zeros(2, np.int64)],
         [1 << 13, 3, True, form, False, 0]),
    ):  # fmt: skip
        want, got = makes(), makes()
        run(name, tensor(x), *want, *scalars)
        dispatched(OPS[f"prune.{name}"], tensor(x), [*got, *scalars])
        for w, g in zip(want, got, strict=True):
            assert np.array_equal(w, g), name


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"])
def test_8_bit_floats_in_memory(kind):
    """Every finite number twice: the masks are those of their values, what goes is +0 and the rest as it was."""
    words = np.tile(np.arange(256, dtype=np.uint8), 2)
    values = words.view(getattr(ml_dtypes, kind)).astype(np.float64)
    words, values = words[np.isfinite(values)], values[np.isfinite(values)]
    array, tensor = words.view(getattr(ml_dtypes, kind)), torch.from_numpy(words.copy()).view(getattr(torch, kind))
    for k in (0, 1, words.size // 2, words.size):
        (mask,) = global_masks([values], k=k)
        assert (global_masks([array], k=k)[0] == mask).all()
        assert (global_masks([tensor], k=k)[0].numpy() == mask).all()
        assert global_threshold([array], k=k).value == global_threshold([values], k=k).value
        for x in (array, tensor):
            (got,) = global_prune([x], k=k)
            view = got.view(torch.uint8).numpy() if isinstance(got, torch.Tensor) else got.view(np.uint8)
            assert (view == words * mask).all() and got.dtype == x.dtype
    copy = tensor.clone()
    assert global_prune([copy], k=7, inplace=True)[0] is copy
    assert (copy.view(torch.uint8).numpy() == words * global_masks([values], k=7)[0]).all()
    with pytest.raises(ValueError, match=r"arrays\[0\] holds"):
        global_masks([torch.full((3,), torch.nan).to(tensor.dtype)], k=1)
