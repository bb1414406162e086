"""What the optimisers share: which rows a step touches, and where they live. The one rule: a step that is refused has changed
nothing, and one that is made leaves points where the curvature then is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from tersor import _dtensor, hyperbolic, lorentz
from tersor._arrays import dtype_name, flag, whole
from tersor._values import number
from tersor.lorentz._space import reach, shortened
from tersor.optim import _place
from tersor.optim._place import Place

#: what groups of an older state do not have
LATER = {"model": "ball", "margin": "tight", "maximize": False, "stabilize": None}


class Riemannian(torch.optim.Optimizer):
    """An optimiser whose groups say where their parameters live."""

    def __init__(
        self,
        params: Iterable[Any],
        defaults: dict[str, Any],
        c: Any,
        model: str,
        margin: float | str,
        maximize: bool,
        stabilize: int | None,
    ) -> None:
        places = {"c": c, "model": model, "margin": margin, "maximize": maximize, "stabilize": stabilize}
        super().__init__(params, defaults | places)
        for group in self.param_groups:
            self._check(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._check(self.param_groups[-1])

    def _check(self, group: dict[str, Any]) -> None:
        name = type(self).__name__
        for key in ("lr", "weight_decay", "momentum", "dampening", "eps"):
            if key not in group:
                continue
            if not abs(number(name, key, group[key])) < math.inf:
                raise ValueError(f"{name}: {key} must be finite, got {group[key]}")
            if key != "dampening" and not group[key] >= 0:
                raise ValueError(f"{name}: {key} must not be negative, got {group[key]}")
        flag(f"{name}: maximize", group["maximize"])
        every = group["stabilize"]
        if every is not None and (isinstance(every, bool) or whole(f"{name}: stabilize", every) < 1):
            raise ValueError(f"{name}: stabilize must be None or a number of steps, 1 or more, got {every}")
        for p in group["params"]:
            if not p.is_floating_point():
                raise TypeError(f"{name}: a parameter must be of a float type, got {dtype_name(p.dtype)}")
            if _dtensor.distributed(p) and any(at.is_partial() for at in p.placements):
                raise TypeError(f"{name}: a parameter is a DTensor with {p.placements}: a sum still to be made")
        Place(group["c"], group["model"], group["margin"]).check(name, [] if group["c"] is None else group["params"])
        for p in group["params"]:
            place = _place.of(group, p)
            if group["c"] is None:
                if place.c is None:
                    _place.check_silent(name, p)
                place.check(name, [p])

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any], flat: bool) -> None:
        """Makes the state of a parameter that is met for the first time."""
        raise NotImplementedError

    def _update(self, group: dict[str, Any], state: dict[str, Any], x: Tensor, g: Tensor, c: Any, place: Place) -> None:
        """Moves rows `x`, and their state, in place. The state's tensors are of these rows only."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step.

        Parameters
        ----------
        closure : callable, or None
            Evaluates the model again and returns the loss.

        Returns
        -------
        The loss, or None.

        Notes
        -----
        All curvatures are those that the gradients were made with, also where the step changes them; the points of a ball that
        shrank are projected at the end.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moves = [
            (group, p, _place.of(group, p))
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        curvatures = {id(place.c): place.now() for _, _, place in moves}
        curvatures = {k: c.clone() if isinstance(c, Tensor) else c for k, c in curvatures.items()}
        for group, p, place in moves:
            self._refuse(group, p, curvatures[id(place.c)])
        for group, p, place in moves:
            state, c = self.state[p], curvatures[id(place.c)]
            if not state:
                state["step"] = 0
                self._begin(group, p, state, place.c is None)
            state["step"] += 1
            x, g, own, at = self._own(state, p, c)
            if g.is_sparse:
                self._rows(group, own, x, g, at, place)
            else:
                self._update(group, own, x, g, at, place)
        self._settle({id(p) for _, p, _ in moves})
        for group, p, _ in moves:
            if group["stabilize"] is not None and self.state[p]["step"] % group["stabilize"] == 0:
                self._bring(group, p)
        return loss

    @torch.no_grad()
    def stabilize(self) -> None:
        """Brings all points of balls inside, also those that no gradient has named, as their curvature now is.

        Raises
        ------
        ValueError
            If a curvature is negative or not finite.
        """
        for group in self.param_groups:
            for p in group["params"]:
                self._bring(group, p)

    def _refuse(self, group: dict[str, Any], p: Tensor, c: Any) -> None:
        """Raises where a step is impossible."""
        name, g = type(self).__name__, p.grad
        assert g is not None
        _place.fits(name, c, p)
        if g.is_sparse and not _dtensor.distributed(g):
            if g.sparse_dim() != 1:
                raise ValueError(f"{name}: a sparse gradient must be sparse in its first axis only")
            if group["weight_decay"]:
                raise ValueError(f"{name}: weight_decay does not go with sparse gradients")

    def _settle(self, moved: set[int]) -> None:
        """Points of balls whose curvature this step has moved are brought inside."""
        for group in self.param_groups:
            for p in group["params"]:
                if any(id(q) in moved for q in _place.of(group, p).parameters):
                    self._bring(group, p)

    def _bring(self, group: dict[str, Any], p: Tensor) -> None:
        """Rows that are outside the ball, where they live in one, are projected."""
        place = _place.of(group, p)
        if place.model != "ball" or place.c is None:
            return
        c = place.now()
        _place.check_value(f"{type(self).__name__}: after the step", c)
        c = c.to_local() if _dtensor.distributed(c) else c
        x = p.to_local() if _dtensor.distributed(p) else p
        x.copy_(place.space.project(x, c, place.margin))

    def _own(self, state: dict[str, Any], p: Tensor, c: Any) -> tuple[Tensor, Tensor, dict[str, Any], Any]:
        """The rows of a parameter that this process holds, with their gradient, state and curvature, in the same memory."""
        name, g = type(self).__name__, p.grad
        assert g is not None
        if not _dtensor.distributed(p):
            if _dtensor.distributed(c) and c.numel() > 1:
                raise TypeError(f"{name}: c is a DTensor of several numbers, a parameter is a plain tensor")
            return p, g, state, c.to_local() if _dtensor.distributed(c) else c
        if not _dtensor.distributed(g):
            raise TypeError(f"{name}: a parameter is a DTensor, its gradient is not")
        if g.placements != p.placements:  # a sum still to be made, say
            g = g.redistribute(placements=p.placements)
        if _dtensor.distributed(c):
            if c.numel() > 1 and (c.device_mesh != p.device_mesh or c.placements != p.placements):
                raise TypeError(
                    f"{name}: c is placed by {c.placements}, a parameter by {p.placements}; they must be alike"
                )
            c = c.to_local()
        elif isinstance(c, Tensor) and c.numel() > 1:
            raise TypeError(
                f"{name}: c is a plain tensor of several numbers, a parameter is a DTensor; distribute it as well"
            )
        own = {k: s.to_local() if _dtensor.distributed(s) else s for k, s in state.items()}
        return p.to_local(), g.to_local(), own, c

    def _rows(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, g: Tensor, c: Any, place: Place) -> None:
        """The step of the rows that a sparse gradient names."""
        grad = g.coalesce()
        (at,) = grad.indices()
        if isinstance(c, Tensor) and c.ndim == p.ndim and len(c) > 1:
            c = c[at]
        of = {k: s.index_select(0, at) if isinstance(s, Tensor) and s.ndim else s for k, s in state.items()}
        x = p.index_select(0, at)
        self._update(group, of | {"rows": True}, x, grad.values(), c, place)
        p.index_copy_(0, at, x)
        for k, s in state.items():
            if isinstance(s, Tensor) and s.ndim:
                s.index_copy_(0, at, of[k])

    @staticmethod
    def _gradient(group: dict[str, Any], x: Tensor, g: Tensor, c: Any, place: Place) -> Tensor:
        """The Riemannian gradient, in memory that may be written to."""
        g = g.neg() if group["maximize"] else g.clone()
        g = g.add_(x, alpha=group["weight_decay"]) if group["weight_decay"] else g
        g = g.contiguous()
        if c is None:
            return g
        if place.model == "lorentz":
            r: Tensor = lorentz.egrad2rgrad(x, g, c)
            return r
        if isinstance(c, Tensor):  # others may have learned it since
            x.copy_(hyperbolic.project(x, c, place.margin))
        return hyperbolic.egrad2rgrad(x, g, c, out=g)

    @staticmethod
    def _walk(x: Tensor, r: Tensor, rate: Any, along: Tensor | None, c: Any, place: Place) -> None:
        """Moves `x` to exp_x(rate r) and takes the tangent vectors `along` with it; uses up `r`."""
        if c is None:
            x.add_(r.mul_(rate))
            return
        if place.model == "ball":
            v = r.mul_(rate)
            y = hyperbolic.expmap(x, v, c, place.margin, out=v)
            if along is not None:
                hyperbolic.parallel_transport(x, y, along, c, out=along)
        else:  # far out a long step is no vector of a small type
            y = lorentz.expmap(x.double(), r.double() * rate, c, clip=True)
            y = shortened(y, reach(x)).to(x.dtype)
            if along is not None:
                along.copy_(lorentz.parallel_transport(x, y, along, c))
        x.copy_(y)

    def state_dict(self) -> dict[str, Any]:
        """The state, as torch has it; a curvature stands there as its number at the time."""
        state: dict[str, Any] = super().state_dict()
        for mine, saved in zip(self.param_groups, state["param_groups"], strict=True):
            c = Place(mine["c"]).now()
            saved["c"] = c.clone() if isinstance(c, Tensor) else c
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state of another run over. Where parameters live is not part of it: c stays what the optimiser was given.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` gave; states of `torch.optim` for parameters of flat space too.

        Raises
        ------
        ValueError
            If a group's c is another number, its model another one, or moments are of points where the parameters are flat.
        """
        groups = list(state_dict["param_groups"])
        if len(groups) == len(self.param_groups):
            groups = [
                self._joined(mine, saved, state_dict["state"])
                for mine, saved in zip(self.param_groups, groups, strict=True)
            ]
        given = [group["c"] for group in self.param_groups]
        super().load_state_dict({**state_dict, "param_groups": groups})
        for group, c in zip(self.param_groups, given, strict=True):
            group["c"] = c
        for own in self.state.values():  # torch counts in float32
            own["step"] = int(own.get("step", 1))

    def _joined(self, mine: dict[str, Any], saved: dict[str, Any], state: dict[Any, Any]) -> dict[str, Any]:
        """A saved group with what it does not say taken from the own one."""
        name = type(self).__name__
        both = {k: v for k, v in mine.items() if k not in ("params", "param_names")} | saved
        if isinstance(mine["c"], (int, float)) and isinstance(saved.get("c"), (int, float)) and mine["c"] != saved["c"]:
            raise ValueError(f"{name}: the state is of c = {saved['c']}, the group has c = {mine['c']}")
        if both["model"] != mine["model"]:
            raise ValueError(f"{name}: the state is of model {both['model']!r}, the group of {mine['model']!r}")
        for key, p in zip(saved["params"], mine["params"], strict=False):
            moment = state.get(key, {}).get("exp_avg_sq")
            points = _place.of(mine, p).c is not None
            wanted = (*p.shape[:-1], 1) if points else tuple(p.shape)
            if moment is not None and p.ndim and tuple(moment.shape) != wanted:
                kind = "points, which have one second moment for each row" if points else "flat space"
                raise ValueError(
                    f"{name}: a parameter {tuple(p.shape)} is of {kind}: {wanted}; the state has {tuple(moment.shape)}, "
                    f"as that of {'flat space (torch.optim.Adam)' if points else 'points'} has it"
                )
        both["c"] = None
        return both

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for k, v in LATER.items():
                group.setdefault(k, v)
