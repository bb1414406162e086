r"""Batch norm of tasks that come one after another. The one rule: a task counts by what it learned to, not by how many of its
rows are in the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tersor import norm
from tersor._arrays import Labels, dtype_name, sizes
from tersor._values import at_hand
from tersor.nn._cast import positive
from tersor.nn.batch_norms import Told
from tersor.nn.norm import as_it_is, taken
from tersor.norm._arguments import real, share
from tersor.norm.functional import follow

__all__ = ["AdaB2N"]


class AdaB2N(Told):
    r"""Batch norm in which tasks count by learned weights, and running statistics begin quickly and slow down.

    Of :math:`n_t` rows of task t in a batch of n each counts
    :math:`\frac{n}{n_t}\frac{e^{\psi_t} + n_t}{\sum_s e^{\psi_s} + n_s}`, s the tasks that are there; with the
    momentum m batch i moves the running statistics by
    :math:`\eta_i = \eta_{i-1}/(\eta_{i-1} + (1 - m)^\kappa)`, :math:`\eta_0 = m^\kappa`.

    Parameters
    ----------
    num_features : int
    num_tasks : int
    eps, momentum, affine, device, dtype
        As of ``torch.nn.BatchNorm2d``; inputs [N, C, ...].
    kappa : float
        Not negative; 0 averages all batches alike.

    Attributes
    ----------
    psi : [num_tasks], 0 at first
        Several layers may share one: ``layer.psi = other.psi``.
    pull : 0-d float64, after a batch in training
        The mean squared differences of its mean and of its variance from the running ones: a share of it belongs into the loss.
        A copy of the layer has none.

    Raises
    ------
    TypeError, ValueError
        If a number is none or out of range.

    Notes
    -----
    Lyu et al., "Overcoming Recency Bias of Normalization Statistics in Continual Learning: Balance and Adaptation" (2023).

    Examples
    --------
    >>> import torch
    >>> layer = AdaB2N(3, 2)
    >>> layer(torch.randn(4, 3), torch.tensor([0, 1, 1, 1])).shape
    torch.Size([4, 3])
    """

    pull: Tensor | None

    def __init__(
        self,
        num_features: int,
        num_tasks: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        *,
        kappa: float = 0.5,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        positive(self, num_tasks=num_tasks)
        super().__init__(num_features, eps, share("AdaB2N", "momentum", momentum), affine, device, dtype)
        self.num_tasks, self.kappa, self.pull = num_tasks, real("AdaB2N", "kappa", kappa), None
        if not 0 <= self.kappa < float("inf"):
            raise ValueError(f"AdaB2N: kappa must be finite and not negative, got {kappa}")
        self.psi = nn.Parameter(torch.empty(num_tasks, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit scale, no shift, tasks alike, and no batches."""
        super().reset_parameters()
        if hasattr(self, "psi"):
            nn.init.zeros_(self.psi)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"pull": None}  # it hangs on the graph of one batch

    def _weights(self, x: Tensor, task: Labels) -> Tensor:
        """How much each row counts: all together as many as they are."""
        who = "AdaB2N"
        if not isinstance(task, Tensor) or task.dtype not in (torch.int64, torch.int32):
            got = dtype_name(task.dtype) if isinstance(task, Tensor) else type(task).__name__
            raise TypeError(f"{who}: task must be a tensor of int64 or int32 in training, got {got}")
        if tuple(task.shape) != (x.shape[0],):
            raise ValueError(f"{who}: task must have shape {sizes(x.shape[:1])}, got {sizes(task.shape)}")
        if at_hand(task) and len(task) and not 0 <= int(task.min()) <= int(task.max()) < self.num_tasks:
            raise ValueError(
                f"{who}: task must lie within 0 and {self.num_tasks - 1}, got {task.min()} to {task.max()}"
            )
        n = self.psi.new_zeros(self.num_tasks).index_add(0, task, self.psi.new_ones(len(task)))
        share = torch.logaddexp(self.psi, n.log()).masked_fill(n == 0, -torch.inf).softmax(0)
        return (len(task) * share / n.clamp_min(1))[task].to(x.dtype)

    def forward(self, input: Tensor, task: Labels = None) -> Tensor:
        taken(self, input, self.num_features)
        self._check_input_dim(input)
        if not self.training:
            return as_it_is(self._batch, input)
        return as_it_is(self._balanced, input, task)

    def _balanced(self, x: Tensor, task: Labels) -> Tensor:
        if x[:, 0].numel() < 2:
            raise ValueError(f"AdaB2N: one element has no variance, got shape {sizes(x.shape)}")
        ones = (1,) * (x.ndim - 2)
        weights = self._weights(x, task).reshape(-1, 1, *ones)
        affine = (None if p is None else p.reshape(-1, *ones) for p in (self.weight, self.bias))
        given: dict[str, Any] = {"dim": (0, *range(2, x.ndim)), "sample_weight": weights, "return_stats": True}
        y, seen = norm.standardize(x, *affine, eps=self.eps, **given)
        running = (self.running_mean, self.running_var)
        self.pull = sum((s - r.double()).square().mean() for s, r in zip(seen[1:], running, strict=True))
        follow(*running, seen, self._rate())
        self.num_batches_tracked.add_(1)
        return y

    def _rate(self) -> Tensor:
        r"""η of the next batch by the number of batches alone: :math:`1/\eta_i = \sum_{j<i} q^j + q^i/\eta_0`,
        :math:`q = (1 - m)^\kappa`."""
        m, n = float(self.momentum or 0.0), self.num_batches_tracked.double()
        q, first = (1 - m) ** self.kappa, m**self.kappa
        if not first:
            return torch.zeros_like(n, dtype=self.running_mean.dtype)
        before = n if q == 1 else (1 - q**n) / (1 - q)
        return (1 / (before + q**n / first)).to(self.running_mean.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_tasks={self.num_tasks}, kappa={self.kappa}"
