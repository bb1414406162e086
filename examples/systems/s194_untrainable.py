"""Guidance by alignment (row 194): a layer is pulled to what a trained one sees. The rule: the loss is 1 − CKA, and its
gradient goes to the student alone."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import metrics
from torch import nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 194,
    "title": "Training the Untrainable: Introducing Inductive Bias via Representational Alignment",
    "mechanism": "L = 1 − CKA(student's layer, guide's layer), layer by layer, no labels; then a readout",
    "evidence": "S",
    "functions": ["tersor.metrics.cka"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["aligned", ">=", 0.93], ["rises", ">=", 0.09], ["over_start", ">=", 0.03]],
    "figure": "aligned",
    "seconds": 40,
}


def readout(h: torch.Tensor, y: torch.Tensor, seed: int) -> nn.Module:
    """A linear layer on fixed features, trained for a moment."""
    last = seeded(nn.Linear(h.shape[1], 10), seed)
    train(last, lambda i: cross_entropy(last(h[i]), y[i]), len(h), steps=60, rate=1e-2, seed=seed)
    return last


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split, 1000)
    guide = seeded(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), seed)
    train(guide, lambda i: cross_entropy(guide(x[i]), y[i]), len(x), steps=400, rate=4e-3, seed=seed)
    student = seeded(nn.Sequential(nn.Linear(64, 64), nn.Tanh()), seed + 100)

    def seen(rows: torch.Tensor) -> torch.Tensor:
        return guide[1](guide[0](rows)).detach()

    with torch.no_grad():
        before = float(metrics.cka(student(tx), seen(tx)))
        start = student(x), student(tx)
    plain = accuracy(readout(start[0], y, seed), start[1], ty)
    train(student, lambda i: 1 - metrics.cka(student(x[i]), seen(x[i])), len(x), steps=200, rate=1e-2, seed=seed)
    with torch.no_grad():
        after = float(metrics.cka(student(tx), seen(tx)))
        end = student(x), student(tx)
    guided = accuracy(readout(end[0], y, seed), end[1], ty)
    return {
        "before": before,
        "aligned": after,
        "rises": after - before,
        "plain": plain,
        "guided": guided,
        "over_start": guided - plain,  # no label was seen while the layer learned
    }


if __name__ == "__main__":
    main(SYSTEM, run)
