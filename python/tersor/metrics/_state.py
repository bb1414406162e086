"""Metrics of data that comes in parts. The one rule: what was seen is a few arrays of float64 and int64, parts are merged in
their order, and an update that fails changes nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

State = dict[str, np.ndarray]


class Streaming:
    """What such metrics share; the states of two parts merge into that of the whole.

    A class names its arrays in ``_ARRAYS``: the type of each, and a letter for each axis. Equal letters are equal sizes, in a
    state and between two that are merged; axes ``n`` are as long as the data is, and ``*`` is a shape of any number of axes. It
    says how two states become one (`_joined`).
    """

    _ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {}

    def __init__(self) -> None:
        self._state: State = {}

    def _settings(self) -> dict[str, Any]:
        """What two metrics must have in common to be merged, beside sizes."""
        return {}

    def _joined(self, a: State, b: State) -> State:
        raise NotImplementedError

    def _sizes(self, who: str, state: State) -> dict[str, Any]:
        """What the letters of the axes stand for."""
        found: dict[str, Any] = {}
        for key, (_, axes) in self._ARRAYS.items():
            shape = state[key].shape
            for letter, size in [("*", shape)] if axes == "*" else zip(axes, shape, strict=True):
                if letter != "n" and found.setdefault(letter, size) != size:
                    raise ValueError(f"{who}: {key} has shape {state[key].shape}, others have {found[letter]} there")
        return found

    def _merged(self, who: str, a: State, b: State) -> State:
        """One state of two, neither of which is changed; an empty one is no part at all."""
        if not a or not b:
            return a or b
        one, other = self._sizes(who, a), self._sizes(who, b)
        if one != other:
            wrong = ", ".join(f"{k}: {other[k]}, before {one[k]}" for k in one if one[k] != other[k])
            raise ValueError(f"{who}: sizes differ from those seen before ({wrong})")
        return self._joined(a, b)

    def _add(self, who: str, new: State) -> None:
        self._state = self._merged(who, self._state, new)

    def _seen(self) -> State:
        """The state, of which there must be one."""
        if not self._state:
            raise ValueError(f"{type(self).__name__}.compute: nothing was seen; update comes first")
        return self._state

    def reset(self) -> None:
        """Forgets what was seen."""
        self._state = {}

    def merge_state(self, other: Any) -> None:
        """Takes in what another metric of this class and with these settings has seen, after what this one has.

        Raises
        ------
        TypeError
            If it is of another class.
        ValueError
            If its settings or sizes are others.
        """
        who = f"{type(self).__name__}.merge_state"
        if type(other) is not type(self):
            raise TypeError(f"{who}: other must be a {type(self).__name__}, got {type(other).__name__}")
        if (mine := self._settings()) != (theirs := other._settings()):
            raise ValueError(f"{who}: the settings are {mine}, those of the other {theirs}")
        self._add(who, other._state)

    def sync(self, group: Any = None) -> None:
        """Makes this what all processes of a `torch.distributed` group have seen, the same bytes in each.

        States are gathered and merged in the order of ranks. Each process must call it; a second call would count all again, so
        it comes once, before `compute`, and `reset` after it.

        Parameters
        ----------
        group : ProcessGroup, optional
            The default one if absent.

        Raises
        ------
        ValueError
            If there is no group, or metrics of the processes have other settings or sizes: then nothing is changed anywhere.
        """
        from torch import distributed as dist

        who = f"{type(self).__name__}.sync"
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(f"{who}: there is no process group; torch.distributed.init_process_group makes one")
        parts: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(parts, (self._settings(), self._state), group=group)
        made: State = {}
        for rank, (settings, state) in enumerate(parts):
            if settings != parts[0][0]:
                raise ValueError(f"{who}: the settings of rank 0 are {parts[0][0]}, of rank {rank} {settings}")
            made = self._merged(who, made, state)
        self._state = made

    def state_dict(self) -> State:
        """What was seen, as arrays of their own; of no data, no arrays."""
        return {k: np.array(v) for k, v in self._state.items()}

    def load_state_dict(self, state_dict: Any) -> None:
        """Takes what `state_dict` gave in place of what was seen; the settings are the constructor's.

        Raises
        ------
        TypeError
            If it is no mapping, or an array is of another type.
        ValueError
            If arrays are missing or unknown, or their shapes do not fit.
        """
        who = f"{type(self).__name__}.load_state_dict"
        if not hasattr(state_dict, "keys"):
            raise TypeError(f"{who}: state_dict must be a mapping, got {type(state_dict).__name__}")
        if state_dict and set(state_dict) != set(self._ARRAYS):
            raise ValueError(f"{who}: the arrays must be {sorted(self._ARRAYS)}, got {sorted(map(str, state_dict))}")
        made: State = {}
        for key, (kind, axes) in self._ARRAYS.items() if state_dict else ():
            x = state_dict[key]
            if not isinstance(x, np.ndarray) or x.dtype != np.dtype(kind):
                got = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
                raise TypeError(f"{who}: {key} must be a NumPy array of {kind}, got {got}")
            if axes != "*" and x.ndim != len(axes):
                raise ValueError(f"{who}: {key} must have {len(axes)} axes, got shape {x.shape}")
            made[key] = x.copy()
        if made:
            self._fits(who, self._sizes(who, made))
        self._state = made

    def _fits(self, who: str, sizes: dict[str, Any]) -> None:
        """Refuses sizes that these settings do not allow."""
