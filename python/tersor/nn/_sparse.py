"""What layers of few weights share. The one rule: what was pruned is neither stored nor multiplied, and stays pruned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersor import sparse
from tersor._arrays import dtype_name, is_distributed
from tersor._values import check_dense
from tersor.sparse._pattern import Pattern


class SparseWeight(nn.Module):
    """A sparse weight [out, in] and a bias, as parameters, buffers and states have them."""

    data: nn.Parameter
    indices: Tensor
    indptr: Tensor

    def __init__(self, weight: sparse.CSR, bias: Tensor | None = None) -> None:
        super().__init__()
        who = type(self).__name__
        if not isinstance(weight, sparse.CSR) or not isinstance(weight.data, Tensor):
            kind = "a CSR of NumPy arrays" if isinstance(weight, sparse.CSR) else type(weight).__name__
            raise TypeError(f"{who}: weight must be a CSR of tensors, got {kind}")
        self._sized(*weight.shape)
        self.data = nn.Parameter(weight.data.detach().clone())
        self.register_buffer("indices", weight.indices.clone())
        self.register_buffer("indptr", weight.indptr.clone())
        self._take_bias(bias)
        self._know()

    def _take_bias(self, bias: Tensor | None) -> None:
        who, outs = type(self).__name__, self._shape[0]
        if bias is not None and not isinstance(bias, Tensor):
            raise TypeError(f"{who}: bias must be a tensor, got {type(bias).__name__}")
        if bias is not None and tuple(bias.shape) != (outs,):
            raise ValueError(f"{who}: bias must have shape ({outs},), got {tuple(bias.shape)}")
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def _room(self, shape: torch.Size) -> Any:
        """What is to hold so many values of a state."""
        return nn.Parameter(self.data.new_empty(shape))

    def _sized(self, outs: int, ins: int) -> None:
        """Keeps the sizes, by the names that the layer has for them."""
        raise NotImplementedError

    @property
    def _shape(self) -> tuple[int, int]:
        raise NotImplementedError

    def _know(self) -> None:
        """Keeps what is derived from the structure (the transpose that gradients want) as long as that is the same."""
        for name in ("indices", "indptr"):
            if (t := getattr(self, name)).is_inference():  # of which no write can be told
                with torch.inference_mode(False):
                    self._buffers[name] = t.clone()
        # not in a state, a file or a copy: made anew from the buffers
        self.__dict__["_kept"] = Pattern(self.indices, self.indptr, self._shape)
        self.__dict__["_written"] = _writes(self.indices), _writes(self.indptr)
        for derived in ("_chosen", "_made", "_ready"):
            self.__dict__.pop(derived, None)

    def _follow(self) -> None:
        """Derives anew what buffers give that have been written to in place: nothing else would say so."""
        if self.__dict__["_written"] != (_writes(self.indices), _writes(self.indptr)):
            self._know()

    @property
    def pattern(self) -> sparse.CSR:
        """The sparse weight: the places with the values at hand, which gradients flow to."""
        return self._matrix(self.data)

    @property
    def weight(self) -> Tensor:
        """The dense weight [out, in], made of the values at hand; gradients flow to them."""
        return self.to_dense()

    def to_dense(self) -> Tensor:
        """As `weight`."""
        dense: Tensor = self.pattern.to_dense()
        return dense

    def _places(self, data: Tensor) -> Pattern:
        if is_distributed(data):  # whole in a forward pass of the model that was sharded
            check_dense(type(self).__name__.removeprefix("FSDP"), "data", data)  # fully_shard renames the class
        if not torch.compiler.is_compiling():
            self._follow()
        kept: Pattern = self.__dict__["_kept"]
        # others stand in their place for a call of torch.func
        if self.indices is not kept.indices or self.indptr is not kept.indptr:
            kept = Pattern(self.indices, self.indptr, kept.shape)
        return kept

    def _fits(self, x: Tensor) -> None:
        """Refuses values that are elsewhere than x, or not as many as their places, and a bias of another size."""
        who, data, outs = type(self).__name__.removeprefix("FSDP"), self.data, self._shape[0]
        if data.device != x.device:
            raise ValueError(f"{who}: the input is on {x.device}, the weight on {data.device}")
        if data.shape != self.indices.shape:
            raise ValueError(
                f"{who}: data has shape {tuple(data.shape)}, indices {tuple(self.indices.shape)}; loading a state changes both"
            )
        if self.bias is not None and self.bias.shape != (outs,):
            raise ValueError(f"{who}: bias must have shape ({outs},), got {tuple(self.bias.shape)}")

    def _matrix(self, data: Tensor) -> sparse.CSR:
        return sparse.CSR._of(data, self._places(data))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseWeight:
        super()._apply(fn, recurse)
        self._know()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], strict: bool, *rest: list[str]
    ) -> None:
        state, errors, who = dict(state_dict), rest[-1], type(self).__name__
        names = [prefix + k for k in ("data", "indices", "indptr")]
        found = [k for k in names if k in state]
        if found and len(found) < 3:
            absent = " and ".join(k for k in names if k not in state)
            errors.append(f"{who}: the state has {found[0]} but not {absent}: values without their pattern")
            return
        if found:
            try:
                parts = _checked([state[k] for k in names], self._shape)
            except (TypeError, ValueError) as e:
                outs, ins = self._shape
                errors.append(f"{who}: {', '.join(names)} are no matrix [{outs}, {ins}]: {e}")
                return
            if parts[0].is_floating_point() != self.data.is_floating_point():
                given, mine = (dtype_name(t.dtype) for t in (parts[0], self.data))
                errors.append(f"{who}: {names[0]} is {given}, the values of the layer are {mine}")
                return
            state.update(zip(names, parts, strict=True))
            if not metadata.get("assign_to_params_buffers", False):
                self._resize(parts[1])
            elif parts[0].shape != self.data.shape:
                self.data, self.indices = self._room(parts[0].shape), parts[1]
            if not metadata.get("assign_to_params_buffers", False) or parts[2].dtype != self.indptr.dtype:
                self.indptr = torch.empty_like(parts[2], device=self.indptr.device)
        super()._load_from_state_dict(state, prefix, metadata, strict, *rest)
        self._know()

    def _resize(self, indices: Tensor) -> None:
        """Room for as many entries as are loaded; the parameter stays the object that it is."""
        self.indices = torch.empty_like(indices, device=self.indices.device)
        if self.data.shape != indices.shape:
            self.data.data, self.data.grad = self.data.data.new_empty(indices.shape), None

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for derived in ("_kept", "_written", "_chosen", "_made", "_ready"):
            state.pop(derived, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        old = state.pop("pattern", None)
        super().__setstate__(state)
        if old is not None:  # pickled by an earlier version
            self._sized(*old.shape)
            self.register_buffer("indices", old.indices)
            self.register_buffer("indptr", old.indptr)
        self._know()


class LinearWeight(SparseWeight):
    """That of a linear layer."""

    in_features: int
    out_features: int

    def _sized(self, outs: int, ins: int) -> None:
        self.out_features, self.in_features = outs, ins

    @property
    def _shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features


def _writes(t: Tensor) -> int:
    """How often a tensor was written to; those of inference mode do not count, and are not kept."""
    return 0 if t.is_inference() else t._version


def _checked(parts: list[Any], shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of a matrix as `CSR` keeps them, checked."""
    data, indices, indptr = parts
    for name, t in zip(("data", "indices", "indptr"), parts, strict=True):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(t).__name__}")
    if data.ndim != 1 or data.shape != indices.shape:
        raise ValueError(f"data has shape {tuple(data.shape)}, indices {tuple(indices.shape)}")
    if "meta" in (data.device.type, indices.device.type, indptr.device.type):
        if tuple(indptr.shape) != (shape[0] + 1,):
            raise ValueError(f"indptr has shape {tuple(indptr.shape)}")
        return data, indices, indptr
    # the order of the entries first: values that are spread over processes come in it already
    places = torch.arange(len(indices), dtype=torch.float64)
    a = sparse.CSR(places, indices.detach(), indptr.detach(), shape)
    order = a.data.long()
    if not torch.equal(order, places.long()):
        data = data[order.to(data.device)]
    return data, a.indices.to(indices.device), a.indptr.to(indptr.device)
