"""Sparse layers and matrices in traces and transforms. The one rule: they give what they give elsewhere, or say in their own
words that they cannot."""

import math

import numpy as np
import pytest
import torch
from tersor import nn as tnn
from tersor import sparse
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

MASK = torch.arange(30).reshape(5, 6) % 3 > 0
LAYERS = {
    "SparseLinear": (lambda: tnn.SparseLinear.from_dense(torch.nn.Linear(6, 5), MASK), (3, 6)),
    "SparseConv1x1": (lambda: tnn.SparseConv1x1.from_float(torch.nn.Conv2d(6, 5, 1), MASK, act="gelu"), (2, 6, 3, 3)),
    "TopKFFN": (lambda: tnn.TopKFFN(6, 20, 5, 4), (3, 6)),
}
EVERY = [pytest.param(name, *case, id=name) for name, case in LAYERS.items()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "made", "shape"), EVERY)
def test_jit_trace(name, made, shape, tmp_path):
    """A trace is one of the layer that records nothing: with gradients torch compares two graphs that differ."""
    layer, x = made(), torch.randn(*shape)
    with pytest.raises(RuntimeError, match=f"^{name}: torch.jit.trace is to be called under torch.no_grad"):
        torch.jit.trace(layer, x)
    with torch.no_grad():
        traced = torch.jit.trace(layer, x)
        torch.jit.save(traced, tmp_path / "layer.pt")
        again = torch.jit.load(tmp_path / "layer.pt")
        for batch in (x, torch.cat([x, x, x])):
            torch.testing.assert_close(traced(batch), layer(batch))
            torch.testing.assert_close(again(batch), layer(batch))


@pytest.mark.parametrize(("name", "made", "shape"), EVERY)
def test_fx(name, made, shape):
    """A node of a model, as torch's own layers are; of itself there is nothing to be seen."""
    layer, x = made(), torch.randn(*shape)
    model = torch.nn.Sequential(torch.nn.Tanh(), torch.nn.ModuleDict({"inner": layer})["inner"], torch.nn.ReLU())
    traced = torch.fx.symbolic_trace(model)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["0", "1", "2"]
    assert torch.equal(traced(x), model(x))
    traced(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    with pytest.raises(TypeError, match=f"^{name}: torch.fx does not look into this layer"):
        torch.fx.symbolic_trace(layer)


@pytest.mark.parametrize(("name", "made", "shape"), EVERY)
def test_export(name, made, shape):
    layer, x = made(), torch.randn(*shape)
    sizes = ({0: torch.export.Dim("batch", min=2)},)
    exported = torch.export.export(layer, (x,), dynamic_shapes=sizes).module()
    for batch in (x, torch.cat([x, x, x])):
        torch.testing.assert_close(exported(batch), layer(batch))
    torch.testing.assert_close(make_fx(layer)(x)(x), layer(x))


# --- matrices ---

W = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
A = sparse.from_dense(W)
V = A.data.clone()
INDICES, INDPTR = A.indices, A.indptr
ROWS = torch.tensor([0, 0, 1, 2])

#: what makes places, from values
MAKERS = {
    "spgemm": lambda v: (A.with_data(v) @ A.with_data(v)).to_dense(),
    "sum": lambda v: (A.with_data(v) + A.with_data(v)).to_dense(),
    "rows": lambda v: A.with_data(v)[0:2].to_dense(),
    "list of rows": lambda v: A.with_data(v)[[0, 2]].to_dense(),
    "diagonal": lambda v: A.with_data(v).diagonal(),
    "blocks": lambda v: A.with_data(v).to_bsr((3, 1)).data,
    "CSR": lambda v: sparse.CSR(v, INDICES, INDPTR, (3, 3)).to_dense(),
    "from_coo": lambda v: sparse.from_coo(v, ROWS, INDICES, (3, 3)).to_dense(),
    "from_edges": lambda v: sparse.from_edges(torch.stack([ROWS, INDICES.long()]), v).to_dense(),
}
#: what takes places as they are
USERS = {
    "softmax": lambda v: sparse.softmax(A.with_data(v)).data,
    "transpose": lambda v: A.with_data(v).T.data,
    "by columns": lambda v: A.with_data(v).to_csc().data,
    "scaled": lambda v: A.with_data(v).scale(rows=v[:3]).data,
    "dense": lambda v: A.with_data(v).to_dense(),
}


@pytest.mark.parametrize("name", [*MAKERS, *USERS])
def test_matrices_in_transforms(name):
    """Places of a transform are those outside; gradients by samples are those of each."""
    f = (MAKERS | USERS)[name]

    def loss(v):
        return (f(v) ** 2).sum()

    v = V.clone().requires_grad_()
    (want,) = torch.autograd.grad(loss(v), v)
    torch.testing.assert_close(torch.func.grad(loss)(V), want, rtol=1e-12, atol=1e-12)
    samples = torch.stack([V, 2 * V])
    torch.testing.assert_close(torch.func.vmap(f)(samples), torch.stack([f(V), f(2 * V)]))
    each = torch.func.vmap(torch.func.grad(loss))(samples)
    torch.testing.assert_close(each[0], want, rtol=1e-12, atol=1e-12)


def stand_in(f, x):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return f(mode.from_tensor(x))


@pytest.mark.parametrize("name", MAKERS)
def test_no_places_are_made_in_a_trace(name):
    f, said = MAKERS[name], "in a trace"
    with pytest.raises((TypeError, ValueError), match=said) as e:
        stand_in(f, V)
    assert "with_data" in str(e.value)
    if name not in ("spgemm", "list of rows", "from_coo"):  # all others read places as one of these does
        return
    torch._dynamo.reset()
    with pytest.raises(
        torch._dynamo.exc.Unsupported, match="make the matrix before, and give it its values by with_data"
    ):
        torch.compile(f, fullgraph=True, backend="aot_eager")(V)
    torch.testing.assert_close(torch.compile(f, backend="aot_eager")(V), f(V))


@pytest.mark.parametrize("name", USERS)
def test_places_are_taken_in_a_trace(name):
    f = USERS[name]
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(f, fullgraph=True, backend="aot_eager")(V), f(V))
    assert stand_in(f, V).shape == f(V).shape


def test_matrices_of_dense_ones_in_transforms():
    def f(w):
        return sparse.from_dense(w, W != 0).to_dense() * W

    want = torch.where(W != 0, W, 0.0)
    torch.testing.assert_close(torch.func.grad(lambda w: f(w).sum())(W), want)
    torch.testing.assert_close(torch.func.vmap(f)(torch.stack([W, 2 * W])), torch.stack([f(W), f(2 * W)]))
    torch.testing.assert_close(torch.func.grad(lambda w: sparse.from_dense(w).to_dense().sum())(W), (W != 0).double())
    with pytest.raises(
        TypeError, match=r"^from_dense: w must have values .* inside a transform of torch.func: how many"
    ):
        torch.func.vmap(lambda w: sparse.from_dense(w).to_dense())(torch.stack([W, W]))
    with pytest.raises(TypeError, match=r"^from_dense: w must have values .* in a trace: how many entries"):
        torch.jit.trace(lambda w: sparse.from_dense(w).to_dense(), (W,))
    with pytest.raises(TypeError, match=r"^from_dense: w must have values .* on meta"):
        sparse.from_dense(W.to("meta"))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="make the matrix before"):
        torch.compile(lambda w: sparse.from_dense(w).to_dense(), fullgraph=True, backend="aot_eager")(W)


@pytest.mark.parametrize("kind", ["to_scipy", "to_torch"])
def test_other_libraries_have_no_traces(kind):
    def f(v):
        getattr(A.with_data(v), kind)()
        return v.sum()

    for called in (lambda: torch.func.grad(f)(V), lambda: torch.func.vmap(f)(V[None]), lambda: stand_in(f, V)):
        with pytest.raises(ValueError, match=f"^CSR.{kind}: .*(inside a transform of torch.func|in a trace)"):
            called()
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="no trace can"):
        torch.compile(f, fullgraph=True, backend="aot_eager")(V)
    assert torch.compile(f, backend="aot_eager")(V) == V.sum()


# --- softmax of rows ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_softmax_of_infinities_is_that_of_torch(dtype):
    """A row of -inf alone is NaN; -inf beside numbers takes no part; +inf and NaN make a row NaN."""
    inf = math.inf
    rows = [[-inf, -inf], [-inf, 1.0], [1.0, 2.0], [inf, 1.0], [math.nan, 1.0], [-inf, inf]]
    x = torch.tensor(rows, dtype=dtype)
    a = sparse.from_dense(x, torch.ones_like(x, dtype=torch.bool))
    want = torch.softmax(x, -1).reshape(-1)
    torch.testing.assert_close(sparse.softmax(a).data, want, equal_nan=True)
    alone = torch.sparse.softmax(x[:3].float().to_sparse(), 1).to_dense()
    torch.testing.assert_close(sparse.softmax(a[:3]).to_dense().float(), alone, equal_nan=True, rtol=1e-2, atol=0)
    if dtype == torch.float64:
        plain = sparse.softmax(sparse.from_dense(x.numpy(), np.ones(x.shape, bool))).data
        np.testing.assert_allclose(plain, want.numpy(), rtol=1e-15)
    fine = x[1:3].clone().requires_grad_()
    g = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=dtype)
    full = torch.ones(2, 2, dtype=torch.bool)
    (got,) = torch.autograd.grad(sparse.softmax(sparse.from_dense(fine, full)).data, fine, g)
    (other,) = torch.autograd.grad(torch.softmax(fine, -1).reshape(-1), fine, g)
    torch.testing.assert_close(got, other)


def test_products_have_hessians_in_transforms():
    def of(v, w):
        return ((A.with_data(v) @ A.with_data(w)).data ** 2).sum()

    want = torch.autograd.functional.hessian(of, (V, 2 * V))
    got = torch.func.jacrev(torch.func.jacrev(of, argnums=(0, 1)), argnums=(0, 1))(V, 2 * V)
    torch.testing.assert_close(got, want)
    slope = torch.func.grad(lambda v: (torch.func.grad(of)(v, V) ** 2).sum())
    torch.testing.assert_close(torch.func.vmap(slope)(torch.stack([V, 3 * V])), torch.stack([slope(V), slope(3 * V)]))
