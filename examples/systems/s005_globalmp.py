"""GlobalMP (row 5): one threshold for all layers, and a least number of weights in each. The rule: the threshold is exact,
and the least number holds while sparsity grows.
"""

from __future__ import annotations

import copy

from _common import accuracy, digits, main, seeded, train
from tersor import nn as tnn
from tersor import prune
from torch import nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 5,
    "title": "Is Complexity Required for Neural Network Pruning? A Case Study on Global Magnitude Pruning",
    "mechanism": "the k least |w| of all layers go, gradually by a cubic schedule; each layer keeps at least MT weights",
    "evidence": "V",
    "functions": ["tersor.nn.GradualPruner", "tersor.prune.cubic_schedule"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["over_layers", ">=", 0.08], ["over_no_least", ">=", 0.04], ["kept_apart", "<=", 0.0]],
    "figure": "accuracy",
    "seconds": 40,
}
STEPS, LEAST = 200, 90
#: where global pruning is compared with pruning each layer alike, and where it cuts layers through
HIGH, EXTREME = 0.95, 0.98


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    # layers of few weights beside layers of many: what one share for all, or one threshold alone, harms
    net = seeded(nn.Sequential(nn.Linear(64, 192), nn.ReLU(), nn.Linear(192, 24), nn.ReLU(), nn.Linear(24, 10)), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=200, rate=4e-3, seed=seed)
    result = {"dense": accuracy(net, tx, ty), "kept_apart": 0.0}
    for name, share, scope, least in (
        ("global", HIGH, "global", 0),
        ("layers", HIGH, "layer", 0),
        ("no_least", EXTREME, "global", 0),
        ("accuracy", EXTREME, "global", LEAST),
    ):
        model = copy.deepcopy(net)
        pruner = tnn.GradualPruner(
            model,
            lambda t, share=share: prune.cubic_schedule(t, 0, STEPS // 2, 0.0, share),
            least,
            scope=scope,
            every=5,
        )
        train(
            model,
            lambda i, m=model: cross_entropy(m(x[i]), y[i]),
            len(x),
            steps=STEPS,
            rate=1e-2,
            seed=seed,
            hold=pruner.attach,
        )
        result[name] = accuracy(model, tx, ty)
        total = sum(mask.numel() for mask in pruner.values())
        result[f"smallest_{name}"] = float(min(pruner.kept.values()))
        if scope == "global":
            result["kept_apart"] += abs(sum(pruner.kept.values()) - (total - round(share * total)))
    result["over_layers"] = result["global"] - result["layers"]
    result["over_no_least"] = result["accuracy"] - result["no_least"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
