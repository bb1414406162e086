"""What several commands say of what they did. The one rule: a line, and at most three names of many."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from tersor.cli._console import console, shown


def chosen(rule: str, source: Path) -> str:
    """What decided about the tensors, and what would decide better if it were there."""
    if rule == "names" and source.is_dir() and importlib.util.find_spec("transformers") is None:
        return "names (pip install 'tersor[models]' asks the model's own modules)"
    return rule


def dense(reasons: Mapping[str, str]) -> None:
    """Says which tensors were left as they are, and why."""
    _by_reason("left as it is", reasons)


def smaller(groups: Mapping[str, int | None]) -> None:
    """Says which weights have other groups than the scheme, whose do not divide them."""
    _by_reason("does not divide", {name: f"in groups of {n}" if n else "a scale a row" for name, n in groups.items()})


def rounded(reasons: Mapping[str, str]) -> None:
    """Says which tensors calibration had nothing to say of, and why."""
    _by_reason("rounded to the nearest", reasons)


def scarce(sizes: Mapping[str, tuple[int, int]]) -> None:
    """Says which weights were given fewer rows than they have inputs: more texts would do better."""
    reasons = {name: f"{rows} for {inputs} inputs" for name, (rows, inputs) in sizes.items()}
    _by_reason("few rows of calibration", reasons)


def unscaled(reasons: Mapping[str, str]) -> None:
    """Says which layers have inputs that are not scaled, and why."""
    _by_reason("inputs not scaled", reasons)


def budgets(curve: Sequence[tuple[float, float]], chosen: tuple[float, float] | None) -> None:
    """Says what other budgets would lose, in shares of what this one does, at some of them from the least to the most."""
    if chosen is None or len(curve) < 2 or chosen[1] <= 0:
        return
    least, most = curve[0][0], curve[-1][0]
    some = [max(p for p in curve if p[0] <= least + (most - least) * i / 8 * (1 + 1e-12)) for i in range(9)]
    said = ", ".join(f"{bits:.2f}: {loss / chosen[1]:.3g}" for bits, loss in dict.fromkeys(some))
    console().print(f"loss by bits a weight, that of {chosen[0]:.2f} being 1: {said}", markup=False)


def turned(rotated: Mapping[str, str], reasons: Mapping[str, str]) -> None:
    """Says which weights were turned before they were quantized, and why others were not."""
    _by_reason("turned", rotated)
    _by_reason("not turned", reasons)


def decoded(names: Sequence[str]) -> None:
    """Says which weights were decoded on the way in."""
    if names:
        _by_reason("decoded", dict.fromkeys(names, "8-bit floats with scales"))


def _by_reason(what: str, reasons: Mapping[str, str]) -> None:
    for why in sorted(set(reasons.values())):
        names = [shown(name) for name, reason in reasons.items() if reason == why]
        more = ", …" if len(names) > 3 else ""
        console().print(f"{what}, {why}: {len(names)} ({', '.join(names[:3])}{more})", markup=False)


def left(names: tuple[str, ...], untouched: tuple[str, ...]) -> None:
    """Says what a folder's result was not given, and what of it is as it was."""
    from tersor.checkpoint._beside import in_few

    for what, some in (
        ("left as they are: {} (weights in folders of their own; each such folder can be IN)", untouched),
        ("left behind (the same weights in other formats, and what is no part of a model): {}", names),
    ):
        if some:
            console().print(shown(what.format(in_few(list(some)))), markup=False)
