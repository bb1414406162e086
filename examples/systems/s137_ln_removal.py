"""Removal of layer norms (row 137): the deviation of a row becomes a constant, and the norm a part of the layer behind. The
rule: one norm goes at a time, with a few steps of training after each."""

import copy

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 137,
    "title": "Transformers Don't Need LayerNorm at Inference Time: Scaling LayerNorm Removal to GPT-2 XL and the Implications "
    "for Mechanistic Interpretability",
    "mechanism": "(x − μ)/σ̄ with the mean deviation σ̄ over the data in place of each row's own; norm after norm, with a few "
    "steps between; then folded into the next layer (residual blocks of a perceptron, without a first token)",
    "evidence": "V",
    "functions": ["tersor.norm.layer_norm", "tersor.norm.standardize", "tersor.norm.fold"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["cost", "<=", 0.02],
        ["of_with", "<=", 1.2],
        ["of_none", "<=", 0.85],
        ["folded_apart", "<=", 1e-10],
    ],
    "figure": "cost",
    "seconds": 40,
}
DEPTH, DIM, EPS = 6, 48, 1e-5


class Net(nn.Module):
    """Pre-norm blocks; where `std` has a number the norm of that place is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.std: list[float | None] = [None] * (DEPTH + 1)
        self.seen: list[float] = [0.0] * (DEPTH + 1)
        self.first, self.last = nn.Linear(64, DIM), nn.Linear(DIM, 10)
        self.up = nn.ModuleList(nn.Linear(DIM, 2 * DIM) for _ in range(DEPTH))
        self.down = nn.ModuleList(nn.Linear(2 * DIM, DIM) for _ in range(DEPTH))
        self.gain = nn.ParameterList(torch.ones(DIM) for _ in range(DEPTH + 1))
        self.shift = nn.ParameterList(torch.zeros(DIM) for _ in range(DEPTH + 1))

    def norm(self, s: Tensor, k: int) -> Tensor:
        self.seen[k] = float((s.detach().var(-1, correction=0) + EPS).sqrt().mean())
        if self.std[k] is None:
            return norm.layer_norm(s, DIM, self.gain[k], self.shift[k], EPS)
        std = torch.full((1, 1), self.std[k], dtype=s.dtype)
        return norm.standardize(s, self.gain[k], self.shift[k], dim=-1, eps=0.0, std=std)

    def forward(self, x: Tensor) -> Tensor:
        s = self.first(x)
        for k in range(DEPTH):
            s = s + self.down[k](self.up[k](self.norm(s, k)).relu())
        return self.last(self.norm(s, DEPTH))


@torch.no_grad()
def without(net: Net) -> nn.Module:
    """The frozen norms as parts of the layers that read them: no norm is left."""
    net = copy.deepcopy(net)
    for k, layer in enumerate([*net.up, net.last]):
        weight, bias = norm.fold(layer.weight, layer.bias, net.gain[k] / net.std[k], net.shift[k], "before")
        layer.weight.copy_(weight - weight.mean(1, keepdim=True))  # to take the mean of a row away is linear too
        layer.bias.copy_(bias)
    net.norm = lambda s, k: s  # type: ignore[method-assign]
    return net


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=250, rate=4e-3, seed=seed)
    frozen, none = copy.deepcopy(net), copy.deepcopy(net)
    none.std = [1.0] * (DEPTH + 1)  # without a norm and without its constant

    def more(net: Net, number: int) -> None:
        train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=10, rate=1e-3, seed=seed + number)

    @torch.no_grad()
    def loss(net: Net) -> float:
        return float(cross_entropy(net(tx), ty))

    at_once = copy.deepcopy(net)
    with torch.no_grad():
        at_once(x)
    at_once.std = list(at_once.seen)
    result = {"start_loss": loss(net), "at_once_loss": loss(at_once), "none_loss": loss(none)}
    for k in range(DEPTH + 1):
        with torch.no_grad():
            frozen(x)
        frozen.std[k] = frozen.seen[k]
        more(frozen, k)
        more(net, k)  # as many steps with all norms
    result |= {"loss": loss(frozen), "with_loss": loss(net)}
    result |= {"accuracy": accuracy(frozen, tx, ty), "with": accuracy(net, tx, ty)}
    with torch.no_grad():
        frozen, rows = frozen.double(), tx.double()
        said = frozen(rows)
        result["folded_apart"] = float((without(frozen)(rows) - said).abs().max() / said.abs().max())
    result["cost"] = result["with"] - result["accuracy"]
    result["of_with"] = result["loss"] / result["with_loss"]
    result["of_at_once"] = result["loss"] / result["at_once_loss"]
    result["of_none"] = result["at_once_loss"] / result["none_loss"]  # the constant is what does it
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
