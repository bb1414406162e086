"""LightHGNN (row 119): a perceptron is taught by a net on a hypergraph, by its hyperedges too, and answers without the graph.
The rule: student and plain perceptron are the same net and see the same labels.
"""

from __future__ import annotations

import torch
from _common import accuracy, digit_graph, main, seeded, train
from scipy import sparse
from tersor import graph
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

SYSTEM = {
    "row": 119,
    "title": "LightHGNN: Distilling Hypergraph Neural Networks into MLPs for 100times Faster Inference",
    "mechanism": "teacher: X' = D_v^-1/2 H D_e^-1 H^T D_v^-1/2 X W twice; edges by how little the teacher's answers change "
    "under noise (entropy), the reliable are taught as wholes: student's mean over an edge to the teacher's",
    "evidence": "V",
    "functions": ["tersor.graph.hypergraph_propagate", "tersor.graph.knn"],
    "data": "sklearn.datasets.load_digits, 1000 images, a hyperedge of each with its 6 nearest, 3 labels of each class",
    "claims": [["over_perceptron", ">=", 0.02], ["student_cost", "<=", 0.05], ["reliable_right", ">=", 0.01]],
    "figure": "accuracy",
    "seconds": 60,
}


class Teacher(nn.Module):
    def __init__(self, h: object) -> None:
        super().__init__()
        self.h, self.one, self.two = h, nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = graph.hypergraph_propagate(self.h, self.one(x)).relu()
        return graph.hypergraph_propagate(self.h, self.two(z))


def perceptron(seed: int) -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), seed)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, _, known, other = digit_graph(split, labels=3)
    n = len(x)
    ids = torch.cat([torch.arange(n)[:, None], graph.knn(x, 6).ids], 1)  # edge e: node e and those near it
    columns = torch.arange(n).repeat_interleave(7)
    incidence = sparse.csr_array((torch.ones(7 * n).numpy(), (ids.flatten().numpy(), columns.numpy())), shape=(n, n))
    teacher = seeded(Teacher(incidence), seed)
    train(teacher, lambda i: cross_entropy(teacher(x)[known], y[known]), 1, steps=100, rate=1e-2, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        said = teacher(x).softmax(1)
        changes = torch.zeros(n)
        for _ in range(5):
            noisy = teacher(x + 0.1 * torch.randn(x.shape, generator=generator)).softmax(1)
            changes += (entropy(noisy) - entropy(said)).square() / 5
        by_edge = changes[ids].mean(1)
        reliable = ids[by_edge.argsort()[: n // 2]]
        agree = (y[ids] == y[ids[:, :1]]).float().mean(1)
        order = by_edge.argsort()
        right = agree[order[: n // 2]].mean() - agree[order[n // 2 :]].mean()

    def taught(_: Tensor, net: nn.Module) -> Tensor:
        z = net(x)
        whole = z.softmax(1)[reliable].mean(1)
        loss = cross_entropy(z[known], y[known]) + kl_div(z.log_softmax(1), said, reduction="batchmean")
        return loss + kl_div((whole + 1e-9).log(), said[reliable].mean(1), reduction="batchmean")

    student, plain = perceptron(seed), perceptron(seed)
    train(student, lambda i: taught(i, student), 1, steps=150, rate=1e-2, seed=seed)
    train(plain, lambda i: cross_entropy(plain(x)[known], y[known]), 1, steps=150, rate=1e-2, seed=seed)
    with torch.no_grad():
        result = {
            "teacher": accuracy(lambda rows: teacher(x)[rows], other, y[other]),
            "accuracy": accuracy(student, x[other], y[other]),
            "perceptron": accuracy(plain, x[other], y[other]),
        }
    return {
        **result,
        "over_perceptron": result["accuracy"] - result["perceptron"],
        "student_cost": result["teacher"] - result["accuracy"],
        "reliable_right": float(right),  # edges that are reliable hold one class more often
    }


def entropy(p: Tensor) -> Tensor:
    return -(p * (p + 1e-12).log()).sum(1)


if __name__ == "__main__":
    main(SYSTEM, run)
