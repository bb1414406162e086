"""The library of torch that operators stand in, and functions of Python beside them that a graph calls without looking in. The
one rule: there is one, so that all that a graph names is found by one name, and enters in one way.

An operator has a kernel and is registered from its declaration (`_torch`). A function has none: it does what depends on values,
which a graph does not see, with operators and torch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "tersor"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def opaque(
    schema: str,
    shapes: Callable[..., Any],
    back: Callable[..., Any] | None = None,
    keep: Callable[..., None] | None = None,
    **bodies: Callable[..., Any],
) -> Callable[..., Any]:
    """The function of this schema as graphs call it.

    Parameters
    ----------
    schema : str
        As torch has it, ``name(Tensor x) -> Tensor``.
    shapes : callable
        Gives empty tensors for stand-ins of the arguments.
    back, keep : callables or None
        The gradients, and what is kept for them: both as of ``torch.library.register_autograd``.
    bodies : callables by the name of a dispatch key
        What is done; no result shares memory with an argument.
    """
    LIBRARY.define(schema)
    name = schema.partition("(")[0]
    for key, body in bodies.items():
        LIBRARY.impl(name, body, key)
    torch.library.register_fake(f"{NAMESPACE}::{name}", shapes, lib=LIBRARY)
    if back is not None:
        torch.library.register_autograd(f"{NAMESPACE}::{name}", back, setup_context=keep, lib=LIBRARY)
    made: Callable[..., Any] = getattr(torch.ops.tersor, name).default
    return made
