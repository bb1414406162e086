"""A feed-forward block of few activations. The one rule: what a token leaves at zero is neither read nor multiplied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tersor._acts import act_number, applied
from tersor.nn._cast import accept, as_node, lowered
from tersor.nn._linear import parts_of
from tersor.prune.tokens import kept_product


class TopKFFN(nn.Module):
    r"""A feed-forward block of the k largest activations of every token, :math:`y = W_2\,\mathrm{top}_k(f(W_1 x + b_1)) + b_2`.

    Parameters
    ----------
    in_features, hidden, out_features : int
    k : int
        Activations that are kept of ``hidden``; of equal ones the first.
    act : None, "relu", "relu6", "gelu" or "silu"
        f.
    bias : bool

    Attributes
    ----------
    up : torch.nn.Linear [hidden, in]
    down : [hidden, out] parameter, :math:`W_2^\top`: the row of an activation lies together, as in a table of embeddings
    bias : [out] parameter or None

    Raises
    ------
    ValueError
        If k is not between 0 and hidden, or, in a call, an activation is not finite.

    Notes
    -----
    `tersor.sparse.topk_ffn` of the weights: the second product reads k rows of ``down`` for a token. Gradients go to the kept
    activations alone.

    Examples
    --------
    >>> import torch
    >>> from tersor import nn as tnn
    >>> block = tnn.TopKFFN(8, 32, 8, k=3)
    >>> block(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self, in_features: int, hidden: int, out_features: int, k: int, *, act: str | None = "relu", bias: bool = True
    ) -> None:
        super().__init__()
        for name, n in (("in_features", in_features), ("hidden", hidden), ("out_features", out_features)):
            if not isinstance(n, int) or isinstance(n, bool) or n < 0:
                raise ValueError(f"TopKFFN: {name} must be an integer that is not negative, got {n!r}")
        self._told(k, hidden, act)
        self.up = nn.Linear(in_features, hidden, bias)
        self.down = nn.Parameter(torch.empty(hidden, out_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """First weights as ``torch.nn.Linear`` has them; ``up`` has its own."""
        bound = max(self.down.shape[0], 1) ** -0.5
        for p in (self.down, self.bias):
            if p is not None:
                nn.init.uniform_(p, -bound, bound)

    def _told(self, k: int, hidden: int, act: str | None) -> None:
        if not isinstance(k, int) or isinstance(k, bool) or not 0 <= k <= hidden:
            raise ValueError(f"TopKFFN: k must be an integer between 0 and {hidden}, got {k!r}")
        act_number("TopKFFN", act)
        self.k, self.act = k, act

    @classmethod
    def from_dense(cls, up: nn.Linear, down: nn.Linear, k: int, *, act: str | None = "relu") -> TopKFFN:
        """The block of two linear layers with ``act`` between them, as they are in ``eval`` mode."""
        (first, b), (second, c) = parts_of("TopKFFN.from_dense", up), parts_of("TopKFFN.from_dense", down)
        if second.shape[1] != first.shape[0]:
            raise ValueError(f"TopKFFN.from_dense: up has {first.shape[0]} outputs, down takes {second.shape[1]}")
        if first.dtype != second.dtype:
            raise TypeError(f"TopKFFN.from_dense: up is {first.dtype}, down is {second.dtype}")
        block = cls(first.shape[1], first.shape[0], 1, k, act=act, bias=False)
        block.up.weight = nn.Parameter(first.clone())
        block.up.bias = None if b is None else nn.Parameter(b.detach().clone())
        block.down = nn.Parameter(second.T.contiguous())
        block.bias = None if c is None else nn.Parameter(c.detach().clone())
        return block.train(up.training)

    def forward(self, x: Tensor) -> Tensor:
        if (node := as_node(self, x)) is not None:
            return node
        accept(self, x, self.up.in_features, like=self.down)
        h = applied(self.act, self.up(x))
        h, down, bias = lowered(h, self.down, self.bias)
        y: Tensor = kept_product("TopKFFN", h, self.k, down, bias)
        return y

    def extra_repr(self) -> str:
        return f"out_features={self.down.shape[1]}, k={self.k}, act={self.act!r}, bias={self.bias is not None}"
