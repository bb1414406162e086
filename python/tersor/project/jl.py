"""How many dimensions keep all distances. The one rule: the bound is the theorem's, rounded so that it holds."""

from __future__ import annotations

import math

import numpy as np


def jl_dim(n: float, eps: float = 0.1, *, compat: str | None = None) -> int:
    r"""The least k for which n points keep all their distances: :math:`k \ge 4\ln n/(\epsilon^2/2 - \epsilon^3/3)`.

    Parameters
    ----------
    n : int
        Number of points, at least 1.
    eps : float in (0, 1)
        Squared distances stay within :math:`1 \pm \epsilon`, for some projection and for most.
    compat : None or "sklearn"
        scikit-learn rounds down, which is one too few.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If n or eps is no number.
    ValueError
        If n or eps is out of its range.

    Notes
    -----
    Dasgupta, Gupta, "An elementary proof of a theorem of Johnson and Lindenstrauss" (2003), theorem 2.1.
    """
    if compat not in (None, "sklearn"):
        raise ValueError(f"jl_dim: compat must be None or 'sklearn', got {compat!r}")
    for name, value in (("n", n), ("eps", eps)):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise TypeError(f"jl_dim: {name} must be a number, got {type(value).__name__}")
    if not 1 <= n < math.inf:
        raise ValueError(f"jl_dim: n must be at least 1 and finite, got {n}")
    if not 0 < eps < 1:
        raise ValueError(f"jl_dim: eps must be in (0, 1), got {eps}")
    share = eps**2 / 2 - eps**3 / 3
    k = 4 * math.log(n) / share if share else math.inf
    if not k < math.inf:
        raise ValueError(f"jl_dim: eps must be so large that k is a number, got {eps}")
    return int(k) if compat else max(math.ceil(k), 1)
