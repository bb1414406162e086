"""Neural common neighbours (row 85): a link is told by what its two ends have around them in common, and what a graph lacks is
filled in by the model's own guesses. The rule: ends alone, with neighbours, with completion: the same perceptron.
"""

from __future__ import annotations

import torch
from _common import digits, main, seeded, train
from tersor import graph
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

SYSTEM = {
    "row": 85,
    "title": "Neural Common Neighbor with Completion for Link Prediction",
    "mechanism": "MLP(x_i x_j | sum of x_w over common neighbours w); then neighbours of one end alone are added with the "
    "weight that the first model gives the edge that would make them common (by a sigmoid)",
    "evidence": "V",
    "functions": ["tersor.graph.cn_pool", "tersor.graph.ncnc_weights", "tersor.graph.knn_edges"],
    "data": "sklearn.datasets.load_digits, the 6 nearest of 800 images seen by 8 pixels; 40 % of the edges are seen",
    "claims": [["over_ends", ">=", 0.04], ["completed", ">=", 0.002], ["over_counts", ">=", 0.025]],
    "figure": "auc",
    "seconds": 60,
}
N = 800


def auc(score: Tensor, label: Tensor) -> float:
    """How often an edge has more than no edge; half of a tie."""
    one, zero = score[label == 1][:, None], score[label == 0][None]
    return float(((one > zero).double() + 0.5 * (one == zero)).mean())


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, _, _ = digits(split, N)
    generator = torch.Generator().manual_seed(seed)
    near = graph.knn_edges(x, 6).sort(0).values
    edges = torch.unique(near, dim=1)
    edges = edges[:, torch.randperm(edges.shape[1], generator=generator)]
    m = edges.shape[1]
    seen, lesson, exam = edges.tensor_split([4 * m // 10, 7 * m // 10], 1)
    code = set((edges[0] * N + edges[1]).tolist())
    pairs = torch.randint(N, (2, 40 * m), generator=generator)
    pairs = pairs[:, (pairs[0] < pairs[1]) & (y[pairs[0]] == y[pairs[1]])]  # of one class: not told by the class alone
    fresh = torch.tensor([c not in code for c in (pairs[0] * N + pairs[1]).tolist()])
    none = torch.unique(pairs[:, fresh], dim=1)
    none = none[:, torch.randperm(none.shape[1], generator=generator)]
    a = graph.adjacency(seen, n=N, undirected=True)
    degree = 1 + torch.bincount(seen.flatten(), minlength=N).float()
    few = x[:, torch.randperm(64, generator=generator)[:8]]
    inputs = torch.cat([torch.ones(N, 1), degree[:, None] ** -0.5, few], 1)

    def told(u: Tensor, v: Tensor, pooled: Tensor | None) -> Tensor:
        ends = inputs[u] * inputs[v]
        return torch.cat([ends, torch.zeros_like(ends) if pooled is None else pooled], 1)

    def fitted(make: object) -> tuple[nn.Module, Tensor, Tensor]:
        """A perceptron on pairs as they are told, its scores of the exam, and the labels."""
        sets = []
        for positive, part in ((lesson, none[:, : lesson.shape[1]]), (exam, none[:, -exam.shape[1] :])):
            u, v = torch.cat([positive, part], 1)
            label = torch.cat([torch.ones(positive.shape[1]), torch.zeros(part.shape[1])])
            sets.append((told(u, v, make(u, v)), label))
        (z, label), (tz, tlabel) = sets
        net = seeded(nn.Sequential(nn.Linear(2 * inputs.shape[1], 32), nn.ReLU(), nn.Linear(32, 1)), seed)
        train(
            net,
            lambda i: binary_cross_entropy_with_logits(net(z[i])[:, 0], label[i]),
            len(z),
            steps=300,
            rate=5e-3,
            seed=seed,
        )
        with torch.no_grad():
            return net, net(tz)[:, 0], tlabel

    _, ends, label = fitted(lambda u, v: None)
    ncn, common, _ = fitted(lambda u, v: graph.cn_pool(a, u, v, inputs))

    @torch.no_grad()
    def missing(u: Tensor, v: Tensor) -> Tensor:
        p = ncn(told(u, v, graph.cn_pool(a, u, v, inputs)))[:, 0].sigmoid()
        return graph.ncnc_weights(p, scale=8.0, offset=0.7)

    _, completed, _ = fitted(lambda u, v: graph.cn_pool(a, u, v, inputs, complete=missing))
    u, v = torch.cat([exam, none[:, -exam.shape[1] :]], 1)
    counts = graph.cn_pool(a, u, v, torch.ones(N, 1))[:, 0]
    result = {
        "ends": auc(ends, label),
        "counts": auc(counts, label),
        "ncn": auc(common, label),
        "auc": auc(completed, label),
    }
    return {
        **result,
        "over_ends": result["ncn"] - result["ends"],
        "over_counts": result["ncn"] - result["counts"],
        "completed": result["auc"] - result["ncn"],
    }


if __name__ == "__main__":
    main(SYSTEM, run)
