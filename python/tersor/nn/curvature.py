"""The curvature of a layer. The one rule: it is positive by its parametrisation where it is learned, and stays float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersor._values import number
from tersor.nn._state import once, place, widen


class Curvature(nn.Module):
    r"""A curvature -c, constant or learned, that layers may share.

    Parameters
    ----------
    c : float or Parameter
        Finite, not negative; positive if it is learned. A parameter of one number is kept and is c itself: it has to be kept
        from becoming negative by who trains it.
    learnable : bool
        Whether c is a parameter, :math:`c = \operatorname{softplus}(\rho) = \log(1 + e^\rho)`, which starts at the c given.
    device : device
        Where it is kept.

    Attributes
    ----------
    rho : [1] float64, where it is learned
    c : 0-d float64, where it is constant; or the parameter given

    Notes
    -----
    Calling it gives c as a 0-d float64 tensor. It is saved with the module and keeps its precision when the module is moved to
    another dtype. The state of a constant one can be loaded into a learned one and the other way about.
    """

    c: Tensor
    rho: nn.Parameter
    first: float | None

    def __init__(
        self, c: float | nn.Parameter = 1.0, learnable: bool = False, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        if isinstance(c, nn.Parameter):
            if not c.is_floating_point():
                raise TypeError(f"Curvature: c must be of a float type, got {c.dtype}")
            if c.numel() != 1:
                raise ValueError(f"Curvature: c must be one number, got a parameter of shape {tuple(c.shape)}")
            self.learnable, self.raw, self.first = True, True, None
            self.register_parameter("c", c)
            return
        if isinstance(c, Tensor) and c.requires_grad:
            raise TypeError("Curvature: c must be a number or a Parameter, got a tensor that requires a gradient")
        c = number("Curvature", "c", c)
        if not (math.isfinite(c) and c >= 0):
            raise ValueError(f"Curvature: c must be finite and not negative, got {c}")
        if learnable and c == 0:
            raise ValueError("Curvature: a learned c is positive, got 0")
        self.learnable, self.raw, self.first = learnable, False, c
        if learnable:
            self.rho = nn.Parameter(torch.tensor([_rho(c)], dtype=torch.float64, device=device))
        else:
            self.register_buffer("c", torch.tensor(c, dtype=torch.float64, device=device))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The c that it was made with, where it was made with a number: what was made on meta has none yet."""
        if self.first is not None:
            getattr(self, self._name).fill_(_rho(self.first) if self.learnable else self.first)

    @property
    def _name(self) -> str:
        return "rho" if self.learnable and not self.raw else "c"

    def forward(self) -> Tensor:
        kept = getattr(self, self._name).double().reshape(())
        return nn.functional.softplus(kept) if self._name == "rho" else kept

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Curvature:
        exact = getattr(self, self._name).data
        super()._apply(fn, recurse)
        now = getattr(self, self._name)
        if now.dtype != exact.dtype and not self.raw:
            now.data = exact.to(now.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        own, mine = prefix + self._name, getattr(self, self._name)
        # a file has no tensors that share memory: at its second name, this is a copy
        if not keep_vars and any(k != own and _same(v, mine) for k, v in destination.items()):
            destination[own] = destination[own].clone()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, missing_keys: list, *rest: Any
    ) -> None:
        state, name = dict(state_dict), self._name
        other = prefix + ("c" if name == "rho" else "rho")
        if other in state and prefix + name not in state:
            value = state.pop(other).double()
            if name == "rho" and not bool(value > 0):
                rest[-1].append(f"Curvature: {other} is {float(value)}; a learned curvature is positive")
                return
            state[prefix + name] = (
                value + (-torch.expm1(-value)).log() if name == "rho" else nn.functional.softplus(value)
            )
        if getattr(self, name).ndim:
            widen(state, prefix + name)
        elif prefix + name in state and state[prefix + name].numel() == 1:
            state[prefix + name] = state[prefix + name].reshape(())
        place(state, prefix + name, getattr(self, name))
        super()._load_from_state_dict(state, prefix, local_metadata, strict, missing_keys, *rest)
        once(self, prefix, name, prefix + name in state, missing_keys)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("raw", False)
        self.__dict__.setdefault("first", None)
        if "rho" in self._parameters and not self.rho.ndim:  # saved by an earlier version
            self.rho = nn.Parameter(self.rho.detach().reshape(1).double())

    def extra_repr(self) -> str:
        kept = getattr(self, self._name)
        value = "on meta" if kept.device.type == "meta" else f"{float(self().detach()):g}"
        return value + (", learnable" if self.learnable else "")


def _rho(c: float) -> float:
    """The inverse of softplus, for large c too."""
    return c + math.log(-math.expm1(-c))


def _same(a: Any, b: Tensor) -> bool:
    """Whether two tensors share their memory."""
    if not isinstance(a, Tensor) or a.shape != b.shape or a.dtype != b.dtype or type(a) not in (Tensor, nn.Parameter):
        return False
    return a.device.type != "meta" and a.data_ptr() == b.data_ptr()


def curvature(
    c: float | nn.Parameter | Curvature, learnable: bool, device: torch.device | str | None = None
) -> Curvature:
    """What a layer makes of its argument: a curvature that is shared, or one of its own."""
    if not isinstance(c, Curvature):
        return Curvature(c, learnable, device=device)
    if learnable and not c.learnable:
        raise ValueError("learnable=True with a constant Curvature: say Curvature(c, learnable=True) where it is made")
    return c
