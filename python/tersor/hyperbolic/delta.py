"""How far a metric is from that of a tree. The one rule: no array of n³ elements."""

from __future__ import annotations

from tersor._arrays import is_distributed, whole
from tersor._reference import Array, rounded, wide, xp
from tersor._values import check_dense


def delta_hyperbolicity(d: Array, base: int = 0, *, relative: bool = False) -> Array:
    r"""Gromov's δ of a distance matrix, :math:`\max_{x,y,z}\,\min((x|z), (z|y)) - (x|y)` with
    :math:`(x|y) = \tfrac12(d_{bx} + d_{by} - d_{xy})`: 0 for the distances of a tree.

    Parameters
    ----------
    d : array or tensor [n, n], float64, float32, float16 or bfloat16
        Distances, symmetric with a diagonal of 0.
    base : int
        The point b. Another one gives at least half and at most twice as much.
    relative : bool
        Whether the result is :math:`2\delta/\max d`, between 0 (a tree) and 1.

    Returns
    -------
    array or tensor of 0 axes
        NaN where a distance is; 0 where all are.

    Raises
    ------
    TypeError
        If d is no float array, or base no integer.
    ValueError
        If d is not square and not empty, or base is none of its points.

    Notes
    -----
    :math:`2n^3` operations and :math:`n^2` numbers: of a large set take a sample, some hundred points a few times. Fournier,
    Ismail, Vigneron, "Computing the Gromov hyperbolicity of a discrete metric space" (2015); Khrulkov et al., "Hyperbolic Image
    Embeddings" (2020), has the relative one.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import hyperbolic
    >>> square = np.array([[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]], float)
    >>> float(hyperbolic.delta_hyperbolicity(square, relative=True))
    1.0
    """
    if d.ndim != 2 or d.shape[0] != d.shape[1] or not d.shape[0]:
        raise ValueError(f"delta_hyperbolicity: d must be [n, n] with n > 0, got {tuple(d.shape)}")
    if is_distributed(d):
        check_dense("delta_hyperbolicity", "d", d)
    base = whole("delta_hyperbolicity: base", base)
    if not -d.shape[0] <= base < d.shape[0]:
        raise ValueError(f"delta_hyperbolicity: base must be one of {d.shape[0]} points, got {base}")
    far = wide(d)
    product = (far[base][None, :] + far[base][:, None] - far) / 2
    worst = [xp.amax(xp.amax(xp.minimum(row[:, None], product), 0) - row) for row in product]
    delta = xp.amax(xp.stack(worst))
    if relative:
        most = xp.amax(far)
        delta = 2 * delta / xp.where(most == 0, 1.0, most)
    return rounded(delta, d)
