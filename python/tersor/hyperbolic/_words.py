"""The words that a number of the ball may be given as. The one rule: a word stands for a number that the kernels know."""

from __future__ import annotations

from typing import Any

from tersor._values import number, one_of

#: how far inside the ball results stay: to the last number, or by the margin of geoopt and HypLL
EPS = {"eps": {"tight": 0.0, "compat": -1.0}}


def margin(who: str, name: str, value: Any) -> float | str:
    """How far inside results are to stay, for who keeps it: a part of the radius, or a word for one."""
    if isinstance(value, str):
        return str(one_of(f"{who}: {name}", value, tuple(EPS["eps"])))
    if not 0 <= number(who, name, value) < 1:
        raise ValueError(f"{who}: {name} must be in [0, 1), got {value}")
    given: float = value
    return given
