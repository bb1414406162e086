"""A small net on scikit-learn's digits: dense, pruned gradually to 98 % with and without a least number of weights in each
layer, and trained sparse from the first step with masks that stay, or move.

    python examples/pruning.py [--sparsity 0.98] [--seeds 3] [--min-keep 300]

The one rule: every row of the table has the same net, data, steps and optimizer; only the masks differ.
"""

import argparse
import statistics

import torch
from sklearn.datasets import load_digits
from tersor import nn as tnn
from tersor import prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

STEPS, BATCH = 600, 64


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1200 images to learn from and the others to be measured on."""
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    images, labels = torch.from_numpy(x).float()[order] / 16, torch.from_numpy(y)[order]
    return images[:1200], labels[:1200], images[1200:], labels[1200:]


def trained(kind: str, sparsity: float, least: int, seed: int) -> tuple[float, list[int]]:
    """The accuracy of one row of the table, and how many weights each layer keeps."""
    x, y, tx, ty = digits(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    if kind == "dense":
        masks = tnn.Masks(net).attach(optimizer)
    elif kind.startswith("gradual"):
        end, keep = 2 * STEPS // 3, least if "least" in kind else 0
        masks = tnn.GradualPruner(
            net, lambda t: prune.cubic_schedule(t, STEPS // 10, end, 0.0, sparsity), keep, every=10
        )
        masks.attach(optimizer)
    else:  # first weights, the same share of each layer but for its least number
        masks = tnn.Masks(net).prune(sparsity, scope="layer", min_keep=least).attach(optimizer)
        if kind in ("set", "rigl"):
            tnn.DynamicSparse(optimizer, masks, method=kind, fraction=0.3, every=20, end=3 * STEPS // 4, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
        rates.step()
    kept = list(masks.kept.values())
    masks.remove()
    weights = [p for p in net.parameters() if p.ndim > 1]
    assert all(int(w.count_nonzero()) <= n for w, n in zip(weights, kept, strict=True))
    with torch.no_grad():
        return float((net(tx).argmax(-1) == ty).double().mean()), kept


def main() -> None:
    parser = argparse.ArgumentParser(description="Pruning while training, on digits")
    parser.add_argument("--sparsity", type=float, default=0.98)
    parser.add_argument("--min-keep", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'masks':24} accuracy  worst  weights kept in each layer (seed 0)")
    for kind in ("dense", "gradual", "gradual, least number", "fixed", "set", "rigl"):
        rows = [trained(kind, given.sparsity, given.min_keep, seed) for seed in range(given.seeds)]
        mean, worst = statistics.mean(a for a, _ in rows), min(a for a, _ in rows)
        print(f"{kind:24} {mean:8.4f} {worst:6.4f}  {rows[0][1]}")


if __name__ == "__main__":
    main()
