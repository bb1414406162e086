"""What layers of encoded weights share. The one rule: what its codes mean is part of a state, and a state of another scheme or
shape is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersor import quant
from tersor._arrays import dtype_name
from tersor.quant import Encoded
from tersor.quant._encoded import check_parts


class Coded(nn.Module):
    """A module whose weight is an `Encoded` of two axes, held in buffers."""

    data: Tensor
    scale: Tensor
    zero_point: Tensor | None
    outer: Tensor | None
    encoding: Tensor

    def __init__(self, weight: Encoded) -> None:
        super().__init__()
        who = type(self).__name__
        if not isinstance(weight, Encoded) or not isinstance(weight.data, Tensor):
            kind = "an Encoded of NumPy arrays" if isinstance(weight, Encoded) else type(weight).__name__
            raise TypeError(f"{who}: weight must be an Encoded of tensors, got {kind}")
        if len(weight.shape) != 2:
            axes = "[out, in]" if who == "QuantLinear" else "of two axes"
            raise ValueError(f"{who}: weight must be {axes}, got shape {weight.shape}")
        if check_parts(who, weight).block:
            raise ValueError(f"{who}: {weight.scheme} is a layout of files; decode it and encode it by another scheme")
        self.scheme, self.shape, self.dtype = weight.scheme, weight.shape, weight.dtype
        self.register_buffer("data", weight.data)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("zero_point", weight.zero_point)
        # a buffer only where there is one: torch.export counts those that are None
        if weight.outer is None:
            self.outer = None
        else:
            self.register_buffer("outer", weight.outer)
        self.register_buffer("encoding", self._text())

    def _said(self) -> str:
        return f"{self.scheme} {self.shape[0]}x{self.shape[1]}"

    def _text(self) -> Tensor:
        return torch.tensor(list(self._said().encode()), dtype=torch.uint8, device=self.data.device)

    @property
    def encoded(self) -> Encoded:
        """The weight as `tersor.quant.decode` takes it."""
        return Encoded(self.data, self.scale, self.zero_point, self.scheme, self.shape, self.dtype, self.outer)

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for."""
        decoded: Tensor = quant.decode(self.encoded)
        return decoded

    def repack(self) -> None:
        """Makes anew what is made of the codes: to be called when they were overwritten where no tensor can notice.

        That is through ``.data``, NumPy or a collective of ``torch.distributed``, by another process that shares the memory,
        and in place before a call of what was compiled or exported.
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact, kind = {"scale": self.scale, "outer": self.outer}, getattr(torch, self.dtype)
        super()._apply(fn, recurse)
        for name, scale in exact.items():
            if scale is not None and getattr(self, name).dtype != scale.dtype:
                setattr(self, name, scale.to(getattr(self, name).device))
        # the type of what is decoded goes with the module, as that of a dense weight does
        self.dtype = dtype_name(fn(torch.zeros(1, dtype=kind, device=exact["scale"].device)).dtype)
        self.encoding = self._text()  # `to_empty` leaves buffers as the memory was
        self.repack()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], strict: bool, *rest: list[str]
    ) -> None:
        missing, _, errors = rest
        who, key, mine = type(self).__name__, prefix + "encoding", self._said()
        given, names = (
            state_dict.get(key),
            [prefix + k for k in ("data", "scale", "zero_point", "outer") if getattr(self, k) is not None],
        )
        if given is not None and given.device.type != "meta":
            text = bytes(given.tolist()).decode(errors="replace")
            if text != mine:
                errors.append(f"{who}: {prefix}data is encoded as {text}, the layer as {mine}")
                return
        for k in names:
            own, other = getattr(self, k.removeprefix(prefix)), state_dict.get(k)
            # a copy converts in silence
            if other is not None and not own.is_floating_point() and other.dtype != own.dtype:
                kinds = dtype_name(other.dtype), dtype_name(own.dtype)
                errors.append(f"{who}: {k} is {kinds[0]}, the layer ({mine}) has {kinds[1]}")
                return
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *rest)
        if given is None and prefix + "data" in state_dict and key in missing:
            missing.remove(key)  # saved by an earlier version: shapes and types are what there is to check
        self.repack()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not hasattr(self, "outer"):  # pickled by an earlier version
            self.outer = None
        if "encoding" not in self._buffers:  # by one before that
            self.register_buffer("encoding", self._text())
