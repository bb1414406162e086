"""SLAB (row 70): a norm of rows becomes one of channels while the net learns, and then a part of a layer. The rule: what is
left at the end is an affine map."""

import copy
from collections.abc import Callable

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 70,
    "title": "SLAB: Efficient Transformers with Simplified Linear Attention and Progressive Re-parameterized Batch "
    "Normalization",
    "mechanism": "λ LN(x) + (1−λ)(BN(x) + αx), λ from 1 to 0 along training; BN + α is folded into the layer behind; "
    "y = q (KᵀV) / (q ΣK + ε), q and k through ReLU, over the 8 rows of a digit",
    "evidence": "V",
    "functions": ["tersor.nn.PRepBN", "tersor.norm.layer_norm", "tersor.norm.batch_norm", "tersor.norm.fold"],
    "data": "sklearn.datasets.load_digits, 8 tokens of 8 pixels",
    "claims": [
        ["folded_apart", "<=", 1e-10],
        ["cost", "<=", 0.03],
        ["over_exchanged", ">=", 0.035],
        ["order_apart", "<=", 1e-10],
    ],
    "figure": "accuracy",
    "seconds": 60,
}
DEPTH, DIM, STEPS = 3, 32, 200


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear in the number of tokens: the product of k and v comes first."""
    q, k = q.relu(), k.relu()
    return q @ (k.mT @ v) / ((q * k.sum(1, keepdim=True)).sum(-1, keepdim=True) + 1e-6)


class Net(nn.Module):
    """Blocks of attention and a layer."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, DIM), nn.Linear(DIM, 10)
        self.place = nn.Linear(8, DIM, bias=False)
        self.qkv = nn.ModuleList(nn.Linear(DIM, 3 * DIM) for _ in range(DEPTH))
        self.up = nn.ModuleList(nn.Linear(DIM, 2 * DIM) for _ in range(DEPTH))
        self.down = nn.ModuleList(nn.Linear(2 * DIM, DIM) for _ in range(DEPTH))
        self.norms = nn.ModuleList(make() for _ in range(2 * DEPTH + 1))

    def forward(self, x: Tensor) -> Tensor:
        s = self.first(x.view(-1, 8, 8)) + self.place.weight.T
        for k in range(DEPTH):
            s = s + attention(*self.qkv[k](self.norms[2 * k](s)).chunk(3, -1))
            s = s + self.down[k](self.up[k](self.norms[2 * k + 1](s)).relu())
        return self.last(self.norms[-1](s).mean(1))


def folded(net: Net) -> Net:
    """No norm is left: each is an affine map, which is in the layer that reads it."""
    net = copy.deepcopy(net)
    for k in range(DEPTH):
        net.qkv[k], net.up[k] = net.norms[2 * k].fold(net.qkv[k]), net.norms[2 * k + 1].fold(net.up[k])
    net.last = net.norms[-1].fold(net.last)
    net.norms = nn.ModuleList(nn.Identity() for _ in net.norms)
    return net


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    nets = {}
    kinds = {"layer": lambda: tnn.LayerNorm(DIM), "progressive": lambda: tnn.PRepBN(DIM, decay_steps=int(0.7 * STEPS))}
    for name, make in kinds.items():
        net = nets[name] = seeded(Net(make), seed)
        train(net, lambda i, n=net: cross_entropy(n(x[i]), y[i]), len(x), steps=STEPS, rate=4e-3, seed=seed, batch=64)
    exchanged, net = Net(lambda: tnn.PRepBN(DIM, 0.0, 1)), nets["progressive"]
    exchanged.load_state_dict(nets["layer"].state_dict(), strict=False)
    with torch.no_grad():  # batch norms that no training led to, with the data's statistics
        for _ in range(60):
            exchanged(x)
    for m in (*nets.values(), exchanged):
        m.eval()
    result = {
        "layer": accuracy(nets["layer"], tx, ty),
        "accuracy": accuracy(net, tx, ty),
        "exchanged": accuracy(exchanged, tx, ty),
    }
    with torch.no_grad():
        net, rows = net.double(), tx.double()
        said = net(rows)
        result["folded_apart"] = float((folded(net)(rows) - said).abs().max() / said.abs().max())
        q, k, v = (torch.randn(4, 8, 5, generator=torch.Generator().manual_seed(seed)).double() for _ in range(3))
        scores = q.relu() @ k.relu().mT
        quadratic = scores / (scores.sum(-1, keepdim=True) + 1e-6) @ v
        result["order_apart"] = float((attention(q, k, v) - quadratic).abs().max())
    result["cost"] = result["layer"] - result["accuracy"]
    result["over_exchanged"] = result["accuracy"] - result["exchanged"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
