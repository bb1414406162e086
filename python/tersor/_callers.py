"""Who asked for an operator that stands in a compiled graph. The one rule: what it refuses there is of the same type as without
a graph, and bears the name of the public function that was traced.

A graph calls operators, not functions, and torch's C ABI knows but one error. Whoever traces an operator is noted; where
several functions were traced that have it, all are named.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch._guards import TracingContext

from tersor import _core
from tersor._op import Op
from tersor._values import KNOWN, SPEAKER

#: the files whose frames bear the names of public functions
_DOORS = tuple(str(Path(__file__).with_name(f"{name}.py")) for name in ("_op", "_public"))
_HERE = f"{Path(__file__).parent}/"
#: the functions in whose traces an operator stood, by its key
ASKED: dict[str, set[str]] = {}


@torch._dynamo.assume_constant_result
def noted(key: str) -> bool:
    """Runs where a call is traced: keeps the name of the outermost public function that reads along."""
    if TracingContext.try_get() is not None:
        for frame in TracingContext.extract_stack():
            if frame.filename in _DOORS and frame.name in KNOWN:
                ASKED.setdefault(key, set()).add(frame.name)
                break
    return True


def _within_graph() -> bool:
    """Whether who calls is the code of a graph: it stands nearer than any of ours."""
    frame = sys._getframe(2)  # past who asks, which is called by torch's registry
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_HERE):
            return False
        if "<eval_with_key>" in name or "_inductor" in name:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return True


def _of_wrong_type(op: Op, args: tuple[Any, ...]) -> TypeError | None:
    """What a plain call says of its arrays: of what is one operator, a trace does not ask the types."""
    try:
        if op.door is not None:
            op.door.types(args)
    except TypeError as e:
        return e
    return None


def spoken(op: Op, call: Callable[..., Any]) -> Callable[..., Any]:
    """The operator as graphs call it."""

    @functools.wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except (TypeError, ValueError, MemoryError, RuntimeError) as e:
            meant = (_core.translate(str(e)) if "[tersor:" in str(e) else None) or e
            own, text = f"{op.name}: ", str(meant)
            # a function at work tells its name itself
            names = sorted(ASKED.get(op.key, ())) if not SPEAKER.name and _within_graph() else ()
            if names and (typed := _of_wrong_type(op, args)):
                meant, text = typed, str(typed)
            if names and text.startswith(own):
                raise type(meant)(f"{' or '.join(names)}: {text.removeprefix(own)}") from None
            if meant is e:
                raise
            raise meant from None

    return run
