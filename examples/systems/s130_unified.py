"""Unified normalization (row 130) in the place of batch norm, and what batches that are far off do to its statistics. The rule:
what is compared sees the same batches in the same order."""

import torch
from _common import accuracy, digits, main, normed, seeded, train
from tersor import nn as tnn
from torch import nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 130,
    "title": "Unified Normalization for Accelerating and Stabilizing Transformers",
    "mechanism": "x/√(ψ + ε), ψ the geometric mean of the last batches' mean squares, gradients smoothed likewise, batches far "
    "off left out of both",
    "evidence": "V",
    "functions": ["tersor.nn.UnifiedNorm", "tersor.norm.running_rms_norm"],
    "data": "sklearn.datasets.load_digits; for the statistics one batch of thirty a hundred times as large",
    "claims": [
        ["accuracy", ">=", 0.95],
        ["over_batch", ">=", -0.02],
        ["drift_kept", "<=", 0.5],
    ],
    "figure": "accuracy",
    "seconds": 30,
}
WIDTH, STEPS, BATCH, EVERY, LARGE = 64, 600, 32, 30, 100.0


def layer(kind: str) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm1d(WIDTH)
    return tnn.UnifiedNorm(WIDTH, warmup=100, outlier_filtration=kind == "filtered")


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result = {}
    for kind in ("filtered", "batch"):
        model = seeded(normed(lambda k=kind: layer(k), WIDTH), seed)
        train(
            model,
            lambda i, m=model: cross_entropy(m(x[i]), y[i]),
            len(x),
            steps=STEPS,
            rate=2e-3,
            seed=seed,
            batch=BATCH,
        )
        result[kind] = accuracy(model.eval(), tx, ty)
    # the running mean square after batches of which few are far off, against that of batches of which none is
    moved = {}
    for kind in ("filtered", "plain"):
        clean, odd = (tnn.UnifiedNorm(64, warmup=0, outlier_filtration=kind == "filtered") for _ in range(2))
        g = torch.Generator().manual_seed(seed)
        for step in range(2 * EVERY + 2):
            batch = x[torch.randint(len(x), (BATCH,), generator=g)]
            clean(batch)
            odd(batch * (LARGE if step % EVERY == EVERY - 1 else 1))
        moved[kind] = float((odd.running_phi / clean.running_phi + 1e-6).log().abs().mean())
    return {
        "accuracy": result["filtered"],
        "over_batch": result["filtered"] - result["batch"],
        "drift_kept": moved["filtered"] / moved["plain"],
    }


if __name__ == "__main__":
    main(SYSTEM, run)
