"""What several commands take. The one rule: an option has one meaning in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

SOURCE = click.argument("source", metavar="IN", type=click.Path(exists=True, path_type=Path))
_OUTPUT: dict[str, Any] = {
    "metavar": "OUT",
    "type": click.Path(path_type=str),
    "help": "A file for a file (or a folder to write it into), a folder for a folder, replaced as a whole.",
}
OUTPUT = click.option("-o", "--output", required=True, **_OUTPUT)
MAYBE = click.option("-o", "--output", **_OUTPUT)
PATTERN = "that a shell pattern names, by the tensor's name or its module's (layers.0.*, lm_head); repeatable."
INCLUDE = click.option("--include", metavar="PATTERN", multiple=True, help=f"Only what is asked for: tensors {PATTERN}")
EXCLUDE = click.option("--exclude", metavar="PATTERN", multiple=True, help=f"Leave out tensors {PATTERN}")
EMBEDDINGS = click.option(
    "--embeddings", is_flag=True, help="Tables of embeddings too, which are otherwise left as they are."
)
RESUME = click.option("--resume", is_flag=True, help="Go on from where an interrupted run into the same folder got to.")


def one_of_output(output: str | None, dry_run: bool) -> None:
    """Refuses a run that writes nowhere, and a dry one that would write."""
    if (output is None) != dry_run:
        raise click.UsageError("-o is needed" if output is None else "-o or --dry-run")
