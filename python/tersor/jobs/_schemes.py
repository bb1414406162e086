"""The schemes that a quantization of files is asked for. The one rule: what does not go together is refused before a file is
opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tersor._assigned import Assigned
from tersor.checkpoint._format import Misuse
from tersor.jobs.compressed import Scheme


@dataclass(frozen=True)
class Schemes:
    """The scheme of most weights, those that patterns give to others, and how the codes of all that are calibrated are found
    ("": none is)."""

    scheme: Scheme
    own: Assigned[Scheme]
    solver: str

    @classmethod
    def of(
        cls, scheme: Scheme, schemes: Mapping[str, str] | None, method: str | None = None, who: str = "schemes"
    ) -> Schemes:
        """Schemes by patterns beside the one of all others; ``method`` is that of every one of them, if it is given.

        Raises
        ------
        Misuse
            If one of them is unknown or has no width, if widths are chosen of the others, if two are calibrated in two ways,
            or if there are zero points where others are calibrated.
        TypeError
            If schemes is no mapping of strings to strings.
        """

        def read(name: str) -> Scheme:
            try:
                found = Scheme.parse(name)
            except ValueError as error:
                raise Misuse(f"{who}: {error}") from None
            if not found.bits:
                raise Misuse(f"{who}: scheme {name!r} has no width")
            return found if method is None else replace(found, method=method)

        scheme = scheme if method is None else replace(scheme, method=method)
        own = Assigned(schemes, who, read)
        every = [scheme, *own.of.values()]
        if own and not scheme.bits:
            raise Misuse(f"{who}: weights have schemes of their own where widths are not chosen, and {scheme} has none")
        solvers = sorted({s.solver for s in every} - {""})
        if len(solvers) > 1:
            raise Misuse(f"{who}: all that is calibrated is so in one way, not {' and '.join(solvers)}")
        if solvers and (affine := next((s for s in every if s.affine), None)):
            raise Misuse(f"{who}: zero points ({affine}) do not go with calibrated codes beside them (-{solvers[0]})")
        return cls(scheme, own, "".join(solvers))

    def check(
        self,
        *,
        bits: Any,
        budget: float | None,
        rotate: bool,
        smooth: float | None,
        texts: bool,
        resume: bool,
        dst: Any,
    ) -> None:
        """Refuses what does not go with these schemes (Misuse); ``texts`` says whether there are some to calibrate with."""
        name = self.name
        if (bits is None) != (budget is None) or (bits is None) != bool(self.scheme.bits):
            raise Misuse(
                f"scheme {name}: a scheme without a width (int-g128-gptq) goes with bits and budget, one with a width without; "
                f"got bits={bits!r} and budget={budget!r}"
            )
        if rotate and not self.solver:
            raise Misuse(f"scheme {name}: rotate goes with calibration, which this scheme has none of")
        if smooth is not None and (self.solver in ("", "awq") or not self.scheme.bits):
            raise Misuse(f"scheme {name}: smooth goes with a width that is calibrated by -gptq or -adaround")
        if bool(self.solver) != texts:
            raise Misuse(f"scheme {name}: " + ("needs texts for calibration" if self.solver else "is not calibrated"))
        if resume and (self.solver or dst is None):
            what = f"scheme {name}: calibration begins anew, which" if self.solver else "a run without a destination"
            raise Misuse(f"{what} cannot be resumed")

    @property
    def name(self) -> str:
        """As messages call it: that of most weights, or the first one that is calibrated."""
        first = next((s for s in (self.scheme, *self.own.of.values()) if s.solver), self.scheme)
        return str(first)
