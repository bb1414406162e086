"""Linear combinations of lists. The one rule: what is written is rounded once, from float64, and entry by entry in place where
``out`` is what was given.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tersor._arrays import Arrays, axes, in_trace, is_number, is_tensor, ordinary, sizes, torch_module, whole
from tersor._lists import alike, entries, listed
from tersor._values import called, seeded, signed_word
from tersor.foreach._operators import _ema, _ema_stochastic, _lincomb


def _coefficients(c: Any, n: int, k: int, like: Any) -> Any:
    """Coefficients as float64 [n, k], of the library of the lists."""
    if isinstance(c, (list, tuple)):
        c = _listed(c, is_tensor(like) and in_trace())
    elif not hasattr(c, "shape"):
        c = np.asarray(c)
    if isinstance(c, np.ndarray) and c.dtype.kind not in "fiu" and c.dtype.name != "bfloat16":
        raise TypeError(f"lincomb: coefficients must be numbers, got {c.dtype}")
    if is_tensor(c) and (c.is_complex() or c.dtype == torch_module().bool):
        raise TypeError(f"lincomb: coefficients must be numbers, got {c.dtype}")
    ordinary("lincomb", ": coefficients", c)
    if tuple(c.shape) not in ((k,), (n, k)):
        raise ValueError(f"lincomb: coefficients must have shape [{k}] or [{n}, {k}], got {sizes(c.shape)}")
    if not is_tensor(like):
        if is_tensor(c):
            raise TypeError("lincomb: coefficients must be a NumPy array like the lists, got Tensor")
        return np.broadcast_to(c.astype(np.float64), (n, k))
    if not is_tensor(c):  # torch takes neither all types nor all strides that NumPy has
        c = torch_module().from_numpy(np.array(c, np.float64, order="C"))
    elif c.is_meta and not like.is_meta:
        raise ValueError(f"lincomb: coefficients are on {c.device}, lists on {like.device}")
    return c.to(device=like.device).double().expand(n, k)


def _listed(c: Any, traced: bool) -> Any:
    """Coefficients that stand in a list, numbers or rows of them, as an array; a trace sees none of NumPy made in it."""
    nested = any(isinstance(row, (list, tuple)) or not is_number(row) for row in c)
    rows = [list(row) if isinstance(row, (list, tuple)) or axes(row) == 1 else [row] for row in c] if nested else [c]
    for x in (x for row in rows for x in row):
        if not is_number(x) or isinstance(x, (bool, np.bool_)):
            raise TypeError(f"lincomb: coefficients must be numbers, got {type(x).__name__}")
        if is_tensor(x) and x.requires_grad:
            raise TypeError("lincomb: coefficients with a gradient must be one tensor; torch.stack makes one of a list")
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"lincomb: rows of coefficients must be of one length, got {[len(row) for row in rows]}")
    values = rows if nested else c
    return torch_module().tensor(values, dtype=torch_module().float64) if traced else np.array(values, np.float64)


def lincomb(coefficients: Any, *lists: Arrays, out: Arrays | None = None) -> Arrays:
    r"""Linear combinations of lists, entry by entry: sums of models, of gradients, of task vectors.

    .. math:: y_i = \sum_{k=1}^{K} c_{ik}\, x_{ik}

    Parameters
    ----------
    coefficients : K numbers, or an array or tensor [K] or [n, K]
        Of each list, or of each entry of each list. They are taken as float64.
    *lists : K lists of n arrays or tensors, float64, float32, float16 or bfloat16
        Or what gives them one after another, as ``model.parameters()`` does. Entries of one list may differ in shape and type;
        entries i of all lists are of one shape and type.
    out : list of n arrays or tensors, optional
        What the results are written to, of their shapes and types, C-contiguous; one of the lists itself for a sum in place.
        Any other memory that they share is an error.

    Returns
    -------
    list of n arrays or tensors
        Like the first list; `out`, if it was given.

    Raises
    ------
    TypeError
        If there is no list, an entry is no float array, types of entries i differ, or libraries do.
    ValueError
        If lengths, shapes or devices differ, coefficients have another shape, or memory overlaps.
    RuntimeError
        If `out` is given while a gradient is recorded.

    Notes
    -----
    Sums are made in float64 in the order of the lists and rounded once. A coefficient 0 does not hide a NaN. The lists are
    read once and the result is written once, K + 1 passes, where a loop over ``torch._foreach_add_`` makes 3K + 1.
    Gradients go to all arrays, :math:`c_{ik} g_i`, and to the coefficients, :math:`\langle g_i, x_{ik} \rangle`, which are
    summed in twice the precision of float64. On a GPU torch's own operations do it, entry by entry.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import foreach
    >>> base, tuned = [np.array([1.0, 2.0]), np.array(4.0)], [np.array([3.0, 4.0]), np.array(8.0)]
    >>> foreach.lincomb([0.5, 0.5], base, tuned)
    [array([2., 3.]), array(6.)]
    >>> foreach.lincomb([[1.0, 0.0], [0.0, 1.0]], base, tuned, out=base)[1]
    array(8.)
    """
    if not lists:
        raise TypeError("lincomb: at least one list is needed")
    xs: list[list[Any]] = []
    for k, given in enumerate(lists):
        xs.append(entries("lincomb", f"lists[{k}]", given, xs[0][0] if xs and xs[0] else None))
        alike("lincomb", ("lists[0]", xs[0]), (f"lists[{k}]", xs[k]))
    n, out = len(xs[0]), out if out is None else listed("lincomb: out", out)
    c = _coefficients(coefficients, n, len(xs), xs[0][0] if n else None)
    others = type(xs[0])(x for more in xs[1:] for x in more)
    if n == 0:
        return _nothing("lincomb", out)
    made: Arrays = called("lincomb", _lincomb, xs[0], others, c, **({} if out is None else {"out": out}))
    return made


def _nothing(who: str, out: Any) -> Any:
    """The result of lists without entries."""
    if out is not None and len(out):
        raise ValueError(f"{who}: out must be a list of no entries, as the lists are")
    return [] if out is None else out


def ema(
    targets: Arrays,
    xs: Arrays,
    decay: float,
    *,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    seed: int = 0,
    step: int = 0,
    out: Arrays | None = None,
) -> Arrays:
    r"""Exponential moving averages of lists: every target a step on its way to its x.

    .. math:: t_i \leftarrow t_i + (1 - \beta)(x_i - t_i)

    Parameters
    ----------
    targets, xs : lists of n arrays or tensors, float64, float32, float16 or bfloat16
        Or what gives them one after another, as ``model.parameters()`` does. Entries i are of one shape and type, or the target
        is float32 beside 16 bits: a master copy.
    decay : float between 0 and 1
        :math:`\beta`: 1 leaves the bits of the targets, 0 copies.
    rounding : "nearest" or "stochastic"
        How targets of 16 bits are rounded. To the nearest number an average of bfloat16 stands still where a step is less than
        half a unit in the last place, which at a decay of 0.999 nearly all are; up with probability
        :math:`(y - lo)/(hi - lo)` it moves as it should on average. Others are rounded to the nearest either way.
    seed : int in [0, 2^64)
    step : int in [0, 2^24)
        The number of the update: word j of place i in the list and of this stream says how element j is rounded (see
        `tersor.random`).
    out : list of n arrays or tensors, optional
        What the results are written to; `targets` itself for an average in place. Any other memory that they share is an error.

    Returns
    -------
    list of n arrays or tensors
        Like targets; `out`, if it was given.

    Raises
    ------
    TypeError
        If targets or xs is no list, an entry is no float array, types of entries i do not go together, libraries differ, or
        decay, seed or step is no number.
    ValueError
        If lengths, shapes or devices differ, decay, seed or step is out of range, rounding is another word, or memory overlaps.
    NotImplementedError
        If a gradient is recorded; `lincomb` has one. Stochastic rounding has no kernel for a GPU.
    RuntimeError
        If `out` is given while a gradient is recorded.

    Notes
    -----
    Computed in float64 and rounded once, so that it is torch's ``lerp`` for float32 up to a rounding. Three passes: both
    lists are read and one is written. Where a difference of float64 numbers is beyond the type, the average of both is not.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import foreach
    >>> average, weights = [np.zeros(2)], [np.array([1.0, 2.0])]
    >>> foreach.ema(average, weights, 0.75, out=average)
    [array([0.25, 0.5 ])]
    """
    targets = entries("ema", "targets", targets)
    xs = entries("ema", "xs", xs, targets[0] if targets else None)
    alike("ema", ("targets", targets), ("xs", xs), wider=True)
    if not is_number(decay):
        raise TypeError(f"ema: decay must be a number, got {type(decay).__name__}")
    decay = float(decay)
    if not 0 <= decay <= 1:
        raise ValueError(f"ema: decay must be between 0 and 1, got {decay}")
    if rounding not in ("nearest", "stochastic"):
        raise ValueError(f"ema: rounding must be 'nearest' or 'stochastic', got {rounding!r}")
    seed, step = seeded("ema", seed), whole("ema: step", step)
    if not 0 <= step < 1 << 24:
        raise ValueError(f"ema: step must be in [0, 2^24), got {step}")
    out = out if out is None else listed("ema: out", out)
    if not targets:
        return _nothing("ema", out)
    own = {} if out is None else {"out": out}
    if rounding == "nearest":
        made: Arrays = called("ema", _ema, targets, xs, decay, **own)
    else:
        made = called("ema", _ema_stochastic, targets, xs, decay, signed_word(seed), step, **own)
    return made
