"""Wide convolutional kernels (row 101): a kernel that sees patches learns a target made of patches from few points. The rule:
both kernels are ridge regressions of the same points; only how much a unit sees differs."""

import numpy as np
from _common import main
from tersor import metrics, project

SYSTEM = {
    "row": 101,
    "title": "What Can Be Learnt With Wide Convolutional Neural Networks?",
    "mechanism": "K(x, z) = mean over patches p of |x_p| |z_p| φ(cos(x_p, z_p)), φ the dual of ReLU, patches of two or of all "
    "twelve numbers of a ring; error ~ n^-β with β larger where patches are those of the target",
    "evidence": "A",
    "functions": ["tersor.project.dual", "tersor.project.ridge_path", "tersor.metrics.fit_power_law"],
    "data": "computed: sum of |x_i + x_i+1| around a ring of twelve, points of the sphere",
    "claims": [["faster", ">=", 0.8], ["ratio", "<=", 0.05], ["wrong_patches", "<=", 0.05]],
    "figure": "exponent",
    "seconds": 30,
}
RING, SIZES, TEST = 12, (75, 150, 300, 600), 500
PENALTIES = tuple(10.0**e for e in range(-8, 2))


def kernel(x: np.ndarray, z: np.ndarray, patches: list[np.ndarray]) -> np.ndarray:
    total = np.zeros((len(x), len(z)))
    for p in patches:
        a, b = (np.linalg.norm(v[:, p], axis=1) for v in (x, z))
        cosines = np.clip((x[:, p] / a[:, None]) @ (z[:, p] / b[:, None]).T, -1, 1)
        total += np.outer(a, b) * project.dual(cosines)[0]
    return total / len(patches)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    rng = np.random.default_rng([seed, split])
    x, tx = (rng.standard_normal((n, RING)) for n in (max(SIZES), TEST))
    x, tx = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, tx))

    def target(v: np.ndarray) -> np.ndarray:
        return np.abs(v + np.roll(v, -1, 1)).sum(1)

    y, ty = target(x), target(tx)
    pairs = np.arange(RING)
    seen = {
        "patches": [np.array([i, (i + 1) % RING]) for i in pairs],
        "dense": [pairs],
        "apart": [np.array([i, (i + 5) % RING]) for i in pairs],  # as small, and not those of the target
    }
    errors: dict[str, list[float]] = {name: [] for name in seen}
    for name, patches in seen.items():
        k, tk = kernel(x, x, patches), kernel(tx, x, patches)
        for n in SIZES:
            values, vectors = np.linalg.eigh(k[:n, :n])
            kept = values > values[-1] * 1e-12
            root = vectors[:, kept] * values[kept] ** 0.5  # K = Z Z^T: ridge of kernels is that of Z
            coef, loo = project.ridge_path(root, y[:n], PENALTIES)
            made = tk[:, :n] @ (vectors[:, kept] / values[kept] ** 0.5) @ coef[loo.argmin()]
            errors[name].append(float(((made - ty) ** 2).mean() / ty.var()))
    laws = {name: float(metrics.fit_power_law(np.array(SIZES, float), np.array(e)).alpha) for name, e in errors.items()}
    return {
        "patches": errors["patches"][-1],
        "dense": errors["dense"][-1],
        "exponent": laws["patches"],
        "dense_exponent": laws["dense"],
        "faster": laws["patches"] - laws["dense"],
        "ratio": errors["patches"][-1] / errors["dense"][-1],
        "wrong_patches": errors["patches"][-1] / errors["apart"][-1],
    }


if __name__ == "__main__":
    main(SYSTEM, run)
