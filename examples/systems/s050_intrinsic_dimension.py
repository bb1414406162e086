"""Intrinsic dimension (row 50): how many random directions of all parameters a net must be trained in. The rule: the same first
weights and steps; only the number of directions grows.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 50,
    "title": "Measuring the Intrinsic Dimension of Objective Landscapes",
    "mechanism": "theta = theta_0 + P v, v of d numbers trained alone, P by Fastfood; the least d with 90 % of the accuracy of "
    "all parameters, of a net, of one of four times the size, and of labels drawn at random, learned by heart",
    "evidence": "V",
    "functions": ["tersor.nn.Subspace"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["share", "<=", 0.15], ["wide_ratio", "<=", 2.0], ["drawn_ratio", ">=", 2.0], ["start_kept", "<=", 0.0]],
    "figure": "dimension",
    "seconds": 60,
}
DIMENSIONS = tuple(round(16 * 2 ** (i / 2)) for i in range(12))
STEPS = 300


def net(width: int, seed: int) -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)), seed)


def learned(model: nn.Module, x: Tensor, y: Tensor, rate: float, seed: int) -> nn.Module:
    train(model, lambda i: cross_entropy(model(x[i]), y[i]), len(x), steps=STEPS, rate=rate, seed=seed)
    return model


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    drawn = torch.randint(10, (200,), generator=torch.Generator().manual_seed(seed))
    tasks = {
        "narrow": (48, x, y, tx, ty),
        "wide": (192, x, y, tx, ty),
        "drawn": (48, x[:200], drawn, x[:200], drawn),
    }
    result, kept = {}, 0.0
    for name, (width, lx, ly, mx, my) in tasks.items():
        full = learned(net(width, seed), lx, ly, 1e-2, seed)
        result[f"{name}_full"] = accuracy(full, mx, my)
        result[name] = float(2 * DIMENSIONS[-1])  # if none is enough
        for d in DIMENSIONS:
            inside = tnn.Subspace(net(width, seed), d, "fastfood", seed=seed)
            learned(inside, lx, ly, 0.1, seed)
            pairs = zip(inside.module.parameters(), net(width, seed).parameters(), strict=True)
            kept += sum(float((p - q).detach().abs().sum()) for p, q in pairs)
            if accuracy(inside, mx, my) >= 0.9 * result[f"{name}_full"]:
                result[name] = float(d)
                break
    size = sum(p.numel() for p in net(48, seed).parameters())
    return {
        **result,
        "dimension": result["narrow"],
        "share": result["narrow"] / size,
        "wide_ratio": result["wide"] / result["narrow"],
        "drawn_ratio": result["drawn"] / result["narrow"],
        "start_kept": kept,
    }


if __name__ == "__main__":
    main(SYSTEM, run)
