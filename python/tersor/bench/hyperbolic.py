"""Hyperbolic maps against their formula in NumPy and torch. The one rule: the formula is the textbook's, written once for
each library as its users write it."""

from collections.abc import Callable

import numpy as np

from tersor import hyperbolic
from tersor._op import kernel
from tersor.bench import Case, Target
from tersor.bench.layers import CASES as LAYERS


def numpy_expmap0(x: np.ndarray, c: float) -> np.ndarray:
    r = np.sqrt(c) * np.linalg.norm(x, axis=-1, keepdims=True).clip(1e-15)
    return np.tanh(r) / r * x


def torch_expmap0(x, c: float):
    r = c**0.5 * x.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return r.tanh() / r * x


def torch_mobius_add(x, y, c: float):
    xy = (x * y).sum(-1, keepdim=True)
    x2, y2 = (x * x).sum(-1, keepdim=True), (y * y).sum(-1, keepdim=True)
    return ((1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y) / (1 + 2 * c * xy + c * c * x2 * y2)


def ball(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x * (0.7 / np.linalg.norm(x, axis=-1, keepdims=True))


def expmap0_small_numpy() -> Case:
    x, out = ball(4, 8, 0), np.empty((4, 8), np.float32)
    return Case(
        "expmap0 f32 4×8, NumPy",
        {
            "tersor": lambda: hyperbolic.expmap0(x, 1.0),
            "tersor out=": lambda: hyperbolic.expmap0(x, 1.0, out=out),
            "numpy formula": lambda: numpy_expmap0(x, 1.0),
        },
        targets=[Target("tersor", ("numpy formula",), 0.5)],
    )


def expmap0_small_torch() -> Case:
    import torch

    x = torch.from_numpy(ball(4, 8, 0))
    return Case(
        "expmap0 f32 4×8, torch, no gradient",
        {"tersor": lambda: hyperbolic.expmap0(x, 1.0), "torch eager": lambda: torch_expmap0(x, 1.0)},
        targets=[Target("tersor", ("torch eager",), 0.4)],
    )


def expmap0_small_backward() -> Case:
    import torch

    x = torch.from_numpy(ball(4, 8, 0)).requires_grad_()
    g = torch.ones(4, 8)

    def both(f: Callable) -> Callable:
        def call() -> None:
            x.grad = None
            f(x, 1.0).backward(g)

        return call

    return Case(
        "expmap0 f32 4×8, torch, forward + backward",
        {"tersor": both(hyperbolic.expmap0), "torch eager": both(torch_expmap0)},
        targets=[Target("tersor", ("torch eager",), 0.4)],
    )


def _mobius(n: int, d: int, copy_limit: float | None) -> Case:
    import torch

    x, y, out = ball(n, d, 0), ball(n, d, 1), np.empty((n, d), np.float32)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    compiled = torch.compile(torch_mobius_add)
    targets = [Target("tersor torch", ("torch.compile",), 1.0)]
    if copy_limit:
        targets.append(Target("tersor out=", ("copy",), copy_limit))
    return Case(
        f"mobius_add f32 {n}×{d}",
        {
            "tersor out=": lambda: hyperbolic.mobius_add(x, y, 1.0, out=out),
            "tersor": lambda: hyperbolic.mobius_add(x, y, 1.0),
            "tersor torch": lambda: hyperbolic.mobius_add(tx, ty, 1.0),
            "torch.compile": lambda: compiled(tx, ty, 1.0),
            "torch eager": lambda: torch_mobius_add(tx, ty, 1.0),
            "geoopt": lambda: _geoopt().mobius_add(tx, ty, k=torch.tensor(-1.0)),
        },
        traffic=3 * x.nbytes,
        targets=targets,
    )


def _mobius_backward(n: int, d: int, copy_limit: float | None) -> Case:
    import torch

    x, y, g = ball(n, d, 0), ball(n, d, 1), ball(n, d, 2)
    out, dx, dy, dc = np.empty_like(x), np.empty_like(x), np.empty_like(x), np.empty((), np.float64)
    c = np.array(1.0)
    forward, backward = kernel("mobius_add"), kernel("mobius_add_bwd")
    tx, ty = torch.from_numpy(x).requires_grad_(), torch.from_numpy(y).requires_grad_()
    tg = torch.from_numpy(g)
    compiled = torch.compile(torch_mobius_add)

    def ours() -> None:
        forward(x, y, c, out, 0.0)
        backward(g, x, y, c, dx, dy, dc)

    def both(f: Callable) -> Callable:
        def call() -> None:
            tx.grad = ty.grad = None
            f(tx, ty, 1.0).backward(tg)

        return call

    targets = [Target("tersor torch", ("torch.compile",), 1.0)]
    if copy_limit:
        targets.append(Target("tersor out=", ("copy",), copy_limit))
    return Case(
        f"mobius_add f32 {n}×{d}, forward + backward",
        {
            "tersor out=": ours,
            "tersor torch": both(hyperbolic.mobius_add),
            "torch.compile": both(compiled),
            "torch eager": both(torch_mobius_add),
        },
        traffic=8 * x.nbytes,
        targets=targets,
    )


def _geoopt():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from geoopt.manifolds.stereographic import math
    return math


def mobius_add_262144x64() -> Case:
    return _mobius(262144, 64, 1.2)


def mobius_add_65536x64() -> Case:
    return _mobius(65536, 64, None)


def mobius_add_65536x16() -> Case:
    return _mobius(65536, 16, None)


def mobius_add_backward_262144x64() -> Case:
    return _mobius_backward(262144, 64, 1.3)


def mobius_add_backward_65536x64() -> Case:
    return _mobius_backward(65536, 64, None)


def mobius_add_backward_65536x16() -> Case:
    return _mobius_backward(65536, 16, None)


CASES = [
    expmap0_small_numpy,
    expmap0_small_torch,
    expmap0_small_backward,
    mobius_add_262144x64,
    mobius_add_65536x64,
    mobius_add_65536x16,
    mobius_add_backward_262144x64,
    mobius_add_backward_65536x64,
    mobius_add_backward_65536x16,
    *LAYERS,
]

HEADLINE = mobius_add_65536x64
