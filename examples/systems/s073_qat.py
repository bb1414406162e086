"""Compute-optimal QAT (row 73): how much of the training should be quantized. The rule: the more tokens a byte, the more."""

import copy
import math

import torch
from _common import digits, main, seeded
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

# The law's constant is a fit to language models. On digits the best share is larger than its; what is claimed is that its share
# pays, and its direction.
SYSTEM = {
    "row": 73,
    "title": "Compute-Optimal Quantization-Aware Training",
    "mechanism": "the last share f = exp(-6.7297 / ln S) of D samples, S = D / (N B / 8), is quantized and cools down",
    "evidence": "A",
    "functions": ["tersor.quant.fake_quantize", "tersor.quant.qat_fraction"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["law_of_none", "<=", 0.96],
        ["tail_rises", "<=", 0.95],
        ["most_rises", "<=", 0.94],
    ],
    "figure": "law_of_none",
    "seconds": 40,
}
WIDTH, BATCH, RATE, TOP, BITS = 48, 32, 0.3, 3, 3
#: in steps; the law says nothing of the first, which has less than a sample for a byte
BUDGETS, STARTS = {"short": 60, "long": 1000}, 2
SHARES = (0.0, 0.1, 0.4, 0.8, 1.0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in ((64, WIDTH), (WIDTH, WIDTH), (WIDTH, 10)))

    def forward(self, x: Tensor, coded: bool = True) -> Tensor:
        for i, layer in enumerate(self.layers):
            w = layer.weight
            if coded:
                scale = w.detach().abs().mean(1, keepdim=True) * 0.75
                w = quant.fake_quantize(w, scale, dtype=(-TOP, TOP))
            x = linear(x.relu() if i else x, w, layer.bias)
        return x


def trained(net: Net, x: Tensor, y: Tensor, rows: Tensor, first: int, last: int, coded: bool) -> Net:
    """Steps first to last of a schedule that falls like a cosine over all rows, by plain gradient descent."""
    for i in range(first, last):
        rate = RATE * (1 + math.cos(math.pi * i / len(rows))) / 2
        grads = torch.autograd.grad(cross_entropy(net(x[rows[i]], coded), y[rows[i]]), list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), grads, strict=True):
                p -= rate * g
    return net


def losses(
    x: Tensor, y: Tensor, tx: Tensor, ty: Tensor, steps: int, shares: set[float], seed: int
) -> dict[float, Tensor]:
    """The log of the test loss by the share of the steps that were quantized, on average over starts."""
    found = {share: torch.zeros(()) for share in shares}
    for start in range(STARTS):
        rows = torch.randint(len(x), (steps, BATCH), generator=torch.Generator().manual_seed(STARTS * seed + start))
        net, at = seeded(Net(), STARTS * seed + start), 0
        for share in sorted(shares, reverse=True):  # the steps before are those of the larger share and some more
            turn = round(steps * (1 - share))
            net, at = trained(net, x, y, rows, at, turn, coded=False), turn
            made = trained(copy.deepcopy(net), x, y, rows, turn, steps, coded=True)
            with torch.no_grad():
                found[share] += cross_entropy(made(tx), ty).log() / STARTS
    return found


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    data = digits(split)
    n = sum(layer.weight.numel() for layer in Net().layers)
    law = quant.qat_fraction(n, BUDGETS["long"] * BATCH, BITS)
    result = {"law": law}
    for name, steps in BUDGETS.items():
        log = losses(*data, steps, {*SHARES, law}, seed)
        result |= {f"{name}_{share:.2f}": float(loss.exp()) for share, loss in log.items()}
        # the share of the law, a tenth, and most, each against less
        result[f"{name}_law"] = float((log[law] - log[0.0]).exp())
        result[f"{name}_tail"] = float((log[0.1] - log[0.0]).exp())
        result[f"{name}_most"] = float((log[0.8] - log[0.1]).exp())
    result["law_of_none"] = result["long_law"]
    # the more samples a byte, the more a share is worth, and the larger share gains on the smaller
    result["tail_rises"] = result["long_tail"] / result["short_tail"]
    result["most_rises"] = result["long_most"] / result["short_most"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
