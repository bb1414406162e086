"""Products of two sparse matrices, and softmax of rows. The one rule: places are SciPy's, values those of dense matrices."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from tersor import sparse
from tersor.sparse import terms as listed
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


def test_threads_and_blocks_do_not_show_in_products(monkeypatch):
    import tersor

    rng = np.random.default_rng(0)
    rows, cols = (np.minimum(rng.pareto(1, 8000) * 20, 299).astype(np.int64) for _ in range(2))
    a = sparse.from_coo(rng.standard_normal(8000).astype(np.float32), rows, cols, (300, 300))
    before, results = tersor.get_num_threads(), set()
    try:
        for n, terms in ((1, 1 << 20), (2, 5000), (7, 1)):
            tersor.set_num_threads(n)
            monkeypatch.setattr(listed, "TERMS", terms)
            c = a @ a.T
            results.add((c.data.tobytes(), c.indices.tobytes(), sparse.softmax(c).data.tobytes()))
    finally:
        tersor.set_num_threads(before)
    assert len(results) == 1
    np.testing.assert_allclose(c.sum(1), (a.to_scipy() @ a.to_scipy().T).sum(1), rtol=1e-3, atol=1e-3)


def test_gradients_of_sparse_products():
    v, rows, cols, shape = matrix()
    u = np.random.default_rng(5).standard_normal(20)
    leaves = [torch.from_numpy(x).requires_grad_() for x in (v, u)]

    def product(v, u):
        a = sparse.from_coo(v, rows, cols, shape)
        return (a @ sparse.from_coo(u, cols, rows, shape[::-1])).data

    assert torch.autograd.gradcheck(product, leaves)
    assert torch.autograd.gradcheck(lambda v: product(v, leaves[1].detach()), leaves[:1])
    a = sparse.from_coo(u, cols, rows, shape[::-1])  # of arrays, a constant
    assert torch.autograd.gradcheck(lambda v: (sparse.from_coo(v, rows, cols, shape) @ a).data, leaves[:1])


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


def test_the_gradient_of_softmax():
    leaf = torch.from_numpy(matrix()[0]).requires_grad_()
    rows, cols = np.divmod(np.random.default_rng(0).permutation(35)[:20], 7)
    assert torch.autograd.gradcheck(lambda v: sparse.softmax(sparse.from_coo(v, rows, cols, (5, 7))).data, (leaf,))
