"""Imbalanced collapse (row 3): with unequal classes the means are orthogonal with lengths that the counts give. The rule: the
Gram matrix that the theory gives is the target, with no center taken away."""

import numpy as np
import torch
from _common import digits, main
from tersor import metrics

SYSTEM = {
    "row": 3,
    "title": "Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data",
    "mechanism": "min ‖H W − Y‖² + λ n ‖W‖² + λ ‖H‖²: class means are orthogonal, ‖m_k‖² = p_k^-½ − λ/p_k of shares p_k "
    "(one layer W on free features H, squares, no bias)",
    "evidence": "V",
    "functions": ["tersor.metrics.neural_collapse"],
    "data": "labels of sklearn.datasets.load_digits, thinned to unequal classes; features are learned freely",
    "claims": [
        ["frame", "<=", 1e-12],
        ["to_own_target", "<=", 0.02],
        ["of_simplex", "<=", 0.15],
        ["within", "<=", 0.05],
        ["uneven", ">=", 0.03],
    ],
    "figure": "to_own_target",
    "seconds": 20,
}
DIM, DECAY, STEPS = 16, 4e-3, 1500


def lengths(counts: np.ndarray) -> np.ndarray:
    """‖m_k‖² at the optimum: each class is a singular value of its own, with ‖w_k‖² = p_k ‖h‖² and w_k h = 1 − λ p_k^-½."""
    share = counts / counts.sum()
    return np.maximum(share**-0.5 - DECAY / share, 0)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    _, y, _, _ = digits(split, 600)
    keep = torch.cat([torch.nonzero(y == k)[: 40 - 3 * k, 0] for k in range(10)])
    y = y[keep]
    generator = torch.Generator().manual_seed(seed)
    h = (0.3 * torch.randn(len(y), DIM, generator=generator, dtype=torch.float64)).requires_grad_()
    w = (0.3 * torch.randn(10, DIM, generator=generator, dtype=torch.float64)).requires_grad_()
    onehot = torch.nn.functional.one_hot(y, 10).double()
    rate = torch.optim.Adam([h, w], 5e-2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(rate, STEPS)
    for _ in range(STEPS):
        rate.zero_grad()
        loss = ((h @ w.T - onehot) ** 2).sum() + DECAY * len(y) * (w * w).sum() + DECAY * (h * h).sum()
        (loss / (2 * len(y))).backward()
        rate.step()
        cosine.step()
    counts = np.bincount(y.numpy(), minlength=10).astype(float)
    target = np.diag(lengths(counts))
    found = metrics.neural_collapse(h.detach(), y, center="none", target_gram=torch.from_numpy(target))
    simplex = metrics.neural_collapse(h.detach(), y)
    frame = np.diag(np.arange(1.0, 6.0)) @ np.linalg.qr(np.random.default_rng(seed).standard_normal((5, 5)))[0]
    law = metrics.neural_collapse(frame, np.arange(5), center="none", target_gram=frame @ frame.T)
    return {
        "frame": law["nc2"],
        "to_own_target": float(found["nc2"]),
        "to_simplex": float(simplex["nc2"]),
        "of_simplex": float(found["nc2"] / simplex["nc2"]),
        "within": float(found["nc1_ratio"]),
        # how unequal the lengths are: what a theory of equal classes does not have
        "uneven": float(simplex["nc2_norms"]),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
