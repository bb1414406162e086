"""What layers that multiply with encoded weights share. The one rule: the weights they multiply with are exactly those of their
codes, laid out anew whenever the codes change.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tersor import _core, quant
from tersor._arrays import dtype_name, flag, is_tensor
from tersor.nn._coded import Coded
from tersor.quant import Encoded, _panels
from tersor.quant._encoded import Scheme, check_parts
from tersor.quant._encoded import scheme as find_scheme
from tersor.quant._gguf import KINDS
from tersor.quant._products import AFTER, GROUP, _packed_activated, _packed_linear
from tersor.quant._unblocked import unblocked
from tersor.quant.product import recorded
from tersor.quant.qparams import least

P = TypeVar("P", bound="Product")

#: types that are multiplied with packed codes on a CPU
_PACKED = (torch.float32, torch.float16, torch.bfloat16)
#: tensors with memory of their own, unlike those of a trace, say
_OWN = (Tensor, nn.Parameter)
#: float rows from which, without tiles of AMX, torch's own product with the decoded weight may take less time, decoding
#: included: of bfloat16, of float32 where a gradient is recorded, and without vectors
MANY = 96
_VECTORS = ("avx2", "avx512")
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


class Product(Coded):
    """A `Coded` of [out, in] that rows are multiplied with: by panels made of its codes, or by the decoded weight."""

    bias: Tensor | None
    panels: Tensor | None
    table: Tensor | None
    _released = False
    _sizes: Any = None

    def __init__(
        self, weight: Encoded, bias: Tensor | None, activations: str, release: bool, activation: str | None
    ) -> None:
        super().__init__(weight)
        who, (outs, _) = type(self).__name__, weight.shape
        self.release = flag(f"{who}: release", release)
        if activations not in ("float", "int8"):
            raise ValueError(f"{who}: activations must be 'float' or 'int8', got {activations!r}")
        if activation not in AFTER:
            raise ValueError(f"{who}: activation must be 'relu', 'gelu', 'silu' or None, got {activation!r}")
        if bias is not None and not isinstance(bias, Tensor):
            raise TypeError(f"{who}: bias must be a tensor, got {type(bias).__name__}")
        if bias is not None and tuple(bias.shape) != (outs,):
            raise ValueError(f"{who}: bias must have shape ({outs},), got {tuple(bias.shape)}")
        self.register_buffer("panels", None, persistent=False)
        if not find_scheme(weight.scheme).places:
            self.table = None
        elif activations == "int8":
            raise ValueError(f"{who}: int8 activations go with integer weights, {weight.scheme} are no integers")
        else:
            self.register_buffer("table", None, persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.activations, self.activation = activations, activation
        self.repack()

    def _as_frozen(self: P, bias: Tensor | None) -> P:
        """This layer, its bias trainable if that of the dense one was."""
        if self.bias is not None and bias is not None:
            self.bias.requires_grad_(bias.requires_grad)
        return self

    def _multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Rows times the weight, plus the bias, and the activation."""
        if (panels := self._laid_out(x)) is not None and self._sizes is not None:
            # the operators themselves: what the public function asks of its arguments holds here
            given = (x, panels, bias, self.table, *self._sizes, self.activations == "int8")
            if self.activation is None or recorded(x, bias):
                y: Tensor = _packed_linear(*given)
                return self._bent(y)
            bias = None if bias is None else bias.detach()
            bent: Tensor = _packed_activated(x.detach(), panels, bias, *given[3:], AFTER[self.activation])
            return bent
        if self.activations == "int8":
            x = _rounded(x)
        return self._bent(torch.nn.functional.linear(x, self._decoded(x), bias))

    def _bent(self, y: Tensor) -> Tensor:
        """The activation, as torch has it."""
        bent: Tensor = getattr(torch.nn.functional, self.activation)(y) if self.activation else y
        return bent

    def _decoded(self, x: Tensor) -> Tensor:
        """The weight [out, in] in the type of x, in memory that the next call may overwrite unless a backward will read it."""
        e = replace(self.encoded, dtype=dtype_name(x.dtype))
        if (torch.is_grad_enabled() and x.requires_grad) or not _plain(x, self.data):
            own: Tensor = quant.decode(e)
            return own
        decoded: Tensor = quant.decode(e, out=_scratch(self.shape, x.dtype, x.device))
        return decoded

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
        if not self._released or data.numel():
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

    def _in_order(self) -> Encoded:
        """The weight as the panels have its columns."""
        return self.encoded

    def repack(self) -> None:
        if self._released:
            if self.data.numel():
                raise RuntimeError(
                    f"{type(self).__name__}: its codes were given up (release=True); others come by load_state_dict"
                )
            self._restore()  # other scales, say: the codes are still those of the panels
        here = _plain(self.data, self.scale) and self.data.device.type == "cpu"
        (outs, inputs), groups = self.shape, self.scale.shape[1] if self.scale.ndim == 2 else 1
        whole = self.scale.dtype != torch.float64 and inputs // max(groups, 1) <= GROUP
        key, made = self._key(), None
        if here and whole:
            # codes that no product takes; and zero points that are no codes, as memory may hold before a state is loaded
            with contextlib.suppress(ValueError), torch.inference_mode(False):
                made = quant.prepack(self._in_order())
        # the key last: whoever finds it finds the panels
        self.panels, self.table = (None, None) if made is None else (made.panels, made.table)
        self._sizes = None if made is None else (*made.shape, made.bits, made.groups, made.affine)
        how = find_scheme(self.scheme)
        if self.release and made is not None and inputs and outs and not (how.small and how.bits == 6):
            self.data, self._released = self.data.new_empty((outs, 0)), True
            key = self._key()
        self._packed_of, self._said_by = key, id(self.encoding)

    def _laid_out(self, x: Tensor, numbers: int | None = None) -> Tensor | None:
        """The panels, if x is to be multiplied with them, or so many numbers that are made of it."""
        if x.dtype not in _PACKED or not x.is_cpu or torch._C._are_functorch_transforms_active():
            return None
        if torch.compiler.is_compiling():
            return self._buffers["panels"]
        return self._kept(x, x.numel() if numbers is None else numbers, numbers is None) if type(x) in _OWN else None

    def _kept(self, x: Tensor, numbers: int, rows: bool = True) -> Tensor | None:
        """The same of a type that is multiplied with panels, outside of a trace; `rows`: x itself, not what is made of it."""
        if type(self._buffers["data"]) not in _OWN:
            return None
        if self._packed_of != self._key():
            if self._lent():
                return None
            self.repack()
        if (
            numbers > MANY * self.shape[1]
            and self.activations == "float"
            and not _core.tiles()
            and not (rows and _summed(x))
        ):
            return None
        return self._buffers["panels"]

    def _lent(self) -> bool:
        """Whether a whole state stands in for this layer's for a while, as `torch.func.functional_call` has it: codes that come
        with their encoding, where this layer has given its own up. They are decoded; the panels are those of its own."""
        return self._released and self.data.numel() > 0 and id(self.encoding) != self._said_by

    def _options(self) -> str:
        said = [self.scheme, f"bias={self.bias is not None}"]
        said += [] if self.activations == "float" else [f"activations={self.activations}"]
        return ", ".join(said + ([f"activation={self.activation}"] if self.activation else []))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "activation" not in state:  # pickled by an earlier version
            self.activation = None
        if "release" not in state:  # by one before that
            self.release = False
        if not hasattr(self, "table"):  # by one before that
            self.table = None
        if "panels" not in self._buffers:  # and by one before that
            self.register_buffer("panels", None, persistent=False)
            self.activations = "float"
        self.repack()  # those of another version may lie in another way


def _summed(x: Tensor) -> bool:
    """Whether the kernels of packed codes sum many rows of x no slower than torch sums those of a dense weight.

    Of float16 it has no fast product on a CPU: with a gradient too it takes six times as long, without one fifteen times.
    """
    taken = x.dtype == torch.float16 or (x.dtype == torch.float32 and not (torch.is_grad_enabled() and x.requires_grad))
    return taken and _core.level()[0] in _VECTORS


def kept_scheme(who: str, scheme: str) -> Scheme:
    """A scheme by its name, if layers keep such codes."""
    how = find_scheme(scheme, who)
    if how.block:
        raise ValueError(f"{who}: {scheme} is a layout of files, which no layer keeps")
    return how


def encoded_as(who: str, weight: Tensor, scheme: str) -> Encoded:
    """A weight in codes that layers keep."""
    kept_scheme(who, scheme)
    return quant.encode(weight, scheme)


def own_codes(who: str, weight: Encoded, dense: Tensor) -> Encoded:
    """Codes of tensors or of NumPy arrays as those of this dense weight."""
    if not isinstance(weight, Encoded):
        raise TypeError(f"{who}: weight must be an Encoded, got {type(weight).__name__}")
    if tuple(weight.shape) != tuple(dense.shape):
        raise ValueError(f"{who}: weight is {tuple(weight.shape)}, the layer's {tuple(dense.shape)}")
    check_parts(who, weight)
    if dense.device.type != "meta" and any(is_tensor(v) and v.device.type == "meta" for v in weight.parts.values()):
        raise ValueError(f"{who}: weight is on meta, where there are no codes, and the layer on {dense.device}")
    if weight.scheme in KINDS:
        weight = unblocked(who, weight)
    parts = {k: torch.as_tensor(v).to(dense.device) for k, v in weight.parts.items()}
    return replace(weight, **parts, dtype=dtype_name(dense.dtype))


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
    return id(t), 0 if t.is_meta else t.data_ptr(), 0 if t.is_inference() else t._version


def _plain(*xs: Tensor) -> bool:
    """Whether tensors have memory of their own that a kernel may write and read at once."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and all(type(x) in _OWN and x.device.type != "meta" for x in xs)
    )
