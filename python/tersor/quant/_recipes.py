"""How codes are asked for that are calibrated. The one rule: a name says the codes, then how they are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tersor._assigned import Assigned
from tersor.quant._encoded import Scheme
from tersor.quant._encoded import scheme as find_scheme

#: how codes are found: with each other's errors made up for; to the nearest, with inputs scaled; up or down, as is learned
SOLVERS = ("gptq", "awq", "adaround")
#: the widths that ``bits="auto"`` chooses from
WIDTHS = (2, 3, 4, 5, 6, 8)


class Recipe(NamedTuple):
    """The codes of a layer, and how they are found ("": rounded to the nearest)."""

    how: Scheme
    solver: str


def recipe(name: str, who: str, widths: Sequence[int] = (), nearest: bool = False) -> Recipe:
    """``int4-g128-gptq``: the scheme of the codes, after which comes how they are found, unless they may be the ``nearest``.
    With ``widths`` to choose from its code has none: ``int-g128-gptq`` is told as that of the widest."""
    codes, _, solver = name.rpartition("-") if isinstance(name, str) else (name, "", "")
    if solver not in SOLVERS and nearest:
        codes, solver = name, ""
    elif solver not in SOLVERS:
        raise ValueError(
            f"{who}: scheme {name!r} says no way to calibrate: <code>-row or <code>-g<G>, then -gptq, -awq or -adaround"
        )
    code, _, grain = codes.partition("-")
    if code in ("int", "uint"):
        if not widths:
            raise ValueError(f"{who}: scheme {name!r} has no width: name one (int4-g128-gptq), or give bits and budget")
        codes = f"{code}{max(widths)}-{grain}"
        if solver != "gptq":
            raise ValueError(f"{who}: scheme {name!r}: widths are chosen with -gptq")
    elif widths:
        raise ValueError(
            f"{who}: scheme {name!r} has its width, bits={list(widths)} are others: int-g128-gptq has none"
        )
    how = find_scheme(codes, who)
    if how.own:
        raise ValueError(f"{who}: scheme {name!r}: codes are calibrated that are integers, with scales of their own")
    if how.group is None:
        raise ValueError(f"{who}: scheme {name!r}: a scale per row (-row) or per group (-g<G>), not one for all")
    return Recipe(how, solver)


class Recipes:
    """The recipe of each layer: that of most, or that of the first pattern that names it.

    Raises
    ------
    TypeError
        If schemes is no mapping of strings to strings.
    ValueError
        If a scheme is unknown, two are calibrated in two ways, or none is, or there are ``widths`` to choose beside schemes.
    """

    def __init__(self, scheme: str, schemes: Mapping[str, str] | None, who: str, widths: Sequence[int]) -> None:
        self._own = Assigned(schemes, f"{who}: schemes", lambda one: recipe(one, who, nearest=True))
        if self._own and widths:
            raise ValueError(
                f"{who}: layers have schemes of their own where widths are not chosen, got bits={list(widths)}"
            )
        others = [own.solver for own in self._own.of.values()]
        self._usual = recipe(scheme, who, widths, nearest=any(others))
        solvers = sorted({self._usual.solver, *others} - {""})
        if len(solvers) > 1:
            raise ValueError(f"{who}: all that is calibrated is so in one way, not {' and '.join(solvers)}")
        #: the codes of most layers, without a width where it is to be chosen
        self.codes = scheme.rpartition("-")[0] if self._usual.solver else scheme
        #: that of all layers that are not rounded to the nearest
        self.solver = solvers[0]

    def of(self, layer: str) -> Recipe:
        return self.of_tensor(f"{layer}.weight")

    def of_tensor(self, name: str) -> Recipe:
        return self._own.find(name) or self._usual

    def others(self, tensors: Mapping[str, str]) -> dict[str, str]:
        """The codes of those that have a scheme of their own, of layers or experts and their tensors."""
        own = {k: self._own.find(tensor) for k, tensor in tensors.items()}
        return {k: found.how.name for k, found in own.items() if found}

    def check(self, layers: Sequence[str], experts: Sequence[str], left: Mapping[str, str]) -> None:
        """Refuses a pattern that is that of none of the layers, nor of tensors of experts."""
        self._own.check(
            [f"{k}.weight" for k in layers] + [*experts], {f"{k}.weight": why for k, why in left.items()} | dict(left)
        )


def widths_of(bits: str | Sequence[int] | None, budget: float | None, who: str) -> tuple[int, ...]:
    """The widths to choose from, none where there is nothing to choose."""
    if (bits is None) != (budget is None):
        raise ValueError(f"{who}: bits and budget go together, got bits={bits!r} and budget={budget!r}")
    if bits is None:
        return ()
    if isinstance(bits, str) and bits != "auto":
        raise ValueError(f'{who}: bits must be "auto" or some widths, got {bits!r}')
    found = WIDTHS if isinstance(bits, str) else tuple(bits)
    if not found or not all(isinstance(b, int) and 2 <= b <= 8 for b in found):
        raise ValueError(f'{who}: bits must be "auto" or widths of 2 to 8, got {bits!r}')
    return tuple(sorted(set(found)))
