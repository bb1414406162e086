"""Graph transformers (row 169): attention goes to neighbours alone, and where a node stands is said by eigenvectors of the
Laplacian. The rule: nets differ in what they attend to and in what they are told of places, in nothing else.
"""

from __future__ import annotations

import torch
from _common import accuracy, digit_graph, main, seeded, train
from tersor import graph
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

SYSTEM = {
    "row": 169,
    "title": "A Generalization of Transformer Networks to Graphs",
    "mechanism": "per head h_i = sum_j w_ij v_j / sum_j w_ij over the edges of i, w = exp(clamp(q_i k_j / sqrt(d), 5)), "
    "residual and feed-forward; Laplacian eigenvectors added to the inputs, their signs drawn anew in training",
    "evidence": "V",
    "functions": ["tersor.graph.edge_attention", "tersor.graph.laplacian_pe", "tersor.graph.knn_edges"],
    "data": "sklearn.datasets.load_digits, 500 images seen by 8 pixels, edges to their 6 nearest, 10 labels of each class",
    "claims": [
        ["over_loops", ">=", 0.1],
        ["over_full", ">=", 0.05],
        ["places_alone", ">=", 0.3],
        ["residuals", "<=", 1e-8],
    ],
    "figure": "accuracy",
    "seconds": 60,
}
WIDTH, HEADS, PLACES, N = 32, 4, 12, 500


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.one, self.two = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, h: Tensor, a: object) -> Tensor:
        q, k, v = (part.unflatten(1, (HEADS, -1)).contiguous() for part in self.qkv(h).chunk(3, 1))
        if a is None:  # every node to every other
            seen = scaled_dot_product_attention(*(part.transpose(0, 1) for part in (q, k, v))).transpose(0, 1)
        else:
            seen = graph.edge_attention(a, q, k, v)
        h = self.norm(h + self.out(seen.flatten(1)))
        return self.last(h + self.two(self.one(h).relu()))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.places = nn.Linear(8, WIDTH), nn.Linear(PLACES, WIDTH)
        self.layers, self.last = nn.ModuleList([Layer(), Layer()]), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor, places: Tensor, a: object) -> Tensor:
        h = self.inputs(x) + self.places(places)
        for layer in self.layers:
            h = layer(h, a)
        return self.last(h)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, a, known, other = digit_graph(split, N, labels=10)
    generator = torch.Generator().manual_seed(seed)
    few = x[:, torch.randperm(64, generator=generator)[:8]]
    places = graph.laplacian_pe(a, PLACES)
    at = places.vectors.float() * N**0.5
    loops = torch.arange(N).expand(2, N)
    alone = graph.adjacency(loops, n=N)
    told = {
        "sparse": (few, 0 * at, a),
        "full": (few, 0 * at, None),
        "loops": (few, 0 * at, alone),
        "placed": (few, at, a),
        "places_alone": (0 * few, at, alone),
    }
    result = {}
    for name, (pixels, where, m) in told.items():
        net = seeded(Net(), seed)

        def loss(_: Tensor, net: nn.Module = net, m: object = m, x: Tensor = pixels, at: Tensor = where) -> Tensor:
            signs = 2.0 * torch.randint(2, (PLACES,), generator=generator) - 1
            return cross_entropy(net(x, at * signs, m)[known], y[known])

        train(net, loss, 1, steps=100, rate=3e-3, seed=seed)
        with torch.no_grad():
            result[name] = accuracy(lambda rows, f=net, x=pixels, m=m, w=where: f(x, w, m)[rows], other, y[other])
    return {
        **result,
        "accuracy": result["sparse"],
        "over_loops": result["sparse"] - result["loops"],
        "over_full": result["sparse"] - result["full"],
        "placed_gain": result["placed"] - result["sparse"],
        "residuals": float(places.residuals.max()),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
