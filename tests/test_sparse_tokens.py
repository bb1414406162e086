"""Tokens that leave out what they need not, and images of few weights. The one rule: what is left out is read nowhere, and the
rest is what the dense computation gives."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from tersor import nn as tnn
from tersor import prune, sparse
from tersor._acts import applied

ACTS = (None, "relu", "relu6", "gelu", "silu")
RNG = np.random.default_rng(0)


def tensor(x):
    """Of NumPy's bfloat16 too, whose values float32 has."""
    return torch.from_numpy(x.astype(np.float32)).bfloat16() if x.dtype == ml_dtypes.bfloat16 else torch.from_numpy(x)


def some(*shape, dtype=np.float64):
    return RNG.standard_normal(shape).astype(dtype)


def dense_ffn(x, w1, w2, k, b1, b2, act):
    """The block with all activations, those that are not kept times 0."""
    h = torch.nn.functional.linear(x, w1, b1)
    h = h if act is None else getattr(torch.nn.functional, act)(h)
    order = torch.sort(h, dim=-1, descending=True, stable=True).indices[..., :k]
    return (h * torch.zeros_like(h).scatter(-1, order, 1.0)) @ w2 + b2


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("lead", [(), (0,), (1,), (2, 3)])
@pytest.mark.parametrize("k", [0, 1, 4, 20])
def test_a_block_is_the_dense_one_of_what_it_keeps(act, lead, k):
    parts = [some(*lead, 6), some(20, 6), some(20, 5), some(20), some(5)]
    x, w1, w2, b1, b2 = (torch.from_numpy(p).requires_grad_() for p in parts)
    got, want = sparse.topk_ffn(x, w1, w2, k, b1=b1, b2=b2, act=act), dense_ffn(x, w1, w2, k, b1, b2, act)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    g = torch.from_numpy(some(*got.shape))
    for a, b in zip(
        *(torch.autograd.grad(y, (x, w1, w2, b1, b2), g, retain_graph=True) for y in (got, want)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    plain = sparse.topk_ffn(*parts[:3], k, b1=parts[3], b2=parts[4], act=act)
    np.testing.assert_allclose(plain, got.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("act", ACTS)
def test_a_block_of_narrow_types(dtype, act):
    """Each rounding once: of the activations, of the product and of the sum with the bias, each of its size at most."""
    x, w1, w2, b1, b2 = (p.astype(dtype) for p in (some(3, 6), some(20, 6), some(20, 5), some(20), some(5)))
    got = sparse.topk_ffn(x, w1, w2, 4, b1=b1, b2=b2, act=act)
    again = sparse.topk_ffn(*map(tensor, (x, w1, w2)), 4, b1=tensor(b1), b2=tensor(b2), act=act)
    assert got.dtype == dtype and again.dtype == tensor(x).dtype
    u = float(ml_dtypes.finfo(dtype).eps)
    h = np.abs(x.astype(float)) @ np.abs(w1.astype(float)).T + np.abs(b1.astype(float))
    room = 3 * u * (h @ np.abs(w2.astype(float)) + np.abs(b2.astype(float)))
    assert (np.abs(got.astype(float) - again.double().numpy()) <= room).all()


def test_a_layer_is_the_function():
    block, x = tnn.TopKFFN(8, 32, 6, 3), torch.randn(2, 5, 8)
    assert torch.equal(block(x), sparse.topk_ffn(x, block.up.weight, block.down, 3, b1=block.up.bias, b2=block.bias))
    assert sparse.topk_ffn is prune.topk_ffn


def test_what_is_not_kept_is_not_read():
    """Rows of the second weight that no token asks for may hold anything."""
    x, w1, w2 = np.ones((2, 3)), np.diag([3.0, 2.0, 1.0]), np.full((3, 4), math.nan)
    w2[0] = 5
    assert (sparse.topk_ffn(x, w1, w2, 1) == 15).all()
    tie = sparse.topk_ffn(np.ones((1, 3)), np.ones((3, 3)), np.arange(3.0)[:, None], 1)
    assert tie.item() == 0  # of equal ones the first


def test_a_block_that_cannot_be():
    x, w1, w2 = np.ones((3, 2)), np.ones((4, 2)), np.ones((4, 5))
    for wrong, said in [
        (lambda: sparse.topk_ffn(x, w1, w2.T, 1), r"topk_ffn: w2 must have shape \(4, any\), got \(5, 4\)"),
        (lambda: sparse.topk_ffn(x, w1.T, w2, 1), r"topk_ffn: w1 must have shape \(any, 2\), got \(2, 4\)"),
        (lambda: sparse.topk_ffn(x, w1, w2, 5), "topk_ffn: k must be between 0 and 4, got 5"),
        (lambda: sparse.topk_ffn(x, w1, w2, 1, b2=np.ones(4)), r"topk_ffn: b2 must have shape \(5\), got \(4,\)"),
        (lambda: sparse.topk_ffn(x, w1, w2, 1, act="tanh"), "topk_ffn: act must be"),
        (lambda: sparse.topk_ffn(x * math.nan, w1, w2, 1), "topk_ffn: non-finite activations"),
        (lambda: sparse.topk_ffn(x * 1e300, w1 * 1e300, w2, 1), "topk_ffn: non-finite activations"),
        (lambda: tnn.TopKFFN(2, 4, 5, 1)(torch.full((3, 2), math.nan)), "^TopKFFN: non-finite activations"),
        (
            lambda: sparse.topk_ffn(torch.ones(3, 2), torch.ones(4, 2, device="meta"), torch.ones(4, 5), 1),
            "^topk_ffn: w1 is on meta, x on cpu",
        ),
        (
            lambda: sparse.apply_tokens(abs, torch.ones(3, 2), torch.ones(3, dtype=torch.bool, device="meta")),
            "^apply_tokens: keep is on meta, x on cpu",
        ),
        (lambda: sparse.sub_dimensions(x * math.nan, 1, 1), "^sub_dimensions: non-finite scores"),
    ]:
        with pytest.raises(ValueError, match=said):
            wrong()


# --- dimensions that a router chooses ---


def test_dimensions_that_a_router_chooses():
    odds = torch.tensor([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4], [1 / 3] * 3], dtype=torch.float64, requires_grad=True)
    taken = sparse.sub_dimensions(odds, 2, 2, shared=1)
    want = torch.zeros(3, 7, dtype=torch.float64)
    want[:, 0] = 1
    for row, groups in enumerate([(1, 2), (0, 2), (0, 1)]):  # of equal ones the first
        for g in groups:
            want[row, 1 + 2 * g : 3 + 2 * g] = odds[row, g] * 1.5
    assert torch.equal(taken.to_dense(), want) and taken.nnz == 15
    torch.autograd.gradcheck(lambda s: sparse.sub_dimensions(s, 2, 2, shared=1).data, odds[:2])
    plain = sparse.sub_dimensions(odds.detach().numpy(), 2, 2, shared=1)
    assert (plain.to_dense() == want.detach().numpy()).all() and plain.indices.dtype == np.int32
    assert taken.indices.dtype == torch.int32
    bare = sparse.sub_dimensions(odds, 2, 2, scale=False).to_dense()
    assert torch.equal(bare[0], torch.tensor([0, 0, 0.6, 0.6, 0.3, 0.3], dtype=torch.float64))
    # a router that knows nothing: what is taken weighs as all groups would with their scores
    assert math.isclose(float(taken.detach().to_dense()[2, 1:].sum()), 2.0)


@pytest.mark.parametrize(("k", "width", "shared"), [(0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0), (3, 1, 1)])
def test_dimensions_at_the_edges(k, width, shared):
    for scores in (some(4, 3), some(0, 3), some(2, 2, 3)):
        n = math.prod(scores.shape[:-1])
        for taken in (f(scores, k, width, shared=shared) for f in (sparse.sub_dimensions, _of_tensor)):
            assert taken.shape == (n, shared + 3 * width) and taken.nnz == n * (shared + k * width)


def _of_tensor(scores, *args, **kwargs):
    return sparse.sub_dimensions(torch.from_numpy(scores), *args, **kwargs)


@pytest.mark.parametrize("made", [np.asarray, torch.as_tensor])
def test_dimensions_that_no_memory_holds(made):
    scores = made(some(3, 4))
    for k, width, shared in ((2, 2**40, 0), (1, 2**60, 0), (1, 1, 2**50)):
        with pytest.raises(MemoryError, match=r"^sub_dimensions: a result of \d+ entries takes \d+ bytes"):
            sparse.sub_dimensions(scores, k, width, shared=shared)
    with pytest.raises(ValueError, match=r"sub_dimensions: 0 \+ 4 · 4611686018427387904 dimensions"):
        sparse.sub_dimensions(scores, 1, 2**62)
    for none in (sparse.sub_dimensions(scores, 0, 2**40), sparse.sub_dimensions(scores[:0], 2, 2**40)):
        assert none.nnz == 0 and none.shape[1] == 4 * 2**40


def test_dimensions_into_and_out_of_products():
    """What Mixture of Hidden Dimensions computes, against every dimension times what it weighs."""
    x, up, down, router = (torch.from_numpy(some(*s)).requires_grad_() for s in ((5, 6), (9, 6), (9, 4), (4, 6)))
    odds = (x @ router.T).softmax(-1)
    taken = sparse.sub_dimensions(odds, 2, 2, shared=1)
    hidden = sparse.sddmm(taken, x, up)
    got = hidden.with_data(hidden.data.relu() * taken.data) @ down
    want = ((x @ up.T).relu() * taken.to_dense()) @ down
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
    inputs = (x, up, down, router)
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), inputs, retain_graph=True) for y in (got, want)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


# --- tokens that are skipped ---


def test_tokens_that_are_skipped():
    x = torch.from_numpy(some(2, 3, 4)).requires_grad_()
    keep = torch.tensor([[True, False, True], [False, False, True]])
    layer, seen = torch.nn.Linear(4, 4).double(), []

    def block(rows):
        seen.append(rows.shape)
        return rows + layer(rows)

    got, want = sparse.apply_tokens(block, x, keep), torch.where(keep[..., None], x + layer(x), x)
    assert seen == [(3, 4)]
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-14)
    inputs = (x, *layer.parameters())
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (got, want)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    plain = sparse.apply_tokens(np.sin, x.detach().numpy(), keep.numpy())
    values = x.detach().numpy()
    assert np.array_equal(plain, np.where(keep.numpy()[..., None], np.sin(values), values))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 2, 3), (3,)])
@pytest.mark.parametrize("kept", [False, True])
def test_tokens_at_the_edges(shape, kept):
    x, keep = some(*shape), np.full(shape[:-1], kept)
    want = -x if kept else x
    got = sparse.apply_tokens(np.negative, x, keep)
    assert np.array_equal(got, want) and got is not x and not np.shares_memory(got, x)
    again = sparse.apply_tokens(torch.neg, torch.from_numpy(x), torch.from_numpy(keep))
    assert np.array_equal(again.numpy(), want)


def never(rows):
    raise AssertionError


def test_a_function_is_not_asked_of_no_token():
    x = torch.ones(2, 3)
    assert torch.equal(sparse.apply_tokens(never, x, torch.zeros(2, dtype=torch.bool)), x)
    assert np.array_equal(sparse.apply_tokens(never, x.numpy(), np.zeros(2, bool)), x.numpy())


def test_tokens_in_transforms_and_traces():
    x, keep = torch.from_numpy(some(4, 3)), torch.tensor([True, False, True, False])
    f = lambda v: sparse.apply_tokens(torch.sin, v, keep)  # noqa: E731
    want = f(x)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(f, fullgraph=True, backend="aot_eager")(x), want)
    slopes = torch.where(keep[:, None], x.cos(), 1.0)
    torch.testing.assert_close(torch.func.grad(lambda v: f(v).sum())(x), slopes)
    torch.testing.assert_close(torch.func.vmap(f)(torch.stack([x, -x])), torch.stack([want, f(-x)]))
    away = sparse.apply_tokens(torch.sin, x.to("meta"), keep.to("meta"))
    assert away.shape == x.shape and away.device.type == "meta"


def test_tokens_that_are_skipped_have_no_part_in_a_trace():
    """Neither where f has no slope, nor where it writes."""
    x, keep = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]), torch.tensor([False, True, False])
    unit = lambda v: sparse.apply_tokens(lambda r: r / r.norm(dim=-1, keepdim=True), v, keep).sum()  # noqa: E731
    v = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(unit(v), v)
    assert want.isfinite().all()
    torch.testing.assert_close(torch.func.grad(unit)(x), want)
    torch._dynamo.reset()
    compiled = torch.compile(unit, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(v), v)[0], want)
    before, twice = x.clone(), lambda v, k: sparse.apply_tokens(lambda r: r.mul_(2), v, k)
    torch._dynamo.reset()
    for f in (torch.compile(twice, fullgraph=True, backend="aot_eager"), torch.func.vmap(twice)):
        torch.testing.assert_close(f(x, keep), torch.where(keep[:, None], 2 * x, x))
        assert torch.equal(x, before)
    for n in (0, 1, 5):
        some_, none = torch.randn(n, 2), torch.zeros(n, dtype=torch.bool)
        assert torch.equal(torch.func.vmap(twice)(some_, none), some_)


def test_a_function_that_gives_something_else():
    x, keep = np.ones((2, 3)), np.array([True, True])
    for f, kind, said in [
        (lambda r: r[:1], ValueError, r"apply_tokens: f was given shape \(2, 3\) and gave \(1, 3\)"),
        (lambda r: r.astype(np.float32), TypeError, "apply_tokens: f was given float64 and gave float32"),
        (lambda r: r.tolist(), TypeError, "apply_tokens: f must give a ndarray, got list"),
    ]:
        with pytest.raises(kind, match=said):
            sparse.apply_tokens(f, x, keep)
    with pytest.raises(ValueError, match=r"keep must have shape \(2,\), got \(3,\)"):
        sparse.apply_tokens(np.sin, x, np.ones(3, bool))
    with pytest.raises(TypeError, match="apply_tokens: f must be callable, got int"):
        sparse.apply_tokens(1, x, keep)
    with pytest.raises(TypeError, match="keep must be bool, got float64"):
        sparse.apply_tokens(np.sin, x, np.ones(2))


# --- images ---


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5), (2, 3, 2, 2, 2), (0, 3, 2, 2), (2, 3, 0, 2), (1, 3, 1, 1)])
def test_images_are_those_of_the_dense_convolution(act, shape):
    w, x, b = some(4, 3) * (some(4, 3) > 0), some(*shape), some(4)
    a, t = sparse.from_dense(w), torch.from_numpy(x)
    y = np.moveaxis(np.tensordot(w, x, (1, -3 if x.ndim == 3 else 1)), 0, -3 if x.ndim == 3 else 1)
    y = torch.from_numpy(y + b.reshape(-1, *[1] * (x.ndim - 2 if x.ndim != 3 else 2)))
    want = y if act is None else getattr(torch.nn.functional, act)(y)
    got = sparse.conv1x1(a, x, bias=b, act=act)
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(sparse.conv1x1(a, t, bias=torch.from_numpy(b), act=act), want, rtol=1e-12, atol=1e-13)
    if x.ndim == 4 and x.size:
        last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        other = sparse.conv1x1(a, last, bias=b, act=act)
        assert other.transpose(0, 2, 3, 1).flags.c_contiguous
        np.testing.assert_allclose(other, got, rtol=1e-13, atol=1e-14)
        beside = sparse.conv1x1(a, t.to(memory_format=torch.channels_last), bias=torch.from_numpy(b), act=act)
        torch.testing.assert_close(beside, want, rtol=1e-12, atol=1e-13)


def test_images_have_gradients():
    w, x, b = (torch.from_numpy(some(*s)).requires_grad_() for s in ((2, 3), (2, 3, 2, 2), (2,)))
    mask = torch.tensor([[True, False, True], [False, True, True]])
    for act in (None, "gelu", "silu"):
        torch.autograd.gradcheck(
            lambda w, x, b, act=act: sparse.conv1x1(sparse.from_dense(w, mask), x, bias=b, act=act), (w, x, b)
        )


@pytest.mark.parametrize("act", ["gelu", "silu"])
def test_activations_of_infinities_do_not_depend_on_the_layout(act):
    """z Φ(z) and z σ(z) are +inf at +inf, and NaN at -inf, as products of infinity and 0 are."""
    x = torch.tensor([math.inf, -math.inf, math.nan, 3e38, -3e38]).reshape(1, 1, 1, 5).repeat(1, 1, 2, 1)
    a = sparse.from_dense(torch.ones(1, 1))
    want = torch.tensor([math.inf, math.nan, math.nan, 3e38, 0.0]).expand(2, 5)
    layer = tnn.SparseConv1x1(a, act=act)
    for image in (x, x.to(memory_format=torch.channels_last)):
        for got in (sparse.conv1x1(a, image, act=act), layer(image).detach()):
            torch.testing.assert_close(got[0, 0], want, equal_nan=True)
    rows = sparse.linear(a, x.reshape(-1, 1), act=act).reshape(2, 5)
    torch.testing.assert_close(rows, want, equal_nan=True)
    other = sparse.conv1x1(sparse.from_dense(np.ones((1, 1), np.float32)), x.numpy(), act=act)
    torch.testing.assert_close(torch.from_numpy(other[0, 0]), want, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_gelu_of_arrays_is_that_of_the_formula(dtype):
    """Compiled, of any layout, and within a rounding of Python's own erf."""
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan, 60000.0, -60000.0, -40.0, 6e-8, 30.0]
    for x in (4 * some(300, 40)[::2, ::3], some(7, 5).T, np.array(ends), np.zeros((0, 3)), np.array(1.5)):
        x = x.astype(dtype)
        wide = x.astype(np.float64)
        with np.errstate(all="ignore"):
            want = np.array([z * (0.5 + 0.5 * math.erf(z / math.sqrt(2))) for z in wide.flat]).reshape(x.shape)
        got = applied("gelu", x)
        assert got.dtype == x.dtype and got.shape == x.shape
        kind = ml_dtypes.finfo(dtype)
        with np.errstate(invalid="ignore"):
            error = np.abs(got.astype(np.float64) - want)
        bound = 2 * 2.0**-52 * np.abs(wide) + float(kind.eps) / 2 * np.abs(want) + float(kind.smallest_subnormal) / 2
        same = (got.astype(np.float64) == want) | (np.isnan(got) & np.isnan(want))
        assert (same | (error <= bound)).all()
