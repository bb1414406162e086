"""A table of quantized rows. The one rule: only the rows that are looked up are decoded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tersor import quant
from tersor.nn._coded import Coded
from tersor.quant import Encoded


class QuantEmbedding(Coded):
    r"""A table of embeddings whose rows are kept encoded, :math:`y_i = \hat W_{x_i}`.

    Parameters
    ----------
    weight : Encoded of tensors [rows, dim]
        What ``tersor.quant.encode`` made of the table, with scales by rows or by groups.
    padding_idx : int, optional
        As in ``torch.nn.Embedding``; it plays no part, since codes are not trained.

    Attributes
    ----------
    data, scale, zero_point, encoding : buffers, as in `QuantLinear`

    Notes
    -----
    Results have the type of the table that was encoded. Indices outside the table are an IndexError, as in torch.
    """

    def __init__(self, weight: Encoded, padding_idx: int | None = None) -> None:
        super().__init__(weight)
        if weight.scale.ndim != 2:
            raise ValueError(f"QuantEmbedding: scales must be by rows or groups, got {weight.scheme}")
        if weight.scheme.endswith("-nested"):
            raise ValueError(
                f"QuantEmbedding: rows are looked up with their scales, which are not nested, got {weight.scheme}"
            )
        self.num_embeddings, self.embedding_dim = weight.shape
        self.padding_idx = padding_idx

    @classmethod
    def from_float(cls, embedding: nn.Embedding, scheme: str) -> QuantEmbedding:
        """The table of ``embedding`` encoded by ``scheme`` ("int8-row", "int4-g128", …).

        A table with a norm to keep (``max_norm``) or a forward of its own is a TypeError.
        """
        kind = type(embedding).__name__
        if not isinstance(embedding, nn.Embedding):
            raise TypeError(f"QuantEmbedding.from_float: embedding must be a torch.nn.Embedding, got {kind}")
        if type(embedding).forward is not nn.Embedding.forward or "forward" in vars(embedding):
            raise TypeError(
                f"QuantEmbedding.from_float: embedding is a {kind} with a forward of its own, which would be lost"
            )
        if embedding.max_norm is not None:
            raise TypeError("QuantEmbedding.from_float: embedding has a max_norm, which codes cannot keep")
        return cls(quant.encode(embedding.weight.detach(), scheme), embedding.padding_idx)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.dtype not in (torch.int64, torch.int32):
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"QuantEmbedding: the input must be a tensor of int64 or int32, got {got}")
        rows = x.reshape(-1)

        def chosen(part: Tensor | None) -> Any:
            return None if part is None else part.index_select(0, rows)

        e = Encoded(
            chosen(self.data),
            chosen(self.scale),
            chosen(self.zero_point),
            self.scheme,
            (rows.shape[0], self.embedding_dim),
            self.dtype,
            self.outer,
        )
        decoded: Tensor = quant.decode(e)
        return decoded.reshape(*x.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.scheme}"
