"""The layer on points of a smaller type, a chunk of rows at a time. The one rule: what is a sum, or a difference that may
cancel, is float64's, and a result is rounded once, by the kernel that makes it."""

from __future__ import annotations

import numpy as np

from tersor._op import kernel
from tersor._reference import Array, dot

_FACTOR, _ROWS, _BACK = (kernel(f"hyperbolic.{k}") for k in ("lambda_x", "fc_rows", "fc_rows_bwd"))


def _product(a: Array, b: Array, out: Array, add: bool = False) -> None:
    """a b into out, or added to it."""
    if not isinstance(out, np.ndarray):
        out.addmm_(a, b, beta=int(add))
    elif add:
        out += a @ b
    else:
        np.matmul(a, b, out=out)


class Layer:
    """`poincare_fc` of rows x of a smaller type; Z, r and c in float64. The room for a chunk serves the next one too."""

    def __init__(self, eps: float) -> None:
        self.eps = eps
        self.room: dict[str, Array] = {}

    def _rows(self, name: str, like: Array, *shape: int) -> Array:
        """float64 that nobody has looked at, of the chunk's rows or fewer."""
        own = self.room.get(name)
        if own is None or len(own) < shape[0]:
            own = self.room[name] = np.zeros(shape) if isinstance(like, np.ndarray) else like.new_zeros(shape)
        return own[: shape[0]]

    def _seen(self, x: Array, z: Array, r: Array | None, c: Array) -> tuple[Array, ...]:
        p, t = self._rows("p", z, *x.shape), self._rows("t", z, len(x), z.shape[1])
        p[:] = x
        _product(p, z, t)
        factor, n = self._rows("factor", z, len(x)), (z * z).sum(0) ** 0.5
        _FACTOR(x, c, factor)
        return p, t, factor, n, 0 * n if r is None else r

    def forward(self, x: Array, y: Array, z: Array, r: Array | None, c: Array) -> None:
        """The results into y."""
        _, *seen = self._seen(x, z, r, c)
        _ROWS(*seen, c, y, True, self.eps)

    def backward(self, g: Array, x: Array, z: Array, r: Array | None, c: Array) -> tuple[Array, ...]:
        r"""The gradients of x, Z, r and c: :math:`d\lambda/dx = c\lambda^2x`, :math:`d\lambda/dc = \lambda^2\|x\|^2/2`."""
        p, t, factor, n, b = self._seen(x, z, r, c)
        wide, dt, ds = self._rows("g", z, *t.shape), self._rows("dt", z, *t.shape), self._rows("ds", z, len(t))
        wide[:] = g
        dn, dr, dc = 0 * n, 0 * n, 0 * c
        _BACK(wide, t, factor, n, b, c, dt, ds, dn, dr, dc, True)
        by = (ds * factor * factor)[:, None]
        dz = p.T @ dt + z * (dn / (n + (n == 0)))
        dc = dc + (by * dot(p, p)).sum() / 2
        p *= c * by
        _product(dt, z.T, p, True)
        return p, dz, dr, dc
