"""Logit leakage (row 25): logits that an interface gives away say how wide the model is and what its last layer spans. The
rule: the thief sees queries and logits alone."""

import numpy as np
import torch
from _common import digits, main, seeded, train
from tersor import project
from torch import Tensor, nn
from torch.nn.functional import mse_loss

SYSTEM = {
    "row": 25,
    "title": "Clone What You Can't Steal: Black-Box LLM Replication via Logit Leakage and Distillation",
    "mechanism": "rank of the logits of 200 queries by the largest gap of singular values of a random sketch of 96; the last "
    "layer up to a rotation by a randomised SVD; the rest is distilled below it, frozen (a tanh layer and 1000 words stand "
    "for the language model)",
    "evidence": "A",
    "functions": ["tersor.project.Projection"],
    "data": "sklearn.datasets.load_digits as the queries",
    "claims": [["rank_apart", "<=", 0.0], ["least_cosine", ">=", 0.98], ["of_learned", "<=", 0.97]],
    "figure": "least_cosine",
    "seconds": 30,
}
WIDTH, WORDS, QUERIES, SKETCH = 48, 1000, 200, 96


def space(logits: Tensor, seed: int) -> Tensor:
    """An orthonormal basis of what rows of logits span, of as many vectors as singular values stand before the largest fall."""
    sketch = project.Projection(WORDS, SKETCH, "gaussian", seed=seed)(logits)
    values = torch.linalg.svdvals(sketch.double())
    rank = int((values[:-1] / values[1:]).argmax()) + 1
    range_ = torch.linalg.qr(sketch)[0]  # of the queries
    return torch.linalg.svd(range_.T @ logits, full_matrices=False)[2][:rank].T


def cosine(basis: Tensor, truth: Tensor) -> float:
    """Of the largest angle between two spaces; 0 if the first is smaller."""
    values = torch.linalg.svdvals(basis.T.double() @ torch.linalg.qr(truth.double())[0])
    return float(values[-1]) if basis.shape[1] >= truth.shape[1] else 0.0


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, _, tx, _ = digits(split, QUERIES)
    rng = np.random.default_rng(seed)
    hidden = torch.from_numpy(rng.standard_normal((64, WIDTH)).astype(np.float32)) / 4
    last = torch.from_numpy(rng.standard_normal((WIDTH, WORDS)).astype(np.float32)) / WIDTH**0.5
    noise = torch.from_numpy(rng.standard_normal((QUERIES, WORDS)).astype(np.float32))
    seen = (x @ hidden).tanh() @ last + 1e-3 * noise
    basis = space(seen, seed)
    wanted = (tx @ hidden).tanh() @ last
    errors = {}
    for name in ("stolen", "learned"):
        head = nn.Linear(basis.shape[1], WORDS, bias=False)
        body = seeded(nn.Sequential(nn.Linear(64, WIDTH), nn.Tanh(), nn.Linear(WIDTH, basis.shape[1]), head), seed)
        if name == "stolen":
            head.weight = nn.Parameter(basis * (WORDS / WIDTH) ** 0.5, requires_grad=False)
        train(body, lambda i, b=body: mse_loss(b(x[i]), seen[i]), QUERIES, steps=400, rate=5e-3, seed=seed, batch=64)
        with torch.no_grad():
            errors[name] = float((body(tx) - wanted).norm() / wanted.norm())
    return {
        "rank_apart": float(abs(basis.shape[1] - WIDTH)),
        "least_cosine": cosine(basis, last.T),
        **errors,
        "of_learned": errors["stolen"] / errors["learned"],
    }


if __name__ == "__main__":
    main(SYSTEM, run)
