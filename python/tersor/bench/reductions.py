"""Norms and reductions against torch's own. The one rule: a peer gives the same numbers in the same type, and traced peers are
those of torch's compiler.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from tersor import norm, reduce
from tersor.bench import Call, Case, Target, peer

MAPS, ROWS = (16, 64, 56, 56), (4096, 512)


def of(shape: tuple[int, ...]) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def pair(
    title: str, ours: Callable[..., Any], eager: Callable[..., Any], x: Any, limit: float | None, passes: int = 2
) -> Case:
    """A norm, torch's, and torch's traced."""
    traced = torch.compile(eager)
    calls = {"tersor": lambda: ours(x), "torch": lambda: eager(x), "torch.compile": lambda: traced(x)}
    targets = [] if limit is None else [Target("tersor", ("torch",), limit)]
    return Case(title, calls, traffic=passes * x.nbytes, targets=targets)


def layer_norm() -> Case:
    x, w = of(ROWS), of(ROWS[-1:])
    return pair(
        "layer_norm f32 4096×512",
        lambda x: norm.layer_norm(x, 512, w, w),
        lambda x: F.layer_norm(x, (512,), w, w),
        x,
        1.0,
    )


def rms_norm() -> Case:
    x, w = of(ROWS), of(ROWS[-1:])
    return pair(
        "rms_norm f32 4096×512", lambda x: norm.rms_norm(x, 512, w), lambda x: F.rms_norm(x, (512,), w), x, 1 / 3
    )


def batch_norm() -> Case:
    x, w = of(MAPS), of((64,))
    return pair(
        "batch_norm in training f32 16×64×56×56",
        lambda x: norm.batch_norm(x, None, None, w, w, True),
        lambda x: F.batch_norm(x, None, None, w, w, True),
        x,
        0.25,
        3,
    )


def instance_norm() -> Case:
    x, w = of(MAPS), of((64,))
    return pair(
        "instance_norm f32 16×64×56×56",
        lambda x: norm.instance_norm(x, w, w),
        lambda x: F.instance_norm(x, None, None, w, w),
        x,
        0.2,
    )


def group_norm() -> Case:
    x, w = of(MAPS), of((64,))
    return pair(
        "group_norm 8 f32 16×64×56×56",
        lambda x: norm.group_norm(x, 8, w, w),
        lambda x: F.group_norm(x, 8, w, w),
        x,
        1 / 3,
    )


def composed(x: Any, mask: Any) -> Any:
    """Each region's moments by products with its mask."""
    y = torch.zeros_like(x)
    for inside in (mask, ~mask):
        m = inside.to(x.dtype)
        n = m.sum()
        mean = (x * m).sum((0, 2, 3), keepdim=True) / n
        var = (((x - mean) * m) ** 2).sum((0, 2, 3), keepdim=True) / n
        y = y + (x - mean) / (var + 1e-5).sqrt() * m
    return y


def region_norm() -> Case:
    x = of(MAPS)
    mask = of((16, 1, 56, 56)) > 0.5
    return pair(
        "region_norm f32 16×64×56×56",
        lambda x: norm.region_norm(x, mask),
        lambda x: composed(x, mask),
        x,
        1 / 15,
        3,
    )


def peri_pair() -> Case:
    x, r, w = of(ROWS), of(ROWS).flip(0), of(ROWS[-1:])

    def eager(x: Any) -> Any:
        s = r + F.rms_norm(x, (512,), w, 1e-6)
        return F.rms_norm(s, (512,), w, 1e-6), s

    return pair(
        "add_norm with an inner norm f32 4096×512",
        lambda x: norm.add_norm(x, r, w, inner_weight=w),
        eager,
        x,
        1 / 8,
        4,
    )


def residual_pair() -> Case:
    x, r, w = of(ROWS), of(ROWS).flip(0), of(ROWS[-1:])

    def eager(x: Any) -> Any:
        s = r + x
        return F.layer_norm(s, (512,), w, w, 1e-6), s

    return pair("add_norm, layer f32 4096×512", lambda x: norm.add_norm(x, r, w, w, kind="layer"), eager, x, None, 4)


def peri_gradient() -> Case:
    x, r, w = of(ROWS).requires_grad_(), of(ROWS).flip(0).requires_grad_(), of(ROWS[-1:]).requires_grad_()
    g = of(ROWS)
    s = r + F.rms_norm(x, (512,), w, 1e-6)
    ours, theirs = norm.add_norm(x, r, w, inner_weight=w), (F.rms_norm(s, (512,), w, 1e-6), s)

    def back(found: Any) -> Call:
        return lambda: torch.autograd.grad(found, (x, r, w), (g, g), retain_graph=True)

    return Case(
        "gradient of add_norm with an inner norm f32 4096×512",
        {"tersor": back(ours), "torch": back(theirs)},
        traffic=6 * x.nbytes,
        targets=[Target("tersor", ("torch",), 1 / 7)],
    )


def evolved(variant: str, gradient: bool) -> Case:
    """A variant of EvoNorm beside timm's, or its gradient."""
    x = of(MAPS).requires_grad_(gradient)
    w, b, v = (of((64,)).requires_grad_(gradient) for _ in range(3))
    g = of(MAPS)
    own = {"running_var": torch.ones(64)} if variant[0] == "b" else {"groups": 32}

    def ours() -> Any:
        return norm.evonorm(x, variant, w, b, v, **own)

    def back(y: Any, parameters: Any) -> Call:
        return lambda: torch.autograd.grad(y, (x, *parameters), g, retain_graph=True)

    def theirs() -> Call:
        from timm import layers

        layer = layers.EvoNorm2dB0(64) if variant == "b0" else layers.EvoNorm2dS0(64, 32)
        state = {"weight": w, "bias": b, "v": v} | ({"running_var": torch.ones(64)} if variant == "b0" else {})
        layer.train().load_state_dict(state)
        return back(layer(x), layer.parameters()) if gradient else lambda: layer(x)

    of_what = "gradient of evonorm" if gradient else "evonorm"
    return Case(
        f"{of_what} {variant.upper()}{' in training' if variant == 'b0' else ''} f32 16×64×56×56",
        {"tersor": back(ours(), (w, b, v)) if gradient else ours, "timm": peer(theirs)},
        traffic=(5 if gradient else 3) * x.nbytes,
        targets=[Target("tersor", ("timm",), 1 / 8 if gradient else 1 / 6)],
    )


def evonorm_b0() -> Case:
    return evolved("b0", False)


def evonorm_b0_gradient() -> Case:
    return evolved("b0", True)


def evonorm_s0() -> Case:
    return evolved("s0", False)


def evonorm_s0_gradient() -> Case:
    return evolved("s0", True)


def segment_means() -> Case:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal(1_000_000, np.float32), rng.integers(0, 100, 1_000_000)
    return Case(
        "segment_reduce mean f32 1M, 100 labels",
        {
            "tersor": lambda: reduce.segment_reduce(x, "mean", labels=labels, num_segments=100),
            "NumPy bincount": lambda: np.bincount(labels, x, 100) / np.bincount(labels, minlength=100),
        },
        traffic=12 * len(x),
    )


CASES = [
    layer_norm,
    rms_norm,
    batch_norm,
    instance_norm,
    group_norm,
    region_norm,
    residual_pair,
    peri_pair,
    peri_gradient,
    evonorm_b0,
    evonorm_b0_gradient,
    evonorm_s0,
    evonorm_s0_gradient,
    segment_means,
]

HEADLINE = batch_norm
