"""IBN-Net (row 179): half of the channels forget how bright an image is, half do not. The rule: one call normalises both
halves, by the label of each sample and channel."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 179,
    "title": "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net",
    "mechanism": "the first half of the channels has instance norm, the rest batch norm: labels n·h + c for c < h = ⌊C/2⌋, "
    "else N·h + c − h, in one pass",
    "evidence": "V",
    "functions": ["tersor.norm.standardize", "tersor.norm.batch_norm"],
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


def normalised(x: Tensor, gain: Tensor, shift: Tensor, half: int) -> tuple[Tensor, Tensor, Tensor]:
    """One norm of a batch of which the first `half` channels are kept apart for each sample; the statistics too."""
    n, c = x.shape[:2]
    labels = torch.arange(n)[:, None] * half + torch.arange(c)
    labels[:, half:] = n * half + torch.arange(c - half)
    affine = gain[:, None, None], shift[:, None, None]
    places, number = labels[:, :, None, None], n * half + c - half
    y, m = norm.standardize(x, *affine, dim=None, labels=places, num_segments=number, return_stats=True)
    return y, m.mean.flatten()[n * half :], m.var.flatten()[n * half :]


class Net(nn.Module):
    def __init__(self, half: int) -> None:
        super().__init__()
        self.half = half
        self.one, self.two = nn.Conv2d(1, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.last = nn.Linear(CHANNELS * 16, 20)
        self.gain = nn.ParameterList(torch.ones(CHANNELS) for _ in range(2))
        self.shift = nn.ParameterList(torch.zeros(CHANNELS) for _ in range(2))
        self.mean, self.var = torch.zeros(2, CHANNELS - half), torch.ones(2, CHANNELS - half)

    def norm(self, x: Tensor, k: int) -> Tensor:
        gain, shift, half = self.gain[k], self.shift[k], self.half
        if self.training:
            y, mean, var = normalised(x, gain, shift, half)
            with torch.no_grad():
                self.mean[k] += 0.1 * (mean.float() - self.mean[k])
                self.var[k] += 0.1 * (var.float() - self.var[k])
            return y
        parts = []
        if half:
            parts.append(norm.instance_norm(x[:, :half].contiguous(), gain[:half], shift[:half]))
        if half < CHANNELS:
            parts.append(norm.batch_norm(x[:, half:], self.mean[k], self.var[k], gain[half:], shift[half:]))
        return torch.cat(parts, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.one(x.view(-1, 1, 8, 8)), 0).relu()
        h = self.norm(self.two(h), 1).relu().unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
        return self.last(h.flatten(1))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split, 1000)
    x, y = torch.cat([x, DIM * x]), torch.cat([y, y + 10])  # how bright an image is belongs to its class
    both, of_both = torch.cat([tx, DIM * tx]), torch.cat([ty, ty + 10])
    moved = {"dark": 0.3 * tx, "bright": 0.6 * tx + 0.4, "loud": 1.8 * tx - 0.4}
    result: dict[str, float] = {}
    for name, half in (("batch", 0), ("ibn", CHANNELS // 2), ("instance", CHANNELS)):
        net = seeded(Net(half), seed)
        train(net, lambda i, n=net: cross_entropy(n(x[i]), y[i]), len(x), steps=200, rate=5e-3, seed=seed, batch=64)
        net.eval()

        def digit(v: Tensor, net: nn.Module = net) -> Tensor:
            return torch.logaddexp(*net(v).split(10, 1))

        result[name] = accuracy(net, both, of_both)
        result[f"{name}_moved"] = sum(accuracy(digit, v, ty) for v in moved.values()) / len(moved)
    # the one call is the two norms beside each other
    z, half = tx[:40].double().reshape(4, 10, 8, 8), 3
    gain, shift = torch.linspace(1, 2, 10).double(), torch.linspace(-1, 1, 10).double()
    one, _, _ = normalised(z, gain, shift, half)
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
