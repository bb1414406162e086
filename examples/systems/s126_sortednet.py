"""SortedNet (row 126): one net whose every prefix of neurons is a net. The rule: each step trains the prefix that was drawn
for it, and a prefix that is taken out is a net of its own.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

SYSTEM = {
    "row": 126,
    "title": "SortedNet, a Place for Every Network and Every Network in its Place: Towards a Generalized Solution for Training "
    "Many-in-One Neural Networks",
    "mechanism": "y = W2[:, :m] relu(W1[:m] x), m drawn anew in each step; the parts are cut out of the trained whole",
    "evidence": "A",
    "functions": ["tersor.nn.take_outputs", "tersor.nn.take_inputs"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["over_cut", ">=", 0.19],
        ["over_own", ">=", 0.02],
        ["cost_of_all", "<=", 0.06],
        ["parts_apart", "<=", 1e-5],
    ],
    "figure": "accuracy",
    "seconds": 20,
}
WIDTHS = (6, 12, 24, 96)
SMALL = 12


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(64, width), nn.Linear(width, 10)

    def forward(self, x: Tensor, m: int | None = None) -> Tensor:
        h = linear(x, self.up.weight[:m], self.up.bias[:m]).relu()
        return linear(h, self.down.weight[:, :m], self.down.bias)


def part(net: Net, m: int) -> nn.Sequential:
    """The prefix of m neurons, which nothing of the whole is needed for."""
    some = torch.arange(m)
    return nn.Sequential(tnn.take_outputs(net.up, some), nn.ReLU(), tnn.take_inputs(net.down, some))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    generator = torch.Generator().manual_seed(seed)
    nets = {name: seeded(Net(width), seed) for name, width in (("sorted", 96), ("plain", 96), ("own", SMALL))}
    for name, net in nets.items():

        def loss(i: Tensor, net: Net = net, name: str = name) -> Tensor:
            m = WIDTHS[int(torch.randint(len(WIDTHS), (), generator=generator))] if name == "sorted" else None
            return cross_entropy(net(x[i], m), y[i])

        # the small net is trained as often as the small part of the sorted one
        train(net, loss, len(x), steps=400 if name != "own" else 100, rate=5e-3, seed=seed)
    result = {"parts_apart": 0.0}
    with torch.no_grad():
        for m in WIDTHS:
            small = part(nets["sorted"], m)
            result[f"width_{m}"] = accuracy(small, tx, ty)
            result["parts_apart"] = max(result["parts_apart"], float((small(tx) - nets["sorted"](tx, m)).abs().max()))
    result["accuracy"] = result[f"width_{SMALL}"]
    result["cut"], result["own"] = accuracy(part(nets["plain"], SMALL), tx, ty), accuracy(nets["own"], tx, ty)
    result["over_cut"] = result["accuracy"] - result["cut"]
    result["over_own"] = result["accuracy"] - result["own"]
    result["cost_of_all"] = accuracy(nets["plain"], tx, ty) - result["width_96"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
