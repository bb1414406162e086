"""Sparse weights of int8 codes. The one rule: their products are those of the codes, whichever way they are made, and
their codes those of `quant.encode`."""

import copy
import io
import pickle

import numpy as np
import pytest
import tersor
import torch
from tersor import nn as tnn
from tersor import quant, sparse
from torch.nn import functional as F

rng = np.random.default_rng(0)


def matrix(m, k, share, dtype=np.float32):
    return sparse.from_dense((rng.standard_normal((m, k)) * (rng.random((m, k)) < share)).astype(dtype))


def dense(q):
    w = np.zeros(q.shape)
    w[np.repeat(np.arange(q.shape[0]), np.diff(q.indptr)), q.indices] = q.codes
    return w


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_codes_are_those_of_a_dense_weight(dtype):
    a = matrix(40, 70, 0.3, dtype)
    q, e = sparse.Int8CSR.of(a), quant.encode(a.to_dense().astype(np.float32), "int8-row")
    np.testing.assert_array_equal(dense(q), e.data)
    # of float64 the scale is that of more digits
    near = 2e-7 if dtype == np.float64 else 0
    np.testing.assert_allclose(q.scale, np.where(np.diff(q.indptr) > 0, e.scale[:, 0], 0), rtol=near)
    assert np.abs(q.dequantize().to_dense() - a.to_dense()).max() <= q.scale.max() / 2 * 1.0001
    assert q.nnz == a.nnz and "Int8CSR(40×70" in repr(q)


@pytest.mark.parametrize(
    ("m", "k", "share"), [(1, 1, 1), (37, 300, 0.1), (700, 65, 0.3), (3, 70000, 0.001), (40, 7, 0)]
)
def test_a_product_is_one_chain_of_codes_for_any_number_of_rows(m, k, share):
    q = sparse.Int8CSR.of(matrix(m, k, share))
    codes = sparse.CSR(q.codes.astype(np.float32), q.indices, q.indptr, q.shape)
    x, bias = rng.standard_normal((40, k)).astype(np.float32), rng.standard_normal(m).astype(np.float32)
    want = sparse.linear(codes, x) * q.scale + bias
    for rows in (0, 1, 3, 8, 16, 17, 40):
        got = q.linear(x[:rows], bias=bias)
        assert got.dtype == np.float32 and got.tobytes() == want[:rows].tobytes()
        assert q.linear(x[:rows]).tobytes() == (sparse.linear(codes, x[:rows]) * q.scale).tobytes()
    assert q.linear(x[0], bias=bias).tobytes() == want[0].tobytes()
    np.testing.assert_allclose(want, x @ (dense(q).T * q.scale) + bias, rtol=1e-4, atol=1e-4)
    before = tersor.get_num_threads()
    try:
        tersor.set_num_threads(5)
        assert q.linear(x, bias=bias).tobytes() == want.tobytes()
    finally:
        tersor.set_num_threads(before)


@pytest.mark.parametrize("rows", [5, 30])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_tensors_have_gradients(rows, kind):
    q = sparse.Int8CSR.of(matrix(50, 60, 0.2))
    x, bias = torch.randn(rows, 60).to(kind), torch.randn(50).to(kind)
    exact = torch.float64 if kind == torch.float64 else torch.float32
    w = torch.from_numpy(dense(q) * q.scale[:, None]).to(exact)
    leaves, others = ([t.clone().requires_grad_() for t in (x, bias)] for _ in range(2))
    wide = [t.to(exact) for t in others]
    near = {"rtol": 2e-2, "atol": 5e-2} if kind.itemsize == 2 else {"rtol": 1e-4, "atol": 1e-4}
    for act, f in ((None, lambda z: z), ("silu", F.silu), ("relu", F.relu)):
        y, want = q.linear(leaves[0], bias=leaves[1], act=act), f(F.linear(wide[0], w, wide[1]))
        assert y.dtype == kind
        torch.testing.assert_close(y.to(exact), want, **near)
        with torch.no_grad():
            assert torch.equal(q.linear(x, bias=bias, act=act), y)
        g = torch.randn_like(want).to(kind).to(exact)
        g = torch.where(want.abs() < 0.1, 0, g)  # where rounding may change the side of a kink
        for a, b in zip(
            torch.autograd.grad(y, leaves, g.to(kind)),
            torch.autograd.grad(want, others, g, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a.to(exact), b.to(exact), **near)


def test_halves_are_rounded_once():
    q = sparse.Int8CSR.of(matrix(50, 60, 0.4))
    for kind in (torch.float16, torch.bfloat16):
        x, bias = torch.randn(3, 60).to(kind), torch.randn(50).to(kind)
        assert torch.equal(q.linear(x, bias=bias), q.linear(x.float(), bias=bias.float()).to(kind))


def test_numbers_at_the_ends():
    tiny, peak = np.float32(1e-45), np.finfo(np.float32).max
    a = sparse.CSR(
        np.array([tiny, -tiny, peak, 0.0], np.float32), np.array([0, 1, 0, 1]), np.array([0, 2, 3, 4, 4]), (4, 2)
    )
    q = sparse.Int8CSR.of(a)
    np.testing.assert_array_equal(q.codes, [1, -1, 127, 0])
    assert q.scale[1] == np.float32(float(peak) / 127) and not q.scale[2:].any()
    y = q.linear(np.array([[np.inf, 1.0], [np.nan, 1.0]], np.float32))
    assert np.isinf(y[0, :2]).all() and np.isnan(y[1, :2]).all() and not y[:, 2:].any()
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="must be finite"):
            sparse.Int8CSR.of(sparse.from_dense(np.array([[bad]])))
    with pytest.raises(ValueError, match="too large for a scale of float32"):
        sparse.Int8CSR.of(sparse.from_dense(np.array([[1e300]])))
    assert sparse.Int8CSR.of(sparse.from_dense(np.array([[1e-300]]))).codes.tolist() == [0]


def test_parts_are_put_in_order_and_copied():
    parts = np.array([3, -5], np.int8), np.array([0.5], np.float32), np.array([2, 0]), np.array([0, 2])
    for given in (parts, tuple(map(torch.from_numpy, parts))):
        q = sparse.Int8CSR(*given, (1, 3))
        assert q.codes.tolist() == [-5, 3] and q.indices.tolist() == [0, 2] and q.shape == (1, 3)
        assert q.dequantize().to_dense().tolist() == [[-2.5, 0, 1.5]]
        given[0][0] = 9
        assert q.codes.tolist() == [-5, 3]
        given[0][0] = 3
        for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
            assert other.codes.tolist() == [-5, 3] and other.indices.tolist() == [0, 2]


def test_who_is_refused():
    q = sparse.Int8CSR.of(matrix(4, 6, 0.5))
    t = sparse.Int8CSR.of(sparse.from_dense(torch.eye(3)))
    one, x = np.ones(1, np.float32), np.ones((3, 6), np.float32)
    places = np.zeros(1, np.int64), np.array([0, 1])
    for error, said, call in [
        (TypeError, "Int8CSR: codes must be int8, got float32", lambda: sparse.Int8CSR(one, one, *places, (1, 1))),
        (
            TypeError,
            "Int8CSR: scale must be float32",
            lambda: sparse.Int8CSR(q.codes[:1], q.codes[:1], *places, (1, 1)),
        ),
        (
            ValueError,
            "scale has 1 elements",
            lambda: sparse.Int8CSR(q.codes[:1], one, places[0], np.array([0, 0, 1]), (2, 1)),
        ),
        (ValueError, "scale must be finite", lambda: sparse.Int8CSR(q.codes[:1], one * np.nan, *places, (1, 1))),
        (ValueError, "outside 0..0", lambda: sparse.Int8CSR(q.codes[:1], one, places[0] + 1, places[1], (1, 1))),
        (TypeError, "the matrix must be a CSR, got ndarray", lambda: sparse.Int8CSR.of(x)),
        (ValueError, r"linear: x has shape \(3, 5\), the matrix 6 columns", lambda: q.linear(x[:, :5])),
        (ValueError, r"linear: bias has shape \(3,\), the matrix 4 rows", lambda: q.linear(x, bias=x[:, 0])),
        (TypeError, "linear: x is a NumPy array, the matrix is made of tensors", lambda: t.linear(x[:, :3])),
        (
            TypeError,
            "linear: bias is a Tensor, x is not",
            lambda: q.linear(x, bias=torch.ones(4)),
        ),
        (ValueError, "linear: act must be None", lambda: q.linear(x, act="tanh")),
        (TypeError, "sddmm: pattern must be a CSR, got Int8CSR", lambda: sparse.sddmm(q, x, x)),
        (TypeError, "spmm: an Int8CSR has no out=", lambda: sparse.spmm(q, x.T, out=np.zeros((4, 4), np.float32))),
        (TypeError, "spmm: x must be float64, .* got int32", lambda: q @ x.T.astype(np.int32)),
        (ValueError, r"spmm: x has shape \(3, 5\), the matrix 6 columns", lambda: q @ x[:, :5]),
        (ValueError, r"^x @ Int8CSR: x has shape \(3, 6\), the matrix 4 rows", lambda: x @ q),
        (TypeError, r"Int8CSR: not an array; dequantize\(\).to_dense\(\) makes one", lambda: np.asarray(q)),
        (TypeError, "weight must be an Int8CSR of tensors, got one of NumPy", lambda: tnn.SparseInt8Linear(q)),
        (TypeError, "weight must be an Int8CSR of tensors, got CSR", lambda: tnn.SparseInt8Linear(t.dequantize())),
        (ValueError, r"SparseInt8Linear: bias must have shape \(3,\)", lambda: tnn.SparseInt8Linear(t, torch.ones(2))),
    ]:
        with pytest.raises(error, match=said):
            call()


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_products_by_columns_are_those_of_the_values(kind):
    q = sparse.Int8CSR.of(matrix(40, 70, 0.3))
    w = q.scale[:, None].astype(np.float64) * dense(q)
    x, b = rng.standard_normal((70, 9)).astype(kind), rng.standard_normal(40).astype(kind)

    def near(got, want, sums):
        assert got.dtype == kind
        eps = np.finfo(np.float64 if kind is np.float64 else np.float32).eps
        once = np.spacing(np.maximum(np.abs(want), np.abs(got)).astype(kind)).astype(np.float64)
        assert (np.abs(got - want) <= 80 * eps * sums + 0.51 * once).all()

    wide, more = x.astype(np.float64), b[:, None].astype(np.float64)
    sums = np.abs(w) @ np.abs(wide) + np.abs(more)
    near(q @ x, w @ wide, sums)
    near(sparse.spmm(q, x, bias=b, act="relu"), np.maximum(w @ wide + more, 0), sums)
    near(sparse.conv1x1(q, x.reshape(70, 3, 3), bias=b).reshape(40, 9), w @ wide + more, sums)
    near(x[:40].T @ q, wide[:40].T @ w, np.abs(wide[:40].T) @ np.abs(w))
    for act in (None, "silu"):
        np.testing.assert_array_equal(sparse.linear(q, x.T, bias=b, act=act), q.linear(x.T, bias=b, act=act))
    np.testing.assert_array_equal(sparse.spmv(q, x[:, 0]), q.linear(x[:, 0]))
    t = torch.from_numpy(x)
    assert torch.equal(q @ t, torch.from_numpy(q @ x)) and torch.equal(t[:40].T @ q, torch.from_numpy(x[:40].T @ q))


def test_products_by_columns_have_gradients_and_graphs():
    q = sparse.Int8CSR.of(sparse.from_dense(torch.from_numpy(matrix(4, 6, 0.5).to_dense())))
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sparse.spmm(q, x, act="relu"), x)
    assert torch.autograd.gradcheck(lambda x: x.T[:, :4] @ q, x)
    run = torch.compile(lambda x: sparse.spmm(q, x) @ x.T, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(x), (q @ x) @ x.T)


def test_a_layer_keeps_scales_and_refuses_other_values():
    linear = torch.nn.Linear(30, 20)
    mask = torch.rand(20, 30) < 0.3
    layer, float_layer = tnn.SparseInt8Linear.from_dense(linear, mask), tnn.SparseLinear.from_dense(linear, mask)
    x, scale = torch.randn(4, 30), layer.scale.clone()
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), float_layer(x), rtol=0.05, atol=0.05)
    assert "kept in int8" in repr(layer) and {k for k, _ in layer.named_parameters()} == {"bias"}
    layer.bfloat16()
    assert torch.equal(layer.scale, scale) and layer.data.dtype == torch.int8 and layer.bias.dtype == torch.bfloat16
    assert layer(x.bfloat16()).dtype == torch.bfloat16 and layer.weight.dtype == torch.bfloat16
    layer.float()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = tnn.SparseInt8Linear.from_dense(linear, torch.rand(20, 30) < 0.5)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), layer(x))
    for a, b, said in (
        (layer, float_layer, "data is float32, the values of the layer are int8"),
        (float_layer, layer, "data is int8"),
    ):
        before = a(x)
        with pytest.raises(RuntimeError, match=said):
            a.load_state_dict(b.state_dict(), strict=False)
        assert torch.equal(a(x), before)
    model = torch.nn.Sequential(layer)
    assert tnn.convert(model, "dense").converted == ("0",)
    torch.testing.assert_close(model(x), layer(x))


def test_the_short_way_has_the_same_bits_and_follows_what_changes():
    linear, mask = torch.nn.Linear(70, 90), torch.rand(90, 70) < 0.3
    layer = tnn.SparseInt8Linear.from_dense(linear, mask)
    bare = tnn.SparseInt8Linear(sparse.Int8CSR.of(sparse.from_dense(linear.weight.detach(), mask)))

    def long(module, x):
        weight = sparse.Int8CSR(module.data, module.scale, module.indices, module.indptr, (90, 70))
        return weight.linear(x, bias=module.bias)

    x = torch.randn(20, 70)
    with torch.no_grad():
        for rows in (x, x[:16], x[:3], x[0], x[:0], x.reshape(4, 5, 70), x.T.contiguous().T):
            for _ in range(2):
                assert torch.equal(layer(rows), long(layer, rows)) and "_ready" in vars(layer)
        for kind in (torch.float64, torch.bfloat16, torch.float16, torch.float32):
            assert torch.equal(bare(x.to(kind)), long(bare, x.to(kind)))
            assert torch.equal(layer.to(kind)(x.to(kind)), long(layer, x.to(kind)))
        layer.data.data.mul_(-1)
        assert torch.equal(layer(x[0]), long(layer, x[0]))
        layer.scale.mul_(2)
        assert torch.equal(layer(x[0]), long(layer, x[0]))
        layer.scale = layer.scale * 2
        assert torch.equal(layer(x[0]), long(layer, x[0]))
        first = layer.indptr[1]
        layer.indices[:first] = torch.arange(first, dtype=layer.indices.dtype)
        assert torch.equal(layer(x[0]), long(layer, x[0]))
        swapped = torch.func.functional_call(layer, {"scale": torch.zeros(90)}, x[0])
        assert torch.equal(swapped, layer.bias) and torch.equal(layer(x[0]), long(layer, x[0]))
        with torch.autocast("cpu"):
            assert layer(x).dtype == torch.bfloat16
        for wrong in (x.double(), x[:, :5], x.to_sparse(), torch.ones(70, dtype=torch.int32)):
            with pytest.raises((TypeError, ValueError), match="SparseInt8Linear"):
                layer(wrong)
    assert (
        layer(x).requires_grad and "_ready" not in vars(copy.deepcopy(layer)) and "_ready" not in layer.__getstate__()
    )
    with torch.inference_mode():
        born = copy.deepcopy(layer)
        assert torch.equal(born(x), layer(x))
        born.indices.copy_(born.indices.flip(0).sort().values)  # which does not count
        assert "_ready" not in vars(born)


def test_a_layer_of_float64_shows_the_weight_that_it_multiplies_with():
    layer = tnn.SparseInt8Linear.from_dense(torch.nn.Linear(40, 30).double(), torch.rand(30, 40) > 0.5)
    want = torch.zeros(30, 40, dtype=torch.float64)
    rows = np.repeat(np.arange(30), np.diff(layer.indptr))
    want[rows, layer.indices.long()] = layer.scale.double()[rows] * layer.data.double()
    assert torch.equal(layer.weight, want) and not torch.equal(want, want.float().double())
    half = layer.bfloat16()
    assert torch.equal(half.weight, want.float().bfloat16())


def test_convert_makes_layers_of_codes():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(40, 50), torch.nn.ReLU(), torch.nn.Linear(50, 30, bias=False), torch.nn.Linear(30, 3)
    )
    model.append(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)))
    with torch.no_grad():
        for i in (0, 2):
            model[i].weight *= torch.rand(model[i].weight.shape) < 0.2
    body = model[:4]
    x, want, first = torch.randn(5, 40), None, model[0].weight.detach().clone()
    want = body(x)
    twin = copy.deepcopy(model)
    done = tnn.convert(model, "sparse-int8")
    assert done.converted == ("0", "2") and all(isinstance(model[i], tnn.SparseInt8Linear) for i in (0, 2))
    assert (
        done.left["3"].endswith("a sparse layer pays from 70% on")
        and "no sparse convolution of codes" in done.left["4.0"]
    )
    assert model[2].bias is None
    weight = sparse.Int8CSR.of(sparse.from_dense(first))
    assert torch.equal(model[0].data, weight.codes) and torch.equal(model[0].scale, weight.scale)
    torch.testing.assert_close(model[:4](x), want, rtol=0.05, atol=0.05)
    state = io.BytesIO()
    torch.save(model.state_dict(), state)
    state.seek(0)
    with torch.no_grad():
        twin[0].weight *= torch.rand(50, 40) < 0.5  # other places, whose number is another
    tnn.convert(twin, "sparse-int8")
    twin.load_state_dict(torch.load(state))
    assert torch.equal(twin[:4](x), model[:4](x))
    assert tnn.convert(model, "dense").converted == ("0", "2") and torch.equal(
        model[0].weight, weight.dequantize().to_dense()
    )
    assert tnn.convert(model, "sparse-int8", include=["3"]).converted == ("3",)
    with pytest.raises(ValueError, match="a sparse layer takes activations as they come, got activations='int8'"):
        tnn.convert(model, "sparse-int8", activations="int8")
    with pytest.raises(TypeError, match=r"itself; use SparseInt8Linear\.from_dense"):
        tnn.convert(torch.nn.Linear(2, 2), "sparse-int8")


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_of_other_numbers_is_an_error(assign):
    layer = tnn.SparseInt8Linear.from_dense(torch.nn.Linear(8, 6), torch.eye(6, 8, dtype=torch.bool))
    state, x = layer.state_dict(), torch.ones(3, 8)
    before = layer(x)
    for name, part, said in [
        ("data", state["data"].int() + 300, "data is int32, the values of the layer are int8"),  # 300 were 44
        ("data", state["data"].to(torch.uint8), "data is uint8, the values"),
        ("scale", state["scale"] * torch.nan, "scale must be finite"),
        ("scale", state["scale"].double() * 1e300, "scale must be finite"),
        ("scale", state["scale"].int(), "scale is int32, that of the layer is float32"),
    ]:
        with pytest.raises(RuntimeError, match=f"SparseInt8Linear: {said}"):
            layer.load_state_dict(state | {name: part}, assign=assign)
        assert torch.equal(layer(x), before)
    layer.load_state_dict(state | {"scale": state["scale"].double()}, assign=assign)
    assert layer.scale.dtype == torch.float32 and torch.equal(layer(x), before)


def test_errors_are_of_what_was_called():
    q = sparse.Int8CSR.of(sparse.from_dense(torch.eye(3)))
    x = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(TypeError, match=r"^Int8CSR.linear: expected float32, got float64"):
        q.linear(x, bias=torch.ones(3).double())
    for who, y in (("Int8CSR.linear", q.linear(x)), ("SparseInt8Linear", tnn.SparseInt8Linear(q)(x))):
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match=f"^{who}: not differentiable twice"):
            slope.sum().backward()
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match=r"^Int8CSR: codes has shape \(2,\)"):
        sparse.Int8CSR(np.ones(2, np.int8), one, np.array([0]), np.array([0, 1]), (1, 1))
