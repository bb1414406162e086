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
from exact import atanh, dot, norm, ratio, real, sqrt, tanh, ulp
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


def _mobius_add(x, y, c):
    xy, xx, yy = dot(x, y), dot(x, x), dot(y, y)
    return ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c * c * xx * yy)


def _artanh_of_norm(z, c):
    """artanh(sqrt c |z|)/sqrt c"""
    n = norm(z)
    return n * ratio(atanh, sqrt(c) * n)


TABLE = {
    "expmap0": Entry(lambda x, c: ratio(tanh, sqrt(c) * norm(x)) * x, ("tangent",), 1, 8, point=True),
    "logmap0": Entry(lambda x, c: ratio(atanh, sqrt(c) * norm(x)) * x, ("ball",), 1, 4),
    "mobius_add": Entry(_mobius_add, ("ball", "ball"), 1, 8, point=True),
    "dist": Entry(lambda x, y, c: 2 * _artanh_of_norm(_mobius_add(-x, y, c), c)[..., 0], ("ball", "ball"), 1, 4),
}


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

    first = directions()
    arguments = []
    for k, what in enumerate(entry.arguments):
        if what == "tangent":
            x = (first if k == 0 else directions()) * radius / (2 * root)
        elif k == 0:
            x = place(first, radius)
        else:
            # a displacement of about 0.05 in the metric of the ball, for pairs that nearly coincide (or nearly cancel)
            metric = np.where(c <= 1e-9, 1, root * np.cosh(radius / 2) ** 2)
            close = arguments[0] + directions() * 0.05 * np.minimum(radius, 1) / metric
            x = np.select(
                [kind == "random", kind == "near", kind == "antipodal"],
                [place(directions(), radius), close, -close],
                place(directions(), radius / 3),
            )
        arguments.append(x.astype(dtype).astype(np.float64))
    return Cells(names, [x.astype(dtype) for x in arguments], c)


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
    cs = cells(entry, dtype, d, points, RADII[dtype])
    got = getattr(h, name)(*cs.arguments, cs.c)
    error = errors(entry, dtype, cs, got)
    bound = entry.f32 if dtype == "float32" else entry.f64
    assert (error <= bound).all(), worst(cs, error, bound)


def backward(name, cs, g):
    """Every gradient of operator `name`, by the name of its input."""
    op, back = OPS[name], OPS[f"{name}_bwd"]
    feed = dict(zip(op.inputs, [*cs.arguments, cs.c], strict=True)) | {"g": g}
    return dict(zip(op.inputs, back.numpy([feed[k] for k in back.inputs], {}), strict=True))


@pytest.mark.parametrize("points", FEW)
@pytest.mark.parametrize("d", [2, 3, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TABLE)
def test_gradients(name, dtype, d, points):
    """Up to radius 6, at the centre, and for c = 0 too."""
    entry = TABLE[name]
    cs = cells(entry, dtype, d, points, [r for r in RADII[dtype] if r <= 6], seed=1)
    value = getattr(h, name)(*cs.arguments, cs.c)
    g = np.random.default_rng(d).standard_normal(value.shape).astype(dtype)
    bound = {"float64": 1e-13, "float32": 1e-5}[dtype]
    lengths = [np.linalg.norm(x.astype(np.float64).reshape(len(cs.c), -1), axis=-1) for x in (g, value, *cs.arguments)]
    for (k, got), want in zip(backward(name, cs, g).items(), gradients(entry, cs, g), strict=True):
        size = np.asarray(norm(want)[..., 0], np.float64)
        if k == "c":  # one number, in which large terms may cancel: it is judged by the size of those
            with np.errstate(divide="ignore"):
                terms = np.maximum(slope_in_c(entry, cs), lengths[1] * np.minimum(1 / cs.c[:, 0], lengths[2] ** 2))
            size = np.maximum(size, lengths[0] * terms)
        error = np.asarray(norm(real(got) - want)[..., 0], np.float64) / np.where(size > 0, size, LEAST[dtype])
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
    n = 400
    c = rng.choice([1e-3, 0.1, 1.0, 2.0, 7.0, 1e3], (n, 1))
    u = rng.standard_normal((n, d)) * rng.choice([0.0, 1e-4, 1.0], (n, d), p=[0.1, 0.1, 0.8])
    u[:, 0] += 1e-3
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    far = (u * np.exp(rng.uniform(1, 6, (n, 1))) / np.sqrt(c)).astype(kind)
    y = h.expmap0(far, c)
    z = h.mobius_add(y, h.expmap0(far[::-1].copy(), c), c)
    for point in (y, z):
        assert (depth(point, c) > 0).all()
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
    getattr(kernels, name)(*xs, *out, *OPS[name].scalars.values())
    return [y.numpy() for y in out]


@pytest.mark.triton
@interpreted
@pytest.mark.parametrize("d", [3, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TABLE)
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
        fed = [arguments[k] for k in OPS[f"{name}_bwd"].inputs]
        want = OPS[f"{name}_bwd"].numpy(list(fed), {})
        for a, b in zip(on_gpu(f"{name}_bwd", *fed, like=want), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12 if dtype == "float64" else 1e-6, atol=8 * EPS[dtype])
