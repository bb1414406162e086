"""Products of two sparse matrices, and softmax of rows. The one rule: places are SciPy's, values those of dense matrices."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from tersor import sparse
from tersor.sparse import terms as listed
from tersor.sparse._multiply import csr_matmul_count, csr_matmul_places
from tersor.testing import csr

torch = pytest.importorskip("torch")


@pytest.fixture(params=["numpy", "torch"])
def lib(request):
    return np.asarray if request.param == "numpy" else lambda x: torch.from_numpy(np.array(x))


def dense(a):
    return np.asarray(a.to_dense())


def matrix():
    rng = np.random.default_rng(0)
    return rng.standard_normal(20), rng.integers(0, 5, 20), rng.integers(0, 7, 20), (5, 7)


# --- sparse times sparse ---


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@given(data=st.data())
def test_sparse_times_sparse(dtype, data):
    one, two = data.draw(csr(dtype)), data.draw(csr(dtype))
    a, b = sparse.CSR(*one), sparse.CSR(*two)
    a = a[:, [k % a.shape[1] for k in range(b.shape[0])]] if a.shape[1] else a[:, :0]
    b = b[: a.shape[1]]
    c = a @ b
    # the places are those of SciPy, repeated ones and zeros among them
    ones = [sp.csr_array((np.ones(m.nnz), m.indices, m.indptr), shape=m.shape) for m in (a, b)]
    want = ones[0] @ ones[1]
    want.sort_indices()
    assert (c.indptr == want.indptr).all() and (c.indices == want.indices).all() and c.shape == want.shape
    assert c.dtype == a.dtype and c.sum_duplicates() is c
    dense_a, dense_b = (m.astype("float64").to_dense() for m in (a, b))
    eps = {"float64": 2.0**-50, "float32": 2.0**-20, "float16": 2.0**-9, "bfloat16": 2.0**-6}[dtype]
    size = a.astype("float64").with_data(np.abs(a.data.astype(np.float64))).to_dense()
    size = size @ b.astype("float64").with_data(np.abs(b.data.astype(np.float64))).to_dense()
    with np.errstate(all="ignore"):
        error = np.abs(c.astype("float64").to_dense() - dense_a @ dense_b)
    assert (error <= eps * size + {"float16": 2.0**-24}.get(dtype, 2.0**-126)).all() or size.max(initial=0) > 6e4
    for other in (a @ b.to_csc().to_csr(), sparse.spgemm(a, b.to_coo())):
        assert (other.indices == c.indices).all() and other.data.tobytes() == c.data.tobytes()


def test_threads_do_not_show_in_products():
    import tersor

    rng = np.random.default_rng(0)
    # more terms than one task takes; hubs, and rows that are longer than what is in flight in a softmax
    rows, cols = (np.minimum(rng.pareto(1, 60_000) * 300, 2999).astype(np.int64) for _ in range(2))
    a = sparse.from_coo(torch.randn(60_000, generator=torch.manual_seed(0)), rows, cols, (3000, 3000))
    before, results = tersor.get_num_threads(), set()
    try:
        for n in (1, 2, 7):
            tersor.set_num_threads(n)
            leaf = a.data.detach().requires_grad_()
            one = a.with_data(leaf)
            c = one @ one.T
            y = sparse.softmax(c)
            (y.data * torch.arange(c.nnz).cos()).sum().backward()
            results.add(tuple(x.detach().numpy().tobytes() for x in (c.data, y.data, leaf.grad, c.indices)))
    finally:
        tersor.set_num_threads(before)
    assert len(results) == 1
    theirs = a.to_scipy().astype(np.float64)
    np.testing.assert_allclose(c.sum(1).detach(), (theirs @ theirs.T).sum(1), rtol=1e-3, atol=1e-3)
    assert int(np.diff(c.indptr.numpy()).max()) > 2048  # a softmax in pieces


def test_a_product_by_lists_of_terms_is_that_of_the_kernel(monkeypatch):
    """What tensors on other devices go through, on this one."""
    v, rows, cols, shape = matrix()
    found = []
    for terms in (None, 1 << 20, 5, 1):
        leaf = torch.from_numpy(v).requires_grad_()
        a = sparse.from_coo(leaf, rows, cols, shape)
        b = sparse.from_coo(leaf.flip(0), cols, rows, shape[::-1])
        if terms is None:
            c = a @ b
            data, pattern = c._data, c._pattern
        else:
            monkeypatch.setattr(listed, "TERMS", terms)
            data, pattern = listed.listed("spgemm", *((m._data, m._pattern) for m in (a, b)), (5, 5))
        (data**2).sum().backward()
        found.append((data.detach(), leaf.grad, pattern.indices, pattern.indptr))
    for other in found[1:]:
        for x, y in zip(found[0], other, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("cols", [5000, 2**17, 2**24, 2**31 - 1])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_the_width_of_a_product_does_not_show(cols, index):
    """Columns far apart: numbered first, marked in bits, or sorted; zeros and repeated places among the entries."""
    rng = np.random.default_rng(cols % 97)
    step = cols // 50
    counts = rng.integers(0, 12, 40)
    offsets = np.append(0, np.cumsum(counts)).astype(index)
    places = np.concatenate([np.sort(rng.integers(0, 50, n)) for n in counts])
    near, far = (
        sparse.CSR(np.round(rng.standard_normal(len(places)) * 4), (places * s).astype(index), offsets, (40, w))
        for s, w in ((1, 50), (step, cols))
    )
    far = far.with_data(near.data)
    a = sparse.CSR(np.ones(60), rng.integers(0, 40, 60).astype(index), (np.arange(21) * 3).astype(index), (20, 40))
    want, got = a @ near, a @ far
    assert got.shape == (20, cols) and (got.indptr == want.indptr).all()
    assert (got.indices == want.indices.astype(np.int64) * step).all() and got.data.tobytes() == want.data.tobytes()
    assert got.indices.dtype == np.int32
    parts = a.indices, a.indptr, far.indices, far.indptr
    indptr = csr_matmul_count(*parts, cols)
    assert (indptr == want.indptr).all()
    given = indptr.astype(parts[0].dtype)
    assert (csr_matmul_places(*parts, given, cols, int(indptr[-1])) == got.indices).all()
    given[1] = 0  # not the rows of the product
    with pytest.raises(ValueError, match="indptr is not that of the product"):
        csr_matmul_places(*parts, given, cols, int(indptr[-1]))


def test_infinities_and_tiny_numbers_in_sparse_products(lib):
    x = np.array([[1e300, np.inf, 0.0], [np.nan, 5e-324, -0.0], [1e-300, -1e300, 2.0]])
    a = sparse.from_dense(lib(x), mask=lib(np.ones((3, 3), bool)))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(dense(a @ a), np.array([[sum_of(x, i, j) for j in range(3)] for i in range(3)]))
    empty = sparse.from_dense(lib(np.zeros((3, 0))))
    assert (empty @ empty.T).shape == (3, 3) and (empty.T @ empty).shape == (0, 0)


def sum_of(x, i, j):
    total = 0.0
    for k in range(x.shape[1]):
        total += x[i, k] * x[k, j]
    return total


def test_gradients_of_sparse_products():
    v, rows, cols, shape = matrix()
    u = np.random.default_rng(5).standard_normal(20)
    leaves = [torch.from_numpy(x).requires_grad_() for x in (v, u)]

    def product(v, u):
        a = sparse.from_coo(v, rows, cols, shape)
        return (a @ sparse.from_coo(u, cols, rows, shape[::-1])).data

    assert torch.autograd.gradcheck(product, leaves) and torch.autograd.gradgradcheck(product, leaves)
    assert torch.autograd.gradcheck(lambda v: product(v, leaves[1].detach()), leaves[:1])
    a = sparse.from_coo(u, cols, rows, shape[::-1])  # of arrays, a constant
    assert torch.autograd.gradcheck(lambda v: (sparse.from_coo(v, rows, cols, shape) @ a).data, leaves[:1])


def test_gradients_of_sparse_products_by_functions():
    a = sparse.CSR(torch.ones(3), np.array([0, 2, 1]), np.array([0, 1, 2, 3]), (3, 3))
    v = torch.tensor([1.0, 2.0, 3.0])
    for f in (
        lambda v: ((a.with_data(v) @ a.with_data(v)).data ** 2).sum(),
        lambda v: (sparse.softmax(a.with_data(v) @ a).data * v).sum(),
    ):
        leaf = v.clone().requires_grad_()
        (want,) = torch.autograd.grad(f(leaf), leaf)
        torch.testing.assert_close(torch.func.grad(f)(v), want)


def test_a_matrix_is_made_inside_a_function_of_functions():
    def f(v):
        return (sparse.CSR(v, torch.tensor([0, 1]), torch.tensor([0, 1, 2]), (2, 2)) @ torch.ones(2, 1)).sum()

    assert torch.func.grad(f)(torch.ones(2)).tolist() == [1, 1]
    assert torch.func.vmap(f)(torch.tensor([[2.0, 3.0], [1.0, 1.0]])).tolist() == [5, 2]
    assert f(torch.tensor([2.0, 3.0])) == 5


def test_what_is_no_sparse_product(lib):
    a, other = sparse.from_dense(lib(np.eye(3))), sparse.from_dense(lib(np.eye(3, dtype=np.float32)))
    for call, error, text in (
        (lambda: a @ a[:2], ValueError, r"^spgemm: a has shape \(3, 3\), b \(2, 3\)"),
        (lambda: a @ other, TypeError, "^spgemm: a is float64, b is float32; astype makes them one"),
        (lambda: sparse.spgemm(a, lib(np.eye(3))), TypeError, "^spgemm: b must be a CSR, got"),
    ):
        with pytest.raises(error, match=text):
            call()
    assert (a @ a[:, :0]).shape == (3, 0) and (a[:0] @ a).nnz == 0
    wide = sparse.CSR(lib(np.ones(1)), np.array([2**40]), np.array([0, 1]), (1, 2**41))
    assert (a[:1, :1] @ wide).indices.tolist() == [2**40] and (a[:1, :1] @ wide).shape == (1, 2**41)


# --- softmax ---


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@given(data=st.data())
def test_softmax(dtype, data):
    a = sparse.CSR(*data.draw(csr(dtype))).sum_duplicates()
    got = sparse.softmax(a)
    for i in range(a.shape[0]):
        x = a[i : i + 1].data.astype(np.float64)
        e = np.exp(x - x.max(initial=-np.inf))
        eps = {"float64": 1e-14, "float32": 3e-7, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
        np.testing.assert_allclose(got[i : i + 1].data.astype(np.float64), e / e.sum(), rtol=eps, atol=6e-8)


def test_softmax_of_strange_rows(lib):
    x = np.array([np.nan, 1, np.inf, 1, -np.inf, -np.inf, -np.inf, 1e308, -1e308, 7])
    a = sparse.CSR(lib(x), np.arange(10), np.array([0, 2, 4, 6, 6, 9, 10]), (6, 10))
    got = np.asarray(sparse.softmax(a).data)
    assert np.isnan(got[:6]).all() and got[6:].tolist() == [0, 1, 0, 1]
    twice = sparse.CSR(lib(np.ones(2)), np.zeros(2, np.int32), np.array([0, 2]), (1, 1))
    with pytest.raises(
        ValueError,
        match=r"^softmax: a has entries of equal place; sum_duplicates\(\) makes one of them",
    ):
        sparse.softmax(twice)
    long = sparse.from_dense(lib(np.ones((2, 5001))))
    np.testing.assert_allclose(np.asarray(sparse.softmax(long).sum(1)), 1, rtol=1e-12)
    # the pieces of a long row have the numbers of a short one
    x = np.random.default_rng(0).standard_normal(5000) * 3
    for at, strange in ((4999, np.nan), (0, np.inf), (3000, 800.0)):
        y = x.copy()
        y[at] = strange
        got = np.asarray(sparse.softmax(sparse.from_dense(lib(y[None]))).data)
        with np.errstate(invalid="ignore"):
            e = np.exp(y - y.max())
        np.testing.assert_allclose(got, e / e.sum(), rtol=1e-12, atol=1e-300)
    assert sparse.softmax(sparse.from_dense(lib(np.zeros((0, 3))))).nnz == 0


def test_the_gradient_of_softmax():
    leaf = torch.from_numpy(matrix()[0]).requires_grad_()
    rows, cols = np.divmod(np.random.default_rng(0).permutation(35)[:20], 7)
    assert torch.autograd.gradcheck(lambda v: sparse.softmax(sparse.from_coo(v, rows, cols, (5, 7))).data, (leaf,))
    # a row in pieces
    x = torch.randn(1, 5000, dtype=torch.float64, generator=torch.manual_seed(0)).requires_grad_()
    weight = torch.arange(5000.0, dtype=torch.float64).sin()
    (ours,) = torch.autograd.grad((sparse.softmax(sparse.from_dense(x)).data * weight).sum(), x)
    (theirs,) = torch.autograd.grad((x.softmax(-1)[0] * weight).sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-16)


def test_softmax_in_a_whole_graph():
    a = sparse.from_dense(torch.randn(6, 5, generator=torch.manual_seed(0)))
    step = torch.compile(lambda v: sparse.softmax(a.with_data(v)).data, fullgraph=True, backend="aot_eager")
    v = a.data.clone().requires_grad_()
    (ours,) = torch.autograd.grad(step(v)[::2].sum(), v)
    (theirs,) = torch.autograd.grad(sparse.softmax(a.with_data(v)).data[::2].sum(), v)
    assert torch.equal(ours, theirs)
