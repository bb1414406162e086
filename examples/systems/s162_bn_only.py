"""Training BatchNorm and nothing else (row 162): random features, weighed and shifted. The rule: no other weight moves, not by
a bit; as many weights elsewhere are what it is compared with."""

import itertools

import torch
from _common import accuracy, digits, main, train
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 162,
    "title": "Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in CNNs",
    "mechanism": "γ and β of all batch norms learn over weights that stay random, against as many weights drawn from the "
    "layers; the share of |γ| < 0.01 (layers of a perceptron stand for convolutions)",
    "evidence": "A",
    "functions": ["tersor.norm.batch_norm"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["accuracy", ">=", 0.8], ["over_start", ">=", 0.5], ["over_others", ">=", -0.01], ["moved", "<=", 0.0]],
    "figure": "accuracy",
    "seconds": 60,
}
WIDTH, DEPTH = 256, 6


class Net(nn.Module):
    """Random layers of which `free` entries may move, and batch norms."""

    def __init__(self, seed: int, norms: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = [64, *[WIDTH] * DEPTH, 10]
        pairs = list(itertools.pairwise(sizes))
        self.fixed = [torch.randn(b, a, generator=generator) * (2 / a) ** 0.5 for a, b in pairs]
        gain, shift = torch.ones(DEPTH, WIDTH), torch.zeros(DEPTH, WIDTH)
        self.gain, self.shift = nn.Parameter(gain, norms), nn.Parameter(shift, norms)
        self.mean, self.var = torch.zeros(DEPTH, WIDTH), torch.ones(DEPTH, WIDTH)
        odds = [torch.rand(w.shape, generator=generator) for w in self.fixed]
        total = sum(w.numel() for w in self.fixed)
        edge = 2 * DEPTH * WIDTH / total  # as many weights as there are gains and shifts
        self.free = [(r < edge).nonzero(as_tuple=True) for r in odds]
        self.added = nn.ParameterList(nn.Parameter(torch.zeros(len(f[0])), not norms) for f in self.free)

    def forward(self, x: Tensor) -> Tensor:
        for k, w in enumerate(self.fixed):
            if self.added[k].requires_grad:
                w = w.index_put(self.free[k], self.added[k], accumulate=True)
            x = x @ w.T
            if k < DEPTH:
                running = self.mean[k], self.var[k]
                x = norm.batch_norm(x, *running, self.gain[k], self.shift[k], self.training).relu()
        return x


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result: dict[str, float] = {}
    for name in ("norms", "others"):
        net = Net(seed, name == "norms")
        kept = [w.clone() for w in net.fixed]
        if name == "norms":
            with torch.no_grad():
                net(x)
                result["start"] = accuracy(net, tx, ty)
        train(net, lambda i, net=net: cross_entropy(net(x[i]), y[i]), len(x), steps=200, rate=1e-2, seed=seed)
        net.eval()
        result[name] = accuracy(net, tx, ty)
        result["moved"] = max(float((a - b).abs().max()) for a, b in zip(kept, net.fixed, strict=True))
        if name == "norms":
            result["small_gains"] = float((net.gain.detach().abs() < 0.01).double().mean())
            result["share_of_weights"] = 2 * DEPTH * WIDTH / sum(w.numel() for w in kept)
        result["n_" + name] = float(sum(p.numel() for p in net.parameters() if p.requires_grad))
    result["accuracy"] = result["norms"]
    result["over_start"] = result["norms"] - result["start"]
    result["over_others"] = result["norms"] - result["others"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
