"""MEOW (row 118): nodes learn from themselves what two views of their meta-paths have in common, and negatives that may be of
their kind push less. The rule: no label is seen; runs differ in the weights of negatives alone.
"""

from __future__ import annotations

import torch
from _common import accuracy, digits, main, seeded, train
from scipy import sparse
from sklearn.cluster import KMeans
from tersor import graph, loss
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

SYSTEM = {
    "row": 118,
    "title": "Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Adaptively Weighted Negative Samples",
    "mechanism": "images joined through what they share: image-row-image and image-column-image; coarse view "
    "by one path of each, fine view by the image and two; -log e^{s+/t} / (e^{s+/t} + sum_j w_j e^{s_j/t}), w_j "
    "small within a cluster of the embeddings of a first run (weights in plain torch; equal ones are info_nce)",
    "evidence": "A",
    "functions": ["tersor.graph.metapath", "tersor.loss.info_nce"],
    "data": "sklearn.datasets.load_digits, 800 images and what their rows and columns look like, 5 labels of each class",
    "claims": [["over_equal", ">=", 0.008], ["same_kind", ">=", 0.35], ["equal_apart", "<=", 1e-4]],
    "figure": "accuracy",
    "seconds": 60,
}
N, HEAT, STEPS, WIDTH = 800, 0.3, 80, 32
KINDS, WEIGHT = 20, 0.05


def relation(x: Tensor, axis: int) -> sparse.csr_array:
    """Images and the rows (or columns) that they have, each told by its place and which of its pixels are dark."""
    dark = (x.view(-1, 8, 8) > 0.45).long()
    lines = dark if axis == 1 else dark.transpose(1, 2)
    code = (lines * 2 ** torch.arange(8)).sum(2) + 256 * torch.arange(8)
    _, column = torch.unique(code, return_inverse=True)
    rows = torch.arange(len(x)).repeat_interleave(8)
    return sparse.csr_array((torch.ones(len(rows)).numpy(), (rows.numpy(), column.flatten().numpy())))


class Views(nn.Module):
    """What a view is made of, to one space."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(nn.Linear(coarse, 64), nn.ReLU(), nn.Linear(64, WIDTH))
        self.fine = nn.Sequential(nn.Linear(fine, 64), nn.ReLU(), nn.Linear(64, WIDTH))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.coarse(a), self.fine(b)


def standard(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.std(0) + 1e-6)


def weighted(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """InfoNCE whose negatives have weights."""
    s = normalize(a) @ normalize(b).T / HEAT
    own = s.diagonal()
    rest = (s - own[:, None]).exp() * weights
    return torch.log1p(rest.sum(1) - rest.diagonal()).mean()


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, _, _ = digits(split, N)
    known = torch.cat([(y == c).nonzero()[:5, 0] for c in range(10)])
    other = torch.ones(N, dtype=torch.bool)
    other[known] = False
    relations = [relation(x, axis) for axis in (1, 2)]
    # whom a path of either kind leads to; and the image itself, beside whom two of them lead to
    coarse = standard(torch.cat([graph.metapath([h, h.T], x, "row") for h in relations], 1))
    fine = standard(torch.cat([x, *(graph.metapath([h, h.T, h, h.T], x, "row") for h in relations)], 1))

    def probe(net: Views) -> float:
        with torch.no_grad():
            z = torch.cat([normalize(v) for v in net(coarse, fine)], 1)
        last = seeded(nn.Linear(2 * WIDTH, 10), seed)
        train(last, lambda i: cross_entropy(4 * last(z[known]), y[known]), 1, steps=200, rate=1e-2, seed=seed)
        return accuracy(last, z[other], y[other])

    def learned(weights: Tensor | None) -> Views:
        net = seeded(Views(coarse.shape[1], fine.shape[1]), seed)

        def lesson(_: Tensor) -> Tensor:
            a, b = net(coarse, fine)
            return loss.info_nce(a, b, temperature=HEAT) if weights is None else weighted(a, b, weights)

        train(net, lesson, 1, steps=STEPS, rate=3e-3, seed=seed)
        return net

    equal = learned(None)
    with torch.no_grad():
        a, b = equal(coarse, fine)
        z = torch.cat([normalize(a), normalize(b)], 1)
        apart = abs(weighted(a, b, torch.ones(N, N)) / loss.info_nce(a, b, temperature=HEAT) - 1)
    kinds = torch.from_numpy(KMeans(KINDS, n_init=1, random_state=seed).fit_predict(z.numpy()).astype("int64"))
    weights = torch.where(kinds[:, None] == kinds[None], WEIGHT, 1.0)
    start = seeded(Views(coarse.shape[1], fine.shape[1]), seed)
    result = {"start": probe(start), "equal": probe(equal), "accuracy": probe(learned(weights))}
    return {
        **result,
        "over_start": result["accuracy"] - result["start"],
        "over_equal": result["accuracy"] - result["equal"],
        "same_kind": float((y[:, None] == y[None])[kinds[:, None] == kinds[None]].double().mean()),
        "equal_apart": float(apart),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
