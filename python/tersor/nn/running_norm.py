"""Norms whose backward pass is smoothed over batches. The one rule: what a step sends back is taken into the state by the next
one, so that a step without a gradient leaves none.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tersor import norm
from tersor._arrays import whole
from tersor.nn._cast import accept
from tersor.norm._arguments import checked_eps, share

__all__ = ["PowerNorm", "UnifiedNorm"]


class _Running(nn.Module):
    """γ, β, a running mean of squares and what the last step sent back."""

    running_phi: Tensor
    gamma: Tensor
    sent: Tensor
    num_batches_tracked: Tensor
    #: what the state is before the first step
    FIRST: ClassVar[dict[str, float]] = {
        "running_phi": 1.0,
        "gamma": 0.0,
        "sent": math.nan,
        "num_batches_tracked": 0,
    }

    def __init__(self, channels: int, warmup: int, eps: float) -> None:
        super().__init__()
        who = type(self).__name__
        self.channels, self.warmup = whole(f"{who}: channels", channels), whole(f"{who}: warmup", warmup)
        if self.channels < 1 or self.warmup < 0:
            raise ValueError(f"{who}: channels must be positive and warmup not negative, got {channels} and {warmup}")
        self.eps = checked_eps(who, eps)
        self.weight, self.bias = (nn.Parameter(torch.empty(self.channels)) for _ in range(2))
        for name in ("running_phi", "gamma", "sent"):
            self.register_buffer(name, torch.empty(self.channels))
        self.register_buffer("num_batches_tracked", torch.empty((), dtype=torch.int64))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """As torch's, but statistics stay wide in a layer of 16 bits: squares of 256 leave float16."""
        before = {k: b for k, b in self._buffers.items() if b is not None and b.is_floating_point()}
        super()._apply(fn, recurse)
        for k, b in before.items():
            now = self._buffers[k]
            if now is not None and now.dtype.itemsize < 4 <= b.dtype.itemsize:
                self._buffers[k] = b.to(now.device)
        return self

    def reset_parameters(self) -> None:
        """First weights, and a state that has seen nothing."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        with torch.no_grad():
            for name, first in self.FIRST.items():
                getattr(self, name).fill_(first)

    def _squares(self, x: Tensor) -> Tensor:
        """The mean square of each channel; nothing is learned from it."""
        wide = x.detach().reshape(-1, self.channels).to(torch.float64)
        return (wide * wide).mean(0)

    def _known(self) -> tuple[Tensor, Tensor]:
        """Where the last step sent something back, and what, 0 elsewhere; asked once. What is not finite (a scaled loss that
        overflowed, whose step is left out) is nothing: it would stay for good."""
        known = self.sent.isfinite()
        found = torch.where(known, self.sent.double(), 0.0)
        self.sent.fill_(torch.nan)
        return known, found

    def extra_repr(self) -> str:
        return f"{self.channels}, warmup={self.warmup}, eps={self.eps}"


class PowerNorm(_Running):
    r"""PowerNorm: channels over the root of a running mean of squares, gradients smoothed over batches.

    Training divides by the batch's own mean square φ̂ for ``warmup`` steps and by φ after them, which moves
    :math:`\varphi \leftarrow \alpha\varphi + (1 - \alpha)\hat\varphi` at each step; the backward pass takes
    :math:`(1 - \alpha_b)\Gamma z` from what it sends (`tersor.norm.running_rms_norm`), and
    :math:`\Gamma \leftarrow \Gamma(1 - (1 - \alpha_b)\overline{z^2}) + G`.

    Parameters
    ----------
    channels : int
        The last axis of the input.
    groups : int
        Of channels: each token's are divided by the root of their mean square first.
    warmup : int
        Steps.
    alpha_fwd, alpha_bwd : float
        α and :math:`\alpha_b`, at least 0 and less than 1.
    eps : float

    Raises
    ------
    ValueError
        If a number is out of range or the groups do not divide the channels.

    Notes
    -----
    Shen et al., "PowerNorm: Rethinking Batch Normalization in Transformers" (2020), algorithm 2, as it is written: the authors'
    code divides by the batch's moment in its backward pass, and moves φ twice in a step of warm-up.

    In training each forward pass moves the state, also one that ``torch.utils.checkpoint`` runs again, and of several before
    one backward pass the last is taken. Γ is in the units of the loss: a new scale of it is felt for some steps.

    Examples
    --------
    >>> import torch
    >>> PowerNorm(8)(torch.randn(2, 3, 8)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(
        self,
        channels: int,
        groups: int = 1,
        warmup: int = 4000,
        alpha_fwd: float = 0.9,
        alpha_bwd: float = 0.9,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(channels, warmup, eps)
        self.groups = whole("PowerNorm: groups", groups)
        if self.groups < 1 or self.channels % self.groups:
            raise ValueError(f"PowerNorm: groups={groups} does not divide {channels} channels")
        self.alpha_fwd = share("PowerNorm", "alpha_fwd", alpha_fwd, False)
        self.alpha_bwd = share("PowerNorm", "alpha_bwd", alpha_bwd, False)
        #: (1 − α_b) times the mean of z² of the last step
        self.register_buffer("kept", torch.empty(self.channels))
        self.reset_parameters()

    kept: Tensor
    FIRST: ClassVar[dict[str, float]] = _Running.FIRST | {"kept": 0.0}

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, self.channels, -1, self.weight)
        x = x.to(torch.promote_types(x.dtype, self.weight.dtype))  # 16 bits, under autocast
        split = x.reshape(*x.shape[:-1], self.groups, self.channels // self.groups)
        x = norm.rms_norm(split, self.channels // self.groups, eps=self.eps).reshape(x.shape)
        if not self.training or not x.numel():
            return norm.running_rms_norm(x, self.running_phi, self.weight, self.bias, eps=self.eps)
        with torch.no_grad():
            known, g = self._known()
            moved = self.gamma.double() * (1 - self.kept.double()) + g
            self.gamma.copy_(torch.where(known, moved, self.gamma.double()))
            squares, phi = self._squares(x), self.running_phi.double()
            psi = torch.where(self.num_batches_tracked < self.warmup, squares, phi)
            carry = (1 - self.alpha_bwd) * self.gamma.double()
            self.kept.copy_((1 - self.alpha_bwd) * squares / (psi + self.eps))
            self.running_phi.copy_(self.alpha_fwd * phi + (1 - self.alpha_fwd) * squares)
            self.num_batches_tracked.add_(1)
        return norm.running_rms_norm(x, psi, self.weight, self.bias, carry=carry, gz=self.sent, eps=self.eps)


class UnifiedNorm(_Running):
    r"""Unified normalization: channels over the geometric mean of the last batches' mean squares, gradients smoothed likewise.

    Of the last w mean squares of batches :math:`\psi = \exp\overline{\log\hat\varphi}`; what is sent back takes with it the
    mean of the last w G and a momentum, times :math:`r = \sqrt{(\psi + \varepsilon)/(\varphi + \varepsilon)}` between 1/5 and 5
    (`tersor.norm.running_rms_norm`). The first w and ``warmup`` steps divide by their own mean square.

    Parameters
    ----------
    channels : int
        The last axis of the input.
    window : int
        w.
    warmup : int
        Steps.
    outlier_filtration : bool
        Whether a batch by which the arithmetic mean exceeds the geometric one by more than w times the variance of the roots of
        the last mean squares divides by its own, sends back its own gradient, and is taken for the running φ from then on.
    eps : float
    momentum : float
        Of φ and of what is sent back, at least 0 and less than 1.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    In training each forward pass moves the state, also one that ``torch.utils.checkpoint`` runs again, and of several before
    one backward pass the last is taken. Γ is in the units of the loss: a new scale of it is felt for some steps.

    Nothing waits for the device. Yang et al., "Unified Normalization for Accelerating and Stabilizing Transformers" (2022),
    equations 9 to 16; unlike the authors' code γ takes its own derivative, without r.

    Examples
    --------
    >>> import torch
    >>> UnifiedNorm(8, window=2)(torch.randn(2, 3, 8)).shape
    torch.Size([2, 3, 8])
    """

    ring: Tensor
    sent_ring: Tensor
    FIRST: ClassVar[dict[str, float]] = _Running.FIRST | {"ring": 1.0, "sent_ring": 0.0}

    def __init__(
        self,
        channels: int,
        window: int = 4,
        warmup: int = 4000,
        outlier_filtration: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(channels, warmup, eps)
        self.window = whole("UnifiedNorm: window", window)
        if self.window < 1:
            raise ValueError(f"UnifiedNorm: window must be positive, got {window}")
        self.momentum = share("UnifiedNorm", "momentum", momentum, False)
        self.outlier_filtration = bool(outlier_filtration)
        for name in ("ring", "sent_ring"):
            self.register_buffer(name, torch.empty(self.window, self.channels))
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x, self.channels, -1, self.weight)
        if not self.training or not x.numel():
            return norm.running_rms_norm(x, self.running_phi, self.weight, self.bias, eps=self.eps)
        with torch.no_grad():
            psi, carry, share, ratio = self._step(self._squares(x))
        return norm.running_rms_norm(
            x, psi, self.weight, self.bias, carry=carry, share=share, ratio=ratio, gz=self.sent, eps=self.eps
        )

    def _step(self, squares: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ψ, carry, share and ratio of this batch; moves the state on."""
        n, w, m = self.num_batches_tracked, self.window, self.momentum
        floor = torch.finfo(self.ring.dtype).tiny
        known, g = self._known()
        own_before = n - 1 < max(self.warmup, w)
        # what the last step sent back; where it did not, the running one stands for it as for the square of an odd batch
        last = torch.remainder(n - 1, w)
        place, gamma = (torch.arange(w, device=g.device) == last)[:, None], self.gamma.double()
        self.sent_ring.copy_(torch.where(place, torch.where(known, g, gamma), self.sent_ring.double()))
        mean = torch.where(own_before, g, self.sent_ring.double().mean(0))
        self.gamma.copy_(torch.where(known, m * gamma + (1 - m) * mean, gamma))
        ring, phi = self.ring.double(), self.running_phi.double()
        here = (torch.arange(w, device=g.device) == torch.remainder(n, w))[:, None]
        own = n < max(self.warmup, w)
        full = torch.where(here, squares.clamp_min(floor), ring)
        geometric = full.log().mean(0).exp()
        odd = torch.zeros((), dtype=torch.bool, device=g.device)
        if self.outlier_filtration and w > 1:
            spread = ring.sqrt().var()
            odd = ~own & ((full.mean(0) - geometric) > w * spread).any()
            full = torch.where(here & odd, phi.clamp_min(floor), full)
        self.ring.copy_(full)
        own_now = own | odd
        psi = torch.where(own_now, squares, geometric)
        others = torch.where(here, torch.zeros_like(ring), self.sent_ring.double()).sum(0)
        gamma = self.gamma.double()
        carry = torch.where(own, m * gamma, m * gamma + (1 - m) * others / w)
        carry = torch.where(odd, torch.zeros_like(carry), carry)
        one = torch.ones((), dtype=torch.float64, device=g.device)
        share = torch.where(odd, one, torch.where(own, (1 - m) * one, (1 - m) / w * one))
        ratio = ((psi + self.eps) / (phi + self.eps)).sqrt().clamp(0.2, 5)
        ratio = torch.where((n < max(1000, self.warmup)) | odd, torch.ones_like(ratio), ratio)
        self.running_phi.copy_(torch.where(odd, phi, m * phi + (1 - m) * psi))
        self.num_batches_tracked.add_(1)
        return psi, carry, share, ratio
