"""The intrinsic dimension of digits: in how many random dimensions a net must be trained to reach 90 % of what training all of
its parameters reaches (Li, Farkhoor, Liu, Yosinski 2018).

    python examples/intrinsic_dimension.py [--kind fastfood] [--seed 0]
"""

import argparse

import torch
from sklearn.datasets import load_digits
from tersor import nn as tnn

DIMENSIONS = (5, 10, 20, 40, 60, 80, 120, 160, 240)


def net(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def accuracy(model: torch.nn.Module, data: tuple[torch.Tensor, ...], rate: float, steps: int) -> float:
    """Of the held-out half, after so many steps on the other."""
    x, y, held, labels = data
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        return float((model(held).argmax(1) == labels).float().mean())


def measure(kind: str = "fastfood", seed: int = 0, steps: int = 150) -> tuple[float, dict[int, float], int | None]:
    """The accuracy of training everything, that in each number of dimensions, and the least of these with 90 % of it."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(images).float() / 16, torch.from_numpy(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    half = len(x) // 2
    data = x[order[:half]], y[order[:half]], x[order[half:]], y[order[half:]]
    full = accuracy(net(seed), data, 0.01, steps)
    found = {d: accuracy(tnn.Subspace(net(seed), d, kind, seed=seed), data, 0.1, steps) for d in DIMENSIONS}
    return full, found, min((d for d, a in found.items() if a >= 0.9 * full), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="fastfood", choices=("gaussian", "sparse", "fastfood"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    full, found, least = measure(given.kind, given.seed)
    total = sum(p.numel() for p in net(0).parameters())
    print(f"all {total} parameters: {full:.3f}, of which 90 % is {0.9 * full:.3f}")
    for d, a in found.items():
        print(f"{d:4d} dimensions: {a:.3f}{' <- intrinsic dimension' if d == least else ''}")


if __name__ == "__main__":
    main()
