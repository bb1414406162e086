"""Layer-adaptive pruning (row 180): how much of each layer goes by what the outputs lose. The rule: a curve for each layer, one
program for all.
"""

from __future__ import annotations

import copy
import itertools

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import metrics, prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 180,
    "title": "Efficient Joint Optimization of Layer-Adaptive Weight Pruning in Deep Neural Networks",
    "mechanism": "D_l(s) = E|f(x) - f(x; W_l pruned to s)|^2 at 41 amounts s; min sum_l D_l(s_l) with as many weights as are "
    "left, by the exact program instead of one table entry for each weight",
    "evidence": "V",
    "functions": ["tersor.prune.budget_allocate", "tersor.prune.global_masks", "tersor.metrics.spearman_corrcoef"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["of_uniform", "<=", 0.88],
        ["of_global", "<=", 0.92],
        ["additive", ">=", 0.97],
        ["over_budget", "<=", 0.0],
    ],
    "figure": "accuracy",
    "seconds": 20,
}
AMOUNTS, SPARSITY = [i / 40 for i in range(41)], 0.5


def pruned(net: nn.Module, shares: list[float]) -> nn.Module:
    """A copy without these shares of its layers' weights."""
    small = copy.deepcopy(net)
    weights = [m.weight.data for m in small.modules() if isinstance(m, nn.Linear)]
    for w, mask in zip(weights, prune.global_masks(weights, shares, scope="layer"), strict=True):
        w.masked_fill_(~mask, 0)
    return small


@torch.no_grad()
def lost(net: nn.Module, small: nn.Module, x: Tensor) -> float:
    return float((net(x) - small(x)).square().sum(-1).mean())


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    widths = [64, 128, 48, 96, 10]
    layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())][:-1]
    net = seeded(nn.Sequential(*layers), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=400, rate=4e-3, seed=seed)
    sizes = [m.weight.numel() for m in net if isinstance(m, nn.Linear)]
    seen, n = x[:300], len(sizes)
    alone = [[s if i == j else 0.0 for j in range(n)] for i in range(n) for s in AMOUNTS]
    curves = torch.tensor([lost(net, pruned(net, shares), seen) for shares in alone], dtype=torch.float64).view(n, -1)
    costs = torch.tensor([[k - round(s * k) for s in AMOUNTS] for k in sizes], dtype=torch.float64)
    budget = round((1 - SPARSITY) * sum(sizes))
    made = prune.budget_allocate(costs, curves, budget)
    chosen = [AMOUNTS[int(i)] for i in made.choice]
    best = pruned(net, chosen)
    weights = [m.weight.data for m in net if isinstance(m, nn.Linear)]
    whole = [1 - float(m.double().mean()) for m in prune.global_masks(weights, SPARSITY)]
    result = {"dense": accuracy(net, tx, ty), "accuracy": accuracy(best, tx, ty)}
    errors = {"uniform": [SPARSITY] * n, "global": whole}
    for name, shares in errors.items():
        other = pruned(net, shares)
        result[name] = accuracy(other, tx, ty)
        result[f"of_{name}"] = lost(net, best, tx) / lost(net, other, tx)
    # that losses of layers add up is what the program rests on
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(8, 38, (40, n), generator=generator)
    sums = torch.stack([curves[range(n), d].sum() for d in draws])
    real = torch.tensor(
        [lost(net, pruned(net, [AMOUNTS[int(i)] for i in d]), seen) for d in draws], dtype=torch.float64
    )
    result["additive"] = float(metrics.spearman_corrcoef(sums, real))
    left = sum(int((m.weight != 0).sum()) for m in best if isinstance(m, nn.Linear))
    result["over_budget"] = max(0, left - budget)
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
