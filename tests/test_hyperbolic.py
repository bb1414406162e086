"""The maps of the ball against 320-bit truth on the rounded inputs, at every radius that a type can hold.

The one rule: `TABLE` says what an operator is (its textbook definition) and what it promises; an operator is one entry,
and the sweep, the gradients, the edge of the ball and the GPU kernels follow from it.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

import gmpy2
import numpy as np
import pytest
import tersor.hyperbolic as h
from exact import asinh, atanh, dot, norm, ratio, real, sqrt, tanh, ulp
from tersor._arrays import numpy_type
from tersor._op import OPS
from tersor.testing import EPS, LEAST

RADII = {
    "float32": (0, 1e-3, 0.1, 1, 3, 6, 10, 15),
    "float64": (0, 1e-3, 0.1, 1, 3, 6, 10, 15, 20, 28, 36),
}
CURVATURES = (1e-6, 0.1, 1.0, 7.0, 1e3)
FLAT = (0.0, 1e-30, 1e-9)
PAIRS = ("random", "near", "antipodal", "inner")


@dataclass
class Entry:
    """An operator: its definition on numbers of 320 bits, its arguments, and its bounds in ulp of the row norm."""

    truth: Callable
    arguments: tuple[str, ...]
    f32: float
    f64: float
    #: a point of the ball, which rounding may have to move up to 2 eps inside
    point: bool = False
    #: in float64 the bound is times 1 + the norm-wise condition
    conditioned: bool = False
    #: what a number is the difference of, by whose size it is judged; None: by its own
    size: Callable | None = None


def _mobius_add(x, y, c):
    xy, xx, yy = dot(x, y), dot(x, x), dot(y, y)
    return ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c * c * xx * yy)


def _artanh_of_norm(z, c):
    """artanh(sqrt c |z|)/sqrt c"""
    n = norm(z)
    return n * ratio(atanh, sqrt(c) * n)


def _factor(x, c):
    return 2 / (1 - c * dot(x, x))


def _exp0(v, c):
    return ratio(tanh, sqrt(c) * norm(v)) * v


def _log0(x, c):
    return ratio(atanh, sqrt(c) * norm(x)) * x


def _exp(x, v, c):
    return _mobius_add(x, _exp0(_factor(x, c) / 2 * v, c), c)


def _gyration(u, v, w, c):
    # the coefficients of Ungar's closed form: in 320 bits it may cancel
    uv, uw, vw, uu, vv = dot(u, v), dot(u, w), dot(v, w), dot(u, u), dot(v, v)
    a = -c * c * uw * vv + c * vw + 2 * c * c * uv * vw
    b = -c * c * vw * uu - c * uw
    return w + 2 * (a * u + b * v) / (1 + 2 * c * uv + c * c * uu * vv)


def _unit(v):
    n = norm(v)
    return v / np.where(n == 0, 1, n)


def _project(x, c):
    n = sqrt(c) * norm(x)
    return np.where(n < 1, x, x / np.where(n < 1, 1, n))


def _plane(x, p, a, c):
    z = _mobius_add(-p, x, c)
    r = 2 * np.abs(dot(z, a)) / ((1 - c * dot(z, z)) * norm(a))
    return (r * ratio(asinh, sqrt(c) * r))[..., 0]


TABLE = {
    "expmap0": Entry(_exp0, ("tangent",), 1, 8, point=True),
    "logmap0": Entry(_log0, ("ball",), 1, 4),
    "mobius_add": Entry(_mobius_add, ("ball", "ball"), 1, 8, point=True),
    "dist": Entry(lambda x, y, c: 2 * _artanh_of_norm(_mobius_add(-x, y, c), c)[..., 0], ("ball", "ball"), 1, 4),
    "dist0": Entry(lambda x, c: 2 * _artanh_of_norm(x, c)[..., 0], ("ball",), 1, 4),
    "lambda_x": Entry(lambda x, c: _factor(x, c)[..., 0], ("ball",), 1, 4),
    "inner": Entry(
        lambda x, u, v, c: (_factor(x, c) ** 2 * dot(u, v))[..., 0],
        ("ball", "vector", "vector"),
        1,
        8,
        size=lambda x, u, v, c: (_factor(x, c) ** 2 * norm(u) * norm(v))[..., 0],
    ),
    "norm": Entry(lambda x, u, c: (_factor(x, c) * norm(u))[..., 0], ("ball", "vector"), 1, 8),
    "ball_project": Entry(_project, ("any",), 1, 8, point=True),
    "mobius_coadd": Entry(
        lambda x, y, c: (_factor(x, c) * x + _factor(y, c) * y) / (_factor(x, c) + _factor(y, c) - 2),
        ("ball", "ball"),
        1,
        8,
        point=True,
    ),
    "mobius_scalar_mul": Entry(lambda x, r, c: _exp0(r * _log0(x, c), c), ("ball", "factor"), 1, 8, point=True),
    "mobius_pointwise_mul": Entry(lambda w, x, c: _exp0(w * _log0(x, c), c), ("vector", "ball"), 1, 8, point=True),
    "expmap": Entry(_exp, ("ball", "step"), 1, 8, point=True, conditioned=True),
    "logmap": Entry(lambda x, y, c: 2 / _factor(x, c) * _log0(_mobius_add(-x, y, c), c), ("ball", "ball"), 1, 8),
    "geodesic": Entry(
        lambda x, y, t, c: _mobius_add(x, _exp0(t * _log0(_mobius_add(-x, y, c), c), c), c),
        ("ball", "ball", "factor"),
        1,
        8,
        point=True,
        conditioned=True,
    ),
    "geodesic_unit": Entry(
        lambda x, v, t, c: _mobius_add(x, _exp0(t / 2 * _unit(v), c), c),
        ("ball", "vector", "factor"),
        1,
        8,
        point=True,
        conditioned=True,
    ),
    "gyration": Entry(_gyration, ("ball", "ball", "vector"), 1, 8),
    "parallel_transport": Entry(
        lambda x, y, v, c: _factor(x, c) / _factor(y, c) * _gyration(y, -x, v, c), ("ball", "ball", "vector"), 1, 8
    ),
    "parallel_transport0": Entry(lambda x, v, c: 2 / _factor(x, c) * v, ("ball", "vector"), 1, 8),
    "parallel_transport0back": Entry(lambda x, v, c: _factor(x, c) / 2 * v, ("ball", "vector"), 1, 8),
    "egrad2rgrad": Entry(lambda x, v, c: v / _factor(x, c) ** 2, ("ball", "vector"), 1, 8),
    "dist2plane": Entry(_plane, ("ball", "ball", "vector"), 1, 4),
}
#: those whose GPU kernels are swept here too
ON_GPU = ("expmap0", "logmap0", "mobius_add", "dist")


def call(name, cs):
    """Operator `name` on the arguments of the cells, in the order of its kernel."""
    return OPS[f"hyperbolic.{name}"].numpy((*cs.arguments, cs.c), {})


def flat(c):
    """c = 0 stands for its limit: a curvature that changes no digit of a float64, and leaves 300 bits to see it by."""
    return np.where(c == 0, gmpy2.mpfr("1e-30"), c)


@dataclass
class Cells:
    """Inputs of a sweep, a row for each curvature, radius, kind of pair and repetition."""

    names: list
    arguments: list
    c: np.ndarray

    def __getitem__(self, rows):
        return Cells([self.names[i] for i in rows], [x[rows] for x in self.arguments], self.c[rows])


def cells(entry, dtype, d, points, radii, seed=0, curvatures=CURVATURES + FLAT):
    rng = np.random.default_rng([seed, d])
    pairs = PAIRS if len(entry.arguments) > 1 else ("random",)
    names = list(itertools.product(curvatures, radii, pairs, range(points)))
    c = np.array([[n[0]] for n in names])
    # with next to no curvature, a radius is a length
    root = np.sqrt(np.where(c <= 1e-9, 1.0, c))
    radius = np.array([[n[1]] for n in names])
    kind = np.array([[n[2]] for n in names])

    def directions():
        x = rng.standard_normal((len(names), d))
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def place(u, r):
        return u * np.where(c <= 1e-9, r, np.tanh(r / 2) / root)

    # a length of 1 at a point at that radius, and one of about 0.05, for pairs that nearly coincide (or nearly cancel)
    unit = np.where(c <= 1e-9, 0.5, 1 / (2 * root * np.cosh(radius / 2) ** 2))
    near = 0.1 * np.minimum(radius, 1) * unit
    base = None
    arguments = []
    for k, what in enumerate(entry.arguments):
        if what == "tangent":
            x = directions() * radius / (2 * root)
        elif what == "any":
            x = directions() * rng.uniform(0.2, 3, c.shape) / root
        elif what == "vector":
            x = rng.standard_normal((len(names), d)) * 10 ** rng.uniform(-2, 2, c.shape)
        elif what == "factor":
            x = rng.uniform(-2, 2, c.shape)
        elif what == "step":
            away = base / np.maximum(np.linalg.norm(base, axis=-1, keepdims=True), 1e-300)
            x = np.select(
                [kind == "random", kind == "near", kind == "antipodal"],
                [directions() * radius * unit, directions() * near, -1.5 * away * radius * unit],
                directions() * radius / 3 * unit,
            )
        elif base is None:
            x = place(directions(), radius)
        else:
            close = base + directions() * near
            x = np.select(
                [kind == "random", kind == "near", kind == "antipodal"],
                [place(directions(), radius), close, -close],
                place(directions(), radius / 3),
            )
        arguments.append(x.astype(dtype).astype(np.float64))
        if what == "ball" and base is None:
            base = arguments[k]
    return Cells(names, [x.astype(dtype) for x in arguments], c)


def thinned(cs, d, points):
    """Some of the cells, where rows are long: numbers of 320 bits take their time."""
    most = max(6000 // d, 24) * points
    return cs if len(cs.c) <= most else cs[np.random.default_rng(d).permutation(len(cs.c))[:most]]


def stretches(entry, cs):
    """How much each argument's change is stretched, |J| of every row as seen along a few directions."""
    xs, c = [real(x) for x in cs.arguments], flat(real(cs.c))
    truth = entry.truth(*xs, c).reshape(len(c), -1)
    rng = np.random.default_rng(0)
    out = []
    for k, x in enumerate(xs):
        ways = [*(y for y in xs if y.shape == x.shape), *(real(rng.standard_normal(x.shape)) for _ in range(2))]
        worst = 0
        for way in ways:
            step = 2.0**-80 * np.where(norm(x) == 0, 1, norm(x))
            moved = entry.truth(*xs[:k], x + step * _unit(way), *xs[k + 1 :], c).reshape(len(c), -1)
            worst = np.maximum(worst, (norm(moved - truth) / step)[..., 0])
        out.append(worst)
    return out


def condition(entry, cs):
    """The norm-wise condition of each row."""
    size = norm(entry.truth(*[real(x) for x in cs.arguments], flat(real(cs.c))))[..., 0]
    total = sum(s * norm(real(x))[..., 0] for s, x in zip(stretches(entry, cs), cs.arguments, strict=True))
    return np.asarray(total / np.where(size == 0, 1, size), np.float64)


def outside(entry, cs, truth, eps):
    """Rows whose true result has no room inside the ball (or none on some side of it)."""
    gap = 1 - sqrt(flat(real(cs.c)))[..., 0] * norm(truth)[..., 0]
    return np.asarray(gap < 4 * eps, bool) if entry.point else np.zeros(len(cs.c), bool)


def errors(entry, dtype, cs, got):
    """Norm of the error of each row, in ulp of the norm of the true row."""
    truth = entry.truth(*[real(x) for x in cs.arguments], flat(real(cs.c)))
    off = real(got) - truth
    row = truth.ndim > 1
    size = norm(truth)[..., 0] if row else truth
    if entry.size is not None:
        size = entry.size(*[real(x) for x in cs.arguments], flat(real(cs.c)))
    error = norm(off)[..., 0] if row else np.abs(off)
    # what cancels completely is judged against what it came from
    unit = np.maximum(ulp(size, EPS[dtype]), 1e-60 * max(np.max(np.abs(x)) for x in cs.arguments) + LEAST[dtype])
    error = error / unit
    near = outside(entry, cs, truth, EPS[dtype])
    return np.asarray(np.where(near, np.maximum(error - 4, 0), error), np.float64)


def gradients(entry, cs, g):
    """The gradient of <g, f> by central differences of 80 bits: one for each argument, then the curvature's."""
    xs, c = [real(x) for x in cs.arguments], flat(real(cs.c))
    g = real(g)

    def total(*xs):
        f = g * entry.truth(*xs)
        return np.sum(f, -1) if f.ndim > 1 else f

    out = []
    for k, x in enumerate([*xs, c]):
        step = np.broadcast_to(2.0**-80 * (1 / sqrt(np.where(c < 1e-8, 1, c)) if k < len(xs) else c), x.shape)
        slope = np.empty_like(x)
        for j in range(x.shape[-1]):
            move = np.where(np.arange(x.shape[-1]) == j, step, gmpy2.mpfr(0))
            up, down = ([*xs[:k], x + s * move, *xs[k + 1 :], c][: len(xs) + 1] for s in (1, -1))
            if k == len(xs):
                up[-1], down[-1] = c + move, c - move
            slope[:, j] = (total(*up) - total(*down)) / (2 * step[:, 0])
        out.append(slope)
    return out


def slope_in_c(entry, cs):
    """The length of the derivative of each true row by its curvature."""
    xs, c = [real(x) for x in cs.arguments], flat(real(cs.c))
    step = c * 2.0**-80
    slope = (entry.truth(*xs, c + step) - entry.truth(*xs, c - step)).reshape(len(c), -1) / (2 * step)
    return np.asarray(norm(slope)[..., 0], np.float64)


def worst(cs, error, bound):
    at = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    c, radius, kind, _ = cs.names[at]
    return f"{error[at]:.3g} of {bound} allowed at c = {c}, radius {radius}, {kind} pair"


FEW = [1, pytest.param(50, marks=pytest.mark.full)]


@pytest.mark.parametrize("points", FEW)
@pytest.mark.parametrize("d", [2, 3, 16, 64, 256])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TABLE)
def test_truth(name, dtype, d, points):
    entry = TABLE[name]
    cs = thinned(cells(entry, dtype, d, points, RADII[dtype]), d, points)
    got = call(name, cs)
    error = errors(entry, dtype, cs, got)
    bound = entry.f32 if dtype == "float32" else entry.f64
    if entry.conditioned and dtype == "float64":
        error = error / (1 + condition(entry, cs))
    assert (error <= bound).all(), worst(cs, error, bound)


def backward(name, cs, g):
    """Every gradient of operator `name`, by the name of its input."""
    op, back = OPS[f"hyperbolic.{name}"], OPS[f"hyperbolic.{name}_bwd"]
    feed = dict(zip(op.inputs, [*cs.arguments, cs.c], strict=True)) | {"g": g}
    return dict(zip(op.inputs, back.numpy([feed[k] for k in back.inputs], {}), strict=True))


@pytest.mark.parametrize("points", FEW)
@pytest.mark.parametrize("d", [2, 3, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TABLE)
def test_gradients(name, dtype, d, points):
    """Up to radius 6, at the centre, and for c = 0 too, of what a rounding of argument and result does: |g||J|, |g||f|/|x|."""
    entry = TABLE[name]
    cs = thinned(cells(entry, dtype, d, points, [r for r in RADII[dtype] if r <= 6], seed=1), 8 * d, points)
    value = call(name, cs)
    if entry.point:  # nor results further out
        cs = cs[np.nonzero((cs.c[:, 0] <= 1e-9) | (np.sqrt(cs.c[:, 0]) * h.dist0(value, cs.c) < 6.5))[0]]
        value = call(name, cs)
    g = np.random.default_rng(d).standard_normal(value.shape).astype(dtype)
    bound = {"float64": 1e-13, "float32": 1e-5}[dtype]
    lengths = [np.linalg.norm(x.astype(np.float64).reshape(len(cs.c), -1), axis=-1) for x in (g, value, *cs.arguments)]
    stretched = [np.asarray(s, np.float64) for s in stretches(entry, cs)]
    # a curvature of 1e-30 stands for 0, and has slopes of its size
    least = np.where(cs.c[:, 0] == 0, 1e-12 * lengths[0] * sum(lengths[1:]), 0) + LEAST[dtype]
    truth = gradients(entry, cs, g)
    apart = [0.0] * len(truth)
    for seed in range(3 if entry.conditioned else 0):  # and of what the gradients of neighbouring numbers differ by
        toward = np.random.default_rng(seed).choice([-np.inf, np.inf], cs.arguments[0].shape).astype(dtype)
        moved = [np.nextafter(x, toward[:, : x.shape[-1]]) for x in cs.arguments]
        nearby = gradients(entry, Cells(cs.names, moved, cs.c), g)
        apart = [np.maximum(a, norm(u - w)[..., 0]) for a, u, w in zip(apart, nearby, truth, strict=True)]
    for i, ((k, got), want) in enumerate(zip(backward(name, cs, g).items(), truth, strict=True)):
        size = np.asarray(np.maximum(norm(want)[..., 0], 8 * apart[i] / bound), np.float64)
        if k == "c":  # one number, in which large terms may cancel: it is judged by the size of those
            with np.errstate(divide="ignore"):
                span = np.minimum(1 / cs.c[:, 0], np.max(lengths[2:], 0) ** 2)
            moved = sum(s * length for s, length in zip(stretched, lengths[2:], strict=True))
            size = np.maximum(size, lengths[0] * np.maximum(slope_in_c(entry, cs), (lengths[1] + moved) * span))
        else:
            own = lengths[1] / np.where(lengths[2 + i] > 0, lengths[2 + i], np.inf)
            size = np.maximum(size, lengths[0] * np.maximum(stretched[i], own))
        error = np.asarray(norm(real(got) - want)[..., 0], np.float64) / np.maximum(size, least)
        assert (error <= bound).all(), f"d{k}: {worst(cs, error, bound)}"


@pytest.mark.parametrize("c", [0.0, 1e-30, 1.0])
def test_gradients_where_a_formula_would_divide_by_zero(c):
    zero, x = np.zeros((3, 4)), np.random.default_rng(0).uniform(-0.3, 0.3, (3, 4))
    g = np.random.default_rng(1).standard_normal((3, 4))
    for name in ("expmap0", "logmap0"):
        dx, dc = backward(name, Cells([], [zero], np.full((3, 1), c)), g).values()
        np.testing.assert_array_equal(dx, g)
        np.testing.assert_array_equal(dc, 0)
    for d in backward("dist", Cells([], [x, x], np.full((3, 1), c)), g[:, 0].copy()).values():
        np.testing.assert_array_equal(d, 0)
    dx, dy, dc = backward("mobius_add", Cells([], [zero, zero], np.full((3, 1), c)), g).values()
    np.testing.assert_array_equal([dx, dy], [g, g])
    np.testing.assert_array_equal(dc, 0)


def depth(x, c):
    """1 - sqrt(c)|x| of every row, exact."""
    return 1 - sqrt(real(c)) * norm(real(x))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("d", [1, 2, 3, 17, 256])
def test_results_stay_inside(dtype, d):
    kind = dtype
    if dtype == "bfloat16":
        kind = pytest.importorskip("ml_dtypes").bfloat16
    rng = np.random.default_rng(d)
    n = 400 if d < 256 else 100
    c = rng.choice([1e-3, 0.1, 1.0, 2.0, 7.0, 1e3], (n, 1))
    u = rng.standard_normal((n, d)) * rng.choice([0.0, 1e-4, 1.0], (n, d), p=[0.1, 0.1, 0.8])
    u[:, 0] += 1e-3
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    far = (u * np.exp(rng.uniform(1, 6, (n, 1))) / np.sqrt(c)).astype(kind)
    y = h.expmap0(far, c)
    back = h.expmap0(-far[::-1], c)
    t = rng.uniform(-30, 30, (n, 1)).astype(kind)
    for k, point in enumerate(
        (
            y,
            h.project(far, c),
            h.mobius_add(y, back, c),
            h.mobius_coadd(y, back, c),
            h.mobius_scalar_mul(t, y, c),
            h.mobius_pointwise_mul(far, y, c),
            h.expmap(y, far, c),
            h.expmap(back, (far.astype(np.float64) * 1e-3).astype(kind), c),
            h.geodesic(t, y, back, c),
            h.geodesic_unit(t, y, far, c),
            h.weighted_midpoint(np.stack([y, back]), None, c, reducedim=[0]),
        )
    ):
        assert point.dtype == kind
        assert (depth(point, c) > 0).all(), k
    # where the true result is nearer to the edge than the type resolves, so is the computed one
    out = np.linalg.norm(far.astype(np.float64), axis=-1, keepdims=True) * np.sqrt(c) > 25
    assert out.any()
    assert (depth(y, c)[out] <= 2 * EPS[dtype]).all()
    for eps, margin in ((0.01, 0.01), (-1.0, 1e-5 if dtype == "float64" else 4e-3)):
        deep = depth(h.expmap0(far, c, eps), c)
        assert (deep >= margin - 2 * EPS[dtype]).all()
        assert (deep[out] <= margin + 2 * EPS[dtype]).all()


def points(dtype, d, radius, seed, n=60):
    rng = np.random.default_rng([seed, d])
    u = rng.standard_normal((n, d))
    return (u / np.linalg.norm(u, axis=-1, keepdims=True) * np.tanh(rng.uniform(0, radius, (n, 1)) / 2)).astype(dtype)


def conformal(x):
    """lambda of every row, c = 1."""
    return 2 / (1 - np.sum(np.square(x, dtype=np.float64), -1))


@pytest.mark.parametrize("d", [1, 2, 3, 16, 67])
@pytest.mark.parametrize(("dtype", "radius"), [("float32", 8), ("float64", 18)])
def test_identities(dtype, d, radius):
    """What rounding a point moves it is its metric's lambda times an ulp: identities hold to that, at any radius."""
    a, x, y = (points(dtype, d, radius, k) for k in range(3))
    eps = EPS[dtype]

    def near(x, y, *through):
        slack = 4 * eps * sum(map(conformal, (x, y, *through)))
        assert (h.dist(x, y).astype(np.float64) <= slack).all()

    ax, ay = h.mobius_add(a, x), h.mobius_add(a, y)
    near(h.mobius_add(-a, ax), x, ax)  # left cancellation
    np.testing.assert_array_equal(h.mobius_add(np.zeros_like(x), x), x)
    np.testing.assert_array_equal(h.mobius_add(-a, -x), -ax)
    near(h.expmap0(h.logmap0(x)), x)
    v = h.logmap0(x)
    off = np.linalg.norm(h.logmap0(h.expmap0(v)).astype(np.float64) - v, axis=-1)
    assert (off <= 4 * eps * (conformal(x) + np.linalg.norm(v, axis=-1))).all()
    # translations keep distances
    moved = np.abs(h.dist(ax, ay).astype(np.float64) - h.dist(x, y))
    assert (moved <= 4 * eps * (conformal(ax) + conformal(ay) + h.dist(x, y))).all()
    # |log x| is half the distance from the centre, whose metric is 4 times the Euclidean one
    np.testing.assert_allclose(
        2 * np.linalg.norm(v.astype(np.float64), axis=-1), h.dist(np.zeros_like(x), x), rtol=4 * eps
    )


@pytest.mark.parametrize("d", [1, 2, 3, 16, 67])
@pytest.mark.parametrize(("dtype", "radius"), [("float32", 8), ("float64", 18)])
def test_identities_of_vectors(dtype, d, radius):
    """Isometries and ways there and back, to what rounding a point and a vector does."""
    x, y, w = (points(dtype, d, radius, k) for k in range(3))
    eps = EPS[dtype]
    v, u = (np.random.default_rng([k, d]).standard_normal(x.shape).astype(dtype) for k in range(2))
    size = np.linalg.norm(v.astype(np.float64), axis=-1)
    cond = conformal(x) + conformal(y)

    def off(a, b):
        return np.linalg.norm(a.astype(np.float64) - b, axis=-1)

    # rotations keep lengths, and undo each other
    turned = h.gyration(x, y, v)
    assert (np.abs(np.linalg.norm(turned.astype(np.float64), axis=-1) - size) <= 4 * eps * size).all()
    assert (off(h.gyration(y, x, turned), v) <= 16 * eps * size).all()
    # transport keeps norms and inner products, there and back
    there = h.parallel_transport(x, y, v)
    np.testing.assert_allclose(h.norm(y, there), h.norm(x, v), rtol=16 * eps)
    with_u = h.inner(y, there, h.parallel_transport(x, y, u)).astype(np.float64) - h.inner(x, v, u)
    assert (np.abs(with_u) <= 32 * eps * h.norm(x, v).astype(np.float64) * h.norm(x, u)).all()
    assert (off(h.parallel_transport(y, x, there), v) <= 16 * eps * size).all()
    np.testing.assert_array_equal(h.parallel_transport(x, x, v), v)
    assert (off(h.parallel_transport0back(x, h.parallel_transport0(x, v)), v) <= 4 * eps * size).all()
    assert (off(h.parallel_transport0(x, v), h.parallel_transport(0 * x, x, v)) <= 4 * eps * size).all()
    # exp and log at a point: its norm is the distance, its end the other point
    to = h.logmap(x, y)
    np.testing.assert_allclose(h.norm(x, to), h.dist(x, y), rtol=16 * eps)
    # directions that differ by eps part by eps sinh(d)
    assert (h.dist(h.expmap(x, to), y) <= 16 * eps * (cond + np.sinh(h.dist(x, y).astype(np.float64)))).all()
    assert not h.logmap(x, x).any()
    assert (off(h.expmap(x, 0 * x), x) <= 2 * eps).all()
    # (r + s) x = r x + s x, and a matrix that is a number
    double = h.mobius_scalar_mul(2.0, w)
    assert (h.dist(double, h.mobius_add(w, w)) <= 16 * eps * (conformal(double) + conformal(w))).all()
    # the gyrogroup: x + y = gyr[x, y](y + x)
    both = h.mobius_add(x, y)
    assert (h.dist(both, h.gyration(x, y, h.mobius_add(y, x))) <= 16 * eps * conformal(both)).all()


@pytest.mark.parametrize("d", [2, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_truth_of_midpoints(dtype, d):
    """Weighted, of three points: one rounding in float32, 8 (1 + condition) ulp in float64."""
    entry = Entry(lambda x, y, c: _midpoint(x, y, c), ("ball", "ball"), 1, 8, point=True, conditioned=True)
    cs = thinned(cells(entry, dtype, d, 1, RADII[dtype]), d, 1)
    x, y = cs.arguments
    got = h.weighted_midpoint(np.stack([x, y]), WEIGHTS[:, None].astype(dtype), cs.c, reducedim=[0])
    error = errors(entry, dtype, cs, got)
    if dtype == "float64":
        error = error / (1 + condition(entry, cs))
    assert (error <= (1 if dtype == "float32" else 8)).all(), worst(cs, error, 8)


WEIGHTS = np.array([0.75, 2.0])


def _midpoint(x, y, c):
    (a, b), (u, v) = (_factor(x, c), _factor(y, c)), WEIGHTS
    return _exp0(_log0((u * a * x + v * b * y) / (u * (a - 1) + v * (b - 1)), c) / 2, c)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_truth_of_matrices(dtype):
    entry = Entry(
        lambda x, c: _exp0(np.sum(matrix * _log0(x, c)[:, None], -1), c), ("ball",), 8, 8, point=True, conditioned=True
    )
    cs = cells(entry, dtype, 5, 1, RADII[dtype])
    m = np.random.default_rng(0).standard_normal((3, 5)).astype(dtype)
    matrix = real(m)
    got = h.mobius_matvec(m, cs.arguments[0], cs.c)
    error = errors(entry, dtype, cs, got) / (1 + condition(entry, cs))
    assert (error <= 8).all(), worst(cs, error, 8)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_distance_is_symmetric_and_zero_on_the_diagonal(dtype):
    x, y = points(dtype, 19, 6, 0), points(dtype, 19, 6, 1)
    for c in (0.0, 1e-9, 0.3, 1.0):
        assert h.dist(x, y, c).tobytes() == h.dist(y, x, c).tobytes()
        assert not h.dist(x, x, c).any()
    if dtype == "float64":
        z = points(dtype, 19, 36, 2)
        assert not h.dist(z, z).any()
        for k, dy in (("x", "y"), ("y", "x")):
            one = backward("dist", Cells([], [x, y], np.ones((60, 1))), np.ones(60))
            two = backward("dist", Cells([], [y, x], np.ones((60, 1))), np.ones(60))
            np.testing.assert_array_equal(one[k], two[dy])


def test_a_curvature_per_row_is_a_curvature():
    x, y = points("float32", 5, 3, 0), points("float32", 5, 3, 1)
    for c in (0.0, 0.3, 1.0):
        each = np.full((60, 1), c)
        assert h.mobius_add(x, y, c).tobytes() == h.mobius_add(x, y, each).tobytes()
        assert h.dist(x, y, c).tobytes() == h.dist(x, y, np.float64(c)).tobytes()


interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="the interpreter is chosen before Triton is imported"
)


def on_gpu(name, *args, like):
    """The GPU kernel on NumPy arrays, with results of the shapes of `like`."""
    torch = pytest.importorskip("torch")
    kernels = pytest.importorskip("tersor.triton.hyperbolic")
    xs = [torch.from_numpy(x) if isinstance(x, np.ndarray) else torch.tensor(x, dtype=torch.float64) for x in args]
    out = [torch.from_numpy(np.full_like(y, np.nan)) for y in like]
    getattr(kernels, name)(*xs, *out, *OPS[f"hyperbolic.{name}"].scalars.values())
    return [y.numpy() for y in out]


@pytest.mark.triton
@interpreted
@pytest.mark.parametrize("d", [3, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ON_GPU)
def test_truth_of_gpu_kernels(name, dtype, d):
    """exp and log are the executor's own, hence twice the bound."""
    entry = TABLE[name]
    cs = cells(entry, dtype, d, 1, RADII[dtype], seed=2)
    cs = cs[np.random.default_rng(d).permutation(len(cs.c))[:128]]
    value = getattr(h, name)(*cs.arguments, cs.c)
    (got,) = on_gpu(name, *cs.arguments, cs.c, like=[value])
    error = errors(entry, dtype, cs, got)
    bound = 2 * (entry.f32 if dtype == "float32" else entry.f64)
    assert (error <= bound).all(), worst(cs, error, bound)


@pytest.mark.triton
@interpreted
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_gpu_results_stay_inside(dtype):
    rng = np.random.default_rng(0)
    c = rng.choice([1e-3, 0.1, 1.0, 7.0, 1e3], (64, 1))
    x = rng.standard_normal((64, 7))
    x = (x / np.linalg.norm(x, axis=-1, keepdims=True) * np.exp(rng.uniform(1, 6, (64, 1))) / np.sqrt(c)).astype(dtype)
    (y,) = on_gpu("expmap0", x, c, like=[x])
    (z,) = on_gpu("mobius_add", y, np.roll(y, 5, 0), c, like=[x])
    assert (depth(y, c) > 0).all()
    assert (
        depth(y, c)[np.sqrt(c) * np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True) > 25] <= 2 * EPS[dtype]
    ).all()
    same = c == np.roll(c, 5, 0)
    assert (depth(z, c)[same] > 0).all()


@pytest.mark.triton
@interpreted
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gpu_kernels_walk_long_rows_and_add_up_what_serves_them_all(dtype):
    """Rows longer than a program's tile; one y and one c for many x."""
    rng = np.random.default_rng(0)
    x, g = (rng.uniform(-1, 1, (9, 2100)).astype(dtype) / 50 for _ in range(2))
    y = x[:1] * rng.uniform(0.5, 1, 2100).astype(dtype)
    for name, gradient in (("mobius_add", g), ("dist", g[:, 0].copy())):
        value = getattr(h, name)(x, y, 0.7)
        (got,) = on_gpu(name, x, y, 0.7, like=[value])
        np.testing.assert_allclose(got, value, rtol=4 * EPS[dtype], atol=4 * EPS[dtype])
        arguments = {"x": x, "y": y, "g": gradient, "c": np.array([0.7])}
        fed = [arguments[k] for k in OPS[f"hyperbolic.{name}_bwd"].inputs]
        want = OPS[f"hyperbolic.{name}_bwd"].numpy(list(fed), {})
        for a, b in zip(on_gpu(f"{name}_bwd", *fed, like=want), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12 if dtype == "float64" else 1e-6, atol=8 * EPS[dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_edge_is_infinitely_far(dtype):
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(v, dtype=getattr(torch, dtype)) for v in ([[1.0, 0.0]], [[0.5, 0.25], [0.0, -1.0]]))
    for d in (h.dist(x, y), h.dist(y, x), h.cdist(x, y), h.dist2(x, y), h.dist0(x), h.knn(x, y, 2)[0]):
        assert d.isinf().all() and (d > 0).all()


@pytest.mark.parametrize("dtype", EPS)
def test_infinite_coordinates_give_the_same_in_every_type(dtype):
    """A vector that is scaled stays infinite where it is; a tangent or point that is has no direction, and its row is NaN."""
    t = np.dtype(numpy_type(dtype))
    for bad in (np.inf, -np.inf):
        v = np.full((3, 35), 0.11).astype(t)
        x = (v * 0.7).astype(t)
        v[1, 17] = bad
        for f in (h.parallel_transport0, h.parallel_transport0back, h.egrad2rgrad):
            got, plain = (np.asarray(f(x, w, 0.3), np.float64) for w in (v, np.where(np.isinf(v), t.type(0.11), v)))
            assert got[1, 17] == bad
            assert (np.delete(got.ravel(), 35 + 17) == np.delete(plain.ravel(), 35 + 17)).all()
        for f in (h.expmap0, h.logmap0, h.project):
            assert np.isnan(np.asarray(f(v, 1.0), np.float64)).any(1).tolist() == [False, True, False]
            assert np.isnan(np.asarray(f(v, 1.0), np.float64)[1]).all()
