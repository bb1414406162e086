"""Ways into sparse matrices and out of them, choices of rows and columns, sums and multiples. The one rule: as SciPy has it."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from tersor import sparse
from tersor.testing import csr

torch = pytest.importorskip("torch")

LIBRARIES = {"numpy": np.asarray, "torch": lambda x: torch.from_numpy(np.array(x))}


@pytest.fixture(params=LIBRARIES)
def lib(request):
    return LIBRARIES[request.param]


def dense(a):
    return np.asarray(a.to_dense())


def close(got, want):
    np.testing.assert_allclose(np.asarray(got), want, rtol=1e-12, atol=1e-12)


def scipy_of(parts):
    data, indices, indptr, shape = parts
    return sp.csr_array((data, indices, indptr), shape=shape)


def matrix(seed=0, rows=5, cols=7, entries=20):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(entries), rng.integers(0, rows, entries), rng.integers(0, cols, entries), (rows, cols)


# --- lists of places ---


@given(data=st.data())
def test_places_in_any_order(data):
    values, indices, indptr, shape = data.draw(csr())
    row = np.repeat(np.arange(shape[0]), np.diff(indptr)).astype(indices.dtype)
    order = np.random.default_rng(data.draw(st.integers(0, 9))).permutation(len(values))
    want = scipy_of((values, indices, indptr, shape)).toarray()
    a = sparse.from_coo(values[order], row[order], indices[order], shape)
    close(dense(a), want)
    assert a.nnz == len(values) and (a.data == values[order][a.perm]).all()
    close(dense(a.with_data(values[order] * 2, order="given")), 2 * want)
    close(dense(a.T.with_data(values[order] * 2, order="given")), 2 * want.T)
    one = sparse.from_coo(values[order], row[order], indices[order], shape, duplicates="sum")
    close(dense(one), want)
    assert one.nnz == len(set(zip(row.tolist(), indices.tolist(), strict=True)))
    assert one.sum_duplicates() is one and a.sum_duplicates().nnz == one.nnz
    assert dense(a.sum_duplicates()).tobytes() == dense(a).tobytes()  # added in the same order


def test_places_are_checked(lib):
    good = lib([1.0, 2.0, 3.0]), lib([0, 1, 0]), lib([2, 0, 2]), (2, 3)
    assert dense(sparse.from_coo(*good)).tolist() == [[0, 0, 4], [2, 0, 0]]
    with pytest.raises(
        ValueError, match=r"^from_coo: entries 0 and 2 are both at \(0, 2\); duplicates=\"sum\" adds them$"
    ):
        sparse.from_coo(*good, duplicates="refuse")
    for k, bad, error, text in (
        (1, lib([0, 2, 0]), ValueError, r"rows\[1\] = 2 is outside 0\.\.1"),
        (2, lib([2, 0, -1]), ValueError, r"cols\[2\] = -1 is outside 0\.\.2"),
        (1, lib([0, 1]), ValueError, r"data has shape \(3,\), rows 2 elements"),
        (1, lib([0.0, 1.0, 0.0]), TypeError, "rows must be .* got float64"),
        (0, lib([1, 2, 3]), TypeError, "data must be .* got int64"),
        (3, (2, -3), ValueError, "shape must not be negative"),
        (3, 2, TypeError, "shape must be "),
    ):
        with pytest.raises(error, match=f"^from_coo: {text}"):
            sparse.from_coo(*good[:k], bad, *good[k + 1 :])
    with pytest.raises(ValueError, match="duplicates must be 'keep', 'sum' or 'refuse', got 'add'"):
        sparse.from_coo(*good, duplicates="add")
    with pytest.raises(TypeError, match="from_coo: rows must have values"):
        sparse.from_coo(*(torch.ones(3, device="meta"), *(torch.zeros(3, device="meta").long(),) * 2), (2, 3))


def test_edges(lib):
    edges = lib(np.array([[0, 2, 1, 1], [1, 0, 1, 2]]))
    a = sparse.from_edges(edges)
    assert str(a.dtype).endswith("float32") and dense(a).tolist() == [[0, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert sparse.from_edges(edges, nodes=5).shape == (5, 5)
    weights = lib([1.0, 2.0, 3.0, 4.0])
    b = sparse.from_edges(edges, weights, undirected=True)
    assert dense(b).tolist() == [[0, 1, 2], [1, 3, 4], [2, 4, 0]] and b.nnz == 7
    twice = lib(np.array([[0, 0], [1, 1]]))
    assert dense(sparse.from_edges(twice, duplicates="sum", dtype="float64")).tolist() == [[0, 2], [0, 0]]
    assert sparse.from_edges(lib(np.zeros((2, 0), np.int64))).shape == (0, 0)
    for call, error, text in (
        (lambda: sparse.from_edges(edges.T), ValueError, r"edges must be \[2, E\], got shape \(4, 2\)"),
        (lambda: sparse.from_edges(edges, weights[:3]), ValueError, r"weights have shape \(3,\), there are 4 edges"),
        (lambda: sparse.from_edges(edges, nodes=2), ValueError, r"edges\[0, 1\] = 2 is no node of 2"),
        (lambda: sparse.from_edges(edges, nodes=-1), ValueError, "nodes must not be negative"),
        (lambda: sparse.from_edges(twice, duplicates="refuse"), ValueError, r"entries 0 and 1 are both at \(0, 1\)"),
        (lambda: sparse.from_edges(edges * 1.0), TypeError, "edges must be "),
        (lambda: sparse.from_edges(edges, dtype="int8"), TypeError, "dtype must be .* got int8"),
    ):
        with pytest.raises(error, match=f"^from_edges: {text}"):
            call()


# --- other layouts and libraries ---


@pytest.mark.filterwarnings("ignore:Sparse")
@given(data=st.data())
def test_layouts_there_and_back(data):
    parts = data.draw(csr())
    a, want = sparse.CSR(*parts), scipy_of(parts).toarray()
    rows, cols = (n or 1 for n in a.shape)
    block = tuple(data.draw(st.sampled_from([k for k in range(1, n + 1) if n % k == 0])) for n in (rows, cols))
    for kind, b in (("csc", a.to_csc()), ("coo", a.to_coo()), ("bsr", a.to_bsr(block))):
        other = b.to_scipy()
        assert other.format == kind
        close(other.toarray(), want)
        close(dense(b.to_csr()), want)
        close(dense(sparse.from_scipy(other)), want)
        if min(a.shape) and a.nnz:
            tensor = b.to_torch()
            assert str(tensor.layout) == f"torch.sparse_{kind}"
            close(tensor.to_dense(), want)
            close(dense(sparse.from_torch(tensor)), want)
    assert a.to_csc().to_csr().T.perm is not None and a.to_bsr(block).data.shape[1:] == block


def test_layouts_are_checked():
    a = sparse.from_dense(np.eye(4))
    for block, error in (((3, 2), ValueError), ((0, 1), ValueError), (2, TypeError), ((2.0, 2), TypeError)):
        with pytest.raises(error, match=r"^CSR\.to_bsr: block"):
            a.to_bsr(block)
    csc, coo, bsr = a.to_csc(), a.to_coo(), a.to_bsr((2, 2))
    bad = np.array([0, 9, 1, 1])
    for b, text in (
        (sparse.CSC(csc.data, bad, csc.indptr, csc.shape), r"CSC\.to_csr: by columns.* indices\[1\] = 9"),
        (sparse.COO(coo.data, bad, coo.cols, coo.shape), r"COO\.to_csr: rows\[1\] = 9 is outside 0\.\.3"),
        (sparse.BSR(bsr.data, bad[:2], bsr.indptr, bsr.shape), r"BSR\.to_csr: in blocks: indices\[1\] = 9"),
        (sparse.BSR(bsr.data, bsr.indices, bsr.indptr, (5, 4)), r"BSR\.to_csr: blocks of 2×2 do not divide"),
        (sparse.BSR(bsr.data[0], bsr.indices, bsr.indptr, (4, 4)), r"BSR\.to_csr: data must be \[blocks, r, c\]"),
    ):
        with pytest.raises(ValueError, match=f"^{text}"):
            b.to_csr()
        for door in (b.to_scipy, b.to_torch):
            with pytest.raises(ValueError, match=r"^(CSC|COO|BSR)\.to_"):
                door()
    with pytest.raises(TypeError, match=r"CSC\.to_scipy: SciPy has no matrices of float16"):
        a.astype("float16").to_csc().to_scipy()
    # blocks out of order
    blocks = np.arange(8.0).reshape(2, 2, 2)
    got = sparse.BSR(blocks, np.array([1, 0]), np.array([0, 2]), (2, 4)).to_dense()
    assert got.tolist() == [[4, 5, 0, 1], [6, 7, 2, 3]]


@pytest.mark.filterwarnings("ignore:Sparse")
def test_matrices_of_others_are_taken_where_ours_are():
    w = np.random.default_rng(0).standard_normal((4, 6)) * (np.arange(24).reshape(4, 6) % 3 == 0)
    t, x = torch.from_numpy(w), np.random.default_rng(1).standard_normal((6, 2))
    a = sparse.from_dense(w)
    for b in (
        sp.csr_array(w),
        sp.csc_matrix(w),
        sp.coo_array(w),
        sp.bsr_array(w),
        a.to_csc(),
        a.to_coo(),
        a.to_bsr((2, 3)),
    ):
        close(sparse.spmm(b, x), w @ x)
        close(sparse.spmv(b, x.T), (w @ x).T)
        close((a.T @ b).to_dense(), w.T @ w)
        close((a + b - 2 * a).to_dense(), 0 * w)
        close((a - b).to_dense(), 0 * w)
        close(sparse.sddmm(b, np.ones((4, 2)), np.ones((6, 2))).data, 2)
    for b in (t.to_sparse(), t.to_sparse_csr(), t.to_sparse_csc(), t.to_sparse_bsr((2, 3))):
        close(sparse.spmm(b, torch.from_numpy(x)), w @ x)
        close(sparse.spmm(a=b, x=torch.from_numpy(x)), w @ x)
    for b, text in ((sp.csr_array(w.astype(int)), "a: data must be .* got int64"), (t, "a must be a CSR, got Tensor")):
        with pytest.raises(TypeError, match=f"^spmm: {text}"):
            sparse.spmm(b, x)
    with pytest.raises(TypeError, match=r"^spmm: a: the layout must be .* got torch.sparse_bsc"):
        sparse.spmm(t.to_sparse_bsc((2, 3)), torch.from_numpy(x))


@pytest.mark.filterwarnings("ignore:Sparse")
def test_gradients_go_through_layouts():
    v, rows, cols, shape = matrix()
    rows, cols = torch.from_numpy(rows), torch.from_numpy(cols)
    leaf = torch.from_numpy(v).requires_grad_()
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = weight[rows, cols]
    for way in (
        lambda a: a,
        lambda a: a.T.T,
        lambda a: a.to_csc().to_csr(),
        lambda a: a.to_coo().to_csr(),
        lambda a: a.to_bsr((5, 7)),
        lambda a: a.sum_duplicates(),
        lambda a: sparse.from_torch(a.to_torch()),
        lambda a: sparse.from_torch(a.to_coo().to_torch()),
        lambda a: sparse.from_torch(a.to_csc().to_torch()),
    ):
        (got,) = torch.autograd.grad((way(sparse.from_coo(leaf, rows, cols, shape)).to_dense() * weight).sum(), leaf)
        torch.testing.assert_close(got, want)


# --- rows and columns ---

KEYS = st.one_of(
    st.builds(slice, *(st.none() | st.integers(-9, 9),) * 2, st.sampled_from([None, 1, 2, -1, -3])),
    st.lists(st.integers(-1, 0), max_size=4),
)


@given(data=st.data())
def test_choices_are_those_of_dense_matrices(data):
    parts = data.draw(csr().filter(lambda a: min(a[3]) > 0))
    lib = LIBRARIES[data.draw(st.sampled_from(sorted(LIBRARIES)))]
    a, want = sparse.CSR(lib(parts[0]), *parts[1:]), scipy_of(parts).toarray()
    rows, cols = data.draw(KEYS), data.draw(KEYS)
    index = [np.array(k, np.int64) if isinstance(k, list) else k for k in (rows, cols)]
    close(dense(a[rows]), want[index[0]])
    b = a[rows, cols]
    close(dense(b), want[index[0]][:, index[1]])
    assert b.shape == want[index[0]][:, index[1]].shape and b.nnz == len(b.data)
    x = lib(np.ones((b.shape[1], 2)))
    close(b @ x, want[index[0]][:, index[1]] @ np.ones((b.shape[1], 2)))
    mask = np.arange(a.shape[0]) % 2 == 0
    close(dense(a[lib(mask)]), want[mask])
    close(dense(a[:, lib(np.array([0, a.shape[1] - 1]))]), want[:, [0, -1]])


def test_what_is_no_choice(lib):
    a = sparse.from_dense(lib(np.eye(3)))
    for key, error, text in (
        (1, TypeError, r"rows must be a slice, integers or a mask, got int; a\[i:i \+ 1\] is one row"),
        ((slice(None), 2), TypeError, "columns must be a slice"),
        (lib([0.5]), TypeError, "rows must be .* got float64"),
        ("a", TypeError, "rows must be .* got str"),
        (None, TypeError, "rows must be .* got NoneType"),
        ([0, 3], ValueError, r"rows\[1\] = 3 is outside -3\.\.2"),
        ((slice(None), [-4]), ValueError, r"columns\[0\] = -4 is outside -3\.\.2"),
        (lib([True, False]), ValueError, "a mask of 2 for 3 rows"),
        (lib([[0]]), ValueError, r"rows must have one axis, got shape \(1, 1\)"),
    ):
        with pytest.raises(error, match=rf"^CSR\[\.\.\.\]: {text}"):
            a[key]
    with pytest.raises(TypeError, match="not iterable"):
        list(a)


def test_the_gradient_of_a_choice():
    v, rows, cols, shape = matrix()
    leaf = torch.from_numpy(v).requires_grad_()
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for rows_, cols_ in ((slice(1, 3), slice(None)), ([2, 0, 2], slice(2, 6)), (slice(None, None, -1), [1, 1, 0])):
        w = weight[rows_][:, cols_] if not isinstance(rows_, slice) or rows_.step is None else weight.flip(0)[:, cols_]
        (got,) = torch.autograd.grad(
            (sparse.from_coo(leaf, rows, cols, shape)[rows_, cols_].to_dense() * w).sum(), leaf
        )
        d = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        chosen = d[rows_][:, cols_] if not isinstance(rows_, slice) or rows_.step is None else d.flip(0)[:, cols_]
        (want,) = torch.autograd.grad((chosen * w).sum(), d)
        torch.testing.assert_close(got, want[rows, cols])


# --- sums and multiples ---


@given(data=st.data())
def test_sums_and_multiples(data):
    one, two = data.draw(csr()), data.draw(csr())
    lib = LIBRARIES[data.draw(st.sampled_from(sorted(LIBRARIES)))]
    a, want = sparse.CSR(lib(one[0]), *one[1:]), scipy_of(one).toarray()
    rng = np.random.default_rng(0)
    r, c = rng.standard_normal(a.shape[0]), rng.standard_normal(a.shape[1])
    close(dense(a.scale(rows=lib(r), cols=lib(c))), r[:, None] * want * c)
    close(dense(a.scale(cols=lib(c))), want * c)
    assert a.scale() is a
    for axis in (None, 0, 1, -1, -2):
        np.testing.assert_allclose(
            np.asarray(a.sum(axis)), want.sum(axis), rtol=1e-9, atol=1e-9 * (1 + np.abs(one[0]).sum())
        )
    close(a.diagonal(), np.diagonal(want))
    for b in (2 * a, a * 2.0, a / 0.5):
        close(dense(b), 2 * want)
    rows, cols = min(one[3][0], two[3][0]), min(one[3][1], two[3][1])
    a, b = a[:rows, :cols], sparse.CSR(lib(two[0]), *two[1:])[:rows, :cols]
    u, v = want[:rows, :cols], scipy_of(two).toarray()[:rows, :cols]
    close(dense(a + b), u + v)
    close(dense(a - b), u - v)
    assert (a + b).sum_duplicates() is not a and not dense(a - a).any()
    places = (a + b).to_coo()
    assert len(set(zip(np.asarray(places.rows).tolist(), np.asarray(places.cols).tolist(), strict=True))) == (a + b).nnz


def test_halves_are_rounded_once():
    x = np.array([1.0009765625, 3.0], np.float16)
    a = sparse.CSR(x, np.array([0, 1]), np.array([0, 2]), (1, 2))
    r, c = np.array([1.0009765625], np.float16), np.array([1.0009765625, 1.0], np.float16)
    want = (x.astype(np.float32) * r.astype(np.float32) * c.astype(np.float32)).astype(np.float16)
    assert (a.scale(rows=r, cols=c).data == want).all()
    many = sparse.CSR(np.full(4096, 1.0, np.float16), np.zeros(4096, np.int32), np.array([0, 4096]), (1, 1))
    assert many.sum(1)[0] == 4096 == many.sum()
    wide = np.append(np.float32(2**24), np.ones(5, np.float32))
    assert sparse.CSR(wide, np.zeros(6, np.int32), np.array([0, 6]), (1, 1)).sum(1)[0] == np.float32(2**24 + 5)


def test_gradients_of_sums_and_multiples():
    v, rows, cols, shape = matrix()
    rng = np.random.default_rng(1)
    leaves = [torch.from_numpy(x).requires_grad_() for x in (v, rng.standard_normal(5), rng.standard_normal(7))]

    def made(v):
        return sparse.from_coo(v, rows, cols, shape)

    assert torch.autograd.gradcheck(lambda v, r, c: made(v).scale(r, c).data, leaves)
    assert torch.autograd.gradgradcheck(lambda v, r, c: made(v).scale(r, c).data, leaves)
    for f in (
        lambda a: a.sum(0),
        lambda a: a.sum(1),
        lambda a: a.sum(),
        lambda a: a.diagonal(),
        lambda a: (a + a.T.T[::-1]).data,
        lambda a: (-a * 3 - a / 2).data,
    ):
        assert torch.autograd.gradcheck(lambda v, f=f: f(made(v)), leaves[:1])


def test_what_does_not_add_or_scale(lib):
    a = sparse.from_dense(lib(np.eye(3)))
    other = sparse.from_dense(lib(np.eye(3, dtype=np.float32)))
    for call, error, text in (
        (lambda: a + other, TypeError, r"CSR \+ CSR: float64 and float32; astype makes them one"),
        (lambda: a - a[:2], ValueError, r"CSR \+ CSR: the shapes are \(3, 3\) and \(2, 3\)"),
        (lambda: a + 1, TypeError, "CSR"),
        (lambda: a * "b", TypeError, "CSR"),
        (lambda: a / a, TypeError, "CSR"),
        (lambda: a.scale(lib(np.ones(2))), ValueError, r"CSR\.scale: rows has shape \(2,\), the matrix 3 rows"),
        (
            lambda: a.scale(cols=lib(np.ones(3, np.float32))),
            TypeError,
            r"CSR\.scale: cols is float32, the matrix float64",
        ),
        (lambda: a.scale([1, 2, 3]), TypeError, r"CSR\.scale: rows must be a NumPy array or a torch tensor, got list"),
        (lambda: a.sum(2), ValueError, r"CSR\.sum: axis must be 0, 1 or None, got 2"),
    ):
        with pytest.raises(error, match=text):
            call()


@pytest.mark.filterwarnings("ignore:Dynamo", "ignore:.*create_unbacked_symint")
def test_values_change_in_one_graph():
    """What keeps the places is traced: scaling, sums, multiples."""
    w = torch.tensor([[0.0, 2, 0], [0, 0, 3], [5, 0, 0]])
    a, x = sparse.from_dense(w), torch.tensor([1.0, 2, 3], requires_grad=True)

    def f(x):
        b = (2 * a.with_data(x)).scale(rows=x, cols=x)
        return b @ x + b.sum(1) + b.sum(0)

    got, want = torch.compile(f, fullgraph=True, backend="aot_eager")(x), f(x)
    assert torch.equal(got, want)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (got, want)))


def test_an_array_beside_tensors():
    a, b = sparse.from_dense(np.eye(3)), sparse.from_dense(torch.eye(3).double())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal((a + b).to_dense(), 2 * torch.eye(3).double())
        assert torch.equal(a.scale(rows=torch.arange(3.0).double()).diagonal(), torch.arange(3.0).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_devices_without_a_kernel_add_is_rounded_once(dtype):
    """As the kernel of the CPU does it: ones that are added in 16 bits stand still at 2048 or 256."""
    from tersor.sparse._structure import put_at

    data = torch.ones(3001, dtype=dtype, requires_grad=True)
    got = put_at(data, (2, 2), (torch.arange(3001) % 2, torch.ones(3001, dtype=torch.int64)))
    assert torch.equal(got, torch.tensor([[0.0, 1501], [0, 1500]]).to(dtype)) and got.dtype == dtype
    (g,) = torch.autograd.grad(got[0, 1], data)
    assert torch.equal(g, (torch.arange(3001) % 2 == 0).to(dtype))
    a = sparse.CSR(
        data.detach(), torch.zeros(3001, dtype=torch.int32), torch.tensor([0, 3001], dtype=torch.int32), (1, 1)
    )
    assert a.to_dense()[0, 0] == torch.tensor(3001.0).to(dtype)
