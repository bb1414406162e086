"""Neighbourhoods, nearest rows, codes, encodings and attention along edges. The one rule: each is compared with the plain
computation that makes what the operator does not: all pairs, sets, dense matrices."""

import runpy
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tersor import graph, hyperbolic

rng = np.random.default_rng(0)
N = 40
LEFT, RIGHT = rng.integers(0, N, (2, 150))
A = graph.adjacency(np.stack([LEFT, RIGHT]), n=N)  # with loops and repeated edges
SETS = [set(LEFT[i == RIGHT].tolist()) for i in range(N)]
HUB = graph.adjacency(np.stack([np.arange(2000), np.zeros(2000, int)]), undirected=True)
U, V = rng.integers(0, N, (2, 60))


def test_common_neighbours_are_those_of_sets():
    counts = graph.common_neighbors(A, U, V)
    assert counts.tolist() == [len(SETS[u] & SETS[v]) for u, v in zip(U, V, strict=True)]
    assert (graph.common_neighbors(A, V, U) == counts).all()
    for which, of in (("both", set.intersection), ("u", set.difference), ("v", lambda a, b: b - a)):
        ids, indptr = graph.common_neighbor_ids(A, torch.from_numpy(U), torch.from_numpy(V), which)
        for i, (u, v) in enumerate(zip(U, V, strict=True)):
            assert ids[indptr[i] : indptr[i + 1]].tolist() == sorted(of(SETS[u], SETS[v]))
    assert graph.common_neighbors(HUB, np.array([0, 0]), np.array([7, 0])).tolist() == [1, 2000]
    ids, _ = graph.common_neighbor_ids(HUB, np.array([5]), np.array([0]), "v")  # a short row beside a long one
    assert ids.tolist() == list(range(1, 2000))
    g = nx.karate_club_graph()
    u, v = np.array(g.edges).T
    assert graph.common_neighbors(g, u, v).sum() == sum(nx.triangles(g).values())


def test_likeness_of_rows():
    got = graph.edge_jaccard(A, U, V)
    want = [len(SETS[u] & SETS[v]) / max(len(SETS[u] | SETS[v]), 1) for u, v in zip(U, V, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-15)
    s = rng.standard_normal((N, 9)) * (rng.random((N, 9)) < 0.4)
    s[3] = 0
    norms = np.linalg.norm(s, axis=1)
    size = norms[U] * norms[V]
    cosine = np.where(size > 0, (s[U] * s[V]).sum(1) / np.where(size > 0, size, 1), 0)
    np.testing.assert_allclose(graph.edge_cosine(sp.csr_array(s), U, V), cosine, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("apart", [1, 1 << 14, 1 << 33])
def test_rows_of_any_length_beside_each_other(apart):
    """Rows that are marked, searched and stepped along, with columns that have bits and such as are too far apart for them."""
    of = np.random.default_rng(3)
    sizes = np.array([0, 1, 2, 3, 5, 9, 30, 31, 400, 3000])
    rows = [np.sort(of.choice(4000, size, replace=False)) for size in sizes]
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    s = sp.csr_array((of.standard_normal(indptr[-1]), np.concatenate(rows) * apart, indptr), (len(sizes), 4000 * apart))
    # all pairs in any order, among them many that share a row and one that shares none
    u, v = of.permuted(np.stack(np.divmod(np.arange(len(sizes) ** 2), len(sizes))), axis=1)[:, :70]
    for at in (slice(None), slice(3, 4)):
        pairs = [(rows[i], rows[j]) for i, j in zip(u[at], v[at], strict=True)]
        want = [len(np.intersect1d(*x)) / max(len(np.union1d(*x)), 1) for x in pairs]
        np.testing.assert_allclose(graph.edge_jaccard(s, u[at], v[at]), want, rtol=1e-15)
        dense = np.zeros((len(sizes), 4000))
        dense[np.repeat(np.arange(len(sizes)), sizes), s.indices // apart] = s.data
        norms = np.maximum(np.linalg.norm(dense, axis=1), 1e-300)
        want = (dense[u[at]] * dense[v[at]]).sum(1) / norms[u[at]] / norms[v[at]]
        np.testing.assert_allclose(graph.edge_cosine(s, u[at], v[at]), want, rtol=1e-12, atol=1e-14)


def test_members_come_in_the_order_of_pairs_and_columns():
    u, v = np.random.default_rng(4).integers(0, 2000, (2, 9000))
    u[::7] = v[3::11] = 0  # many pairs name the hub
    sets = [set(range(2000)), *({0} for _ in range(1999))]
    for which, of in (("both", set.intersection), ("u", set.difference), ("v", lambda a, b: b - a)):
        ids, indptr = graph.common_neighbor_ids(HUB, u, v, which)
        for i in range(0, len(u), 37):
            assert ids[indptr[i] : indptr[i + 1]].tolist() == sorted(of(sets[u[i]], sets[v[i]]))
    assert (np.diff(indptr) == [len(sets[b] - sets[a]) for a, b in zip(u, v, strict=True)]).all()


def test_common_neighbours_are_pooled():
    x = rng.standard_normal((N, 3))
    both = [sorted(SETS[u] & SETS[v]) for u, v in zip(U, V, strict=True)]
    want = np.stack([x[ids].sum(0) for ids in both])
    np.testing.assert_allclose(graph.cn_pool(A, U, V, x), want, rtol=1e-12, atol=1e-13)
    table = rng.random((N, N))
    for i, (u, v) in enumerate(zip(U, V, strict=True)):
        want[i] += sum(table[v, w] * x[w] for w in SETS[u] - SETS[v])
        want[i] += sum(table[u, w] * x[w] for w in SETS[v] - SETS[u])
    got = graph.cn_pool(A, U, V, x, complete=lambda a, w: table[a, w])
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)
    leaves = [torch.from_numpy(t).requires_grad_() for t in (x, table)]
    assert torch.autograd.gradcheck(
        lambda x, t: graph.cn_pool(A, U[:5], V[:5], x, complete=lambda a, w: graph.ncnc_weights(t[a, w])), leaves
    )
    p0 = 1 / (1 + np.exp(-5 * (0.7 - 3)))
    assert abs(graph.ncnc_weights(np.array([0.7]))[0] - 0.5 * p0 / (0.5 * p0 + 1 - p0)) < 1e-15


def dense_attention(q, k, v, clamp=5.0, eps=1e-6):
    s = torch.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5
    w = s.clamp(-clamp, clamp).exp() * torch.from_numpy(A.to_dense()).to(q.dtype)
    return torch.einsum("hij,jhe->ihe", w / (w.sum(-1, keepdim=True) + eps), v)


def test_attention_is_that_of_the_dense_matrix():
    q, k, v = (torch.randn(N, 2, d, dtype=torch.float64, requires_grad=True) for d in (3, 3, 5))
    want, got = dense_attention(q, k, v, 0.6), graph.edge_attention(A, q, k, v, clamp=0.6)
    torch.testing.assert_close(got, want)
    g = torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, (q, k, v), g), torch.autograd.grad(want, (q, k, v), g), strict=True):
        torch.testing.assert_close(a, b)
    one = [x[:, 0].detach().numpy() for x in (q, k, v)]
    np.testing.assert_allclose(graph.edge_attention(A, *one, clamp=0.6), got[:, 0].detach(), rtol=1e-12)
    assert not graph.edge_attention(A, *one)[[not s for s in SETS]].any()


@pytest.mark.parametrize("metric", ["l2", "inner", "cosine", "hyperbolic"])
def test_neighbours_are_those_of_all_pairs(metric):
    x, q = rng.standard_normal((90, 5)) * 0.2, rng.standard_normal((31, 5)) * 0.2
    x[3] = 0
    norm = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)
    pairs = {
        "l2": lambda: np.linalg.norm(q[:, None] - x, axis=-1),
        "inner": lambda: -q @ x.T,
        "cosine": lambda: 1 - q @ x.T / np.where(norm > 0, norm, 1),
        "hyperbolic": lambda: hyperbolic.cdist(q, x, 0.8),
    }[metric]()
    for mask in (None, rng.random(90) < 0.3):
        live = pairs if mask is None else np.where(mask, pairs, np.inf)
        want = np.argsort(live, 1, kind="stable")[:, :7]
        ids, d = graph.knn(x, 7, metric, queries=q, filter=mask, c=0.8)
        assert (ids == want).all()
        sign = -1 if metric == "inner" else 1
        np.testing.assert_allclose(d, sign * np.take_along_axis(pairs, want, 1), rtol=1e-10, atol=1e-12)


def test_filters_and_ends():
    x = rng.standard_normal((20, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 20)
    ids, d = graph.knn(x, 19, filter=(labels, labels))
    for i in range(20):
        mates = np.flatnonzero((labels == labels[i]) & (np.arange(20) != i))
        assert sorted(ids[i][ids[i] >= 0]) == mates.tolist() and np.isnan(d[i][ids[i] < 0]).all()
    t = graph.knn(torch.from_numpy(x), 2)
    assert (t.ids.numpy() == graph.knn(x, 2).ids).all()
    assert graph.knn(np.zeros((4, 2)), 3).ids.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    edges = graph.knn_edges(x, 2)
    assert (edges[0].reshape(20, 2) == graph.knn(x, 2, "cosine").ids).all() and (edges[1] == np.arange(40) // 2).all()
    assert graph.knn_edges(torch.from_numpy(x), 2).tolist() == edges.tolist()
    assert graph.knn(x[:1], 2).ids.tolist() == [[-1, -1]]


@pytest.mark.parametrize("bits", [1, 63, 64, 65, 200])
def test_codes(bits):
    a = (rng.random((50, bits)) < 0.5) * 1.0
    codes = graph.pack_bits(a - 0.5)
    assert codes.shape == (50, -(-bits // 64))
    packed = np.unpackbits(codes.view(np.uint8), axis=1, bitorder="little")
    assert (packed[:, :bits] == a).all() and not packed[:, bits:].any()
    pairs = (a[:, None] != a).sum(-1).astype(float)
    np.fill_diagonal(pairs, np.inf)
    want = np.argsort(pairs, 1, kind="stable")[:, :5]
    ids, d = graph.hamming_knn(codes, k=5)
    assert (ids == want).all() and (d == np.take_along_axis(pairs, want, 1)).all()
    t = torch.from_numpy(codes)
    assert graph.hamming_knn(t, t[:3], 50).ids[:, 0].tolist() == [np.argmin((a != a[i]).any(1)) for i in range(3)]
    assert graph.hamming_knn(codes[:2], k=3).distances[0, 1:].tolist() == [-1, -1]
    _, _, counts = graph.unique_codes(codes)
    assert sorted(counts) == sorted(np.unique(a, axis=0, return_counts=True)[1])


def test_dimension_of_data():
    x = np.random.default_rng(1).standard_normal((2000, 5)) @ np.random.default_rng(2).standard_normal((5, 50))
    assert 4.7 < graph.id_mle(x) < 5.2 and 4.7 < graph.id_mle(x, average="mean") < 5.3
    assert abs(graph.id_mle(x, divisor=18) * 18 / 19 - graph.id_mle(x) * (18 / 19) ** 2) < 1e-9
    assert abs(graph.id_twonn(x) - 5) < 5 * 0.144
    assert abs(graph.id_mle(3 * x + 1) - graph.id_mle(x)) < 1e-6
    twice = np.concatenate([x[:200], x[:50]])
    assert np.isfinite(graph.id_mle(twice)) and np.isfinite(graph.id_twonn(twice, trim=0.1))


def test_encodings():
    for g in (nx.karate_club_graph(), nx.barbell_graph(300, 20)):
        n = len(g)
        vectors, values, residuals = graph.laplacian_pe(g, 3)
        a = nx.to_numpy_array(g, weight=None)
        d = a.sum(1) ** -0.5
        laplacian = np.eye(n) - d[:, None] * a * d
        want = np.linalg.eigvalsh(laplacian)[1:4]
        np.testing.assert_allclose(values, want, atol=1e-9)
        assert (residuals < 1e-8).all()
        np.testing.assert_allclose(laplacian @ vectors, vectors * values, atol=1e-8)
        top = abs(vectors).max(0)
        for j in range(3):
            assert vectors[np.flatnonzero(abs(vectors[:, j]) >= top[j] - 1e-6)[0], j] > 0
    lone = graph.laplacian_pe(np.array([[0, 1], [1, 0]]), 1)
    np.testing.assert_allclose(lone.values, [2], atol=1e-12)
    alone = graph.laplacian_pe(graph.adjacency(np.array([[0, 1], [1, 0]]), n=3), 2)
    np.testing.assert_allclose(alone.values, [1, 2], atol=1e-12)


def test_the_example_says_what_it_claims():
    """Embeddings of a graph of neighbours know more of its nodes than what they are made of."""
    pytest.importorskip("sklearn")
    example = runpy.run_path(str(Path(__file__).parent.parent / "examples/graph_nodes.py"))
    found = example["run"]()
    assert found["FastRP"] > found["pixels"] + 0.03 and found["SGC"] > found["pixels"] + 0.03
    assert found["most frequent digit"] < 0.15
    assert min(example["club"](seed=seed) for seed in range(3)) > 0.9


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: graph.common_neighbors(A, U, V[:3]), ValueError, "u has 60 nodes, v 3"),
        (lambda: graph.common_neighbors(A, np.array([40]), np.array([0])), ValueError, r"u\[0\] = 40 is outside 0..39"),
        (lambda: graph.common_neighbors(A, U * 1.0, V), TypeError, "u must be of .*float64"),
        (lambda: graph.common_neighbor_ids(A, U, V, "w"), ValueError, "'w'"),
        (lambda: graph.cn_pool(A, U, V, np.ones((3, 2))), ValueError, r"\[40, d\], got shape \(3, 2\)"),
        (lambda: graph.edge_attention(A, *np.ones((3, 9, 2))), ValueError, "beside 40 nodes"),
        (lambda: graph.edge_attention(A, *np.ones((3, N, 2)), clamp=0), ValueError, "clamp must be positive, got 0"),
        (
            lambda: graph.cn_pool(A, U, V, np.ones((40, 2)), complete=3),
            TypeError,
            "complete must be callable or None, got int",
        ),
        (
            lambda: graph.cn_pool(A, U, V, np.ones((40, 2)), complete=lambda a, _: np.ones(len(a), "f4")),
            TypeError,
            "complete must give a ndarray of float64 like X, got a ndarray of float32",
        ),
        (lambda: graph.ncnc_weights(np.ones(2), scale=np.inf), ValueError, "scale must be finite, got inf"),
        (lambda: graph.ncnc_weights(np.ones(2), pt=2), ValueError, "pt must be between 0 and 1, got 2"),
        (lambda: graph.knn(np.ones((3, 2)), 1, "l1"), ValueError, "'l1'"),
        (lambda: graph.knn(np.ones((3, 2)), -1), ValueError, "k must not be negative, got -1"),
        (lambda: graph.knn(np.ones((3, 2)), 1, queries=np.ones((3, 4))), ValueError, r"\(3, 2\) and \(3, 4\)"),
        (lambda: graph.knn(np.ones((3, 2)), 1, filter=np.ones(2, bool)), ValueError, r"3, got shape \(2,\)"),
        (lambda: graph.knn(np.ones((3, 2)), 1, "hyperbolic", c=-1), ValueError, "curvature"),
        (lambda: graph.knn_edges(np.ones((3, 2)), -1), ValueError, "^knn_edges: k must not"),
        (lambda: graph.hamming_knn(np.ones((3, 2), np.int64)), TypeError, "uint64.*int64"),
        (lambda: graph.hamming_knn(np.ones((3, 2), np.uint64), np.ones((3, 1), np.uint64)), ValueError, "2 words.* 1"),
        (lambda: graph.id_mle(np.ones((3, 2))), ValueError, "k must be between 3 and the 2"),
        (lambda: graph.id_twonn(np.full((9, 2), np.nan)), ValueError, "non-finite"),
        (lambda: graph.laplacian_pe(np.array([[0], [1]]), 1), ValueError, r"symmetric, A\[0, 1\] = 0, A\[1, 0\] = 1"),
        (lambda: graph.laplacian_pe(nx.path_graph(3), 3), ValueError, "below the 3 nodes, got 3"),
    ],
)
def test_what_is_refused_is_named(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_cosines_of_any_size_and_of_none():
    s = sp.csr_array(np.array([[1e200, 1e200], [1e200, 0], [1e-200, 1e-200], [np.nan, 1], [0, 0]]))
    u, v = np.array([0, 0, 1, 0, 0]), np.array([1, 2, 2, 3, 4])
    got = graph.edge_cosine(s, u, v)
    np.testing.assert_allclose(got, [0.5**0.5, 1, 0.5**0.5, np.nan, 0], rtol=1e-15)


@pytest.mark.filterwarnings("error")
def test_weights_of_scores_that_are_sure():
    p = np.array([-1e3, 1e3, 3.0])
    np.testing.assert_allclose(graph.ncnc_weights(p), [0, 1, 1 / 3], rtol=1e-15)
    assert graph.ncnc_weights(p, pt=0).tolist() == [0, 0, 0] and graph.ncnc_weights(torch.tensor(p), pt=0).sum() == 0


def test_many_nodes_without_edges_have_places():
    vectors, values, residuals = graph.laplacian_pe(sp.csr_array((600, 600)), 2)
    assert values.tolist() == [1, 1] and not residuals.any() and (vectors.T @ vectors == np.eye(2)).all()


def test_references_of_nearest_rows_score_some_at_a_time(monkeypatch):
    """What a GPU runs: of any room the same, and at curvature 0, outside the ball and with ties what the kernel gives."""
    from tersor import _body
    from tersor.graph import _near

    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.concatenate([rng.uniform(-0.5, 0.5, (9, 3)), np.full((2, 3), 0.1), [[2.0, 0, 0]]]))
    codes = torch.from_numpy(graph.pack_bits(rng.random((12, 7)) < 0.5))
    for room in (1, 40, 1 << 24):
        monkeypatch.setattr(_near, "ROOM", room)
        for metric in range(4):
            for c in (0.0, 1.0):
                want = graph.knn(x, 4, _near.METRICS[metric], c=c)
                made = [torch.empty(12, 4, dtype=torch.float64), torch.empty(12, 4, dtype=torch.int64)]
                none = torch.empty(0)
                _body.plain(_near._nearest.op, x, x, torch.tensor(c).double(), none, none, *made, metric, 4, True)
                distances = 1 - made[0] if metric == 2 else made[0]
                torch.testing.assert_close(distances, want.distances, rtol=1e-12, atol=1e-12, equal_nan=True)
                if metric != 2:  # cosines of equal rows differ by rounding
                    assert torch.equal(made[1], want.ids)
        made = [torch.empty(12, 20, dtype=torch.int64), torch.empty(12, 20, dtype=torch.int64)]
        _body.plain(_near._hamming.op, codes, codes, *made, 20, True)
        want = graph.hamming_knn(codes, k=20)
        assert torch.equal(made[0], want.distances) and torch.equal(made[1], want.ids)


@pytest.mark.parametrize("metric", ["l2", "inner", "cosine"])
@pytest.mark.parametrize("lift", [np.asarray, torch.from_numpy])
def test_rows_whose_squares_leave_float64(lift, metric):
    x = np.random.default_rng(5).standard_normal((12, 3))
    x[3] = 0
    want = graph.knn(x, 4, metric)
    for power in (-1060, -600, 600, 1000):
        got = graph.knn(lift(np.ldexp(x, power)), 4, metric)
        if power > -1000:  # subnormal rows have fewer digits
            assert np.asarray(got.ids).tolist() == want.ids.tolist()
        if metric == "cosine":
            np.testing.assert_allclose(got.distances, want.distances, rtol=1e-3 if power < -1000 else 1e-12, atol=1e-12)
        elif metric == "l2" and power > -1000:
            np.testing.assert_array_equal(got.distances, np.ldexp(want.distances, power))
    if metric == "cosine":  # each row by itself
        apart = np.ldexp(x, np.arange(-600, 600, 100)[:, None])
        assert np.asarray(graph.knn(lift(apart), 4, metric).ids).tolist() == want.ids.tolist()
