"""Wide and deep (row 36): an infinitely wide net grows into a classifier of its own kind with depth, and which one its
activation says. The rule: all kernels see the same correlations, computed from differences."""

import numpy as np
from _common import digits, main
from tersor import project

SYSTEM = {
    "row": 36,
    "title": "Wide and Deep Neural Networks Achieve Optimality for Classification",
    "mechanism": "tangent kernel K after 60 layers of the activation's dual φ; its machine sum_i y_i K(x_i, x) against the "
    "singular vote sum_i y_i (1 - <x_i, x>)^-a, a = 1 + log(1/φ'(0)) / log φ'(1), 3 of the polynomial used; one neighbour and "
    "the majority are what it could be instead",
    "evidence": "V",
    "functions": ["tersor.project.ntk", "tersor.project.dual", "tersor.project.singular_vote"],
    "data": "sklearn.datasets.load_digits on the sphere, two halves of the classes",
    "claims": [
        ["agree", ">=", 0.98],
        ["shallow", "<=", 0.93],
        ["over_nearest", ">=", 0.004],
        ["over_majority", ">=", 0.25],
    ],
    "figure": "agree",
    "seconds": 20,
}
DEPTH, ACTIVATION = 60, "poly5"


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = (v.numpy() for v in digits(split, 600))
    half = np.random.default_rng(seed).permutation(10) < 5  # which digits are the one class
    x, tx = (v.astype(np.float64) / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, tx))
    y, ty = (np.where(half[v], 1.0, -1.0) for v in (y, ty))
    gap = ((tx[:, None] - x[None]) ** 2).sum(-1) / 2
    _, slopes = project.dual(np.array([0.0, 1.0]), ACTIVATION)
    power = float(1 + np.log(1 / slopes[0]) / np.log(slopes[1]))

    def vote(a: float) -> np.ndarray:
        return np.sign(project.singular_vote(gap, y, 2 * a))

    def machine(depth: int) -> np.ndarray:
        k = project.ntk(1 - gap, depth, ACTIVATION, gap=gap)
        return np.sign(k / k.max(1, keepdims=True) @ y)

    deep, singular, nearest = machine(DEPTH), vote(power), y[gap.argmin(1)]
    majority = np.sign(y.sum() or 1.0)

    def share(a: np.ndarray, b: np.ndarray | float) -> float:
        return float((a == b).mean())

    return {
        "accuracy": share(deep, ty),
        "power": power,
        "agree": share(deep, singular),
        "shallow": share(machine(1), singular),
        "over_powers": share(deep, singular) - max(share(deep, vote(power - 1)), share(deep, vote(power + 1))),
        "over_nearest": share(deep, singular) - share(deep, nearest),
        "over_majority": share(deep, ty) - share(ty, majority),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
