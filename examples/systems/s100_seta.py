"""SeTa (row 100): a window over groups of samples from easy to hard. The rule: groups are the best there are of the losses, and
most iterations see a part of the data."""

import torch
from _common import accuracy, digits, main, seeded
from tersor import metrics
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 100,
    "title": "Scale Efficient Training for Large Datasets",
    "mechanism": "losses in G groups of 1-D k-means by rising mean; a window of half of them slides by one each epoch; "
    "the last eighth of the epochs a random part",
    "evidence": "V",
    "functions": ["tersor.metrics.kmeans_1d", "tersor.metrics.curriculum_window"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["of_scikit", "<=", 1.0],
        ["share", "<=", 0.6],
        ["over_full", ">=", -0.05],
        ["order", ">=", 0.99],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
GROUPS, EPOCHS, KEEP = 10, 40, 0.9


def epoch(net: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, rows: Tensor) -> None:
    for i in rows.split(64):
        optimiser.zero_grad()
        cross_entropy(net(x[i]), y[i]).backward()
        optimiser.step()


def trained(x: Tensor, y: Tensor, seed: int, windows: bool) -> tuple[nn.Module, float, Tensor]:
    """A net, the share of samples that it saw in an epoch, and the logarithms of the losses after the first epochs."""
    net = seeded(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    seen, kept = 0, torch.zeros(0)
    for at in range(EPOCHS):
        rows = torch.randperm(len(x), generator=generator)
        if windows:
            rows = rows[: int(KEEP * len(x))]
            if at < 0.875 * EPOCHS:
                with torch.no_grad():
                    losses = cross_entropy(net(x), y, reduction="none").clamp_min(1e-6).log()
                kept = losses if at == 4 else kept
                labels = metrics.kmeans_1d(losses, GROUPS).labels
                window = metrics.curriculum_window(GROUPS, at)
                rows = rows[((labels >= window.start) & (labels < window.stop))[rows]]
            else:
                rows = rows[: len(rows) // 2]
        epoch(net, optimiser, x, y, rows)
        seen += len(rows)
    return net, seen / (EPOCHS * len(x)), kept


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    from sklearn.cluster import KMeans

    x, y, tx, ty = digits(split, 1078)
    whole, _, _ = trained(x, y, seed, False)
    net, share, losses = trained(x, y, seed, True)
    groups = metrics.kmeans_1d(losses, GROUPS)
    other = KMeans(GROUPS, n_init=1, random_state=seed).fit(losses[:, None].double().numpy())
    full = accuracy(whole, tx, ty)
    found = accuracy(net, tx, ty)
    means = torch.stack([losses[groups.labels == k].mean() for k in range(GROUPS)])
    return {
        "accuracy": found,
        "full": full,
        "over_full": found - full,
        "share": share,
        "of_scikit": float(groups.inertia / other.inertia_),
        # the groups are numbered from easy to hard
        "order": float(metrics.spearman_corrcoef(means, torch.arange(GROUPS))),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
