"""TAS (row 54): widths of layers are learned by gradient. The rule: layers of two widths are added channel by interpolated
channel, and what is expected of operations is held near a number.
"""

from __future__ import annotations

import itertools
import math

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 54,
    "title": "Network Pruning via Transformable Architecture Search",
    "mechanism": "two of the widths C {0.3, ..., 1} of each layer are drawn by Gumbel noise and their outputs added after "
    "channel interpolation, with the softmax of the two; the loss has ± log of the expected operations outside 5 % of a target",
    "evidence": "V",
    "functions": ["tersor.prune.interpolate_channels"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["off_target", "<=", 0.12], ["over_narrow_ends", ">=", 0.004], ["sure", ">=", 1.3], ["size", "<=", 0.8]],
    "figure": "accuracy",
    "seconds": 40,
}
WIDTHS, SHARES, TARGET, NEAR = (64, 64, 64), (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), 0.45, 0.05
CHOICES = [int(WIDTHS[0] * s) for s in SHARES]


class Search(nn.Module):
    """Layers of full width, of which the first units are used, and what each width of them is worth."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (64, *WIDTHS, 10)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.worth = nn.Parameter(torch.zeros(len(WIDTHS), len(CHOICES)))

    def forward(self, x: Tensor, generator: torch.Generator) -> Tensor:
        for layer, worth in zip(self.layers, self.worth, strict=False):
            noise = -torch.log(-torch.log(torch.rand(len(CHOICES), generator=generator).clamp_min(1e-9)))
            score = worth.log_softmax(-1) + noise
            both = score.topk(2).indices
            shares, widths = score[both].softmax(-1), [CHOICES[int(i)] for i in both]
            h = layer(x).relu()
            parts = [prune.interpolate_channels(h[:, :w], max(widths)) for w in widths]
            h = shares[0] * parts[0] + shares[1] * parts[1]
            x = torch.nn.functional.pad(h, (0, layer.out_features - h.shape[1]))
        return self.layers[-1](x)

    def cost(self) -> Tensor:
        """Expected multiply-adds, of those of full width."""
        mean = [self.worth.new_tensor(64.0), *(self.worth.softmax(-1) @ torch.tensor(CHOICES, dtype=torch.float32))]
        mean.append(self.worth.new_tensor(10.0))
        full = (64, *WIDTHS, 10)
        whole = sum(a * b for a, b in itertools.pairwise(full))
        return sum(a * b for a, b in itertools.pairwise(mean)) / whole


def plain(widths: list[int], seed: int) -> nn.Sequential:
    sizes = [64, *widths, 10]
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return seeded(nn.Sequential(*layers[:-1]), seed)


def trained(widths: list[int], seed: int, data: tuple[Tensor, ...]) -> float:
    x, y, tx, ty = data
    net = plain(widths, seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=200, rate=4e-3, seed=seed)
    return accuracy(net, tx, ty)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    data = digits(split)
    x, y = data[:2]
    search, generator = seeded(Search(), seed), torch.Generator().manual_seed(seed)
    weights = torch.optim.Adam(search.layers.parameters(), 3e-3)
    choices = torch.optim.Adam([search.worth], 3e-2)
    for step in range(400):
        rows = torch.randint(len(x) // 2, (96,), generator=generator) + (step % 2) * (len(x) // 2)
        loss = cross_entropy(search(x[rows], generator), y[rows])
        cost = search.cost()
        away = float(cost.detach()) / TARGET
        if step % 2 and abs(away - 1) > NEAR:  # weights by one half of the rows, widths by the other
            loss = loss + 2 * math.copysign(1, away - 1) * cost.log()
        (choices if step % 2 else weights).zero_grad()
        loss.backward()
        (choices if step % 2 else weights).step()
    widths = [CHOICES[int(i)] for i in search.worth.argmax(-1)]
    share = search.worth.detach().softmax(-1)
    full = trained(list(WIDTHS), seed, data)
    found = trained(widths, seed, data)
    count = [sum(p.numel() for p in plain(w, seed).parameters()) for w in (widths, list(WIDTHS))]
    narrow = trained([CHOICES[0]] * len(WIDTHS), seed, data)
    return {
        "dense": full,
        "accuracy": found,
        "narrow": narrow,
        "over_narrow_ends": found - narrow,
        "off_target": abs(float(search.cost().detach()) / TARGET - 1),
        # how much likelier the chosen width is than one of eight by chance
        "sure": float(share.amax(-1).mean()) * len(CHOICES),
        "size": count[0] / count[1],
    }


if __name__ == "__main__":
    main(SYSTEM, run)
