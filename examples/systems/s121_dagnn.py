"""Deeper graph networks (row 121): what is learned and how far it is carried are two things, and each node says which hops it
wants. The rule: one small net before, K hops without a weight, a gate of one vector after.
"""

from __future__ import annotations

import itertools

import torch
from _common import accuracy, digit_graph, main, seeded, train
from tersor import graph
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 121,
    "title": "Towards Deeper Graph Neural Networks",
    "mechanism": "y = sum_k sigmoid(<H_k, s> + b) H_k, H_k = Â H_k-1 for k to 16, H_0 the classes of a perceptron; against a "
    "stack of as many layers relu(Â H W), against two of them, and against no graph",
    "evidence": "V",
    "functions": ["tersor.graph.propagate", "tersor.graph.normalized_adjacency", "tersor.graph.knn_edges"],
    "data": "sklearn.datasets.load_digits, 1000 images with edges to their 6 nearest, 3 labels of each class",
    "claims": [
        ["over_stack", ">=", 0.2],
        ["over_graphless", ">=", 0.05],
        ["over_two", ">=", 0.005],
        ["summed_apart", "<=", 1e-5],
    ],
    "figure": "accuracy",
    "seconds": 60,
}
HOPS = 16


class Gated(nn.Module):
    """A perceptron and a gated sum of hops."""

    def __init__(self, a: object, hops: int) -> None:
        super().__init__()
        self.a, self.hops = a, hops
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        self.gate, self.bias = nn.Parameter(torch.zeros(10)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return graph.propagate(self.a, self.net(x), self.hops, "none", keep="sum", gate=(self.gate, self.bias))


class Stack(nn.Module):
    """Layers that carry and learn at once."""

    def __init__(self, a: object, depth: int) -> None:
        super().__init__()
        self.a = a
        sizes = [64, *[32] * (depth - 1), 10]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(graph.propagate(self.a, x if layer is self.layers[0] else x.relu(), 1, "none"))
        return x


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, edges, known, other = digit_graph(split, labels=3)
    a = graph.normalized_adjacency(edges, "sym", self_loops=True)
    nets = {"gated": Gated(a, HOPS), "stack": Stack(a, HOPS), "two": Stack(a, 2), "graphless": Gated(a, 0)}
    result = {}
    for name, net in nets.items():
        seeded(net, seed)
        train(net, lambda i, m=net: cross_entropy(m(x)[known], y[known]), 1, steps=100, rate=1e-2, seed=seed)
        with torch.no_grad():
            result[name] = accuracy(lambda rows, m=net: m(x)[rows], other, y[other])
    gated = nets["gated"]
    with torch.no_grad():
        hops = graph.propagate(a, gated.net(x), HOPS, "none", keep="stack")
        shares = (hops @ gated.gate + gated.bias).sigmoid()
        made = gated(x)
        apart = ((shares[..., None] * hops).sum(0) - made).abs().max() / made.abs().max()
    return {
        **result,
        "accuracy": result["gated"],
        "over_stack": result["gated"] - result["stack"],
        "over_two": result["gated"] - result["two"],
        "over_graphless": result["gated"] - result["graphless"],
        "shares_spread": float(shares.std(1).max()),  # nodes differ in what they keep of a hop
        "summed_apart": float(apart),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
