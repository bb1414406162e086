"""Which product a sparse layer takes. The one rule: a dense weight that is kept is that of the values at hand, or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tersor.nn._straight import Straight
from tersor.sparse._crossover import FLOOR, MOST, SURE, costs
from tersor.sparse._pattern import Pattern
from tersor.sparse._straight import straight

PLANS = ("auto", "sparse", "dense")
#: bytes of values up to which a kept weight is known by all of them, and how many values it is known by if there are more
WHOLE, SEEN = 1 << 12, 64
#: how much longer a dense product may take than a sparse one, whose call has more around it, and still be taken
LONGER = 1.05
#: the integers that have the bits of values
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Chosen(Straight):
    """A linear layer of a sparse weight that may have a dense one beside it."""

    plan = "auto"  # of layers pickled by earlier versions too
    _made: tuple[Tensor, Tensor, int, int, int, bool, Any, Any] | None = None

    def _known(self) -> None:
        if self.plan not in PLANS:
            raise ValueError(f"SparseLinear: plan must be 'auto', 'sparse' or 'dense', got {self.plan!r}")

    @property
    def plans(self) -> dict[int, str]:
        return dict(self.__dict__.get("_chosen", {}))

    def _which(self, rows: int, data: Tensor) -> str | None:
        """The product of so many rows that is taken, without a gradient, of values on the CPU."""
        self._known()
        if self.plan == "dense" and data.is_inference():  # made at each call, as writes are not counted
            return None
        if self.plan != "auto":
            return self.plan
        bucket, chosen = max(rows - 1, 0).bit_length(), self.__dict__.setdefault("_chosen", {})
        found: str | None = chosen.get(1 << bucket)
        if found is None:
            size = self.in_features * self.out_features
            if FLOOR <= size <= MOST or (size > MOST and data.shape[0] > SURE * size):
                cost = costs(self._shape, 1 << bucket, data.dtype)
                found = "dense" if cost.dense < LONGER * cost.sparse(data.shape[0] / size) else "sparse"
            else:
                found = "dense" if size < FLOOR else "sparse"
            chosen[1 << bucket] = found
        return "sparse" if data.is_inference() else found

    def _dense(self, data: Tensor) -> Tensor:
        """The dense weight of values at hand, made once."""
        made = self._made
        if made is not None:
            dense, of, count, version, place, every, some, seen = made
            # where the values are is asked before they are read: memory that was given up is not
            if data.data_ptr() == place and of is data:
                if every:
                    alike = some.tobytes() == seen
                else:
                    alike = data._version == version and data.grad is None and some == seen
                if alike and data.numel() == count:
                    return dense
        # a fused optimizer steps without a new version, and through bfloat16 may move few values: all are looked at then;
        # bits, since no NaN is itself
        values = np.from_dlpack(data.detach().view(BITS[data.itemsize]))
        every = data.grad is not None or values.nbytes <= WHOLE
        if every:
            some, seen = values, values.tobytes()
        else:  # a view of memory is compared sooner than an array
            values = values[:: -(-len(values) // SEEN)]
            some, seen = memoryview(values), memoryview(values.copy())
        with torch.no_grad():
            dense = self._matrix(data).to_dense()
        self._made = dense, data, data.numel(), data._version, data.data_ptr(), every, some, seen
        return dense

    def _product(
        self, data: Tensor, scale: Any, places: Pattern, x: Tensor, bias: Tensor | None, lanes: bool
    ) -> Tensor:
        return straight(data, places, x, bias, lanes)

    def _forget(self) -> None:
        if not torch.compiler.is_dynamo_compiling():
            self.__dict__.pop("_made", None)
        # a graph does at each call what is assigned as it is traced, and takes away only what was there then
        elif torch.is_grad_enabled() and not torch.compiler.is_exporting():
            self._made = None

    def train(self, mode: bool = True) -> Chosen:
        self._forget()
        super().train(mode)
        return self
