"""A linear layer of quantized weights. The one rule: the weights it multiplies with are exactly those of its codes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from tersor import _torch
from tersor._arrays import dtype_name
from tersor._op import AXES
from tersor.nn._cast import accept, lowered
from tersor.nn._linear import parts_of
from tersor.nn._product import _OWN, _PACKED, Product, encoded_as, kept_scheme, own_codes
from tersor.quant import Encoded
from tersor.quant._encoded import SCALES


class QuantLinear(Product):
    r"""A linear layer whose weight is kept encoded, :math:`y = f(x\hat W^\top + b)`, and multiplied as it is.

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
    activation : "relu", "gelu" or "silu", optional
        A function of each result, made before it is written: what would else be a layer of its own.

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
    weight is decoded, in the dtype of x, and multiplied by torch's own product: for more than `MANY` rows of bfloat16, or of
    float32 whose gradient is recorded, where the processor has no AMX, on a GPU, for float64, of dynamic8, and under the
    transforms of ``torch.func`` (of which those in forward mode are refused). There, without a gradient to record, all layers
    of a thread decode into the same memory. What reads `weight` by itself, as torch's own attention does, decodes it at every
    call. A row has the same bits whatever rows are beside it where panels are multiplied (tiles of AMX aside); a decoded weight
    of bfloat16 is rounded to it and summed by torch, so that among more than `MANY` rows they differ from the row's
    own. `repack` says when codes were overwritten behind a tensor's back; codes that were given up can only be exchanged by
    ``load_state_dict``.
    """

    def __init__(
        self,
        weight: Encoded,
        bias: Tensor | None = None,
        *,
        activations: str = "float",
        release: bool = False,
        activation: str | None = None,
    ) -> None:
        super().__init__(weight, bias, activations, release, activation)
        self.out_features, self.in_features = weight.shape

    @classmethod
    def from_float(
        cls,
        linear: nn.Linear,
        scheme: str,
        activations: str = "float",
        *,
        release: bool = False,
        activation: str | None = None,
    ) -> QuantLinear:
        """The layer ``linear`` with its weight encoded by ``scheme`` ("int8-row", "int4-g128", "nf4", …).

        The weight is that of a forward pass in ``eval`` mode, also under ``torch.nn.utils.prune``; a layer with a forward of
        its own, or with hooks that would be lost, is a TypeError.
        """
        weight, _ = parts_of("QuantLinear.from_float", linear)
        return cls.of(
            encoded_as("QuantLinear.from_float", weight, scheme),
            linear,
            activations,
            release=release,
            activation=activation,
        )

    @classmethod
    def of(
        cls,
        weight: Encoded,
        linear: nn.Linear,
        activations: str = "float",
        *,
        release: bool = False,
        activation: str | None = None,
    ) -> QuantLinear:
        """The layer ``linear`` with these codes (of tensors or of NumPy arrays) for its weight, and its own bias.

        As `from_float`, but that nothing is encoded: for codes that were calibrated, say, or read from a file. Blocks of GGUF
        become int4, int5 or int8 with a scale for 32 of them, or mxfp4, the same numbers; "q4_1" is a ValueError.
        """
        dense, bias = parts_of("QuantLinear.of", linear)
        own = own_codes("QuantLinear.of", weight, dense)
        layer = cls(own, bias, activations=activations, release=release, activation=activation)
        return layer._as_frozen(bias)

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
        release: bool = False,
        activation: str | None = None,
    ) -> QuantLinear:
        """A layer of weights 0, for a state of this scheme to be loaded into."""
        how, dtype = kept_scheme("QuantLinear.empty", scheme), dtype or torch.get_default_dtype()
        if how.group and in_features % how.group:
            raise ValueError(f"QuantLinear.empty: groups of {how.group} do not divide in_features = {in_features}")
        shape = how.steps((out_features, in_features))
        codes = torch.zeros(
            out_features, how.bytes(in_features), dtype=torch.int8 if how.raw else torch.uint8, device=device
        )
        kind = (
            torch.uint8
            if how.small or how.nested or how.power
            else torch.float64
            if dtype == torch.float64
            else torch.float32
        )
        steps = torch.zeros(shape, dtype=kind, device=device)
        zero = torch.zeros(shape, dtype=torch.uint8, device=device) if how.affine else None
        over = () if not how.nested else (1 - -math.prod(shape) // SCALES,)
        outer = torch.zeros(over, device=device) if how.outer else None
        e = Encoded(codes, steps, zero, how.name, (out_features, in_features), dtype_name(dtype), outer)
        zeros = torch.zeros(out_features, device=device, dtype=dtype) if bias else None
        return cls(e, zeros, activations=activations, release=release, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        if (whole := self._whole(x)) is not None:
            y: Tensor = _torch.WHOLE["quant.packed_linear"](whole)
            return y
        accept(self, x, self.in_features, like=self.bias)
        x, bias = lowered(x, self.bias)
        return self._multiply(x, bias)

    def _whole(self, x: Tensor) -> tuple[Any, ...] | None:
        """All that the operator takes, where nothing is out of the ordinary: for a few rows, asking is what a call costs.

        What is asked is all that `accept`, `lowered`, `_laid_out` (but once) and the operator's own entry ask of such a tensor.
        """
        if (
            type(x) is not Tensor
            or self.activation is not None
            or torch.compiler.is_compiling()
            or not x.is_cpu
            or x.dtype not in _PACKED
            or x.layout is not torch.strided
            or not 0 < x.ndim <= AXES
            or x.shape[-1] != self.in_features
            or torch.is_autocast_enabled("cpu")
            or forward_ad._current_level >= 0
            or torch._C._are_functorch_transforms_active()
        ):
            return None
        panels = self._kept(x, x.numel())
        bias: Tensor | None = self._parameters.get("bias")  # not by the way of attributes that a module does not have
        if bias is None:
            bias = self.bias  # none, or one that a parametrization makes
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

    def extra_repr(self) -> str:
        return f"{self.shape[1]}, {self.shape[0]}, {self._options()}"
