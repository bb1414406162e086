r"""Embeddings of many features in one table. The one rule: which rows of the table a value has is a function of seed, feature
and value, of which nothing is stored.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tersor._arrays import INTEGERS, check_order, dtype_name, is_tensor, ordinary, torch_module, whole
from tersor._reference import quiet, rounded, wide
from tersor._values import at_hand, check_values, one_of
from tersor.random import TAGS, philox4x32

__all__ = ["hash_ids", "hash_lookup"]

Array = Any

_COMBINE = ("sum", "concat")
_KINDS = (*INTEGERS, "uint16", "uint32", "uint64")


def hash_ids(values: Any, num_rows: int, *, feature: Any = 0, num_hashes: int = 1, seed: int = 0) -> Array:
    r"""Rows of a table for values of features, :math:`\lfloor 2^{-32}\,M\,\operatorname{word}(17, f; v, h)\rfloor` for hash h.

    Parameters
    ----------
    values : array or tensor, integers
        Any of 64 bits; a negative one is its two's complement.
    num_rows : int in 1 .. 2^31
        M, the rows of the table.
    feature : int, or integers of a shape that goes with values, in [0, 2^24)
        f: equal values of two features have rows of their own.
    num_hashes : int
        How many rows a value has.
    seed : int in [0, 2^64)

    Returns
    -------
    array or tensor [..., num_hashes], int64

    Raises
    ------
    TypeError
        If values or features are no integers.
    ValueError
        If a number is out of its range, or shapes do not go together.

    Notes
    -----
    Rows are evenly spread and independent, also over features and hashes: two values share one with probability 1/M. The bits
    are those of `tersor.random`. Coleman et al., "Unified embedding: battle-tested feature representations for web-scale ML
    systems" (2023), whose own hash is not published.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import embed
    >>> embed.hash_ids(np.array([3, 3, -1]), 1000, feature=np.array([0, 1, 0]), num_hashes=2).shape
    (3, 2)
    """
    return _hashed("hash_ids", values, num_rows, feature, num_hashes, seed)


def hash_lookup(
    values: Any,
    table: Array,
    *,
    feature: Any = 0,
    num_hashes: int = 2,
    combine: Literal["sum", "concat"] = "sum",
    seed: int = 0,
) -> Array:
    r"""What one table has for values of many features: the sum of the rows `hash_ids` says, or those side by side.

    Parameters
    ----------
    values, feature, num_hashes, seed : as of `hash_ids`
    table : array or tensor [rows, dim], float64, float32, float16 or bfloat16
    combine : "sum" or "concat"

    Returns
    -------
    array or tensor [..., dim], or [..., num_hashes · dim]
        In the type of the table, to which tensors have a gradient.

    Raises
    ------
    TypeError
        If values are no integers, or the table is not of a float type or of another library.
    ValueError
        As `hash_ids`; if the table has not two axes or no rows.

    Notes
    -----
    Read are the rows that are looked up, ``num_hashes`` a value; rows of a table of 16 bits are added in float32, and so are
    gradients of a row that is looked up twice, which are rounded once: a dense gradient, in float32 on the way. They add up in
    the same order for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> from tersor import embed
    >>> table = np.arange(8.0).reshape(4, 2)
    >>> embed.hash_lookup(np.array([[7, 7], [8, 9]]), table, feature=np.array([0, 1])).shape
    (2, 2, 2)
    """
    check_values("hash_lookup", "table", table)
    if table.ndim != 2 or not table.shape[0]:
        raise ValueError(f"hash_lookup: table must be [rows, dim] with a row or more, got shape {tuple(table.shape)}")
    one_of("hash_lookup: combine", combine, _COMBINE)
    if is_tensor(table) != is_tensor(values):
        raise TypeError(
            f"hash_lookup: values and table must be of one library, got {type(values).__name__} and {type(table).__name__}"
        )
    if is_tensor(table) and values.device != table.device:
        raise ValueError(f"hash_lookup: values are on {values.device}, table on {table.device}")
    rows = _hashed("hash_lookup", values, int(table.shape[0]), feature, num_hashes, seed)
    if is_tensor(table):
        from tersor._table import table_rows

        found: Array = table_rows(rows, table)
    else:
        found = table[rows]
    if combine == "concat":
        return found.reshape(*found.shape[:-2], found.shape[-2] * found.shape[-1])
    with quiet(found):
        return found.sum(-2) if is_tensor(found) else rounded(wide(found).sum(-2), table)


def _whole(who: str, name: str, value: Any, least: int, end: int) -> int:
    n = whole(f"{who}: {name}", value)
    if not least <= n < end:
        raise ValueError(f"{who}: {name} must be in {least} .. {end - 1}, got {n}")
    return n


def _integers(who: str, name: str, x: Any) -> None:
    if not isinstance(x, np.ndarray) and not is_tensor(x):
        raise TypeError(f"{who}: {name} must be a NumPy array or a torch tensor of integers, got {type(x).__name__}")
    ordinary(who, f": {name}", x)
    kind = dtype_name(x.dtype)
    if kind not in _KINDS:
        raise TypeError(f"{who}: {name} must be integers, got {kind}")
    check_order(who, name, x)


def _hashed(who: str, values: Any, num_rows: Any, feature: Any, num_hashes: Any, seed: Any) -> Any:
    _integers(who, "values", values)
    m = _whole(who, "num_rows", num_rows, 1, 2**31 + 1)
    k = _whole(who, "num_hashes", num_hashes, 1, 2**20)
    s = _whole(who, "seed", seed, 0, 2**64)
    if isinstance(feature, np.ndarray) or is_tensor(feature):
        _integers(who, "feature", feature)
        if is_tensor(feature) != is_tensor(values):
            raise TypeError(
                f"{who}: feature must be like values, {type(values).__name__}, got {type(feature).__name__}"
            )
        if is_tensor(feature):
            if feature.device != values.device and (feature.ndim or feature.device.type != "cpu"):
                raise ValueError(f"{who}: feature is on {feature.device}, values on {values.device}")
            feature = feature.long().to(values.device)
        if (not is_tensor(feature) or at_hand(feature)) and bool(((feature < 0) | (feature >= 2**24)).any()):
            raise ValueError(f"{who}: feature must be in 0 .. {2**24 - 1}")
    else:
        feature = _whole(who, "feature", feature, 0, 2**24)
    return (_tensors if is_tensor(values) else _arrays)(values, m, feature, k, s)


def _arrays(values: np.ndarray, m: int, feature: Any, k: int, seed: int) -> np.ndarray:
    v = values.astype(np.int64).view(np.uint64) if values.dtype != np.uint64 else values
    v, f = np.broadcast_arrays(v, np.asarray(feature, np.uint64))
    quads = -(-k // 4)
    counter = np.empty((*v.shape, quads, 4), np.uint32)
    counter[..., 0] = np.arange(quads, dtype=np.uint32)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    counter[..., 1], counter[..., 2] = (v & low)[..., None], (v >> half)[..., None]
    counter[..., 3] = (np.uint64(TAGS["hash"]) + np.uint64(256) * f)[..., None]
    words = philox4x32(counter, np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32))
    words = words.reshape(*v.shape, 4 * quads)[..., :k].astype(np.uint64)
    return (words * np.uint64(m) >> half).astype(np.int64)


def _tensors(values: Any, m: int, feature: Any, k: int, seed: int) -> Any:
    torch = torch_module()
    quads = -(-k // 4)
    v = values.long() if values.dtype != torch.uint64 else values.view(torch.int64)
    f = feature.long() if is_tensor(feature) else torch.full((), feature, dtype=torch.int64, device=v.device)
    v, f = (x[..., None] for x in torch.broadcast_tensors(v, f))
    at = torch.arange(quads, device=v.device).expand(*v.shape[:-1], quads)
    counter = torch.stack([at, *(x.expand_as(at) for x in (v & 0xFFFFFFFF, v >> 32, 256 * f + TAGS["hash"]))], -1)
    key = torch.tensor([_signed(seed & 0xFFFFFFFF), _signed(seed >> 32)], dtype=torch.int32, device=v.device)
    words = philox4x32(counter.to(torch.int32).view(torch.uint32), key.view(torch.uint32)).view(torch.int32)
    words = words.reshape(*v.shape[:-1], 4 * quads)[..., :k].long() & 0xFFFFFFFF
    return words * m >> 32


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word
