"""Linear layers and 1×1 convolutions of few weights. The one rule: which product is taken is said, and can be said.

What such a layer stores and loads stands in `_sparse`, how it chooses in `_plan`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tersor import sparse
from tersor._acts import act_number
from tersor._arrays import sizes
from tersor.nn._cast import accept, as_node, lowered
from tersor.nn._linear import conv_parts, parts_of
from tersor.nn._plan import Chosen
from tersor.nn._sparse import SparseWeight
from tersor.sparse._pattern import Pattern
from tersor.sparse.images import convolved
from tersor.sparse.lanes import product


class SparseLinear(Chosen):
    r"""A linear layer with a sparse weight, :math:`y = xW^\top + b`, for the weights that are left after pruning.

    Parameters
    ----------
    weight : CSR of tensors [out, in]
    bias : tensor [out], optional
    plan : "auto", "sparse" or "dense"
        Which product is taken. "sparse" has the same bits for any number of rows; "dense" is torch's own product with the
        dense weight. "auto" is "sparse" but where the other was measured to be faster (see Notes).

    Attributes
    ----------
    data : [nnz] parameter, the stored values by rows
    indices, indptr : [nnz], [out + 1] buffers, where they stand
    bias : [out] parameter or None
    plan : as given; it may be set at any time
    plans : number of rows, rounded up to a power of two -> what "auto" has chosen so far

    Notes
    -----
    The stored values are a parameter and are trained; the pattern does not change but by loading a state. A state holds the
    pattern, and loading one of another number of entries resizes the layer: load before the optimizer is made. A malformed
    pattern is among the errors of ``load_state_dict`` and changes nothing.

    "auto" measures both products once per shape and number of rows in a process (`tersor.sparse.crossover` reports it), on the
    CPU, where no gradient is recorded and nothing is traced, for layers of 2¹² weights or more; of more than 2²¹ only where
    more than an eighth of them is stored, for else the sparse one is the faster. Of layers of fewer weights, whose products are
    a call and little else, the dense one is taken there, and everywhere else the sparse one; of products that differ by less
    than a twentieth the dense one. A dense product spreads NaN and infinities to every output, and its bits depend on the
    number of rows.

    For dense products without a gradient the dense weight is made once and kept, beside the sparse one: as much memory as the
    layer that was pruned took. It is made again when values change, and given up where a gradient is recorded, the layer is
    moved or loaded, and by ``train()`` and ``eval()``. Seen is every write in place (under ``no_grad``, by an optimizer, by
    ``load_state_dict``), and every other parameter in the place of ``data``. A write through ``layer.data.data`` has no
    version: it is seen where the values are 4 KiB or less, whose bits are compared at each call, and where it changes one of
    64 values, evenly spread, of more than that (comparing all would cost one row more than a twentieth of its product). Who
    writes only a few values so calls ``eval()`` or ``train()`` afterwards; products of plan "sparse" read the values as they
    are. While ``layer.data`` has a gradient all values are compared, however many: steps of fused optimizers have no version
    either.
    """

    def __init__(self, weight: sparse.CSR, bias: Tensor | None = None, *, plan: str = "auto") -> None:
        super().__init__(weight, bias)
        self.plan = plan
        self._known()

    @classmethod
    def from_dense(cls, linear: nn.Linear, mask: Tensor | None = None, *, plan: str = "auto") -> SparseLinear:
        """The layer ``linear`` with the weights that ``mask`` keeps, or that are not zero.

        They are those of a forward pass in ``eval`` mode, also under ``torch.nn.utils.prune``; a layer with a forward of its
        own, or with hooks that would be lost, is a TypeError.
        """
        weight, bias = parts_of("SparseLinear.from_dense", linear)
        return cls(sparse.from_dense(weight, mask), bias, plan=plan)

    @classmethod
    def empty(
        cls,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> SparseLinear:
        """A layer without entries and with biases 0, for a state to be loaded into: that brings the pattern along."""
        for name, n in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(n, int) or n < 0:
                raise ValueError(f"SparseLinear.empty: {name} must be an integer that is not negative, got {n!r}")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"SparseLinear.empty: dtype must be a float type of torch, got {dtype}")
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        none = torch.zeros(0, dtype=torch.int32, device=device)
        pattern = Pattern(
            none, torch.zeros(out_features + 1, dtype=torch.int32, device=device), (out_features, in_features)
        )
        return cls(
            sparse.CSR._of(torch.zeros(0, **where), pattern), torch.zeros(out_features, **where) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if (y := self._straight(x)) is not None:
            return y
        self._known()
        if (node := as_node(self, x)) is not None:
            return node
        accept(self, x, self.in_features, like=self.data)
        self._fits(x)
        x, data, bias = lowered(x, self.data, self.bias)
        self._forget()
        if self.plan == "dense":
            return F.linear(x, self._matrix(data).to_dense(), bias)
        z: Tensor = product(data, self._places(data), x, bias)
        return z

    def extra_repr(self) -> str:
        kept = self.data.numel() / max(self.out_features * self.in_features, 1)
        fixed = "" if self.plan == "auto" else f", plan={self.plan!r}"
        return f"{self.in_features}, {self.out_features}, {kept:.1%} kept, bias={self.bias is not None}{fixed}"


class SparseConv1x1(SparseWeight):
    r"""A convolution of kernel size 1 with a sparse weight: at every pixel :math:`y = \mathrm{act}(W x + b)`.

    Parameters
    ----------
    weight : CSR of tensors [out, in]
    bias : tensor [out], optional
    act : None, "relu", "relu6", "gelu" or "silu"
        Applied as the sums are stored: a convolution and the activation after it in one.

    Attributes
    ----------
    data, indices, indptr, bias : as of `SparseLinear`
    act : as given

    Notes
    -----
    Takes [B, C, H, W], images of more axes too, or [C, H, W], and gives the same, in the layout of the input: it is
    `tersor.sparse.conv1x1`, for which no pixel is copied to another one.
    """

    def __init__(self, weight: sparse.CSR, bias: Tensor | None = None, *, act: str | None = None) -> None:
        super().__init__(weight, bias)
        act_number("SparseConv1x1", act)
        self.act = act

    def _sized(self, outs: int, ins: int) -> None:
        self.out_channels, self.in_channels = outs, ins

    @property
    def _shape(self) -> tuple[int, int]:
        return self.out_channels, self.in_channels

    @classmethod
    def from_float(cls, conv: nn.Conv2d, mask: Tensor | None = None, *, act: str | None = None) -> SparseConv1x1:
        """The convolution ``conv``, 1×1 without stride, padding and groups, with the weights that ``mask`` [out, in] (or of the
        shape of its weight) keeps, or that are not zero; the weight is that of `SparseLinear.from_dense`."""
        weight, bias = conv_parts("SparseConv1x1.from_float", conv)
        if isinstance(mask, Tensor) and mask.shape == (*weight.shape, 1, 1):
            mask = mask.reshape(weight.shape)
        return cls(sparse.from_dense(weight, mask), bias, act=act)

    def forward(self, x: Tensor) -> Tensor:
        if (node := as_node(self, x)) is not None:
            return node
        accept(self, x, like=self.data)
        if x.ndim < 3 or x.shape[-3 if x.ndim == 3 else 1] != self.in_channels:
            raise ValueError(
                f"SparseConv1x1: the input must be [B, {self.in_channels}, ...] or [{self.in_channels}, H, W], "
                f"got shape {sizes(x.shape)}"
            )
        self._fits(x)
        x, data, bias = lowered(x, self.data, self.bias)
        y: Tensor = convolved(data, self._places(data), x, bias, self.act)
        return y

    def extra_repr(self) -> str:
        kept = self.data.numel() / max(self.out_channels * self.in_channels, 1)
        act = "" if self.act is None else f", act={self.act!r}"
        return f"{self.in_channels}, {self.out_channels}, {kept:.1%} kept, bias={self.bias is not None}{act}"
