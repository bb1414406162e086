"""What ``tersor quantize`` says of what it did. The one rule: the size first, then what is as it was, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tersor.cli._console import console, several, shown, size, table
from tersor.cli._said import budgets, chosen, decoded, dense, left, rounded, scarce, smaller, turned, unscaled

if TYPE_CHECKING:
    from rich.table import Table

    from tersor.convert import Summary
    from tersor.jobs.compressed import Scheme


def told(made: Summary, how: Scheme, source: Path, dry_run: bool) -> None:
    """Prints what was done, or would be."""
    out = console()
    if dry_run:
        out.print(_report(made))
    would, others = " would be" if dry_run else "", " and others" if made.choice.own else ""
    out.print(
        f"{size(made.before)} -> {size(made.after)}, {several(len(made.choice.quantized), 'weight')}{would} in "
        f"{how}{others}, chosen by {chosen(made.choice.rule, source)}",
        markup=False,
    )
    if made.choice.own:
        kinds = [made.choice.scheme(n, how).codes for n in made.choice.quantized]
        out.print(
            f"{made.bits:.2f} bits a weight: "
            + ", ".join(f"{several(kinds.count(k), 'weight')} in {k}" for k in dict.fromkeys(kinds)),
            markup=False,
        )
    if made.widths:
        some = [
            f"{several(list(made.widths.values()).count(b), 'weight')} of {b}"
            for b in sorted(set(made.widths.values()))
        ]
        out.print(f"{made.bits:.2f} bits a weight: {', '.join(some)}", markup=False)
        budgets(made.curve, made.chosen)
    if made.unread:
        why = f"not every reader takes it by itself ({made.unread}); tersor.convert.load does"
        out.print(shown(why), markup=False)
    smaller(made.choice.smaller)
    dense(made.choice.dense)
    rounded(made.rounded)
    scarce(made.scarce)
    unscaled(made.unscaled)
    turned(made.rotated, made.unrotated)
    decoded(made.decoded)
    left(made.left, made.untouched)


def _report(made: Summary) -> Table:
    """What would become of each tensor; those of one axis in one line, so that bytes add up."""
    rows = [
        (name, "×".join(map(str, one.shape)), one.scheme or one.why, str(one.before), str(one.after))
        for name, one in made.layers.items()
    ]
    before, after = (
        total - sum(some)
        for total, some in (
            (made.before, [one.before for one in made.layers.values()]),
            (made.after, [one.after for one in made.layers.values()]),
        )
    )
    if before:
        rows.append(("all others", "", "as they are", str(before), str(after)))
    return table(("tensor", "shape", "scheme, or why it is left"), ("bytes", "after"), rows)
