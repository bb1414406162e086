"""One table for many features. The one rule: which rows a value has is hashed; the table is all that is kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tersor import embed
from tersor._arrays import whole
from tersor._values import one_of, seeded


class UnifiedEmbedding(nn.Module):
    r"""Embeddings of the values of many categorical features in one table, each of several rows that their hashes choose.

    Parameters
    ----------
    num_rows, dim : int
        Of the table, which serves any number of features and values.
    num_hashes : int
        Rows of a value.
    combine : "sum" or "concat"
        Of the rows: results have ``dim`` numbers, or ``num_hashes * dim``.
    seed : int

    Attributes
    ----------
    weight : parameter [num_rows, dim], at first normal with a sum of rows of variance 1

    Raises
    ------
    TypeError, ValueError
        As `tersor.embed.hash_lookup`.

    Notes
    -----
    ``layer(values, feature)`` takes integers and the number of their feature, one for all or one for each. Two values share a
    row with probability 1/num_rows; a second hash tells most of those apart. Coleman et al., "Unified embedding" (2023).
    """

    def __init__(self, num_rows: int, dim: int, *, num_hashes: int = 2, combine: str = "sum", seed: int = 0) -> None:
        super().__init__()
        sizes = {"num_rows": num_rows, "dim": dim, "num_hashes": num_hashes}
        for name, value in sizes.items():
            if whole(f"UnifiedEmbedding: {name}", value) < 1:
                raise ValueError(f"UnifiedEmbedding: {name} must be positive, got {value}")
        if num_rows > 2**31:
            raise ValueError(f"UnifiedEmbedding: num_rows must be at most {2**31}, got {num_rows}")
        self.num_rows, self.dim, self.num_hashes = int(num_rows), int(dim), int(num_hashes)
        self.combine = one_of("UnifiedEmbedding: combine", combine, ("sum", "concat"))
        self.seed = seeded("UnifiedEmbedding", seed)
        self.weight = nn.Parameter(torch.empty(self.num_rows, self.dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.num_hashes**-0.5 if self.combine == "sum" else 1.0)

    def forward(self, values: Tensor, feature: Any = 0) -> Tensor:
        if not isinstance(values, Tensor):
            raise TypeError(f"UnifiedEmbedding: values must be a torch tensor of integers, got {type(values).__name__}")
        y: Tensor = embed.hash_lookup(
            values, self.weight, feature=feature, num_hashes=self.num_hashes, combine=self.combine, seed=self.seed
        )
        return y

    def extra_repr(self) -> str:
        return f"{self.num_rows}, {self.dim}, num_hashes={self.num_hashes}, combine={self.combine!r}, seed={self.seed}"
