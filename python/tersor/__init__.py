"""tersor: fast, exact kernels for the operations that make neural representations small."""

import importlib as _importlib
import os as _os
import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from tersor import _core
from tersor._core import __version__, get_num_threads
from tersor._op import OPS, FormatError, InternalError

if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(after_in_child=_core.after_fork)

from tersor import (
    _public,
    embed,
    foreach,
    graph,
    hyperbolic,
    lorentz,
    loss,
    metrics,
    norm,
    project,
    prune,
    quant,
    random,
    reduce,
    sparse,
)

for _family in _public.families():
    _public.open_doors(globals()[_family])
_public.offer("kmeans_1d", quant, metrics)
for _name in ("apply_tokens", "sub_dimensions", "topk_ffn"):
    _public.offer(_name, prune, sparse)

if "torch" in _sys.modules:  # what is traced first is not traced again after a plain call
    from tersor import _torch

    for _op in OPS.values():
        _torch.entry(_op)

if _TYPE_CHECKING:
    from tersor import nn as nn
    from tersor import optim as optim

__all__ = [
    "FormatError",
    "InternalError",
    "__version__",
    "embed",
    "foreach",
    "get_num_threads",
    "graph",
    "hyperbolic",
    "lorentz",
    "loss",
    "metrics",
    "norm",
    "project",
    "prune",
    "quant",
    "random",
    "reduce",
    "set_num_threads",
    "sparse",
]


def set_num_threads(n: int | None) -> None:
    """Sets how many threads kernels use on NumPy arrays; None gives back what the environment or the cores say.

    Raises
    ------
    TypeError
        If n is not an integer.
    ValueError
        If n is not positive.
    """
    if n is None:
        _core.set_num_threads(0)
        return
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"set_num_threads: n must be an integer or None, got {n!r}")
    if not 1 <= n.__index__() <= 65536:
        raise ValueError(f"set_num_threads: n must be between 1 and 65536, got {n}")
    _core.set_num_threads(n.__index__())


def __getattr__(name: str) -> _Any:
    """What needs torch, imported at first use."""
    if name not in ("nn", "optim"):
        raise AttributeError(f"module 'tersor' has no attribute {name!r}")
    try:
        return _importlib.import_module(f"tersor.{name}")
    except ModuleNotFoundError as e:
        if e.name != "torch":
            raise
        raise ImportError(f"tersor.{name} needs torch, which is not installed: pip install tersor[torch]") from e


def __dir__() -> list[str]:
    return sorted({*globals(), "nn", "optim"})
