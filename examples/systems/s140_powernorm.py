"""PowerNorm (row 140) against the norm of batches that it smooths. The rule: both nets see the same batches in the same order,
and are tested by running statistics."""

import torch
from _common import accuracy, digits, main, normed, seeded, train
from tersor import nn as tnn
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 140,
    "title": "PowerNorm: Rethinking Batch Normalization in Transformers",
    "mechanism": "x/√(φ + ε), φ a running mean of squares after a warm-up, and the running Γ z taken from what is sent back",
    "evidence": "V",
    "functions": ["tersor.nn.PowerNorm", "tersor.norm.running_rms_norm"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["accuracy", ">=", 0.95],
        ["over_batch_rms", ">=", -0.02],
        ["law", "<=", 1e-12],
    ],
    "figure": "accuracy",
    "seconds": 30,
}
WIDTH, STEPS, BATCH = 64, 600, 32


class BatchRMS(nn.Module):
    """Divides by the batch's own mean square, and elsewhere by a running one: what PowerNorm is without its smoothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x / (self.running + 1e-5).sqrt() * self.weight + self.bias
        squares = x.square().mean(0)
        with torch.no_grad():
            self.running.lerp_(squares, 0.1)
        return x / (squares + 1e-5).sqrt() * self.weight + self.bias


def law(seed: int) -> float:
    """By the batch's own mean square and with all of G, what is sent back is the derivative: the largest difference."""
    torch.manual_seed(seed)
    x = torch.randn(20, 6, dtype=torch.float64, requires_grad=True)
    g = torch.randn(20, 6, dtype=torch.float64)
    psi = x.square().mean(0)
    (want,) = torch.autograd.grad(x / (psi + 1e-5).sqrt(), x, g)
    (got,) = torch.autograd.grad(norm.running_rms_norm(x, psi, share=1.0), x, g)
    return float((got - want).abs().max())


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    found = []
    for make in (lambda: tnn.PowerNorm(WIDTH, warmup=100), lambda: BatchRMS(WIDTH)):
        model = seeded(normed(make, WIDTH), seed)
        train(
            model,
            lambda i, m=model: cross_entropy(m(x[i]), y[i]),
            len(x),
            steps=STEPS,
            rate=2e-3,
            seed=seed,
            batch=BATCH,
        )
        found.append(accuracy(model.eval(), tx, ty))
    return {"accuracy": found[0], "batch_rms": found[1], "over_batch_rms": found[0] - found[1], "law": law(seed)}


if __name__ == "__main__":
    main(SYSTEM, run)
