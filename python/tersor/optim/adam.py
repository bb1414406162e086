"""Adam. The one rule: the second moment is that of a row, since an entry of a point has no length of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tersor._values import number
from tersor.optim._place import Place
from tersor.optim._riemannian import Riemannian


def least(x: Tensor) -> float:
    """The least number of a type: an eps that it rounds to 0 would make 0/0 of a row that has never moved."""
    kind = torch.finfo(x.dtype)
    return kind.smallest_normal * kind.eps


class RiemannianAdam(Riemannian):
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
    c, model, margin, maximize, stabilize
        As in `RiemannianSGD`. Euclidean parameters have the steps of `torch.optim.Adam`.

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
        model: str = "ball",
        margin: float | str = "tight",
        maximize: bool = False,
        stabilize: int | None = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, defaults, c, model, margin, maximize, stabilize)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if not isinstance(group["betas"], (tuple, list)) or len(group["betas"]) != 2:
            raise TypeError(f"RiemannianAdam: betas must be two numbers, got {group['betas']!r}")
        for i, beta in enumerate(group["betas"]):
            number("RiemannianAdam", f"betas[{i}]", beta)
            if not 0 <= beta < 1:
                raise ValueError(f"RiemannianAdam: betas[{i}] must be in [0, 1), got {beta}")

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any], flat: bool) -> None:
        state["exp_avg"] = torch.zeros_like(p, memory_format=torch.contiguous_format)
        state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"] if flat else state["exp_avg"][..., :1])
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = torch.zeros_like(state["exp_avg_sq"])

    def _update(self, group: dict[str, Any], state: dict[str, Any], x: Tensor, g: Tensor, c: Any, place: Place) -> None:
        (b1, b2), t = group["betas"], state["step"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        r = self._gradient(group, x, g, c, place)
        m.mul_(b1).add_(r, alpha=1 - b1)
        if c is None:
            v.mul_(b2).addcmul_(r, r, value=1 - b2)
        else:
            v.mul_(b2).add_(place.space.inner(x, r, r, c, keepdim=True), alpha=1 - b2)
        if group["amsgrad"]:
            v = torch.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        denominator = v.div(1 - b2**t).sqrt_().add_(max(group["eps"], least(x)))
        self._walk(x, torch.div(m, denominator, out=r), -group["lr"] / (1 - b1**t), m, c, place)
