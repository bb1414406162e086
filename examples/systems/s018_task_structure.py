"""Representational geometry (row 18): the deeper a layer, the less of the input's geometry and the more of the task's. The
rule: geometries are compared by their centred kernels."""

import torch
from _common import digits, main, seeded, train
from tersor import metrics
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

SYSTEM = {
    "row": 18,
    "title": "Task structure and nonlinearity jointly determine learned representational geometry",
    "mechanism": "⟨K₁, K₂⟩ / (‖K₁‖ ‖K₂‖) of centred kernels of each layer with the inputs and with the labels, "
    "for nets of tanh and of ReLU before and after training",
    "evidence": "S",
    "functions": ["tersor.metrics.cka_matrix", "tersor.metrics.cka"],
    "data": "sklearn.datasets.load_digits, test rows",
    "claims": [["input_falls", ">=", 0.03], ["learned", ">=", 0.05], ["tanh_over_relu", ">=", 0.04]],
    "figure": "task_of_tanh",
    "seconds": 40,
}


def aligned(activation: type[nn.Module], seed: int, split: int) -> tuple[list[float], float, float]:
    """With the inputs by depth; with the labels at the last hidden layer before and after training."""
    x, y, tx, ty = digits(split)
    net = seeded(
        nn.Sequential(nn.Linear(64, 64), activation(), nn.Linear(64, 64), activation(), nn.Linear(64, 10)), seed
    )
    task = one_hot(ty, 10).float()
    with torch.no_grad():
        before = float(metrics.cka(net[:4](tx), task))
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=500, rate=4e-3, seed=seed)
    with torch.no_grad():
        layers = [net[:2](tx), net[:4](tx), net(tx)]
        table = metrics.cka_matrix(layers, [tx, task])
    return table[:, 0].tolist(), before, float(table[1, 1])


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    result = {}
    for name, activation in (("tanh", nn.Tanh), ("relu", nn.ReLU)):
        depth, before, after = aligned(activation, seed, split)
        result[f"task_of_{name}"] = after
        result[f"input_falls_{name}"] = depth[0] - depth[1]
        result[f"learned_{name}"] = after - before
    result["input_falls"] = min(result["input_falls_tanh"], result["input_falls_relu"])
    result["learned"] = min(result["learned_tanh"], result["learned_relu"])
    # tanh takes on the structure of the targets, ReLU keeps more of the inputs'
    result["tanh_over_relu"] = result["task_of_tanh"] - result["task_of_relu"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
