"""Losses of rows against torch's own and what torch's compiler makes of them. The one rule: a case is what a step of training
does, the loss and its gradient to the logits."""

from typing import Any

import torch
from torch.nn import functional as F

from tersor import loss
from tersor.bench import Case, Target, called


def _focal(x: Any, t: Any) -> Any:
    """Focal loss as it is usually written, without the difference from 1 that loses what is small."""
    ce = F.cross_entropy(x, t, reduction="none")
    return ((1 - torch.exp(-ce)) ** 2 * ce).mean()


def _case(title: str, rows: int, classes: int, ours: Any, theirs: Any, limit: float, kind: Any = torch.float32) -> Case:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, classes, generator=generator).to(kind).requires_grad_()
    t = torch.randint(classes, (rows,), generator=generator)
    traced = torch.compile(theirs)

    def step(f: Any) -> Any:
        return lambda: torch.autograd.grad(f(x, t), x)

    return Case(
        f"{title} and its gradient, {str(kind).removeprefix('torch.')} {rows}×{classes}",
        {"tersor": step(ours), "torch": step(theirs), "torch.compile": step(traced)},
        traffic=2 * x.nbytes,
        targets=[Target("tersor", ("torch",), limit), Target("tersor", ("torch.compile",), 1.0)],
    )


def _plain(rows: int, classes: int, kind: Any = torch.float32) -> Any:
    name = f"cross_entropy_{rows}x{classes}_{str(kind).removeprefix('torch.')}"
    return called(name, lambda: _case("cross_entropy", rows, classes, loss.cross_entropy, F.cross_entropy, 1.0, kind))


def cross_entropy_smooth() -> Case:
    return _case(
        "cross_entropy smoothed",
        4096,
        1000,
        lambda x, t: loss.cross_entropy(x, t, label_smoothing=0.1),
        lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1),
        1.0,
    )


def cross_entropy_focal() -> Case:
    return _case("cross_entropy focal", 4096, 1000, lambda x, t: loss.cross_entropy(x, t, gamma=2.0), _focal, 1.0)


CASES = [
    _plain(4096, 1000),
    _plain(512, 50_000),
    _plain(65_536, 10),
    _plain(4096, 1000, torch.bfloat16),
    cross_entropy_smooth,
    cross_entropy_focal,
]

HEADLINE = CASES[0]
