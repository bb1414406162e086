"""States of layers. The one rule: a state means the same in every object it is loaded into, or is refused by the name of its
key; what older versions saved is read where it means something."""

from __future__ import annotations

import threading
from typing import Any

from torch import Tensor, nn

from tersor._arrays import is_distributed

#: the load that runs in a thread, known by its list of missing keys: where modules that stand at several names were found
_LOAD = threading.local()


def widen(state: dict[str, Any], key: str) -> None:
    """A number that was saved without axes, as the array of one that it is kept in (sharding takes no 0-d parameters)."""
    value = state.get(key)
    if value is not None and value.ndim == 0:
        state[key] = value.reshape(1)


def shard_like(x: Tensor, like: Any) -> Tensor:
    """A tensor that every process has made, as the shards of another; nothing is sent."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)


def place(state: dict[str, Any], key: str, like: Tensor) -> None:
    """A whole number for a parameter that is sharded, as the shard of this process: torch's own loading of a state that one
    process reads leaves it whole at all names but the first of a module that stands at several."""
    value = state.get(key)
    if is_distributed(like) and isinstance(value, Tensor) and not is_distributed(value):
        state[key] = shard_like(value.to(like.device), like)


def once(module: nn.Module, prefix: str, key: str, found: bool, missing: list[str]) -> None:
    """A module that stands at several names needs its key at one of them only, as safetensors writes it."""
    if getattr(_LOAD, "missing", None) is not missing:
        _LOAD.missing, _LOAD.places = missing, {}
    places: list[str]
    places, loaded = _LOAD.places.get(id(module), ([], False))
    if not found:
        places = [*places, prefix + key]
    loaded = loaded or found
    if loaded:
        missing[:] = [k for k in missing if k not in places]
    _LOAD.places[id(module)] = places, loaded
