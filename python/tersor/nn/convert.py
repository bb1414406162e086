"""A whole model's layers exchanged. The one rule: what is not exchanged is said, with its reason, and the same call brings the
layers back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from tersor._arrays import flag
from tersor._layers import transposed
from tersor.checkpoint._parts import held
from tersor.checkpoint._patterns import Patterns
from tersor.nn._experts import codes_of_experts
from tersor.nn._product import kept_scheme
from tersor.nn.experts import QuantExperts, projections, refused
from tersor.nn.norm import OURS, THEIRS, exchanged
from tersor.nn.quant import QuantLinear
from tersor.nn.quant_conv import QuantConv2d
from tersor.nn.sparse import SparseConv1x1, SparseLinear
from tersor.nn.sparse_int8 import SparseInt8Linear
from tersor.quant import Encoded
from tersor.quant._encoded import fitted
from tersor.sparse._crossover import SURE, crossover

#: the encoded layer of each dense one
CODED: dict[type[nn.Module], Any] = {nn.Linear: QuantLinear, nn.Conv2d: QuantConv2d}
#: those that are brought back
OF_OURS = (QuantExperts, QuantLinear, QuantConv2d, SparseLinear, SparseInt8Linear, SparseConv1x1)
#: what brings layers back
DENSE = "dense"
#: layers of few weights, and the share of zeros from which on those are exchanged that are too small to be measured
SPARSE, ENOUGH = "sparse", 0.7
#: those whose weights are codes too
SPARSE_CODED = "sparse-int8"
#: weights of a layer under which that share is not measured
SMALL = 1 << 16
#: torch's norms
NORM = "norm"
#: what is no scheme of codes alone
OTHERS = (SPARSE, SPARSE_CODED, NORM)


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Attributes
    ----------
    converted : names of the modules that were exchanged
    left : name of a module -> why it was not
    smaller : name of a module -> its scheme, where groups were made smaller (``fallback``)
    """

    converted: tuple[str, ...]
    left: Mapping[str, str]
    smaller: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        rest = "".join(f"\n  {name}: {why}" for name, why in (*self.left.items(), *self.smaller.items()))
        return f"{len(self.converted)} layers converted, {len(self.left)} left{':' if rest else ''}{rest}"


def convert(
    model: nn.Module,
    scheme: str | Mapping[str, Encoded],
    *,
    activations: str = "float",
    release: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    rows: int = 16,
    fallback: bool = False,
) -> Conversion:
    r"""Exchanges layers of a model for encoded or sparse ones or norms, in place, or brings them back.

    Parameters
    ----------
    model : torch.nn.Module
        Modules of its own classes stay; each ``torch.nn.Linear`` and ``torch.nn.Conv2d`` in it is exchanged, once, also where
        it stands at several names; so is transformers' ``Conv1D``, a linear layer of a transposed weight, which comes back as
        a ``torch.nn.Linear``, and so are its modules that hold the weights of all experts of a mixture in two tensors, which
        become a `QuantExperts`.
    scheme : str, or a mapping of names to Encoded
        "int8-row", "int4-g128", "nf4" or another of `tersor.quant.encode`; or "sparse", which makes a `SparseLinear` of each
        linear layer, and a `SparseConv1x1` of each 1×1 convolution, that was pruned so far that this is faster (see
        ``rows``); or "sparse-int8", which makes a `SparseInt8Linear` of each such linear layer; or "dense", which brings
        torch's own layers back, with the weights that these and `QuantLinear` and `QuantConv2d` hold; or "norm", which makes
        each of torch's norms, but those of instances that track statistics, tersor's of its name, with the same parameters
        and buffers, and which "dense" turns back too; or the codes of the weights by name, as
        `tersor.convert.load_encoded` reads them from a file: a name is that of a layer, or one ends with the other and with
        no other's, so that a head or a prefix more on either side does not matter.
    activations : "float" or "int8"
    release : bool
        See `QuantLinear` on both. Convolutions keep their codes; with int8 activations those in groups (depthwise) are left.
    include, exclude : shell patterns on names of modules
        What is included is exchanged even if it is a router, shares its weight or has few zeros; one that names nothing is an
        error.
    rows : int
        How many rows of activations (pixels of a convolution) are expected at once: a sparse layer is made where as many of
        the weights are 0 as `tersor.sparse.crossover` measures for them; 70 % of weights of fewer than 2¹⁶ elements and of
        those on other devices.
    fallback : bool
        Whether layers whose rows the groups of a scheme do not divide have smaller ones, the largest power of two from 16 on
        that does, or a scale for the whole row; they are left if not.

    Returns
    -------
    Conversion
        The names, and the reason for every layer of these kinds that was left: excluded; a router; a weight that another
        module uses too (a head tied to its table of embeddings), or that torch's own attention and encoder layer read by
        themselves; a forward or hooks of its own; groups that do not divide its rows; too few zeros; no codes among those
        given. Modules that hold experts in one tensor and read it in a way of their own are named too, and so are codes that no
        layer goes by the name of.

    Raises
    ------
    TypeError
        If model is not a module, or is a linear layer itself, which cannot be exchanged in place (see
        ``QuantLinear.from_float``).
    ValueError
        If the scheme is unknown or a pattern names nothing; if codes are of another shape than their layer, or none of them
        is of a layer of the model.

    Notes
    -----
    By a scheme each weight is encoded by itself, rounded to the nearest. Calibrated codes are made by ``tersor quantize`` and
    come in by ``convert(model, tersor.convert.load_encoded(path))``; the model's own weights of these layers play no part, all
    its other parameters do: they must be those of the file, which where weights were scaled (``-awq``) has other norms too.
    Training state is lost: codes are not trained. A bias stays trainable or frozen.

    Examples
    --------
    >>> import torch
    >>> from tersor import nn as tnn
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> tnn.convert(model, "int8-row", activations="int8", exclude=["2"])
    1 layers converted, 1 left:
      2: excluded
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(scheme, (str, Mapping)):
        raise TypeError(
            f"convert: scheme must be a string or a mapping of names to Encoded, got {type(scheme).__name__}"
        )
    codes, scheme = (None, scheme) if isinstance(scheme, str) else (dict(scheme), "int8-row")
    back = scheme == DENSE
    kinds: tuple[type[nn.Module], ...] = tuple(CODED)
    kinds = (*OURS, _NormBase) if scheme == NORM else kinds  # also those that have no counterpart: they are said
    kind = (*OF_OURS, *THEIRS) if back else kinds
    if type(model) in OURS or type(model) in THEIRS:
        raise TypeError(f"convert: model is a {type(model).__name__} itself; put it in a module")
    if isinstance(model, (*CODED, *OF_OURS)) and not isinstance(model, QuantExperts):
        coded = next((new.__name__ for old, new in CODED.items() if isinstance(model, old)), "QuantLinear")
        few = "SparseConv1x1.from_float" if isinstance(model, (nn.Conv2d, SparseConv1x1)) else "SparseLinear.from_dense"
        few = "SparseInt8Linear.from_dense" if scheme == SPARSE_CODED else few
        way = few if scheme in (SPARSE, SPARSE_CODED) else f"{coded}.from_float"
        raise TypeError(f"convert: model is a {type(model).__name__} itself; use {way}, or put it in a module")
    if isinstance(model, QuantExperts) or refused(model) is None:
        way = "its dense()" if isinstance(model, QuantExperts) else "QuantExperts.from_float"
        raise TypeError(f"convert: model is a {type(model).__name__} itself; use {way}, or put it in a module")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise ValueError(f"convert: rows must be a positive integer, got {rows!r}")
    if scheme in OTHERS and activations != "float":
        what = "norm" if scheme == NORM else "sparse layer"
        raise ValueError(f"convert: a {what} takes activations as they come, got activations={activations!r}")
    if not back and scheme not in OTHERS:
        how = kept_scheme("convert", scheme)
        if activations not in ("float", "int8"):
            raise ValueError(f"convert: activations must be 'float' or 'int8', got {activations!r}")
        if how.places and activations == "int8":
            raise ValueError(f"convert: int8 activations go with integer weights, {scheme} are no integers")
    fallback = flag("convert: fallback", fallback)
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    found = {name: m for name, m in model.named_modules() if isinstance(m, kind) or (not back and transposed(m))}
    stacks: dict[str, nn.Module] = {}
    if not back and scheme not in OTHERS:
        stacks = {name: m for name, m in model.named_modules() if _experts(name, m) and refused(m) is None}
        found |= stacks
    if back:  # what is within experts comes back with them
        within = {
            id(m) for each in found.values() if isinstance(each, QuantExperts) for m in each.modules() if m is not each
        }
        found = {name: m for name, m in found.items() if id(m) not in within}
    patterns = Patterns(include, exclude, "convert")
    patterns.check(tensor for every in names.values() for name in every for tensor in _tensors(name, found.get(name)))
    shared = {} if back or scheme == NORM else _shared(model)
    made: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    smaller: dict[str, str] = {}
    given: dict[str, Any] = {}
    if codes is not None:
        pairs, rest = codes_of_experts(model, stacks, codes, left)
        layers = {name: m for name, m in found.items() if name not in stacks}
        given = pairs | _paired(layers, rest, left, len(rest) < len(codes))

    def options(module: nn.Module) -> dict[str, bool]:
        return {} if isinstance(module, nn.Conv2d) else {"release": release}

    for name, module in model.named_modules():
        if name not in found:
            if not back and scheme != NORM and _experts(name, module):
                left[name] = refused(module) or "experts in one tensor, which are not looked at for zeros"
            elif name and not any(True for _ in module.children()) and patterns.included(f"{name}.weight"):
                left[name] = f"a {type(module).__name__} is not exchanged"
            continue
        why = _left(names[id(module)], module, patterns, shared)
        if why is None and codes is not None and name not in given:
            why = left.get(name, "there are no codes of it")
        if why is None:
            try:
                if scheme == NORM and type(module) in THEIRS:
                    left[name] = "it is one already"
                    continue
                if scheme == NORM or type(module) in THEIRS:
                    made[name] = exchanged(module)
                elif back:
                    made[name] = _dense(module)
                elif scheme in (SPARSE, SPARSE_CODED):
                    few = _few(module, scheme)
                    zeros = 1 - few.data.numel() / max(math.prod(few._shape), 1)
                    if not patterns.include and zeros < (enough := _enough(few, rows)):
                        left[name] = f"{zeros:.0%} of its weight are 0, a sparse layer pays from {enough:.0%} on"
                        continue
                    made[name] = few
                elif name in stacks:
                    made[name] = _expert_layers(module, given.get(name), scheme, activations, release, fallback)
                    smaller |= _other(name, made[name], how.name) if fallback and codes is None else {}
                elif codes is not None:
                    made[name] = _coded(module).of(given[name], module, activations, **options(module))
                else:
                    own = fitted(how, _row(module)).name if fallback else scheme
                    made[name] = _coded(module).from_float(module, own, activations, **options(module))
                    if own != how.name and fallback:
                        smaller[name] = own
                continue
            except (TypeError, ValueError) as error:
                why = str(error)
        left[name] = why
    _exchange(model, {id(found[name]): new for name, new in made.items()})
    return Conversion(tuple(made), left, smaller)


def _tensors(name: str, module: nn.Module | None) -> list[str]:
    """What patterns may call the weights of a layer."""
    ours = dict.fromkeys(module._parameters if module is not None and _experts(name, module) else ())
    return [f"{name}.{n}" for n in ours or ("weight",)]


def _expert_layers(
    module: nn.Module, codes: Any, scheme: str, activations: str, release: bool, fallback: bool
) -> QuantExperts:
    if codes is not None:
        up, down = codes
        return QuantExperts.of(up, down, module, activations, release=release)
    return QuantExperts.from_float(module, scheme, activations, release=release, fallback=fallback)


def _other(name: str, experts: QuantExperts, scheme: str) -> dict[str, str]:
    """The schemes of experts that are others than this one, by the names of their weights."""
    both = zip(projections(experts.frame), (experts.up, experts.down), strict=True)
    return {f"{name}.{weight}": some[0].scheme for weight, some in both if len(some) and some[0].scheme != scheme}


def _coded(module: nn.Module) -> Any:
    """The class of encoded layers that a dense one is exchanged for."""
    return next((new for old, new in CODED.items() if isinstance(module, old)), QuantLinear)


def _experts(name: str, module: nn.Module) -> bool:
    """Whether a module of others holds the weights of experts side by side."""
    stacked = any(p is not None and p.ndim == 3 for p in module._parameters.values())
    return stacked and "expert" in f"{name} {type(module).__name__}".lower()


def _row(module: Any) -> int:
    """How many numbers a row of a layer's weight has: those of its inputs, or of a filter."""
    if getattr(module, "weight", None) is None:  # packed by another library
        return int(module.in_features)
    shape = module.weight.shape
    return int(shape[0]) if transposed(module) else math.prod(shape[1:])


def _few(module: nn.Module, scheme: str) -> SparseLinear | SparseConv1x1 | SparseInt8Linear:
    """The sparse layer of a dense one."""
    if scheme == SPARSE:
        return SparseConv1x1.from_float(module) if isinstance(module, nn.Conv2d) else SparseLinear.from_dense(module)
    if isinstance(module, nn.Conv2d):
        raise TypeError("convert: there is no sparse convolution of codes")
    return SparseInt8Linear.from_dense(module)


def _enough(layer: SparseLinear | SparseConv1x1 | SparseInt8Linear, rows: int) -> float:
    """The share of zeros from which on a sparse layer pays; codes are taken to cost what float32 does."""
    size = math.prod(layer._shape)
    if size < SMALL or layer.data.device.type != "cpu" or layer.data.numel() <= SURE * size:
        return ENOUGH
    return crossover(layer._shape, rows, layer.data.dtype if layer.data.is_floating_point() else torch.float32)


def _paired(
    layers: Mapping[str, Any], codes: Mapping[str, Encoded], left: dict[str, str], others: bool
) -> dict[str, Encoded]:
    """The codes of each layer; what is of none is said in `left`, and all of them are an error, if no ``others`` are there."""
    found: dict[str, Encoded] = {}
    taken: dict[str, str] = {}
    for name, code in codes.items():
        if not isinstance(name, str) or not isinstance(code, Encoded):
            raise TypeError(f"convert: codes must be an Encoded for a name, got {type(code).__name__} for {name!r}")
        stem = name.removesuffix(".weight")
        alike = (
            [stem]
            if stem in layers
            else [k for k in layers if f".{k}".endswith(f".{stem}") or f".{stem}".endswith(f".{k}")]
        )
        if len(alike) != 1:
            left[name] = f"codes that may be of {' or '.join(alike)}" if alike else "codes of no linear layer"
            continue
        layer = layers[alike[0]]
        if (
            getattr(layer, "weight", None) is None
        ):  # packed by another library, which has replaced its forward: left, and said
            shape = layer.out_features, layer.in_features
        else:
            shape = tuple(layer.weight.shape)[:: -1 if transposed(layer) else 1]
        if tuple(code.shape) != (shape[0], math.prod(shape[1:])):
            raise ValueError(
                f"convert: codes {name!r} are of shape {tuple(code.shape)}, the layer {alike[0]!r} is {shape}"
            )
        if alike[0] in taken:
            raise ValueError(f"convert: {taken[alike[0]]!r} and {name!r} are both codes of the layer {alike[0]!r}")
        found[alike[0]], taken[alike[0]] = code, name
    if not found and not others:
        raise ValueError(
            f"convert: none of the codes is of a linear layer of the model; they are of {', '.join(codes) or 'nothing'}"
        )
    return found


def _left(names: Sequence[str], module: nn.Module, patterns: Patterns, shared: Mapping[int, str]) -> str | None:
    """Why a layer that stands at these names is not even tried."""
    tensors = [tensor for name in names for tensor in _tensors(name, module)]
    if any(map(patterns.excluded, tensors)):
        return "excluded"
    if any(map(patterns.included, tensors)):
        return None
    if patterns.include:
        return "not included"
    if why := shared.get(id(module)):
        return why
    parameter = module._parameters.get("weight")
    if parameter is not None and (other := shared.get(id(parameter))):
        return f"its weight is also that of {other}"
    return next(filter(None, (held(tensor, "") for tensor in tensors)), None)


def _shared(model: nn.Module) -> dict[int, str]:
    """Parameters that modules of other kinds use too, by the first of these, and layers whose weight torch reads by itself."""
    others: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            others[id(module.out_proj)] = "torch's attention reads its weight itself"
        elif isinstance(module, nn.TransformerEncoderLayer):
            others |= dict.fromkeys(
                map(id, (module.linear1, module.linear2)), "torch's encoder layer reads its weight itself"
            )
        if not (isinstance(module, tuple(CODED)) or transposed(module)):
            for parameter in module._parameters.values():
                if parameter is not None:
                    others.setdefault(id(parameter), name)
    return others


@torch.no_grad()
def _dense(layer: Any) -> nn.Module:
    if isinstance(layer, QuantExperts):
        return layer.dense()
    bias = layer.bias
    if getattr(layer, "activation", None):
        raise ValueError(
            f"convert: it has an activation of its own, {layer.activation}, which a dense layer would lack"
        )
    if getattr(layer, "act", None):
        raise ValueError(f"convert: it has an activation of its own, {layer.act}, which a dense layer would lack")
    if isinstance(layer, (SparseLinear, SparseConv1x1)):
        weight, grad = layer.to_dense(), layer.data.requires_grad
    elif isinstance(layer, SparseInt8Linear):
        weight, grad = layer.to_dense(), bias is None or bias.requires_grad
    else:
        weight, grad = layer.weight.to(getattr(torch, layer.dtype)), bias is None or bias.requires_grad
    made: nn.Module
    if isinstance(layer, QuantConv2d):
        shape: Any = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, bias is not None
        made = nn.Conv2d(layer.in_channels, layer.out_channels, *shape, layer.padding_mode, device="meta")
    elif isinstance(layer, SparseConv1x1):
        made, weight = nn.Conv2d(layer.in_channels, layer.out_channels, 1, device="meta"), weight[..., None, None]
        made.bias = None
    else:
        made = nn.Linear(layer.in_features, layer.out_features, bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return made.train(layer.training)


def _exchange(model: nn.Module, made: Mapping[int, nn.Module]) -> None:
    """Puts new modules wherever the old ones stand."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and id(child) in made:
                setattr(parent, name, made[id(child)].train(child.training))
