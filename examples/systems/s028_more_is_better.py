"""More is better (row 28): with the right penalty a random feature model is the better the more features and the more data it
has. The rule: every penalty is chosen by the rows it was fitted on, one left out at a time."""

import itertools

import numpy as np
from _common import digits, main
from tersor import project

SYSTEM = {
    "row": 28,
    "title": "More is Better in Modern Machine Learning: when Infinite Overparameterization is Optimal and Overfitting is "
    "Obligatory",
    "mechanism": "ridge regression on k ReLU features of random weights, the penalty by the leave-one-out error in closed "
    "form; k from 32 to 2048, three draws",
    "evidence": "A",
    "functions": ["tersor.project.arccos_features", "tersor.project.ridge_path"],
    "data": "sklearn.datasets.load_digits, 500 to learn from",
    "claims": [
        ["features_ratio", "<=", 0.9],
        ["data_ratio", "<=", 0.9],
        ["of_best", "<=", 1.1],
        ["untuned_peak", ">=", 2.0],
    ],
    "figure": "error",
    "seconds": 40,
}
WIDTHS, DRAWS, N = (32, 128, 512, 2048), 3, 500
PENALTIES = tuple(10.0**e for e in np.arange(-8, 2.5, 0.5))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = (v.numpy() for v in digits(split, N))
    x, tx = (np.concatenate([v.astype(np.float64), np.ones((len(v), 1))], 1) for v in (x, tx))
    y, ty = (np.eye(10)[v] - 0.1 for v in (y, ty))

    def errors(k: int, n: int) -> tuple[float, float, float]:
        """Mean squared errors: with the chosen penalty, with the best, with almost none."""
        found = []
        for draw in range(DRAWS):
            z, tz = (project.arccos_features(v, k, seed=DRAWS * seed + draw) for v in (x[:n], tx))
            coef, loo = project.ridge_path(z, y[:n], PENALTIES)
            every = ((tz @ coef - ty) ** 2).mean((1, 2))
            found.append((every[loo.mean(1).argmin()], every.min(), every[0]))
        return tuple(np.mean(found, 0))

    by_width = {k: errors(k, N) for k in WIDTHS}
    by_data = [errors(1024, n)[0] for n in (125, 250)] + [errors(1024, N)[0]]
    tuned = [by_width[k][0] for k in WIDTHS]
    return {
        "error": tuned[-1],
        "features_ratio": max(b / a for a, b in itertools.pairwise(tuned)),
        "data_ratio": max(b / a for a, b in itertools.pairwise(by_data)),
        "of_best": max(a / b for a, b, _ in by_width.values()),
        # without a penalty as many features as rows are worse than a quarter of them
        "untuned_peak": by_width[512][2] / by_width[128][2],
    }


if __name__ == "__main__":
    main(SYSTEM, run)
