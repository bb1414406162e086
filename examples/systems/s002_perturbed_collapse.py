"""Perturbed collapse (row 2): training draws features to their classes' means, noise in the inputs pushes them apart. The rule:
the same measures at every step, on the training rows."""

import itertools

import torch
from _common import digits, main, seeded
from tersor import metrics
from torch import nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 2,
    "title": "Perturbation Analysis of Neural Collapse",
    "mechanism": "NC1 = tr(Σ_W Σ_B⁺)/K and nearest-mean agreement NC4 of the last hidden layer along SGD with weight decay; "
    "the same of perturbed inputs",
    "evidence": "V",
    "functions": ["tersor.metrics.neural_collapse", "tersor.metrics.NeuralCollapse"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["steepest_rise", "<=", 0.97],
        ["last_to_first", "<=", 0.85],
        ["nc4", ">=", 0.96],
        ["noise_raises", ">=", 1.2],
        ["parts_apart", "<=", 1e-10],
    ],
    "figure": "last_to_first",
    "seconds": 40,
}
MARKS = (30, 200, 800, 2500)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, _, _ = digits(split, 1078)
    body = seeded(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), seed)
    last = seeded(nn.Linear(64, 10), seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD([*body.parameters(), *last.parameters()], 0.1, weight_decay=2e-3)
    seen = {}
    for step in range(1, MARKS[-1] + 1):
        i = torch.randint(len(x), (128,), generator=generator)
        optimiser.zero_grad()
        cross_entropy(last(body(x[i])), y[i]).backward()
        optimiser.step()
        if step in MARKS:
            with torch.no_grad():
                seen[step] = metrics.neural_collapse(body(x), y, weight=last.weight, bias=last.bias)
    nc1 = [float(seen[m]["nc1"]) for m in MARKS]
    with torch.no_grad():
        noisy = body(x + 0.2 * torch.randn(x.shape, generator=generator))
        parts = metrics.NeuralCollapse(10)
        for i in range(0, len(x), 100):
            parts.update(body(x[i : i + 100]), y[i : i + 100])
    return {
        "first": nc1[0],
        "last": nc1[-1],
        # each mark to the one before it, as long as accuracy rises; then steps of this rate wander
        "steepest_rise": max(b / a for a, b in itertools.pairwise(nc1[:3])),
        "last_to_first": nc1[-1] / nc1[0],
        "nc4": float(seen[MARKS[-1]]["nc4"]),
        "noise_raises": float(metrics.neural_collapse(noisy, y)["nc1"]) / nc1[-1],
        "parts_apart": abs(parts.compute()["nc1"] / nc1[-1] - 1),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
