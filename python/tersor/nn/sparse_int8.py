"""Linear layers whose weights were pruned and quantized. The one rule: places are those of a sparse layer, values are codes,
which are not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersor import sparse
from tersor._arrays import dtype_name
from tersor.nn._cast import accept, as_node, lowered
from tersor.nn._linear import parts_of
from tersor.nn._straight import Straight
from tersor.sparse._pattern import Pattern
from tersor.sparse._straight import straight_coded
from tersor.sparse.codes import Int8CSR, coded, decoded


class SparseInt8Linear(Straight):
    r"""A linear layer with a sparse weight of int8 codes and a scale for each row, :math:`y = xQ^\top\mathrm{diag}(s) + b`.

    Parameters
    ----------
    weight : Int8CSR of tensors [out, in]
    bias : tensor [out], optional

    Attributes
    ----------
    data : [nnz] int8 buffer, the codes by rows
    scale : [out] float32 buffer
    indices, indptr : [nnz], [out + 1] buffers, where the codes stand
    bias : [out] parameter or None

    Notes
    -----
    Takes every float type and sends gradients to x and to the bias: codes are not trained. The bits of a row do not depend
    on the other rows. ``layer.to(torch.bfloat16)`` changes the bias and nothing else. A state holds the pattern; codes of
    another number of entries resize the layer; values that are no int8 and scales beyond float32 are among the errors of
    ``load_state_dict``. On a GPU the codes are decoded, at every call.
    """

    scale: Tensor
    _coded = True

    def __init__(self, weight: Int8CSR, bias: Tensor | None = None) -> None:
        nn.Module.__init__(self)
        if not isinstance(weight, Int8CSR) or not isinstance(weight._codes, Tensor):
            kind = "one of NumPy arrays" if isinstance(weight, Int8CSR) else type(weight).__name__
            raise TypeError(f"SparseInt8Linear: weight must be an Int8CSR of tensors, got {kind}")
        self._sized(*weight.shape)
        self.register_buffer("data", weight.codes)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("indices", weight.indices)
        self.register_buffer("indptr", weight.indptr)
        self._take_bias(bias)
        self._know()

    @classmethod
    def from_dense(cls, linear: nn.Linear, mask: Tensor | None = None) -> SparseInt8Linear:
        """The layer ``linear`` with the weights that ``mask`` keeps, or that are not zero, each rounded by `Int8CSR.of`.

        The weight is that of `SparseLinear.from_dense`, and so are the refusals.
        """
        weight, bias = parts_of("SparseInt8Linear.from_dense", linear)
        return cls(Int8CSR.of(sparse.from_dense(weight.detach(), mask)), bias)

    def _room(self, shape: torch.Size) -> Any:
        return self.data.new_empty(shape)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], strict: bool, *rest: list[str]
    ) -> None:
        codes, scale = (state_dict.get(prefix + k) for k in ("data", "scale"))
        wrong = []
        if isinstance(codes, Tensor) and codes.dtype != torch.int8:
            wrong.append(f"{prefix}data is {dtype_name(codes.dtype)}, the values of the layer are int8")
        if isinstance(scale, Tensor) and not scale.is_floating_point():
            wrong.append(f"{prefix}scale is {dtype_name(scale.dtype)}, that of the layer is float32")
        elif isinstance(scale, Tensor):
            scale = scale.to(torch.float32)
            if not scale.is_meta and not bool(scale.isfinite().all()):
                wrong.append(f"{prefix}scale must be finite")
            state_dict = state_dict | {f"{prefix}scale": scale}
        if wrong:
            rest[-1].extend(f"SparseInt8Linear: {what}" for what in wrong)
            return
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *rest)

    def _matrix(self, data: Tensor) -> sparse.CSR:
        places = self._places(data)
        return sparse.CSR._of(
            decoded(data, self.scale, places, torch.float32 if self.bias is None else self.bias.dtype), places
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseInt8Linear:
        scale = self.scale
        super()._apply(fn, recurse)
        if self.scale.dtype != scale.dtype:  # its digits are kept, as those of the codes are
            self.scale = scale.to(self.scale.device)
        return self

    def _product(
        self, data: Tensor, scale: Any, places: Pattern, x: Tensor, bias: Tensor | None, lanes: bool
    ) -> Tensor:
        return straight_coded(data, scale, places, x, bias, lanes)

    def forward(self, x: Tensor) -> Tensor:
        if (y := self._straight(x)) is not None:
            return y
        if (node := as_node(self, x)) is not None:
            return node
        accept(self, x, self.in_features, like=self.bias)
        self._fits(x)
        x, bias = lowered(x, self.bias)
        z: Tensor = coded("SparseInt8Linear", self.data, self.scale, self._places(self.data), x, bias)
        return z

    def extra_repr(self) -> str:
        kept = self.data.numel() / max(self.out_features * self.in_features, 1)
        return f"{self.in_features}, {self.out_features}, {kept:.1%} kept in int8, bias={self.bias is not None}"
