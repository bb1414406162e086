"""FedTiny (row 159): clients with different data train one sparse net, whose mask moves by gradients that they send in part.
The rule: of weights that are pruned only the K largest gradients leave a client.
"""

from __future__ import annotations

import copy

import torch
from _common import accuracy, digits, main, seeded
from tersor import nn as tnn
from tersor import prune
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 159,
    "title": "Distributed Pruning Towards Tiny Neural Networks in Federated Learning",
    "mechanism": "candidate masks by loss under batch-norm statistics averaged over clients; then a layer at a time: the "
    "K smallest |w| go, the K largest mean |g| of pruned weights grow, K = 0.15 (1 + cos(pi t/T)) n (this schedule is not "
    "verified)",
    "evidence": "A",
    "functions": [
        "tersor.nn.Masks",
        "tersor.prune.fedtiny_count",
        "tersor.prune.fedtiny_send",
        "tersor.prune.fedtiny_update",
    ],
    "data": "sklearn.datasets.load_digits, sorted by class over four clients",
    "claims": [
        ["over_fixed", ">=", 0.02],
        ["over_worst_mask", ">=", 0.015],
        ["sent", "<=", 0.1],
        ["size_apart", "<=", 0.0],
    ],
    "figure": "accuracy",
    "seconds": 30,
}
CLIENTS, ROUNDS, LOCAL, SPARSITY, CANDIDATES = 4, 30, 5, 0.96, 5


def parts(x: Tensor, y: Tensor, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Each client has four runs of the rows in the order of their classes: some classes often, others never."""
    runs = y.argsort(stable=True).chunk(4 * CLIENTS)
    order = torch.randperm(4 * CLIENTS, generator=generator).view(CLIENTS, 4)
    rows = [torch.cat([runs[int(i)] for i in own]) for own in order]
    return [(x[i], y[i]) for i in rows]


def average(net: nn.Module, nets: list[nn.Module]) -> None:
    """Weights and statistics of the clients, in the server's net."""
    states = [n.state_dict() for n in nets]
    net.load_state_dict(
        {k: v if v.dtype == torch.bool else sum(s[k] for s in states) / len(states) for k, v in states[0].items()}
    )


def chosen(net: nn.Module, data: list[tuple[Tensor, Tensor]], generator: torch.Generator) -> tuple[nn.Module, float]:
    """The candidate of the least loss once its statistics are those of all clients; and how much worse the worst is."""
    found = []
    for _ in range(CANDIDATES):
        made = copy.deepcopy(net)
        masks = tnn.Masks(made)
        scores = {k: masks.weight(k).abs() * torch.rand((), generator=generator).add(0.3) for k in masks}
        masks.prune(SPARSITY, min_keep=30, scores=scores)
        with torch.no_grad():
            for m in made.modules():
                if isinstance(m, nn.BatchNorm1d):
                    m.reset_running_stats()
                    m.momentum = None  # the mean of all batches
            for x, _ in data:
                made.train()(x)
            loss = sum(float(cross_entropy(made.eval()(x), y)) for x, y in data) / CLIENTS
        found.append((loss, len(found), made))
    return min(found)[2], max(found)[0] - min(found)[0]


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    generator = torch.Generator().manual_seed(seed)
    data = parts(x, y, generator)
    first = nn.Sequential(
        nn.Linear(64, 96),
        nn.BatchNorm1d(96),
        nn.ReLU(),
        nn.Linear(96, 48),
        nn.BatchNorm1d(48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )
    start, apart = chosen(seeded(first, seed), data, generator)
    result = {"over_worst_mask": apart, "size_apart": 0.0, "sent": 0.0}
    for name in ("fixed", "accuracy"):
        net = copy.deepcopy(start)
        masks = tnn.Masks(net)
        kept, names = masks.kept, list(masks)
        for t in range(ROUNDS):
            clients, sent = [copy.deepcopy(net).train() for _ in data], []
            layer = names[-1 - t % len(names)]  # from the output to the input
            n = prune.fedtiny_count(t, ROUNDS, kept[layer])
            for own, (cx, cy) in zip(clients, data, strict=True):
                optimiser = torch.optim.SGD(own.parameters(), 0.1, momentum=0.9)
                held = tnn.Masks(own).attach(optimiser)
                for _ in range(LOCAL):
                    rows = torch.randint(len(cx), (64,), generator=generator)
                    optimiser.zero_grad()
                    cross_entropy(own(cx[rows]), cy[rows]).backward()
                    optimiser.step()
                own.zero_grad()
                cross_entropy(own(cx), cy).backward()
                sent.append(prune.fedtiny_send(held.weight(layer).grad, held[layer], n))
            average(net, clients)
            if name == "accuracy":
                masks[layer] = prune.fedtiny_update(masks.weight(layer), masks[layer], sent, n)
                result["sent"] = max(result["sent"], 2 * n / masks[layer].numel())
        result[name] = accuracy(net.eval(), tx, ty)
        result["size_apart"] += sum(abs(kept[k] - v) for k, v in masks.kept.items())
    result["over_fixed"] = result["accuracy"] - result["fixed"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
