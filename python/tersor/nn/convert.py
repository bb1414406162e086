"""A whole model's layers exchanged. The one rule: what is not exchanged is said, with its reason, and the same call brings the
layers back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from tersor._arrays import flag
from tersor._layers import in_short, transposed
from tersor.checkpoint._patterns import Patterns
from tersor.nn._back import dense
from tersor.nn._codings import Codings
from tersor.nn._experts import codes_of_experts
from tersor.nn._few import FEWER, SPARSE_CODED, fewer
from tersor.nn._found import CODED, of_experts, others_of, paired, tensors, why_left
from tersor.nn.experts import QuantExperts, refused
from tersor.nn.norm import OURS, THEIRS, exchanged
from tersor.nn.quant import QuantLinear
from tersor.nn.quant_conv import QuantConv2d
from tersor.nn.sparse import SparseConv1x1, SparseLinear
from tersor.nn.sparse_int8 import SparseInt8Linear
from tersor.quant import Encoded

#: those that are brought back
OF_OURS = (QuantExperts, QuantLinear, QuantConv2d, SparseLinear, SparseInt8Linear, SparseConv1x1)
#: what brings layers back
DENSE = "dense"
#: torch's norms
NORM = "norm"
#: who says within what is wrong with a layer: its entry has the reason alone
_SPEAKER = re.compile(r"^(convert|[A-Z]\w+(\.\w+)?): ")
#: what is no scheme of codes alone
OTHERS = (*FEWER, NORM)


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
        return in_short(f"{len(self.converted)} layers converted", self.left, self.smaller)


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
    schemes: Mapping[str, str] | None = None,
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
    schemes : mapping of shell patterns to schemes, optional
        For layers that have another scheme than the rest: ``{"lm_head": "int8-row", "*.down_proj": "int8-g128"}``. The first
        pattern that names a layer decides, and one that decides of none is an error. Goes with schemes of `encode` alone.

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
        If a scheme is unknown or a pattern names nothing; if codes are of another shape than their layer, or none of them
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
        way = few if scheme in FEWER else f"{coded}.from_float"
        raise TypeError(f"convert: model is a {type(model).__name__} itself; use {way}, or put it in a module")
    if isinstance(model, QuantExperts) or refused(model) is None:
        way = "its dense()" if isinstance(model, QuantExperts) else "QuantExperts.from_float"
        raise TypeError(f"convert: model is a {type(model).__name__} itself; use {way}, or put it in a module")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise ValueError(f"convert: rows must be a positive integer, got {rows!r}")
    if scheme in OTHERS and activations != "float":
        what = "norm" if scheme == NORM else "sparse layer"
        raise ValueError(f"convert: a {what} takes activations as they come, got activations={activations!r}")
    fallback = flag("convert: fallback", fallback)
    coding = None
    if not back and scheme not in OTHERS:
        coding = Codings(scheme, schemes, activations, release, fallback)
    if schemes and (coding is None or codes is not None):
        what = "codes have their own" if codes is not None else f"{scheme!r} is none"
        raise ValueError(f"convert: schemes by patterns go with a scheme, {what}")
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    found = {name: m for name, m in model.named_modules() if isinstance(m, kind) or (not back and transposed(m))}
    stacks: dict[str, nn.Module] = {}
    if coding:
        stacks = {name: m for name, m in model.named_modules() if of_experts(name, m) and refused(m) is None}
        found |= stacks
    if back:  # what is within experts comes back with them
        within = {
            id(m) for each in found.values() if isinstance(each, QuantExperts) for m in each.modules() if m is not each
        }
        found = {name: m for name, m in found.items() if id(m) not in within}
    patterns = Patterns(include, exclude, "convert")
    patterns.check(tensor for every in names.values() for name in every for tensor in tensors(name, found.get(name)))
    shared = {} if back or scheme == NORM else others_of(model)
    made: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    given: dict[str, Any] = {}
    if codes is not None:
        pairs, rest = codes_of_experts(model, stacks, codes, left)
        layers = {name: m for name, m in found.items() if name not in stacks}
        given = pairs | paired(layers, rest, left, len(rest) < len(codes))

    for name, module in model.named_modules():
        if name not in found:
            if not back and scheme != NORM and of_experts(name, module):
                left[name] = refused(module) or "experts in one tensor, which are not looked at for zeros"
            elif name and not any(True for _ in module.children()) and patterns.included(f"{name}.weight"):
                left[name] = f"a {type(module).__name__} is not exchanged"
            continue
        why = why_left(names[id(module)], module, patterns, shared)
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
                    made[name] = dense(module)
                elif scheme in FEWER:
                    few, zeros, enough = fewer(module, scheme, rows)
                    if not patterns.include and zeros < enough:
                        left[name] = f"{zeros:.0%} of its weight are 0, a sparse layer pays from {enough:.0%} on"
                        continue
                    made[name] = few
                elif coding:
                    alike = names[id(module)]
                    made[name] = (
                        coding.encoded(alike, module, name in stacks)
                        if codes is None
                        else coding.of(given[name], module)
                    )
                continue
            except (TypeError, ValueError) as error:
                why = _SPEAKER.sub("", str(error))
        left[name] = why
    if coding:
        coding.check({name: names[id(found[name])] for name in made}, model, left)
    _exchange(model, {id(found[name]): new for name, new in made.items()})
    return Conversion(tuple(made), left, coding.smaller if coding else {})


def _exchange(model: nn.Module, made: Mapping[int, nn.Module]) -> None:
    """Puts new modules wherever the old ones stand."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and id(child) in made:
                setattr(parent, name, made[id(child)].train(child.training))
