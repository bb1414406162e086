"""HESSO (row 4): groups that are worth least fade while the net is trained. The rule: what goes is 0 before it is cut, so that
the cut changes nothing.
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
    "row": 4,
    "title": "HESSO: Towards Automatic Efficient and User Friendly Any Neural Network Training and Pruning",
    "mechanism": "five saliencies of each unit (row and bias), each divided by its norm over all units; in each period the K "
    "least fade by (T-t-1)/(T-t) after each step; the net is cut at the end (without CRIC's trials)",
    "evidence": "V",
    "functions": ["tersor.prune.group_saliency", "tersor.nn.ProgressiveShrink", "tersor.nn.shrink"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["over_cut", ">=", 0.15], ["of_abrupt", "<=", 0.6], ["cut_apart", "<=", 1e-4], ["size", "<=", 0.35]],
    "figure": "accuracy",
    "seconds": 30,
}
STEPS, BEFORE, PERIODS, FADE, GOES = 500, 100, 5, 40, 0.7
UNITS = ("0", "2")


def train(net: nn.Sequential, x: Tensor, y: Tensor, seed: int, fade: int) -> float:
    """Adam for so many steps; in five periods units fade in so many. The largest loss on the way."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    include = [f"{k}.{p}" for k in UNITS for p in ("weight", "bias")]
    fading = tnn.ProgressiveShrink(net, include=include).attach(optimiser)
    layers = [net[int(k)] for k in UNITS]
    total, most = sum(m.out_features for m in layers), 0.0
    for step in range(STEPS):
        rows = torch.randint(len(x), (128,), generator=generator)
        optimiser.zero_grad()
        cross_entropy(net(x[rows]), y[rows]).backward()
        period, at = divmod(step - BEFORE, FADE)
        if fade and at == 0 and 0 <= period < PERIODS:
            nodes = [[m.weight, m.bias] for m in layers]
            scores = prune.group_saliency(nodes, [[p.grad for p in node] for node in nodes])
            # what is gone is the least there is: it stays so
            alive = [fading[f"{k}.bias"] for k in UNITS]
            scores = [torch.where(a, s, -1.0) for a, s in zip(alive, scores, strict=True)]
            goes = round(GOES * total * (period + 1) / PERIODS)
            kept = prune.global_masks(scores, k=goes, scores=scores, min_keep=4)
            fading.fade({f"{k}.{p}": m for k, m in zip(UNITS, kept, strict=True) for p in ("weight", "bias")}, fade)
        optimiser.step()
        if step >= BEFORE and step % 4 == 0:
            with torch.no_grad():
                most = max(most, float(cross_entropy(net(x), y)))
    return most


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    first = seeded(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)), seed)
    nets, result = {}, {}
    for name, fade in (("dense", 0), ("accuracy", FADE), ("abrupt", 1)):
        nets[name] = net = copy.deepcopy(first)
        result[f"most_{name}"] = train(net, x, y, seed, fade)
        result[name] = accuracy(net, tx, ty)
    with torch.no_grad():
        before = nets["accuracy"](tx)
        cut = tnn.shrink(nets["accuracy"], x[:2])  # rows that are 0
        result["cut_apart"] = float((nets["accuracy"](tx) - before).abs().max())
    result["size"] = cut.parameters[1] / cut.parameters[0]
    # the same number of units of each layer, cut at the end of plain training
    left = {k: len(v) for k, v in cut.kept.items()}
    shares = [1 - left[k] / first[int(k)].out_features for k in UNITS]
    tnn.shrink(nets["dense"], x[:2], shares)
    result["cut"] = accuracy(nets["dense"], tx, ty)
    result["over_cut"] = result["accuracy"] - result["cut"]
    # the largest loss on the way, with weights that fade against weights that go at once
    result["of_abrupt"] = result["most_accuracy"] / result["most_abrupt"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
