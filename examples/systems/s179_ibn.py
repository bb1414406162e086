"""IBN-Net (row 179): half of the channels forget how bright an image is, half do not. The rule: one call normalises both
halves, by the label of each sample and channel."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 179,
    "title": "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net",
    "mechanism": "the first half of the channels has instance norm, the rest batch norm: labels n·h + c for c < h = ⌊C/2⌋, "
    "else N·h + c − h, in one pass",
    "evidence": "V",
    "functions": ["tersor.nn.IBNorm", "tersor.norm.standardize", "tersor.norm.batch_norm"],
    "data": "sklearn.datasets.load_digits, tested with other brightness and contrast",
    "claims": [
        ["over_batch", ">=", 0.02],
        ["over_instance", ">=", 0.25],
        ["clean_cost", "<=", 0.02],
        ["apart", "<=", 1e-12],
    ],
    "figure": "moved",
    "seconds": 60,
}
CHANNELS, DIM = 15, 0.5  # odd: the halves differ


class Net(nn.Module):
    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.last = nn.Linear(CHANNELS * 16, 20)
        self.norms = nn.ModuleList(tnn.IBNorm(CHANNELS, ratio) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norms[0](self.one(x.view(-1, 1, 8, 8))).relu()
        h = self.norms[1](self.two(h)).relu().unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
        return self.last(h.flatten(1))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split, 1000)
    x, y = torch.cat([x, DIM * x]), torch.cat([y, y + 10])  # how bright an image is belongs to its class
    both, of_both = torch.cat([tx, DIM * tx]), torch.cat([ty, ty + 10])
    moved = {"dark": 0.3 * tx, "bright": 0.6 * tx + 0.4, "loud": 1.8 * tx - 0.4}
    result: dict[str, float] = {}
    for name, ratio in (("batch", 0.0), ("ibn", 0.5), ("instance", 1.0)):
        net = seeded(Net(ratio), seed)
        train(net, lambda i, n=net: cross_entropy(n(x[i]), y[i]), len(x), steps=200, rate=5e-3, seed=seed, batch=64)
        net.eval()

        def digit(v: Tensor, net: nn.Module = net) -> Tensor:
            return torch.logaddexp(*net(v).split(10, 1))

        result[name] = accuracy(net, both, of_both)
        result[f"{name}_moved"] = sum(accuracy(digit, v, ty) for v in moved.values()) / len(moved)
    # the one call is the two norms beside each other
    z, half = tx[:40].double().reshape(4, 10, 8, 8), 3
    layer = tnn.IBNorm(10, half / 10).double()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(1, 2, 10))
        layer.bias.copy_(torch.linspace(-1, 1, 10))
        one, gain, shift = layer(z), layer.weight.detach(), layer.bias.detach()
    first = norm.instance_norm(z[:, :half].contiguous(), gain[:half], shift[:half])
    rest = norm.batch_norm(z[:, half:].contiguous(), None, None, gain[half:], shift[half:], True)
    result["apart"] = float((one - torch.cat([first, rest], 1)).abs().max())
    result["moved"] = result["ibn_moved"]
    result["over_batch"] = result["ibn_moved"] - result["batch_moved"]
    result["over_instance"] = result["ibn"] - result["instance"]
    result["clean_cost"] = result["batch"] - result["ibn"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
