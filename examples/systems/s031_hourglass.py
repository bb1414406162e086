"""Hourglass nets (row 31): residuals are added in a wide space that a fixed random map leads to. The rule: the map is drawn
and never trained, and blocks are narrow inside."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 31,
    "title": "Rethinking the shape convention of an MLP",
    "mechanism": "z = P x with P random and kept, three blocks z + W2 relu(W1 norm(z)) of widths 256-16-256, a linear end; "
    "against the same with a learned P, and against blocks 64-64-64 in the space of the pixels",
    "evidence": "A",
    "functions": ["tersor.nn.RandomLift"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["over_learned", ">=", -0.04],
        ["over_narrow", ">=", -0.04],
        ["trained_share", "<=", 0.7],
        ["length_apart", "<=", 0.25],
    ],
    "figure": "accuracy",
    "seconds": 60,
}
WIDE, INNER, BLOCKS = 256, 16, 3


class Block(nn.Module):
    def __init__(self, wide: int, inner: int) -> None:
        super().__init__()
        self.norm, self.one, self.two = nn.LayerNorm(wide), nn.Linear(wide, inner), nn.Linear(inner, wide)

    def forward(self, z: Tensor) -> Tensor:
        return z + self.two(self.one(self.norm(z)).relu())


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split, 600)
    lift = tnn.RandomLift(64, WIDE, "gaussian", seed=seed)
    heads = {
        "frozen": [lift, *(Block(WIDE, INNER) for _ in range(BLOCKS)), nn.Linear(WIDE, 10)],
        "learned": [nn.Linear(64, WIDE, bias=False), *(Block(WIDE, INNER) for _ in range(BLOCKS)), nn.Linear(WIDE, 10)],
        "narrow": [*(Block(64, 64) for _ in range(BLOCKS)), nn.Linear(64, 10)],
    }
    result, sizes = {}, {}
    for name, layers in heads.items():
        net = seeded(nn.Sequential(*layers), seed)
        train(net, lambda i, m=net: cross_entropy(m(x[i]), y[i]), len(x), steps=250, rate=3e-3, seed=seed, batch=64)
        result[name] = accuracy(net, tx, ty)
        sizes[name] = sum(p.numel() for p in net.parameters() if p.requires_grad)
    with torch.no_grad():
        lengths = lift(tx).norm(dim=1) / tx.norm(dim=1)
    return {
        **result,
        "accuracy": result["frozen"],
        "over_learned": result["frozen"] - result["learned"],
        # the paper's nets win here; on digits the narrow one is not beaten, and the claim is how little is lost
        "over_narrow": result["frozen"] - result["narrow"],
        "trained_share": sizes["frozen"] / sizes["learned"],
        "length_apart": float((lengths - 1).abs().max()),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
