"""tersor: fast, exact kernels for the operations that make neural representations small."""

import os as _os

from tersor import _core
from tersor._core import __version__, get_num_threads, set_num_threads
from tersor._op import FormatError, InternalError

if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(after_in_child=_core.after_fork)

from tersor import hyperbolic, lorentz, project, prune, quant, random, sparse

__all__ = [
    "FormatError",
    "InternalError",
    "__version__",
    "get_num_threads",
    "hyperbolic",
    "lorentz",
    "project",
    "prune",
    "quant",
    "random",
    "set_num_threads",
    "sparse",
]
