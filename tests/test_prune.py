"""The selection of weights. The one rule: a mask is that of a sort of all magnitudes, of any type, by any way and number of
threads."""

import ml_dtypes
import numpy as np
import pytest
import tersor
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranked import DTYPES, KINDS, cases, fill, oracle, same, tensor
from tersor._keys import FORMATS, WIDTH
from tersor._op import OPS
from tersor.prune import MagnitudeHistogram, _window, global_masks, global_prune, global_threshold, topk_rows
from tersor.prune._run import dispatched, run


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
