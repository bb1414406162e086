"""STABLE (row 123): a graph that was tampered with is mended by what its nodes look like, without a label. The rule: edges
between nodes that are not alike go, nodes of many edges get their nearest, and sums are taken with an own power of degrees.
"""

from __future__ import annotations

import numpy as np
import torch
from _common import accuracy, digit_graph, main, seeded, train
from scipy import sparse
from tersor import graph
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 123,
    "title": "Reliable Representations Make A Stronger Defender: Unsupervised Structure Refinement for Robust GNN",
    "mechanism": "drop edges whose ends have a cosine below a threshold, add the 3 nearest of each node, then D^a (A + I) D^a "
    "with a = -0.6 (what the nodes look like is their pixels; the contrastive pretext is left out)",
    "evidence": "V",
    "functions": ["tersor.graph.edge_cosine", "tersor.graph.knn_edges", "tersor.graph.normalized_adjacency"],
    "data": "sklearn.datasets.load_digits, 1000 images with edges to their 6 nearest and as many between classes",
    "claims": [
        ["over_attacked", ">=", 0.03],
        ["over_graphless", ">=", 0.005],
        ["dropped_bad", ">=", 0.8],
        ["dropped_good", "<=", 0.05],
    ],
    "figure": "accuracy",
    "seconds": 60,
}
CUT, POWER = 0.8, -0.6


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor, a: object) -> Tensor:
        return graph.propagate(a, self.two(graph.propagate(a, self.one(x), 1, "none").relu()), 1, "none")


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, _, known, other = digit_graph(split)
    n = len(x)
    good = graph.knn_edges(x, 6).numpy()
    rng = np.random.default_rng(seed)
    bad = rng.integers(n, size=(2, 4 * good.shape[1]))
    bad = bad[:, (y.numpy()[bad[0]] != y.numpy()[bad[1]])][:, : good.shape[1]]  # who attacks knows the classes
    edges = np.concatenate([good, bad], 1)
    alike = graph.edge_cosine(sparse.csr_array(x.numpy()), edges[0], edges[1])
    kept = alike >= CUT
    mended = np.concatenate([edges[:, kept], graph.knn_edges(x, 3).numpy()], 1)
    same = {"clean": good, "attacked": edges, "mended": mended}

    def learn(chosen: np.ndarray | None, power: float = -0.5) -> float:
        a = graph.adjacency(np.zeros((2, 0), int) if chosen is None else chosen, n=n, undirected=True)
        a = graph.normalized_adjacency(a, (power, power), self_loops=True)
        net = seeded(Net(), seed)
        train(net, lambda i: cross_entropy(net(x, a)[known], y[known]), 1, steps=100, rate=1e-2, seed=seed)
        with torch.no_grad():
            return accuracy(lambda rows: net(x, a)[rows], other, y[other])

    result = {name: learn(e, POWER if name == "mended" else -0.5) for name, e in same.items()}
    result["graphless"] = learn(None)
    return {
        **result,
        "accuracy": result["mended"],
        "over_attacked": result["mended"] - result["attacked"],
        "over_graphless": result["mended"] - result["graphless"],
        "of_clean": result["mended"] - result["clean"],
        "dropped_bad": float(1 - kept[good.shape[1] :].mean()),
        "dropped_good": float(1 - kept[: good.shape[1]].mean()),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
