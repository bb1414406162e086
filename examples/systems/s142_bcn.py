"""Batch-channel norm and weight standardization (row 142): norms of batches where batches are of two images. The rule: the
batch's part uses statistics that are known before the batch, and a norm of channels follows it."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

SYSTEM = {
    "row": 142,
    "title": "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
    "mechanism": "batch norm by running estimates, which move with each batch, then group norm, each with its own affine map; "
    "(w − mean)/√(var + ε) of each filter of a convolution",
    "evidence": "V",
    "functions": ["tersor.norm.batch_norm", "tersor.norm.group_norm", "tersor.norm.weight_standardize"],
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
        self.kind = kind
        self.conv = nn.ModuleList(nn.Conv2d(CHANNELS if k else 1, CHANNELS, 3, 2, 1) for k in range(3))
        self.last = nn.Linear(CHANNELS, 10)
        self.gain = nn.ParameterList(torch.ones(CHANNELS) for _ in range(6))
        self.shift = nn.ParameterList(torch.zeros(CHANNELS) for _ in range(6))
        self.mean, self.var = torch.zeros(3, CHANNELS), torch.ones(3, CHANNELS)

    def forward(self, x: Tensor, moves: bool = True) -> Tensor:
        x = x.view(-1, 1, 8, 8)
        for k, conv in enumerate(self.conv):
            weight = norm.weight_standardize(conv.weight) if self.kind == "bcn" else conv.weight
            x = conv2d(x, weight, conv.bias, stride=2, padding=1)
            affine = self.gain[k], self.shift[k]
            if self.kind == "batch":
                x = norm.batch_norm(x, self.mean[k], self.var[k], *affine, self.training)
            elif self.kind == "group":
                x = norm.group_norm(x, GROUPS, *affine)
            else:
                if self.training and moves:  # the estimates learn of the batch before it is normalised by them
                    norm.batch_norm(x.detach(), self.mean[k], self.var[k], training=True, momentum=MOMENTUM)
                x = norm.batch_norm(x, self.mean[k].clone(), self.var[k].clone(), *affine)
                x = norm.group_norm(x, GROUPS, self.gain[k + 3], self.shift[k + 3])
            x = x.relu()
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
            more = (False,) if kind == "bcn" else ()
            result[key] = float((net(pair, *more)[0] - net(other, *more)[0]).abs().max())
    result["accuracy"] = result["bcn"]
    result["over_batch"] = result["bcn"] - result["batch"]
    result["over_group"] = result["bcn"] - result["group"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
