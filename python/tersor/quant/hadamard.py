"""Rotations by Hadamard matrices. The one rule: turned back, everything is what it was, whatever the signs."""

from __future__ import annotations

import contextlib
import math
import operator
from typing import Any

import numpy as np

from tersor import _hadamard
from tersor._arrays import FLOATS, Array, Level, dtype_name, flag, is_distributed, is_tensor
from tersor._reference import quiet
from tersor.quant._arguments import detached, some_value

#: the largest K of an order K·2^m that is made here
LARGEST = 1024
#: Sylvester's part is done in factors of at most this order
_FACTOR = 64


def order(n: int) -> int:
    """K of the order n = K·2^m, 0 where there is no rotation of it."""
    k = _hadamard.core(n)
    return k if k <= LARGEST else 0


def _sizes(n: int) -> list[int]:
    """The orders of small matrices whose Kronecker product is H_n."""
    k = order(n)
    rest, found = n // k, [k] if k > 1 else []
    while rest > 1:
        found.append(min(rest, _FACTOR))
        rest //= found[-1]
    return found


def hadamard(x: Array, *, signs: Level | None = None, transpose: bool = False) -> Array:
    r"""Rows turned by an orthogonal matrix of entries :math:`\pm 1/\sqrt n`: :math:`y = H (s \circ x) / \sqrt n`.

    What is large in a few places of a row is spread over all of them, so that codes of few bits lose less; a linear layer
    whose weight is turned as its inputs are gives what it gave.

    Parameters
    ----------
    x : array or tensor ``[..., n]`` of float64, float32, float16 or bfloat16
        n = K·2^m, where K is 1 or the least order, at most 1024, of Paley's constructions over GF(q), q a prime or its square
        (12, 20, 28, 36, 44, 52, 60, …), or of the stored rows (92, 156, 172).
    signs : array or tensor ``[n]``, optional
        s, floats or integers of 1 and -1; all 1 if absent.
    transpose : bool
        The way back: :math:`s \circ H^\top x / \sqrt n`.

    Returns
    -------
    array or tensor like x

    Raises
    ------
    TypeError
        If x is not a float array or a DTensor, signs are of another library, or transpose is no bool.
    ValueError
        If x is 0-d, n is no such order, or signs are not n numbers of 1 and -1.

    Notes
    -----
    Products with K·K and 64·64 matrices, :math:`n (K + 64 \lceil m/6 \rceil)` multiply-adds a row; gradients are those of the
    operations. 16-bit floats are turned in float32 and rounded once; what fits its type does so at any size. Of a power of two
    H is Sylvester's and symmetric; that of K·2^m is H_K ⊗ H_2 ⊗ … and symmetric where Paley's second construction has K.
    Rotations of whole models: Ashkboos et al., "QuaRot" (2024); Paley, "On orthogonal matrices" (1933);
    stored rows, in the array of Goethals and Seidel (1967): of four symmetric circulants as Williamson (1944) has them for 172
    and Baumert, Golomb, Hall (1962) for 92, and for 156 of four such, of order 13, three times over, as Baumert, Hall (1965).

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import quant
    >>> quant.hadamard(np.array([[3.0, 0.0, 0.0, 0.0]]))
    array([[1.5, 1.5, 1.5, 1.5]])
    """
    name = "hadamard"
    transpose, torch = flag(f"{name}: transpose", transpose), is_tensor(x)
    whole = x if torch else detached(name, x)
    if torch and is_distributed(x):
        raise TypeError(f"{name}: x must be a plain tensor, got a DTensor; of whole rows to_local() is one")
    kind = dtype_name(whole.dtype)
    if kind not in FLOATS:
        raise TypeError(f"{name}: x must be a float array, got {kind}")
    if whole.ndim == 0:
        raise ValueError(f"{name}: x needs a last axis, got a 0-d array")
    n = operator.index(whole.shape[-1])  # of a trace too: its matrix is of this order alone
    if not order(n):
        raise ValueError(
            f"{name}: x has rows of {n}, and no Hadamard matrix of this order is made (K·2^m, see its documentation)"
        )
    s = None if signs is None else _signs(name, signs, n, torch)
    if torch:
        from tersor.quant import _traced
    wide: Any = kind if kind == "float64" else "float32"
    with _unlowered(whole) if torch else contextlib.nullcontext(), quiet(whole):
        y = whole.to(getattr(_torch(), wide)) if torch else whole.astype(wide)
        if s is not None and not transpose:
            y = y * (s.to(y) if torch else s.astype(y.dtype))
        y, factor = _within(y, n)
        left, lead = n, tuple(y.shape[:-1])
        for size in _sizes(n):
            left //= size
            if torch:
                m = _traced.factor(size, y.dtype, y.device)
            else:
                m = _hadamard.matrix(size).astype(y.dtype)
            m = m if transpose else m.T
            # rows are [before, this factor, after it]
            y = y.reshape(*lead, n // (size * left), size, left)
            y = (y.swapaxes(-1, -2) @ m).swapaxes(-1, -2).reshape(*lead, n)
        y = y * factor
        if s is not None and transpose:
            y = y * (s.to(y) if torch else s.astype(y.dtype))
        return y.to(whole.dtype) if torch else y.astype(whole.dtype)


def _within(y: Array, n: int) -> tuple[Array, Array]:
    """Rows whose sums of n stay within their type, and what to multiply these with: only such rows are made smaller, by a power
    of two, that would leave it; of others the least numbers would lose digits."""
    if is_tensor(y):
        top, where, most = y.detach().abs().amax(-1, True), _torch().where, _torch().finfo(y.dtype).max
    else:
        top, where, most = np.abs(y).max(-1, keepdims=True), np.where, np.finfo(y.dtype).max
    far, power = top > float(most) / (2 * n), 2.0 ** (n - 1).bit_length()
    # powers of two alone: of two numbers torch chooses in float32
    shrink, grow = where(far, 1 / power, 1.0), where(far, power, 1.0)
    if is_tensor(y):
        return y * shrink.to(y.dtype), grow.to(y.dtype) * (1 / math.sqrt(n))
    return y * shrink.astype(y.dtype), grow.astype(y.dtype) * y.dtype.type(1 / math.sqrt(n))


def _unlowered(x: Any) -> Any:
    """A context in which autocast does not do products of 16 bits."""
    from tersor._autocast import autocast_type, off

    return contextlib.nullcontext() if autocast_type(x) is None else off(x.device.type)


def _torch() -> Any:
    import torch

    return torch


def _signs(name: str, signs: Array, n: int, torch: bool) -> Array:
    if is_tensor(signs) != torch:
        raise TypeError(f"{name}: signs must be of the library of x, got {type(signs).__name__}")
    s = signs if torch else np.asarray(signs)
    what = f"signs must be {n} numbers of 1 and -1, got {tuple(s.shape)}"
    if tuple(s.shape) != (n,):
        raise ValueError(f"{name}: {what}")
    some_value(name, what, abs(s) == 1)
    return s


def drawn(n: int, seed: int = 0) -> np.ndarray:
    """Random signs [n], float64: the bits of column 0 of a Rademacher matrix (`tersor.random`)."""
    from tersor.random import TAGS, philox4x32

    blocks = -(-n // 128)
    counter = np.zeros((blocks, 4), np.uint32)
    counter[:, 0], counter[:, 3] = np.arange(blocks), TAGS["rademacher"]
    key = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)
    words = np.ascontiguousarray(philox4x32(counter, key), "<u4")
    return 1.0 - 2.0 * np.unpackbits(words.view(np.uint8), bitorder="little")[:n]
