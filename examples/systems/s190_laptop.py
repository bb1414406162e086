"""LAPTOP-Diff (row 190): whole layers go by what the output loses without each. The rule: losses of layers add up, so that a
knapsack chooses them; what is left is taught by features that weigh alike.
"""

from __future__ import annotations

import copy
import itertools

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import metrics, prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

SYSTEM = {
    "row": 190,
    "title": "LAPTOP-Diff: Layer Pruning and Normalized Distillation for Compressing Diffusion Models",
    "mechanism": "loss_l = E|f(x) - f(x; without l)|^2; min of the sum of what goes within a size, a 0/1 knapsack; then "
    "features f_l of the teacher with weights |f_out| / |f_l| (residual blocks of a perceptron stand for those of a U-Net)",
    "evidence": "A",
    "functions": ["tersor.prune.layer_knapsack", "tersor.metrics.spearman_corrcoef"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["of_mean", "<=", 0.92],
        ["additive", ">=", 0.14],
        ["of_least", "<=", 1.2],
        ["taught", "<=", 0.5],
        ["size", "<=", 0.5],
    ],
    "figure": "accuracy",
    "seconds": 20,
}
WIDTH, INNER = 32, (8, 48, 16, 32, 64, 16, 24, 48)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, k), nn.ReLU(), nn.Linear(k, WIDTH)) for k in INNER
        )
        self.kept = [True] * len(INNER)

    def features(self, x: Tensor) -> list[Tensor]:
        h = [self.first(x)]
        for kept, block in zip(self.kept, self.blocks, strict=True):
            h.append(h[-1] + block(h[-1]) if kept else h[-1])
        return [*h[1:], self.last(h[-1])]

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[-1]


def without(net: Net, gone: tuple[int, ...]) -> Net:
    small = copy.deepcopy(net)
    small.kept = [i not in gone for i in range(len(INNER))]
    return small


@torch.no_grad()
def lost(net: Net, small: Net, x: Tensor) -> float:
    return float((net(x) - small(x)).square().sum(-1).mean())


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=300, rate=3e-3, seed=seed)
    seen, every = x[:300], range(len(INNER))
    costs = torch.tensor([2.0 * WIDTH * k for k in INNER])
    losses = torch.tensor([lost(net, without(net, (i,)), seen) for i in every], dtype=torch.float64)
    budget = float(costs.sum()) / 2
    kept = prune.layer_knapsack(costs.double(), losses, budget).choice.bool()
    gone = tuple(int(i) for i in (~kept).nonzero())
    small = without(net, gone)
    # all ways to leave out as many blocks within the budget, and what they lose together
    ways = [w for w in itertools.combinations(every, len(gone)) if costs.sum() - costs[list(w)].sum() <= budget]
    real = torch.tensor([lost(net, without(net, w), seen) for w in ways], dtype=torch.float64)
    sums = torch.tensor([float(losses[list(w)].sum()) for w in ways], dtype=torch.float64)
    own = lost(net, small, seen)
    result = {
        "dense": accuracy(net, tx, ty),
        "cut": accuracy(small, tx, ty),
        "additive": float(metrics.spearman_corrcoef(sums, real)),
        "of_mean": own / float(real.mean()),
        "of_least": own / float(real.min()),
        "size": float(costs[kept].sum() / costs.sum()),
    }
    with torch.no_grad():
        norms = [float(f.norm()) for f in net.features(seen)]
    for name, weights in (("normal", [norms[-1] / n for n in norms]), ("output", [0.0] * len(INNER) + [1.0])):
        pupil = copy.deepcopy(small)

        def loss(i: Tensor, pupil: Net = pupil, weights: list[float] = weights) -> Tensor:
            with torch.no_grad():
                aims = net.features(x[i])
            return sum(w * mse_loss(a, b) for w, a, b in zip(weights, pupil.features(x[i]), aims, strict=True))

        train(pupil, loss, len(x), steps=150, rate=2e-3, seed=seed)
        result[name] = accuracy(pupil, tx, ty)
        if name == "normal":
            result["taught"] = lost(net, pupil, tx) / lost(net, small, tx)
    result["accuracy"] = result["normal"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
