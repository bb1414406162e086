"""Linear layers of few weights on plain tensors. The one rule: what was asked once is asked again where it may have changed, by
whichever question is cheapest: for a few rows, asking is what a call costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tersor._op import AXES
from tersor.nn._sparse import LinearWeight
from tersor.sparse._pattern import Pattern
from tersor.sparse._straight import seen_by_others

FLOATS = frozenset((torch.float64, torch.float32, torch.float16, torch.bfloat16))
#: shapes of x of which is kept how they are multiplied
SHAPES = 256

# names of torch, found once: a look-up costs as much as most of what is asked here
_STRIDED, _recording, _linear = torch.strided, torch.is_grad_enabled, torch.nn.functional.linear
_compiling = torch.compiler.is_dynamo_compiling
_tracing, _casts = torch._C._is_tracing, torch._C._is_any_autocast_enabled


#: What a product reads beside x, as it was found to be: the type of x, the plan, values, scales, bias, places, and how often
#: these two were written to; then how x of which shape are multiplied. A tuple, as nothing else is taken apart as fast.
Parts = tuple[
    torch.dtype, str, Tensor, Tensor | None, Tensor | None, Pattern, Tensor, int, Tensor, int, dict[torch.Size, str]
]


class Straight(LinearWeight):
    """A linear layer that keeps what it was found to be."""

    plan = "sparse"
    #: whether the values are codes, in a buffer, and have scales
    _coded = False
    _ready: Parts | None = None

    def _which(self, rows: int, data: Tensor) -> str | None:
        """The product of so many rows; None where there is none without a gradient."""
        return self.plan

    def _dense(self, data: Tensor) -> Tensor:
        """The dense weight of values at hand, where products are dense."""
        raise NotImplementedError

    def _product(
        self, data: Tensor, scale: Any, places: Pattern, x: Tensor, bias: Tensor | None, lanes: bool
    ) -> Tensor:
        """The sparse product, of which nothing is asked."""
        raise NotImplementedError

    def _straight(self, x: Tensor) -> Tensor | None:
        """The result, or None where anything is out of the ordinary, which `forward` then takes."""
        if _compiling():
            return None
        ready = self._ready
        if ready is not None and type(x) is Tensor:
            dtype, plan, data, scale, bias, kept, indices, writes, indptr, others, ways = ready
            parameters, buffers = self._parameters, self._buffers
            try:
                if (
                    x.is_cpu
                    and x.layout is _STRIDED
                    and self.plan is plan
                    and (parameters if scale is None else buffers)["data"] is data
                    and parameters["bias"] is bias
                    and buffers["indices"] is indices
                    and buffers["indptr"] is indptr
                    and (scale is None or buffers["scale"] is scale)
                    and indices._version == writes
                    and indptr._version == others
                    and not _tracing()
                    and not _casts()
                    and not (_recording() and _recorded(x, data, bias))
                ):
                    way = ways[x.shape]
                    if way == "dense":  # one like any other to what else may watch, and x of another type an error
                        return _linear(x, self._dense(data), bias)
                    if x.dtype is dtype and not seen_by_others():
                        return self._product(data, scale, kept, x, bias, way == "lanes")
            # a part was taken away or cut short, a shape is new, and a nested tensor has none
            except (KeyError, RuntimeError, ValueError):
                pass
        found = self._found(x)
        if found is None:
            return None
        (_, _, data, scale, bias, kept, *_), way = found
        if way == "dense":
            return _linear(x, self._dense(data), bias)
        return self._product(data, scale, kept, x, bias, way == "lanes")

    def _found(self, x: Tensor) -> tuple[Parts, str] | None:
        """The parts and which product it is, asked in full: all that `accept`, `lowered` and the entries of operators ask."""
        if type(x) is not Tensor:
            return None
        self._follow()
        parameters, buffers, kept = self._parameters, self._buffers, self.__dict__["_kept"]
        data, bias, scale = (buffers if self._coded else parameters).get("data"), parameters.get("bias"), None
        if type(data) is not (Tensor if self._coded else nn.Parameter):
            return None
        if self._coded and (type(scale := buffers.get("scale")) is not Tensor or not scale.is_cpu):
            return None
        if (
            x.dtype not in FLOATS
            or not (self._coded or x.dtype is data.dtype)
            or not (x.is_cpu and data.is_cpu)
            or x.layout is not _STRIDED
            or x.is_nested
            or not 0 < x.ndim <= AXES
            or x.shape[-1] != self.in_features
            or buffers.get("indices") is not kept.indices
            or data.shape != kept.indices.shape
            or buffers.get("indptr") is not kept.indptr
            or not (bias is None or (type(bias) is nn.Parameter and bias.is_cpu and bias.dtype is x.dtype))
            or not (bias is None or bias.shape == (self.out_features,))
            or _tracing()
            or _casts()
            or seen_by_others()
            or (_recording() and _recorded(x, data, bias))
        ):
            return None
        rows = x.numel() // self.in_features if self.in_features else x.shape[:-1].numel()
        way = self._which(rows, data)
        if way is None:
            return None
        if way == "sparse" and kept.brief(x):
            way = "lanes"
        ready = self._ready
        alike = ready is not None and ready[2] is data and ready[0] is x.dtype and ready[1] == self.plan
        ways = ready[-1] if ready is not None and alike and len(ready[-1]) < SHAPES else {}
        ways[x.shape] = way
        writes = self.__dict__["_written"]
        places = kept.indices, writes[0], kept.indptr, writes[1]
        parts: Parts = (x.dtype, self.plan, data, scale, bias, kept, *places, ways)
        if not (data.is_inference() or kept.indices.is_inference() or kept.indptr.is_inference()):
            self._ready = parts  # of the others no write can be told
        return parts, way


def _recorded(x: Tensor, data: Tensor, bias: Tensor | None) -> bool:
    return x.requires_grad or data.requires_grad or (bias is not None and bias.requires_grad)
