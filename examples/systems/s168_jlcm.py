"""JLCM (row 168): three values a group of neurons. The rule: order is free, so alike neurons share."""

from functools import partial

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

# That a mapping's gradient falls with the distance of a code is the paper's; the softmax that makes it fall is ours.
SYSTEM = {
    "row": 168,
    "title": "Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings",
    "mechanism": "neurons in the order of their spread, a codebook for 16 of them; codes c and mappings m learn together, "
    "∂L/∂m_j = ∂L/∂w · p_j (c_j - Σ p c), p falling with |w - c_j|",
    "evidence": "A",
    "functions": ["tersor.quant.kmeans_1d"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["of_given_order", "<=", 0.96],
        ["of_one_codebook", "<=", 0.96],
        ["order_apart", "<=", 1e-5],
        ["loss_of_codebooks", "<=", 0.91],
        ["loss_of_kmeans", "<=", 0.7],
    ],
    "figure": "accuracy",
    "seconds": 30,
}
WIDTH, GROUP, CODES, STEPS = 96, 16, 3, 150


def coded(w: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The codebooks [groups, CODES] of the rows of w and the code of each weight."""
    made = [quant.kmeans_1d(rows.flatten(), CODES) for rows in w.chunk(groups)]
    return torch.stack([m.centers for m in made]), torch.cat([m.labels.view(-1, w.shape[1]) for m in made])


def looked_up(books: Tensor, labels: Tensor) -> Tensor:
    return torch.take_along_dim(books.repeat_interleave(len(labels) // len(books), 0), labels, 1)


class Mapped(nn.Module):
    """Weights as codes: forward the likeliest code of each, backward a share for every code by its likelihood."""

    def __init__(self, w: Tensor, groups: int) -> None:
        super().__init__()
        books, self.start = coded(w, groups)
        self.books = nn.Parameter(books)
        distance = (w[..., None] - books.repeat_interleave(len(w) // groups, 0)[:, None]).abs()
        # distances in units of half the mean gap between the codes of a group
        gap = (books[:, -1] - books[:, 0]) / (CODES - 1) / 2
        self.mapping = nn.Parameter(-distance / gap.repeat_interleave(len(w) // groups)[:, None, None])

    def forward(self) -> Tensor:
        c = self.books.repeat_interleave(len(self.mapping) // len(self.books), 0)[:, None]
        likely = self.mapping.softmax(-1)
        hard = torch.zeros_like(likely).scatter_(-1, self.mapping.argmax(-1, keepdim=True), 1.0)
        return ((hard + likely - likely.detach()) * c).sum(-1)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    first, second, last = nn.Linear(64, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 10)
    net = seeded(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=500, rate=4e-3, seed=seed)
    with torch.no_grad():
        result, logits = {"dense": accuracy(net, tx, ty)}, net(tx)
        error = {"given": 0.0, "one": 0.0, "ordered": 0.0}
        groups = WIDTH // GROUP
        for layer, following in ((first, second), (second, last)):
            for name, n in (("given", groups), ("one", 1)):
                error[name] += float((looked_up(*coded(layer.weight, n)) - layer.weight).norm() ** 2)
            order = layer.weight.std(1).argsort()
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
            following.weight.copy_(following.weight[:, order])
        for layer in (first, second):
            error["ordered"] += float((looked_up(*coded(layer.weight, groups)) - layer.weight).norm() ** 2)
        result["order_apart"] = float((net(tx) - logits).abs().amax() / logits.abs().amax())
    result["of_given_order"] = error["ordered"] / error["given"]
    result["of_one_codebook"] = error["ordered"] / error["one"]

    net.requires_grad_(False)
    for way in ("kmeans", "codebooks", "joint"):
        mapped = nn.ModuleList(Mapped(layer.weight, groups) for layer in (first, second))

        def model(v: Tensor, m: nn.ModuleList = mapped) -> Tensor:
            return last(linear(linear(v, m[0](), first.bias).relu(), m[1](), second.bias).relu())

        if way == "codebooks":
            for m in mapped:
                m.mapping.requires_grad_(False)
        if way != "kmeans":
            loss = partial(lambda m, i: cross_entropy(m(x[i]), y[i]), model)
            train(mapped, loss, len(x), steps=STEPS, rate=3e-3, seed=seed)
        with torch.no_grad():
            result[way], result[f"{way}_loss"] = accuracy(model, tx, ty), float(cross_entropy(model(x), y))
        moved = [(m.mapping.argmax(-1) != m.start).double().mean() for m in mapped]
        result[f"{way}_moved"] = float(sum(moved) / 2)
    result["accuracy"] = result["joint"]
    for way in ("kmeans", "codebooks"):
        result[f"loss_of_{way}"] = result["joint_loss"] / result[f"{way}_loss"]
    result["over_kmeans"] = result["joint"] - result["kmeans"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
