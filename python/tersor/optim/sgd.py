"""Stochastic gradient descent. The one rule: momentum is a tangent vector, and moves with its point."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tersor.optim._place import Place
from tersor.optim._riemannian import Riemannian


class RiemannianSGD(Riemannian):
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
    c : float, tensor, Curvature, or None
        The rows (last axis) of the parameters are points of curvature -c; a tensor has no axes or broadcasts over rows,
        ``[..., 1]``, and may be a parameter itself. An `nn.Curvature` and a parameter are followed as they are learned. None:
        what a parameter says itself, as that of an `nn.HEmbedding` does; the others are Euclidean, and this is
        `torch.optim.SGD`.
    model : "ball" or "lorentz"
        Whether points are those of `tersor.hyperbolic` or of `tersor.lorentz`.
    margin : float, "tight" or "compat"
        How far inside the ball points stay; see `tersor.hyperbolic.project`.
    maximize : bool
        Whether steps go up.
    stabilize : int, or None
        After so many steps of a parameter all its points are brought inside the ball that there then is, as
        ``optimizer.stabilize()`` does at once. Points that a step moves are inside anyway; those that a sparse gradient does
        not name may be outside, where others have moved the curvature or the points.

    Raises
    ------
    ValueError
        If a number is out of its range, a curvature does not go with the rows, a gradient is sparse and weight_decay is not 0,
        or a state is loaded that is of other numbers c or of other places.
    TypeError
        If a parameter is a DTensor whose rows are cut, c does not go with it, or a parameter says that it lives on a manifold
        and nobody says where (``c``).

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
        model: str = "ball",
        margin: float | str = "tight",
        maximize: bool = False,
        stabilize: int | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults, c, model, margin, maximize, stabilize)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("RiemannianSGD: nesterov wants a momentum and no dampening")

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any], flat: bool) -> None:
        if group["momentum"]:
            state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.contiguous_format)

    def _update(self, group: dict[str, Any], state: dict[str, Any], x: Tensor, g: Tensor, c: Any, place: Place) -> None:
        r, m = self._gradient(group, x, g, c, place), state.get("momentum_buffer")
        if m is not None:
            damped = r
            if group["dampening"]:
                # what has no momentum yet takes its gradient whole
                rest = (m != 0).any(-1, keepdim=True) if state.get("rows") else state["step"] > 1
                damped = r - group["dampening"] * r * rest
            m.mul_(group["momentum"]).add_(damped)
            r = r.add_(m, alpha=group["momentum"]) if group["nesterov"] else m.clone()
        self._walk(x, r, -group["lr"], m, c, place)
