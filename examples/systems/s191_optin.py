"""OPTIN (row 191): a neuron is worth what its absence does to all later layers, without training. The rule: one mask at a
time, one batch, and the layers are made smaller by the scores.
"""

from __future__ import annotations

import copy

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

SYSTEM = {
    "row": 191,
    "title": "The Need for Speed: Pruning Transformers with One Recipe",
    "mechanism": "score of a neuron = sum over later layers |M_t - M_s|^2 of normalised Gram matrices + T^2 KL(T = 4), by "
    "leaving it out (layers of an MLP stand for those of a transformer); the lowest of each layer go, without training",
    "evidence": "V",
    "functions": ["tersor.nn.shrink"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["over_random", ">=", 0.14], ["over_reversed", ">=", 0.16], ["size", "<=", 0.65]],
    "figure": "accuracy",
    "seconds": 20,
}
T, GOES = 4.0, 0.3


def gram(h: Tensor) -> Tensor:
    """Which rows of a batch are alike in a layer."""
    h = h.flatten(1)
    made = h @ h.T
    return made / made.norm()


def outputs(net: nn.Sequential, h: Tensor, first: int) -> tuple[list[Tensor], Tensor]:
    """What each layer from the one of this number makes of its input, and the logits."""
    grams = []
    for i in range(first, len(net)):
        h = net[i](h)
        if isinstance(net[i], nn.ReLU):
            grams.append(gram(h))
    return grams, h


@torch.no_grad()
def scores(net: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    found, h = {}, x
    for i, layer in enumerate(net):
        h = layer(h)
        if not isinstance(layer, nn.ReLU):
            continue
        grams, logits = outputs(net, h, i + 1)
        worth = torch.zeros(h.shape[1])
        for j in range(h.shape[1]):
            left = h.clone()
            left[:, j] = 0
            others, moved = outputs(net, left, i + 1)
            worth[j] = sum(((a - b) ** 2).sum() for a, b in zip(grams, others, strict=True))
            worth[j] += T**2 * kl_div((moved / T).log_softmax(-1), (logits / T).softmax(-1), reduction="batchmean")
        found[str(i - 1)] = worth
    return found


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    layers = [
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 48),
        nn.ReLU(),
        nn.Linear(48, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    ]
    net = seeded(nn.Sequential(*layers), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=300, rate=4e-3, seed=seed)
    worth = scores(net, x[:256])
    result = {"dense": accuracy(net, tx, ty)}
    for name, ranks in (("accuracy", worth), ("magnitude", None), ("reversed", {k: -v for k, v in worth.items()})):
        small = copy.deepcopy(net)
        made = tnn.shrink(small, x[:2], GOES, scores=ranks, scope="layer")
        result[name] = accuracy(small, tx, ty)
        result["size"] = made.parameters[1] / made.parameters[0]
    draws = []
    for draw in range(5):
        generator = torch.Generator().manual_seed(draw)
        ranks = {name: torch.rand(v.shape, generator=generator) for name, v in worth.items()}
        small = copy.deepcopy(net)
        tnn.shrink(small, x[:2], GOES, scores=ranks)
        draws.append(accuracy(small, tx, ty))
    result["random"] = sum(draws) / len(draws)
    result["over_random"] = result["accuracy"] - result["random"]
    result["over_magnitude"] = result["accuracy"] - result["magnitude"]
    result["over_reversed"] = result["accuracy"] - result["reversed"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
