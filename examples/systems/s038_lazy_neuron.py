"""The lazy neuron (row 38): few units of a trained ReLU layer are active for a row. The rule: the k largest are enough, and
only their columns are multiplied.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 38,
    "title": "The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers",
    "mechanism": "the share of units that are not 0 after ReLU, before and after training; y = sum of the columns of W_2 at "
    "the k largest of relu(W_1 x), gathered by their indices, against k at random (a perceptron "
    "stands for a transformer)",
    "evidence": "A",
    "functions": ["tersor.prune.topk_rows"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["of_start", "<=", 0.93],
        ["top_cost", "<=", 0.03],
        ["over_drawn", ">=", 0.03],
        ["gathered_apart", "<=", 1e-5],
    ],
    "figure": "share",
    "seconds": 20,
}
WIDTH, INNER, BLOCKS, K = 32, 256, 3, 24


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(BLOCKS))
        self.ups = nn.ModuleList(nn.Linear(WIDTH, INNER) for _ in range(BLOCKS))
        self.downs = nn.ModuleList(nn.Linear(INNER, WIDTH) for _ in range(BLOCKS))

    def run(self, x: Tensor, inner: object = None) -> Tensor:
        h = self.first(x)
        for norm, up, down in zip(self.norms, self.ups, self.downs, strict=True):
            a = up(norm(h)).relu()
            h = h + (down(a) if inner is None else inner(a, down))
        return self.last(h)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


@torch.no_grad()
def active(net: Net, x: Tensor) -> float:
    """The share of units that are not 0."""
    shares = []
    net.run(x, lambda a, down: shares.append((a > 0).double().mean()) or down(a))
    return float(sum(shares)) / BLOCKS


def top(a: Tensor, down: nn.Linear) -> Tensor:
    """The columns of the k largest, one gathered product for each row."""
    values, indices = prune.topk_rows(a, K)
    return (down.weight.T[indices] * values[..., None]).sum(-2) + down.bias


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    start = active(net, tx)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=500, rate=6e-3, seed=seed)
    generator = torch.Generator().manual_seed(seed)

    def drawn(a: Tensor, down: nn.Linear) -> Tensor:
        """As many of those that are active, any of them."""
        order = torch.where(a > 0, torch.rand(a.shape, generator=generator), -1.0)
        kept = torch.zeros_like(a).scatter_(-1, prune.topk_rows(order, K)[1], 1.0)
        return down(a * kept)

    with torch.no_grad():
        a = net.ups[0](net.norms[0](net.first(tx))).relu()
        masked = torch.zeros_like(a).scatter_(-1, *(v for v in reversed(prune.topk_rows(a, K))))
        result = {"start": start, "share": active(net, tx), "dense": accuracy(net, tx, ty)}
        result["gathered_apart"] = float((top(a, net.downs[0]) - net.downs[0](masked)).abs().max())
        result["top"] = accuracy(lambda v: net.run(v, top), tx, ty)
        result["drawn"] = accuracy(lambda v: net.run(v, drawn), tx, ty)
    result["of_start"] = result["share"] / start
    result["top_cost"] = result["dense"] - result["top"]
    result["over_drawn"] = result["top"] - result["drawn"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
