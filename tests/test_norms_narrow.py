"""Maps of float32 that are computed in float32, against longer numbers. The one rule: the bound is what is promised, for rows
at which two parts of a product are fewest: near their mean, next to nothing, of large and small weights.
"""

import numpy as np
import pytest
from tersor import norm

EPS = 2.0**-24


def rows(kind: str, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng([d, *kind.encode()])
    x = rng.standard_normal((n, d))
    if kind == "shifted":
        x += rng.uniform(-9, 9, (n, 1))
    elif kind == "two values":
        x = np.where(x > 0.3, 1.1, -0.7)
    elif kind == "next to the mean":
        x[:, ::3] = x.mean(-1, keepdims=True) + rng.standard_normal((n, x[:, ::3].shape[1])) * 10.0 ** rng.integers(
            -9, -2, (n, 1)
        )
    elif kind == "zeros":
        x = np.maximum(x, 0)
    elif kind == "next to nothing":
        x[:, ::2] *= 10.0 ** rng.integers(-44, 0, x[:, ::2].shape)
    elif kind == "large":
        x *= 1e18
    return x.astype(np.float32)


def bound(y: np.ndarray, gz: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """One unit in the last place of y, and half of one of what is added."""
    return np.spacing(np.abs(y).astype(np.float32)).astype(np.longdouble) + EPS * (np.abs(gz) + np.abs(beta)) * (
        1 + 2**-8
    )


KINDS = ["normal", "shifted", "two values", "next to the mean", "zeros", "next to nothing", "large"]


@pytest.mark.parametrize("d", [16, 17, 100, 512, 4096, 4099])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_right_to_what_is_promised(kind, d):
    x = rows(kind, 12, d)
    rng = np.random.default_rng(d)
    wide = x.astype(np.longdouble)
    for size, shift in ((1.0, 0.0), (1.9, 1.9), (1e15, 1e3), (1e-15, 0.0), (0.0, 1.0)):
        w = (size * rng.uniform(0.5, 2, d)).astype(np.float32)
        b = (shift * rng.standard_normal(d)).astype(np.float32)
        mean = wide.mean(-1, keepdims=True)
        r = 1 / np.sqrt(((wide - mean) ** 2).mean(-1, keepdims=True) + np.longdouble(1e-12))
        z = (wide - mean) * r
        y = norm.layer_norm(x, d, w, b, 1e-12)
        # next to the mean what float64 knows of it
        near = np.abs(w) * r * np.abs(wide).max(-1, keepdims=True) * 2.0**-51
        assert (np.abs(y - (w * z + b)) <= bound(y, w * z, b) + near).all()
        z = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + np.longdouble(1e-12))
        y = norm.rms_norm(x, d, w, 1e-12)
        assert (np.abs(y - w * z) <= bound(y, w * z, 0 * b)).all()


@pytest.mark.parametrize("d", [16, 40, 513, 3136, 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_right_to_what_is_promised(kind, d):
    x = rows(kind, 12, d).reshape(3, 4, d)
    w, b = np.float32([1.3, -1e10, 1e-12, 0.0]), np.float32([0.2, -3e10, 1.0, 4.0])
    wide, over = x.astype(np.longdouble), 2.0**-51
    for axes, y in (
        (-1, norm.instance_norm(x, w, b, 1e-12)),
        ((0, 2), norm.batch_norm(x, None, None, w, b, True, eps=1e-12)),
    ):
        mean = wide.mean(axes, keepdims=True)
        r = 1 / np.sqrt(((wide - mean) ** 2).mean(axes, keepdims=True) + np.longdouble(1e-12))
        g, plus = w[:, None], b[:, None]
        near = np.abs(g) * r * np.abs(wide).max(axes, keepdims=True) * over
        assert (np.abs(y - (g * (wide - mean) * r + plus)) <= bound(y, g * (wide - mean) * r, plus) + near).all()


def test_what_is_no_number_is_what_it_is_in_float64():
    """Weights and given statistics that a product of two parts would make NaN."""
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    for bad in (np.inf, -np.inf, np.nan, 3e38):
        w, b = np.ones(64, np.float32), np.zeros(64, np.float32)
        w[3], b[5] = bad, bad
        z = (x - x.mean(-1, keepdims=True, dtype=np.float64)) / np.sqrt(
            x.var(-1, keepdims=True, dtype=np.float64) + 1e-5
        )
        with np.errstate(over="ignore"):
            want = (z * w + b).astype(np.float32)
        np.testing.assert_allclose(norm.layer_norm(x, 64, w, b), want, rtol=1e-5, atol=1e-6)
        odd = x.reshape(1, 4, 64).copy()
        odd[0, 1, 7] = bad
        mean, var = np.zeros(4, np.float32), np.float32([1, 4, 1, 1])
        got = norm.batch_norm(odd, mean, var, eps=0.0)
        np.testing.assert_allclose(got, odd / np.sqrt(var)[:, None], rtol=1e-6)


@pytest.mark.parametrize("d", [15, 16, 100])
def test_a_bias_next_to_the_end_of_the_type_is_brought_back(d):
    """γz + β is within the type where β alone, and what little goes in with it, is not far from its end."""
    x = np.random.default_rng(d).standard_normal((50, d)).astype(np.float32)
    most = np.float32(np.finfo(np.float32).max)
    z = norm.layer_norm(x.astype(np.float64), d)
    for row, beta in zip(x, np.sign(z).astype(np.float32) * most, strict=True):
        gamma = np.full(d, -3e38, np.float32)
        want = z[0] * 0 + norm.layer_norm(
            row[None].astype(np.float64), d, gamma.astype(np.float64), beta.astype(np.float64)
        )
        within = np.abs(want) < float(most)
        for y in (
            norm.layer_norm(row[None], d, gamma, beta),
            norm.add_norm(row[None], np.zeros_like(row[None]), gamma, beta, kind="layer")[0],
        ):
            assert np.isfinite(y[within]).all()
