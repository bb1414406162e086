"""Dense layers encoded, each by the scheme that is its own. The one rule: what is not the scheme that was asked for is said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tersor._assigned import Assigned
from tersor._layers import transposed
from tersor._routed import projections
from tersor.nn._found import CODED, tensors
from tersor.nn._product import kept_scheme
from tersor.nn.experts import QuantExperts
from tersor.nn.quant import QuantLinear
from tersor.quant import Encoded
from tersor.quant._encoded import Scheme, fitted


class Codings:
    """How the layers of a model are encoded.

    Parameters
    ----------
    scheme : str
        That of layers that no pattern of ``schemes`` names.
    schemes, activations, release, fallback
        As of `tersor.nn.convert`.

    Attributes
    ----------
    smaller : dict
        The schemes of layers whose groups were made smaller.
    """

    def __init__(
        self, scheme: str, schemes: Mapping[str, str] | None, activations: str, release: bool, fallback: bool
    ) -> None:
        if activations not in ("float", "int8"):
            raise ValueError(f"convert: activations must be 'float' or 'int8', got {activations!r}")
        self._usual = self._kept(scheme, activations)
        self._own = Assigned(schemes, "convert: schemes", lambda one: self._kept(one, activations))
        self._activations, self._fallback = activations, fallback
        self._options = {"release": release}
        self.smaller: dict[str, str] = {}

    def _kept(self, scheme: str, activations: str) -> Scheme:
        how = kept_scheme("convert", scheme)
        if how.places and activations == "int8":
            raise ValueError(f"convert: int8 activations go with integer weights, {scheme} are no integers")
        return how

    def _scheme(self, names: Sequence[str]) -> Scheme:
        """That of a weight, which may stand at several names."""
        return next(filter(None, map(self._own.find, names)), self._usual)

    def _fitted(self, name: str, how: Scheme, last: int) -> str:
        own = fitted(how, last).name if self._fallback else how.name
        if own != how.name:
            self.smaller[name] = own
        return own

    def encoded(self, names: Sequence[str], module: nn.Module, stack: bool) -> nn.Module:
        """A layer, or a module of experts (``stack``), encoded anew."""
        name = names[0]
        if stack:
            both = projections(module)
            hows = [self._scheme([f"{name}.{weight}" for name in names]) for weight in both]
            made = QuantExperts.from_float(
                module, [how.name for how in hows], self._activations, fallback=self._fallback, **self._options
            )
            for weight, how, some in zip(both, hows, (made.up, made.down), strict=True):
                if len(some) and some[0].scheme != how.name:
                    self.smaller[f"{name}.{weight}"] = some[0].scheme
            return made
        own = self._fitted(name, self._scheme([f"{name}.weight" for name in names]), _row(module))
        new: nn.Module = _coded(module).from_float(module, own, self._activations, **self._of(module))
        return new

    def of(self, codes: Any, module: nn.Module) -> nn.Module:
        """A layer with codes that are given, or a module of experts with those of both its weights."""
        if not isinstance(codes, Encoded):
            up, down = codes
            return QuantExperts.of(up, down, module, self._activations, **self._options)
        new: nn.Module = _coded(module).of(codes, module, self._activations, **self._of(module))
        return new

    def _of(self, module: nn.Module) -> dict[str, bool]:
        return {} if isinstance(module, nn.Conv2d) else self._options

    def check(self, made: Mapping[str, Sequence[str]], model: nn.Module, left: Mapping[str, str]) -> None:
        """Refuses a pattern that is that of no layer that was encoded, at any of its names."""
        every = [t for k, names in made.items() for name in names for t in tensors(name, model.get_submodule(k))]
        why = {t: reason for k, reason in left.items() for t in (f"{k}.weight", k)}
        self._own.check(every, why)


def _coded(module: nn.Module) -> Any:
    """The class of encoded layers that a dense one is exchanged for."""
    return next((new for old, new in CODED.items() if isinstance(module, old)), QuantLinear)


def _row(module: Any) -> int:
    """How many numbers a row of a layer's weight has: those of its inputs, or of a filter."""
    if getattr(module, "weight", None) is None:  # packed by another library
        return int(module.in_features)
    shape = module.weight.shape
    return int(shape[0]) if transposed(module) else math.prod(shape[1:])
