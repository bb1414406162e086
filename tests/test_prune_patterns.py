"""Masks with a pattern. The one rule: counts are exact, ties go to the lowest index, and both libraries agree."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tersor import prune, sparse
from torch._subclasses.fake_tensor import FakeTensorMode

rng = np.random.default_rng(0)
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def by_sort(score, n, m):
    """The n largest of each group, by a stable sort of each."""
    groups = score.reshape(-1, m)
    mask = np.zeros(groups.shape, bool)
    for row, kept in zip(groups, mask, strict=True):
        kept[sorted(range(m), key=lambda i: (-row[i], i))[:n]] = True
    return mask.reshape(score.shape)


@pytest.mark.parametrize("m", range(1, 17))
def test_n_of_m_is_a_stable_sort_of_each_group(m):
    for n in range(m + 1):
        w = rng.integers(-3, 4, (5, 70 * m)).astype(np.float32)  # ties in most groups
        mask = prune.nm_mask(w, n, m)
        np.testing.assert_array_equal(mask, by_sort(abs(w), n, m))
        assert (mask.reshape(-1, m).sum(1) == n).all()
        np.testing.assert_array_equal(prune.nm_mask(w, n, m, score=w), by_sort(w, n, m))
    fine = rng.standard_normal((3, 11 * m))
    for n in range(m):  # nested
        assert (prune.nm_mask(fine, n, m) <= prune.nm_mask(fine, n + 1, m)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_axes_and_pruned_weights(dtype):
    w = torch.randn(8, 12, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    for axis in range(-3, 3):
        mask = prune.nm_mask(w, 1, 4, axis=axis)
        assert mask.dtype == torch.bool and mask.shape == w.shape and mask.is_contiguous()
        want = by_sort(w.double().abs().movedim(axis, -1).numpy(), 1, 4)
        np.testing.assert_array_equal(mask.movedim(axis, -1).numpy(), want)
        left = prune.apply_mask(w, mask)
        assert torch.equal(prune.nm_mask(left, 1, 4, axis=axis), mask)  # idempotent
    turned = torch.randperm(4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(prune.nm_mask(w[..., turned], 2, 4), prune.nm_mask(w, 2, 4)[..., turned])  # no ties here


def test_no_order_of_memory_or_thread_changes_a_mask():
    import tersor

    w = rng.integers(-9, 10, (512, 516)).astype(np.float32)
    want = prune.nm_mask(w, 2, 4)
    before = tersor.get_num_threads()
    try:
        for threads in (1, 3):
            tersor.set_num_threads(threads)
            np.testing.assert_array_equal(prune.nm_mask(np.asfortranarray(w), 2, 4), want)
    finally:
        tersor.set_num_threads(before)


def test_strange_numbers():
    w = np.array([[0.0, -0.0, 5e-324, np.inf]])
    with pytest.raises(ValueError, match="nm_mask: non-finite values"):
        prune.nm_mask(w, 2, 4)
    np.testing.assert_array_equal(prune.nm_mask(w, 2, 4, nan="keep"), [[False, False, True, True]])
    np.testing.assert_array_equal(prune.nm_mask(w[:, :2], 1, 2), [[True, False]])
    nan = np.array([[np.nan, 1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(prune.nm_mask(nan, 1, 4, nan="keep"), [[True, False, False, False]])
    np.testing.assert_array_equal(prune.nm_mask(nan, 3, 4, nan="prune"), [[False, True, True, True]])
    with pytest.raises(ValueError, match="nm_mask: non-finite values in score"):
        prune.nm_mask(np.ones((1, 4)), 1, 4, score=np.array([[-np.inf, 0, 0, 0]]))
    traced = torch.compile(lambda w, score: prune.nm_mask(w, 2, 4, score=score), fullgraph=True, backend="aot_eager")
    for name, parts in (("w", (torch.tensor(nan), None)), ("score", (torch.ones(1, 4), torch.tensor(nan)))):
        with pytest.raises(ValueError, match=rf"nm_mask: non-finite values in {name}$"):
            traced(*parts)
    assert prune.nm_mask(np.zeros((0, 4)), 2, 4).shape == (0, 4)
    assert prune.nm_mask(np.zeros((4, 0)), 2, 4).shape == (4, 0)


def test_traced_and_without_data():
    w = torch.randn(6, 8)
    f = lambda w: prune.apply_mask(w, prune.nm_mask(w, 2, 4))  # noqa: E731
    torch._dynamo.reset()
    assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(w), f(w))
    with FakeTensorMode() as mode:
        got = prune.nm_mask(mode.from_tensor(w), 2, 4)
    assert got.shape == w.shape and got.dtype == torch.bool
    leaf = w.clone().requires_grad_()
    f(leaf).sum().backward()
    assert torch.equal(leaf.grad, prune.nm_mask(w, 2, 4).float())


def test_who_is_refused():
    w = np.ones((4, 6), np.float32)
    for error, said, call in [
        (ValueError, "axis -1 of w has 6 elements, no whole groups of m = 4", lambda: prune.nm_mask(w, 2, 4)),
        (ValueError, "n of m must be .* got 5 of 4", lambda: prune.nm_mask(w, 5, 4, axis=0)),
        (ValueError, "n of m must be .* got 2 of 17", lambda: prune.nm_mask(w, 2, 17)),
        (ValueError, "n of m must be .* got -1 of 3", lambda: prune.nm_mask(w, -1, 3)),
        (ValueError, "score has shape", lambda: prune.nm_mask(w, 1, 3, score=w[:1])),
        (ValueError, "w needs an axis", lambda: prune.nm_mask(np.float32(1)[...], 1, 1)),
        (TypeError, "w must be", lambda: prune.nm_mask(w.astype(int), 1, 3)),
        (ValueError, "non-finite values in w", lambda: prune.nm_mask(w * np.inf, 1, 3)),
        (ValueError, "non-finite values in score", lambda: prune.nm_mask(w, 1, 3, score=w * np.nan)),
        (TypeError, "m must be an integer", lambda: prune.nm_mask(w, 1, 3.0)),
        (ValueError, "axis 2 is out of bounds", lambda: prune.nm_mask(w, 1, 3, axis=2)),
    ]:
        with pytest.raises(error, match=said if "axis 2" in said else f"nm_mask: {said}"):
            call()


@pytest.mark.parametrize("norm", [1, 2, 3.5, math.inf])
@pytest.mark.parametrize("block", [(4, 1), (1, 4), (2, 3), (8, 6)])
def test_blocks(norm, block):
    w = rng.standard_normal((2, 8, 12))
    a, b = block
    parts = w.reshape(2, 8 // a, a, 12 // b, b)
    total = np.linalg.norm(parts.transpose(0, 1, 3, 2, 4).reshape(-1, a * b), norm, axis=1)
    for share in (0, 0.3, 0.5, 1):
        mask = prune.block_mask(w, share, block=block, norm=norm)
        kept = mask.reshape(parts.shape).transpose(0, 1, 3, 2, 4).reshape(-1, a * b)
        assert (kept.all(1) | ~kept.any(1)).all()
        pruned = ~kept[:, 0]
        assert pruned.sum() == round(share * len(total))
        assert total[pruned].max(initial=0) <= total[~pruned].min(initial=math.inf) * (1 + 1e-12)
        same = prune.block_mask(torch.from_numpy(w), share, block=block, norm=norm)
        np.testing.assert_array_equal(same.numpy(), mask)
    with pytest.raises(ValueError, match=r"block_mask: blocks of \(3, 1\) do not divide"):
        prune.block_mask(w, 0.5, block=(3, 1))
    with pytest.raises(ValueError, match="block_mask: the norm of a block is not finite"):
        prune.block_mask(np.full((4, 4), np.nan), 0.5)
    with pytest.raises(ValueError, match="exactly one of sparsity and k"):
        prune.block_mask(w)


@pytest.mark.parametrize(("norm", "scale"), [(2, 1e-200), (2, 1e200), (100, 1e-4), (100, 1e5), (1e-3, 1.0)])
def test_powers_that_no_number_has(norm, scale):
    w = rng.standard_normal((8, 6))
    want = prune.block_mask(w, 0.5, block=(2, 3), norm=norm)
    np.testing.assert_array_equal(prune.block_mask(w * scale, 0.5, block=(2, 3), norm=norm), want)
    same = prune.block_mask(torch.from_numpy(w * scale), 0.5, block=(2, 3), norm=norm)
    np.testing.assert_array_equal(same.numpy(), want)
    zero = np.zeros((2, 2))
    zero[1, 1] = 1e-200
    np.testing.assert_array_equal(prune.block_mask(zero, k=3, block=(1, 1)), zero > 0)


def test_equal_blocks_are_kept_from_the_first_on():
    mask = prune.block_mask(np.ones((8, 2)), k=3)
    np.testing.assert_array_equal(mask[::4], [[True, False], [False, False]])


@given(st.integers(1, 16).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m))), st.integers(0, 2**31))
def test_compression_gives_everything_back(nm, seed):
    (n, m), r = nm, np.random.default_rng(seed)
    w = r.standard_normal((3, 5 * m)).astype(np.float32) * (r.random((3, 5 * m)) < 0.8)
    w = prune.apply_mask(w, prune.nm_mask(w, n, m))
    t = sparse.nm_compress(w, n, m)
    assert t.values.shape == (3, 5 * n) and t.meta.dtype == np.uint8
    np.testing.assert_array_equal(sparse.nm_decompress(t), w)
    again = sparse.nm_compress(torch.from_numpy(w), n, m)
    np.testing.assert_array_equal(again.values.numpy(), t.values)
    np.testing.assert_array_equal(again.meta.numpy(), t.meta)


def test_metadata_of_two_of_four_is_what_gpus_have():
    w = torch.tensor([[0.0, 1.0, 0.0, 2.0, 3.0, 0.0, 4.0, 0.0]], dtype=torch.float16)
    t = sparse.nm_compress(w, 2, 4)
    assert t.meta.tolist() == [[1 | 3 << 2 | 0 << 4 | 2 << 6]]
    many = w.reshape((1,) * 18 + (8,))
    assert torch.equal(sparse.nm_compress(many, 2, 4).to_dense(), many)
    assert t.nbytes == 9 and repr(t) == "NMTensor(1×8, 2:4, float16)" and torch.equal(t.to_dense(), w)


def test_gradients_go_to_what_is_stored():
    w = torch.randn(4, 12, dtype=torch.float64)
    w = prune.apply_mask(w, prune.nm_mask(w, 2, 6)).requires_grad_()
    t = sparse.nm_compress(w, 2, 6)
    (t.values**2).sum().backward()
    assert torch.equal(w.grad, 2 * w.detach())
    assert torch.autograd.gradcheck(
        lambda v: sparse.nm_decompress(sparse.NMTensor(v, t.meta, 2, 6, (4, 12))), t.values.detach().requires_grad_()
    )
    torch._dynamo.reset()
    back = lambda w: sparse.nm_decompress(sparse.nm_compress(w, 6, 6))  # noqa: E731
    batch = torch.randn(3, 4, 12)
    assert torch.equal(torch.func.vmap(back)(batch), batch)
    slopes = torch.func.vmap(torch.func.grad(lambda w: (back(w) ** 2).sum()))(batch)
    assert torch.equal(slopes, 2 * batch)
    with FakeTensorMode() as mode:
        assert back(mode.from_tensor(batch)).shape == batch.shape
    f = lambda w: sparse.nm_compress(w, 2, 6).values  # noqa: E731
    assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(w.detach()), f(w.detach()))


def test_nothing_is_lost_silently():
    w = np.ones((2, 8), np.float32)
    w[0, :2] = 0
    with pytest.raises(
        ValueError, match="nm_compress: group 1 of row 0 holds 4 nonzeros, 2 of 4 are stored; prune it first"
    ):
        sparse.nm_compress(w, 2, 4)
    t = sparse.nm_compress(prune.apply_mask(w, prune.nm_mask(w, 2, 4)), 2, 4)
    for bad, said in ((t.meta * 0, "do not ascend"), (t.meta[:, :0], "has values")):
        with pytest.raises(ValueError, match=f"nm_decompress: .*{said}"):
            sparse.nm_decompress(sparse.NMTensor(t.values, bad, 2, 4, (2, 8)))
    odd = sparse.NMTensor(np.ones((1, 1)), np.array([[3]], np.uint8), 1, 3, (1, 3))
    with pytest.raises(ValueError, match="position 3 of value 0 is outside a group of 3"):
        sparse.nm_decompress(odd)
    for parts, said in (
        ((t.values, t.meta, 2, 4, ()), "whole groups of m"),
        ((t.values, t.meta, 2, 4, (2, 7)), "whole groups of m"),
        ((t.values, t.meta, 2, 0, (2, 8)), "whole groups of m"),
        ((t.values, t.meta, 2.0, 4, (2, 8)), "n must be an integer"),
        ((t.values.tolist(), t.meta, 2, 4, (2, 8)), "values must be a NumPy array or a torch tensor, got list"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"nm_decompress: .*{said}"):
            sparse.nm_decompress(sparse.NMTensor(*parts))
    with pytest.raises(TypeError, match="nm_decompress: t must be an NMTensor, got ndarray"):
        sparse.nm_decompress(w)
