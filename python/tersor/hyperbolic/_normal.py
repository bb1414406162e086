"""Batch normalisation by midpoint as one operator.

The rule of this file: what it is made of is declared elsewhere.
"""

from __future__ import annotations

from typing import Any

from tersor._op import op
from tersor._reference import Array
from tersor._sample import Draw, Rows
from tersor.hyperbolic._carry import carry, carry_bwd, spread, spread_bwd
from tersor.hyperbolic._groups import midpoint, midpoint_bwd
from tersor.hyperbolic._words import EPS


def _batch(*kinds: str, **scalars: Any) -> Any:
    """Rows, one row of their kind, a positive number; what is made of them for a gradient."""
    rows = Rows()

    def draw_all(draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        ball = draw.seed % 2 == 1
        point = "ball" if ball else "tangent"
        many = Draw(draw.seed, draw.dtype, (max(1, *draw.lead, 1),), draw.d, draw.scale, draw.c)
        one = Draw(draw.seed + 1, draw.dtype, (), draw.d, draw.scale, draw.c)
        epsilon = 0.1 + many.scale**2
        made: dict[str, Any] = {
            "x": rows.one(many, point, draw.c),
            "b": rows.one(one, point, draw.c),
            "gamma": draw.cast(draw.rng.uniform(0.5, 1.5)),
            "g": rows.one(many, "g", draw.c),
            "gm": rows.one(one, "g", draw.c),
            "gv": draw.cast(draw.rng.standard_normal()),
            "c": draw.c,
        }
        if "m" in kinds:
            _, made["m"], made["v"] = normalize(made["x"], made["b"], made["gamma"], draw.c, epsilon, ball)
        return [made[k] for k in kinds], {"epsilon": epsilon, "ball": ball, **scalars}

    return draw_all


@op(
    sample=_batch("x", "b", "gamma", "c", eps=0.0),
    words=EPS,
    exempt=("gamma",),
    tolerance={"float64": 4000, "float32": 8, "float16": 8, "bfloat16": 8},
)
def normalize(
    x: Array,
    b: Array,
    gamma: Any,
    c: Any = 1.0,
    epsilon: float = 1e-5,
    ball: bool = False,
    eps: float | str = 0.0,
) -> tuple[Array, Array, Array]:
    r"""Batch normalisation by midpoint: `carry` of all rows from their midpoint m to b, by
    :math:`r = \gamma/\sqrt{v + \varepsilon}`, v the mean of their squared distances from m.

    Parameters
    ----------
    x : array or tensor [..., d], float64, float32, float16 or bfloat16
        Tangent vectors at the origin, which stand for their :math:`\exp_0`, or points; one row at least.
    b : like x [d]
        Where their midpoint goes.
    gamma : like x []
        The root of the mean squared distance that results.
    c : float, or array of 0 axes
        The ball has curvature -c; finite, not negative.
    epsilon : float
        Added to v.
    ball : bool
        Whether rows are points.
    eps : float, "tight" or "compat"
        How far inside the ball resulting points stay; see `expmap0`.

    Returns
    -------
    y : array or tensor [..., d]
        Of the kind of x.
    m : array or tensor [d]
        The midpoint, of the kind of x.
    v : array or tensor []
        The mean squared distance.

    Raises
    ------
    TypeError
        If the arrays are not of one float type.
    ValueError
        If there is no row, c is negative or not finite, or sizes do not go together.

    Notes
    -----
    Four reads of x and one write; nothing but one number per row is kept on the way. van Spengler et al., "Poincaré ResNet"
    (2023), section 3.3.
    """
    rows = x.reshape(-1, x.shape[-1])
    m = midpoint.op.reference(rows, None, c, None, None, len(rows), 0.0, not ball)[0]  # type: ignore[attr-defined]
    v = spread.op.reference(rows, m, c, ball).mean()  # type: ignore[attr-defined]
    y = carry.op.reference(x, m, b, gamma / (v + epsilon) ** 0.5, c, ball)  # type: ignore[attr-defined]
    return y, m, v


@op(
    sample=_batch("g", "gm", "gv", "x", "b", "gamma", "c", "m", "v"),
    exempt=("gv", "gamma", "c", "v"),
    tensors=True,
    conditioned=True,
    tolerance={"float64": 4000, "float32": 40, "float16": 8, "bfloat16": 8},
)
def normalize_bwd(
    g: Array,
    gm: Array,
    gv: Array,
    x: Array,
    b: Array,
    gamma: Any,
    c: Any,
    m: Array,
    v: Array,
    epsilon: float = 1e-5,
    ball: bool = False,
) -> tuple[Array, Array, Array, Array]:
    r"""Gradient of `normalize`: that of `carry`, then of `spread`, then of the midpoint."""
    rows, up = x.reshape(-1, x.shape[-1]), g.reshape(-1, x.shape[-1])
    r = gamma / (v + epsilon) ** 0.5
    dx, dm, db, dr, dc = carry_bwd.op.reference(up, rows, m, b, r, c, ball)  # type: ignore[attr-defined]
    by_v = (gv - dr * r / (2 * (v + epsilon))) / len(rows)
    ones = up[:, 0] * 0 + 1
    one, dm2, dc2 = spread_bwd.op.reference(rows, m, by_v * ones, c, ball)  # type: ignore[attr-defined]
    dm = (dm.sum(0) + dm2.sum(0) + gm)[None]
    two, _, dc3 = midpoint_bwd.op.reference(  # type: ignore[attr-defined]
        dm, rows, None, c, None, None, len(rows), not ball
    )
    return (dx + one + two).reshape(x.shape), db.sum(0), dr / (v + epsilon) ** 0.5, dc + dc2 + dc3
