"""Deep graph nets, evaluated (row 129): it is far propagation that blurs nodes, and deep transformation without residuals that
does not train; taken apart, both may be deep. The rule: hops are computed once, before anything is learned.
"""

from __future__ import annotations

from _common import accuracy, digit_graph, main, seeded, train
from tersor import graph
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

SYSTEM = {
    "row": 129,
    "title": "Evaluating Deep Graph Neural Networks",
    "mechanism": "X_i = sum_k w_ik (Â^k X)_i, w_i the softmax over k of -8 times the cosine of node i's hop k and its last, "
    "where all is blurred; then a perceptron with residuals (the paper's weights are told by its abstract alone)",
    "evidence": "A",
    "functions": ["tersor.graph.propagate", "tersor.graph.knn_edges"],
    "data": "sklearn.datasets.load_digits, 1000 images with edges to their 6 nearest, 5 labels of each class",
    "claims": [
        ["over_far", ">=", 0.03],
        ["over_graphless", ">=", 0.02],
        ["over_plain_deep", ">=", 0.1],
        ["deep_cost", "<=", 0.08],
    ],
    "figure": "accuracy",
    "seconds": 60,
}
HOPS, DEPTH = 200, 12


class Net(nn.Module):
    """A perceptron of some depth, with or without residuals."""

    def __init__(self, depth: int, residual: bool) -> None:
        super().__init__()
        self.first, self.last, self.residual = nn.Linear(64, 48), nn.Linear(48, 10), residual
        self.inner = nn.ModuleList(nn.Linear(48, 48) for _ in range(depth - 2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        for layer in self.inner:
            h = layer(h).relu() + (h if self.residual else 0)
        return self.last(h)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, a, known, other = digit_graph(split)
    hops = graph.propagate(a, x, HOPS, "sym", self_loops=True, keep="stack")
    far = hops[-1]
    blurred = cosine_similarity(hops, far[None], dim=-1)  # 1 where a hop tells no more than the last
    weights = (-8 * blurred).softmax(0)
    adaptive = (weights[..., None] * hops).sum(0)
    inputs = {
        "adaptive": (adaptive, DEPTH, True),
        "shallow": (adaptive, 2, True),
        "plain_deep": (adaptive, DEPTH, False),
        "far": (far, 2, True),
        "near": (hops[4], 2, True),
        "graphless": (x, 2, True),
    }
    result = {}
    for name, (h, depth, residual) in inputs.items():
        scaled = h / h.norm(dim=1, keepdim=True)
        net = seeded(Net(depth, residual), seed)
        train(net, lambda i, m=net, v=scaled: cross_entropy(m(v[known]), y[known]), 1, steps=120, rate=5e-3, seed=seed)
        result[name] = accuracy(net, scaled[other], y[other])
    return {
        **result,
        "accuracy": result["adaptive"],
        "over_far": result["adaptive"] - result["far"],
        "over_graphless": result["adaptive"] - result["graphless"],
        "over_plain_deep": result["adaptive"] - result["plain_deep"],
        "deep_cost": result["shallow"] - result["adaptive"],
        "weights_spread": float(weights.std(1).max()),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
