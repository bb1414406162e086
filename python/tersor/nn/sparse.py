"""A linear layer of few weights. The one rule: what was pruned is neither stored nor multiplied, and stays pruned."""

from __future__ import annotations

from torch import Tensor, nn

from tersor import sparse


class SparseLinear(nn.Module):
    r"""A linear layer with a sparse weight, :math:`y = xW^\top + b`, for the weights that are left after pruning.

    Parameters
    ----------
    weight : CSR of tensors [out, in]
    bias : tensor [out], optional

    Notes
    -----
    The stored values are a parameter and are trained; the pattern does not change.
    """

    def __init__(self, weight: sparse.CSR, bias: Tensor | None = None) -> None:
        super().__init__()
        self.pattern = weight
        self.data = nn.Parameter(weight.data.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @classmethod
    def from_dense(cls, linear: nn.Linear, mask: Tensor | None = None) -> SparseLinear:
        """The layer ``linear`` with the weights that ``mask`` keeps, or that are not zero."""
        return cls(sparse.from_dense(linear.weight.detach(), mask), linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y = sparse.spmm(self.pattern.with_data(self.data), rows.T.contiguous(), bias=self.bias)
        return y.T.reshape(*x.shape[:-1], self.pattern.shape[0])

    def extra_repr(self) -> str:
        out, columns = self.pattern.shape
        kept = self.pattern.nnz / max(out * columns, 1)
        return f"{columns}, {out}, {kept:.1%} kept, bias={self.bias is not None}"
