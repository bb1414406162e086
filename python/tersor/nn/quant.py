"""A linear layer of quantized weights. The one rule: the weights it multiplies with are exactly those of its codes."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from tersor import _core, _torch, quant
from tersor._arrays import dtype_name, flag
from tersor._op import AXES
from tersor.nn._cast import accept, lowered
from tersor.nn._coded import Coded
from tersor.nn._linear import parts_of
from tersor.quant import Encoded, _panels
from tersor.quant._encoded import SCALES
from tersor.quant._encoded import scheme as find_scheme
from tersor.quant.product import GROUP, _packed_linear
from tersor.quant.qparams import least

#: types that are multiplied with packed codes on a CPU
_PACKED = (torch.float32, torch.float16, torch.bfloat16)
#: tensors with memory of their own, unlike those of a trace, say
_OWN = (Tensor, nn.Parameter)
#: float rows from which, without tiles of AMX, a product with the decoded weight takes less time, decoding included
MANY = 96
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


class QuantLinear(Coded):
    r"""A linear layer whose weight is kept encoded, :math:`y = x\hat W^\top + b`, and multiplied as it is.

    Parameters
    ----------
    weight : Encoded of tensors [out, in]
        What ``tersor.quant.encode`` made of the weight.
    bias : tensor [out], optional
    release : bool
        Whether the codes are given up once they are laid out as `panels`, which takes half the memory. A state, a copy and
        `encoded` make them again of the panels; where nothing is laid out (on a GPU, of float64, of dynamic8) and of floats of
        6 bits, which lie as others, they stay.
    activations : "float" or "int8"
        x as it is; or rounded to int8 by rows at every call (see `tersor.quant.packed_linear`), which is faster, and costs
        about as much accuracy as int8 weights do. Its gradient passes straight through.

    Attributes
    ----------
    data, scale, zero_point, outer : buffers, as in `Encoded`; data is empty where the codes were given up
    encoding : uint8 buffer, the scheme and the shape as text: what the codes of a state mean
    panels, table : buffers that no state holds, the same codes as products on a CPU read them and the numbers that they are
        places in, or None
    bias : [out] parameter or None

    Notes
    -----
    Codes and scales are buffers: they are saved and moved with the module and are not trained. The gradient flows to x and
    to the bias. ``layer.to(torch.bfloat16)`` changes the bias and nothing else: scales keep their precision. A state of
    another scheme or shape is an error of ``load_state_dict``.

    On a CPU rows of float32, float16 and bfloat16 are multiplied with the codes as `panels` hold them
    (`tersor.quant.packed_linear`), which takes the memory of the codes once more unless they are given up. Elsewhere the
    weight is decoded, in the dtype of x, and multiplied by torch's own product: for more than `MANY` rows of floats where the
    processor has no AMX, on a GPU, for float64, of dynamic8, and under the transforms of ``torch.func`` (of which those in
    forward mode are refused). There, without a gradient to record, all layers of a thread decode into the same memory. What
    reads `weight` by itself, as torch's own attention does, decodes it at every call. `repack` says when codes were
    overwritten behind a tensor's back; codes that were given up can only be exchanged by ``load_state_dict``.
    """

    panels: Tensor | None
    table: Tensor | None
    _released = False
    _sizes: Any = None

    def __init__(
        self, weight: Encoded, bias: Tensor | None = None, *, activations: str = "float", release: bool = False
    ) -> None:
        super().__init__(weight)
        self.release = flag("QuantLinear: release", release)
        if activations not in ("float", "int8"):
            raise ValueError(f"QuantLinear: activations must be 'float' or 'int8', got {activations!r}")
        self.out_features, self.in_features = weight.shape
        if bias is not None and not isinstance(bias, Tensor):
            raise TypeError(f"QuantLinear: bias must be a tensor, got {type(bias).__name__}")
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"QuantLinear: bias must have shape ({self.out_features},), got {tuple(bias.shape)}")
        self.register_buffer("panels", None, persistent=False)
        if not find_scheme(weight.scheme).places:
            self.table = None
        elif activations == "int8":
            raise ValueError(f"QuantLinear: int8 activations go with integer weights, {weight.scheme} are no integers")
        else:
            self.register_buffer("table", None, persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.activations = activations
        self.repack()

    @classmethod
    def from_float(
        cls, linear: nn.Linear, scheme: str, activations: str = "float", *, release: bool = False
    ) -> QuantLinear:
        """The layer ``linear`` with its weight encoded by ``scheme`` ("int8-row", "int4-g128", "nf4", …).

        The weight is that of a forward pass in ``eval`` mode, also under ``torch.nn.utils.prune``; a layer with a forward of
        its own, or with hooks that would be lost, is a TypeError.
        """
        weight, bias = parts_of("QuantLinear.from_float", linear)
        return cls(quant.encode(weight, scheme), bias, activations=activations, release=release)._as_frozen(bias)

    @classmethod
    def of(
        cls, weight: Encoded, linear: nn.Linear, activations: str = "float", *, release: bool = False
    ) -> QuantLinear:
        """The layer ``linear`` with these codes (of tensors or of NumPy arrays) for its weight, and its own bias.

        As `from_float`, but that nothing is encoded: for codes that were calibrated, say, or read from a file.
        """
        dense, bias = parts_of("QuantLinear.of", linear)
        if not isinstance(weight, Encoded):
            raise TypeError(f"QuantLinear.of: weight must be an Encoded, got {type(weight).__name__}")
        if tuple(weight.shape) != tuple(dense.shape):
            raise ValueError(f"QuantLinear.of: weight is {tuple(weight.shape)}, the layer's {tuple(dense.shape)}")
        parts = {
            k: torch.as_tensor(v).to(dense.device)
            for k in ("data", "scale", "zero_point", "outer")
            if (v := getattr(weight, k)) is not None
        }
        own = replace(weight, **parts, dtype=dtype_name(dense.dtype))
        return cls(own, bias, activations=activations, release=release)._as_frozen(bias)

    def _as_frozen(self, bias: Tensor | None) -> QuantLinear:
        """This layer, its bias trainable if that of the dense one was."""
        if self.bias is not None and bias is not None:
            self.bias.requires_grad_(bias.requires_grad)
        return self

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
        activations: str = "float",
    ) -> QuantLinear:
        """A layer of weights 0, for a state of this scheme to be loaded into."""
        how, dtype = find_scheme(scheme), dtype or torch.get_default_dtype()
        if how.group and in_features % how.group:
            raise ValueError(f"QuantLinear.empty: groups of {how.group} do not divide in_features = {in_features}")
        if how.block:
            raise ValueError(f"QuantLinear.empty: {scheme} is a layout of files, which no layer keeps")
        shape = how.steps((out_features, in_features))
        codes = torch.zeros(
            out_features, how.bytes(in_features), dtype=torch.int8 if how.raw else torch.uint8, device=device
        )
        kind = torch.uint8 if how.small or how.nested else torch.float64 if dtype == torch.float64 else torch.float32
        steps = torch.zeros(shape, dtype=kind, device=device)
        zero = torch.zeros(shape, dtype=torch.uint8, device=device) if how.affine else None
        over = () if not how.nested else (1 - -math.prod(shape) // SCALES,)
        outer = torch.zeros(over, device=device) if how.outer else None
        e = Encoded(codes, steps, zero, how.name, (out_features, in_features), dtype_name(dtype), outer)
        return cls(e, torch.zeros(out_features, device=device, dtype=dtype) if bias else None, activations=activations)

    def forward(self, x: Tensor) -> Tensor:
        if (whole := self._whole(x)) is not None:
            y: Tensor = _torch.WHOLE["quant.packed_linear"](whole)
            return y
        accept(self, x, self.in_features, like=self.bias)
        x, bias = lowered(x, self.bias)
        if (panels := self._laid_out(x)) is not None and self._sizes is not None:
            # the operator itself: what the public function asks of its arguments holds here
            y = _packed_linear(x, panels, bias, self.table, *self._sizes, self.activations == "int8")
            return y
        if self.activations == "int8":
            x = _rounded(x)
        e = replace(self.encoded, dtype=dtype_name(x.dtype))
        # what a backward will read must not be overwritten by the next layer
        if (torch.is_grad_enabled() and x.requires_grad) or not _plain(x, self.data):
            weight = quant.decode(e)
        else:
            weight = quant.decode(e, out=_scratch(self.shape, x.dtype, x.device))
        return torch.nn.functional.linear(x, weight, bias)

    def _whole(self, x: Tensor) -> tuple[Any, ...] | None:
        """All that the operator takes, where nothing is out of the ordinary: for a few rows, asking is what a call costs.

        What is asked is all that `accept`, `lowered`, `_laid_out` and the operator's own entry ask of such a tensor.
        """
        if (
            type(x) is not Tensor
            or torch.compiler.is_compiling()
            or not x.is_cpu
            or x.dtype not in _PACKED
            or x.layout is not torch.strided
            or not 0 < x.ndim <= AXES
            or x.shape[-1] != self.in_features
            or torch.is_autocast_enabled("cpu")
            or forward_ad._current_level >= 0
        ):
            return None
        panels = self._laid_out(x)
        bias = self.bias
        if panels is None or (bias is not None and not (type(bias) in _OWN and bias.is_cpu and bias.dtype == x.dtype)):
            return None
        table = self.table
        nothing = _torch._ABSENT
        return (
            x,
            panels,
            nothing if bias is None else bias,
            nothing if table is None else table,
            *self._sizes,
            self.activations == "int8",
        )

    def _key(self) -> tuple[Any, ...]:
        """What tells whether the codes are those that the panels were made of."""
        parts = self._buffers  # a call looks here every time: not by the way of attributes that a module does not have
        return _mark(parts["data"]), _mark(parts["scale"]), _mark(parts["zero_point"]), _mark(parts.get("outer"))

    @property
    def encoded(self) -> Encoded:
        return Encoded(self._codes(), self.scale, self.zero_point, self.scheme, self.shape, self.dtype, self.outer)

    def _codes(self) -> Tensor:
        """The codes as `Encoded` has them, of the panels where they were given up."""
        data: Tensor = self._buffers["data"]
        if not self._released:
            return data
        how, (outs, inputs, bits, groups, affine) = find_scheme(self.scheme), self._sizes
        # codes are no part of what a transform of torch.func transforms, and under one no tensor shows its memory
        with torch._C._DisableFuncTorch():
            u = _panels.codes(self._buffers["panels"].numpy(), inputs, bits, groups, affine).reshape(-1, inputs)[:outs]
            if how.affine or how.places:
                q = u
            else:
                q = (u.astype(np.int16) - (1 << bits - 1)).astype(np.int8)
            made = torch.from_numpy(np.ascontiguousarray(q))
            return made if how.raw or how.bits == 8 else quant.pack(made, how.bits)

    def _restore(self) -> None:
        """Has the codes back, before they go where panels do not."""
        if self._released:
            with torch.inference_mode(False):
                self.data, self._released = self._codes(), False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._restore()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._restore()
        super()._load_from_state_dict(*args)
        if self.release and not self._released:  # a state that was refused leaves the codes
            self.repack()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "data"] = self._codes()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_buffers": self._buffers | {"data": self._codes()}, "_released": False}

    def repack(self) -> None:
        if self._released:
            if self.data.numel():
                raise RuntimeError(
                    "QuantLinear: its codes were given up (release=True); others come by load_state_dict"
                )
            self._restore()  # other scales, say: the codes are still those of the panels
        here = _plain(self.data, self.scale) and self.data.device.type == "cpu"
        groups = self.scale.shape[1] if self.scale.ndim == 2 else 1
        whole = self.scale.dtype != torch.float64 and self.in_features // max(groups, 1) <= GROUP
        key, made = self._key(), None
        if here and whole:
            # codes that no product takes; and zero points that are no codes, as memory may hold before a state is loaded
            with contextlib.suppress(ValueError), torch.inference_mode(False):
                made = quant.prepack(self.encoded)
        # the key last: whoever finds it finds the panels
        self.panels, self.table = (None, None) if made is None else (made.panels, made.table)
        self._sizes = None if made is None else (*made.shape, made.bits, made.groups, made.affine)
        how = find_scheme(self.scheme)
        if (
            self.release
            and made is not None
            and self.in_features
            and self.out_features
            and not (how.small and how.bits == 6)
        ):
            self.data, self._released = self.data.new_empty((self.out_features, 0)), True
            key = self._key()
        self._packed_of = key

    def _laid_out(self, x: Tensor) -> Tensor | None:
        """The panels, if x is to be multiplied with them."""
        if x.dtype not in _PACKED or x.device.type != "cpu" or torch._C._are_functorch_transforms_active():
            return None
        if not torch.compiler.is_compiling():
            if type(x) not in _OWN or type(self._buffers["data"]) not in _OWN:
                return None
            if self._packed_of != self._key():
                self.repack()
            if self.activations == "float" and x.numel() > MANY * self.in_features and not _core.tiles():
                return None
        return self._buffers["panels"]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "release" not in state:  # pickled by an earlier version
            self.release = False
        if not hasattr(self, "table"):  # by one before that
            self.table = None
        if "panels" not in self._buffers:  # and by one before that
            self.out_features, self.in_features = self.shape
            self.register_buffer("panels", None, persistent=False)
            self.activations = "float"
        self.repack()  # those of another version may lie in another way

    def extra_repr(self) -> str:
        return f"{self.shape[1]}, {self.shape[0]}, {self.scheme}, bias={self.bias is not None}" + (
            "" if self.activations == "float" else f", activations={self.activations}"
        )


def _rounded(x: Tensor) -> Tensor:
    """x rounded to int8 by rows, as `tersor.quant.packed_linear` rounds it; the gradient passes straight through."""
    wide = x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    amax = wide.abs().amax(-1, keepdim=True) if x.shape[-1] else wide.new_zeros(*x.shape[:-1], 1)
    step = least(torch, amax / 127, amax, 127)
    return x + ((wide / step).round() * step - wide).to(x.dtype)


def _mark(t: Tensor | None) -> tuple[int, int, int] | None:
    """Which memory a tensor is and how often it was written, as far as a tensor can notice."""
    if t is None:
        return None
    return id(t), 0 if t.device.type == "meta" else t.data_ptr(), 0 if t.is_inference() else t._version


def _plain(*xs: Tensor) -> bool:
    """Whether tensors have memory of their own that a kernel may write and read at once."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and all(type(x) in _OWN and x.device.type != "meta" for x in xs)
    )
