"""Augmented Hessians (row 158): the order in which layers are lowered. The rule: layers are not alone; then bisection."""

from collections.abc import Callable
from functools import partial

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 158,
    "title": "Augmenting Hessians with Inter-Layer Dependencies for Mixed-Precision Post-Training Quantization",
    "mechanism": "sensitivity of a layer by Hutchinson's E[vᵀ H_ii v] |ΔW_i|²/n_i, against Σ_ij ΔW_iᵀ H_ij ΔW_j with terms "
    "between layers (this form is ours); layers in this order are lowered, how many by bisection",
    "evidence": "A",
    "functions": ["tersor.quant.choose_qparams", "tersor.quant.fake_quantize", "tersor.quant.kl_rows"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["unexplained_ratio", "<=", 0.82],
        ["path_to_own", "<=", 1.0],
        ["path_ratio", "<=", 0.95],
        ["path_to_drawn", "<=", 0.9],
        ["over_drawn", ">=", 0.5],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
LAYERS, LOW, HIGH, PROBES = 10, 3, 8, 16


class Net(nn.Module):
    """Residual layers of a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read = nn.Linear(64, 48), nn.Linear(48, 10)
        self.layers = nn.ModuleList(nn.Linear(48, 48) for _ in range(LAYERS))

    def forward(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        h = self.embed(x).relu()
        for layer, w in zip(self.layers, weights, strict=True):
            h = h + (h @ w.T + layer.bias).relu()
        return self.read(h)


def narrowed(w: Tensor, bits: int) -> Tensor:
    scale, zero = quant.choose_qparams(w, f"uint{bits}", axis=0, symmetric=False)
    return quant.fake_quantize(w, scale, zero, f"uint{bits}")


def hessian_times(net: Net, x: Tensor, dense: list[Tensor], vs: list[Tensor]) -> list[Tensor]:
    """H v by two gradients, H of the net's divergence from what it gives itself: no labels are needed.

    Of the cross entropy against its own shares, which differs from the divergence by a constant."""
    ws = [w.clone().requires_grad_() for w in dense]
    loss = cross_entropy(net(x, ws), net(x, dense).softmax(-1))
    grads = torch.autograd.grad(loss, ws, create_graph=True)
    return torch.autograd.grad(sum((g * v).sum() for g, v in zip(grads, vs, strict=True)), ws)


def dots(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(u * v).sum() for u, v in zip(a, b, strict=True)])


def ordered(terms: Tensor) -> list[int]:
    """Layer after layer the one that adds least to Σ_ij of the terms of those before it."""
    order: list[int] = []
    while len(order) < len(terms):
        rest = [n for n in range(len(terms)) if n not in order]
        order.append(min(rest, key=lambda n: float(terms[n, n] + 2 * terms[n, order].sum())))
    return order


def bisected(lost: Callable[[list[int]], float], order: list[int], limit: float) -> tuple[int, int]:
    """How many layers of the order can be lowered within the limit, none of which costs nothing, and the evaluations."""
    low, high, asked = 0, len(order) + 1, 0
    while high - low > 1:
        middle, asked = (low + high) // 2, asked + 1
        low, high = (middle, high) if lost(order[:middle]) <= limit else (low, middle)
    return low, asked


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    dense = [layer.weight for layer in net.layers]
    fit = partial(cross_entropy, label_smoothing=0.1)
    train(net, lambda i: fit(net(x[i], dense), y[i]), len(x), steps=300, rate=3e-3, seed=seed)
    net.requires_grad_(False)
    generator, x = torch.Generator().manual_seed(seed), x[:256]
    low, high = ([narrowed(w, bits) for w in dense] for bits in (LOW, HIGH))
    steps = [a - w for a, w in zip(low, dense, strict=True)]
    trace = torch.zeros(LAYERS)
    for _ in range(PROBES):
        vs = [torch.randint(0, 2, w.shape, generator=generator) * 2.0 - 1 for w in dense]
        trace += dots(vs, hessian_times(net, x, dense, vs)) / PROBES
    alone = 0.5 * trace * torch.stack([(d**2).mean() for d in steps])
    rows = []
    for i in range(LAYERS):
        v = [d if k == i else torch.zeros_like(d) for k, d in enumerate(steps)]
        rows.append(0.5 * dots(hessian_times(net, x, dense, v), steps))
    terms = torch.stack(rows)
    terms = (terms + terms.T) / 2
    kinds = {"trace": alone.diag(), "own": terms.diag().diag(), "all": terms}

    def put(lowered: list[int]) -> list[Tensor]:
        return [low[n] if n in lowered else high[n] for n in range(LAYERS)]

    def lost(lowered: list[int], v: Tensor = tx) -> float:
        return float(quant.kl_rows(net(v, dense), net(v, put(lowered))).mean())

    drawn = (torch.rand(64, LAYERS, generator=generator) < 0.5).float()
    true = torch.tensor([lost(m.nonzero().flatten().tolist()) for m in drawn])
    result = {
        "dense": accuracy(lambda v: net(v, dense), tx, ty),
        "all_lowered": accuracy(lambda v: net(v, low), tx, ty),
    }
    limit = 0.4 * lost(list(range(LAYERS)), x)
    for name, terms in kinds.items():
        told = torch.einsum("ni,ij,nj->n", drawn, terms, drawn)
        result["unexplained_" + name] = float(1 - torch.corrcoef(torch.stack([told, true]))[0, 1] ** 2)
        order = ordered(terms)
        result["path_" + name] = sum(lost(order[:k]) for k in range(1, LAYERS)) / (LAYERS - 1)
        count, asked = bisected(partial(lost, v=x), order, limit)
        result |= {"lowered_" + name: count, "spent_" + name: lost(order[:count], x) / limit}
    paths = [torch.randperm(LAYERS, generator=generator).tolist() for _ in range(12)]
    result["path_drawn"] = sum(lost(o[:k]) for o in paths for k in range(1, LAYERS)) / (LAYERS - 1) / len(paths)
    result["unexplained_ratio"] = result["unexplained_all"] / result["unexplained_trace"]
    result["path_to_own"] = result["path_all"] / result["path_own"]  # without the terms between layers
    result["path_ratio"] = result["path_all"] / result["path_trace"]
    result["path_to_drawn"] = result["path_all"] / result["path_drawn"]
    result["lowered_drawn"] = sum(bisected(partial(lost, v=x), o, limit)[0] for o in paths) / len(paths)
    result["over_drawn"] = result["lowered_all"] - result["lowered_drawn"]
    result["asked"] = asked
    result["accuracy"] = accuracy(lambda v: net(v, put(order[:count])), tx, ty)
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
