"""EvoNorm (row 132): a norm and its nonlinearity in one formula. The rule: S0 knows of no other image; B0 takes the larger of
the batch's deviation and the image's own."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 132,
    "title": "Evolving Normalization-Activation Layers",
    "mechanism": "S0: x σ(v x)/√(σ²_group + ε) γ + β; B0: x/max(√(σ²_batch + ε), v x + √(σ²_image + ε)) γ + β, in place of "
    "batch norm and ReLU, for batches of 64 and of two",
    "evidence": "v",
    "functions": ["tersor.nn.EvoNorm2d", "tersor.norm.evonorm", "tersor.norm.batch_norm"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["s0_over_batch_of_two", ">=", 0.15],
        ["s0_over_batch", ">=", -0.08],
        ["b0_over_batch", ">=", -0.05],
        ["neighbour", "<=", 0.0],
    ],
    "figure": "s0_of_two",
    "seconds": 60,
}
CHANNELS, GROUPS = 32, 4


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv = nn.ModuleList(nn.Conv2d(CHANNELS if k else 1, CHANNELS, 3, 2, 1) for k in range(3))
        self.last = nn.Linear(CHANNELS, 10)

        def make() -> nn.Module:
            if kind == "batch":
                return nn.Sequential(tnn.BatchNorm2d(CHANNELS), nn.ReLU())
            return tnn.EvoNorm2d(CHANNELS, kind, GROUPS)

        self.norms = nn.ModuleList(make() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 1, 8, 8)
        for conv, layer in zip(self.conv, self.norms, strict=True):
            x = layer(conv(x))
        return self.last(x.flatten(1))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result = {}
    for size, steps, rate, kinds in ((64, 150, 5e-3, ("batch", "s0", "b0")), (2, 300, 2e-3, ("batch", "s0"))):
        for kind in kinds:
            net = seeded(Net(kind), seed)
            loss = lambda i, n=net: cross_entropy(n(x[i]), y[i])  # noqa: E731
            train(net, loss, len(x), steps=steps, rate=rate, seed=seed, batch=size)
            net.eval()
            result[f"{kind}_of_two" if size == 2 else kind] = accuracy(net, tx, ty)
    maps = torch.randn(3, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(seed))
    one, other = (norm.evonorm(maps[k], "s0", v=torch.ones(CHANNELS), groups=GROUPS)[0] for k in ([0, 1], [0, 2]))
    result["neighbour"] = float((one - other).abs().max())
    result["s0_over_batch_of_two"] = result["s0_of_two"] - result["batch_of_two"]
    result["s0_over_batch"] = result["s0"] - result["batch"]
    result["b0_over_batch"] = result["b0"] - result["batch"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
