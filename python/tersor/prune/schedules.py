"""How a sparsity grows over steps. The one rule: a schedule is a function of the step, the first value before it begins and the
last one, exactly, from where it ends.
"""

from __future__ import annotations

import math


def _part(who: str, step: float, begin: float, end: float, initial: float, final: float) -> float:
    """How much of the way is gone, between 0 and 1."""
    for name, value in (("initial", initial), ("final", final)):
        if not 0 <= value <= 1:
            raise ValueError(f"{who}: {name} must be between 0 and 1, got {value}")
    for name, value in (("step", step), ("begin", begin), ("end", end)):
        if not math.isfinite(value):
            raise ValueError(f"{who}: {name} must be finite, got {value}")
    if begin > end:
        raise ValueError(f"{who}: begin must not be after end, got {begin} and {end}")
    if step >= end:
        return 1.0
    return 0.0 if step <= begin else (step - begin) / (end - begin)


def _between(part: float, rest: float, initial: float, final: float) -> float:
    """`final`, and what is left of the way from there to `initial`; the ends are exact."""
    if part in (0.0, 1.0):
        return float(initial if part == 0.0 else final)
    return min(max(final + (initial - final) * rest, min(initial, final)), max(initial, final))


def cubic_schedule(step: float, begin: float, end: float, initial: float, final: float) -> float:
    r"""Many weights early and few late, :math:`s_t = s_f + (s_i - s_f)\left(1 - \frac{t - t_0}{t_1 - t_0}\right)^3`.

    Parameters
    ----------
    step : number
        t.
    begin, end : number
        :math:`t_0` and :math:`t_1`: before and after them the sparsity is `initial` and `final`.
    initial, final : float between 0 and 1
        :math:`s_i` and :math:`s_f`.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If an argument is not a number.
    ValueError
        If a sparsity is not between 0 and 1, a step not finite, or begin after end.

    See Also
    --------
    linear_schedule, cosine_schedule, tersor.nn.GradualPruner

    Notes
    -----
    Zhu, Gupta, "To prune, or not to prune" (2017).
    """
    part = _part("cubic_schedule", step, begin, end, initial, final)
    return _between(part, (1 - part) ** 3, initial, final)


def linear_schedule(step: float, begin: float, end: float, initial: float, final: float) -> float:
    r"""As many weights at every step, :math:`s_t = s_f + (s_i - s_f)\left(1 - \frac{t - t_0}{t_1 - t_0}\right)`.

    Parameters
    ----------
    step, begin, end, initial, final
        As in `cubic_schedule`.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        As `cubic_schedule`.
    """
    part = _part("linear_schedule", step, begin, end, initial, final)
    return _between(part, 1 - part, initial, final)


def cosine_schedule(step: float, begin: float, end: float, initial: float, final: float) -> float:
    r"""Slow at both ends, :math:`s_t = s_f + (s_i - s_f)\,\frac12\left(1 + \cos \pi \frac{t - t_0}{t_1 - t_0}\right)`.

    Parameters
    ----------
    step, begin, end, initial, final
        As in `cubic_schedule`.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        As `cubic_schedule`.
    """
    part = _part("cosine_schedule", step, begin, end, initial, final)
    return _between(part, (1 + math.cos(math.pi * part)) / 2, initial, final)
