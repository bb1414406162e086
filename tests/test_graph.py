"""Graphs as they are given, their norms, and features carried over them. The one rule: a result is what the formula says of the
dense matrix, and K hops are K single ones, bit for bit."""

import pickle

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import tersor
import torch
from tersor import graph, sparse
from tersor import nn as tnn
from tersor.project import Projection

rng = np.random.default_rng(0)
N = 12
EDGES = rng.integers(0, N - 1, (2, 40))  # the last node has none; loops and repeated edges are there
WEIGHTS = rng.uniform(0.5, 2, 40)
X = rng.standard_normal((N, 5))


def dense(edges=EDGES, weights=WEIGHTS, n=N):
    a = np.zeros((n, n))
    np.add.at(a, (edges[1], edges[0]), weights)
    return a


def powers(d, p):
    return np.where(d == 0, 0, np.where(d == 0, 1, d) ** p)


def normed(a, norm):
    left, right = a.sum(1), a.sum(1) if norm == "sym" else a.sum(0)
    p, q = {"sym": (-0.5, -0.5), "row": (-1, 0), "col": (0, -1), "none": (0, 0)}.get(norm, norm)
    return (powers(left, p) if p else np.ones(len(a)))[:, None] * a * (powers(right, q) if q else np.ones(len(a)))


A = graph.adjacency(EDGES, n=N, weights=WEIGHTS)


def test_a_graph_is_taken_in_every_form():
    a = dense()
    coo = sp.coo_array((WEIGHTS, (EDGES[1], EDGES[0])), (N, N))
    order = np.argsort(EDGES[0], kind="stable")
    indptr = np.searchsorted(EDGES[0][order], np.arange(N + 1))
    forms = [A, coo, coo.tocsc(), torch.from_numpy(coo.toarray()).to_sparse(), torch.from_numpy(a).to_sparse_csr()]
    for form in forms:
        np.testing.assert_allclose(graph.adjacency(form).to_dense(), a, rtol=1e-15)
    triple = (indptr, EDGES[1][order], order)
    np.testing.assert_allclose(graph.adjacency(triple, weights=WEIGHTS).to_dense(), a, rtol=1e-15)
    index = torch.from_numpy(EDGES)
    w = torch.from_numpy(WEIGHTS).requires_grad_()
    t = graph.adjacency(index, n=N, weights=w)
    np.testing.assert_allclose(t.to_dense().detach(), a, rtol=1e-15)
    t.to_dense().sum().backward()
    assert torch.equal(w.grad, torch.ones(40, dtype=torch.float64))
    np.testing.assert_allclose(
        graph.adjacency(EDGES, n=N, weights=WEIGHTS, flow="target_to_source").to_dense(), a.T, rtol=1e-15
    )
    both = graph.adjacency(np.array([[0, 1], [1, 1]]), undirected=True).to_dense()
    assert both.tolist() == [[0, 1], [1, 1]]
    assert graph.adjacency(EDGES, n=N, dtype="float64").dtype == np.float64
    assert graph.adjacency(EDGES, n=N, dtype="bfloat16").dtype.name == "bfloat16"
    assert graph.adjacency(np.zeros((2, 0), int)).shape == (0, 0)


def test_networks_keep_the_order_of_their_nodes():
    g = nx.DiGraph()
    g.add_edge("c", "a", cost=2.0)
    g.add_edge("a", "b", cost=3)
    assert graph.adjacency(g, weights="cost").to_dense().tolist() == [[0, 0, 0], [2, 0, 0], [0, 3, 0]]
    karate = nx.karate_club_graph()
    want = nx.to_numpy_array(karate, weight="weight")
    np.testing.assert_array_equal(graph.adjacency(karate, weights="weight").to_dense(), want)
    multi = nx.MultiGraph([(0, 1), (0, 1), (1, 1)])
    np.testing.assert_array_equal(graph.adjacency(multi).to_dense(), [[0, 2], [2, 1]])


@pytest.mark.parametrize("norm", ["sym", "row", "col", "none", (-0.5, -0.25)])
@pytest.mark.parametrize("loops", [False, True, "remaining"])
def test_norms_are_those_of_the_dense_matrix(norm, loops):
    a = dense()
    if loops:
        a = a + np.diag((np.diag(a) == 0) if loops == "remaining" else np.ones(N))
    got = graph.normalized_adjacency(A, norm, self_loops=loops)
    np.testing.assert_allclose(got.to_dense(), normed(a, norm), rtol=1e-13)
    x = torch.from_numpy(X)
    np.testing.assert_allclose(
        graph.propagate(A, x, 3, norm, self_loops=loops),
        np.linalg.matrix_power(normed(a, norm), 3) @ X,
        rtol=1e-11,
        atol=1e-13,
    )


def test_hops_are_single_hops():
    stack = graph.propagate(A, X, 4, keep="stack")
    h = X
    for k in range(5):
        assert stack[k].tobytes() == h.tobytes() == graph.propagate(A, X, k).tobytes()
        h = graph.propagate(A, h, 1)
    assert graph.propagate(A, X, 0) is not X
    total = graph.propagate(A, X, 4, keep="sum", weights=[1, 0, 0, 0, 2])
    np.testing.assert_allclose(total, X + 2 * stack[4], rtol=1e-14)
    np.testing.assert_allclose(graph.propagate(A, X, 4, keep="sum"), stack.sum(0), rtol=1e-13)
    out = np.empty_like(X)
    assert graph.propagate(A, X, 4, out=out) is out and out.tobytes() == stack[4].tobytes()
    assert graph.propagate(A, X[:, 0].copy(), 2).tobytes() == stack[2][:, 0].tobytes()


def test_bits_are_those_of_any_number_of_threads():
    """Of hops and embeddings, on a graph with hubs, loops and repeated edges."""
    n, draw = 3000, np.random.default_rng(3)
    edges = np.stack([(n * draw.random(40_000) ** 3).astype(int), draw.integers(0, n, 40_000)])
    edges[:, :50], edges[:, 50:60] = edges[0, :50], edges[:, :10]
    x = draw.standard_normal((n, 33), np.float32)
    a, before, seen = graph.adjacency(edges, n=n), tersor.get_num_threads(), set()
    try:
        for threads in (1, 2, 5, 16):
            tersor.set_num_threads(threads)
            parts = [
                graph.propagate(a, x, 3, keep="stack", self_loops=True),
                graph.fastrp(a, 24, [0.5, 1, 2], alpha=-0.5),
                graph.fastrp(a, 24, variant="gds", self_influence=0.5, node_keys=np.arange(n)[::-1].copy()),
            ]
            seen.add(b"".join(part.tobytes() for part in parts))
    finally:
        tersor.set_num_threads(before)
    assert len(seen) == 1


def test_repeated_edges_loops_and_lone_nodes():
    """Repeated edges add up (GDS counts each), a loop is a neighbour, who has no edge is 0 and sends nothing."""
    edges = np.array([[0, 0, 1, 1, 2], [1, 1, 1, 2, 0]])  # 3 has none
    a = np.zeros((4, 4))
    np.add.at(a, (edges[1], edges[0]), 1.0)
    x = rng.standard_normal((4, 3))
    np.testing.assert_allclose(graph.propagate(edges, x[:3], 1, "none"), (a @ x)[:3], rtol=1e-15)
    full = graph.adjacency(edges, n=4, dtype="float64")
    row = graph.propagate(full, x, 1, "row")
    np.testing.assert_allclose(row[:3], (a @ x)[:3] / a[:3].sum(1, keepdims=True), rtol=1e-15)
    assert not row[3].any()
    r = Projection(4, 8, "sparse", seed=0, s=1.0).materialise()
    taken = a.T  # a node takes from those it points to
    got = graph.fastrp(graph.adjacency(edges, n=4, flow="target_to_source"), 8, [1], s=1, scale=False)
    np.testing.assert_allclose(got, embedded(taken, r, [1.0]), rtol=1e-5, atol=1e-6)
    assert not got[3].any()
    single = graph.fastrp(sp.csr_array(taken), 8, [1], s=1, variant="gds")  # the weight 2 is one relationship
    twice = graph.fastrp(graph.adjacency(edges, n=4, flow="target_to_source"), 8, [1], s=1, variant="gds")
    np.testing.assert_allclose(twice, single, rtol=1e-5, atol=1e-6)  # of length 1 either way


def test_what_is_kept_of_hops():
    a = normed(dense(), "row")
    want = X
    for _ in range(3):
        want = 0.9 * a @ want + 0.1 * X
    np.testing.assert_allclose(graph.propagate(A, X, 3, "row", teleport=0.1), want, rtol=1e-13)
    w, b = rng.standard_normal(5), 0.3
    stack = graph.propagate(A, X, 3, keep="stack")
    gated = (stack / (1 + np.exp(-(stack @ w + b)))[..., None]).sum(0)
    np.testing.assert_allclose(graph.propagate(A, X, 3, keep="sum", gate=(w, b)), gated, rtol=1e-13)
    half = graph.propagate(A, X, 2, keep="stack", storage="bfloat16")
    assert half.dtype.name == "bfloat16"
    first = graph.propagate(A, half[0].astype(np.float64), 1).astype(half.dtype)
    assert first.tobytes() == half[1].tobytes()
    assert graph.propagate(A, X, 2, storage="bfloat16").dtype == np.float64


def test_the_gate_of_air_is_a_softmax_over_hops():
    w, b = rng.standard_normal(10), -0.2
    stack = graph.propagate(A, X, 3, keep="stack")
    z = 1 / (1 + np.exp(-(X @ w[:5] + stack @ w[5:] + b)))
    share = np.exp(z) / np.exp(z).sum(0)
    want = (share[..., None] * stack).sum(0)
    np.testing.assert_allclose(graph.propagate(A, X, 3, keep="sum", gate=(w, b)), want, rtol=1e-13)
    published = graph.propagate(A, X, 3, keep="sum", gate=(w, b), compat="air")
    np.testing.assert_allclose(published, want - share[3][:, None] * stack[3], rtol=1e-11, atol=1e-14)
    none = graph.propagate(A, X, 0, keep="sum", gate=(w, b), compat="air")
    np.testing.assert_allclose(none, X, rtol=1e-15)  # its one weight over itself
    for call, words in (
        (lambda: graph.propagate(A, X, 3, keep="sum", gate=(w[:5], b), compat="air"), "is of AIR's gate"),
        (lambda: graph.propagate(A, X, 3, compat="air"), "is of AIR's gate"),
        (
            lambda: graph.propagate(A, X, 3, keep="sum", gate=(w, b), compat="sgc"),
            "compat must be one of air, got 'sgc'",
        ),
    ):
        with pytest.raises(ValueError, match=f"propagate: .*{words}"):
            call()
    with pytest.raises(TypeError, match="propagate: the gate's b is a tensor, X is a NumPy array"):
        graph.propagate(A, X, 1, keep="sum", gate=(w, torch.tensor(b)))
    three = np.stack([X, 2 * X])
    got = graph.propagate(A, three, 3, keep="sum", gate=(w, b))
    np.testing.assert_allclose(got[0], want, rtol=1e-13)
    huge = graph.propagate(A, X, 3, keep="sum", gate=(1e300 * w, b))
    assert np.isfinite(huge).all()
    constant = graph.propagate(A, X, 3, keep="sum", gate=(0 * w, b))
    np.testing.assert_allclose(constant, stack.mean(0), rtol=1e-13)
    leaves = [torch.from_numpy(v).requires_grad_() for v in (X, w, np.array([b]))]
    f = lambda x, w, b: graph.propagate(A, x, 2, keep="sum", gate=(w, b))  # noqa: E731
    assert torch.autograd.gradcheck(f, leaves)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(f, fullgraph=True, backend="aot_eager")(*leaves), f(*leaves))
    with pytest.raises(ValueError, match=r"w must have shape \[d\] or \[2 d\], got \(7,\) beside X \(12, 5\)"):
        graph.propagate(A, X, 1, keep="sum", gate=(np.ones(7), 0))


@pytest.mark.parametrize("gate", ["dagnn", "air"])
def test_hops_as_a_layer(gate):
    torch.manual_seed(0)
    layer = tnn.Propagate(3, 5, gate, teleport=0.1).double()
    x = torch.from_numpy(X)
    want = graph.propagate(
        A, x, 3, self_loops=True, keep="sum", teleport=0.1, gate=(layer.weight.detach(), layer.bias.detach())
    )
    assert torch.equal(layer(A, x), want)
    layer(A, x).square().sum().backward()
    assert layer.weight.grad.abs().min() > 0 and layer.bias.grad.abs() > 0
    again = tnn.Propagate(3, 5, gate, teleport=0.1).double()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(A, x), want) and torch.equal(pickle.loads(pickle.dumps(layer))(A, x), want)
    low, a = layer.float(), graph.adjacency(EDGES, n=N, weights=WEIGHTS, dtype="float32")
    ready = graph.normalized_adjacency(a, self_loops=True)
    plain = tnn.Propagate(3, 5, gate, norm="none", self_loops=False, teleport=0.1)
    plain.load_state_dict(low.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            torch.compile(plain, fullgraph=True, backend="aot_eager")(ready, x.float()), want.float()
        )
    with torch.autocast("cpu", torch.bfloat16):
        assert low(a, x.bfloat16()).dtype == torch.float32
    for call, kind, words in (
        (lambda: tnn.Propagate(-1, 5), ValueError, "K must not be negative"),
        (lambda: tnn.Propagate(1, 0), ValueError, "channels positive, got 1 and 0"),
        (lambda: tnn.Propagate(1.5, 5), TypeError, "K must be an integer"),
        (lambda: tnn.Propagate(1, 5, "gat"), ValueError, "gate must be"),
        (lambda: tnn.Propagate(1, 5, norm="zz"), ValueError, "norm must be 'sym', 'row'"),
        (lambda: tnn.Propagate(1, 5, teleport=2), ValueError, "teleport must be between 0 and 1, got 2"),
        (lambda: tnn.Propagate(1, 5, self_loops="some"), ValueError, "self_loops must be False"),
        (lambda: tnn.Propagate(1, 5, storage="int8"), TypeError, "storage must be a float type, got int8"),
        (lambda: layer(a, torch.ones(N, 4)), ValueError, r"\[n, 5\]"),
        (lambda: layer(a, X), TypeError, "X"),
    ):
        with pytest.raises(kind, match=f"Propagate: .*{words}"):
            call()


def test_gradients():
    index, k = torch.from_numpy(EDGES), 2
    leaves = [
        torch.from_numpy(v).requires_grad_() for v in (X, WEIGHTS, rng.standard_normal(5), rng.standard_normal(1))
    ]

    def gated(x, w, v, b):
        a = graph.adjacency(index, n=N, weights=w)
        return graph.propagate(a, x, k, self_loops=True, teleport=0.2, keep="sum", gate=(v, b))

    assert torch.autograd.gradcheck(gated, leaves)
    theta = torch.rand(k + 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, t: graph.propagate(A, x, k, (-0.5, -0.5), keep="sum", weights=t), (leaves[0], theta)
    )
    x = torch.from_numpy(X)
    plain = graph.propagate(A, x, k, "row")
    assert torch.equal(torch.compile(lambda x: graph.propagate(A, x, k, "row"), fullgraph=True)(x), plain)


def test_invariances():
    reached = dense().sum(1) > 0
    np.testing.assert_allclose(graph.propagate(A, np.ones(N), 1, "row"), reached, rtol=1e-14)
    assert not graph.propagate(A, X, 3)[-1].any()  # a node without edges
    g = graph.adjacency(nx.les_miserables_graph(), weights="weight", dtype="float64")
    u, v = rng.standard_normal((2, g.shape[0]))
    assert abs(u @ graph.propagate(g, v, 1) - v @ graph.propagate(g, u, 1)) < 1e-12


def test_hypergraphs_and_paths_of_relations():
    h = (rng.random((6, 4)) < 0.5) * 1.0
    h[5] = h[:, 3] = 0
    w, x = rng.uniform(0.5, 2, 4), rng.standard_normal((6, 3))
    left = powers(h @ w, -0.5)[:, None]
    want = left * (h @ ((w * powers(h.sum(0), -1.0))[:, None] * (h.T @ (left * x))))
    np.testing.assert_allclose(graph.hypergraph_propagate(sp.csr_array(h), x, w), want, rtol=1e-13, atol=1e-15)
    leaves = [torch.from_numpy(v).requires_grad_() for v in (x, w)]
    assert torch.autograd.gradcheck(lambda x, w: graph.hypergraph_propagate(sparse.from_dense(h), x, w), leaves)
    b = rng.standard_normal((4, 5)) * (rng.random((4, 5)) < 0.6)
    y = rng.standard_normal((5, 2))
    got = graph.metapath([sp.csr_array(h), sparse.from_dense(b)], y)
    np.testing.assert_allclose(got, h @ b @ y, rtol=1e-13, atol=1e-15)
    rows = graph.metapath([sp.csr_array(h)], np.ones(4), norm="row")
    np.testing.assert_allclose(rows, h.sum(1) > 0, rtol=1e-14)


def test_relations_are_taken_in_every_form():
    """Of whole numbers too, and repeated places, which add up."""
    h = rng.integers(0, 3, (6, 4))
    x = rng.standard_normal((4, 2))
    coo = sp.coo_array(h)
    twice = sp.coo_array((np.tile(coo.data, 2), (np.tile(coo.row, 2), np.tile(coo.col, 2))), (6, 4))
    dense = torch.from_numpy(h)
    forms = [coo, coo.tocsc(), coo.tobsr(), coo.astype(bool), twice, dense.to_sparse(), dense.to_sparse_csr()]
    forms += [dense.to_sparse_csc(), sparse.COO(coo.data.astype(np.float64), coo.row, coo.col, (6, 4))]
    for form in forms:
        t = x if not isinstance(form, torch.Tensor) else torch.from_numpy(x)
        m = np.where(h > 0, 1, 0) if form is forms[3] else 2 * h if form is twice else h
        np.testing.assert_allclose(graph.metapath([form], t), m @ x, rtol=1e-13, atol=1e-15)
        low = t.to(torch.float16) if isinstance(t, torch.Tensor) else t.astype(np.float16)
        if form is not forms[-1]:
            assert graph.metapath([form], low).dtype == low.dtype
    for wrong in (sp.csr_array(h * 1j), dense.cfloat().to_sparse()):
        with pytest.raises(TypeError, match=r"metapath: mats\[0\] must be real numbers, got complex"):
            graph.metapath([wrong], x)
    with pytest.raises(TypeError, match=r"metapath: mats\[0\] must be a CSR or a sparse matrix"):
        graph.metapath([h.astype(float)], x)


def test_a_matrix_remembers_the_order_of_its_edges():
    a = graph.adjacency(EDGES, n=N, weights=WEIGHTS)
    other = rng.standard_normal(40)
    want = graph.adjacency(EDGES, n=N, weights=other)
    np.testing.assert_array_equal(a.with_data(other, order="given").to_dense(), want.to_dense())


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: graph.adjacency([[0, 1], [1, 0]]), TypeError, "got list"),
        (lambda: graph.adjacency(np.ones((2, 3))), TypeError, "float64"),
        (lambda: graph.adjacency(np.ones((3, 2), int)), ValueError, r"\(3, 2\)"),
        (lambda: graph.adjacency(np.array([[0], [7]]), n=7), ValueError, r"edges\[1, 0\] = 7 is outside 0..6"),
        (lambda: graph.adjacency(np.array([[0], [-1]])), ValueError, r"edges\[1, 0\] = -1"),
        (lambda: graph.adjacency(EDGES, weights=np.ones(3)), ValueError, r"\(40,\).*\(3,\)"),
        (lambda: graph.adjacency(EDGES, weights=[1.0] * 40), TypeError, "weights.*list"),
        (lambda: graph.adjacency(EDGES, n=-1), ValueError, "n must be"),
        (lambda: graph.adjacency(EDGES, flow="up"), ValueError, "'up'"),
        (lambda: graph.adjacency(sp.csr_array((2, 3))), ValueError, r"square.*\(2, 3\)"),
        (lambda: graph.adjacency(A, weights=WEIGHTS), ValueError, "a matrix has its own"),
        (lambda: graph.adjacency(A, n=3), ValueError, "n is 3, the graph has 12"),
        (lambda: graph.adjacency((np.array([0, 2, 1]), np.array([0]), np.array([], int))), ValueError, "2 and then 1"),
        (lambda: graph.adjacency((np.array([0, 1]), np.array([4]), np.array([0]))), ValueError, r"indices\[0\] = 4"),
        (
            lambda: graph.adjacency(EDGES, weights=WEIGHTS * 1j),
            TypeError,
            "weights must be real numbers, got complex128",
        ),
        (lambda: graph.adjacency(sp.csr_array(np.eye(2) * 1j)), TypeError, "A must be real numbers, got complex128"),
        (
            lambda: graph.adjacency(torch.eye(2).cfloat().to_sparse()),
            TypeError,
            "A must be real numbers, got complex64",
        ),
        (
            lambda: graph.adjacency(nx.Graph([(0, 1, {"w": None})]), weights="w"),
            TypeError,
            r"'w' of the edge \(0, 1\) must be a number, got None",
        ),
        (lambda: graph.propagate(A, X, -1), ValueError, "K must not be negative, got -1"),
        (lambda: graph.propagate(np.eye(3), X, 1), TypeError, "A is an array of float64, edges are integers"),
        (lambda: graph.propagate(A, X, 1.5), TypeError, "K must be an integer"),
        (lambda: graph.propagate(A, X[:5], 1), ValueError, r"\(5, 5\).*12 nodes"),
        (lambda: graph.propagate(A, X.astype("f4"), 1), TypeError, "X is float32, the matrix is float64"),
        (lambda: graph.propagate(A, X, 1, "left"), ValueError, "'left'"),
        (lambda: graph.propagate(A, X, 1, keep="all"), ValueError, "'all'"),
        (lambda: graph.propagate(A, X, 1, weights=[1, 2]), ValueError, "keep='sum'"),
        (lambda: graph.propagate(A, X, 1, keep="sum", weights=[1]), ValueError, r"\(2,\).*\(1,\)"),
        (lambda: graph.propagate(A, X, 1, keep="sum", weights=torch.ones(2)), TypeError, "weights are a tensor"),
        (
            lambda: graph.propagate(A, X, 1, keep="sum", gate=(np.ones(5), None)),
            TypeError,
            "b must be a number, got None",
        ),
        (
            lambda: graph.propagate(A, X, 1, keep="sum", gate=(np.ones(5), "x")),
            TypeError,
            "b must be a number, got str",
        ),
        (lambda: graph.propagate(A, X, 1, teleport=2), ValueError, "teleport"),
        (lambda: graph.propagate(A, X, 1, self_loops="all"), ValueError, "'all'"),
        (lambda: graph.propagate(A, X, 1, group=True), ValueError, "init_process_group"),
        (lambda: graph.propagate(sp.csr_array(-np.eye(2)), np.ones(2), 1), ValueError, "row 0 add up to -1"),
        (lambda: graph.metapath([], X), ValueError, "empty"),
        (lambda: graph.metapath([A], X[:3]), ValueError, "12 columns"),
        (lambda: graph.hypergraph_propagate(A, X, np.ones(3)), ValueError, r"\(12,\).*\(3,\)"),
    ],
)
def test_what_is_refused_is_named(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def embedded(a, projection, weights, *, alpha=None, gds=False, unit=True, influence=0.0, keep=1.0):
    """The formula of FastRP, in float64, of the dense matrix whose rows take."""
    count = (a != 0).sum(1) if gds else a.sum(1)
    d = np.where(count == 0, 0, np.where(count == 0, 1, count) ** float(alpha or 0))
    send = np.ones(len(a)) if alpha is None else np.where(count == 0, 1, d) if gds else d
    e = projection.T * send[:, None] * keep

    def nu(h):
        length = np.linalg.norm(h, axis=1, keepdims=True)
        return h / np.where(length > 0, length, 1) if unit or gds else h

    total, h = influence * nu(e), e
    for w in weights:
        h = powers(count, -1.0)[:, None] * (a @ h)
        total = total + w * nu(h)
    return total


SIMPLE = (rng.random((30, 30)) < 0.15) * rng.uniform(0.5, 2, (30, 30))
SIMPLE[7] = 0


@pytest.mark.parametrize("alpha", [None, -0.64])
@pytest.mark.parametrize("variant", ["paper", "gds"])
@pytest.mark.parametrize("influence", [0.0, 0.7])
def test_fastrp_is_its_formula(variant, alpha, influence):
    gds = variant == "gds"
    r = Projection(30, 16, "sparse", seed=3, s=3.0 if gds else None).materialise()
    want = embedded(SIMPLE, r, [0.5, 1, 6], alpha=alpha, gds=gds, influence=influence)
    options = {"alpha": alpha, "variant": variant, "self_influence": influence, "seed": 3}
    got = graph.fastrp(sp.csr_array(SIMPLE), 16, [0.5, 1, 6], scale=False, **options)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert influence or not got[7].any()  # without edges
    if not gds:
        scaled = (want - want.mean(0)) / want.std(0)
        got = graph.fastrp(sp.csr_array(SIMPLE), 16, [0.5, 1, 6], **options)
        np.testing.assert_allclose(got, scaled, rtol=1e-3, atol=1e-4)
        beside = graph.fastrp(sp.csr_array(SIMPLE), 16, alpha=alpha, seed=3)
        assert beside.shape == (30, 48)
        first = embedded(SIMPLE, r, [1], alpha=alpha)
        np.testing.assert_allclose(beside[:, :16], first, rtol=1e-4, atol=1e-5)


def test_keys_of_nodes_say_their_vectors():
    a, turn = sp.csr_array(SIMPLE), rng.permutation(30)
    keys = rng.integers(0, 2**62, 30)
    one = graph.fastrp(a, 8, [1, 2], node_keys=keys, seed=1)
    other = graph.fastrp(a[turn][:, turn], 8, [1, 2], node_keys=keys[turn], seed=1)
    np.testing.assert_allclose(other, one[turn], rtol=1e-4, atol=1e-5)
    plain = graph.fastrp(a, 8, [1, 2], seed=1)
    np.testing.assert_allclose(graph.fastrp(a, 8, [1, 2], node_keys=np.arange(30), seed=1), plain, rtol=1e-4, atol=1e-5)
    assert abs(np.corrcoef(plain.ravel(), graph.fastrp(a, 8, [1, 2], seed=2).ravel())[0, 1]) < 0.3
    t = graph.fastrp(torch.from_numpy(np.stack(np.nonzero(SIMPLE))), 8, [1, 2])
    assert isinstance(t, torch.Tensor) and t.dtype == torch.float32


def test_properties_take_the_last_numbers():
    f = rng.standard_normal((30, 3))
    got = graph.fastrp(sp.csr_array(SIMPLE), 8, [1], variant="gds", properties=f, property_ratio=0.5, seed=2)
    r = Projection(30, 8, "sparse", seed=2, s=3.0).materialise()
    p = Projection(3, 8, "sparse", seed=2, stream=1, s=3.0).materialise()
    e = np.concatenate([r[:4], p[4:] @ f.T])
    np.testing.assert_allclose(got, embedded(SIMPLE, e, [1], gds=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"variant": "new"}, ValueError, "'new'"),
        ({"weights": []}, ValueError, "one finite number"),
        ({"weights": "ab"}, TypeError, "'ab'"),
        ({"s": 0.5}, ValueError, "0.5"),
        ({"s": np.nan}, ValueError, "nan"),
        ({"s": np.inf}, ValueError, "inf"),
        ({"s": 2.0**32}, ValueError, "4294967296"),
        ({"property_ratio": 2}, ValueError, "property_ratio"),
        ({"properties": np.ones((3, 2))}, ValueError, r"\[30, f\], got \(3, 2\)"),
        ({"property_ratio": 0.5}, ValueError, "property_ratio is 0.5, and there are no properties"),
        ({"properties": np.ones((30, 2))}, ValueError, "must leave properties one of the 8 numbers"),
        ({"alpha": np.nan}, ValueError, "alpha must be finite, got nan"),
        ({"alpha": 1e5}, ValueError, "alpha = 100000 of node .* leaves float32"),
        ({"self_influence": np.inf}, ValueError, "self_influence must be finite, got inf"),
        ({"node_keys": np.arange(3)}, ValueError, r"\(30,\), got \(3,\)"),
        ({"node_keys": np.ones(30)}, TypeError, "float64"),
        ({"seed": -1}, ValueError, "-1"),
    ],
)
def test_what_fastrp_refuses_is_named(options, kind, words):
    with pytest.raises(kind, match=f"fastrp: .*{words}"):
        graph.fastrp(sp.csr_array(SIMPLE), 8, **options)
    with pytest.raises(ValueError, match="not negative, got -1"):
        graph.fastrp(sp.csr_array(-np.eye(2)), 8)
    with pytest.raises(ValueError, match="dim must be positive, got 0"):
        graph.fastrp(sp.csr_array(SIMPLE), 0)


def test_no_nodes_have_no_vectors():
    none = sp.csr_array((0, 0))
    assert graph.fastrp(none, 4).shape == (0, 12) and graph.fastrp(none, 4, [1, 1], variant="gds").shape == (0, 4)
    assert graph.fastrp(torch.zeros(2, 0, dtype=torch.long), 4, self_influence=1.0).shape == (0, 16)
