"""AdaPT (row 68): words of fixed point as long as training needs them. The rule: down by the weights, up by the gradients."""

import math

import torch
from _common import accuracy, digits, main, seeded
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

# The paper keeps a copy in float32 beside its words; here the words are all there is, so that their length matters more. When
# PushUp takes which strategy is ours: the mean in place of the least once a loss falls by less than a tenth in an epoch.
SYSTEM = {
    "row": 68,
    "title": "Adaptive Precision Training (AdaPT): A dynamic fixed point quantized training approach for DNNs",
    "mechanism": "words ⌊w 2^FL + u⌋ 2^-FL of WL bits after each step; PushDown by KL(w | words), PushUp by Σ|g_i|/|Σ g_i|",
    "evidence": "V",
    "functions": ["tersor.quant.fixed_point", "tersor.quant.push_down", "tersor.quant.push_up"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["over_float", ">=", -0.03],
        ["over_nearest", ">=", 0.35],
        ["of_down", "<=", 0.91],
        ["share_of_bits", "<=", 0.75],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
EPOCHS, BATCH, RATE, THRESHOLD, BINS, FALLS = 30, 50, 0.3, 0.1, 10, 0.9


def trained(net: nn.Sequential, x: Tensor, y: Tensor, seed: int, way: str) -> float:
    """Trains in place by plain gradient descent; the mean bits of a weight over training."""
    generator = torch.Generator().manual_seed(seed)
    weights = [layer.weight for layer in (net[0], net[2], net[4])]
    words, bits, steps = [(32, 24)] * len(weights), 0.0, 0
    means: list[float] = [math.inf]  # the loss of each epoch
    total_steps = EPOCHS * (len(x) // BATCH)
    rounding = "half_even" if way == "nearest" else "stochastic"
    lengths, totals = [0.0] * len(weights), [torch.zeros_like(w) for w in weights]
    for epoch in range(EPOCHS):
        if way != "float":
            words = [quant.push_down(w.detach(), threshold=THRESHOLD, resolution=BINS) for w in weights]
            if epoch and way == "adapt":
                diverse = [float(n / total.norm()) for n, total in zip(lengths, totals, strict=True)]
                way_up = "min" if means[-1] < FALLS * means[-2] else "mean"
                words = [quant.push_up(*w, diversity=g, strategy=way_up) for w, g in zip(words, diverse, strict=True)]
            lengths, totals = [0.0] * len(weights), [torch.zeros_like(w) for w in weights]
        means.append(0.0)
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = cross_entropy(net(x[rows]), y[rows])
            means[-1] += float(loss.detach()) * len(rows) / len(x)
            grads = torch.autograd.grad(loss, list(net.parameters()))
            rate = RATE * (1 + math.cos(math.pi * steps / total_steps)) / 2
            steps += 1
            with torch.no_grad():
                for p, g in zip(net.parameters(), grads, strict=True):
                    p -= rate * g
                for i, w in enumerate(weights):
                    g = grads[2 * i]
                    lengths[i] += float(g.norm())
                    totals[i] += g
                    if way != "float":
                        quant.fixed_point(w, *words[i], rounding=rounding, seed=steps * len(weights) + i, out=w)
        bits += sum(wl * w.numel() for (wl, _), w in zip(words, weights, strict=True))
    return bits / (EPOCHS * sum(w.numel() for w in weights))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result = {}
    for way in ("float", "nearest", "down", "adapt"):
        net = seeded(nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)), seed)
        result[f"{way}_bits"] = trained(net, x, y, seed, way)
        result[way] = accuracy(net, tx, ty)
        with torch.no_grad():
            result[f"{way}_loss"] = float(cross_entropy(net(x), y))
    result["accuracy"] = result["adapt"]
    result["over_float"] = result["adapt"] - result["float"]
    # with the words of PushDown alone, and steps that are mostly below half of the last bit
    result["over_nearest"] = result["down"] - result["nearest"]
    result["of_down"] = result["adapt_loss"] / result["down_loss"]
    result["share_of_bits"] = result["adapt_bits"] / 32
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
