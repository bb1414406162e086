"""Operators over lists against torch's. The one rule: the same lists, of many small tensors or of those of a model, on the same
thread, in place where the peer is."""

from collections.abc import Callable
from typing import Any

import torch

from tersor import foreach
from tersor.bench import Case, Target


def small() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(64, 64, generator=generator) for _ in range(1000)]


def model() -> list[torch.Tensor]:
    """103 tensors of 22 million numbers, most of them short."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1024, 1024)] * 21 + [(384, 384)] * 18 + [(384,)] * 32 + [(64,)] * 32
    return [torch.randn(s, generator=generator) for s in shapes]


def _bytes(xs: list[torch.Tensor]) -> int:
    return sum(x.nbytes for x in xs)


def norms_small() -> Case:
    xs = small()
    return Case(
        "norms f32 1000 of 64×64",
        {"tersor": lambda: foreach.norms(xs), "torch": lambda: torch._foreach_norm(xs)},
        traffic=_bytes(xs),
        targets=[Target("tersor", ("torch",), 0.5)],
    )


def norms_model() -> Case:
    xs = model()
    return Case(
        "the norm of 103 tensors, 25 M f32",
        {
            "tersor": lambda: foreach.norms(xs, groups="all"),
            "torch": lambda: torch.stack(torch._foreach_norm(xs)).norm(),
        },
        traffic=_bytes(xs),
        targets=[Target("tersor", ("torch",), 1.15)],
    )


def lincomb_model() -> Case:
    lists = [model() for _ in range(4)]
    out = [torch.empty_like(x) for x in lists[0]]
    c = [0.4, 0.3, 0.2, 0.1]

    def loop() -> None:
        total: Any = torch._foreach_mul(lists[0], c[0])
        for k in range(1, 4):
            torch._foreach_add_(total, lists[k], alpha=c[k])

    return Case(
        "lincomb of 4 lists, 25 M f32 each",
        {"tersor": lambda: foreach.lincomb(c, *lists, out=out), "torch": loop},
        traffic=5 * _bytes(out),
        targets=[Target("tersor", ("torch",), 0.5)],
    )


def ema_model() -> Case:
    targets, theirs, xs = model(), model(), model()
    return Case(
        "ema of 103 tensors in place, 25 M f32",
        {
            "tersor": lambda: foreach.ema(targets, xs, 0.999, out=targets),
            "torch": lambda: torch._foreach_lerp_(theirs, xs, 0.001),
        },
        traffic=3 * _bytes(xs),
        targets=[Target("tersor", ("torch",), 1.15)],
    )


CASES: list[Callable[[], Case]] = [norms_small, norms_model, lincomb_model, ema_model]
HEADLINE = norms_small
