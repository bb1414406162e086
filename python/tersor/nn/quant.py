"""A linear layer of quantized weights. The one rule: the weights it multiplies with are exactly those of its codes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tersor import quant
from tersor._arrays import dtype_name
from tersor.nn._cast import accept, lowered
from tersor.nn._linear import parts_of
from tersor.quant import Encoded
from tersor.quant._encoded import check_parts
from tersor.quant._encoded import scheme as find_scheme

#: per thread, the memory that weights are decoded into where no gradient has to find them later
_SCRATCH = threading.local()


def _scratch(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for one decoded weight, shared by all layers of a thread, as large as the largest of them."""
    kept: dict[Any, Tensor] = _SCRATCH.__dict__.setdefault("kept", {})
    memory = kept.get((dtype, device))
    n = math.prod(shape)
    if memory is None or memory.numel() < n:
        memory = kept[dtype, device] = torch.empty(n, dtype=dtype, device=device)
    return memory[:n].view(shape)


class QuantLinear(nn.Module):
    r"""A linear layer whose weight is kept encoded, :math:`y = x\hat W^\top + b` with :math:`\hat W` decoded as it is used.

    Parameters
    ----------
    weight : Encoded of tensors [out, in]
        What ``tersor.quant.encode`` made of the weight.
    bias : tensor [out], optional

    Attributes
    ----------
    data, scale, zero_point : buffers, as in `Encoded`
    encoding : uint8 buffer, the scheme and the shape as text: what the codes of a state mean
    bias : [out] parameter or None

    Notes
    -----
    Codes and scales are buffers: they are saved and moved with the module and are not trained. The gradient flows to x and
    to the bias. The weight is decoded in the dtype of x, so ``layer.to(torch.bfloat16)`` changes the bias and nothing else:
    scales keep their precision. Without a gradient to record, all layers of a thread decode into the same memory. A state of
    another scheme or shape is an error of ``load_state_dict``.
    """

    data: Tensor
    scale: Tensor
    zero_point: Tensor | None
    encoding: Tensor

    def __init__(self, weight: Encoded, bias: Tensor | None = None) -> None:
        super().__init__()
        if not isinstance(weight, Encoded) or not isinstance(weight.data, Tensor):
            kind = "an Encoded of NumPy arrays" if isinstance(weight, Encoded) else type(weight).__name__
            raise TypeError(f"QuantLinear: weight must be an Encoded of tensors, got {kind}")
        if len(weight.shape) != 2:
            raise ValueError(f"QuantLinear: weight must be [out, in], got shape {weight.shape}")
        check_parts("QuantLinear", weight)
        self.scheme, self.shape, self.dtype = weight.scheme, weight.shape, weight.dtype
        self.out_features, self.in_features = weight.shape
        if bias is not None and not isinstance(bias, Tensor):
            raise TypeError(f"QuantLinear: bias must be a tensor, got {type(bias).__name__}")
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"QuantLinear: bias must have shape ({self.out_features},), got {tuple(bias.shape)}")
        self.register_buffer("data", weight.data)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("zero_point", weight.zero_point)
        self.register_buffer("encoding", self._text())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: str) -> QuantLinear:
        """The layer ``linear`` with its weight encoded by ``scheme`` ("int8-row", "int4-g128", …).

        The weight is that of a forward pass in ``eval`` mode, also under ``torch.nn.utils.prune``; a layer with a forward of
        its own, or with hooks that would be lost, is a TypeError.
        """
        weight, bias = parts_of("QuantLinear.from_float", linear)
        return cls(quant.encode(weight, scheme), bias)

    @classmethod
    def empty(
        cls,
        in_features: int,
        out_features: int,
        scheme: str,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> QuantLinear:
        """A layer of weights 0, for a state of this scheme to be loaded into."""
        how, dtype = find_scheme(scheme), dtype or torch.get_default_dtype()
        if how.group and in_features % how.group:
            raise ValueError(f"QuantLinear.empty: groups of {how.group} do not divide in_features = {in_features}")
        shape = () if how.group is None else (out_features, in_features // how.group if how.group else 1)
        codes = torch.zeros(
            out_features, how.bytes(in_features), dtype=torch.int8 if how.raw else torch.uint8, device=device
        )
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        steps = torch.zeros(shape, dtype=kind, device=device)
        zero = torch.zeros(shape, dtype=torch.uint8, device=device) if how.affine else None
        e = Encoded(codes, steps, zero, scheme, (out_features, in_features), dtype_name(dtype))
        return cls(e, torch.zeros(out_features, device=device, dtype=dtype) if bias else None)

    def _text(self) -> Tensor:
        text = f"{self.scheme} {self.out_features}x{self.in_features}"
        return torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.data.device)

    @property
    def encoded(self) -> Encoded:
        """The weight as `tersor.quant.decode` takes it."""
        return Encoded(self.data, self.scale, self.zero_point, self.scheme, self.shape, self.dtype)

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for."""
        decoded: Tensor = quant.decode(self.encoded)
        return decoded

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, self.in_features, like=self.bias)
        x, bias = lowered(x, self.bias)
        e = replace(self.encoded, dtype=dtype_name(x.dtype))
        # what a backward will read must not be overwritten by the next layer
        if (torch.is_grad_enabled() and x.requires_grad) or not _plain(x, self.data):
            weight = quant.decode(e)
        else:
            weight = quant.decode(e, out=_scratch(self.shape, x.dtype, x.device))
        return torch.nn.functional.linear(x, weight, bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantLinear:
        exact = self.scale
        super()._apply(fn, recurse)
        if self.scale.dtype != exact.dtype:
            self.scale = exact.to(self.scale.device)
        self.encoding = self._text()  # `to_empty` leaves buffers as the memory was
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], strict: bool, *rest: list[str]
    ) -> None:
        missing, _, errors = rest
        key, mine = prefix + "encoding", f"{self.scheme} {self.out_features}x{self.in_features}"
        given, names = (
            state_dict.get(key),
            [prefix + k for k in ("data", "scale", "zero_point") if getattr(self, k) is not None],
        )
        if given is not None and given.device.type != "meta":
            text = bytes(given.tolist()).decode(errors="replace")
            if text != mine:
                errors.append(f"QuantLinear: {prefix}data is encoded as {text}, the layer as {mine}")
                return
        for k in names:
            own, other = getattr(self, k.removeprefix(prefix)), state_dict.get(k)
            # a copy converts in silence
            if other is not None and not own.is_floating_point() and other.dtype != own.dtype:
                kinds = dtype_name(other.dtype), dtype_name(own.dtype)
                errors.append(f"QuantLinear: {k} is {kinds[0]}, the layer ({mine}) has {kinds[1]}")
                return
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *rest)
        if given is None and prefix + "data" in state_dict and key in missing:
            missing.remove(key)  # saved by an earlier version: shapes and types are what there is to check

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "encoding" not in self._buffers:  # pickled by an earlier version
            self.out_features, self.in_features = self.shape
            self.register_buffer("encoding", self._text())

    def extra_repr(self) -> str:
        return f"{self.shape[1]}, {self.shape[0]}, {self.scheme}, bias={self.bias is not None}"


def _plain(*xs: Tensor) -> bool:
    """Whether tensors have memory of their own that a kernel may write and read at once."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and all(type(x) in (Tensor, nn.Parameter) and x.device.type != "meta" for x in xs)
    )
