"""Which channels of a model may be taken out. The one rule: every way from a layer to those that read its channels is
understood step by step, or the layer is left, with the step that is not.
"""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from tersor.nn._narrow import kind_of

#: what makes each number of the one in its place, 0 or not: channels stay channels
_BY_NUMBER = (
    nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Softplus,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.PReLU, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip
_FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, F.relu, F.relu6, F.gelu, F.silu, F.tanh, F.sigmoid, F.leaky_relu, F.elu, F.selu,
    F.mish, F.softplus, F.hardswish, F.hardsigmoid, F.hardtanh, F.dropout,
}  # fmt: skip
_METHODS = {"relu", "relu_", "tanh", "sigmoid", "contiguous"}
#: what works on each channel of an image by itself
_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Upsample,
)  # fmt: skip
_POOLED = {
    F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.interpolate,
}  # fmt: skip


class Unclear(Exception):
    """Why channels may not be taken out."""


class _Tracer(fx.Tracer):
    """Layers are not looked into."""

    def is_leaf_module(self, m: nn.Module, name: str) -> bool:
        return not any(True for _ in m.children()) or super().is_leaf_module(m, name)


#: what makes one residual stream of two
_SUMS = {operator.add, operator.iadd, torch.add}


@dataclass
class Chain:
    """A layer, what its channels go through one by one, and the layers that read each as a run of inputs of this length; with
    it the others whose channels are added to its own."""

    name: str
    size: int
    makers: list[str] = field(default_factory=list)
    through: list[str] = field(default_factory=list)
    readers: list[tuple[str, int]] = field(default_factory=list)


class Graph:
    """The calls of a model, with the shapes that an example gives them."""

    def __init__(self, who: str, model: nn.Module, example: tuple[Any, ...]) -> None:
        training = [m for m in model.modules() if m.training]
        model.eval()
        try:
            self.calls = _Tracer().trace(model)
            with torch.no_grad():
                ShapeProp(fx.GraphModule(model, self.calls)).propagate(*example)
        except Exception as e:
            raise TypeError(f"{who}: torch.fx cannot trace {type(model).__name__}: {str(e).splitlines()[0]}") from e
        finally:
            for m in training:
                m.training = True
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.used = Counter(id(self.modules[str(n.target)]) for n in self.calls.nodes if n.op == "call_module")
        owners: dict[int, set[int]] = {}
        for m in model.modules():
            for p in m._parameters.values():
                if p is not None:
                    owners.setdefault(id(p), set()).add(id(m))
        self.shared = {key for key, of in owners.items() if len(of) > 1}
        read = {str(n.target) for n in self.calls.nodes if n.op == "get_attr"}
        self.read = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if name in read}

    def layers(self) -> list[fx.Node]:
        """The calls of layers, in their order."""
        kinds = (nn.Linear, nn.modules.conv._ConvNd)
        return [n for n in self.calls.nodes if n.op == "call_module" and isinstance(self.modules[str(n.target)], kinds)]

    def chain(self, node: fx.Node, coupled: bool = False) -> Chain:
        """What follows a layer, or an `Unclear` that says which step is not understood; through sums if they couple."""
        module = self.own(node)
        if kind_of(module) != "layer":
            raise Unclear(
                f"{type(module).__name__}{f' of {module.groups} groups' if hasattr(module, 'groups') else ''}"
            )
        axis = len(_shape(node)) - 1 if type(module) is nn.Linear else 1
        if type(module) is not nn.Linear and len(_shape(node)) != module.weight.ndim:
            raise Unclear("the example is no batch of images")
        made = Chain(str(node.target), _shape(node)[axis])
        self._follow(node, axis, made, coupled)
        if not made.readers:
            raise Unclear("nothing reads it")
        return made

    def own(self, node: fx.Node) -> Any:
        """The module of a call, which must be its only one."""
        module = self.modules[str(node.target)]
        if self.used[id(module)] > 1:
            raise Unclear(f"{node.target} is called {self.used[id(module)]} times")
        for p in module._parameters.values():
            if id(p) in self.shared or id(p) in self.read:
                raise Unclear(f"a weight of {node.target} is used elsewhere too")
        hooks = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        if hooks:
            raise Unclear(f"{node.target} has hooks or a forward of its own")
        return module

    def _follow(self, first: fx.Node, axis: int, made: Chain, coupled: bool) -> None:
        """Goes on to what uses the channels, and from a sum back to what else is in it."""
        there = dict[fx.Node, tuple[int, int]]()
        todo: list[tuple[fx.Node, int, int, bool]] = [(first, axis, 1, True)]
        while todo:
            node, axis, run, back = todo.pop()
            if node in there:
                if there[node] != (axis, run):
                    raise Unclear(f"{node} has the channels along two axes")
                continue
            there[node] = axis, run
            if back:
                todo += [(a, axis, run, True) for a in self._made_of(node, axis, run, made)]
            for user in node.users:
                if coupled and _is_sum(user):
                    todo.append((user, axis, run, True))
                elif (step := self._step(node, user, axis, run, made)) is not None:
                    todo.append((user, *step, False))

    def _made_of(self, node: fx.Node, axis: int, run: int, made: Chain) -> list[fx.Node]:
        """Where the channels of a part of a sum come from: a layer, which is one of the makers, or the node before."""
        if _is_sum(node):
            return [a for a in node.args if isinstance(a, fx.Node)]
        if node.op == "call_module" and kind_of(self.modules[str(node.target)]) == "layer":
            module = self.own(node)
            if axis != (len(_shape(node)) - 1 if type(module) is nn.Linear else 1) or run != 1:
                raise Unclear(f"{node.target} gives the channels as another axis")
            made.makers.append(str(node.target))
            return []
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or self._step(before, node, axis, run, made) != (axis, run):
            raise Unclear(f"it is added to {node}, which no layer makes")
        return [before]

    def _step(self, node: fx.Node, user: fx.Node, axis: int, run: int, made: Chain) -> tuple[int, int] | None:
        """Where the channels lie after a call, and how many numbers in a row are of one; None where they end."""
        shape, args = _shape(node), [a for a in user.args if isinstance(a, fx.Node)]
        if user.op == "output":
            raise Unclear("it is an output of the model")
        several = len(args) + sum(isinstance(a, fx.Node) for a in user.kwargs.values()) != 1 or user.args[:1] != (node,)
        if user.op == "call_module":
            module = self.modules[str(user.target)]
            what = f"{user.target} ({type(module).__name__})"
            if not several and type(module) in _BY_NUMBER and kind_of(module) == "":
                return axis, run
            if not several and type(module) in _POOLS and axis == 1 and run == 1 and len(shape) > 2:
                return axis, run
            if not several and type(module) is nn.Flatten:
                return self._flat(what, shape, module.start_dim, module.end_dim, axis, run)
            if not several and kind_of(module):
                return self._reads(user, what, shape, axis, run, made)
        elif user.op == "call_function" and not several:
            what = getattr(user.target, "__name__", str(user.target))
            if user.target in _FUNCTIONS or (
                user.target in (operator.mul, operator.truediv, torch.mul) and len(user.args) == 2
            ):
                return axis, run
            if user.target in _POOLED and axis == 1 and run == 1 and len(shape) > 2:
                return axis, run
            if user.target is torch.flatten:
                return self._flat(what, shape, *_ends(user), axis, run)
            if user.target is torch.mean:
                return self._mean(what, user, shape, axis, run)
        elif user.op == "call_method" and not several:
            what = str(user.target)
            if what in _METHODS:
                return axis, run
            if what == "flatten":
                return self._flat(what, shape, *_ends(user), axis, run)
            if what == "mean":
                return self._mean(what, user, shape, axis, run)
        else:
            what = getattr(user.target, "__name__", str(user.target))
        raise Unclear(f"{what} is no step that takes channels one by one")

    def _reads(
        self, user: fx.Node, what: str, shape: tuple[int, ...], axis: int, run: int, made: Chain
    ) -> tuple[int, int] | None:
        module = self.own(user)
        of = len(shape) - 1 if type(module) is nn.Linear else 1
        images = type(module) in (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        if axis != of or (images and (len(shape) != module.weight.ndim or run != 1)):
            raise Unclear(f"{what} takes the channels as another axis")
        if kind_of(module) == "layer":
            made.readers.append((str(user.target), run))
            return None
        if run != 1:
            raise Unclear(f"{what} takes several numbers of a channel")
        if str(user.target) not in made.through:
            made.through.append(str(user.target))
        return axis, run

    @staticmethod
    def _flat(what: str, shape: tuple[int, ...], start: int, end: int, axis: int, run: int) -> tuple[int, int]:
        if start % len(shape) != axis or end % len(shape) != len(shape) - 1 or run != 1:
            raise Unclear(f"{what} mixes channels with what is before them")
        n = 1
        for k in shape[axis + 1 :]:
            n *= k
        return axis, n

    @staticmethod
    def _mean(what: str, user: fx.Node, shape: tuple[int, ...], axis: int, run: int) -> tuple[int, int]:
        dims = user.kwargs.get("dim", user.args[1] if len(user.args) > 1 else None)
        some = [dims] if isinstance(dims, int) else list(dims) if isinstance(dims, (list, tuple)) else [axis]
        if run != 1 or any(not isinstance(d, int) or d % len(shape) <= axis for d in some):
            raise Unclear(f"{what} is over channels, or what is before them")
        return axis, run


def _shape(node: fx.Node) -> tuple[int, ...]:
    made = node.meta.get("tensor_meta")
    if not hasattr(made, "shape"):
        raise Unclear(f"{node} is no tensor")
    return tuple(made.shape)


def _is_sum(node: fx.Node) -> bool:
    """Whether a call adds two arrays of one shape."""
    called = node.op == "call_function" and node.target in _SUMS and not node.kwargs
    if not called or len(node.args) != 2 or not all(isinstance(a, fx.Node) for a in node.args):
        return False
    return len({_shape(a) for a in node.args if isinstance(a, fx.Node)}) == 1


def _ends(user: fx.Node) -> tuple[int, int]:
    given = (*user.args[1:], *(0, -1)[len(user.args) - 1 :])
    start, end = user.kwargs.get("start_dim", given[0]), user.kwargs.get("end_dim", given[1])
    if not isinstance(start, int) or not isinstance(end, int):
        raise Unclear("flatten of axes that are not numbers")
    return start, end


def spread(keep: Tensor, run: int) -> Tensor:
    """Indices of channels as those of the inputs that they are."""
    return (keep[:, None] * run + torch.arange(run, device=keep.device)).reshape(-1)
