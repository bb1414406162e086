"""A linear layer of few weights. The one rule: what was pruned is neither stored nor multiplied, and stays pruned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersor import sparse
from tersor._arrays import is_distributed
from tersor._values import check_dense
from tersor.nn._cast import accept, lowered
from tersor.nn._linear import parts_of
from tersor.sparse._pattern import Pattern
from tersor.sparse.lanes import product

#: rows up to which the lanes of `spmv` are faster than the panels of `spmm`, which have the same bits
FEW = 4


class SparseLinear(nn.Module):
    r"""A linear layer with a sparse weight, :math:`y = xW^\top + b`, for the weights that are left after pruning.

    Parameters
    ----------
    weight : CSR of tensors [out, in]
    bias : tensor [out], optional

    Attributes
    ----------
    data : [nnz] parameter, the stored values by rows
    indices, indptr : [nnz], [out + 1] buffers, where they stand
    bias : [out] parameter or None

    Notes
    -----
    The stored values are a parameter and are trained; the pattern does not change but by loading a state. A state holds the
    pattern, and loading one of another number of entries resizes the layer: load before the optimizer is made. A malformed
    pattern is among the errors of ``load_state_dict`` and changes nothing.
    """

    data: nn.Parameter
    indices: Tensor
    indptr: Tensor

    def __init__(self, weight: sparse.CSR, bias: Tensor | None = None) -> None:
        super().__init__()
        if not isinstance(weight, sparse.CSR) or not isinstance(weight.data, Tensor):
            kind = "a CSR of NumPy arrays" if isinstance(weight, sparse.CSR) else type(weight).__name__
            raise TypeError(f"SparseLinear: weight must be a CSR of tensors, got {kind}")
        self.out_features, self.in_features = weight.shape
        if bias is not None and not isinstance(bias, Tensor):
            raise TypeError(f"SparseLinear: bias must be a tensor, got {type(bias).__name__}")
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"SparseLinear: bias must have shape ({self.out_features},), got {tuple(bias.shape)}")
        self.data = nn.Parameter(weight.data.detach().clone())
        self.register_buffer("indices", weight.indices.clone())
        self.register_buffer("indptr", weight.indptr.clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self._know()

    @classmethod
    def from_dense(cls, linear: nn.Linear, mask: Tensor | None = None) -> SparseLinear:
        """The layer ``linear`` with the weights that ``mask`` keeps, or that are not zero.

        They are those of a forward pass in ``eval`` mode, also under ``torch.nn.utils.prune``; a layer with a forward of its
        own, or with hooks that would be lost, is a TypeError.
        """
        weight, bias = parts_of("SparseLinear.from_dense", linear)
        return cls(sparse.from_dense(weight, mask), bias)

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
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        none = torch.zeros(0, dtype=torch.int32, device=device)
        pattern = Pattern(
            none, torch.zeros(out_features + 1, dtype=torch.int32, device=device), (out_features, in_features)
        )
        return cls(
            sparse.CSR._of(torch.zeros(0, **where), pattern), torch.zeros(out_features, **where) if bias else None
        )

    def _know(self) -> None:
        """Keeps what is derived from the structure (the transpose that gradients want) as long as that is the same."""
        # not in a state, a file or a copy: made anew from the buffers
        self.__dict__["_kept"] = Pattern(self.indices, self.indptr, (self.out_features, self.in_features))

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
            check_dense("SparseLinear", "data", data)
        kept: Pattern = self.__dict__["_kept"]
        # others stand in their place for a call of torch.func
        if self.indices is not kept.indices or self.indptr is not kept.indptr:
            kept = Pattern(self.indices, self.indptr, kept.shape)
        return kept

    def _matrix(self, data: Tensor) -> sparse.CSR:
        return sparse.CSR._of(data, self._places(data))

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, self.in_features, like=self.data)
        x, data, bias = lowered(x, self.data, self.bias)
        # sizes that are said: there may be no rows, or no columns
        rows = x.reshape(x.shape[:-1].numel(), self.in_features)
        if rows.shape[0] <= FEW:
            few = product(data, self._places(data), rows, bias)
            if few is not None:
                return few.reshape(*x.shape[:-1], self.out_features)
        y = sparse.spmm(self._matrix(data), rows.T.contiguous(), bias=bias)
        return y.T.reshape(*x.shape[:-1], self.out_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseLinear:
        super()._apply(fn, recurse)
        self._know()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], strict: bool, *rest: list[str]
    ) -> None:
        state, errors = dict(state_dict), rest[-1]
        names = [prefix + k for k in ("data", "indices", "indptr")]
        found = [k for k in names if k in state]
        if found and len(found) < 3:
            absent = " and ".join(k for k in names if k not in state)
            errors.append(f"SparseLinear: the state has {found[0]} but not {absent}: values without their pattern")
            return
        if found:
            try:
                parts = _checked([state[k] for k in names], (self.out_features, self.in_features))
            except (TypeError, ValueError) as e:
                errors.append(
                    f"SparseLinear: {', '.join(names)} are no matrix [{self.out_features}, {self.in_features}]: {e}"
                )
                return
            state.update(zip(names, parts, strict=True))
            if not metadata.get("assign_to_params_buffers", False):
                self._resize(parts[1])
            elif parts[0].shape != self.data.shape:
                self.data, self.indices = nn.Parameter(self.data.new_empty(parts[0].shape)), parts[1]
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
        state.pop("_kept", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        old = state.pop("pattern", None)
        super().__setstate__(state)
        if old is not None:  # pickled by an earlier version
            self.out_features, self.in_features = old.shape
            self.register_buffer("indices", old.indices)
            self.register_buffer("indptr", old.indptr)
        self._know()

    def extra_repr(self) -> str:
        kept = self.data.numel() / max(self.out_features * self.in_features, 1)
        return f"{self.in_features}, {self.out_features}, {kept:.1%} kept, bias={self.bias is not None}"


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
