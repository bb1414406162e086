"""The elementary functions of the core against MPFR. The one rule: the error is counted in ulp of the exact result, where
the functions are hard: at poles, thresholds and branch points, for huge and for denormal arguments."""

import math

import gmpy2
import numpy as np
import pytest
from tersor import _core

NAMES = ["exp", "expm1", "log", "log1p", "tanh", "atanh", "asinh", "acosh", "sinh", "cosh", "erf"]
#: Measured: below 1 where multiply and add are fused, 1.2 (erf of denormals) where they are not. The target is 2.
BOUND = {"float64": 1.25, "float32": 0.52}
#: Inputs of a function in the normal run, and in the full one: a million in all.
MANY = [20_000, pytest.param(91_000, marks=pytest.mark.full)]
LN2 = math.log(2)
HUGE, TINY, LEAST = np.finfo(np.float64).max, np.finfo(np.float64).tiny, 5e-324
EVERYWHERE = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 0.5, LEAST, -LEAST, TINY, -TINY, HUGE, -HUGE]

#: Where a formula changes, or the function does: both sides of each are tried, 64 ulp far.
SPECIAL = {
    "exp": [709.782712893384, -745.1332191019411, -708.3964185322641, *(LN2 * (k + 0.5) for k in (-1023, -1, 0, 1023))],
    "expm1": [709.782712893384, -36.7368005696771, -37.43, *(LN2 * (k + 0.5) for k in (-55, -54, -2, -1, 0, 1, 53))],
    "log": [math.sqrt(0.5), math.sqrt(2), 2.0, TINY, 2.0**-1074 * 3],
    "log1p": [math.sqrt(0.5) - 1, math.sqrt(2) - 1, 2.0**-53, 2.0**53, 1e300],
    "tanh": [LN2 / 4, LN2 * 0.75, 18.3684002848385, 19.0615474653984, 22.0],
    "atanh": [math.tanh(LN2 * k / 4) for k in (1, 2, 3, 5)] + [0.2],
    "asinh": [2.0**28, 2.0**27, math.sinh(LN2 / 2), math.sinh(LN2 * 1.5), 2.2, 0.75, 2.0**-26.5],
    "acosh": [2.0**28, math.cosh(LN2 / 2), math.cosh(LN2 * 1.5), 1 + 2.0**-26.5, 2.0],
    "sinh": [710.4758600739439, *(LN2 * (k + 0.5) for k in (-1, 0, 1, 25, 26, 27, 1023))],
    "cosh": [710.4758600739439, *(LN2 * (k + 0.5) for k in (-1, 0, 1, 25, 26, 27, 1023))],
    "erf": [5.86358474875516, 5.92158, 5.93, 0.4769362762044699, 2.0**-28],
}


def around(points, reach=64):
    """Every number within `reach` ulp of the points, and of their negatives."""
    bits = np.abs(np.array(points)).view(np.int64)[:, None] + np.arange(-reach, reach + 1)
    x = np.clip(bits, 0, np.array(HUGE).view(np.int64)).ravel().view(np.float64)
    return np.concatenate([x, -x])


def inputs(name, n, rng):
    """About `n` arguments: all magnitudes, the middle ones more often, and the special ones."""

    def powers(low, high, part):
        return np.exp2(rng.uniform(low, high, n // part)) * rng.choice([-1.0, 1.0], n // part)

    x = [
        powers(-1074, 1024, 8),
        powers(-60, 12, 4),
        powers(-4, 4, 4),
        rng.uniform(-3, 3, n // 4),
        rng.uniform(-750, 720, n // 8),
    ]
    if name in ("acosh", "log"):
        x = [np.abs(v) for v in x] + [1 + powers(-52, -1, 4)]
    if name in ("atanh", "log1p"):
        x += [np.sign(v) - v for v in [powers(-53, -1, 4)]]
    return np.concatenate([*x, around(SPECIAL[name]), around([1.0, TINY]), EVERYWHERE])


def ulps(name, x, y):
    """The error of each y in ulp of the exact result; infinite where a special value or a sign is wrong."""
    kind = np.finfo(y.dtype)
    least, digits = kind.minexp, kind.nmant
    f = getattr(gmpy2, name)
    out = np.empty(len(x))
    with gmpy2.context(precision=160, emin=-6000, emax=6000), np.errstate(over="ignore"):
        for i, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
            exact = f(gmpy2.mpfr(a))
            nearest = float(y.dtype.type(float(exact)))
            if math.isnan(nearest) or math.isinf(nearest) or exact == 0:
                same = math.copysign(1, b) == math.copysign(1, nearest)
                out[i] = 0 if (b == nearest and same) or (math.isnan(b) and math.isnan(nearest)) else math.inf
            elif math.isinf(b) or math.isnan(b):
                out[i] = math.inf
            else:
                ulp = gmpy2.exp2(max(gmpy2.floor(gmpy2.log2(abs(exact))), least) - digits)
                out[i] = abs(gmpy2.mpfr(b) - exact) / ulp
    return out


@pytest.mark.parametrize("n", MANY)
@pytest.mark.parametrize("name", NAMES)
def test_float64(name, n):
    x = inputs(name, n, np.random.default_rng(n))
    y = np.full_like(x, 7.0)
    _core.math(name, x, y)
    error = ulps(name, x, y)
    worst = error.argmax()
    print(f"{name}: {error[worst]:.3f} ulp at {x[worst]!r} of {len(x)}")
    assert error[worst] <= BOUND["float64"], f"{name}({x[worst]!r}) = {y[worst]!r}: {error[worst]} ulp"


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    with np.errstate(over="ignore"):
        x = inputs(name, 2000, np.random.default_rng(1)).astype(np.float32)
    y = np.full_like(x, 7.0)
    _core.math(name, x, y)
    error = ulps(name, x, y)
    worst = error.argmax()
    assert error[worst] <= BOUND["float32"], f"{name}({x[worst]!r}) = {y[worst]!r}: {error[worst]} ulp"


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 15, 16, 17, 31, 33])
def test_tails(n):
    for dtype in (np.float64, np.float32):
        x = np.linspace(0.1, 0.9, n, dtype=dtype)
        whole, room = np.empty(48, dtype), np.full(n + 1, 7.0, dtype)
        _core.math("tanh", np.resize(x, 48) if n else np.zeros(48, dtype), whole)
        _core.math("tanh", x, room[:n])
        assert room[n] == 7 and np.array_equal(room[:n], whole[:n])


def test_unknown():
    with pytest.raises(ValueError, match="cos"):
        _core.math("cos", np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="exp"):
        _core.math("exp", np.zeros(3), np.zeros(4))
