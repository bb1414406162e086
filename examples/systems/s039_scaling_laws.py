"""Scaling laws (row 39): the error of a resolution-limited learner falls by a power of the data. The rule: fit logarithms."""

import numpy as np
from _common import digits, main
from tersor import metrics

SYSTEM = {
    "row": 39,
    "title": "Explaining Neural Scaling Laws",
    "mechanism": "test error L(D) ∝ D^-α of a learner limited by the resolution of D samples (nearest neighbour); "
    "eigenvalues of the data's kernel λ_i ∝ i^-(1+α_K)",
    "evidence": "A",
    "functions": ["tersor.metrics.fit_power_law"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["r2", ">=", 0.965],
        ["over_exponential", ">=", 0.04],
        ["spectrum", ">=", 1.0],
    ],
    "figure": "alpha",
    "seconds": 20,
}
SIZES = np.unique(np.geomspace(40, 1078, 8).astype(int))


def nearest(train: np.ndarray, labels: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """The error of the nearest of the training rows."""
    distance = (train * train).sum(1) - 2 * x @ train.T
    return float((labels[distance.argmin(1)] != y).mean())


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = (v.numpy() for v in digits(split, 1078))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(x)) for _ in range(5)]
    error = np.array([np.mean([nearest(x[o[:n]], y[o[:n]], tx, ty) for o in orders]) for n in SIZES])
    law = metrics.fit_power_law(SIZES.astype(float), error)
    # the same line against n itself: a law of e^-n has this r²
    exponential = metrics.fit_power_law(np.exp(SIZES / SIZES[-1]), error)
    # a law of the smaller half says what the largest size comes to
    small = metrics.fit_power_law(SIZES[:5].astype(float), error[:5])
    said = np.exp(small.log_c) * SIZES[-1] ** -small.alpha
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1][:30]
    spectrum = metrics.fit_power_law(np.arange(1.0, 31), values)
    return {
        "alpha": law.alpha,
        "stderr": law.alpha_stderr,
        "r2": law.r2,
        "over_exponential": law.r2 - exponential.r2,
        "extrapolated": float(abs(np.log(said / error[-1]))),
        "spectrum": spectrum.alpha,
    }


if __name__ == "__main__":
    main(SYSTEM, run)
