"""Every operator of the ball against its formula, eager and compiled, and the libraries that have it. The one rule: an
operator is one line of `FORMULAS`, the textbook's formula in torch as its users write it; sizes, directions, peers and
targets follow.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tersor import hyperbolic
from tersor._op import OPS
from tersor._sample import Draw
from tersor.bench import Case, Target, called

SIZES = ((262144, 64), (65536, 256), (65536, 16))
#: `tersor bench hyperbolic` without --all: with their gradients, at one size
USUAL = ("expmap0", "logmap0", "mobius_add", "dist", "expmap", "logmap", "parallel_transport")
USUAL_SIZE = (65536, 64)


def _dot(x, y):
    return (x * y).sum(-1, keepdim=True)


def _norm(x):
    return x.norm(dim=-1, keepdim=True).clamp_min(1e-15)


def _factor(x, c):
    return 2 / (1 - c * _dot(x, x))


def _add(x, y, c):
    xy, xx, yy = _dot(x, y), _dot(x, x), _dot(y, y)
    return ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c * c * xx * yy)


def _scaled(r, x, c):
    n = c**0.5 * _norm(x)
    return (r * n.clamp_max(1 - 1e-7).atanh()).tanh() * x / n


def _exp0(x, c):
    n = c**0.5 * _norm(x)
    return n.tanh() * x / n


def _log0(x, c):
    n = c**0.5 * _norm(x)
    return n.clamp_max(1 - 1e-7).atanh() * x / n


def _exp(x, v, c):
    n = c**0.5 * _norm(v)
    return _add(x, (_factor(x, c) * n / 2).tanh() * v / n, c)


def _gyration(u, v, w, c):
    uv, uw, vw, uu, vv = _dot(u, v), _dot(u, w), _dot(v, w), _dot(u, u), _dot(v, v)
    a = -c * c * uw * vv + c * vw + 2 * c * c * uv * vw
    b = -c * c * vw * uu - c * uw
    return w + 2 * (a * u + b * v) / (1 + 2 * c * uv + c * c * uu * vv)


def _pointwise(w, x, c):
    wx, n = w * x, _norm(x)
    long = _norm(wx)
    return (long / n * (c**0.5 * n).clamp_max(1 - 1e-7).atanh()).tanh() * wx / (c**0.5 * long)


def _coadd(x, y, c):
    a, b = _factor(x, c), _factor(y, c)
    return (a * x + b * y) / (a + b - 2)


def _plane(x, p, a, c):
    z = _add(-p, x, c)
    top = 2 * c**0.5 * _dot(z, a).abs()
    return (top / ((1 - c * _dot(z, z)) * _norm(a))).asinh()[..., 0] / c**0.5


def _project(x, c):
    return x * ((1 - 4e-3) / c**0.5 / _norm(x)).clamp_max(1)


#: operator -> the formula on what the public function takes, in its order, then c
FORMULAS: dict[str, Callable[..., Any]] = {
    "project": _project,
    "lambda_x": lambda x, c: _factor(x, c)[..., 0],
    "inner": lambda x, u, v, c: (_factor(x, c) ** 2 * _dot(u, v))[..., 0],
    "norm": lambda x, u, c: (_factor(x, c) * _norm(u))[..., 0],
    "expmap0": _exp0,
    "logmap0": _log0,
    "dist0": lambda x, c: 2 / c**0.5 * (c**0.5 * _norm(x)[..., 0]).clamp_max(1 - 1e-7).atanh(),
    "mobius_add": _add,
    "mobius_coadd": _coadd,
    "mobius_scalar_mul": _scaled,
    "mobius_pointwise_mul": _pointwise,
    "dist": lambda x, y, c: 2 / c**0.5 * (c**0.5 * _norm(_add(-x, y, c))[..., 0]).clamp_max(1 - 1e-7).atanh(),
    "expmap": _exp,
    "logmap": lambda x, y, c: 2 / _factor(x, c) * _log0(_add(-x, y, c), c),
    "geodesic": lambda t, x, y, c: _add(x, _scaled(t, _add(-x, y, c), c), c),
    "geodesic_unit": lambda t, x, u, c: _add(x, (c**0.5 * t / 2).tanh() * u / (c**0.5 * _norm(u)), c),
    "gyration": _gyration,
    "parallel_transport": lambda x, y, v, c: _factor(x, c) / _factor(y, c) * _gyration(y, -x, v, c),
    "parallel_transport0": lambda x, v, c: (1 - c * _dot(x, x)) * v,
    "parallel_transport0back": lambda x, v, c: v / (1 - c * _dot(x, x)),
    "egrad2rgrad": lambda x, v, c: v / _factor(x, c) ** 2,
    "dist2plane": _plane,
}
#: the kernel behind a public function of another name
KERNEL = {"project": "ball_project"}
#: the names of hypll.manifolds.poincare_ball.math.diffgeom, whose arrays are in the same order
HYPLL = {k: k for k in ("project", "expmap0", "logmap0", "mobius_add", "dist", "expmap", "logmap", "gyration")}
HYPLL |= {"parallel_transport": "transp", "egrad2rgrad": "euc_to_tangent"}
#: a row is read for one number, or for a logarithm: more time for the same bytes
LONG = ("dist", "dist0", "logmap")


def _geoopt(name: str) -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from geoopt.manifolds.stereographic import math
    return getattr(math, name)


def _hypll(name: str) -> Callable[..., Any]:
    from hypll.manifolds.poincare_ball.math import diffgeom

    return getattr(diffgeom, HYPLL[name])


def case(name: str, n: int, d: int, backward: bool, dtype: str = "float32") -> Case:
    """One operator on n rows of d numbers, c = 1."""
    import torch

    op = OPS[f"hyperbolic.{KERNEL.get(name, name)}"]
    back = OPS[f"{op.key}_bwd"]
    assert op.sample is not None
    drawn, _ = op.sample(Draw(0, dtype, (n,), d, 2.0, 1.0))
    arrays, c = drawn[:-1], np.array(1.0)
    out = [np.empty(s, t) for s, t in op.signature.made([*arrays, c], list(op.scalars.values()))]
    g = np.asarray(np.random.default_rng(1).standard_normal(out[0].shape), dtype)
    fed = dict(zip(op.inputs, [*arrays, c], strict=True)) | {"g": g}
    needs = [fed[k] for k in back.inputs]
    grads = [np.empty(s, t) for s, t in back.signature.made(needs, list(back.scalars.values()))]

    def kernels() -> None:
        op.kernel(*arrays, c, *out, *op.scalars.values())
        if backward:
            back.kernel(*needs, *grads, *back.scalars.values())

    # the public functions take a factor first
    first = [x for x, kind in zip(arrays, getattr(op.sample, "kinds", ()), strict=True) if kind == "factor"]
    order = [*first, *(x for x in arrays if not any(x is f for f in first))]
    xs = [torch.from_numpy(x).requires_grad_(backward) for x in order]
    tg, one = torch.from_numpy(g), torch.tensor(1.0, dtype=getattr(torch, dtype))

    def through(f: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            y = f(*xs)
            if backward:
                torch.autograd.grad(y, xs, tg)

        return call

    formula = FORMULAS[name]
    compiled = torch.compile(formula, dynamic=False)
    calls: dict[str, Callable[[], Any]] = {
        "tersor out=": kernels,
        "tersor torch": through(lambda *a: getattr(hyperbolic, name)(*a, 1.0)),
        "torch.compile": through(lambda *a: compiled(*a, 1.0)),
        "torch eager": through(lambda *a: formula(*a, 1.0)),
    }
    if name != "inner":  # without keepdim theirs broadcasts [n, 1] with [n], to n × n
        calls["geoopt"] = through(lambda *a: _geoopt(name)(*a, k=-one))
    if name in HYPLL:
        calls["hypll"] = through(lambda *a: _hypll(name)(*a, one))
    targets = [Target("tersor torch", tuple(k for k in calls if not k.startswith("tersor")), 1 / 1.3)]
    if d >= 64:
        limit = 1.5 if backward else 2.0 if name in LONG else 1.3
        targets.append(Target("tersor out=", ("copy",), limit))
    traffic = sum(x.nbytes for x in (*arrays, *out))
    if backward:
        traffic += sum(x.nbytes for x in (*needs, *grads))
    title = f"{name} {dtype.replace('float', 'f')} {n}×{d}" + (", forward + backward" if backward else "")
    return Case(title, calls, traffic=traffic, targets=targets)


def builders(
    names: tuple[str, ...],
    sizes: tuple[tuple[int, int], ...],
    dtype: str = "float32",
    directions: tuple[bool, ...] = (False, True),
) -> list[Callable[[], Case]]:
    """The cases of these operators, each still to be built, under a name that ``--match`` can find."""
    out: list[Callable[[], Case]] = []
    for name in names:
        for n, d in sizes:
            for backward in directions:
                build = functools.partial(case, name, n, d, backward, dtype)
                out.append(called(f"{name}_{'backward_' if backward else ''}{dtype}_{n}x{d}", build))
    return out
