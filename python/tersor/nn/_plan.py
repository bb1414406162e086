"""Which product a sparse layer takes. The one rule: a dense weight that is kept is that of the values at hand, or none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from tersor._op import AXES
from tersor.nn._sparse import LinearWeight
from tersor.sparse._crossover import FLOOR, MOST, SURE, costs
from tersor.sparse._straight import straight

PLANS = ("auto", "sparse", "dense")
#: values by which a kept weight is known to be of those at hand
SEEN = 64


class Chosen(LinearWeight):
    """A linear layer of a sparse weight that may have a dense one beside it."""

    plan = "auto"  # of layers pickled by earlier versions too

    def _known(self) -> None:
        if self.plan not in PLANS:
            raise ValueError(f"SparseLinear: plan must be 'auto', 'sparse' or 'dense', got {self.plan!r}")

    @property
    def plans(self) -> dict[int, str]:
        return dict(self.__dict__.get("_chosen", {}))

    def _plan(self, rows: int, data: Tensor) -> str:
        """The product of so many rows that is taken, without a gradient, of values on the CPU."""
        if self.plan != "auto":
            return self.plan
        bucket, chosen = max(rows - 1, 0).bit_length(), self.__dict__.setdefault("_chosen", {})
        found: str | None = chosen.get(1 << bucket)
        if found is None:
            size, found = self.in_features * self.out_features, "sparse"
            if size >= FLOOR and (size <= MOST or data.shape[0] > SURE * size):
                cost = costs(self._shape, 1 << bucket, data.dtype)
                found = "dense" if cost.dense < cost.sparse(data.shape[0] / size) else "sparse"
                chosen[1 << bucket] = found
        return found

    def _dense(self, data: Tensor) -> Tensor:
        """The dense weight of values at hand, made once."""
        kept: tuple[Any, ...] | None = self.__dict__.get("_made")
        if kept is not None:
            dense: Tensor
            dense, of, version, place, some, seen = kept
            alike = of is data and version == data._version and place == data.data_ptr() and torch.equal(some, seen)
            if alike and (data.grad is None or len(some) == data.shape[0]):
                return dense
        # a fused optimizer steps without a new version, and through bfloat16 may move few values: all are looked at then
        some = data.detach()[:: 1 if data.grad is not None else -(-data.shape[0] // SEEN) or 1]
        with torch.no_grad():
            dense = self._matrix(data).to_dense()
        self.__dict__["_made"] = dense, data, data._version, data.data_ptr(), some, some.clone()
        return dense

    def _straight(self, x: Tensor) -> Tensor | None:
        """The result, where nothing is out of the ordinary: for a few rows, asking is what a call costs.

        What is asked is all that `accept`, `lowered` and the entries of operators ask of such a tensor.
        """
        if torch.compiler.is_compiling():
            return None
        self._follow()
        parameters, buffers, kept = self._parameters, self._buffers, self.__dict__["_kept"]
        data, bias = parameters.get("data"), parameters.get("bias")
        if (
            type(x) is not Tensor
            or torch._C._is_tracing()
            or type(data) is not nn.Parameter
            or x.dtype is not data.dtype
            or not (x.is_cpu and data.is_cpu)
            or x.layout is not torch.strided
            or x.is_nested
            or not 0 < x.ndim <= AXES
            or x.shape[-1] != self.in_features
            or torch._C._is_any_autocast_enabled()
            or forward_ad._current_level >= 0
            or torch._C._are_functorch_transforms_active()
            or torch._C._len_torch_dispatch_stack()
            or buffers.get("indices") is not kept.indices
            or buffers.get("indptr") is not kept.indptr
            or not (bias is None or (type(bias) is nn.Parameter and bias.is_cpu and bias.dtype is data.dtype))
        ):
            return None
        if torch.is_grad_enabled() and (
            x.requires_grad or data.requires_grad or (bias is not None and bias.requires_grad)
        ):
            return None
        rows = x.numel() // self.in_features if self.in_features else x.shape[:-1].numel()
        if self._plan(rows, data) == "dense":
            if not data.is_inference():
                return F.linear(x, self._dense(data), bias)
            if self.plan == "dense":  # made at each call, as writes are not counted
                return None
        return straight(data, kept, x, rows, bias)

    def _forget(self) -> None:
        self.__dict__.pop("_made", None)

    def train(self, mode: bool = True) -> Chosen:
        self._forget()
        super().train(mode)
        return self
