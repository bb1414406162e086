"""Weights pruned, and the largest of each row. The one rule: what is kept is as it was, and gradients pass to it alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranked import DTYPES, KINDS, cases, fill, oracle, same, tensor
from tersor.prune import Threshold, apply_mask, global_masks, global_prune, global_threshold, topk_rows


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
