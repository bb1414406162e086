"""Performance prediction (row 94): what ranks networks early ranks them late. The rule: a predictor is judged by the order that
it gives, against the order of trained nets."""

import torch
from _common import digits, main
from tersor import metrics
from torch import Tensor

SYSTEM = {
    "row": 94,
    "title": "AIO-P: Expanding Neural Performance Predictors Beyond Image Classification",
    "mechanism": "a predictor's scores of nets against their accuracies after training, by Spearman's ρ and Kendall's τ "
    "(the predictor is the accuracy after a tenth of the steps)",
    "evidence": "A",
    "functions": ["tersor.metrics.spearman_corrcoef", "tersor.metrics.kendall_rank_corrcoef"],
    "data": "sklearn.datasets.load_digits, 30 nets of 10 widths and 3 rates",
    "claims": [
        ["spearman", ">=", 0.75],
        ["kendall", ">=", 0.5],
        ["over_width", ">=", 0.01],
        ["scipy_apart", "<=", 1e-14],
    ],
    "figure": "spearman",
    "seconds": 40,
}
WIDTHS, RATES, EARLY, LATE = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32], [0.02, 0.1, 0.5], 60, 560


def accuracies(nets: list[Tensor], used: Tensor, x: Tensor, y: Tensor) -> Tensor:
    first, bias, last = nets
    hidden = (x @ first + bias).relu() * used
    return ((hidden @ last).argmax(-1) == y).double().mean(-1)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    from scipy import stats

    x, y, tx, ty = digits(split)
    widths = torch.tensor(WIDTHS).repeat_interleave(len(RATES))
    rates = torch.tensor(RATES).repeat(len(WIDTHS))[:, None, None]
    n, most = len(widths), max(WIDTHS)
    used = (torch.arange(most) < widths[:, None]).float()[:, None]  # all nets at once, the narrow ones masked
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n, 64, most, generator=generator) / 8
    last = torch.randn(n, most, 10, generator=generator) / widths[:, None, None] ** 0.5
    nets = [first.requires_grad_(), torch.zeros(n, 1, most, requires_grad=True), last.requires_grad_()]
    marks = {}
    onehot = torch.nn.functional.one_hot(y, 10).float()
    for step in range(1, LATE + 1):
        i = torch.randint(len(x), (64,), generator=generator)
        logits = ((x[i] @ nets[0] + nets[1]).relu() * used) @ nets[2]
        loss = -(logits.log_softmax(-1) * onehot[i]).sum(-1).mean(-1).sum()
        for p, g in zip(nets, torch.autograd.grad(loss, nets), strict=True):
            p.data -= rates * g
        if step in (EARLY, LATE):
            marks[step] = accuracies([p.detach() for p in nets], used, tx, ty)
    early, late = marks[EARLY], marks[LATE]
    rho, tau = metrics.spearman_corrcoef(early, late), metrics.kendall_rank_corrcoef(early, late)
    theirs = stats.spearmanr(early, late).statistic, stats.kendalltau(early, late).statistic
    return {
        "spearman": float(rho),
        "kendall": float(tau),
        # the width alone, as a predictor that sees no training
        "over_width": float(rho - metrics.spearman_corrcoef(widths.double(), late)),
        "scipy_apart": max(abs(float(rho) - theirs[0]), abs(float(tau) - theirs[1])),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
