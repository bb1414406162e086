"""WideNet (row 136): one mixture of experts serves all depths. The rule: weights are shared, layer norms are each depth's own,
so that the experts see them apart.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 136,
    "title": "Go Wider Instead of Deeper",
    "mechanism": "x <- x + MoE(LN_l(x)) with one router and E experts for all l, the two largest logits of each token, own "
    "LN_l (feed-forward parts alone; attention is left out)",
    "evidence": "A",
    "functions": ["tersor.prune.topk_rows"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["over_deep", ">=", -0.02],
        ["size", "<=", 0.6],
        ["routed_apart", ">=", 0.05],
    ],
    "figure": "accuracy",
    "seconds": 60,
}
WIDTH, INNER, DEPTH, EXPERTS = 32, 24, 4, 4


class Mixture(nn.Module):
    """E experts, two for each token; with one expert a feed-forward layer."""

    def __init__(self, experts: int, inner: int) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, experts)
        self.up = nn.Parameter(torch.zeros(experts, inner, WIDTH))
        self.down = nn.Parameter(torch.zeros(experts, WIDTH, inner))

    def forward(self, h: Tensor) -> Tensor:
        values, which = prune.topk_rows(self.router(h), min(2, len(self.up)))
        hidden = (self.up[which] @ h[:, None, :, None]).relu()
        return (values.softmax(-1)[..., None] * (self.down[which] @ hidden)[..., 0]).sum(1)


class Net(nn.Module):
    def __init__(self, layers: list[nn.Module], norms: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10)
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(norms))

    def stream(self, x: Tensor) -> list[Tensor]:
        """What goes into the layers, and comes out in the end."""
        h, seen = self.first(x), []
        for i in range(DEPTH):
            seen.append(self.norms[i % len(self.norms)](h))
            h = h + self.layers[i % len(self.layers)](seen[-1])
        return [*seen, h]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.stream(x)[-1])


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    nets = {
        "accuracy": Net([Mixture(EXPERTS, INNER)], DEPTH),
        "deep": Net([Mixture(1, 2 * INNER) for _ in range(DEPTH)], DEPTH),
        "narrow": Net([Mixture(1, 2 * INNER)], 1),
    }
    result = {}
    for name, net in nets.items():
        seeded(net, seed)
        train(net, lambda i, net=net: cross_entropy(net(x[i]), y[i]), len(x), steps=200, rate=4e-3, seed=seed, batch=96)
        result[name] = accuracy(net, tx, ty)
        result[f"size_{name}"] = sum(p.numel() for p in net.parameters())
    wide = nets["accuracy"]
    with torch.no_grad():
        shares = torch.stack(
            [wide.layers[0].router(h).argmax(-1).bincount(minlength=EXPERTS) / len(tx) for h in wide.stream(tx)[:-1]]
        )
    # how differently the depths use the same experts: the total variation between them
    result["routed_apart"] = float((shares[:, None] - shares).abs().sum(-1).max()) / 2
    result["over_deep"] = result["accuracy"] - result["deep"]
    result["over_narrow"] = result["accuracy"] - result["narrow"]
    result["size"] = result["size_accuracy"] / result["size_deep"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
