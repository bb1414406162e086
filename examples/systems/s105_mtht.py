"""Multi-task heterogeneous training (row 105): tasks share a mixture of experts and each comes to use its own. The rule: the
information that a task has about an expert is part of the loss.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 105,
    "title": "An Efficient General-Purpose Modular Vision Model via Multi-Task Heterogeneous Training",
    "mechanism": "a router for each task over shared experts, the two largest of each row; the loss has -I(T; E) = "
    "sum_t p(t) H(E|t) - H(E) of the mean shares; experts that a task does not use are left out for it "
    "(feed-forward experts of one layer)",
    "evidence": "A",
    "functions": ["tersor.prune.topk_rows"],
    "data": "sklearn.datasets.load_digits: which digit, whether it is larger than 4, the third of its ink",
    "claims": [["more_known", ">=", 0.2], ["cost", "<=", 0.02], ["cut_cost", "<=", 0.02], ["left", "<=", 0.75]],
    "figure": "accuracy",
    "seconds": 40,
}
WIDTH, INNER, EXPERTS, TASKS = 32, 16, 8, (10, 2, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, WIDTH)
        self.up, self.down = (nn.Parameter(torch.zeros(EXPERTS, *s)) for s in ((INNER, WIDTH), (WIDTH, INNER)))
        self.routers = nn.ModuleList(nn.Linear(WIDTH, EXPERTS) for _ in TASKS)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, n) for n in TASKS)

    def shares(self, x: Tensor, task: int) -> Tensor:
        """What each row gives each expert, on average over rows."""
        return self.routers[task](self.first(x).relu()).softmax(-1).mean(0)

    def forward(self, x: Tensor, task: int, allowed: Tensor | None = None) -> Tensor:
        h = self.first(x).relu()
        logits = self.routers[task](h)
        if allowed is not None:
            logits = torch.where(allowed, logits, -1e9)
        values, which = prune.topk_rows(logits, 2)
        hidden = (self.up[which] @ h[:, None, :, None]).relu()
        mixed = (values.softmax(-1)[..., None] * (self.down[which] @ hidden)[..., 0]).sum(1)
        return self.heads[task](h + mixed)


def entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp_min(1e-9).log()).sum(-1)


def known(net: Net, x: Tensor) -> Tensor:
    """I(T; E) of tasks that are asked alike often, in nats."""
    shares = torch.stack([net.shares(x, t) for t in range(len(TASKS))])
    return entropy(shares.mean(0)) - entropy(shares).mean()


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    ink = x.sum(-1).quantile(torch.tensor([1 / 3, 2 / 3]))
    labels = [[v, (v > 4).long(), torch.bucketize(a.sum(-1), ink)] for a, v in ((x, y), (tx, ty))]
    result, tasks = {}, range(len(TASKS))
    for name, weight in (("plain", 0.0), ("accuracy", 0.3)):
        net = seeded(Net(), seed)

        def loss(i: Tensor, net: Net = net, weight: float = weight) -> Tensor:
            own = sum(cross_entropy(net(x[i], t), labels[0][t][i]) for t in tasks)
            return own - weight * known(net, x[i])

        train(net, loss, len(x), steps=250, rate=4e-3, seed=seed)
        with torch.no_grad():
            result[name] = sum(accuracy(lambda v, t=t, net=net: net(v, t), tx, labels[1][t]) for t in tasks) / len(
                TASKS
            )
            result[f"known_{name}"] = float(known(net, tx))
    with torch.no_grad():  # for each task the experts that it gives at least half of an even share
        allowed = [net.shares(x, t) >= 0.5 / EXPERTS for t in tasks]
        cut = sum(accuracy(lambda v, t=t, net=net: net(v, t, allowed[t]), tx, labels[1][t]) for t in tasks) / len(TASKS)
    result["left"] = float(torch.stack(allowed).double().mean())
    result["cut_cost"] = result["accuracy"] - cut
    result["more_known"] = result["known_accuracy"] - result["known_plain"]
    result["cost"] = result["plain"] - result["accuracy"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
