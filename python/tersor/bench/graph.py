"""Graphs against what SciPy, torch and NumPy do for the same edges. The one rule: peers get their matrix before the clock
starts, as ours has its own."""

import numpy as np

from tersor import graph
from tersor.bench import Case, Target


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


def fastrp_100000() -> Case:
    n, d = 100_000, 128
    a = graph.adjacency(_scale_free(n, 10))
    peer = a.to_scipy()

    def scipy() -> np.ndarray:
        rng = np.random.default_rng(0)
        s = np.sqrt(n)
        at = rng.random((n, d), np.float32)
        h = np.where(at < 0.5 / s, 1, np.where(at > 1 - 0.5 / s, -1, 0)).astype(np.float32)
        per = (1 / np.maximum(np.asarray(peer.sum(1)).reshape(-1, 1), 1)).astype(np.float32)
        total = np.zeros_like(h)
        for w in (1.0, 1.0, 6.0):
            h = per * (peer @ h)
            total += w * h / np.maximum(np.linalg.norm(h, axis=1, keepdims=True), 1e-30)
        return (total - total.mean(0)) / total.std(0)

    return Case(
        f"fastrp {n} nodes, {a.nnz} edges, {d} numbers, three hops",
        {"tersor": lambda: graph.fastrp(a, d, [1, 1, 6]), "scipy": scipy},
        traffic=8 * n * d,
        targets=[Target("tersor", ("scipy",), 1 / 2)],
    )


def common_65536() -> Case:
    edges = _scale_free(100_000, 10)
    a = graph.adjacency(edges)
    at = np.random.default_rng(0).integers(0, edges.shape[1], 65536)
    u, v = edges[:, at]
    peer = a.to_scipy()

    return Case(
        "common_neighbors of 65536 edges, 100000 nodes",
        {
            "tersor": lambda: graph.common_neighbors(a, u, v),
            "scipy rows": lambda: peer[u].multiply(peer[v]).sum(1),
        },
        traffic=16 * len(u),
        targets=[Target("tersor", ("scipy rows",), 1 / 2)],
    )


def hamming_1024() -> Case:
    import torch

    bits = np.random.default_rng(0).random((20_000, 1024)) < 0.5
    codes, signs = graph.pack_bits(bits), torch.from_numpy(np.where(bits, 1, -1).astype(np.float32))
    return Case(
        "hamming_knn 1024 bits, 1000 queries, 20000 codes, the nearest 10",
        {
            "tersor": lambda: graph.hamming_knn(codes, codes[:1000], 10),
            "torch product and topk": lambda: (signs[:1000] @ signs.T).topk(10),
        },
        traffic=codes.nbytes,
        targets=[Target("tersor", ("torch product and topk",), 1 / 2)],
    )


CASES = [propagate_hop, fastrp_100000, common_65536, hamming_1024]

HEADLINE = propagate_hop
