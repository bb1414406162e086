"""Bandlimited random weights (row 15): a net whose hidden weights are drawn and kept learns what oscillates no faster than
they let it. The rule: only the law of the hidden weights differs; the last layer is the best there is."""

import numpy as np
from _common import main
from tersor import project

SYSTEM = {
    "row": 15,
    "title": "How Powerful are Shallow Neural Networks with Bandlimited Random Weights?",
    "mechanism": "f(t) = sum_k c_k tanh(a_k t + b_k), a and b uniform in [-B, B] and kept, c by least squares with the "
    "penalty of the least leave-one-out error",
    "evidence": "A",
    "functions": ["tersor.project.ridge_path"],
    "data": "computed: sin(8 pi t) and sin(pi t) on [-1, 1], 200 points with a little noise",
    "claims": [["narrow", ">=", 0.5], ["wide", "<=", 0.03], ["units_help", "<=", 0.1], ["slow", "<=", 0.02]],
    "figure": "narrow",
    "seconds": 20,
}
PENALTIES = tuple(10.0**e for e in range(-12, 2))


def error(t: np.ndarray, y: np.ndarray, tt: np.ndarray, ty: np.ndarray, band: float, units: int, seed: int) -> float:
    """What is left of the norm of the target where the net was not shown it."""
    a, b = np.random.default_rng([seed, units]).uniform(-band, band, (2, units))
    coef, loo = project.ridge_path(np.tanh(np.outer(t, a) + b), y, PENALTIES)
    made = np.tanh(np.outer(tt, a) + b) @ coef[loo.argmin()]
    return float(np.linalg.norm(made - ty) / np.linalg.norm(ty))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    rng = np.random.default_rng(1000 + split)
    t, tt = rng.uniform(-1, 1, 200), np.linspace(-0.95, 0.95, 500)
    noise = 1e-4 * rng.standard_normal(200)

    def of(times: float, band: float, units: int) -> float:
        fast = np.sin(times * np.pi * t) + noise
        return error(t, fast, tt, np.sin(times * np.pi * tt), band, units, seed)

    narrow = of(8, 1, 400)
    return {
        "narrow": narrow,  # weights within 1 do not reach eight half waves
        "wide": of(8, 30, 400),
        "units_help": of(8, 1, 50) - narrow,  # nor do eight times as many of them
        "slow": of(1, 1, 400),  # what is within their band they do learn
    }


if __name__ == "__main__":
    main(SYSTEM, run)
