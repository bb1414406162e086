"""Sparse weights on activations that lie as rows. The one rule: the bits of `spmm` without an
activation, torch's own numbers with one."""

import numpy as np
import pytest
import tersor
import torch
from tersor import sparse
from torch.nn import functional as F

rng = np.random.default_rng(0)
ACTS = {None: lambda z: z, "relu": F.relu, "relu6": F.relu6, "gelu": F.gelu, "silu": F.silu}


def matrix(m, k, share, dtype=np.float32):
    return sparse.from_dense((rng.standard_normal((m, k)) * (rng.random((m, k)) < share)).astype(dtype))


def tensors(m=20, k=30, dtype=torch.float64):
    a = matrix(m, k, 0.3, np.float64)
    a = sparse.CSR(torch.from_numpy(a.data.copy()).to(dtype), a.indices, a.indptr, a.shape)
    return (
        a,
        torch.from_numpy(rng.standard_normal((2, 9, k))).to(dtype),
        torch.from_numpy(rng.standard_normal(m)).to(dtype),
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(
    ("m", "k", "share"), [(1, 1, 1), (37, 300, 0.1), (700, 65, 0.3), (5, 140000, 0.001), (40, 7, 0)]
)
def test_the_bits_are_those_of_the_other_product(dtype, m, k, share):
    a, bias = matrix(m, k, share, dtype), rng.standard_normal(m).astype(dtype)
    for rows in (0, 1, 4, 5, 16, 17, 100):
        x = rng.standard_normal((rows, k)).astype(dtype)
        for act in (None, "relu", "relu6"):
            want = np.ascontiguousarray(sparse.spmm(a, np.ascontiguousarray(x.T), bias=bias, act=act).T)
            got = sparse.linear(a, x, bias=bias, act=act)
            assert got.dtype == dtype and got.shape == (rows, m) and got.tobytes() == want.tobytes()
    assert sparse.linear(a, np.zeros((2, 0, k), dtype)).shape == (2, 0, m)


def test_threads_strange_numbers_and_strides():
    a = matrix(900, 400, 0.2)
    x = rng.standard_normal((70, 400)).astype(np.float32)
    x[0, 3], x[1, 7], x[2] = np.nan, np.inf, -0.0
    want, before = np.ascontiguousarray(sparse.spmm(a, x.T).T), tersor.get_num_threads()
    try:
        for threads in (1, 2, 5):
            tersor.set_num_threads(threads)
            np.testing.assert_array_equal(sparse.linear(a, x).view(np.int32), want.view(np.int32))
    finally:
        tersor.set_num_threads(before)
    np.testing.assert_array_equal(sparse.linear(a, np.asfortranarray(x)[::-1]), want[::-1])


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("rows", [1, 18])
def test_activations_and_their_gradients_are_torchs(act, rows):
    a, x, bias = tensors()
    x = x.reshape(18, 30)[:rows]
    leaves = [t.clone().requires_grad_() for t in (a.data, x, bias)]
    y = sparse.linear(a.with_data(leaves[0]), leaves[1], bias=leaves[2], act=act)
    others = [t.clone().requires_grad_() for t in (a.data, x, bias)]
    want = ACTS[act](F.linear(others[1], a.with_data(others[0]).to_dense(), others[2]))
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(sparse.linear(a, x, bias=bias, act=act), y.detach(), rtol=0, atol=0)
        np.testing.assert_array_equal(
            sparse.linear(a, x, bias=bias, act=act), sparse.linear(a, x[None], bias=bias, act=act)[0]
        )
    g = torch.randn_like(y)
    for got, w in zip(torch.autograd.grad(y, leaves, g), torch.autograd.grad(want, others, g), strict=True):
        torch.testing.assert_close(got, w, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_rounded_once(dtype):
    a, x, bias = tensors(dtype=dtype)
    wide = sparse.linear(a.to(torch.float32), x.float(), bias=bias.float(), act="silu")
    assert torch.equal(sparse.linear(a, x, bias=bias, act="silu"), wide.to(dtype))


def test_traces_and_transforms():
    a, x, bias = tensors()
    want = sparse.linear(a, x, bias=bias, act="gelu")
    torch._dynamo.reset()
    call = torch.compile(lambda x: sparse.linear(a, x, bias=bias, act="gelu"), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(call(x), want)
    torch.testing.assert_close(torch.func.vmap(lambda x: sparse.linear(a, x, bias=bias, act="gelu"))(x), want)
    slopes = torch.func.jacrev(lambda x: sparse.linear(a, x, bias=bias, act="silu").sum())(x)
    torch.testing.assert_close(
        slopes, torch.autograd.functional.jacobian(lambda x: sparse.linear(a, x, bias=bias, act="silu").sum(), x)
    )


def test_who_is_refused():
    from tersor.sparse._operators import _linear

    a, x = matrix(4, 6, 0.5), np.ones((3, 6), np.float32)
    for error, said, call in [
        (ValueError, r"linear: x has shape \(3, 5\), the matrix 6 columns", lambda: sparse.linear(a, x[:, :5])),
        (ValueError, r"linear: bias has shape \(3,\), the matrix 4 rows", lambda: sparse.linear(a, x, bias=x[:, 0])),
        (ValueError, "linear: act must be None, .* got 'tanh'", lambda: sparse.linear(a, x, act="tanh")),
        (TypeError, "linear", lambda: sparse.linear(a, x.astype(np.float64))),
        (ValueError, "act must be in 0..5, got 7", lambda: _linear(a.data, a.indices, a.indptr, x, act=7)),
        (ValueError, "changed while", lambda: _linear(a.data, a.indices + 6, a.indptr, x)),
    ]:
        with pytest.raises(error, match=said):
            call()
