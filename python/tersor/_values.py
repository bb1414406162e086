"""Float arrays as arguments of what is no single operator. The one rule: an error names who was called, and what was got."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from tersor._arrays import FLOATS, check_order, dtype_name, in_trace, is_distributed, is_number, is_tensor, whole

Array = Any
R = TypeVar("R")


class _Speaker(threading.local):
    """Whose name what is said later bears, in a backward pass: of functions of functions the one that was called."""

    name = ""


SPEAKER = _Speaker()
#: the names of all public functions
KNOWN: set[str] = set()


@contextmanager
def speaking(who: str) -> Iterator[None]:
    """A function of several operators: nodes that they leave in a graph speak of it."""
    first = not SPEAKER.name
    if first:
        SPEAKER.name = who
    try:
        yield
    finally:
        if first:
            SPEAKER.name = ""


def speaker(usual: str) -> str:
    """Who speaks of what goes wrong within: the function that was called, or who usually does."""
    return usual if in_trace() else SPEAKER.name or usual


def tensor_of(x: np.ndarray) -> Any:
    """A tensor on the memory of x: never handed out, as who has it can write there."""
    import torch

    if torch.compiler.is_compiling():  # a trace knows no bfloat16 arrays, nor the types of others
        return torch.from_numpy(x)
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def called(who: str, op: Callable[..., R], *args: Any, **options: Any) -> R:
    """An operator on the way of a function: its errors bear the name of what was called, also those of its backward pass."""
    try:
        if in_trace():
            return op(*args, **options)
        with speaking(who):
            return op(*args, **options)
    except (TypeError, ValueError, MemoryError, NotImplementedError) as e:
        inner, text = f"{op.op.name}: ", str(e)  # type: ignore[attr-defined]
        if not text.startswith(inner):
            raise
        raise type(e)(f"{who}: {text.removeprefix(inner)}") from None


def check_values(who: str, name: str, x: Any) -> None:
    """A dense array or tensor of a float type, or a TypeError."""
    tensor = is_tensor(x)
    if not tensor and not isinstance(x, np.ndarray):
        raise TypeError(f"{who}: {name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    if dtype_name(x.dtype) not in FLOATS:
        raise TypeError(f"{who}: {name} must be float64, float32, float16 or bfloat16, got {dtype_name(x.dtype)}")
    if tensor:
        check_dense(who, name, x)
    elif isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{who}: {name} must be a plain array, got a masked one; fill it first")
    else:
        check_order(who, name, x)


def readable(who: str, **arrays: Any) -> None:
    """Refuses tensors without memory, for who decides on values; what is None passes."""
    if any(is_tensor(x) for x in arrays.values()):
        from tersor import _memory

        _memory.check(who, **arrays)


def one_of(name: str, value: Any, known: Any) -> Any:
    """A word that is known, or what a table has for it; the name says whose argument it is."""
    words = all(isinstance(k, str) for k in known)
    said = ", ".join(known if words else map(repr, known))
    if words and not isinstance(value, str):
        raise TypeError(f"{name} must be one of {said}, got {type(value).__name__}")
    if value not in known:
        raise ValueError(f"{name} must be one of {said}, got {value!r}")
    return known[value] if isinstance(known, dict) else value


def watched(*xs: Any) -> bool:
    """Whether the gradient of any of these may be asked for. A batch of `torch.func` hides that of what it is made of."""
    tensors = [x for x in xs if is_tensor(x)]
    if not tensors:
        return False
    import torch

    if not torch.is_grad_enabled():
        return False
    hidden = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    return hidden or any(x.requires_grad for x in tensors)


def lasting(*tensors: Any) -> bool:
    """Whether these are tensors with values of their own, not stand-ins of a trace or of a transform, which end with it."""
    import torch

    if torch.compiler.is_compiling() or torch._C._is_tracing():  # the second is torch.jit's
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    plain = (torch.Tensor, torch.nn.Parameter)
    return all([type(t) in plain and not wrapped(t) for t in tensors])  # a generator would be half of the call


def plain_values(*given: Any) -> bool:
    """Whether these are values on the CPU, of which no gradient is recorded and no trace is made."""
    tensors = [t for t in given if t is not None]
    return lasting(*tensors) and not watched(*tensors) and all([t.is_cpu for t in tensors])


def check_alike(who: str, **arrays: Any) -> None:
    """Either all tensors are distributed or none is, or a TypeError; what is None passes."""
    given = {k: is_distributed(x) for k, x in arrays.items() if x is not None}
    if len(set(given.values())) > 1:
        one, other = (", ".join(k for k, d in given.items() if d is kind) for kind in (True, False))
        raise TypeError(
            f"{who}: {one} {'are DTensors' if ',' in one else 'is a DTensor'}, {other} not; distribute all, or call "
            "full_tensor() (the parameters of a sharded layer are whole in a forward pass of the model that was sharded)"
        )


def check_dense(who: str, name: str, x: Any) -> None:
    """Tensors with one block of memory by strides; those that only look like it are a TypeError."""
    if is_distributed(x):
        raise TypeError(f"{who}: {name} must be a plain tensor, got a DTensor; to_local() or full_tensor() make one")
    if x.is_nested:
        raise TypeError(f"{who}: {name} must be a dense tensor, got a nested one")
    kind = str(x.layout).rpartition(".")[2]
    if kind != "strided":
        raise TypeError(f"{who}: {name} must be a dense tensor, got one of layout {kind}; to_dense() makes one")


def float_name(dtype: Any) -> str:
    """The name of a type of either library, or what else was given in words."""
    name = dtype_name(dtype) if isinstance(dtype, str) or hasattr(dtype, "itemsize") else repr(dtype)
    if name not in FLOATS and dtype is not None:
        try:
            return np.dtype(dtype).name
        except TypeError:
            return name
    return name


def number(who: str, name: str, value: Any) -> float:
    """A number as a float; what is none is a TypeError, an integer that no float is near a ValueError."""
    if not is_number(value):
        raise TypeError(f"{who}: {name} must be a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise out_of_range(who, name, value) from None


def seeded(who: str, seed: Any) -> int:
    """A seed, which is any 64 bits."""
    seed = whole(f"{who}: seed", seed)
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"{who}: seed must be in [0, 2^64), got {seed}")
    return seed


def signed_word(word: int) -> int:
    """64 bits as the integer with a sign that kernels and torch take."""
    return word - (1 << 64) if word >> 63 else word


def check_curvature(who: str, c: Any) -> Any:
    """c, where it is a number that can be looked at and no curvature is it a ValueError."""
    if isinstance(c, (int, float)):  # what traces reads no function of NumPy
        fine = 0 <= c < math.inf
    elif is_tensor(c):
        fine = not at_hand(c) or bool(((c.detach() >= 0) & c.detach().isfinite()).all())
    else:
        fine = not isinstance(c, (np.ndarray, np.generic)) or bool(np.all(np.isfinite(c) & (np.asarray(c) >= 0)))
    if not fine:
        raise ValueError(f"{who}: curvature must be finite and not negative, got {c}")
    return c


def check_weights(who: str, weights: Any) -> None:
    """Refuses negative weights, where they can be looked at: the sum of points is no point then, nor is a mean the only one."""
    if is_tensor(weights) and not at_hand(weights):
        return
    w = weights.detach() if is_tensor(weights) else weights
    if bool((w < 0).any()):
        # by its place, which is the same of weights that were spread and divided by their sum in a graph
        at = int((w < 0).reshape(-1).nonzero()[0][0])
        raise ValueError(f"{who}: weights must not be negative, weights[..., {at % w.shape[-1]}] is")


def at_hand(c: Any) -> bool:
    """Whether the numbers of a tensor can be looked at: no device is waited for, and nothing watches."""
    import torch

    if torch.compiler.is_compiling() or c.device.type != "cpu" or torch._C._len_torch_dispatch_stack():
        return False
    from tersor._memory import lack

    return lack(c) is None


def out_of_range(who: str, name: str, value: int) -> ValueError:
    """What to raise for an integer of so many digits that to print them helps nobody."""
    return ValueError(f"{who}: {name} must be a number in range, got an integer of {value.bit_length()} bits")
