"""Graphs against what SciPy, torch and NumPy do for the same edges. The one rule: peers get their matrix before the clock
starts, as ours has its own."""

import numpy as np

from tersor import graph
from tersor.bench import Call, Case, Target, peer


def _scale_free(n: int, m: int, seed: int = 0) -> np.ndarray:
    """Edges [2, 2·n·m] of a graph that grew: a new node points to the ends of m edges that there are (Barabási and Albert)."""
    rng = np.random.default_rng(seed)
    source, target = np.repeat(np.arange(n), m), np.zeros(n * m, np.int64)
    draw = rng.random(n * m)
    for i in range(1, n):
        part = slice(i * m, (i + 1) * m)
        at = (draw[part] * 2 * i * m).astype(np.int64)
        target[part] = np.where(at < i * m, source[at % (i * m)], target[at % (i * m)])
    return np.concatenate([np.stack([source, target]), np.stack([target, source])], 1)


def propagate_hop() -> Case:
    import torch

    n, f = 100_000, 128
    a = graph.normalized_adjacency(_scale_free(n, 10), "sym")
    x = np.random.default_rng(0).standard_normal((n, f), np.float32)
    out, scipy_a, torch_a, torch_x = np.empty_like(x), a.to_scipy(), a.to_torch(), torch.from_numpy(x)
    return Case(
        f"propagate f32, one hop, {n} nodes, {a.nnz} edges, {f} features",
        {
            "tersor": lambda: graph.propagate(a, x, 1, "none", out=out),
            "scipy": lambda: scipy_a @ x,
            "torch csr": lambda: torch_a @ torch_x,
        },
        traffic=2 * x.nbytes,
        targets=[Target("tersor", ("scipy",), 1 / 2), Target("tersor", ("torch csr",), 1 / 2)],
    )


def _rmat(scale: int, m: int, seed: int = 0) -> np.ndarray:
    """Edges [2, m] among 2^scale nodes, drawn bit by bit, .57, .19, .19, .05 (Chakrabarti, Zhan, Faloutsos 2004)."""
    rng, edges = np.random.default_rng(seed), np.zeros((2, m), np.int64)
    for _ in range(scale):
        draw = rng.random(m)
        edges = 2 * edges + np.stack([draw >= 0.76, (draw >= 0.57) & (draw < 0.76) | (draw >= 0.95)])
    return edges


def fastrp_rmat() -> Case:
    """Beside the formula of the authors' code in SciPy, float64 and a sparse first product as there, and the package fastrp."""
    n, d, weights, alpha = 1 << 17, 128, [0.0, 1.0, 6.0], -0.5
    edges = _rmat(17, 1_200_000)
    a = graph.adjacency(edges, n=n, undirected=True)
    theirs = a.to_scipy().astype(np.float64)

    def official() -> np.ndarray:
        from scipy import sparse
        from sklearn.preprocessing import normalize, scale
        from sklearn.random_projection import SparseRandomProjection

        sums = np.asarray(theirs.sum(1)).ravel()
        inverse = np.divide(1, sums, where=sums > 0, out=np.zeros(n))
        m = (sparse.diags_array(inverse) @ theirs).tocsc()
        power = np.power(sums, alpha, where=sums > 0, out=np.zeros(n))
        r = SparseRandomProjection(d, random_state=42).fit(m).components_ @ sparse.diags_array(power)
        h, total = m @ r.T, np.zeros((n, d))
        for i, w in enumerate(weights):
            h = m @ h if i else h
            total += w * np.asarray(normalize(h).todense() if sparse.issparse(h) else normalize(h))
        return np.asarray(scale(total))

    def package() -> Call:
        import fastrp

        b = theirs.astype(np.float32)
        return lambda: fastrp.fit_csr(b.indptr, b.indices, b.data, n, d, weights=weights, seed=0, undirected=False)

    return Case(
        f"fastrp of an RMAT graph, {n} nodes, {a.nnz} edges, {d} numbers, three hops",
        {
            "tersor": lambda: graph.fastrp(a, d, weights, alpha=alpha),
            "authors' formula": official,
            "fastrp": peer(package),
        },
        traffic=8 * n * d,
        targets=[Target("tersor", ("authors' formula",), 1 / 8), Target("tersor", ("fastrp",), 1 / 2)],
    )


def fastrp_large() -> Case:
    """Twenty million edges of a million nodes beside a tenth of both: time and memory grow with them, two arrays of n·d."""
    d, weights = 128, [0.0, 1.0, 6.0]
    large, small = (
        graph.adjacency(_rmat(scale, m), n=1 << scale, undirected=True) for scale, m in ((20, 10**7), (17, 10**6))
    )
    part = large.nnz / small.nnz

    def many() -> None:
        for _ in range(round(part)):
            graph.fastrp(small, d, weights, alpha=-0.5)

    return Case(
        f"fastrp of an RMAT graph, {1 << 20} nodes, {large.nnz} edges, {d} numbers; {round(part)} times one of {small.nnz}",
        {"tersor": lambda: graph.fastrp(large, d, weights, alpha=-0.5), "tersor, small ones": many},
        traffic=8 * (d << 20),
        targets=[Target("tersor", ("tersor, small ones",), 2.0)],
        memory=["tersor"],
        items=d << 20,
    )


def common_65536() -> Case:
    edges = _scale_free(100_000, 10)
    a = graph.adjacency(edges)
    at = np.random.default_rng(0).integers(0, edges.shape[1], 65536)
    u, v = edges[:, at]
    theirs = a.to_scipy()

    def graphblas() -> Call:
        import graphblas as gb

        b = gb.io.from_scipy_sparse(theirs)
        mask = gb.Matrix.from_coo(u, v, True, nrows=b.nrows, ncols=b.ncols)  # an edge that is asked twice is one
        c = gb.Matrix(gb.dtypes.INT64, b.nrows, b.ncols)

        def call() -> None:
            c(mask.S, replace=True) << gb.semiring.plus_pair(b @ b.T)

        return call

    return Case(
        "common_neighbors of 65536 edges, 100000 nodes",
        {
            "tersor": lambda: graph.common_neighbors(a, u, v),
            "scipy rows": lambda: theirs[u].multiply(theirs[v]).sum(1),
            "GraphBLAS": peer(graphblas),
        },
        traffic=16 * len(u),
        targets=[Target("tersor", ("GraphBLAS",), 1 / 1.2), Target("tersor", ("scipy rows",), 1 / 2)],
    )


def hamming_1024() -> Case:
    import torch

    bits = np.random.default_rng(0).random((20_000, 1024)) < 0.5
    codes, signs = graph.pack_bits(bits), torch.from_numpy(np.where(bits, 1, -1).astype(np.float32))

    def faiss() -> Call:
        import faiss as library

        library.omp_set_num_threads(1)
        packed = np.packbits(bits, -1)
        index = library.IndexBinaryFlat(1024)
        index.add(packed)
        return lambda: index.search(packed[:1000], 10)

    return Case(
        "hamming_knn 1024 bits, 1000 queries, 20000 codes, the nearest 10",
        {
            "tersor": lambda: graph.hamming_knn(codes, codes[:1000], 10),
            "torch product and topk": lambda: (signs[:1000] @ signs.T).topk(10),
            "faiss": peer(faiss),
        },
        traffic=codes.nbytes,
        targets=[Target("tersor", ("faiss",), 1 / 1.3), Target("tersor", ("torch product and topk",), 1 / 2)],
    )


CASES = [propagate_hop, fastrp_rmat, common_65536, hamming_1024]

#: with what takes minutes and some GB
ALL = [*CASES, fastrp_large]

HEADLINE = propagate_hop
