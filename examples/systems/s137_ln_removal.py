"""Removal of layer norms (row 137): the deviation of a row becomes a constant, and the norm a part of the layer behind. The
rule: one norm goes at a time, with a few steps of training after each."""

import copy

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 137,
    "title": "Transformers Don't Need LayerNorm at Inference Time: Scaling LayerNorm Removal to GPT-2 XL and the Implications "
    "for Mechanistic Interpretability",
    "mechanism": "(x − μ)/σ̄ with the mean deviation σ̄ over the data in place of each row's own; norm after norm, with a few "
    "steps between; then folded into the next layer (residual blocks of a perceptron, without a first token)",
    "evidence": "V",
    "functions": ["tersor.norm.layer_norm", "tersor.nn.FrozenLayerNorm", "tersor.norm.fold"],
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
    """Pre-norm blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, DIM), nn.Linear(DIM, 10)
        self.up = nn.ModuleList(nn.Linear(DIM, 2 * DIM) for _ in range(DEPTH))
        self.down = nn.ModuleList(nn.Linear(2 * DIM, DIM) for _ in range(DEPTH))
        self.norms = nn.ModuleList(tnn.LayerNorm(DIM, EPS) for _ in range(DEPTH + 1))

    def forward(self, x: Tensor) -> Tensor:
        s = self.first(x)
        for k in range(DEPTH):
            s = s + self.down[k](self.up[k](self.norms[k](s)).relu())
        return self.last(self.norms[DEPTH](s))

    @torch.no_grad()
    def freeze(self, x: Tensor, places: range) -> None:
        """Constants in the place of these norms: means of the deviations of what they see of x."""
        new = {k: tnn.FrozenLayerNorm.from_float(self.norms[k]) for k in places}
        for k, f in new.items():
            self.norms[k].register_forward_pre_hook(lambda _, given, f=f: f.observe(*given))
        self(x)
        for k, f in new.items():
            self.norms[k] = f


@torch.no_grad()
def without(net: Net) -> nn.Module:
    """The frozen norms as parts of the layers that read them: no norm is left."""
    net = copy.deepcopy(net)
    folded = [f.fold(layer) for f, layer in zip(net.norms, [*net.up, net.last], strict=True)]
    net.up, net.last = nn.ModuleList(folded[:-1]), folded[-1]
    net.norms = nn.ModuleList(nn.Identity() for _ in net.norms)
    return net


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=250, rate=4e-3, seed=seed)
    frozen, none = copy.deepcopy(net), copy.deepcopy(net)
    none.norms = nn.ModuleList(tnn.FrozenLayerNorm.from_float(n) for n in none.norms)  # without their constants

    def more(net: Net, number: int) -> None:
        train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=10, rate=1e-3, seed=seed + number)

    @torch.no_grad()
    def loss(net: Net) -> float:
        return float(cross_entropy(net(tx), ty))

    at_once = copy.deepcopy(net)
    at_once.freeze(x, range(DEPTH + 1))
    result = {"start_loss": loss(net), "at_once_loss": loss(at_once), "none_loss": loss(none)}
    for k in range(DEPTH + 1):
        frozen.freeze(x, range(k, k + 1))
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
