"""Hyperbolic maps against their formula in NumPy and torch. The one rule: the formula is the textbook's, written once for
each library as its users write it."""

from collections.abc import Callable

import numpy as np

from tersor import hyperbolic, lorentz
from tersor.bench import Case, Target
from tersor.bench import ball as table
from tersor.bench.hyperbolic_layers import CASES as LAYERS


def numpy_expmap0(x: np.ndarray, c: float) -> np.ndarray:
    r = np.sqrt(c) * np.linalg.norm(x, axis=-1, keepdims=True).clip(1e-15)
    return np.tanh(r) / r * x


def torch_expmap0(x, c: float):
    r = c**0.5 * x.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return r.tanh() / r * x


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


def torch_cdist(x, y, c: float):
    """By the product of matrices, as fast as it gets; near pairs far from the centre lose all their digits."""
    x2, y2 = (x * x).sum(-1)[:, None], (y * y).sum(-1)
    q = (x2 + y2 - 2 * x @ y.T).clamp_min(0)
    return 2 / c**0.5 * (c * q / ((1 - c * x2) * (1 - c * y2))).sqrt().asinh()


def cdist_512x512x64() -> Case:
    import torch

    x, y, out = ball(512, 64, 0), ball(512, 64, 1), np.empty((512, 512), np.float32)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    compiled = torch.compile(torch_cdist)
    return Case(
        "cdist f32 512×512×64",
        {
            "tersor out=": lambda: hyperbolic.cdist(x, y, 1.0, out=out),
            "tersor torch": lambda: hyperbolic.cdist(tx, ty, 1.0),
            "torch.cdist (flat)": lambda: torch.cdist(tx, ty),
            "torch.compile, by a product": lambda: compiled(tx, ty, 1.0),
            "torch eager, by a product": lambda: torch_cdist(tx, ty, 1.0),
            "geoopt": lambda: _geoopt().dist(tx[:, None], ty[None], k=torch.tensor(-1.0)),
            "hypll": lambda: _hypll().cdist(tx[None], ty[None], torch.tensor(1.0)),
        },
        traffic=2 * x.nbytes + out.nbytes,
        targets=[Target("tersor torch", ("torch.cdist (flat)",), 2.0)],
    )


def torch_lorentz_cdist(x, y, c: float):
    """MERU's, by the product of matrices; an arcosh has half of the digits near 1."""
    tx, ty = ((1 / c + (s * s).sum(-1)).sqrt() for s in (x, y))
    return ((c * (tx[:, None] * ty - x @ y.T)).clamp_min(1)).acosh() / c**0.5


def lorentz_cdist_512x512x64() -> Case:
    import torch

    tx, ty = (torch.from_numpy(3 * ball(512, 64, seed)) for seed in (0, 1))
    compiled = torch.compile(torch_lorentz_cdist)
    return Case(
        "lorentz.cdist f32 512×512×64",
        {
            "tersor": lambda: lorentz.cdist(tx, ty, 1.0),
            "torch.cdist (flat)": lambda: torch.cdist(tx, ty),
            "torch.compile, by a product": lambda: compiled(tx, ty, 1.0),
            "torch eager, by a product": lambda: torch_lorentz_cdist(tx, ty, 1.0),
        },
        traffic=2 * tx.nbytes + 512 * 512 * 4,
    )


def torch_cone(x, y, c: float):
    """MERU's exterior angle less its half aperture."""
    tx, ty = ((1 / c + (s * s).sum(-1)).sqrt() for s in (x, y))
    xy = c * ((x * y).sum(-1) - tx * ty)
    below = x.norm(dim=-1) * (xy * xy - 1).clamp_min(1e-8).sqrt()
    angle = ((ty + tx * xy) / (below + 1e-8)).clamp(-1 + 1e-8, 1 - 1e-8).acos()
    half = (0.2 / (x.norm(dim=-1) * c**0.5 + 1e-8)).clamp(-1 + 1e-8, 1 - 1e-8).asin()
    return (angle - half).clamp_min(0)


def entailment_65536x64() -> Case:
    import torch

    tx, ty = (torch.from_numpy(3 * ball(65536, 64, seed)) for seed in (0, 1))
    compiled = torch.compile(torch_cone)
    return Case(
        "lorentz.entailment_loss f32 65536×64",
        {
            "tersor": lambda: lorentz.entailment_loss(tx, ty, 1.0),
            "torch.compile of the formula": lambda: compiled(tx, ty, 1.0),
            "torch eager": lambda: torch_cone(tx, ty, 1.0),
        },
        traffic=2 * tx.nbytes + 65536 * 4,
    )


def torch_busemann(x, p, c: float):
    """HoroPCA's and Ghadimi Atigh's."""
    gap = (p - c**0.5 * x).square().sum(-1)
    return (gap / (1 - c * x.square().sum(-1)).clamp_min(1e-10)).log() / c**0.5


def busemann_65536x64() -> Case:
    import torch

    tx, p = torch.from_numpy(ball(65536, 64, 0)), torch.from_numpy(ball(1, 64, 1) / 0.7)
    compiled = torch.compile(torch_busemann)
    return Case(
        "busemann f32 65536×64",
        {
            "tersor": lambda: hyperbolic.busemann(tx, p, 1.0),
            "torch.compile of the formula": lambda: compiled(tx, p, 1.0),
            "torch eager": lambda: torch_busemann(tx, p, 1.0),
        },
        traffic=tx.nbytes + 65536 * 4,
    )


def torch_lorentz_dist(x, y, c: float):
    """geoopt's: an arcosh of the product, which has half of the digits near 1."""
    tx, ty = ((1 / c + (s * s).sum(-1)).sqrt() for s in (x, y))
    return (c * (tx * ty - (x * y).sum(-1))).clamp_min(1).acosh() / c**0.5


def lorentz_dist_65536x64() -> Case:
    import torch

    tx, ty = (torch.from_numpy(3 * ball(65536, 64, seed)) for seed in (0, 1))
    compiled = torch.compile(torch_lorentz_dist)
    wx, wy = (lorentz.add_time(t) for t in (tx, ty))

    def peer():
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            from geoopt.manifolds.lorentz import math
        return math.dist(wx, wy, k=torch.tensor(1.0))

    return Case(
        "lorentz.dist f32 65536×64",
        {
            "tersor": lambda: lorentz.dist(tx, ty, 1.0),
            "torch.compile of the formula": lambda: compiled(tx, ty, 1.0),
            "torch eager": lambda: torch_lorentz_dist(tx, ty, 1.0),
            "geoopt": peer,
        },
        traffic=2 * tx.nbytes + 65536 * 4,
    )


def wrapped_normal_65536x8() -> Case:
    """The density of points of the ball, beside the formula by geoopt's maps (Nagano et al., 2019)."""
    import torch

    from tersor import nn as tnn

    x, mean = torch.from_numpy(ball(65536, 8, 0)), torch.from_numpy(ball(1, 8, 1) / 3)
    posterior = tnn.WrappedNormal(mean[0], 0.5)

    def peer():
        space, k = _geoopt(), torch.tensor(-1.0)
        v = space.logmap(mean, x, k=k)
        u = space.parallel_transport0back(mean, v, k=k) * 2
        r = u.norm(dim=-1)
        return torch.distributions.Normal(0.0, 0.5).log_prob(u).sum(-1) - 7 * (r.sinh() / r.clamp_min(1e-15)).log()

    return Case(
        "nn.WrappedNormal.log_prob f32 65536×8",
        {"tersor": lambda: posterior.log_prob(x), "geoopt": peer},
        traffic=x.nbytes + 65536 * 4,
    )


def cdist_backward_512x512x64() -> Case:
    import torch

    tx, ty = (torch.from_numpy(ball(512, 64, i)).requires_grad_() for i in (0, 1))
    g = torch.from_numpy(ball(512, 512, 2))
    compiled = torch.compile(torch_cdist)

    def both(f: Callable) -> Callable:
        def call() -> None:
            tx.grad = ty.grad = None
            f(tx, ty, 1.0).backward(g)

        return call

    return Case(
        "cdist f32 512×512×64, forward + backward",
        {
            "tersor torch": both(hyperbolic.cdist),
            "torch.cdist (flat)": both(lambda x, y, _: torch.cdist(x, y)),
            "torch.compile, by a product": both(compiled),
            "geoopt": both(lambda x, y, c: _geoopt().dist(x[:, None], y[None], k=torch.tensor(-c))),
            "hypll": both(lambda x, y, c: _hypll().cdist(x[None], y[None], torch.tensor(c))[0]),
        },
        targets=[Target("tersor torch", ("geoopt", "hypll"), 0.1)],
    )


def torch_midpoint(x, c: float):
    factor = 2 / (1 - c * (x * x).sum(-1, keepdim=True))
    v = (factor * x).sum(-2) / (factor - 1).sum(-2)
    return v / (1 + (1 - c * (v * v).sum(-1, keepdim=True)).sqrt())


def _midpoint(groups: int, members: int, d: int) -> Case:
    import torch

    x = torch.from_numpy(ball(groups * members, d, 0).reshape(groups, members, d)).requires_grad_()
    g = torch.from_numpy(ball(groups, d, 1))
    compiled = torch.compile(torch_midpoint)

    def both(f: Callable) -> Callable:
        def call() -> None:
            x.grad = None
            f(x).backward(g)

        return call

    return Case(
        f"weighted_midpoint f32 {groups}×{members}×{d}, forward + backward",
        {
            "tersor torch": both(lambda x: hyperbolic.weighted_midpoint(x, reducedim=[1])),
            "torch.compile": both(lambda x: compiled(x, 1.0)),
            "torch eager": both(lambda x: torch_midpoint(x, 1.0)),
            "geoopt": both(lambda x: _geoopt().weighted_midpoint(x, k=torch.tensor(-1.0), reducedim=[1])),
        },
        traffic=12 * groups * members * d,
        targets=[Target("tersor torch", ("torch eager",), 1.0)],
    )


def midpoint_1x8192x64() -> Case:
    return _midpoint(1, 8192, 64)


def midpoint_8192x9x64() -> Case:
    return _midpoint(8192, 9, 64)


def _hypll():
    from hypll.manifolds.poincare_ball.math import diffgeom

    return diffgeom


def _geoopt():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from geoopt.manifolds.stereographic import math
    return math


_SMALL = [
    expmap0_small_numpy,
    expmap0_small_torch,
    expmap0_small_backward,
    cdist_512x512x64,
    cdist_backward_512x512x64,
    lorentz_cdist_512x512x64,
    entailment_65536x64,
    busemann_65536x64,
    lorentz_dist_65536x64,
    wrapped_normal_65536x8,
    midpoint_1x8192x64,
    midpoint_8192x9x64,
    *LAYERS,
]
HEADLINE = table.builders(("mobius_add",), (table.USUAL_SIZE,), directions=(False,))[0]
# cases of its own above; the others by the table of formulas
CASES = [*_SMALL, HEADLINE, *table.builders(table.USUAL, (table.USUAL_SIZE,), directions=(True,))]
ALL = [
    *_SMALL,
    *table.builders(tuple(table.FORMULAS), table.SIZES),
    *table.builders(tuple(table.FORMULAS), ((65536, 64),), "float64"),
]
