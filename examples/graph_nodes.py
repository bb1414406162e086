"""Handwritten digits as nodes of their nearest-neighbour graph: FastRP embeds the nodes without a pixel or a label, a linear
classifier learns a tenth of the labels from the embedding; and SGC carries the pixels themselves over the same graph. And a
graph that somebody drew by hand: which side the members of Zachary's karate club went, each told from the other 33.

    python examples/graph_nodes.py [--neighbors 10] [--dim 128] [--share 0.1] [--seed 0]

The one rule: the graph is made once, and both methods read the same matrix.

Measured, a tenth of the labels, seed 0: pixels alone 0.894, FastRP 0.967, SGC 0.963. The club, nine seeds: 33 of 34, all but
the one whom nearly every method misses.
"""

from __future__ import annotations

import argparse

import networkx
import numpy as np
from sklearn.datasets import load_digits
from tersor import graph


def linear(x: np.ndarray, y: np.ndarray, known: np.ndarray, penalty: float = 1e-2) -> float:
    """Accuracy on the other nodes of least squares on those that are known."""
    x = np.concatenate([x, np.ones((len(x), 1))], 1).astype(np.float64)
    a, b = x[known], np.eye(y.max() + 1)[y[known]]
    w = np.linalg.solve(a.T @ a + penalty * len(a) * np.eye(a.shape[1]), a.T @ b)
    return float(((x @ w).argmax(1) == y)[~known].mean())


def run(neighbors: int = 10, dim: int = 128, share: float = 0.1, seed: int = 0) -> dict[str, float]:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    known = np.random.default_rng(seed).random(len(y)) < share
    a = graph.adjacency(graph.knn_edges(x, neighbors), n=len(x), undirected=True)
    return {
        "pixels": linear(x, y, known),
        "FastRP": linear(graph.fastrp(a, dim, [0, 1, 1, 2], alpha=-0.5, seed=seed), y, known),
        "SGC": linear(graph.propagate(a, x, 4, self_loops=True), y, known),
        "most frequent digit": float(np.bincount(y[~known]).max() / (~known).sum()),
    }


def club(dim: int = 32, seed: int = 0) -> float:
    """The share of members whose side the others' tell, by least squares on FastRP of the club's graph."""
    g = networkx.karate_club_graph()
    y = np.array([int(g.nodes[v]["club"] == "Mr. Hi") for v in g])
    e = graph.fastrp(graph.adjacency(g, weights="weight"), dim, [1, 1, 2], alpha=-0.5, s=1, seed=seed)
    every = np.arange(len(y))
    return float(np.mean([linear(e, y, every != i, 0.3) for i in every]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--neighbors", type=int, default=10)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    for name, accuracy in run(**vars(parser.parse_args())).items():
        print(f"{name:20} {accuracy:.4f}")
    print(f"{'karate club':20} {club():.4f}")


if __name__ == "__main__":
    main()
