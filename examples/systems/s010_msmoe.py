"""M-SMoE (row 10): experts that are routed alike become one. The rule: hidden units are put in one order first, and the most
used expert has most to say.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 10,
    "title": "Merge, Then Compress: Demystify Efficient SMoE with Hints from Its Routing Policy",
    "mechanism": "usage and cosines of router logits group 8 experts to 3; hidden units by the assignment of the largest "
    "sum of inner products; W = sum f_e W_e / sum f_e; low rank and rows of what is left (experts start as copies of a "
    "trained one, their hidden units in an order that is drawn)",
    "evidence": "V",
    "functions": [
        "tersor.prune.expert_groups",
        "tersor.prune.expert_align",
        "tersor.prune.expert_merge",
        "tersor.prune.lowrank_plus_sparse",
    ],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["of_unaligned", "<=", 0.5],
        ["of_plain_mean", "<=", 0.95],
        ["of_low_rank", "<=", 0.78],
        ["size", "<=", 0.4],
    ],
    "figure": "accuracy",
    "seconds": 30,
}
EXPERTS, GROUPS, WIDTH, HIDDEN = 8, 3, 32, 24


class Mixture(nn.Module):
    """One layer of experts, each token to one of them with its share, in a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.router = nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10), nn.Linear(WIDTH, EXPERTS)
        self.up = nn.Parameter(torch.zeros(EXPERTS, HIDDEN, WIDTH))
        self.bias = nn.Parameter(torch.zeros(EXPERTS, HIDDEN, 1))
        self.down = nn.Parameter(torch.zeros(EXPERTS, WIDTH, HIDDEN))

    def layer(self, h: Tensor, up: Tensor, bias: Tensor, down: Tensor) -> Tensor:
        share = self.router(h).softmax(-1)
        best, which = share.max(-1)
        hidden = (up[which] @ h[..., None] + bias[which]).relu()
        return best[:, None] * (down[which] @ hidden)[..., 0]

    def uneven(self, x: Tensor) -> Tensor:
        """1 where all experts have the same share of the rows, the more the fewer have it."""
        return EXPERTS * self.router(self.first(x).tanh()).softmax(-1).mean(0).square().sum()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        return self.last(h + self.layer(h, self.up, self.bias, self.down))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net, generator = seeded(Mixture(), seed), torch.Generator().manual_seed(seed)

    def dense(i: Tensor) -> Tensor:
        h = net.first(x[i]).tanh()
        one = [w[:1].expand(EXPERTS, -1, -1) for w in (net.up, net.bias, net.down)]
        return cross_entropy(net.last(h + net.layer(h, *one)), y[i]) + net.uneven(x[i])

    train(net, dense, len(x), steps=250, rate=4e-3, seed=seed)
    with torch.no_grad():
        for e in range(1, EXPERTS):
            order = torch.randperm(HIDDEN, generator=generator)
            net.up[e], net.bias[e], net.down[e] = net.up[0][order], net.bias[0][order], net.down[0][:, order]
    train(net, lambda i: cross_entropy(net(x[i]), y[i]) + net.uneven(x[i]), len(x), steps=150, rate=2e-3, seed=seed)
    with torch.no_grad():
        h = net.first(x).tanh()
        logits = net.router(h)
        usage = logits.argmax(-1).bincount(minlength=EXPERTS).float()
        (groups,) = prune.expert_groups([usage], [logits], GROUPS)
        parts = [(net.up[e], net.bias[e], net.down[e]) for e in range(EXPERTS)]
        orders = [prune.expert_align(parts[int(g)], e, axes=[0, 0, -1]) for g, e in zip(groups, parts, strict=True)]
        plain = [torch.arange(HIDDEN)] * EXPERTS
        wanted, test = net.layer(h, net.up, net.bias, net.down), net.first(tx).tanh()

        def merged(order: list[Tensor], f: Tensor) -> list[Tensor]:
            stacks = (
                torch.stack([net.up[e][o] for e, o in enumerate(order)]),
                torch.stack([net.bias[e][o] for e, o in enumerate(order)]),
                torch.stack([net.down[e][:, o] for e, o in enumerate(order)]),
            )
            return [prune.expert_merge(s, f, groups) for s in stacks]

        def error(made: list[Tensor]) -> float:
            return float((net.layer(h, *made) - wanted).square().sum())

        best = merged(orders, usage)
        others = {"unaligned": merged(plain, usage), "plain_mean": merged(orders, torch.ones(EXPERTS))}
        result = {"dense": accuracy(net, tx, ty)}
        result["accuracy"] = accuracy(lambda v: net.last(test + net.layer(test, *best)), tx, ty)
        for name, made in others.items():
            result[f"of_{name}"] = error(best) / error(made)
        # of each group what is of low rank, with the rows that it misses most and without them
        rows, thin = [], []
        for g in groups.unique():
            made = prune.lowrank_plus_sparse(best[2][g], 0.5, 0.75)
            rows.append(float((made.to_dense() - best[2][g]).square().sum()))
            thin.append(float((made.left @ made.right - best[2][g]).square().sum()))
        result["of_low_rank"] = sum(rows) / sum(thin)
        result["size"] = len(groups.unique()) / EXPERTS
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
