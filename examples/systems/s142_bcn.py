"""Batch-channel norm and weight standardization (row 142): norms of batches where batches are of two images. The rule: the
batch's part uses statistics that are known before the batch, and a norm of channels follows it."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 142,
    "title": "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
    "mechanism": "batch norm by running estimates, which move with each batch, then group norm, each with its own affine map; "
    "(w − mean)/√(var + ε) of each filter of a convolution",
    "evidence": "V",
    "functions": ["tersor.nn.BatchChannelNorm", "tersor.nn.WSConv2d", "tersor.norm.weight_standardize"],
    "data": "sklearn.datasets.load_digits, two images a step",
    "claims": [
        ["over_batch", ">=", 0.15],
        ["over_group", ">=", -0.01],
        ["neighbour", "<=", 0.0],
        ["of_batch", ">=", 0.05],
    ],
    "figure": "accuracy",
    "seconds": 60,
}
CHANNELS, GROUPS, STEPS, BATCH, MOMENTUM = 32, 4, 400, 2, 0.02


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        make = tnn.WSConv2d if kind == "bcn" else nn.Conv2d
        self.conv = nn.ModuleList(make(CHANNELS if k else 1, CHANNELS, 3, 2, 1) for k in range(3))
        self.last = nn.Linear(CHANNELS, 10)
        norms = {
            "bcn": lambda: tnn.BatchChannelNorm(CHANNELS, GROUPS, momentum=MOMENTUM, estimate=True),
            "batch": lambda: tnn.BatchNorm2d(CHANNELS),
            "group": lambda: tnn.GroupNorm(GROUPS, CHANNELS),
        }
        self.norms = nn.ModuleList(norms[kind]() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 1, 8, 8)
        for conv, layer in zip(self.conv, self.norms, strict=True):
            x = layer(conv(x)).relu()
        return self.last(x.flatten(1))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result, nets = {}, {}
    for kind in ("bcn", "batch", "group"):
        net = nets[kind] = seeded(Net(kind), seed)
        train(
            net, lambda i, n=net: cross_entropy(n(x[i]), y[i]), len(x), steps=STEPS, rate=2e-3, seed=seed, batch=BATCH
        )
        net.eval()
        result[kind] = accuracy(net, tx, ty)
    with (
        torch.no_grad()
    ):  # while they train, what an image gives does not depend on the one beside it, given the estimates
        pair, other = tx[[0, 1]], tx[[0, 2]]
        for kind, key in (("bcn", "neighbour"), ("batch", "of_batch")):
            net = nets[kind].train()
            for layer in net.norms:
                layer.momentum = 0.0  # the estimates stay
            result[key] = float((net(pair)[0] - net(other)[0]).abs().max())
    result["accuracy"] = result["bcn"]
    result["over_batch"] = result["bcn"] - result["batch"]
    result["over_group"] = result["bcn"] - result["group"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
