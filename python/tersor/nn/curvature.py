"""The curvature of a layer. The one rule: it is positive by its parametrisation where it is learned, and stays float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tersor._arrays import dtype_name
from tersor._values import check_curvature, number
from tersor.nn._state import once, place, widen


class Curvature(nn.Module):
    r"""A curvature -c, constant or learned, that layers may share; or several of them, one for each relation or head.

    Parameters
    ----------
    c : float, sequence or tensor of floats, or Parameter
        Finite, not negative; positive if it is learned. Several numbers are several curvatures. A parameter of one number is
        kept and is c itself: it has to be kept from becoming negative by who trains it.
    learnable : bool
        Whether c is a parameter, :math:`c = \operatorname{softplus}(\rho) = \log(1 + e^\rho)`, which starts at the c given.
    device : device
        Where it is kept.
    bounds : (float, float), or None
        Finite numbers l < u between which a learned c stays, :math:`c = l + (u - l)/(1 + e^{-\rho})`; it starts between them.

    Attributes
    ----------
    rho : [1] float64, where it is learned; of the shape of c, where that has one
    logit, bounds : the same and [2] float64, where it is learned within bounds
    c : 0-d float64, where it is constant; or the parameter given

    Raises
    ------
    TypeError
        If c is no number, array of numbers or parameter.
    ValueError
        If c is negative or not finite, or a learned one is 0 or does not lie between its bounds.

    Notes
    -----
    Calling it gives c as a float64 tensor, 0-d or of the shape given. It is saved with the module and keeps its precision when
    the module is moved to another dtype. The state of any can be loaded into any other: what is carried over is c, and bounds
    come with a state that has them; a c that the other cannot have is refused. Layers take curvatures of one number; of
    several, the caller chooses: ``hyperbolic.dist(x, y, curvature()[relation, None])``. The optimisers of `tersor.optim` take
    the object itself as ``c``.
    """

    c: Tensor
    rho: nn.Parameter
    logit: nn.Parameter
    bounds: Tensor
    first: list[float] | None

    def __init__(
        self,
        c: float | nn.Parameter | Sequence[float] | Tensor = 1.0,
        learnable: bool = False,
        *,
        device: torch.device | str | None = None,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.learnable, self.raw, self.first, self.shape, self.limits = learnable, False, None, (), _limits(bounds)
        if bounds is not None and (not learnable or isinstance(c, nn.Parameter)):
            raise ValueError("Curvature: bounds are for numbers that are learned (learnable=True)")
        if isinstance(c, nn.Parameter):
            if not c.is_floating_point():
                raise TypeError(f"Curvature: c must be of a float type, got {c.dtype}")
            if c.numel() != 1:
                raise ValueError(f"Curvature: c must be one number, got a parameter of shape {tuple(c.shape)}")
            self.learnable, self.raw = True, True
            self.register_parameter("c", c)
            return
        if isinstance(c, Tensor) and c.requires_grad:
            raise TypeError("Curvature: c must be a number or a Parameter, got a tensor that requires a gradient")
        given = _numbers(c)
        if not bool((given.isfinite() & (given >= 0)).all()):
            raise ValueError(f"Curvature: c must be finite and not negative, got {c}")
        if learnable and not self._possible(given):
            raise ValueError(f"Curvature: a learned c is {self._words}, got {c}")
        self.shape, self.first = tuple(given.shape), given.reshape(-1).tolist()
        kept = self._inverse(given).reshape(self.shape or (1,)) if learnable else given
        device = torch.empty(0).device if device is None else device
        kept = kept.to(device)
        if self.limits is not None:
            self.register_buffer("bounds", torch.tensor(self.limits, dtype=torch.float64, device=device))
        if learnable:
            self.register_parameter(self._name, nn.Parameter(kept))
        else:
            self.register_buffer("c", kept)

    @property
    def _name(self) -> str:
        return "c" if not self.learnable or self.raw else "rho" if self.limits is None else "logit"

    @property
    def _kept(self) -> tuple[str, ...]:
        """What a state holds."""
        return (self._name,) if self.limits is None else (self._name, "bounds")

    @property
    def _words(self) -> str:
        return "positive" if self.limits is None else f"between its bounds {self.limits[0]:g} and {self.limits[1]:g}"

    def _possible(self, c: Tensor) -> bool:
        """Whether a learned curvature can be c."""
        low, high = self.limits or (0.0, math.inf)
        return bool(((c > low) & (c < high)).all())

    def _inverse(self, c: Tensor) -> Tensor:
        """What c is made of."""
        if self.limits is None:
            return c + (-torch.expm1(-c)).log()
        low, high = self.limits
        return (c - low).log() - (high - c).log()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The c that it was made with, where it was made with a number: what was made on meta has none yet."""
        if self.first is None:
            return
        first = torch.tensor(self.first, dtype=torch.float64, device="cpu")
        kept = getattr(self, self._name)
        if self.shape:
            kept.copy_((self._inverse(first) if self.learnable else first).reshape(self.shape))
        else:  # as a number it is one for every shard
            kept.fill_(float(self._inverse(first) if self.learnable else first))
        if self.limits is not None:
            self.bounds.copy_(torch.tensor(self.limits, dtype=torch.float64, device="cpu"))

    def forward(self) -> Tensor:
        kept = getattr(self, self._name).double().reshape(self.shape)
        return _direct(self._name, kept, self.bounds if self.limits is not None else None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Curvature:
        exact = {k: getattr(self, k).data for k in self._kept}
        super()._apply(fn, recurse)
        for k, before in exact.items():
            now = getattr(self, k)
            if now.dtype != before.dtype and not self.raw:
                now.data = before.to(now.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in () if keep_vars else self._kept:
            own, mine = prefix + name, getattr(self, name)
            # a file has no tensors that share memory: at its second name, this is a copy
            if any(k != own and _same(v, mine) for k, v in destination.items()):
                destination[own] = destination[own].clone()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, missing_keys: list, *rest: Any
    ) -> None:
        state, name = dict(state_dict), self._name
        other = next((k for k in ("c", "rho", "logit") if k != name and prefix + k in state), None)
        if other is not None and prefix + name not in state:
            value = _direct(other, state.pop(prefix + other).double(), state.pop(prefix + "bounds", None))
            if name != "c" and not self._possible(value):
                found = float(value) if value.numel() == 1 else value.tolist()
                rest[-1].append(f"Curvature: {prefix + other} is {found}; a learned curvature is {self._words}")
                return
            state[prefix + name] = value if name == "c" else self._inverse(value)
            if self.limits is not None:
                state[prefix + "bounds"] = self.bounds
        if getattr(self, name).ndim:
            widen(state, prefix + name)
        elif prefix + name in state and state[prefix + name].numel() == 1:
            state[prefix + name] = state[prefix + name].reshape(())
        place(state, prefix + name, getattr(self, name))
        super()._load_from_state_dict(state, prefix, local_metadata, strict, missing_keys, *rest)
        if self.limits is not None and self.bounds.device.type != "meta":
            low, high = self.bounds.tolist()
            self.limits = (low, high)
        for k in self._kept:
            once(self, prefix, k, prefix + k in state, missing_keys)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("raw", False)
        self.__dict__.setdefault("first", None)
        self.__dict__.setdefault("shape", ())
        self.__dict__.setdefault("limits", None)
        if isinstance(self.first, float):
            self.first = [self.first]
        if "rho" in self._parameters and not self.rho.ndim:  # saved by an earlier version
            self.rho = nn.Parameter(self.rho.detach().reshape(1).double())

    def extra_repr(self) -> str:
        kept = getattr(self, self._name)
        value = "on meta"
        if kept.device.type != "meta":
            value = ", ".join(f"{v:g}" for v in self().detach().reshape(-1).tolist())
            value = f"[{value}]" if self.shape else value
        bounds = "" if self.limits is None else ", bounds=({:g}, {:g})".format(*self.limits)
        return value + (", learnable" if self.learnable else "") + bounds


def _limits(bounds: Any) -> tuple[float, float] | None:
    if bounds is None:
        return None
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise TypeError(f"Curvature: bounds must be two numbers, got {type(bounds).__name__}")
    low, high = (number("Curvature", "bounds", b) for b in bounds)
    if not 0 <= low < high < math.inf:
        raise ValueError(f"Curvature: bounds must be finite, not negative and in order, got {bounds}")
    return low, high


def _numbers(c: Any) -> Tensor:
    """One number or several as float64, in memory of their own."""
    if isinstance(c, (int, float)) or (hasattr(c, "ndim") and c.ndim == 0):
        return torch.tensor(number("Curvature", "c", c), dtype=torch.float64, device="cpu")
    if not isinstance(c, (Tensor, np.ndarray, list, tuple)):
        raise TypeError(f"Curvature: c must be a number, numbers or a Parameter, got {type(c).__name__}")
    try:
        several = c if isinstance(c, Tensor) else torch.as_tensor(np.asarray(c), device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"Curvature: c must be numbers, got {c}") from None
    if several.is_complex() or several.dtype == torch.bool or not several.numel():
        raise TypeError(f"Curvature: c must be numbers, got {several.dtype} of shape {tuple(several.shape)}")
    return several.to("cpu", torch.float64, copy=True)


def _direct(name: str, kept: Tensor, bounds: Tensor | None) -> Tensor:
    """c of what is kept by a name."""
    if name == "c":
        return kept
    if name == "rho" or bounds is None:
        return nn.functional.softplus(kept)
    low, high = bounds.unbind()
    return low + (high - low) * kept.sigmoid()


def _same(a: Any, b: Tensor) -> bool:
    """Whether two tensors share their memory."""
    if not isinstance(a, Tensor) or a.shape != b.shape or a.dtype != b.dtype or type(a) not in (Tensor, nn.Parameter):
        return False
    return a.device.type != "meta" and a.data_ptr() == b.data_ptr()


def check_given(who: str, c: Any, rows: bool = False, value: bool = True) -> None:
    """Raises unless c is what a distribution takes for one: a number, a tensor or a `Curvature`, with axes only as `rows`
    [..., 1]; and in its range, where `value` asks for that."""
    if isinstance(c, bool) or not isinstance(c, (int, float, np.number, Tensor, nn.Module)):
        raise TypeError(f"{who}: c must be a number, a tensor or a Curvature, got {type(c).__name__}")
    shape = tuple(getattr(c, "shape", ()))
    if shape and not (rows and shape[-1] == 1 and isinstance(c, Tensor)):
        form = " or [..., 1]" if rows else ""
        raise ValueError(f"{who}: c must be a number or of 0 axes{form}, got shape {shape}")
    if isinstance(c, Tensor) and not c.is_floating_point():
        raise TypeError(f"{who}: c must be of a float type, got {dtype_name(c.dtype)}")
    if value and not isinstance(c, nn.Module):
        check_curvature(who, c)


def curvature(
    c: float | nn.Parameter | Curvature, learnable: bool, device: torch.device | str | None = None
) -> Curvature:
    """What a layer makes of its argument: a curvature that is shared, or one of its own."""
    if not isinstance(c, Curvature):
        c = Curvature(c, learnable, device=device)
    if c.shape:
        raise ValueError(f"Curvature: a layer has one curvature, got several, of shape {c.shape}")
    if learnable and not c.learnable:
        raise ValueError(
            "Curvature: learnable=True with a constant one: say Curvature(c, learnable=True) where it is made"
        )
    return c
