"""LayerNorm scaling (row 55): the deeper a block, the less of its norm it is given. The rule: one number, 1/√ℓ, and the same
net otherwise."""

import copy

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import metrics, norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 55,
    "title": "The Curse of Depth in Large Language Models",
    "mechanism": "the pre-norm of block ℓ is multiplied by 1/√ℓ; the variance of the residual stream grows with a "
    "smaller power of depth, before and after training (blocks of a perceptron)",
    "evidence": "V",
    "functions": ["tersor.norm.add_norm", "tersor.metrics.fit_power_law"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["of_plain", "<=", 0.45],
        ["exponent_falls", ">=", 0.25],
        ["trained_of_plain", "<=", 0.5],
        ["over_plain", ">=", -0.02],
    ],
    "figure": "of_plain",
    "seconds": 60,
}
DEPTH, DIM = 16, 48


class Stack(nn.Module):
    """Residual blocks; `sums` are the streams between them."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled
        self.first, self.last = nn.Linear(64, DIM), nn.Linear(DIM, 10)
        self.up = nn.ModuleList(nn.Linear(DIM, 2 * DIM) for _ in range(DEPTH))
        self.down = nn.ModuleList(nn.Linear(2 * DIM, DIM) for _ in range(DEPTH))
        self.gain = nn.ParameterList(torch.ones(DIM) for _ in range(DEPTH + 1))

    def sums(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        s = self.first(x)
        u, kept = torch.zeros_like(s), []
        for i in range(DEPTH + 1):
            scale = (i + 1) ** -0.5 if self.scaled and i < DEPTH else 1.0
            y, s = norm.add_norm(u, s, self.gain[i], scale=scale)
            kept.append(s)
            if i < DEPTH:
                u = self.down[i](self.up[i](y).relu())
        return y, kept

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.sums(x)[0])


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    plain = seeded(Stack(False), seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    with torch.no_grad():
        for up, down in zip(plain.up, plain.down, strict=True):
            up.weight.copy_(torch.randn(up.weight.shape, generator=generator) * (2 / DIM) ** 0.5)
            down.weight.copy_(torch.randn(down.weight.shape, generator=generator) * (1 / (2 * DIM)) ** 0.5)
    scaled = copy.deepcopy(plain)
    scaled.scaled = True
    result: dict[str, float] = {}
    for name, net in (("plain", plain), ("scaled", scaled)):
        with torch.no_grad():
            variances = torch.stack([s.var() for s in net.sums(tx)[1]])
        result[f"{name}_variance"] = float(variances[-1] / variances[1])
        depth = torch.arange(1.0, DEPTH + 1, dtype=torch.float64)
        result[f"{name}_exponent"] = -float(metrics.fit_power_law(depth, variances[1:].double()).alpha)
        train(net, lambda i, net=net: cross_entropy(net(x[i]), y[i]), len(x), steps=120, rate=3e-3, seed=seed, batch=64)
        with torch.no_grad():
            variances = torch.stack([s.var() for s in net.sums(tx)[1]])
            result[f"{name}_trained"] = float(variances[-1] / variances[1])
            result[f"{name}_accuracy"] = accuracy(net, tx, ty)
    result["of_plain"] = result["scaled_variance"] / result["plain_variance"]
    result["exponent_falls"] = result["plain_exponent"] - result["scaled_exponent"]
    result["trained_of_plain"] = result["scaled_trained"] / result["plain_trained"]
    result["over_plain"] = result["scaled_accuracy"] - result["plain_accuracy"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
