"""The sparse matrix as an object: beside arrays and tensors, copied, saved, traced, and its own whatever is written to."""

import copy
import io
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from tersor import sparse
from tersor.sparse import CSR

torch = pytest.importorskip("torch")

#: [[7, 0, 5], [0, 0, 0]] by an edge list out of order
GIVEN = np.array([5.0, 7.0]), np.array([2, 0]), np.array([0, 2, 2]), (2, 3)
DENSE = np.array([[7.0, 0, 5], [0, 0, 0]])


def made(kind):
    data, indices, indptr, shape = GIVEN
    return (
        CSR(data, indices, indptr, shape)
        if kind == "numpy"
        else CSR(torch.from_numpy(data.copy()), indices, indptr, shape)
    )


@pytest.fixture(params=["numpy", "torch"])
def a(request):
    return made(request.param)


def like(a, x):
    return np.asarray(x, np.float64) if isinstance(a.data, np.ndarray) else torch.tensor(np.asarray(x, np.float64))


def dense(a):
    return np.asarray(a.to_dense())


# --- products ---


def test_from_both_sides(a):
    rng = np.random.default_rng(0)
    for shape in ((3,), (3, 4), (2, 3, 4)):
        x = rng.standard_normal(shape)
        np.testing.assert_allclose(np.asarray(a @ like(a, x)), DENSE @ x, rtol=1e-14)
    for shape in ((2,), (4, 2), (3, 4, 2)):
        x = rng.standard_normal(shape)
        got = like(a, x) @ a
        assert type(got) is type(a.to_dense())
        np.testing.assert_allclose(np.asarray(got), x @ DENSE, rtol=1e-14)
    with pytest.raises(ValueError, match=r"x @ CSR: x has shape \(1, 3\), the matrix 2 rows"):
        like(a, np.ones((1, 3))) @ a
    for wrong in ([1.0, 2.0], np.ones((1, 2), int), np.ma.masked_array(np.ones((1, 2)), mask=True)):
        with pytest.raises(TypeError, match="CSR"):
            wrong @ a
    with pytest.raises(TypeError, match="masked"):
        a @ np.ma.masked_array(np.ones((3, 2)), mask=True)


def test_an_array_times_tensors():
    a, x = made("numpy"), torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    (x @ a).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[12.0, 0]], dtype=torch.float64))
    with pytest.raises(TypeError, match="the matrix is made of tensors"):
        np.ones((1, 2)) @ made("torch")


def test_what_is_no_product(a):
    scipy = pytest.importorskip("scipy.sparse")
    x = like(a, np.ones((2, 3)))
    for f in (
        lambda: x * a,
        lambda: x - a,
        lambda: a * x,
        lambda: a + 1,
        lambda: np.asarray(a),
        lambda: scipy.csr_array(np.eye(2)) @ a,
        lambda: torch.add(torch.ones(2, 3), a),
    ):
        with pytest.raises(TypeError, match=r"CSR|csr"):
            f()
    # on the right another library's matrix is one
    eye = scipy.csr_array(np.eye(3)) if isinstance(a.data, np.ndarray) else torch.eye(3).double().to_sparse_csr()
    assert (np.asarray((a @ eye).to_dense()) == np.asarray(a.to_dense())).all()


def test_strange_tensors_are_named():
    a, eye = sparse.from_dense(torch.eye(3)), torch.eye(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these are prototypes, torch says
        nested = [torch.nested.nested_tensor([eye, eye], layout=k) for k in (torch.strided, torch.jagged)]
        layouts = [eye.to_sparse(), eye.to_sparse_csr(), eye.to_sparse_csc(), *nested]
    for x in (*layouts, eye.to(torch.complex64).conj(), eye.long()):
        if x.layout not in (torch.strided, torch.jagged):  # a matrix, of which there is a product
            assert torch.equal((a @ x).to_dense(), eye)
        for name, f in (
            ("spmm", lambda x: sparse.spmm(a, x)),
            *([("spmm", lambda x: a @ x)] if x.layout in (torch.strided, torch.jagged) else []),
            ("x @ CSR", lambda x: x @ a),
            ("sddmm", lambda x: sparse.sddmm(a, x, x)),
            ("sddmm", lambda x: sparse.sddmm(a, eye, x)),
            ("from_dense", sparse.from_dense),
            ("CSR.with_data", a.with_data),
        ):
            with pytest.raises(TypeError, match=f"^{name}: .* must be .* got "):
                f(x)
    # negated by a flag only: the values are those that are seen
    x = torch.complex(eye, eye).conj().imag
    assert x.is_neg() and torch.equal(a @ x, -eye) and torch.equal(sparse.sddmm(a, x, x).to_dense(), eye)


DTENSORS = """
import torch, torch.distributed as dist
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor
from tersor import sparse
from tersor.project import Projection
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh, eye = DeviceMesh("cpu", [0]), torch.eye(3)
a, p, x = sparse.from_dense(eye), Projection(3, 3), distribute_tensor(eye, mesh, [Shard(0)])
ids = distribute_tensor(torch.arange(3), mesh, [Shard(0)])
for f in (
    lambda: a @ x, lambda: x @ a, lambda: p(x), lambda: p @ x, lambda: x @ p, lambda: sparse.from_dense(x),
    lambda: sparse.from_dense(eye, x != 0), lambda: sparse.sddmm(a, eye, x), lambda: a.with_data(x[:, 0]),
    lambda: sparse.spmm(a, eye, bias=x[:, 0]), lambda: sparse.spmm(a, eye, out=x),
    lambda: sparse.CSR(torch.ones(3), ids, torch.arange(4), (3, 3)), lambda: sparse.CSR(x[0], [0], [0], (3, 3)),
):
    try:
        print(f())
    except TypeError as e:
        print(str(e).partition("got a DTensor")[1])
dist.destroy_process_group()
"""


def test_distributed_tensors_end_no_process():
    done = subprocess.run([sys.executable, "-c", DTENSORS], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split("\n") == ["got a DTensor"] * 13 + [""], done.stdout + done.stderr


def test_places_of_results_and_masks():
    a, eye = sparse.from_dense(torch.eye(3)), torch.eye(3)
    with pytest.raises(ValueError, match="spmm: out is on meta, x on cpu"):
        sparse.spmm(a, eye, out=torch.empty(3, 3, device="meta"))
    with pytest.raises(ValueError, match="from_dense: mask is on meta, w on cpu"):
        sparse.from_dense(eye, torch.ones(3, 3, dtype=torch.bool, device="meta"))


# --- its own ---


def test_nothing_handed_out_leads_back(a):
    before = dense(a).copy()
    twin = a.with_data(torch.ones(2, dtype=torch.float64))
    for m in (a, a.T, twin, twin.T, sparse.sddmm(twin, torch.ones(2, 4).double(), torch.ones(3, 4).double())):
        for x in (m.indices, m.indptr, m.perm):
            torch.as_tensor(x).fill_(1) if isinstance(x, torch.Tensor) else torch.from_dlpack(x).fill_(1)
    for x in (a.data,) if isinstance(a.data, np.ndarray) else ():
        torch.from_dlpack(x).fill_(1)
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 1
    for other in (a.to_scipy(), a.T.to_scipy()):
        other.data[:], other.indices[:] = 9, 1
    for other in (a.to_torch(), a.T.to_torch(), twin.to_torch()):
        other.values().fill_(9), other.col_indices().fill_(1), other.crow_indices().fill_(1)
    a.to_dense()[:] = 9
    assert (dense(a) == before).all() and (dense(a.T) == before.T).all() and (dense(twin) == (before != 0)).all()


def test_the_gradient_follows_no_other_pattern():
    a, z = sparse.from_dense(torch.eye(2)), torch.ones(2, 1, requires_grad=True)
    (a @ z).sum().backward()
    a.indices.fill_(1)
    z.grad = None
    (a @ z).sum().backward()
    assert z.grad.flatten().tolist() == [1, 1] and torch.equal(a @ torch.eye(2), torch.eye(2))


# --- values in the order given ---


def test_values_in_the_order_given(a):
    assert a.perm.tolist() == [1, 0]
    values = like(a, [50.0, 70.0])
    want = np.array([[70.0, 0, 50], [0, 0, 0]])
    assert (dense(a.with_data(values, order="given")) == want).all()
    assert (dense(a.with_data(values[a.perm])) == want).all()
    assert (dense(a.with_data(values)) == np.array([[50.0, 0, 70], [0, 0, 0]])).all()
    kept = (a.with_data(values), copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a)), a.astype("float32"))
    for other in kept:
        assert other.perm.tolist() == [1, 0]
    assert a.T.perm.tolist() == [1, 0] and sparse.from_dense(like(a, DENSE)).perm.tolist() == [0, 1]
    p = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (a.with_data(p, order="given") @ torch.tensor([[1.0], [2], [3]]).double()).sum().backward()
    assert p.grad.tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"CSR\.with_data: order must be 'stored' or 'given', got 'mine'"):
        a.with_data(values, order="mine")


# --- moved, converted, copied, saved ---


def test_types_and_devices(a):
    for name in ("float64", "float32", "float16", "bfloat16"):
        for dtype in (name, getattr(torch, name)):
            b = a.astype(dtype)
            assert str(b.dtype).rpartition(".")[2] == name and type(b.data) is type(a.data)
    assert (dense(a.astype(np.float16)) == DENSE).all()
    for wrong in ("int8", int, torch.int32, "nothing", None):
        with pytest.raises(TypeError, match=r"CSR\.astype: dtype must be"):
            a.astype(wrong)
    if isinstance(a.data, np.ndarray):
        with pytest.raises(TypeError, match=r"CSR\.to: the matrix is made of NumPy arrays"):
            a.to("cpu")
        return
    assert a.to(torch.float16).dtype == torch.float16 and a.to("cpu", torch.float32).dtype == torch.float32
    with pytest.raises(TypeError, match=r"CSR\.to: .* got int32"):
        a.to(torch.int32)
    p = torch.ones(2, dtype=torch.float64, requires_grad=True)
    a.with_data(p).to(torch.float32).to_dense().sum().backward()
    assert p.grad.tolist() == [1, 1]


def test_without_values():
    """On "meta" everything has its shape and type."""
    a = made("torch").to("meta")
    x, y = torch.ones(3, 4, device="meta").double(), torch.ones(5, 2, device="meta").double()
    shapes = {(2, 4): a @ x, (5, 3): y @ a, (3, 5): a.T @ y.T, (2, 3): a.to_dense(), (2,): a.indices}
    for shape, t in shapes.items():
        assert t.device.type == "meta" and tuple(t.shape) == shape
    assert sparse.sddmm(a, torch.ones(2, 4, device="meta"), torch.ones(3, 4, device="meta")).data.shape == (2,)
    for b in (copy.deepcopy(a), pickle.loads(pickle.dumps(a)), a.T.T, CSR(a.data, a.indices, a.indptr, a.shape)):
        assert b.data.device.type == "meta" and b.shape == (2, 3) and b.perm.shape == (2,)
    for f, error in (
        (a.to_scipy, ValueError),
        (lambda: sparse.from_dense(torch.eye(2, device="meta")), TypeError),
        (lambda: CSR(torch.ones(2), a.indices, a.indptr, (2, 3)), ValueError),
        (lambda: made("torch") @ x, ValueError),
    ):
        with pytest.raises(error, match=r"without|meta"):
            f()


def test_stand_ins_leave_nothing_behind():
    from torch._subclasses import FakeTensorMode

    for a in (sparse.from_dense(torch.eye(3)), sparse.from_dense(np.eye(3, dtype=np.float32))):
        with FakeTensorMode(allow_non_fake_inputs=True):
            x = torch.ones(3, 2, requires_grad=True)
            assert (a @ x).shape == (3, 2) and (x.T @ a).shape == (2, 3)
            (a @ x).sum().backward()
            for f in (
                lambda: sparse.from_dense(torch.ones(3, 3)),
                lambda: CSR(torch.ones(3), torch.arange(3), torch.arange(4), (3, 3)),
            ):
                with pytest.raises(TypeError, match="must have values"):
                    f()
        x = torch.ones(3, 2, requires_grad=True)
        (a @ x).sum().backward()
        assert type(x.grad) is torch.Tensor and torch.equal(x.grad, torch.ones(3, 2))


def test_a_graph_is_left_behind():
    w = torch.randn(3, 3, requires_grad=True)
    a = sparse.from_dense(w)
    for b in (copy.deepcopy(a), a.detach()):
        assert not b.data.requires_grad and torch.equal(b.to_dense(), w.detach())
    assert copy.copy(a).data is a.data
    p = torch.nn.Parameter(torch.ones(9))
    b = copy.deepcopy({"p": p, "a": a.with_data(p)})
    assert b["a"].data is b["p"] and b["p"] is not p and isinstance(b["p"], torch.nn.Parameter)


def test_saved_as_torch_saves():
    for a in (made("torch"), made("torch").T, made("torch").with_data(torch.nn.Parameter(torch.ones(2).double()))):
        file = io.BytesIO()
        torch.save({"a": a}, file)
        file.seek(0)
        with pytest.raises(pickle.UnpicklingError, match="CSR"):
            torch.load(file)
        file.seek(0)
        with torch.serialization.safe_globals([CSR]):
            b = torch.load(file)["a"]
        assert torch.equal(b.to_dense(), a.to_dense()) and b.data.requires_grad == a.data.requires_grad
        assert b.perm.tolist() == a.perm.tolist()
    # as the class was pickled before
    old = pickle.dumps((CSR._of, made("numpy").data, made("numpy")._pattern))
    call, data, pattern = pickle.loads(old)
    assert (dense(call(data, pattern)) == DENSE).all()


def test_a_pickle_is_checked():
    a = made("numpy")
    make, (data, _, indptr, shape), state = a.__reduce__()
    with pytest.raises(ValueError, match="CSR: indices"):
        make(data, np.array([0, 9]), indptr, shape)
    with pytest.raises(ValueError, match="CSR: perm"):
        a.__setstate__({"perm": state["perm"][:1]})


# --- traced ---


PRODUCTS = {
    "a @ x": lambda a, x: a @ x,
    "x @ a": lambda a, x: x.T @ a,
    "a.T @ x": lambda a, x: a.T @ x,
    "matmul": lambda a, x: torch.matmul(a, x) + torch.mm(a, x),
    "with_data": lambda a, x: a.with_data(x[:, 0].contiguous()) @ x,
    "sddmm": lambda a, x: sparse.sddmm(a, x, x) @ x,
    "to": lambda a, x: a.detach().to(torch.float64) @ x.double(),
    "dense": lambda a, x: a.to_dense() @ x + a.indices.sum() + a.perm.sum(),
}


@pytest.mark.filterwarnings("ignore:Dynamo", "ignore:.*create_unbacked_symint")
@pytest.mark.parametrize("name", PRODUCTS)
def test_one_graph(name):
    torch._dynamo.reset()
    f = PRODUCTS[name]
    # not symmetric, so that the sides differ
    w = torch.tensor([[0.0, 2, 0], [0, 0, 3], [5, 0, 0]])
    a, x = sparse.from_dense(w), torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    compiled = torch.compile(lambda x: f(a, x), fullgraph=True, backend="aot_eager")
    got, want = compiled(x), f(a, x)
    assert torch.equal(got, want)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (got, want)))
    with torch.no_grad():
        assert torch.equal(compiled(x), want)


@pytest.mark.filterwarnings("ignore:Dynamo")
def test_matrices_cross_a_graph():
    a, x = sparse.from_dense(torch.tensor([[0.0, 2], [3, 0]])), torch.eye(2)
    out = torch.compile(lambda a, x: sparse.sddmm(a, x, x), fullgraph=True, backend="aot_eager")(a, x)
    assert isinstance(out, CSR) and torch.equal(out.to_dense(), sparse.sddmm(a, x, x).to_dense())

    class Both(torch.nn.Module):
        def forward(self, x):
            return a @ x + x @ a

    for strict in (False, True):
        assert torch.equal(torch.export.export(Both(), (x,), strict=strict).module()(x), Both()(x))


def test_the_short_way_of_a_product_gives_way():
    """Plain tensors are multiplied without being asked one by one; whoever has more to say is asked, or refused, as ever."""
    w, x = np.array([[0.0, 2.0], [3.0, -1.0]], np.float32), torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    a, bias = sparse.from_dense(torch.from_numpy(w)), torch.tensor([1.0, -20.0])
    want = torch.from_numpy(w) @ x
    assert torch.equal(sparse.spmm(a, x), want) and torch.equal(sparse.spmm(a, x[:, 1]), want[:, 1])
    assert torch.equal(sparse.spmm(sparse.from_dense(w), x.T.contiguous().T), want)
    assert torch.equal(sparse.spmm(a, x, bias=bias, act="relu"), (want + bias[:, None]).relu())
    leaf = x.clone().requires_grad_()
    assert sparse.spmm(a, leaf).requires_grad
    with torch.no_grad():
        assert not sparse.spmm(a, leaf).requires_grad
    assert torch.equal(torch.func.vmap(lambda x: sparse.spmm(a, x))(torch.stack([x, x])), torch.stack([want, want]))
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: sparse.spmm(a, x), (x,), (x,))
    assert sparse.spmm(a, x[:, :0]).shape == (2, 0)
    for wrong, error, said in [
        (x.double(), TypeError, "float"),
        (x[:1], ValueError, "2 columns"),
        (x.to_sparse(), TypeError, "dense"),
        (x[0, 0], ValueError, "0-d"),
    ]:
        with pytest.raises(error, match=said):
            sparse.spmm(a, wrong)
    with pytest.raises(ValueError, match="bias has shape"):
        sparse.spmm(a, x, bias=bias[:1])


@pytest.mark.parametrize(
    "product",
    [
        sparse.spmm,
        lambda a, x: sparse.spmv(a, x[:, 0]),
        lambda a, x: sparse.conv1x1(a, x.T.reshape(3, 2, 1, 1)),
        lambda a, x: a @ x,
    ],
)
def test_a_matrix_of_arrays_is_a_constant_of_a_graph(product):
    a, x = sparse.from_dense(np.array([[0.0, 2.0], [3.0, -1.0]], np.float32)), torch.randn(2, 3, requires_grad=True)
    whole = torch.compile(lambda x: product(a, x), fullgraph=True, backend="aot_eager")
    y, want = whole(x), product(a, x)
    assert torch.equal(y, want)
    assert torch.equal(*(torch.autograd.grad(v.sum(), x)[0] for v in (y, want)))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_values_follow_a_transpose(dtype):
    """Of every type, of steps, of none; gradients come back to where the values stand."""
    v = torch.arange(1.0, 9.0).to(getattr(torch, dtype))[::2]
    for n in (0, 4):
        rows, cols = [2, 0, 1, 0][:n], [0, 1, 1, 0][:n]
        places = torch.tensor(rows, dtype=torch.int32), torch.tensor(cols, dtype=torch.int32)
        leaf = v[:n].clone().requires_grad_()
        a = sparse.from_coo(leaf, *places, (3, 2))
        dense = torch.zeros(3, 2, dtype=v.dtype)
        dense[rows, cols] = v[:n]
        assert torch.equal(a.T.to_dense(), dense.T)
        weights = torch.arange(6.0).to(v.dtype).reshape(2, 3)
        (a.T.to_dense() * weights).sum().backward()
        assert torch.equal(leaf.grad, weights.T[rows, cols])
        if dtype != "bfloat16":
            b = sparse.from_coo(np.arange(1, 9, dtype=dtype)[::2][:n], *(p.numpy() for p in places), (3, 2))
            np.testing.assert_array_equal(b.T.to_dense(), dense.T)
