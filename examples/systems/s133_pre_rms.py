"""Pre-RMSNorm and Pre-CRMSNorm (row 133): a layer norm of rows of mean 0 is an RMS norm. The rule: weights are changed once, by
linear algebra, and what the net says stays."""

import copy

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 133,
    "title": "Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and Efficient Pre-LN Transformers",
    "mechanism": "W ← W − mean over outputs of all that writes to the stream: LN = RMS; d − 1 of d numbers are stored and "
    "LN = CRMS; γ, β go to the layer behind (residual blocks of a perceptron)",
    "evidence": "V",
    "functions": ["tersor.norm.layer_norm", "tersor.norm.rms_norm", "tersor.nn.CRMSNorm", "tersor.norm.fold"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["rms_apart", "<=", 1e-11],
        ["crms_apart", "<=", 1e-11],
        ["uncentred_apart", ">=", 0.07],
        ["numbers", "<", 1.0],
    ],
    "figure": "rms_apart",
    "seconds": 20,
}
DEPTH, DIM, EPS = 6, 32, 1e-5


class Net(nn.Module):
    """Pre-norm blocks; `kind` says how rows are normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.short = "layer", tnn.CRMSNorm(DIM - 1, EPS, False)
        self.first, self.last = nn.Linear(64, DIM), nn.Linear(DIM, 10)
        self.up = nn.ModuleList(nn.Linear(DIM, 2 * DIM) for _ in range(DEPTH))
        self.down = nn.ModuleList(nn.Linear(2 * DIM, DIM) for _ in range(DEPTH))
        self.gain = nn.ParameterList(torch.ones(DIM) for _ in range(DEPTH + 1))
        self.shift = nn.ParameterList(torch.zeros(DIM) for _ in range(DEPTH + 1))

    def writers(self) -> list[nn.Module]:
        return [self.first, *self.down]

    def readers(self) -> list[nn.Module]:
        return [*self.up, self.last]

    def norm(self, s: Tensor, k: int) -> Tensor:
        if self.kind == "layer":
            return norm.layer_norm(s, DIM, self.gain[k], self.shift[k], EPS)
        if self.kind == "rms":
            return norm.rms_norm(s, DIM, None, EPS)
        z = self.short(s)
        return torch.cat([z, -z.sum(-1, keepdim=True)], -1)  # the number that is not stored

    def forward(self, x: Tensor) -> Tensor:
        s = self.first(x)
        for k in range(DEPTH):
            s = s + self.down[k](self.up[k](self.norm(s, k)).relu())
        return self.last(self.norm(s, DEPTH))


@torch.no_grad()
def folded(net: Net, centred: bool) -> Net:
    """γ and β in the layers that read, and what writes without its mean over outputs."""
    net = copy.deepcopy(net)
    for layer, gain, shift in zip(net.readers(), net.gain, net.shift, strict=True):
        weight, bias = norm.fold(layer.weight, layer.bias, gain, shift, "before")
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    for layer in net.writers():
        if centred:
            layer.weight -= layer.weight.mean(0)
            layer.bias -= layer.bias.mean()
    net.kind = "rms"
    return net


@torch.no_grad()
def shortened(net: Net) -> Net:
    """The stream without its last number: what wrote it is cut; the norm gives it anew."""
    net = copy.deepcopy(net)
    for layer in net.writers():
        layer.weight, layer.bias = nn.Parameter(layer.weight[:-1].clone()), nn.Parameter(layer.bias[:-1].clone())
    net.kind = "crms"
    return net


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=150, rate=5e-3, seed=seed)
    net, tx = net.double(), tx.double()
    rms = folded(net, True)
    crms = shortened(rms)
    with torch.no_grad():
        said = net(tx)

        def apart(other: Net) -> float:
            return float((other(tx) - said).abs().max() / said.abs().max())

        return {
            "accuracy": accuracy(net, tx, ty),
            "rms_apart": apart(rms),
            "crms_apart": apart(crms),
            "uncentred_apart": apart(folded(net, False)),  # RMS in place of LN without the change of weights
            "numbers": sum(p.shape[0] for p in (w.weight for w in crms.writers())) / (DIM * (DEPTH + 1)),
        }


if __name__ == "__main__":
    main(SYSTEM, run)
