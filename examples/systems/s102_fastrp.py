"""FastRP (row 102): nodes are told apart by weighted sums of hops of a very sparse random matrix. The rule: nothing is learned
but the classifier, and nothing of the images is seen but who is near whom.
"""

from __future__ import annotations

import numpy as np
from _common import digit_graph, main
from tersor import graph, project

SYSTEM = {
    "row": 102,
    "title": "Fast and Accurate Network Embeddings via Very Sparse Random Projection",
    "mechanism": "U_i = (D^-1 A)^i D^alpha R, R very sparse (one number in sqrt(n)), sum of w_i U_i / |U_i| by rows, columns "
    "standardised; a linear classifier on it",
    "evidence": "V",
    "functions": ["tersor.graph.fastrp", "tersor.project.ridge_path", "tersor.graph.knn_edges"],
    "data": "sklearn.datasets.load_digits, 1000 images as the nodes of their 6 nearest neighbours' graph, half labelled",
    "claims": [
        ["over_one_hop", ">=", 0.08],
        ["over_drawn", ">=", 0.5],
        ["sparse_cost", "<=", 0.03],
        ["by_hand_apart", "<=", 1e-4],
    ],
    "figure": "accuracy",
    "seconds": 30,
}
DIM, WEIGHTS, ALPHA = 128, [0.0, 0.5, 1.0, 2.0], -0.6
PENALTIES = [1.0, 10.0, 100.0, 1000.0]


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    _, y, a, known, other = digit_graph(split, labels=50)
    n, known, other = len(y), known.numpy(), other.numpy()
    wanted = np.eye(10)[y.numpy()] - 0.1

    def accuracy(u: np.ndarray) -> float:
        u = np.concatenate([u.astype(np.float64), np.ones((n, 1))], 1)
        coef, loo = project.ridge_path(u[known], wanted[known], PENALTIES)
        return float(((u[other] @ coef[loo.mean(1).argmin()]).argmax(1) == y.numpy()[other]).mean())

    def embed(weights: list[float], s: float | None = None) -> np.ndarray:
        return graph.fastrp(a, DIM, weights, alpha=ALPHA, s=s, seed=seed).numpy()

    found = {
        "accuracy": accuracy(embed(WEIGHTS)),
        "one_hop": accuracy(embed([1.0])),
        "dense": accuracy(embed(WEIGHTS, s=1.0)),
        "drawn": accuracy(np.random.default_rng(seed).standard_normal((n, DIM))),
    }
    # the same with a stored matrix
    m = a.to_dense().numpy().astype(np.float64)
    degrees = m.sum(1)
    drawn = project.Projection(n, DIM, "sparse", seed=seed).materialise(np.float64).T
    u, total = drawn * degrees[:, None] ** ALPHA, 0.0
    for w in WEIGHTS:
        u = m @ u / degrees[:, None]
        lengths = np.linalg.norm(u, axis=1, keepdims=True)
        total = total + w * u / np.where(lengths > 0, lengths, 1)
    by_hand = (total - total.mean(0)) / total.std(0)
    return {
        **found,
        "over_one_hop": found["accuracy"] - found["one_hop"],
        "over_drawn": found["accuracy"] - found["drawn"],
        "sparse_cost": found["dense"] - found["accuracy"],
        "by_hand_apart": float(abs(embed(WEIGHTS) - by_hand).max()),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
