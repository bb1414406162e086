"""Deep kernel machines (row 29): a Gram matrix is learned in place of features, held near the one that a wide net begins with.
The rule: the matrix alone is optimised, and what pulls it back is an exact divergence of Gaussians.
"""

from __future__ import annotations

import torch
from _common import digits, main
from tersor import project
from torch import Tensor

SYSTEM = {
    "row": 29,
    "title": "A theory of representation learning gives a deep generalisation of kernel methods",
    "mechanism": "max over G of log N(Y; 0, K(G) + s I) - KL(N(0, G) || N(0, K(X))), K the arc-cosine kernel by the dual of "
    "ReLU, KL = (tr K^-1 G - log det K^-1 G - n) / 2; one layer, other rows by the conditional of K(X)",
    "evidence": "A",
    "functions": ["tersor.project.dual"],
    "data": "sklearn.datasets.load_digits, 200 to learn from",
    "claims": [
        ["gain", ">=", 200.0],
        ["kl_at_start", "<=", 1e-6],
        ["kl_of_unheld", "<=", 0.85],
        ["over_fixed", ">=", -0.01],
    ],
    "figure": "gain",
    "seconds": 60,
}
N, STEPS, NOISE, JITTER = 200, 60, 0.05, 1e-3


def arccos(g: Tensor, other: Tensor | None = None, between: Tensor | None = None) -> Tensor:
    """The kernel of a layer of ReLU above Gram matrices; of two sets by their diagonals and what is between them."""
    a = g.diagonal()
    b, cross = (a, g) if other is None else (other, between)
    size = (a[:, None] * b[None]).sqrt()
    keep = 1 - 1e-7 if other is None else 1.0
    return size * project.dual((cross / size).clamp(-1, 1) * keep, "relu")[0]


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split, N)
    x, tx = (torch.nn.functional.normalize(v.double()) for v in (x, tx))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    x, y = x[order], y[order]
    eye = torch.eye(N, dtype=torch.float64)
    wanted = torch.eye(10, dtype=torch.float64)[y] - 0.1
    first = arccos(x @ x.T) + JITTER * eye
    root = torch.linalg.cholesky(first)

    def parts(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """G = R U U^T R^T with U lower, the likelihood above it, and the divergence."""
        lower = raw.tril()
        g = root @ lower @ lower.T @ root.T
        kl = (lower.square().sum() - 2 * lower.diagonal().abs().log().sum() - N) / 2
        factor = torch.linalg.cholesky(arccos(g) + NOISE * eye)
        white = torch.linalg.solve_triangular(factor, wanted, upper=False)
        likely = -white.square().sum() / 2 - 10 * factor.diagonal().log().sum()
        return g, likely, kl

    def optimised(held: float) -> tuple[Tensor, Tensor, Tensor]:
        raw = eye.clone().requires_grad_()  # begins at K
        optimiser = torch.optim.Adam([raw], 3e-3)
        for _ in range(STEPS):
            optimiser.zero_grad()
            _, likely, kl = parts(raw)
            (held * kl - likely).backward()
            optimiser.step()
        with torch.no_grad():
            return parts(raw)

    end, free = optimised(1.0), optimised(0.0)
    with torch.no_grad():
        start = parts(eye)
        cross, own = arccos_of(tx, x)
        back = torch.linalg.solve(first, cross.T).T  # [tests, N]

        def accuracy(g: Tensor) -> float:
            between = back @ g
            other = own - (back * cross).sum(1) + (between * back).sum(1)
            k = arccos(g, other.clamp(min=1e-9), between.T)
            made = k.T @ torch.linalg.solve(arccos(g) + NOISE * eye, wanted)
            return float((made.argmax(1) == ty).double().mean())

        learned, fixed, unheld = (accuracy(g[0]) for g in (end, start, free))
    return {
        "gain": float(end[1] - end[2] - start[1] + start[2]),
        "kl": float(end[2]),
        "kl_at_start": abs(float(start[2])),
        "apart": float((end[0] - first).norm() / first.norm()),
        "accuracy": learned,
        "fixed": fixed,
        "over_fixed": learned - fixed,
        "unheld": unheld,
        "kl_of_unheld": float(end[2] / free[2]),
    }


def arccos_of(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel between rows of length 1, and its diagonal."""
    return project.dual((a @ b.T).clamp(-1, 1), "relu")[0], torch.ones(len(a), dtype=a.dtype)


if __name__ == "__main__":
    main(SYSTEM, run)
