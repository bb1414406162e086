"""Arrays as the kernels take them and give them. The one rule: nothing is converted silently, and nothing written before
everything is known to fit.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tersor import _core

#: what a parameter of a public function is: floats, or one of these (`tersor._door` reads the annotations)
Array = Any
Arrays = Sequence[Any]
Number = Any
Weight = Any
Level = Any
Codes = Any
Values = Any
Integers = Any
Mask = Any
Kept = Any
#: floats, those of 8 bits among them, which are put in order and not computed with
Ranked = Any
Bits = Any
Labels = Any
Words = Any

#: an output that records gradients, or one of inputs that do
OUT_GRAPH = "out= does not support automatic differentiation; use torch.no_grad()"

FLOATS = ("float64", "float32", "float16", "bfloat16")
#: floats of 8 bits, of torch and of ml_dtypes, whose numbers are all float16's too
BYTES = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")


def axes(x: Any) -> int:
    """The number of axes of an array; numbers have none, and what traces has to be told so."""
    return 0 if isinstance(x, (int, float)) else getattr(x, "ndim", 0)


def move(x: Any, n: int, source: int, target: int) -> Any:
    """`x`, of `n` axes or fewer, with an axis moved; numbers stay."""
    if axes(x) == 0:
        return x
    if x.ndim < n:
        x = x.reshape((1,) * (n - x.ndim) + tuple(x.shape))
    if isinstance(x, np.ndarray):
        return np.moveaxis(x, source, target)
    return x.movedim(source, target)


def dtype_name(dtype: Any) -> str:
    """The name that NumPy and torch share for a dtype."""
    return dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]


def is_tensor(x: Any) -> bool:
    """Whether x is a torch tensor, without importing torch: who has one has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def in_trace() -> bool:
    """Whether torch.compile reads along, which knows no state of threads."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def sizes(shape: Sequence[int | None]) -> tuple[int | None, ...]:
    """A shape for an error: numbers, also where a trace has symbols for them, which make no text."""
    return tuple([None if n is None else len(range(n)) for n in shape])


def an_axis(said: str, axis: int, ndim: int) -> int:
    """An axis of so many, counted from the first, or an AxisError; what a trace reads knows of no such error."""
    if not -ndim <= axis < ndim:
        if in_trace():
            raise ValueError(f"{said}: axis {axis} is out of bounds for array of dimension {ndim}")
        raise np.exceptions.AxisError(axis, ndim, said)
    return axis % ndim


def is_distributed(x: Any) -> bool:
    """Whether x is a DTensor of torch: by its name, which is there without its module and is seen by what traces."""
    return type(x).__name__ == "DTensor"


def ordinary(who: str, name: str, x: Any) -> None:
    """Refuses arrays that say more than their numbers, which would be lost: masked ones, matrices, sparse tensors."""
    if isinstance(x, np.ndarray):
        if type(x) is not np.ndarray and isinstance(x, (np.ma.MaskedArray, np.matrix)):
            it = f"{who}{name}".rpartition(": ")[2]
            kind, way = ("masked one", ".filled(value)") if isinstance(x, np.ma.MaskedArray) else ("matrix", ".A")
            raise TypeError(
                f"{who}{name} must be a plain array, got a {kind} ({type(x).__name__}); {it}{way} makes one"
            )
    elif is_tensor(x):
        if x.is_nested:
            raise TypeError(f"{who}{name} must be a dense tensor, got a nested tensor; unbind() gives its parts")
        if x.is_quantized:
            raise TypeError(f"{who}{name} must be a plain tensor, got a quantized one; dequantize() makes one")
        if (layout := str(x.layout).removeprefix("torch.")) != "strided":
            raise TypeError(f"{who}{name} must be a dense tensor, got one of layout {layout}; to_dense() makes one")


def detached(who: str, x: Any) -> Any:
    """`x` without its gradient, if it is an array at all."""
    ordinary(who, ": x", x)
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "detach"):
        return x.detach()
    raise TypeError(f"{who}: x must be a NumPy array or a torch tensor, got {type(x).__name__}")


def torch_module() -> Any:
    import torch

    return torch


def numpy_type(name: Any) -> Any:
    """What NumPy calls a type; bfloat16 is ml_dtypes', which is loaded for it alone."""
    if isinstance(name, str) and name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return name


def cast(xp: Any, v: Any, kind: str) -> Any:
    """`v` in a type of its library, which is said."""
    return v.astype(numpy_type(kind)) if xp is np else v.to(getattr(xp, kind))


def as_type(v: Any, kind: str) -> Any:
    """`v` in a type of whichever library it is of."""
    return cast(torch_module() if is_tensor(v) else np, v, kind)


def ones_of(n: int, kind: str, like: Any = None) -> Any:
    """Ones of a type, where and in what library another array is; without one NumPy's."""
    if is_tensor(like):
        torch = torch_module()
        return torch.ones(n, dtype=getattr(torch, kind), device=like.device)
    return np.ones(n, numpy_type(kind))


def check_order(who: str, name: str, x: Any) -> None:
    """Refuses arrays in foreign byte order."""
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        raise TypeError(f"{who}: {name} has byte order {x.dtype.byteorder!r}; convert it to native first")


def is_number(value: Any) -> bool:
    """Whether this is a number, of whatever library, also one of no axes; a class has ``__float__`` too."""
    return isinstance(value, (int, float)) or (
        hasattr(value, "__float__") and not isinstance(value, type) and not axes(value)
    )


def integer(value: Any) -> bool:
    """Whether this is an integer, of whatever library; a class has ``__index__`` too, and so has every array."""
    if type(value) is int:
        return True
    if isinstance(value, (bool, np.bool_, type)) or not hasattr(value, "__index__"):
        return False
    return not hasattr(value, "ndim") or (value.ndim == 0 and "int" in dtype_name(value.dtype))


def whole(name: str, value: Any) -> int:
    """An argument that must be an integer, as Python's."""
    if not integer(value):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    return operator.index(value)


def flag(name: str, value: Any) -> bool:
    """An argument that must be True or False."""
    if not isinstance(value, (int, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    return bool(value)


def native(op: str, name: str, x: np.ndarray) -> np.ndarray:
    """`x` as the kernels read it: native byte order (else an error), C-contiguous and aligned (else a copy)."""
    check_order(op, name, x)
    if x.dtype == np.uint16:  # these words mean bfloat16 to the kernels
        raise TypeError(f"{op}: {name} is uint16; no operator takes it")
    flags = x.flags
    if not (flags.c_contiguous and flags.aligned):
        x = np.array(x, order="C")
    return as_words(x)


def as_words(x: np.ndarray) -> np.ndarray:
    # NumPy has no bfloat16 of its own: ml_dtypes' arrays cross the border as 16-bit words
    return x.view(np.uint16) if x.dtype.kind == "V" and x.dtype.name == "bfloat16" else x


def empty(who: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    dtype = numpy_type(dtype)
    fits(f"{who}: a result of shape {tuple(shape)}", math.prod(shape) * np.dtype(dtype).itemsize)
    return np.empty(shape, dtype)


def fits(what: str, bytes_: int) -> None:
    """Raises where memory is not enough, before any of it is taken."""
    try:
        _core.room(bytes_)
    except (MemoryError, OverflowError):
        raise MemoryError(f"{what} takes {bytes_} bytes, more than there are") from None


def check_result(who: str, name: str, y: Any, shape: Sequence[int], dtype: Any, kind: Any) -> None:
    """Refuses an output that is not just what would be made, or that no kernel writes into as it is."""
    if not isinstance(y, kind):
        raise TypeError(f"{who}: {name} must be {kind.__name__}, got {type(y).__name__}")
    ordinary(who, f": {name}", y)
    check_order(who, name, y)
    if dtype_name(y.dtype) != dtype_name(dtype):
        raise TypeError(f"{who}: {name} must be {dtype_name(dtype)}, got {dtype_name(y.dtype)}")
    if tuple(y.shape) != tuple(shape):
        raise ValueError(f"{who}: {name} must have shape {sizes(shape)}, got {sizes(y.shape)}")
    check_writable(who, name, y)


def check_writable(who: str, name: str, y: Any) -> None:
    """Refuses an output that no kernel writes into as it is."""
    if not (y.flags.c_contiguous and y.flags.writeable if isinstance(y, np.ndarray) else y.is_contiguous()):
        raise ValueError(f"{who}: {name} must be C-contiguous and writable")


def _apart(name: str, outs: Sequence[Array]) -> None:
    """Refuses outputs of which one would be written over another."""
    if len(outs) < 2 or any(is_distributed(y) for y in outs):
        return
    if is_tensor(outs[0]):
        said = ", ".join([f"out[{i}]" for i in range(len(outs))])
        torch_module().ops.tersor.disjoint(name, [], list(outs), [], said)  # tells storages apart in graphs too
        return
    for i, y in enumerate(outs):
        for j in range(i):
            if np.may_share_memory(y, outs[j]):
                raise ValueError(f"{name}: out[{i}] overlaps out[{j}]")


def into(name: str, outs: Sequence[Array], made: Sequence[Array]) -> None:
    """Copies results into ``out=``: only then is it known that nothing in the data was wrong, and an error changes nothing."""
    for y, new in zip(outs, made, strict=True):
        numpy = isinstance(y, np.ndarray)
        if isinstance(new, np.ndarray) != numpy or not hasattr(y, "dtype"):
            raise TypeError(f"{name}: out must be of {type(new).__name__} like x, got {type(y).__name__}")
        if y.dtype != new.dtype:
            raise TypeError(f"{name}: out must be {dtype_name(new.dtype)}, got {dtype_name(y.dtype)}")
        if tuple(y.shape) != tuple(new.shape):
            raise ValueError(f"{name}: out must have shape {tuple(new.shape)}, got {tuple(y.shape)}")
        check_writable(name, "out", y)
        if not numpy and new.requires_grad:
            raise RuntimeError(f"{name}: {OUT_GRAPH}")
    _apart(name, outs)
    for y, new in zip(outs, made, strict=True):
        if isinstance(y, np.ndarray):
            np.copyto(y, new)
        else:
            y.detach().copy_(new)
