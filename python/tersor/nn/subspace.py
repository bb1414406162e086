"""Training in a random subspace. The one rule: all that is trained is v, and the matrix to the parameters is never stored."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tersor._arrays import fits
from tersor.project import Projection

_KINDS = ("gaussian", "sparse", "fastfood")
#: entries of the matrix that are seen at a time where its columns are measured
_SEEN = 1 << 22


class Subspace(nn.Module):
    r"""A module of D parameters that is trained in d dimensions: :math:`\theta = \theta_0 + P v`, v = 0 to begin with.

    P is D × d and random, its columns of length 1: for kinds "gaussian" and "sparse" each is divided by its length over all
    parameters, as in the paper, which takes d numbers; "fastfood" has :math:`\mathbb E\|Pv\|^2 = \|v\|^2`, and columns of
    length 1 where D is a power of two. The least d that reaches 90 % of what training all parameters reaches is the intrinsic
    dimension of the objective.

    Parameters
    ----------
    module : torch.nn.Module
        Its parameters are :math:`\theta_0`: kept, no longer trained. Its buffers are its own.
    d : int
    kind : "gaussian", "sparse" or "fastfood"
        What P is. A step costs D·d ("sparse": over the root of D) numbers that are made on the way, for "fastfood" D log D.
    seed : int in [0, 2^64)
    layout : "global" or "per_tensor"
        One matrix for all parameters, or one (a stream of the seed) for each, of the variance it has in a global one.
    g : "gaussian" or "rademacher"
        Of kind "fastfood", see `Projection`.

    Attributes
    ----------
    v : [d] float32, all that is trained
    lengths : [d] float32, the lengths of the columns; of kind "fastfood" there are none
    module : the module with :math:`\theta_0`

    Raises
    ------
    TypeError
        If module is none, or a parameter is not of a float type.
    ValueError
        If there are no parameters, a kind or layout is unknown, or another argument is out of range.

    Notes
    -----
    All parameters move, those that did not require a gradient too. A state holds :math:`\theta_0`, v and lengths, not P: it
    goes into a layer of the same d, kind, seed, layout and g. `merge` writes :math:`\theta_0 + Pv` into the module and gives it
    back. Nothing of size D·d is stored at any time. Li,
    Farkhoor, Liu, Yosinski, "Measuring the intrinsic dimension of objective landscapes" (2018).

    Examples
    --------
    >>> import torch
    >>> from tersor import nn as tnn
    >>> model = tnn.Subspace(torch.nn.Linear(64, 10), 50, "fastfood")
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['v']
    """

    def __init__(
        self,
        module: nn.Module,
        d: int,
        kind: str = "gaussian",
        *,
        seed: int = 0,
        layout: str = "global",
        g: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"Subspace: module must be a torch.nn.Module, got {type(module).__name__}")
        if kind not in _KINDS:
            raise ValueError(f"Subspace: kind must be one of {', '.join(_KINDS)}, got {kind!r}")
        if layout not in ("global", "per_tensor"):
            raise ValueError(f"Subspace: layout must be 'global' or 'per_tensor', got {layout!r}")
        parameters = dict(module.named_parameters())
        for name, p in parameters.items():
            if nn.parameter.is_lazy(p):
                raise ValueError(f"Subspace: parameter {name} has no shape before the first call of its lazy module")
            if not p.is_floating_point():
                raise TypeError(f"Subspace: parameter {name} must be of a float type, got {p.dtype}")
        sizes = [p.numel() for p in parameters.values() if p.numel()]
        if not sizes:
            raise ValueError("Subspace: the module has no parameters")
        self.total = sum(sizes)
        whole = [self.total] if layout == "global" else sizes
        own: dict[str, Any] = {} if g is None else {"g": g}
        self.projections = [
            Projection(d, n, kind, seed=seed, stream=i, **own, **_density(kind, n)) for i, n in enumerate(whole)
        ]
        # v, and the lengths of as many columns: as they are, and as they are summed
        fits(f"Subspace: d = {d}", 24 * self.projections[0].d)
        self.kind, self.layout = kind, layout
        device = next(iter(parameters.values())).device
        self.module = module.requires_grad_(False)
        self.v = nn.Parameter(torch.zeros(self.projections[0].d, device=device))
        self.register_buffer("lengths", None if kind == "fastfood" else self._measured(device))

    def _scale(self, p: Projection) -> float:
        """To entries of variance 1/D, as those of one matrix for all have it."""
        return math.sqrt(p.k / self.total)

    def _measured(self, device: Any) -> Tensor:
        """The lengths of the columns of P."""
        squares = torch.zeros(self.projections[0].d, dtype=torch.float64)
        for p in self.projections:
            step = max(_SEEN // p.d, 1)
            for a in range(0, p.k, step):
                entries = p.rows(a, min(a + step, p.k)).materialise(torch.float32)
                squares += entries.double().square_().sum(0) * self._scale(p) ** 2
        # a column of a very sparse matrix may be empty, and then adds nothing
        return torch.where(squares > 0, squares.sqrt(), 1.0).float().to(device)

    def offset(self) -> Tensor:
        """P v, all parameters one after another: [D] float32."""
        v = self.v if self.lengths is None else self.v / self.lengths
        parts = [p(v) * self._scale(p) for p in self.projections]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def state(self) -> dict[str, Tensor]:
        """The parameters :math:`\\theta_0 + Pv` of the module by their names."""
        parameters = dict(self.module.named_parameters())
        parts = self.offset().split([p.numel() for p in parameters.values()])
        pairs = zip(parameters.items(), parts, strict=True)
        return {name: p + part.view(p.shape).to(p.dtype) for (name, p), part in pairs}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.module, self.state(), args, kwargs)

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """The module with what was learned in its parameters, which may be trained again; v begins anew at 0."""
        parameters = dict(self.module.named_parameters())
        for name, value in self.state().items():
            parameters[name].copy_(value)
        self.v.zero_()
        return self.module.requires_grad_(True)

    def extra_repr(self) -> str:
        return f"d={self.v.numel()}, D={self.total}, kind={self.kind!r}, layout={self.layout!r}"


def _density(kind: str, n: int) -> dict[str, Any]:
    """One entry in √n is not zero, n being the parameters that a sparse matrix is for."""
    return {"s": math.sqrt(n)} if kind == "sparse" else {}
