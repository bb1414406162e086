"""Mixture of hidden dimensions (row 41): some dimensions serve all, a router adds a few groups for each row. The rule: what is
not chosen is neither read nor multiplied.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import prune, sparse
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 41,
    "title": "Mixture of Hidden-Dimensions Transformer",
    "mechanism": "hidden dimensions in groups: some shared, of the others the k groups that a router ranks first for a row, "
    "weighed by its shares and scaled to the size of all; the next product reads the rows of the chosen ones as a sparse "
    "matrix (a perceptron stands for a transformer; scaling and fusion of groups are ours, no code is published)",
    "evidence": "A",
    "functions": ["tersor.prune.topk_rows", "tersor.sparse.spmm"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["over_narrow", ">=", 0.007],
        ["over_drawn", ">=", 0.06],
        ["groups_used", ">=", 0.5],
        ["apart", "<=", 1e-4],
    ],
    "figure": "accuracy",
    "seconds": 60,
}
SHARED, GROUPS, EACH, K = 2, 8, 2, 2
BALANCE = 0.05
WIDTH, ACTIVE = SHARED + GROUPS * EACH, SHARED + K * EACH


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.router = nn.Linear(64, WIDTH), nn.Linear(64, GROUPS)
        self.down = nn.Parameter(torch.zeros(WIDTH, 24))
        self.last = nn.Linear(24, 10)

    def chosen(self, x: Tensor, ranks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The dimensions of every row, ascending, and what they are multiplied with."""
        odds = self.router(x).softmax(-1)
        _, groups = prune.topk_rows(odds if ranks is None else ranks, K)
        shares = odds.gather(1, groups)
        shares = shares * GROUPS / K  # of a router that knows nothing, the size of all groups
        one = torch.arange(EACH)
        places = torch.cat(
            [torch.arange(SHARED).expand(len(x), -1), SHARED + (groups[..., None] * EACH + one).flatten(1)], 1
        )
        return places, torch.cat([torch.ones(len(x), SHARED), shares.repeat_interleave(EACH, 1)], 1)

    def forward(self, x: Tensor, ranks: Tensor | None = None) -> Tensor:
        places, weights = self.chosen(x, ranks)
        values = (self.up.weight[places] @ x[..., None])[..., 0] + self.up.bias[places]
        values = values.relu() * weights
        rows = sparse.CSR(values.flatten(), places.flatten(), torch.arange(len(x) + 1) * ACTIVE, (len(x), WIDTH))
        return self.last(sparse.spmm(rows, self.down).relu())

    def balance(self, x: Tensor) -> Tensor:
        """How unevenly groups are chosen, 1 at the least: the share of rows of each times its share of the odds."""
        odds = self.router(x).softmax(-1)
        often = torch.zeros_like(odds).scatter(1, prune.topk_rows(odds.detach(), K)[1], 1.0).mean(0) / K
        return GROUPS * (often * odds.mean(0)).sum()

    def masked(self, x: Tensor) -> Tensor:
        """The same with all dimensions multiplied, those that are not chosen by 0."""
        places, weights = self.chosen(x)
        return self.last(
            ((self.up(x).relu() * torch.zeros(len(x), WIDTH).scatter(1, places, weights)) @ self.down).relu()
        )


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Mixture(), seed)
    generator = torch.Generator().manual_seed(seed)
    nn.init.uniform_(net.down, -(ACTIVE**-0.5), ACTIVE**-0.5, generator=generator)
    narrow = seeded(
        nn.Sequential(nn.Linear(64, ACTIVE), nn.ReLU(), nn.Linear(ACTIVE, 24), nn.ReLU(), nn.Linear(24, 10)), seed
    )
    fixed = seeded(Mixture(), seed)
    fixed.load_state_dict(net.state_dict())
    drawn = torch.rand(len(x), GROUPS, generator=generator)
    for model, loss in (
        (net, lambda i: cross_entropy(net(x[i]), y[i]) + BALANCE * net.balance(x[i])),
        (narrow, lambda i: cross_entropy(narrow(x[i]), y[i])),
        (fixed, lambda i: cross_entropy(fixed(x[i], drawn[i]), y[i])),
    ):
        train(model, loss, len(x), steps=600, rate=1e-2, seed=seed)
    with torch.no_grad():
        groups = net.chosen(tx)[0][:, SHARED::EACH]
        result = {
            "accuracy": accuracy(net, tx, ty),
            "narrow": accuracy(narrow, tx, ty),
            "drawn": accuracy(lambda v: fixed(v, torch.rand(len(v), GROUPS, generator=generator)), tx, ty),
            "groups_used": len(groups.unique()) / GROUPS,
            "apart": float((net(tx) - net.masked(tx)).abs().max()),
        }
    result["over_narrow"] = result["accuracy"] - result["narrow"]
    result["over_drawn"] = result["accuracy"] - result["drawn"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
