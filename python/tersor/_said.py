"""Docstrings whose repeated lines stand in one table per family (`_SAID` of its module). The one rule: a line that is nothing
but a name in braces is what the table says, at that line's indentation; a name that the table lacks is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: entries of functions of rows, in whatever family
AXIS = {
    "dim": "dim : int\n    The axis of the rows.",
    "keepdim": "keepdim : bool\n    Whether the result keeps that axis, with size 1.",
}

_NAMED = re.compile(r"^( *)\{(\w+)\}$", re.MULTILINE)


def fill(f: Any, said: Mapping[str, str]) -> None:
    """Writes the lines that the docstring of a function or class names."""
    if f.__doc__:  # none under ``-OO``
        f.__doc__ = _NAMED.sub(lambda m: "\n".join(m[1] + line for line in said[m[2]].splitlines()), f.__doc__)
