"""Poincaré ResNet (van Spengler, Berkhout and Mettes, 2023) on scikit-learn's digits, beside a Euclidean ResNet of the same
size, with an embedding of two or three dimensions before the classifier.

    python examples/poincare_resnet.py [--dim 2 3] [--epochs 15] [--seeds 3] [--channels 8] [--curvature 0.1]

The one rule: both nets are one description; only the layers it is built of differ.

The architecture is the paper's: a convolution, groups of residual blocks, the first block of each group halving the image, a
global midpoint, logits by distances to hyperplanes. Differences from the published code, which it needs to be the mathematics
it states: the conformal factor is 2/(1 - c|x|²), skip connections add along the channels, and evaluation uses running
statistics. Layers hand on tangent vectors, so that every parameter is an ordinary one and Adam trains them all.

Measured, three seeds, 15 epochs, c = 0.1: 94.8 % against 93.4 % with two dimensions, 96.4 % against 97.0 % with three, where
seeds differ by more than the nets. c = 1 is worse: 86 % with two dimensions.
"""

import argparse
import time

import torch
from tersor import nn as tnn
from torch import Tensor, nn

EUCLIDEAN, POINCARE = "Euclidean", "Poincaré"


class Sum(nn.Module):
    """f(x) + shortcut(x)."""

    def __init__(self, block: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.block, self.shortcut = block, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + self.shortcut(x)


def resnet(kind: str, channels: int, dim: int, classes: int, c: float = 0.1) -> nn.Sequential:
    """Three groups of a residual block each, an embedding of `dim` numbers, logits."""
    curved = kind == POINCARE

    def conv(i: int, o: int, k: int, stride: int = 1) -> nn.Module:
        if curved:
            return tnn.PoincareConv2d(i, o, k, stride, k // 2, bias=False, c=c)
        return nn.Conv2d(i, o, k, stride, k // 2, bias=False)

    def norm(n: int) -> nn.Module:
        return tnn.PoincareBatchNorm(n, c=c) if curved else nn.BatchNorm2d(n)

    def block(i: int, o: int, stride: int) -> nn.Module:
        body = nn.Sequential(conv(i, o, 3, stride), norm(o), nn.ReLU(), conv(o, o, 3), norm(o))
        around = nn.Identity() if i == o and stride == 1 else nn.Sequential(conv(i, o, 1, stride), norm(o))
        return tnn.PoincareResidual(body, around, c=c) if curved else Sum(body, around)

    n = channels
    layers = [conv(1, n, 3), norm(n), nn.ReLU()]
    for i, o, stride in ((n, n, 1), (n, 2 * n, 2), (2 * n, 4 * n, 2)):
        layers += [block(i, o, stride), nn.ReLU()]
    layers += [tnn.PoincareAvgPool2d(c=c) if curved else nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if curved:
        layers += [tnn.PoincareLinear(4 * n, dim, c=c), tnn.PoincareMLR(dim, classes, c=c)]
    else:
        layers += [nn.Linear(4 * n, dim), nn.Linear(dim, classes)]
    net = nn.Sequential(*layers)
    for layer in net.modules():
        if isinstance(layer, (tnn.PoincareConv2d, tnn.PoincareLinear)):
            break_symmetry(layer)
    return net


@torch.no_grad()
def break_symmetry(layer: tnn.PoincareConv2d | tnn.PoincareLinear) -> None:
    """The identity and noise of its size: channels beyond the identity start at 0, and all of them alike."""
    layer.weight.add_(torch.randn_like(layer.weight) * (2 * layer.weight[0].numel()) ** -0.5)


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images [n, 1, 8, 8] in 0 … 1, and their classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    split = train_test_split(x.reshape(-1, 1, 8, 8) / 16, y, test_size=0.25, random_state=seed, stratify=y)
    a, b, ya, yb = (torch.from_numpy(v) for v in split)
    return a.float(), ya, b.float(), yb


def train(net: nn.Module, x: Tensor, y: Tensor, epochs: int, batch: int = 64, rate: float = 1e-2) -> None:
    steps = epochs * -(-len(x) // batch)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    net.eval()
    return (net(x).argmax(1) == y).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description="Poincaré ResNet on digits, beside a Euclidean one.")
    parser.add_argument("--dim", type=int, nargs="+", default=[2, 3], help="size of the embedding")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--curvature", type=float, default=0.1, help="c of the ball of curvature -c")
    chosen = parser.parse_args()
    print(f"digits, {chosen.epochs} epochs, {chosen.channels} channels: test accuracy by seed")
    for dim in chosen.dim:
        for kind in (EUCLIDEAN, POINCARE):
            found, start = [], time.perf_counter()
            for seed in range(chosen.seeds):
                torch.manual_seed(seed)
                x, y, x_test, y_test = digits(seed)
                net = resnet(kind, chosen.channels, dim, 10, chosen.curvature)
                train(net, x, y, chosen.epochs)
                found.append(accuracy(net, x_test, y_test))
            size = sum(p.numel() for p in net.parameters())
            each = " ".join(f"{a:.1%}" for a in found)
            mean, spent = sum(found) / len(found), (time.perf_counter() - start) / len(found)
            print(f"dim {dim}  {kind:9}  {mean:6.1%}  ({each})  {size} parameters, {spent:.0f} s per seed", flush=True)


if __name__ == "__main__":
    main()
