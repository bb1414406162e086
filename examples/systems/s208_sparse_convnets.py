"""Fast Sparse ConvNets (row 208): wide layers of few weights against narrow dense ones. The rule: as many weights are
multiplied in both, and the pointwise layers of the sparse net run as products of a sparse matrix.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from tersor import prune, sparse
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 208,
    "title": "Fast Sparse ConvNets",
    "mechanism": "1x1 convolutions at 90 % by gradual magnitude pruning, run as CSR times [channels, pixels]; stem and "
    "depthwise layers stay dense",
    "evidence": "V",
    "functions": [
        "tersor.nn.GradualPruner",
        "tersor.prune.cubic_schedule",
        "tersor.sparse.from_dense",
        "tersor.sparse.spmm",
    ],
    "data": "sklearn.datasets.load_digits",
    "claims": [["error_ratio", "<=", 0.84], ["weights_ratio", "<=", 1.0], ["product_apart", "<=", 1e-4]],
    "figure": "accuracy",
    "seconds": 40,
}
WIDE, NARROW, SPARSITY, STEPS = 48, 16, 0.9, 320


class Net(nn.Module):
    """A stem that halves the image, then twice: a filter for each channel, and all channels of each pixel."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, n, 3, stride=2, padding=1)
        self.deep = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1, groups=n) for _ in range(2))
        self.point = nn.ModuleList(nn.Conv2d(n, n, 1) for _ in range(2))
        self.read = nn.Linear(n, 10)

    def forward(self, x: Tensor, matrices: list[sparse.CSR] | None = None) -> Tensor:
        h = self.stem(x.view(-1, 1, 8, 8)).relu()
        for i, (deep, point) in enumerate(zip(self.deep, self.point, strict=True)):
            h = deep(h)
            if matrices is None:
                h = point(h).relu()
            else:
                h = sparse.spmm(matrices[i], h.flatten(2), bias=point.bias).relu().view_as(h)
        return self.read(h.mean((2, 3)))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result, nets = {}, {"narrow": seeded(Net(NARROW), seed), "wide": seeded(Net(WIDE), seed)}
    pruner = tnn.GradualPruner(
        nets["wide"],
        lambda t: prune.cubic_schedule(t, STEPS // 8, STEPS // 2, 0.0, SPARSITY),
        NARROW,
        every=5,
        include=["point.*"],
    )
    for name, net in nets.items():
        hold = {"hold": pruner.attach} if name == "wide" else {}
        train(
            net,
            lambda i, m=net: cross_entropy(m(x[i]), y[i]),
            len(x),
            steps=STEPS,
            rate=1e-2,
            seed=seed,
            batch=64,
            **hold,
        )
    wide, matrices = nets["wide"], []
    with torch.no_grad():
        for name, point in zip(pruner, wide.point, strict=True):
            matrices.append(sparse.from_dense(point.weight.detach().flatten(1), pruner[name].flatten(1)))
        result["product_apart"] = float((wide(tx, matrices) - wide(tx)).abs().max())
        result["accuracy"], result["narrow"] = (
            accuracy(lambda v: wide(v, matrices), tx, ty),
            accuracy(nets["narrow"], tx, ty),
        )
    result["weights_ratio"] = sum(a.nnz for a in matrices) / (2 * NARROW**2)
    result["error_ratio"] = (1 - result["accuracy"]) / (1 - result["narrow"])
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
