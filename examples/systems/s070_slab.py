"""SLAB (row 70): a norm of rows becomes one of channels while the net learns, and then a part of a layer. The rule: what is
left at the end is an affine map."""

import copy

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 70,
    "title": "SLAB: Efficient Transformers with Simplified Linear Attention and Progressive Re-parameterized Batch "
    "Normalization",
    "mechanism": "λ LN(x) + (1−λ)(BN(x) + αx), λ from 1 to 0 along training; BN + α is folded into the layer behind; "
    "y = q (KᵀV) / (q ΣK + ε), q and k through ReLU, over the 8 rows of a digit",
    "evidence": "V",
    "functions": ["tersor.norm.layer_norm", "tersor.norm.batch_norm", "tersor.norm.as_affine", "tersor.norm.fold"],
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
    """Blocks of attention and a layer; `share` is λ."""

    def __init__(self) -> None:
        super().__init__()
        self.share, n = 1.0, 2 * DEPTH + 1
        self.first, self.last = nn.Linear(8, DIM), nn.Linear(DIM, 10)
        self.place = nn.Linear(8, DIM, bias=False)
        self.qkv = nn.ModuleList(nn.Linear(DIM, 3 * DIM) for _ in range(DEPTH))
        self.up = nn.ModuleList(nn.Linear(DIM, 2 * DIM) for _ in range(DEPTH))
        self.down = nn.ModuleList(nn.Linear(2 * DIM, DIM) for _ in range(DEPTH))
        self.gain = nn.ParameterList(torch.ones(DIM) for _ in range(n))
        self.shift = nn.ParameterList(torch.zeros(DIM) for _ in range(n))
        self.skip = nn.ParameterList(torch.ones(1) for _ in range(n))
        self.mean, self.var = torch.zeros(n, DIM), torch.ones(n, DIM)

    def norm(self, s: Tensor, k: int) -> Tensor:
        y, rows = 0.0, s.flatten(0, -2)
        affine = self.gain[k], self.shift[k]
        if self.share > 0:
            y = self.share * norm.layer_norm(rows, DIM, *affine)
        if self.share < 1:
            batch = norm.batch_norm(rows, self.mean[k], self.var[k], *affine, self.training)
            y = y + (1 - self.share) * (batch + self.skip[k] * rows)
        return y.view(s.shape)

    def forward(self, x: Tensor) -> Tensor:
        s = self.first(x.view(-1, 8, 8)) + self.place.weight.T
        for k in range(DEPTH):
            s = s + attention(*self.qkv[k](self.norm(s, 2 * k)).chunk(3, -1))
            s = s + self.down[k](self.up[k](self.norm(s, 2 * k + 1)).relu())
        return self.last(self.norm(s, 2 * DEPTH).mean(1))


@torch.no_grad()
def folded(net: Net) -> nn.Module:
    """No norm is left: each is an affine map, which is in the layer that reads it."""
    net = copy.deepcopy(net)
    readers = [layer for pair in zip(net.qkv, net.up, strict=True) for layer in pair] + [net.last]
    for k, layer in enumerate(readers):
        affine = norm.as_affine(net.mean[k], net.var[k], net.gain[k], net.shift[k], skip=float(net.skip[k]))
        weight, bias = norm.fold(layer.weight, layer.bias, *affine, "before")
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    net.norm = lambda s, k: s  # type: ignore[method-assign]
    return net


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    nets = {}
    for name in ("layer", "progressive"):
        net = nets[name] = seeded(Net(), seed)
        steps = iter(range(STEPS))

        def loss(i: Tensor, net: Net = net, name: str = name, steps=steps) -> Tensor:
            if name == "progressive":
                net.share = max(0.0, 1 - next(steps) / (0.7 * STEPS))
            return cross_entropy(net(x[i]), y[i])

        train(net, loss, len(x), steps=STEPS, rate=4e-3, seed=seed, batch=64)
    exchanged, net = copy.deepcopy(nets["layer"]), nets["progressive"]
    exchanged.share = 0.0  # batch norms that no training led to, with the data's statistics
    with torch.no_grad():
        for p in exchanged.skip:
            p.zero_()
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
        net.mean, net.var = net.mean.double(), net.var.double()
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
