"""Linear mode connectivity (row 66): nets of two starts lie in two valleys, nets that part late in one. The rule: the loss
along the line is compared with the line between the losses at its ends."""

import copy

import torch
from _common import digits, main, seeded, train
from tersor import metrics
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 66,
    "title": "Landscaping Linear Mode Connectivity",
    "mechanism": "max_α L((1−α) θ₀ + α θ₁) − ((1−α) L₀ + α L₁) at 11 points, batch norms measured anew at each; "
    "pairs of two starts and pairs that share the first half of training",
    "evidence": "A",
    "functions": ["tersor.metrics.loss_barrier", "tersor.metrics.RunningMoments"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["over_ends", ">=", 2.5], ["shared_to_apart", "<=", 0.4], ["measured_to_kept", "<=", 0.9]],
    "figure": "over_ends",
    "seconds": 40,
}


def made(seed: int) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    seeded(net, seed)
    return net


def between(a: nn.Module, b: nn.Module, x: Tensor, y: Tensor, measured: bool) -> Tensor:
    """Losses along the line; the norm's statistics of the data, or on the line too."""
    losses = []
    for alpha in torch.linspace(0, 1, 11):
        net = copy.deepcopy(a)
        for p, q in zip(net.state_dict().values(), b.state_dict().values(), strict=True):
            if p.is_floating_point():
                p.lerp_(q, alpha)
        net.eval()
        with torch.no_grad():
            if measured:
                moments = metrics.RunningMoments()
                for part in x.split(200):
                    moments.update(net[0](part))
                net[1].running_mean.copy_(torch.from_numpy(moments.compute().mean))
                net[1].running_var.copy_(torch.from_numpy(moments.compute().var))
            losses.append(cross_entropy(net(x), y))
    return torch.stack(losses)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, _, _ = digits(split, 1000)

    def fit(net: nn.Module, order: int, steps: int) -> nn.Module:
        net.train()
        train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=steps, rate=5e-3, seed=order)
        return net

    one, other = fit(made(seed), seed, 250), fit(made(seed + 50), seed + 50, 250)
    start = fit(made(seed), seed, 125)
    left, right = (fit(copy.deepcopy(start), seed + k, 125) for k in (1, 2))
    apart, kept = between(one, other, x, y, True), between(one, other, x, y, False)
    barrier, shared = metrics.loss_barrier(apart), metrics.loss_barrier(between(left, right, x, y, True))
    return {
        "barrier": float(barrier),
        "ends": float((apart[0] + apart[-1]) / 2),
        "over_ends": float(barrier / (apart[0] + apart[-1]) * 2),
        "shared_to_apart": float(shared / barrier),
        # statistics of a net on the line are not on the line
        "measured_to_kept": float(barrier / metrics.loss_barrier(kept)),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
