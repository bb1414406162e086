"""Ten lessons in the Sparseland (row 197): sparse from the first step, with masks that stay or move. The rule: the same net,
first mask, steps and number of weights; only where they are differs.
"""

from __future__ import annotations

import copy

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from torch import nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 197,
    "title": 'Ten Lessons We Have Learned in the New "Sparseland": A Short Handbook for Sparse Neural Network Researchers',
    "mechanism": "static masks at random against dynamic ones (SET at random, RigL by gradient), counted by how many "
    "weights move",
    "evidence": "A",
    "functions": ["tersor.nn.Masks", "tersor.nn.DynamicSparse"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["over_static", ">=", 0.1],
        ["over_set", ">=", 0.02],
        ["churn_left", "<=", 0.75],
        ["size_apart", "<=", 0.0],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
SPARSITY, STEPS, EVERY = 0.98, 300, 15


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    first = seeded(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)), seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.rand(p.shape, generator=generator) for name, p in first.named_parameters() if p.ndim > 1}
    result = {"size_apart": 0.0}
    for name in ("static", "set", "rigl"):
        net = copy.deepcopy(first)
        masks = tnn.Masks(net).prune(SPARSITY, scope="layer", min_keep=60, scores=drawn)
        kept, moved = masks.kept, []

        def hold(optimiser, name=name, masks=masks, moved=moved):
            masks.attach(optimiser)
            if name != "static":
                rules = {"method": name, "fraction": 0.3, "every": EVERY, "end": 3 * STEPS // 4, "seed": seed}
                dynamic = tnn.DynamicSparse(optimiser, masks, **rules)
                optimiser.register_step_post_hook(lambda *a: moved.append(dynamic.moved))

        train(net, lambda i, m=net: cross_entropy(m(x[i]), y[i]), len(x), steps=STEPS, rate=1e-2, seed=seed, hold=hold)
        result[name] = accuracy(net, tx, ty)
        result["size_apart"] += sum(abs(kept[k] - n) for k, n in masks.kept.items())
        if name == "rigl":
            changes = moved[EVERY::EVERY]
            result["churn_left"] = changes[len(changes) // 3] / changes[0]
    result["accuracy"] = result["rigl"]
    result["over_static"] = result["rigl"] - result["static"]
    result["over_set"] = result["rigl"] - result["set"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
