"""Peri-LN (row 145): what a block adds is normalised as well as what it is given. The rule: what a block adds has the norm's
own size, whatever its weights are."""

import torch
from _common import accuracy, digits, main, train
from tersor import metrics, norm
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 145,
    "title": "Peri-LN: Revisiting Layer Normalization in the Transformer Architecture",
    "mechanism": "x + Norm(F(Norm(x))): the variance of the stream grows as the depth, however large the "
    "weights are or become, where x + F(Norm(x)) follows them (blocks of a perceptron)",
    "evidence": "A",
    "functions": ["tersor.nn.PeriNorm", "tersor.norm.add_norm", "tersor.metrics.fit_power_law"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["over_line", "<=", 1.6],
        ["exponent", "<=", 1.2],
        ["weights_matter", "<=", 1.01],
        ["pre_weights_matter", ">=", 15.0],
        ["trained_of_pre", "<=", 0.2],
        ["over_pre", ">=", -0.02],
    ],
    "figure": "trained_of_pre",
    "seconds": 20,
}
DEPTH, DIM, RATE, EPS = 24, 64, 1e-2, 1e-12


class Stack(nn.Module):
    """Residual blocks with Gaussian weights, `gain` times as large as would keep the variance."""

    def __init__(self, depth: int, seed: int, gain: float, peri: bool) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.up = nn.Parameter(torch.randn(depth, 64, 4 * DIM, generator=g) * gain * (2 / DIM) ** 0.5)
        self.down = nn.Parameter(torch.randn(depth, 4 * DIM, DIM, generator=g) * gain / (4 * DIM) ** 0.5)
        self.last = nn.Parameter(torch.randn(DIM, 10, generator=g) / DIM**0.5)
        self.outer = nn.Parameter(torch.ones(1 if peri else depth + 1, DIM))
        self.peri = nn.ModuleList(tnn.PeriNorm(DIM, EPS) for _ in range(depth * peri))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the mean square of the stream after every block."""
        s, squares = x / x.square().mean(-1, keepdim=True).sqrt(), []
        y = norm.rms_norm(s, DIM, self.outer[0], EPS)
        for k, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            added = (y @ up).relu() @ down
            y, s = self.peri[k](added, s) if self.peri else norm.add_norm(added, s, self.outer[k + 1], eps=EPS)
            squares.append(s.detach().square().mean())
        return y @ self.last, torch.stack(squares).double()


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    depth = torch.arange(1.0, DEPTH + 1, dtype=torch.float64)
    with torch.no_grad():
        sizes = {(p, gain): Stack(DEPTH, seed, gain, p)(tx)[1] for p in (True, False) for gain in (1.0, 3.0)}
    result = {
        "over_line": float((sizes[True, 3.0] / (depth + 1)).max()),
        "exponent": -float(metrics.fit_power_law(depth, sizes[True, 3.0]).alpha),
        "weights_matter": float((sizes[True, 3.0] / sizes[True, 1.0]).max()),
        "pre_weights_matter": float((sizes[False, 3.0] / sizes[False, 1.0]).min()),
    }
    for name in ("peri", "pre"):
        net = Stack(DEPTH // 2, seed, 1.0, name == "peri")
        train(net, lambda i, net=net: cross_entropy(net(x[i])[0], y[i]), len(x), steps=80, rate=RATE, seed=seed)
        with torch.no_grad():
            result[f"{name}_trained"] = float(net(tx)[1][-1]) / (DEPTH // 2 + 1)
            result[name] = accuracy(lambda v, net=net: net(v)[0], tx, ty)
    result["trained_of_pre"] = result["peri_trained"] / result["pre_trained"]
    result["over_pre"] = result["peri"] - result["pre"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
