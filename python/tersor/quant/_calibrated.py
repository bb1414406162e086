"""What a calibration gives back. The one rule: the codes of each layer, and by name why the others have none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tersor._arrays import dtype_name
from tersor._layers import in_short
from tersor.quant._encoded import Encoded, fitted
from tersor.quant._encoded import scheme as find_scheme
from tersor.quant.gptq import GPTQ
from tersor.quant.packing import pack


class Calibrated(NamedTuple):
    """What `calibrate` did.

    Attributes
    ----------
    layers : the codes of each layer, by name; of experts in one tensor those of all, [experts, out, in], by the tensor's name
    left : why the others were left as they are, by name
    scheme : of the codes, as `encode` names it; without a width ("int-g128") where it was chosen; `encoded` has that of each
        layer, whose groups may be smaller
    widths : the bits of each layer's codes, where they were chosen
    folded : of each layer with scaled inputs ("-awq", smooth) the name of the module that divides them, whose parameters have
        changed
    unscaled : why the other layers have none
    rotated : of each layer whose weight was turned, what it shares the turn with: "stream", "heads of 64"
    unrotated : why the other layers' were not
    touched : the parameters that have changed besides the weights of ``layers``, by name
    curve : where widths were to be chosen, the bits a weight and the loss that budgets of any size come to (`bit_pareto`)
    chosen : the bits a weight and the loss of the choice that was made
    schemes : of the codes of layers that were given one of their own
    rounded : of tensors of experts the numbers of those that were rounded to the nearest, being given too few rows
    scarce : of other layers with "-gptq" that were given fewer rows than they have inputs, both numbers: of some directions
        these say nothing, and on unlike rows the codes may lose more than numbers rounded to the nearest do
    """

    layers: dict[str, GPTQ]
    left: dict[str, str]
    scheme: str
    widths: Mapping[str, int] = {}
    folded: Mapping[str, str] = {}
    unscaled: Mapping[str, str] = {}
    rotated: Mapping[str, str] = {}
    unrotated: Mapping[str, str] = {}
    touched: tuple[str, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    chosen: tuple[float, float] | None = None
    schemes: Mapping[str, str] = {}
    rounded: Mapping[str, tuple[int, ...]] = {}
    scarce: Mapping[str, tuple[int, int]] = {}

    def __repr__(self) -> str:
        return in_short(f"{len(self.layers)} layers in {self.scheme}", self.left)

    def encoded(self, name: str) -> Encoded:
        """The weight of a layer as `decode` and `tersor.nn.QuantLinear` take it."""
        scheme, found = self.schemes.get(name, self.scheme), self.layers[name]
        if self.widths:
            scheme = scheme.replace("int", f"int{self.widths[name]}")
        how = fitted(find_scheme(scheme), found.codes.shape[-1])
        data = found.codes if how.raw else pack(found.codes, how.bits)
        zero = None if found.zero_point is None else found.zero_point.to(found.codes.dtype)
        kind = dtype_name(found.scale.dtype)
        return Encoded(data, found.scale, zero, how.name, tuple(found.codes.shape), kind)
