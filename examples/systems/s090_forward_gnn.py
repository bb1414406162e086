"""Forward learning on graphs (row 90): each layer learns from a loss of its own, by virtual nodes of the classes. The
rule: no gradient goes from a layer to the one below."""

from __future__ import annotations

import torch
from _common import digit_graph, main, seeded, train
from tersor import graph
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

SYSTEM = {
    "row": 90,
    "title": "Forward Learning of Graph Neural Networks",
    "mechanism": "a node for each class takes from the labelled ones; each layer relu(Â h W) alone minimises CE(h_i · c_k / t) "
    "of its own outputs, c_k those of the class nodes; the next sees them as they are (one forward pass, no top-down signal)",
    "evidence": "V",
    "functions": ["tersor.graph.propagate", "tersor.graph.normalized_adjacency", "tersor.graph.knn_edges"],
    "data": "sklearn.datasets.load_digits, 1000 images with edges to their 6 nearest, 5 labels of each class",
    "claims": [["over_backprop", ">=", -0.08], ["over_graphless", ">=", 0.04], ["crossed", "<=", 0.0]],
    "figure": "accuracy",
    "seconds": 60,
}
WIDTH, STEPS, HEAT = 64, 80, 0.1


def with_classes(edges: Tensor, known: Tensor, y: Tensor, n: int) -> object:
    """The graph with ten more nodes, each of which takes from what is known of its class; nobody takes from them."""
    every = torch.cat([edges, edges.flip(0), torch.stack([known, n + y[known]])], 1)
    return graph.normalized_adjacency(graph.adjacency(every, n=n + 10), "row", self_loops=True)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, _, known, other = digit_graph(split)
    n = len(x)
    near = graph.knn_edges(x, 6)
    means = torch.stack([x[known][y[known] == c].mean(0) for c in range(10)])
    inputs = torch.cat([x, means])  # class nodes begin at the mean of what is known

    def scores(h: Tensor) -> Tensor:
        h = normalize(h)
        return h[:n] @ h[n:].T / HEAT

    def right(h: Tensor) -> float:
        return float((scores(h).argmax(1)[other] == y[other]).double().mean())

    def through(layers: nn.ModuleList, a: object) -> list[Tensor]:
        """What each layer gives; the next sees it without its history."""
        hs = [inputs]
        for layer in layers:
            hs.append(layer(graph.propagate(a, hs[-1].detach(), 1, "none")).relu())
        return hs[1:]

    def joined(layers: nn.ModuleList, a: object) -> Tensor:
        h = inputs
        for layer in layers:
            h = layer(graph.propagate(a, h, 1, "none")).relu()
        return h

    def loss(h: Tensor) -> Tensor:
        return cross_entropy(scores(h)[known], y[known])

    result = {}
    for name, edges in (("forward", near), ("graphless", near[:, :0]), ("backprop", near)):
        a = with_classes(edges, known, y, n)
        layers = seeded(nn.ModuleList(nn.Linear(i, WIDTH) for i in (64, WIDTH)), seed)
        with torch.no_grad():
            result[f"{name}_start"] = right(joined(layers, a))
        if name == "backprop":
            train(layers, lambda i, m=layers, a=a: loss(joined(m, a)), 1, steps=STEPS, rate=5e-3, seed=seed)
        else:
            train(layers, lambda i, m=layers, a=a: sum(map(loss, through(m, a))), 1, steps=STEPS, rate=5e-3, seed=seed)
        with torch.no_grad():
            result[name] = right(joined(layers, a))
        if name == "forward":
            above = loss(through(layers, a)[1])
            below = torch.autograd.grad(above, list(layers[0].parameters()), allow_unused=True)
            crossed = sum(float(g.abs().sum()) for g in below if g is not None)
    return {
        **result,
        "accuracy": result["forward"],
        "over_backprop": result["forward"] - result["backprop"],
        "over_graphless": result["forward"] - result["graphless"],
        "over_start": result["forward"]
        - result["forward_start"],  # means of classes are a start that is hard to better
        "crossed": crossed,
    }


if __name__ == "__main__":
    main(SYSTEM, run)
