"""Products with few vectors that lie as rows. The one rule: they have the bits of `spmm`, whatever else is in the call."""

import numpy as np
import pytest
import tersor
import torch
from tersor import sparse
from tersor.sparse._pattern import Pattern

rng = np.random.default_rng(0)


def matrix(m, k, share, dtype=np.float32):
    return sparse.from_dense((rng.standard_normal((m, k)) * (rng.random((m, k)) < share)).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(
    ("m", "k", "share"), [(1, 1, 1), (16, 9, 0.5), (37, 300, 0.1), (1100, 65, 0.3), (5, 70000, 0.01), (40, 7, 0)]
)
def test_the_bits_are_those_of_the_other_product(dtype, m, k, share):
    a, bias = matrix(m, k, share, dtype), rng.standard_normal(m).astype(dtype)
    for rows in (1, 2, 4, 7, 16, 19):
        x = rng.standard_normal((rows, k)).astype(dtype)
        for b in (None, bias):
            want = sparse.spmm(a, np.ascontiguousarray(x.T), bias=b).T
            got = sparse.spmv(a, x, bias=b)
            assert got.dtype == dtype and got.tobytes() == np.ascontiguousarray(want).tobytes()
            assert sparse.spmv(a, x[0], bias=b).tobytes() == got[0].tobytes()
    assert sparse.spmv(a, np.zeros((2, 0, k), dtype)).shape == (2, 0, m)


def test_threads_and_strange_numbers():
    a = matrix(3000, 400, 0.2)
    x = rng.standard_normal((5, 400)).astype(np.float32)
    x[0, 3], x[1, 7], x[2] = np.nan, np.inf, -0.0
    want, before = np.ascontiguousarray(sparse.spmm(a, x.T).T), tersor.get_num_threads()
    try:
        for threads in (1, 2, 5):
            tersor.set_num_threads(threads)
            np.testing.assert_array_equal(sparse.spmv(a, x).view(np.int32), want.view(np.int32))
    finally:
        tersor.set_num_threads(before)


def test_tensors_values_that_change_and_gradients():
    a = sparse.from_dense(torch.randn(20, 30, dtype=torch.float64) * (torch.rand(20, 30) < 0.3))
    data = torch.randn(a.nnz, dtype=torch.float64)
    a, x = a.with_data(data), torch.randn(3, 30, dtype=torch.float64)
    one = sparse.spmv(a, x)
    data.data.mul_(2)  # past the counter of versions
    assert torch.equal(sparse.spmv(a, x), 2 * one)
    assert torch.autograd.gradcheck(
        lambda d, x: sparse.spmv(a.with_data(d), x), (data.clone().requires_grad_(), x.clone().requires_grad_())
    )
    torch._dynamo.reset()
    assert torch.equal(torch.compile(lambda x: sparse.spmv(a, x), fullgraph=True, backend="aot_eager")(x), 2 * one)
    assert torch.equal(torch.func.vmap(lambda x: sparse.spmv(a, x))(x), 2 * one)


def test_who_is_refused():
    a = matrix(4, 6, 0.5)
    for error, said, call in [
        (ValueError, r"x has shape \(5,\), the matrix 6 columns", lambda: sparse.spmv(a, np.ones(5, np.float32))),
        (
            ValueError,
            r"bias has shape \(3,\), the matrix 4 rows",
            lambda: sparse.spmv(a, np.ones(6, np.float32), bias=np.ones(3, np.float32)),
        ),
        (TypeError, "x is float64|float64", lambda: sparse.spmv(a, np.ones(6))),
        (TypeError, "a must be a CSR", lambda: sparse.spmv(a.to_dense(), np.ones(6, np.float32))),
    ]:
        with pytest.raises(error, match=said):
            call()


def test_what_is_malformed_is_refused():
    from tersor.sparse._operators import _spmv

    a = matrix(40, 50, 0.5)
    p: Pattern = a._pattern
    x = np.ones(50, np.float32)
    places, rows = p.lanes()
    assert places.dtype == np.int16
    for bad, said in [
        ((places, rows * 0, p.indptr), "name each row"),
        ((places, rows[::-1].copy(), p.indptr), "more entries than the one before"),
        ((places + np.int16(50), rows, p.indptr), "changed while they were read"),
        ((places[1:], rows, p.indptr), "spmv"),
        ((places, rows, p.indptr + 1), "indptr starts at 1"),
    ]:
        with pytest.raises(ValueError, match=said):
            _spmv(a.data, *bad, x)


def test_a_layer_has_the_same_bits_for_few_rows_and_for_many():
    from tersor.nn import SparseLinear

    linear = torch.nn.Linear(70, 90)
    layer = SparseLinear.from_dense(linear, torch.rand(90, 70) < 0.2, plan="sparse")
    x = torch.randn(19, 70)
    with torch.no_grad():
        many = layer(x)
        for rows in (0, 1, 3, 4, 5, 16, 17):
            assert torch.equal(layer(x[:rows]), many[:rows])
        assert torch.equal(layer(x[0]), many[0])
        layer.data.data.mul_(2)
        assert torch.equal(layer(x[:2]), layer(x)[:2]) and not torch.equal(layer(x[:2]), many[:2])
    assert layer(x[:2]).requires_grad and torch.equal(layer(x[:2]), layer(x)[:2])


def test_a_model_is_made_sparse_and_dense_again():
    from tersor import nn as tnn
    from tersor import prune

    model = torch.nn.Sequential(
        torch.nn.Linear(40, 50), torch.nn.ReLU(), torch.nn.Linear(50, 30), torch.nn.Linear(30, 3)
    )
    with torch.no_grad():
        for i, share in ((0, 0.9), (2, 0.5)):
            (mask,) = prune.global_masks([model[i].weight], share)
            prune.apply_mask(model[i].weight.data, mask, out=model[i].weight.data)
    x, weights = torch.randn(3, 40), [m.weight.detach().clone() for m in model if hasattr(m, "weight")]
    want = model(x)
    done = tnn.convert(model, "sparse")
    assert done.converted == ("0",) and isinstance(model[0], tnn.SparseLinear)
    assert done.left["2"] == "50% of its weight are 0, a sparse layer pays from 70% on" and "3" in done.left
    torch.testing.assert_close(model(x), want)
    assert tnn.convert(model, "sparse", include=["2"]).converted == ("2",)
    assert tnn.convert(model, "dense").converted == ("0", "2")
    assert all(torch.equal(m.weight, w) for m, w in zip((model[0], model[2], model[3]), weights, strict=True))
    with pytest.raises(ValueError, match="a sparse layer takes activations as they come, got activations='int8'"):
        tnn.convert(model, "sparse", activations="int8")
