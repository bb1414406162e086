"""The experts of a mixture with quantized weights. The one rule: what a model does besides the two products of an expert is
done by its own module, and whose products are others is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersor._arrays import dtype_name, sizes
from tersor._routed import matrix, projections, unknown
from tersor.nn._cast import accept, lowered
from tersor.nn._grouped import alike, multiplied
from tersor.nn._linear import check_hooks
from tersor.nn._product import encoded_as, kept_scheme
from tersor.nn.quant import QuantLinear
from tersor.quant import Encoded
from tersor.quant._encoded import fitted


def refused(module: Any) -> str | None:
    """Why a module of experts is none that can be exchanged, or None."""
    if why := unknown(module):
        return why
    try:
        check_hooks("convert", "it", module)
    except TypeError as error:
        return str(error).removeprefix("convert: ")
    return None


class QuantExperts(nn.Module):
    r"""The experts of a mixture whose weights are kept encoded, :math:`y_t = \sum_k w_{tk}\, D_{e_{tk}}\, g(U_{e_{tk}} x_t)`.

    It takes the place of a module of transformers that holds the weights of all experts in two tensors (Mixtral, Qwen-MoE,
    DeepSeek, gpt-oss and the others that have one of its common forwards), is called as that one is, and has its gate g and
    its norm behind an expert do their work. Each expert is two `QuantLinear`.

    Parameters
    ----------
    up, down : sequences of QuantLinear
        U [middle, in] and D [out, middle] of each expert; with a gate U has the rows of both of its inputs.
    frame : torch.nn.Module
        The module of experts without its weights.

    Attributes
    ----------
    up, down : torch.nn.ModuleList of QuantLinear
    frame : torch.nn.Module

    Notes
    -----
    Rows of tokens are sorted by their expert; only experts that are chosen are multiplied. Under ``torch.compile`` the product
    of all experts is one operator, opaque to the graph, which so stays whole; where experts are of several schemes the graph
    breaks. Results of a token are weighted and added up in the order of its choice, in the type of the product
    of results and weights, as transformers' own batched forward has it. An index that is the number of experts chooses none.
    """

    up: nn.ModuleList
    down: nn.ModuleList
    frame: nn.Module

    def __init__(self, up: Sequence[QuantLinear], down: Sequence[QuantLinear], frame: nn.Module) -> None:
        super().__init__()
        for name, layers in (("up", up), ("down", down)):
            if wrong := [type(m).__name__ for m in layers if not isinstance(m, QuantLinear)]:
                raise TypeError(f"QuantExperts: {name} must be QuantLinear layers, got {wrong[0]}")
        if not isinstance(frame, nn.Module):
            raise TypeError(f"QuantExperts: frame must be a module of experts, got {type(frame).__name__}")
        if len(up) != len(down):
            raise ValueError(f"QuantExperts: up and down must be of as many experts, got {len(up)} and {len(down)}")
        self.up, self.down, self.frame = nn.ModuleList(up), nn.ModuleList(down), frame

    @property
    def num_experts(self) -> int:
        return len(self.up)

    @classmethod
    def from_float(
        cls,
        experts: nn.Module,
        scheme: str | Sequence[str],
        activations: str = "float",
        *,
        release: bool = False,
        fallback: bool = False,
    ) -> QuantExperts:
        """The module ``experts`` with the weights of each expert encoded by ``scheme`` (or by two, that of U and that of D)
        along its inputs; `fallback` as of `convert`. Experts with a forward, hooks or parameters that are not known are a
        TypeError."""
        who = "QuantExperts.from_float"
        both = (scheme, scheme) if isinstance(scheme, str) else tuple(scheme)
        if len(both) != 2:
            raise ValueError(f"{who}: scheme must be one or two, got {len(both)}")
        hows = [kept_scheme(who, one) for one in both]
        _check(who, experts)
        codes = []
        for name, how, one in zip(projections(experts), hows, both, strict=True):
            weight = matrix(experts, name)
            own = fitted(how, weight.shape[2]).name if fallback else one
            codes.append([encoded_as(who, w.contiguous(), own) for w in weight])
        return cls.of(codes[0], codes[1], experts, activations, release=release)

    @classmethod
    def of(
        cls,
        up: Sequence[Encoded],
        down: Sequence[Encoded],
        experts: nn.Module,
        activations: str = "float",
        *,
        release: bool = False,
    ) -> QuantExperts:
        """The module ``experts`` with these codes [out, in] for the weights of its experts, and its own biases."""
        who = "QuantExperts.of"
        _check(who, experts)
        made = []
        for name, codes in zip(projections(experts), (up, down), strict=True):
            weight = matrix(experts, name)
            bias = experts._parameters.get(f"{name}_bias")
            if len(codes) != len(weight):
                raise ValueError(f"{who}: {name} is of {len(weight)} experts, codes of {len(codes)}")
            layers = []
            for i, code in enumerate(codes):
                # made on meta: what says shapes, types and devices needs no memory of its own
                dense = nn.Linear(weight.shape[2], weight.shape[1], bias is not None, device="meta")
                dense.weight = nn.Parameter(weight[i], requires_grad=False)
                if bias is not None:
                    dense.bias = nn.Parameter(bias[i].detach(), requires_grad=bias.requires_grad)
                layers.append(QuantLinear.of(code, dense, activations, release=release))
            made.append(layers)
        return cls(made[0], made[1], framed(experts)).train(experts.training)

    def dense(self) -> nn.Module:
        """The module of transformers, with the weights that the codes stand for."""
        made = framed(self.frame)
        for name, layers in zip(projections(made), (self.up, self.down), strict=True):
            biases = [layer.bias for layer in layers]
            weight = torch.stack([layer.weight.to(getattr(torch, layer.dtype)) for layer in layers])
            grad = all(bias is None or bias.requires_grad for bias in biases)
            weight = weight.transpose(1, 2).contiguous() if made.is_transposed else weight
            made._parameters[name] = nn.Parameter(weight, requires_grad=grad)
            if made.has_bias:
                made._parameters[f"{name}_bias"] = nn.Parameter(torch.stack(biases).detach(), requires_grad=grad)
        return made.train(self.training)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        frame: Any = self.frame
        accept(self, hidden_states, self.up[0].in_features)
        chosen, k = top_k_index.reshape(-1), top_k_index.shape[-1]
        if chosen.is_floating_point() or chosen.dtype == torch.bool:
            raise TypeError(f"QuantExperts: top_k_index must be of integers, got {dtype_name(chosen.dtype)}")
        if not len(chosen) == len(hidden_states) * k == top_k_weights.numel():
            shapes = ", ".join(str(sizes(t.shape)) for t in (hidden_states, top_k_index, top_k_weights))
            raise ValueError(f"QuantExperts: tokens, their experts and weights do not go together: {shapes}")
        if torch.compiler.is_compiling() and alike(self.up) and alike(self.down):
            return self._in_one(hidden_states, chosen, top_k_weights, k)
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) <= self.num_experts:
            least, most = int(chosen.min()), int(chosen.max())
            raise IndexError(f"QuantExperts: experts {least} to {most} are chosen, there are {self.num_experts}")
        order = torch.argsort(chosen, stable=True)
        counts = torch.bincount(chosen, minlength=self.num_experts + 1).tolist()
        made, start = [], 0
        for up, down, count in zip(self.up, self.down, counts, strict=False):
            if count:
                rows = order[start : start + count] // k
                middle = up(hidden_states[rows])
                middle = frame._apply_gate(middle) if frame.has_gate else frame.act_fn(middle)
                y = down(middle)
                made.append(frame.post_expert_norm(y) if getattr(frame, "has_post_expert_norm", False) else y)
                start += count
        results = torch.cat(made) if made else hidden_states[:0]
        y = results.new_zeros(len(chosen), results.shape[1]).index_copy(0, order[:start], results)
        y = y * top_k_weights.reshape(-1, 1)
        return y.reshape(len(hidden_states), k, y.shape[1]).sum(1).to(hidden_states.dtype)

    def _in_one(self, hidden_states: Tensor, chosen: Tensor, weights: Tensor, k: int) -> Tensor:
        """The same with an operator for all experts, in a graph, which cannot hold how many rows each has."""
        frame: Any = self.frame
        first: Any = self.up[0]
        accept(first, hidden_states, first.in_features, like=first.bias)
        order = torch.argsort(chosen, stable=True)
        own = chosen[order]
        x, _ = lowered(hidden_states, None)
        middle = multiplied(self.up, x[order // k], own)
        middle = frame._apply_gate(middle) if frame.has_gate else frame.act_fn(middle)
        middle, _ = lowered(middle, None)
        y = multiplied(self.down, middle, own)
        y = frame.post_expert_norm(y) if getattr(frame, "has_post_expert_norm", False) else y
        y = torch.where((own < self.num_experts)[:, None], y, 0)
        y = torch.zeros_like(y).index_copy(0, order, y) * weights.reshape(-1, 1)
        return y.reshape(len(hidden_states), k, y.shape[1]).sum(1).to(hidden_states.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_experts} experts of {type(self.frame).__name__}"


def framed(module: Any) -> Any:
    """A module of the same class and children without weights of its own; the module itself stays as it is."""
    made = object.__new__(type(module))
    vars(made).update(vars(module))
    made._parameters = dict.fromkeys(module._parameters)
    made._buffers, made._modules = dict(module._buffers), dict(module._modules)
    return made


def _check(who: str, experts: Any) -> None:
    if why := refused(experts):
        raise TypeError(f"{who}: experts must be a module of transformers with a known forward, got {why}")
