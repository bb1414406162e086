"""Use of depth (row 40): what a block adds is ever less of what is there. The rule: a stream that is only added to outgrows its
blocks, whose inputs are normalised."""

import torch
from _common import digits, main
from tersor import metrics
from torch import Tensor
from torch.nn.functional import layer_norm

SYSTEM = {
    "row": 40,
    "title": "Do Language Models Use Their Depth Efficiently?",
    "mechanism": "per block of a pre-norm stack: ‖u‖/‖r‖ and cos(u, r) of the update u and the residual r "
    "(blocks of a perceptron with random weights)",
    "evidence": "A",
    "functions": ["tersor.metrics.residual_contribution"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["falls", ">=", 10.0], ["of_post_norm", "<=", 0.5], ["half", "<=", 0.6]],
    "figure": "falls",
    "seconds": 20,
}
DEPTH, DIM = 24, 64


def contributions(x: Tensor, seed: int, post: bool) -> Tensor:
    """The mean share of every block, with the norm before the block or after the sum."""
    generator = torch.Generator().manual_seed(seed)
    r, shares = 0.3 * x, []
    for _ in range(DEPTH):
        up = torch.randn(DIM, 4 * DIM, generator=generator) * (2 / DIM) ** 0.5
        down = torch.randn(4 * DIM, DIM, generator=generator) / (4 * DIM) ** 0.5
        u = (r if post else layer_norm(r, (DIM,))) @ up
        u = u.relu() @ down
        ratio, _ = metrics.residual_contribution(u, r)
        shares.append(ratio.mean())
        r = layer_norm(r + u, (DIM,)) if post else r + u
    return torch.stack(shares)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, _, _, _ = digits(split, 400)
    before, after = contributions(x, seed, False), contributions(x, seed, True)
    return {
        "first": float(before[0]),
        "last": float(before[-1]),
        "falls": float(before[0] / before[-1]),
        # with the norm after the sum the last block has as much to say as any
        "of_post_norm": float(before[-1] / after[-1]),
        # the second half of the depth adds less of what is there than the first
        "half": float(before[DEPTH // 2 :].mean() / before[: DEPTH // 2].mean()),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
