"""Sparse matrices and their products: what the battery, which sees operators and not the class, cannot say."""

import itertools
import pickle
import sys
import threading

import numpy as np
import pytest
import tersor
from hypothesis import given
from hypothesis import strategies as st
from tersor import _core, sparse
from tersor._op import kernel
from tersor.testing import csr

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
LEAST = {"float32": 2.0**-149, "float64": 5e-324}


def dense(data, indices, indptr, shape):
    w = np.zeros(shape)
    np.add.at(w, (np.repeat(np.arange(shape[0]), np.diff(indptr)), indices), np.asarray(data, np.float64))
    return w


def random(rows, cols, density, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((rows, cols)).astype(dtype)
    w[rng.random((rows, cols)) >= density] = 0
    return w, rng


def bits(x):
    return np.ascontiguousarray(x).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
def test_error_bound(dtype, data):
    a = data.draw(csr(dtype))
    n = data.draw(st.sampled_from([1, 2, 7, 16, 33, 130]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scale = data.draw(st.sampled_from([1e-30, 1.0, 1e10]))
    x = (rng.standard_normal((a[3][1], n)) * scale).astype(dtype)
    bias = rng.standard_normal(a[3][0]).astype(dtype)
    y = sparse.spmm(sparse.CSR(*a), x, bias=bias)
    # the reference itself is in extended precision, or its own error would count
    wide = np.longdouble
    row = np.repeat(np.arange(a[3][0]), np.diff(a[2]))
    want, size = bias.astype(wide)[:, None].repeat(n, 1), np.abs(bias.astype(wide))[:, None].repeat(n, 1)
    terms = a[0].astype(wide)[:, None] * x.astype(wide)[a[1]]
    np.add.at(want, row, terms)
    np.add.at(size, row, np.abs(terms))
    k = (np.diff(a[2]) + 1)[:, None]
    gamma = k * UNIT[dtype] / (1 - k * UNIT[dtype])
    assert (np.abs(y - want) <= gamma * size * (1 + 1e-15) + k * LEAST[dtype]).all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@given(data=st.data())
def test_order_of_entries_is_no_matter(dtype, data):
    values, indices, indptr, shape = data.draw(csr(dtype))
    row = np.repeat(np.arange(shape[0]), np.diff(indptr))
    order = np.lexsort((indices, row))
    x = np.random.default_rng(1).standard_normal((shape[1], 5)).astype(values.dtype)
    a = sparse.CSR(values, indices, indptr, shape)
    b = sparse.CSR(values[order], indices[order], indptr, shape)
    assert bits(sparse.spmm(a, x)) == bits(sparse.spmm(b, x))
    assert a.nnz == b.nnz == len(values) and bits(a.data) == bits(values[order])
    for c in (np.int32, np.int64):
        other = sparse.CSR(values, indices.astype(c), indptr.astype(np.int64), shape)
        assert other.indices.dtype == other.indptr.dtype == np.int32
        assert bits(other.indices) == bits(b.indices.astype(np.int32))
    back = a.T.T
    assert back.shape == a.shape and bits(back.data) == bits(a.data) and bits(back.indices) == bits(a.indices)
    if dtype.startswith("float") and dtype != "float16":
        np.testing.assert_allclose(a.to_dense(), dense(values, indices, indptr, shape), rtol=1e-5, atol=1e-6)


def test_columns_threads_levels_and_alignment_do_not_show():
    w, rng = random(300, 2500, 0.3)
    a = sparse.from_dense(w)
    x = rng.standard_normal((2500, 150)).astype(np.float32)
    y = sparse.spmm(a, x)
    for part in (slice(0, 1), slice(3, 20), slice(64, 149)):
        assert bits(sparse.spmm(a, x[:, part])) == bits(y[:, part])
    assert bits(sparse.spmm(a, x[:, 7])) == bits(y[:, 7])
    stacked = sparse.spmm(a, np.stack([x[:, :9], x[:, 9:18]]))
    assert bits(stacked) == bits(np.stack([y[:, :9], y[:, 9:18]]))
    room = np.zeros(x.size + 16, np.float32)
    for shift in range(1, 16, 5):
        moved = room[shift : shift + x.size].reshape(x.shape)
        moved[...] = x
        assert bits(sparse.spmm(a, moved)) == bits(y)
    before = tersor.get_num_threads()
    try:
        for n in (1, 3, 8):
            tersor.set_num_threads(n)
            assert bits(sparse.spmm(a, x)) == bits(y)
    finally:
        tersor.set_num_threads(before)


@pytest.mark.serial
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_levels_agree_on_every_bit(dtype):
    # the baseline as well: a fused multiply-add in software is still one
    w, rng = random(60, 90, 0.3, dtype)
    a = sparse.from_dense(w)
    for n in (1, 5, 16, 70, 129):
        x = rng.standard_normal((90, n)).astype(dtype)
        results = set()
        try:
            for level in _core.level()[1]:
                _core.force_level(level)
                results.add(bits(sparse.spmm(a, x, act="relu6")))
                results.add(bits(sparse.spmm(a, x, act="relu6")))
        finally:
            _core.force_level()
        assert len(results) == 1


def test_strange_numbers_reach_the_rows_that_hold_them():
    a = sparse.CSR(np.array([1.0, 0.0, 2.0]), np.array([0, 1, 0]), np.array([0, 1, 2, 3, 3]), (4, 2))
    for bad in (np.nan, np.inf):
        y = sparse.spmm(a, np.array([3.0, bad]))
        assert y[0] == 3 and np.isnan(y[1]) and y[2] == 6 and y[3] == 0


def test_bias_and_activations():
    w, rng = random(9, 12, 0.5)
    a, x, b = sparse.from_dense(w), rng.standard_normal((2, 12, 8)).astype(np.float32) * 4, w[:, 0].copy()
    y = sparse.spmm(a, x, bias=b)
    np.testing.assert_allclose(y, w @ x + b[:, None], atol=1e-4)
    assert bits(sparse.spmm(a, x, bias=b, act="relu")) == bits(np.maximum(y, 0))
    assert bits(sparse.spmm(a, x, bias=b, act="relu6")) == bits(np.clip(y, 0, 6))
    out = np.empty_like(y)
    assert sparse.spmm(a, x, bias=b, out=out) is out and bits(out) == bits(y)
    column = np.empty(9, np.float32)
    assert sparse.spmm(a, x[0, :, 0], out=column) is column
    assert bits(column) == bits(a @ x[0, :, 0])


BAD = [
    ((0, 1), (0, 2, 1), "falls from 2 to 1 at row 1"),
    ((0, 1), (0, -1, 2), "falls from 0 to -1"),
    ((0, 1), (1, 1, 2), "starts at 1"),
    ((0, 1), (0, 1, 3), "ends at 3"),
    ((0, 3), (0, 1, 2), r"^CSR: indices\[1\] = 3 \(row 1\) is outside 0\.\.2$"),
    ((0, -1), (0, 1, 2), r"^CSR: indices\[1\] = -1"),
    ((0, 2**31 - 1), (0, 1, 2), "outside"),
    ((0, 1), (0, 2), "indptr has 2 elements"),
    ((0,), (0, 1, 1), r"data has shape \(2,\)"),
]


@pytest.mark.parametrize(("indices", "indptr", "text"), BAD)
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_malformed_structures_are_refused(indices, indptr, text, index):
    with pytest.raises(ValueError, match=text):
        sparse.CSR(np.ones(2), np.array(indices, index), np.array(indptr, index), (2, 3))


def test_wrong_types_are_refused():
    i, p = np.array([0, 1]), np.array([0, 1, 2])
    for bad in (np.ones(2, int), np.ones(2, complex), np.ones(2, ">f4"), [1.0, 2.0], None):
        with pytest.raises(TypeError, match="CSR"):
            sparse.CSR(bad, i, p, (2, 3))
    for bad in (i.astype(np.uint32), i.astype(float), [0, 1]):
        with pytest.raises(TypeError, match="indices"):
            sparse.CSR(np.ones(2), bad, p, (2, 3))
    for bad in (3, (2, 3, 4), (2.0, 3), "ab"):
        with pytest.raises(TypeError, match="shape"):
            sparse.CSR(np.ones(2), i, p, bad)
    with pytest.raises(ValueError, match="negative"):
        sparse.CSR(np.ones(2), i, p, (2, -3))
    a = sparse.CSR(np.ones(2), i, p, (2, 3))
    for x, error in (
        (np.ones((3, 2), np.float32), TypeError),
        (np.ones((3, 2), int), TypeError),
        ([1.0, 2.0, 3.0], TypeError),
        (np.ones((2, 2)), ValueError),
        (np.ones(()), ValueError),
    ):
        with pytest.raises(error, match="spmm"):
            sparse.spmm(a, x)
    x = np.ones((3, 2))
    for kwargs, error in (
        ({"bias": np.ones(3)}, ValueError),
        ({"bias": np.ones(2, np.float32)}, TypeError),
        ({"act": "tanh"}, ValueError),
        ({"out": np.ones((2, 2), np.float32)}, TypeError),
        ({"out": np.ones((2, 3))}, ValueError),
        ({"out": np.asfortranarray(np.ones((2, 2)))}, ValueError),
    ):
        with pytest.raises(error, match="spmm"):
            sparse.spmm(a, x, **kwargs)
    with pytest.raises(TypeError, match="CSR"):
        sparse.spmm(np.ones((2, 3)), x)
    with pytest.raises(ValueError, match="overlaps"):
        square = sparse.CSR(np.ones(2), i, p, (2, 2))
        sparse.spmm(square, x[:2], out=x[:2])


def test_the_matrix_is_its_own():
    data, indices, indptr = np.ones(2), np.array([0, 1]), np.array([0, 1, 2])
    a = sparse.CSR(data, indices, indptr, (2, 2))
    data[:], indices[:], indptr[:] = 9, 10**9, 10**9
    assert (sparse.spmm(a, np.eye(2)) == np.eye(2)).all()
    for x in (a.data, a.indices, a.indptr):
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 5


def test_kernels_survive_any_structure():
    """What the class would refuse, handed to the kernel itself, is an error and leaves the output alone."""
    rng = np.random.default_rng(0)
    none = np.empty(0, np.float32)
    evil = [-(2**31), -1, 0, 1, 2, 3, 100, 2**31 - 1]
    x = np.ones((3, 40), np.float32)
    for k in range(300):
        indices = rng.choice(evil, 4).astype(np.int32)
        indptr = rng.choice([-1, 0, 1, 2, 4, 5, 2**31 - 1], 3).astype(np.int32)
        if k % 2:
            indptr[[0, -1]] = 0, 4
        y = np.full((2, 40), 7, np.float32)
        try:
            kernel("sparse.spmm")(
                np.ones(4, np.float32), indices, indptr, x, none, none, none, none, y, -np.inf, np.inf
            )
        except ValueError:
            assert (y == 7).all()
        else:
            assert ((indices >= 0) & (indices < 3)).all() and (np.diff(indptr) >= 0).all()


@pytest.mark.serial
def test_a_structure_changed_while_it_is_read():
    w, rng = random(400, 400, 0.5)
    a = sparse.from_dense(w)
    indices, indptr = a.indices.copy(), a.indptr.copy()
    good, stop = indices.copy(), threading.Event()

    def spoil():
        local = np.random.default_rng(1)
        while not stop.is_set():
            indices[local.integers(0, len(indices), 50)] = local.choice([-(2**31), 10**9, 400])
            indptr[local.integers(1, 400)] = local.choice([-5, 10**9])
            indices[:] = good
            indptr[:] = a.indptr

    x = rng.standard_normal((400, 200)).astype(np.float32)
    none, y = np.empty(0, np.float32), np.empty((400, 200), np.float32)
    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    try:
        for _ in range(200):
            try:
                kernel("sparse.spmm")(a.data, indices, indptr, x, none, none, none, none, y, -np.inf, np.inf)
            except ValueError as e:
                assert "spmm" in str(e)
    finally:
        stop.set()
        spoiler.join()


def test_empty_sizes():
    for rows, cols, n in itertools.product((0, 1, 3), (0, 1, 3), (0, 1, 20)):
        a = sparse.from_dense(np.zeros((rows, cols)))
        assert a.nnz == 0 and a.T.shape == (cols, rows)
        y = sparse.spmm(a, np.ones((2, cols, n)), bias=np.arange(rows, dtype=float))
        assert y.shape == (2, rows, n) and (y == np.arange(rows)[:, None]).all()
        assert sparse.sddmm(a, np.ones((rows, n)), np.ones((cols, n))).nnz == 0


def test_from_dense():
    w = np.array([[0, -0.0, np.nan], [5e-324, np.inf, 1]])
    a = sparse.from_dense(w)
    assert a.nnz == 4 and a.indices.tolist() == [2, 0, 1, 2] and a.indptr.tolist() == [0, 1, 4]
    assert bits(a.to_dense()[1]) == bits(w[1])
    mask = np.array([[True, False, False], [False, False, True]])
    b = sparse.from_dense(w, mask)
    assert b.indices.tolist() == [0, 2] and b.data.tolist() == [0, 1]
    assert sparse.from_dense(w.T, mask.T).indices.tolist() == [0, 1]
    for bad, error in ((mask.astype(int), TypeError), (mask[:1], ValueError), (mask.tolist(), TypeError)):
        with pytest.raises(error, match="from_dense"):
            sparse.from_dense(w, bad)
    for bad, error in ((w[0], ValueError), (np.ones((2, 2), int), TypeError), (w.tolist(), TypeError)):
        with pytest.raises(error, match="from_dense"):
            sparse.from_dense(bad)


def test_scipy_there_and_back():
    sp = pytest.importorskip("scipy.sparse")
    w, rng = random(30, 20, 0.3, "float64")
    x = rng.standard_normal((20, 6))
    for kind in (sp.csr_matrix, sp.csc_array, sp.coo_matrix, sp.bsr_array, sp.lil_matrix):
        a = sparse.from_scipy(kind(w))
        np.testing.assert_allclose(sparse.spmm(a, x), w @ x, atol=1e-12)
    back = a.to_scipy()
    assert (back.toarray() == w).all()
    back.data[:] = 0
    assert (a.to_dense() == w).all()
    with pytest.raises(TypeError, match="int64"):
        sparse.from_scipy(sp.csr_matrix(w.astype(int)))
    with pytest.raises(TypeError, match="from_scipy"):
        sparse.from_scipy(w)
    with pytest.raises(TypeError, match="float16"):
        sparse.from_dense(w.astype(np.float16)).to_scipy()


def test_pickle_and_threads():
    w, rng = random(200, 100, 0.2)
    a, x = sparse.from_dense(w), rng.standard_normal((100, 30)).astype(np.float32)
    size = len(pickle.dumps(a))
    turned = a.T
    assert len(pickle.dumps(a)) == size  # what was derived stays behind
    b = pickle.loads(pickle.dumps(a))
    assert b.shape == a.shape and bits(b.T.data) == bits(turned.data)
    fresh, results = sparse.from_dense(w), []
    work = [threading.Thread(target=lambda: results.append(bits(fresh.T.indices))) for _ in range(8)]
    [t.start() for t in work]
    [t.join() for t in work]
    assert set(results) == {bits(turned.indices)}
    assert bits(sparse.spmm(b, x)) == bits(sparse.spmm(a, x))


def test_sddmm_is_the_adjoint():
    w, rng = random(40, 60, 0.2, "float64")
    a = sparse.from_dense(w)
    x, y = rng.standard_normal((3, 60, 33)), rng.standard_normal((3, 40, 33))
    s = sparse.sddmm(a, y, x)
    np.testing.assert_allclose(np.sum(sparse.spmm(a, x) * y), np.sum(a.data * s.data), rtol=1e-12)
    full = np.einsum("bij,bkj->ik", y, x)
    np.testing.assert_allclose(s.to_dense(), np.where(w != 0, full, 0), atol=1e-11)
    for bad in ((y, x[:2]), (y[0], x), (y, x[..., :2]), (y[:, :3], x)):
        with pytest.raises(ValueError, match="sddmm"):
            sparse.sddmm(a, *bad)
    with pytest.raises(ValueError, match=r"CSR\.with_data"):
        a.with_data(np.ones(3))


def test_torch_is_not_needed():
    import subprocess

    code = "import numpy as np, sys; from tersor import sparse; a = sparse.from_dense(np.eye(3)); a.T @ np.eye(3); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


# --- torch ------------------------------------------------------------------------------------------------------------

torch = pytest.importorskip("torch")


def leaf(x):
    return torch.from_numpy(np.array(x)).requires_grad_()


@pytest.mark.parametrize("act", [None, "relu", "relu6"])
def test_gradients(act):
    rng = np.random.default_rng(3)
    # out of order, and one place twice
    indices, indptr = np.array([3, 0, 0, 2, 1]), np.array([0, 3, 3, 5])
    data, x, b = leaf(rng.standard_normal(5)), leaf(rng.standard_normal((2, 4, 3))), leaf(rng.standard_normal(3))

    def f(data, x, b):
        return sparse.spmm(sparse.CSR(data, indices, indptr, (3, 4)), x, bias=b, act=act)

    assert torch.autograd.gradcheck(f, (data, x, b))
    assert torch.autograd.gradcheck(lambda x: f(data.detach(), x[0, :, 0], None), (x,))
    assert torch.autograd.gradcheck(lambda d: f(d, x.detach(), b.detach()), (data,))


def test_stacks_of_any_depth_are_products_one_by_one():
    rng = np.random.default_rng(3)
    a = sparse.from_dense(rng.standard_normal((6, 5)) * (rng.random((6, 5)) < 0.5))
    x, bias = rng.standard_normal((2, 3, 1, 5, 4)), rng.standard_normal(6)
    y = sparse.spmm(a, x, bias=bias, act="relu")
    for i in np.ndindex(2, 3, 1):
        assert y[i].tobytes() == sparse.spmm(a, x[i], bias=bias, act="relu").tobytes()
    assert (x.swapaxes(-1, -2) @ a.T).tobytes() == np.ascontiguousarray((a @ x).swapaxes(-1, -2)).tobytes()
    assert (a @ x[:, :0]).shape == (2, 0, 1, 6, 4)
    leaves = [torch.from_numpy(v).requires_grad_() for v in (a.data.copy(), x, bias)]
    assert torch.autograd.gradcheck(lambda v, x, b: sparse.spmm(a.with_data(v), x, bias=b), leaves)
    with pytest.raises(ValueError, match="0-d array"):
        sparse.spmm(a, np.array(1.0))


def test_the_gradient_of_dense_and_sampled():
    rng = np.random.default_rng(4)
    w, mask = leaf(rng.standard_normal((3, 4))), torch.tensor(rng.random((3, 4)) < 0.5)
    x, y = leaf(rng.standard_normal((4, 5))), leaf(rng.standard_normal((3, 5)))
    assert torch.autograd.gradcheck(lambda w, x: sparse.spmm(sparse.from_dense(w, mask), x), (w, x))
    assert torch.autograd.gradcheck(lambda w: sparse.from_dense(w, mask).to_dense(), (w,))
    assert torch.autograd.gradcheck(lambda w: sparse.from_dense(w, mask).T.to_dense(), (w,))
    a = sparse.from_dense(w.detach(), mask)
    assert torch.autograd.gradcheck(lambda y, x: sparse.sddmm(a, y, x).data, (y, x))
    assert torch.autograd.gradcheck(lambda y, x: sparse.spmm(sparse.sddmm(a, y, x), x), (y, x))


def test_a_parameter_learns():
    w, rng = random(6, 8, 0.5)
    a = sparse.from_dense(torch.from_numpy(w))
    p = torch.nn.Parameter(a.data.clone())
    step = torch.optim.SGD([p], 0.1)
    x = torch.from_numpy(rng.standard_normal((8, 5)).astype(np.float32))
    for _ in range(3):
        want = torch.from_numpy(w).requires_grad_()
        with torch.no_grad():
            want[want != 0] = p
        (want @ x).square().sum().backward()
        step.zero_grad()
        sparse.spmm(a.with_data(p), x).square().sum().backward()
        torch.testing.assert_close(p.grad, want.grad[want != 0])
        step.step()
    b = sparse.CSR(p, a.indices, a.indptr, a.shape)
    assert b.data is p
    assert sparse.CSR(p.detach(), a.indices, a.indptr, a.shape).data.data_ptr() != p.data_ptr()


def test_only_what_is_asked_for_is_computed():
    w, rng = random(6, 8, 0.5)
    a, x = sparse.from_dense(w), torch.from_numpy(rng.standard_normal((8, 5)).astype(np.float32))
    y = sparse.spmm(a, x.requires_grad_())
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.from_numpy(w).T @ torch.ones(6, 5))
    assert not sparse.spmm(a, x.detach()).requires_grad
    with torch.no_grad():
        assert not sparse.spmm(a, x).requires_grad
    with pytest.raises(RuntimeError, match="out="):
        sparse.spmm(a, x, out=torch.empty(6, 5))
    out = torch.empty(6, 5)
    assert torch.equal(sparse.spmm(a, x.detach(), out=out), y.detach())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_tensors_give_the_bits_of_arrays(dtype):
    w, rng = random(20, 30, 0.3)
    kind = getattr(torch, dtype)
    tw, tx = torch.from_numpy(w).to(kind), torch.from_numpy(rng.standard_normal((30, 9)).astype(np.float32)).to(kind)
    a = sparse.from_dense(tw)
    y = sparse.spmm(a, tx)
    assert y.dtype == kind and torch.equal(a.to_dense(), tw)
    torch.testing.assert_close(y.double(), tw.double() @ tx.double(), atol=0.05, rtol=0.05)
    if dtype != "bfloat16":
        assert bits(y.numpy()) == bits(sparse.spmm(sparse.from_dense(tw.numpy()), tx.numpy()))
        assert torch.equal(sparse.spmm(sparse.from_dense(tw.numpy()), tx), y)
    b = pickle.loads(pickle.dumps(a))
    assert torch.equal(sparse.spmm(b, tx), y)
    with pytest.raises(TypeError, match="spmm"):
        sparse.spmm(a, np.ones((30, 2), np.float32))


@pytest.mark.filterwarnings("ignore:Sparse")
def test_torch_there_and_back():
    w, _ = random(8, 12, 0.4)
    t = torch.from_numpy(w)
    for other in (t.to_sparse(), t.to_sparse_csr(), t.to_sparse_csc(), t.to_sparse_bsr((2, 3))):
        assert torch.equal(sparse.from_torch(other).to_dense(), t)
    assert torch.equal(sparse.from_dense(w).to_torch().to_dense(), t)
    twice = sparse.CSR(torch.tensor([1.0, 2, 4]), torch.tensor([1, 0, 1]), torch.tensor([0, 0, 3]), (2, 2))
    assert twice.nnz == 3 and twice.to_torch().values().tolist() == [2, 5]
    for bad, error in (
        (t, TypeError),
        (w, TypeError),
        (t.to_sparse_bsc((2, 3)), TypeError),
        (torch.ones(2, 3, 4).to_sparse(), ValueError),
    ):
        with pytest.raises(error, match="from_torch"):
            sparse.from_torch(bad)


@pytest.mark.filterwarnings("ignore:Dynamo")
def test_compiles_in_one_graph():
    w, rng = random(6, 8, 0.5)
    a = sparse.from_dense(torch.from_numpy(w))
    x = torch.from_numpy(rng.standard_normal((8, 5)).astype(np.float32)).requires_grad_()

    def loss(p, x):
        return sparse.spmm(a.with_data(p), x, act="relu").square().sum()

    p = a.data.clone().requires_grad_()
    want = torch.autograd.grad(loss(p, x), (p, x))
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(p, x), (p, x))
    for g, v in zip(got, want, strict=True):
        assert torch.equal(g, v)
