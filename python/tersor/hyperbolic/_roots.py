"""What the references share: functions of a square that are smooth at 0, as in the kernels' ``roots``."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
#: how far inside the ball results stay: to the last number, or by the margin of geoopt and HypLL
EPS = {"eps": {"tight": 0.0, "compat": -1.0}}


def dot(x: Array, y: Array) -> Array:
    return np.sum(x * y, -1, keepdims=True)


def tanh_root(z: Array) -> Array:
    r = np.sqrt(z)
    return np.where(r > 0, np.tanh(r) / np.where(r > 0, r, 1), 1)


def artanh_root(z: Array) -> Array:
    r = np.sqrt(z)
    return np.where(r > 0, np.arctanh(r) / np.where(r > 0, r, 1), 1)


def arsinh_root(u: Array) -> Array:
    r = np.sqrt(u)
    return np.where(r > 0, np.arcsinh(r) / np.where(r > 0, r, 1), 1)


def slope(z: Array, closed: Array, *series: float) -> Array:
    """A derivative by its closed form, near 0 by the start of its series."""
    return np.where(z < 1e-3, sum(c * z**k for k, c in enumerate(series)), closed)


def tanh_root_d(z: Array) -> Array:
    t = tanh_root(z)
    z1 = np.where(z < 1e-3, 1, z)
    return slope(z, (1 - t - z * t * t) / (2 * z1), -1 / 3, 4 / 15, -17 / 105, 248 / 2835, -1382 / 31185)


def artanh_root_d(z: Array) -> Array:
    z1 = np.where(z < 1e-3, 1, z)
    return slope(z, (1 / (1 - z) - artanh_root(z)) / (2 * z1), 1 / 3, 2 / 5, 3 / 7, 4 / 9, 5 / 11)


def arsinh_root_d(u: Array) -> Array:
    u1 = np.where(u < 1e-3, 1, u)
    return slope(
        u,
        (1 / np.sqrt(1 + u) - arsinh_root(u)) / (2 * u1),
        -1 / 6,
        3 / 20,
        -15 / 112,
        35 / 288,
        -315 / 2816,
    )


def like(total: Array, c: Array) -> Array:
    """The gradient of a curvature: per row, or summed where one number served all rows."""
    return total.reshape(np.shape(c)) if np.size(c) == total.size else np.sum(total).reshape(np.shape(c))


def sech2(s: Array) -> Array:
    return 1 / np.cosh(s) ** 2


def sinh_root(z: Array) -> Array:
    r = np.sqrt(z)
    return np.where(r > 0, np.sinh(r) / np.where(r > 0, r, 1), 1)


def sinh_root_log_d(z: Array) -> Array:
    """The derivative of log(sinh √z/√z)."""
    z1 = np.where(z < 1e-3, 1, z)
    closed = (np.sqrt(z1) / np.tanh(np.sqrt(z1)) - 1) / (2 * z1)
    return slope(z, closed, 1 / 6, -1 / 90, 1 / 945, -1 / 9450, 1 / 93555)
