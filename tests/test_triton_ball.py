"""GPU kernels of the ball against the CPU's, which `test_hyperbolic.py` holds to the truth: to the last digits, at the
edge, at 0, for one row that serves all. The one rule: no operator is named but for what is its own.
"""

import os

import numpy as np
import pytest
from tersor.testing import EPS

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton's interpreter is chosen before Triton is imported", allow_module_level=True)

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

import ml_dtypes  # noqa: E402
from tersor._op import OPS  # noqa: E402
from tersor._sample import Draw, Rows  # noqa: E402
from tersor.triton import ABSENT, PLAIN  # noqa: E402
from test_ops import ALL, inputs, run  # noqa: E402
from test_triton import launcher, on_gpu  # noqa: E402

pytestmark = pytest.mark.triton

# row by row and curved: not pairs, means and norms
EVERY = [op for op in ALL if op.family == "hyperbolic" and isinstance(op.sample, Rows) and "c" in op.inputs]
BALL = [op for op in EVERY if launcher(op)]
FORWARD = [op for op in BALL if not op.name.endswith("_bwd")]
BACKWARD = [op for op in BALL if op.name.endswith("_bwd")]
POINTS = [op for op in BALL if op.options.checks_inside]
DTYPES = ("float32", "float64", "float16", "bfloat16")


def names(op):
    return op.key


def test_every_operator_has_a_kernel_but_what_runs_its_reference():
    assert len(BALL) > 40
    without = {"hyperbolic.busemann", "hyperbolic.busemann_bwd"}
    assert {op.key for op in EVERY} - {op.key for op in BALL} == without
    assert all(ABSENT[key] == PLAIN for key in without)


def close(op, args, tolerance, *, rows=False):
    """Results as the CPU has them, within `tolerance` of the largest entry, or of each row."""
    with np.errstate(all="ignore"):
        want, got = on_gpu(op, args)
    for name, g, w in zip(op.outputs, got, want, strict=True):
        g, w = g.double().numpy(), np.asarray(w, np.float64)
        np.testing.assert_array_equal(np.isfinite(g), np.isfinite(w), err_msg=name)
        g, w = np.nan_to_num(g), np.nan_to_num(w)
        if w.size:
            size = np.linalg.norm(w, axis=-1, keepdims=True) if rows and w.ndim > 1 else np.abs(w)
            size = size if rows else np.max(size)
            error = np.max(np.abs(g - w) / np.where(size > 0, size, 1))
            assert error <= tolerance, f"{name} is off by {error:.3g}, allowed {tolerance:.3g}"


@pytest.mark.parametrize(("dtype", "radius"), [("float64", 1.0), ("float64", 30.0), ("float32", 14.0)])
@pytest.mark.parametrize("op", FORWARD, ids=names)
def test_digits(op, dtype, radius):
    close(op, inputs(op, Draw(3, dtype, (12,), 3, radius)), 8 * EPS[dtype], rows=True)


@pytest.mark.parametrize("op", [op for op in BALL if "ball" in op.sample.kinds], ids=names)
def test_outside_the_ball_is_nowhere(op):
    args = inputs(op, Draw(3, "float32", (4,), 3, 1.0))
    for i in (i for i, kind in enumerate(op.sample.kinds) if kind == "ball"):
        there = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        there[i][1] = 0.9  # 1.56 from 0
        want, got = on_gpu(op, there)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g.isnan().numpy(), np.isnan(w))
        assert any(g.isnan().any() for g in got)


@pytest.mark.parametrize("name", ["mobius_add", "mobius_coadd"])
def test_antipodes(name):
    """What is left of a sum that all but cancels."""
    x = np.random.default_rng(0).standard_normal((6, 3))
    x *= np.tanh([[1.0], [5.0], [9.0], [13.0], [15.0], [17.0]]) / np.linalg.norm(x, axis=1, keepdims=True)
    close(OPS[f"hyperbolic.{name}"], (x, -x * (1 - 1e-9), 1.0, 0.0), 8 * EPS["float64"], rows=True)


@pytest.mark.parametrize("name", ["expmap", "geodesic_unit"])
def test_steps_to_the_antipode_stay_inside(name):
    x = np.array([[1 - 2.0**-50, 0.0], [0.6 * (1 - 2.0**-40), 0.8 * (1 - 2.0**-40)]])
    far = -x * 2.0**-30 if name == "expmap" else -x
    args = (x, far, 1.0, 0.0) if name == "expmap" else (x, far, np.full((2, 1), 40.0), 1.0, 0.0)
    _, (y,) = on_gpu(OPS[f"hyperbolic.{name}"], args)
    assert bool((y.square().sum(-1) < 1).all())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-6)])
@pytest.mark.parametrize("op", BACKWARD, ids=names)
def test_digits_of_gradients(op, dtype, tolerance):
    close(op, inputs(op, Draw(4, dtype, (12,), 3, 5.0)), tolerance)


@pytest.mark.parametrize("op", BALL, ids=names)
def test_one_row_for_all(op):
    """Its gradient is a sum over rows, which are longer than a program's tile."""
    args = list(inputs(op, Draw(5, "float64", (9,), 130, 2.0)))
    for i in range(op.vectors):
        if op.inputs[i] == "g" or op.vectors == 1:
            continue
        close(op, [*args[:i], args[i][:1].copy(), *args[i + 1 :]], 1e-13)
    for i in range(op.vectors, op.n):  # numbers per row: the same
        if np.size(args[i]) > 1 and op.inputs[i] in op.coefficients:
            close(op, [*args[:i], args[i][:1, 0].reshape(()).copy(), *args[i + 1 :]], 1e-13)


@pytest.mark.parametrize("op", BALL, ids=names)
def test_where_a_formula_would_divide_by_zero(op):
    """Rows of zeros, equal points, curvatures of 0 among others."""
    for dtype in ("float64", "float32", "bfloat16"):
        args = list(inputs(op, Draw(6, dtype, (8,), 4, 0.8, c_rows=True)))
        for i in range(op.vectors):
            if op.inputs[i] == "g":
                continue
            args[i][1] = 0
            args[i][2] = args[0][2]
            args[i][4:6] = 0 if i else args[i][4:6]
        c = op.n - 1
        args[c][[0, 2, 4, 6]] = [[0], [0], [0], [1e-9]]
        close(op, args, 1e-13 if dtype == "float64" else 4 * EPS[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", POINTS, ids=names)
def test_edge(op, dtype):
    """Strictly inside after rounding, and no further inside than asked for."""
    *args, _ = inputs(op, Draw(8, dtype, (8,), 7, 40.0, c_rows=True))
    for i, kind in enumerate(op.sample.kinds):
        if kind == "ball":  # rounded onto the edge, otherwise
            (args[i],) = run(OPS["hyperbolic.ball_project"], (args[i], args[op.n - 1], 0.0))
    for eps in (0.0, -1.0, 0.25):
        _, (got,) = on_gpu(op, (*args, eps))
        y, c = got.double().numpy(), np.asarray(args[op.n - 1], np.float64)
        z = c[:, 0] * np.sum(y.astype(np.longdouble) ** 2, -1)
        margin = eps if eps >= 0 else 1e-5 if dtype == "float64" else 4e-3
        assert (z < 1 if eps == 0 else np.sqrt(z) <= (1 - margin) * (1 + EPS[dtype])).all()
        close(op, (*args, eps), 4 * EPS[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_projection_of_any_number(dtype):
    op = OPS["hyperbolic.ball_project"]
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    most = float(ml_dtypes.finfo(kind).max)
    x = np.array([[np.nan, 1], [np.inf, 1], [most, -most], [most, 0], [most / 4, 3], [0.1, 0.2], [30, 40]]).astype(kind)
    for eps in (0.0, -1.0):
        close(op, (x, 0.7, eps), 4 * EPS[dtype], rows=True)
        for c in (0.7, 0.0):
            close(OPS["hyperbolic.ball_project_bwd"], (np.full_like(x[5:], 2), x[5:], c, eps), 4 * EPS[dtype])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_planes(signed, scaled):
    for name in ("dist2plane", "dist2plane_bwd"):
        op = OPS[f"hyperbolic.{name}"]
        args = inputs(op, Draw(9, "float64", (16,), 3, 2.0))
        close(op, (*args[: op.n], signed, scaled), 1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_steps_from_the_edge_to_the_centre(dtype):
    """What is left of a point after a step that nearly takes it back to 0."""
    (x,) = inputs(OPS["hyperbolic.ball_project"], Draw(11, dtype, (64,), 5, 1.0))[:1]
    (x,) = run(OPS["hyperbolic.ball_project"], (x / np.linalg.norm(x, axis=-1, keepdims=True), 1.0, 0.0))
    (v,) = run(OPS["hyperbolic.logmap"], (x, -x, 1.0))
    close(OPS["hyperbolic.expmap"], (x, v / 2, 1.0, 0.0), EPS[dtype], rows=True)


def test_geodesics_end_at_their_ends():
    """However far t goes, no weight overflows; with c = 0 nothing stops it. Its angle is right to td roundings."""
    op = OPS["hyperbolic.geodesic"]
    for dtype in DTYPES:
        x, y, t, _, eps = inputs(op, Draw(10, dtype, (4,), 3, 1.0))
        for far in (1e3, -1e3, 37.5):
            for c in (1.0, 0.0):
                close(op, (x, y, np.full_like(t, far), c, eps), max(8 * EPS[dtype], 1e-13))


def test_curvature_is_checked():
    for op in BALL:
        *args, c = inputs(op, Draw(1, "float32", (2,), 3))[: op.n]
        for bad in (-1.0, np.nan, np.inf):
            given = [torch.from_numpy(x) for x in args] + [torch.tensor(bad, dtype=torch.float64)]
            out = [torch.zeros(())] * len(op.outputs)
            with pytest.raises(ValueError, match=f"{op.name}: curvature"):
                launcher(op)(*given, *out, *[op.defaults[k] for k in op.scalars])
        assert c == 1.0


def test_the_edge_is_infinitely_far():
    from tersor.triton import hyperbolic as kernels

    x, y = (torch.tensor(v) for v in ([[1.0, 0.0], [0.3, 0.2]], [[0.5, 0.25], [0.0, -1.0]]))
    d = torch.empty(2)
    kernels.dist(x, y, torch.tensor(1.0), d)
    assert d.isinf().all() and (d > 0).all()
