"""Functions that one definition makes many of. The one rule: each has a name and a code of its own, as if it stood by itself.

torch.compile counts what it has compiled by the code: of eight functions of one code the ninth is refused, or run as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def named(f: Callable[..., Any]) -> Callable[[F], F]:
    """As ``functools.wraps``, with a code that bears the name too; profiles and tracebacks show it."""

    def wrap(call: F) -> F:
        if isinstance(call, FunctionType):
            call.__code__ = call.__code__.replace(co_name=f.__name__, co_qualname=f.__qualname__)
        functools.update_wrapper(call, f)
        return call

    return wrap
