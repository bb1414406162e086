"""X-LoRA (row 24): frozen adapters are mixed anew for each row. The rule: a small head gives each row its own scalings, and
only the largest of them count.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 24,
    "title": "X-LoRA: Mixture of Low-Rank Adapter Experts, a Flexible Framework for Large Language Models with Applications in "
    "Protein Mechanics and Design",
    "mechanism": "y = W x + sum_k s_k(x) B_k A_k x with s the softmax over the top two logits of each row (the published one "
    "runs over all rows together); base and adapters are frozen, the head alone learns",
    "evidence": "V",
    "functions": ["tersor.prune.topk_rows"],
    "data": "sklearn.datasets.load_digits, an adapter for each way of turning the image",
    "claims": [
        ["over_mean", ">=", 0.1],
        ["over_single", ">=", 0.05],
        ["top_cost", "<=", 0.03],
        ["base_moved", "<=", 0.0],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
RANK, HIDDEN, ADAPTERS = 6, 48, 4


def turned(x: Tensor, k: int) -> Tensor:
    return x.view(-1, 8, 8).rot90(k, (1, 2)).flatten(1)


class Net(nn.Module):
    """A net whose first layer has adapters beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, HIDDEN), nn.Linear(HIDDEN, 10)
        self.down = nn.Parameter(torch.zeros(ADAPTERS, RANK, 64))
        self.up = nn.Parameter(torch.zeros(ADAPTERS, HIDDEN, RANK))
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, ADAPTERS))

    def logits(self, x: Tensor, scalings: Tensor) -> Tensor:
        parts = torch.einsum("kor,kri,ni->nko", self.up, self.down, x)
        return self.last((self.first(x) + (scalings[..., None] * parts).sum(1)).relu())

    def mixed(self, x: Tensor, k: int) -> Tensor:
        """The scalings of the k largest of each row, which sum to 1."""
        values, indices = prune.topk_rows(self.head(x), k)
        return torch.zeros(len(x), ADAPTERS).scatter(-1, indices, values.softmax(-1))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    with torch.no_grad():
        net.up.zero_()
    none, one = torch.zeros(1, ADAPTERS), torch.eye(ADAPTERS)
    net.up.requires_grad_(False), net.down.requires_grad_(False)
    train(net, lambda i: cross_entropy(net.logits(x[i], none), y[i]), len(x), steps=250, rate=4e-3, seed=seed)
    for p in (*net.first.parameters(), *net.last.parameters()):
        p.requires_grad_(False)
    net.up.requires_grad_(True), net.down.requires_grad_(True)

    def adapters(i: Tensor) -> Tensor:
        return sum(cross_entropy(net.logits(turned(x[i], k), one[k : k + 1]), y[i]) for k in range(ADAPTERS))

    train(net, adapters, len(x), steps=250, rate=6e-3, seed=seed)
    net.up.requires_grad_(False), net.down.requires_grad_(False)
    frozen = [p.clone() for p in (net.first.weight, net.up, net.down)]

    def head(i: Tensor) -> Tensor:
        rows = torch.cat([turned(x[i[k::ADAPTERS]], k) for k in range(ADAPTERS)])
        return cross_entropy(
            net.logits(rows, net.mixed(rows, ADAPTERS)), torch.cat([y[i[k::ADAPTERS]] for k in range(ADAPTERS)])
        )

    train(net, head, len(x), steps=250, rate=6e-3, seed=seed)
    rows, labels = torch.cat([turned(tx, k) for k in range(ADAPTERS)]), ty.repeat(ADAPTERS)
    with torch.no_grad():
        ways = {
            "accuracy": net.mixed(rows, 2),
            "all": net.mixed(rows, ADAPTERS),
            "base": none,
            "mean": torch.full((1, ADAPTERS), 1 / ADAPTERS),
        }
        result = {name: accuracy(lambda v, s=s: net.logits(v, s), rows, labels) for name, s in ways.items()}
        single = [accuracy(lambda v, k=k: net.logits(v, one[k : k + 1]), rows, labels) for k in range(ADAPTERS)]
    result["over_mean"] = result["accuracy"] - result["mean"]
    result["over_single"] = result["accuracy"] - max(single)
    result["top_cost"] = result["all"] - result["accuracy"]
    now = (net.first.weight, net.up, net.down)
    result["base_moved"] = float(sum((a - b).abs().sum() for a, b in zip(frozen, now, strict=True)))
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
