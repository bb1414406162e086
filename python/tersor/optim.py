"""Riemannian optimisers for points of the ball. The one rule: one update serves dense parameters and gathered rows.

Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from tersor import _dtensor, hyperbolic
from tersor._values import number

__all__ = ["RiemannianAdam", "RiemannianSGD"]


class _Riemannian(torch.optim.Optimizer):
    """What the optimisers share: which rows a step touches, and the geometry of a group."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        for group in self.param_groups:
            self._check(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._check(self.param_groups[-1])

    def _check(self, group: dict[str, Any]) -> None:
        name = type(self).__name__
        for key in ("lr", "weight_decay", "momentum", "dampening", "eps", "c"):
            if isinstance(group.get(key), int):
                number(name, key, group[key])
        for key in ("lr", "weight_decay", "momentum", "eps"):
            if key in group and not group[key] >= 0:
                raise ValueError(f"{name}: {key} must not be negative, got {group[key]}")
        for p in group["params"]:
            if _dtensor.distributed(p) and any(at.is_partial() for at in p.placements):
                raise TypeError(f"{name}: a parameter is a DTensor with {p.placements}: a sum still to be made")
        c = group["c"]
        if c is None:
            return
        if not isinstance(c, (int, float, Tensor)):
            raise TypeError(f"{name}: c must be None, a number or a tensor, got {type(c).__name__}")
        if isinstance(c, Tensor):
            c = c.detach().full_tensor() if _dtensor.distributed(c) else c.detach()
        if isinstance(c, int):
            c = float(c)
        if not bool(torch.isfinite(torch.as_tensor(c)).all() and (torch.as_tensor(c) >= 0).all()):
            raise ValueError(f"{name}: c must be finite and not negative, got {c}")
        if any(p.ndim == 0 for p in group["params"]):
            raise ValueError(f"{name}: points of the ball are rows; a parameter has no axes")
        for p in group["params"]:
            _dtensor.local(name, "a parameter", p)

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        """Makes the state of a parameter that is met for the first time."""
        raise NotImplementedError

    def _update(self, group: dict[str, Any], state: dict[str, Any], x: Tensor, g: Tensor, c: Any) -> None:
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
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            c = group["c"]
            c = _dtensor.number(c.detach()) if isinstance(c, Tensor) else c if c is None else float(c)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = 0
                    self._begin(group, p, state)
                state["step"] += 1
                x, g, own, at = self._own(state, p, c)
                if g.is_sparse:
                    self._rows(group, own, x, g, at)
                else:
                    self._update(group, own, x, g, at)
        return loss

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

    def _rows(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, g: Tensor, c: Any) -> None:
        """The step of the rows that a sparse gradient names."""
        if g.sparse_dim() != 1:
            raise ValueError(f"{type(self).__name__}: a sparse gradient must be sparse in its first axis only")
        if group["weight_decay"]:
            raise ValueError(f"{type(self).__name__}: weight_decay does not go with sparse gradients")
        grad = g.coalesce()
        (at,) = grad.indices()
        if isinstance(c, Tensor) and c.ndim == p.ndim and len(c) > 1:
            c = c[at]
        of = {k: s.index_select(0, at) if isinstance(s, Tensor) else s for k, s in state.items()} | {"rows": True}
        x = p.index_select(0, at)
        self._update(group, of, x, grad.values(), c)
        p.index_copy_(0, at, x)
        for k, s in state.items():
            if isinstance(s, Tensor):
                s.index_copy_(0, at, of[k])

    @staticmethod
    def _gradient(group: dict[str, Any], x: Tensor, g: Tensor, c: Any) -> Tensor:
        """The Riemannian gradient, in memory that may be written to."""
        g = g.add(x, alpha=group["weight_decay"]) if group["weight_decay"] else g.clone()
        g = g.contiguous()
        if c is None:
            return g
        if isinstance(c, Tensor):  # a curvature that has been learned since may have left points outside
            x.copy_(hyperbolic.project(x, c))
        return hyperbolic.egrad2rgrad(x, g, c, out=g)

    @staticmethod
    def _walk(x: Tensor, v: Tensor, along: Tensor | None, c: Any) -> None:
        """Moves `x` to exp_x(v) and takes the tangent vectors `along` with it; uses up `v`."""
        if c is None:
            x.add_(v)
            return
        hyperbolic.expmap(x, v, c, out=v)
        if along is not None:
            hyperbolic.parallel_transport(x, v, along, c, out=along)
        x.copy_(v)


class RiemannianSGD(_Riemannian):
    r"""Stochastic gradient descent in the ball, with momentum.

    .. math::
        r &= (\nabla f(x) + w x)/\lambda_x^2 \\
        m &\leftarrow \mu m + (1 - \tau) r \quad (m = r \text{ in the first step}) \\
        d &= m, \text{ or } r + \mu m \text{ (Nesterov)} \\
        x' &= \exp_x(-\eta d), \quad m \leftarrow P_{x \to x'} m

    Parameters
    ----------
    params : iterable of parameters, or of groups
        As in torch. A group's ``c`` says where its parameters live.
    lr : float
        The step :math:`\eta`, a length in the metric of the ball.
    momentum, dampening, weight_decay : float
        :math:`\mu`, :math:`\tau` and :math:`w`, as in `torch.optim.SGD`.
    nesterov : bool
        Whether to look ahead; wants a momentum and no dampening.
    c : float, tensor, or None
        The rows (last axis) of the parameters are points of the ball of curvature -c; a tensor has no axes or broadcasts over
        rows, ``[..., 1]``, and may be a parameter itself. None: the parameters are Euclidean, and this is `torch.optim.SGD`.

    Raises
    ------
    ValueError
        If a number is out of its range, or a gradient is sparse and weight_decay is not 0.
    TypeError
        If a parameter is a DTensor whose rows are cut, or c does not go with it.

    Notes
    -----
    The metric of the ball is :math:`\lambda_x^2` times the Euclidean one, and :math:`\lambda_0 = 2`: at c = 0 a step is that
    of `torch.optim.SGD` with a quarter of the learning rate. Sparse gradients (``nn.Embedding(sparse=True)``) move the rows
    they name and no others, nor their momentum; a row's first step is not dampened. DTensors are moved by the rows that each
    process holds, and must not be sharded along them. Bonnabel, "Stochastic Gradient Descent on
    Riemannian Manifolds" (2013); Bécigneul, Ganea, "Riemannian Adaptive Optimization Methods" (2019).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        c: Any = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "c": c,
        }
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("RiemannianSGD: nesterov wants a momentum and no dampening")

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        if group["momentum"]:
            state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.contiguous_format)

    def _update(self, group: dict[str, Any], state: dict[str, Any], x: Tensor, g: Tensor, c: Any) -> None:
        r, m = self._gradient(group, x, g, c), state.get("momentum_buffer")
        if m is not None:
            damped = r
            if group["dampening"]:
                # what has no momentum yet takes its gradient whole
                rest = (m != 0).any(-1, keepdim=True) if state.get("rows") else state["step"] > 1
                damped = r - group["dampening"] * r * rest
            m.mul_(group["momentum"]).add_(damped)
            r = r.add_(m, alpha=group["momentum"]) if group["nesterov"] else m.clone()
        self._walk(x, r.mul_(-group["lr"]), m, c)


class RiemannianAdam(_Riemannian):
    r"""Adam in the ball: a first moment that moves with its point, and one second moment for each row.

    .. math::
        r &= (\nabla f(x) + w x)/\lambda_x^2 \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) r, \quad v \leftarrow \beta_2 v + (1 - \beta_2)\langle r, r\rangle_x \\
        d &= \frac{m/(1 - \beta_1^t)}{\sqrt{v/(1 - \beta_2^t)} + \epsilon} \\
        x' &= \exp_x(-\eta d), \quad m \leftarrow P_{x \to x'} m

    Parameters
    ----------
    params : iterable of parameters, or of groups
        As in torch. A group's ``c`` says where its parameters live.
    lr : float
        The step :math:`\eta`.
    betas : (float, float)
        :math:`\beta_1` and :math:`\beta_2`.
    eps : float
        :math:`\epsilon`.
    weight_decay : float
        w, as in `torch.optim.Adam`.
    amsgrad : bool
        Whether v is replaced by the largest it has been.
    c : float, tensor, or None
        As in `RiemannianSGD`. None: the parameters are Euclidean, and this is `torch.optim.Adam`.

    Raises
    ------
    ValueError
        If a number is out of its range, or a gradient is sparse and weight_decay is not 0.
    TypeError
        If a parameter is a DTensor whose rows are cut, or c does not go with it.

    Notes
    -----
    An entry of a point has no length of its own: the second moment is that of the row, [..., 1]. With :math:`\lambda_0 = 2`,
    rows of one entry at c = 0 take the steps of `torch.optim.Adam` with half the learning rate and twice the eps. Sparse
    gradients move the rows they name and no others, nor their moments; t counts the steps of the parameter. DTensors as in
    `RiemannianSGD`. Bécigneul, Ganea,
    "Riemannian Adaptive Optimization Methods" (2019).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        c: Any = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "c": c}
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        for i, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"RiemannianAdam: betas[{i}] must be in [0, 1), got {beta}")

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["exp_avg"] = torch.zeros_like(p, memory_format=torch.contiguous_format)
        state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"] if group["c"] is None else state["exp_avg"][..., :1])
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = torch.zeros_like(state["exp_avg_sq"])

    def _update(self, group: dict[str, Any], state: dict[str, Any], x: Tensor, g: Tensor, c: Any) -> None:
        (b1, b2), t = group["betas"], state["step"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        r = self._gradient(group, x, g, c)
        m.mul_(b1).add_(r, alpha=1 - b1)
        if c is None:
            v.mul_(b2).addcmul_(r, r, value=1 - b2)
        else:
            v.mul_(b2).add_(hyperbolic.inner(x, r, r, c, keepdim=True), alpha=1 - b2)
        if group["amsgrad"]:
            v = torch.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        denominator = v.div(1 - b2**t).sqrt_().add_(group["eps"])
        step = torch.div(m, denominator, out=r).mul_(-group["lr"] / (1 - b1**t))
        self._walk(x, step, m, c)
