"""Where the parameters of a group live. The one rule: who was given as c is asked at every step, and stays what is asked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tersor import _dtensor, hyperbolic, lorentz
from tersor._arrays import dtype_name
from tersor._values import number, one_of
from tersor.hyperbolic._words import margin

#: the models of hyperbolic space, by the families that have their maps
MODELS: dict[str, Any] = {"ball": hyperbolic, "lorentz": lorentz}


class Place(NamedTuple):
    """A curvature as somebody gave it (a number, a tensor, a module that gives one), or None; and the model of its points."""

    c: Any
    model: str = "ball"
    margin: float | str = "tight"

    @property
    def space(self) -> Any:
        return MODELS[self.model]

    @property
    def parameters(self) -> list[Tensor]:
        """What c is made of, where it can be learned."""
        if isinstance(self.c, torch.nn.Module):
            return list(self.c.parameters())
        return [self.c] if isinstance(self.c, Tensor) else []

    def now(self) -> Any:
        """c as a number, or as a tensor without a graph."""
        c = self.c() if isinstance(self.c, torch.nn.Module) else self.c
        return _dtensor.number(c.detach()) if isinstance(c, Tensor) else c if c is None else float(c)

    def check(self, who: str, params: list[Tensor]) -> None:
        """Raises unless points of these parameters can live here."""
        one_of(f"{who}: model", self.model, MODELS)
        margin(who, "margin", self.margin)
        if self.model == "lorentz" and self.margin != "tight":
            raise ValueError(f"{who}: the hyperboloid has no edge for a margin, got {self.margin}")
        if self.c is None:
            return
        if isinstance(self.c, bool) or not isinstance(self.c, (int, float, np.number, Tensor, torch.nn.Module)):
            raise TypeError(f"{who}: c must be None, a number, a tensor or a Curvature, got {type(self.c).__name__}")
        if isinstance(self.c, int):
            number(who, "c", self.c)
        check_value(who, self.now())
        if any(p is q for p in params for q in self.parameters):
            raise ValueError(f"{who}: a curvature is no point: put it into a group without c")
        if any(p.ndim == 0 for p in params):
            raise ValueError(f"{who}: points are rows; a parameter has no axes")
        for p in params:
            _dtensor.local(who, "a parameter", p)
            fits(who, self.now(), p)


def of(group: dict[str, Any], p: Tensor) -> Place:
    """The place that a group gives its parameters, or else what the parameter says of itself."""
    c = group["c"]
    if c is None and getattr(p, "curvature", None) is not None:
        return Place(p.curvature, getattr(p, "model", "ball"), group["margin"])
    return Place(c, group["model"], group["margin"])


def check_silent(who: str, p: Tensor) -> None:
    """Refuses a parameter without a curvature that says that it lives on a manifold, as geoopt's do."""
    manifold = getattr(p, "manifold", None)
    if manifold is not None and not type(manifold).__name__.startswith("Euclidean"):
        raise TypeError(
            f"{who}: a parameter says that it lives on {type(manifold).__name__}; tell its group where: c= "
            "(that of a ball, 1/k of a Lorentz(k))"
        )


def check_value(who: str, c: Any) -> None:
    if not isinstance(c, (float, Tensor)):
        raise TypeError(f"{who}: c must give a tensor, got {type(c).__name__}")
    if isinstance(c, Tensor) and not c.is_floating_point():
        raise TypeError(f"{who}: c must be of a float type, got {dtype_name(c.dtype)}")
    whole: Any = c
    whole = whole.full_tensor() if _dtensor.distributed(c) else torch.as_tensor(c)
    if not bool((whole.isfinite() & (whole >= 0)).all()):
        raise ValueError(f"{who}: c must be finite and not negative, got {c}")


def fits(who: str, c: Any, p: Tensor) -> None:
    """Raises unless c is one number or one for each row of p."""
    if not isinstance(c, Tensor) or c.numel() == 1:
        return
    rows = (*p.shape[:-1], 1)
    try:
        fine = torch.broadcast_shapes(c.shape, rows) == rows
    except RuntimeError:
        fine = False
    if not fine:
        raise ValueError(
            f"{who}: c of shape {tuple(c.shape)} does not go with the rows of a parameter {tuple(p.shape)}"
        )
