"""Models made smaller by whole channels. The one rule: what is left computes what the model did with the others' readers at
0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tersor import prune
from tersor._arrays import dtype_name, flag, whole
from tersor._values import one_of
from tersor.checkpoint._patterns import Patterns
from tersor.nn._chains import Chain, Graph, Unclear, spread
from tersor.nn._masked import each, said
from tersor.nn._narrow import narrow
from tersor.prune._rank import share


@dataclass(frozen=True)
class Shrinking:
    """What `shrink` did.

    Attributes
    ----------
    kept : name of a layer -> indices of the outputs that it still has
    left : name of a layer -> why its outputs stay
    parameters : how many parameters the model had and has
    """

    kept: Mapping[str, Tensor]
    left: Mapping[str, str]
    parameters: tuple[int, int]

    def __repr__(self) -> str:
        before, after = self.parameters
        left = "".join(f"\n  {name}: {why}" for name, why in self.left.items())
        head = f"{len(self.kept)} layers smaller, {before} -> {after} parameters, {len(self.left)} left"
        return f"{head}:{left}" if left else head


def shrink(
    model: nn.Module,
    example: Any,
    sparsity: float | Sequence[float] | None = None,
    *,
    scores: Mapping[str, Tensor] | None = None,
    scope: str = "layer",
    min_keep: int = 1,
    round_to: int = 1,
    norm: float = 2,
    coupled: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Shrinking:
    r"""Takes whole outputs (rows, filters) out of a model's layers, with all that reads them, in place.

    Parameters
    ----------
    model : torch.nn.Module
        Layers are ``torch.nn.Linear`` and convolutions of one group. The channels of one are followed by ``torch.fx`` through
        functions of single numbers, batch norms, depthwise convolutions, pooling, flattening and means over an image, to the
        layers that read them.
    example : tensor, or tuple of the model's inputs
        What the model is called with; its shapes say where channels lie.
    sparsity : float between 0 and 1, or one for each layer
        The share of the outputs that go, of each layer or of all of them together.
    scores : mapping of names of layers to tensors [out], optional
        The lowest go; by default the norms of the rows of the weight, `tersor.prune.row_scores`. With `sparsity` None, outputs
        whose score is not above 0 go: those whose row is 0.
    scope : "layer" or "global"
        The same share of each, or all scores ranked together.
    min_keep : int
        How many outputs a layer keeps at least; 1 or more.
    round_to : int
        Layers keep a multiple of this number, or all: fewer go than the share says.
    norm : 1, 2 or inf
        Of the scores.
    coupled : bool
        Layers whose outputs are added are one: the same channels go out of all of them, and out of the whole residual stream.
        Their score is the norm of all their rows that go together; `scores` has it under the name of the first. Without, they
        stay.
    include, exclude : shell patterns on names of layers
        An included layer that is not understood is an error.

    Returns
    -------
    Shrinking
        What each layer keeps, and the reason for those that stay.

    Raises
    ------
    TypeError
        If model is not a module or cannot be traced, or an included layer is not understood.
    ValueError
        If no layer is understood, an argument is out of range, or scores are not finite.

    See Also
    --------
    take_outputs, take_inputs, Masks, tersor.prune.row_scores

    Notes
    -----
    A channel that is taken out is missing in every sum that it was in, also where it was a constant and not 0. Of equal scores
    the lower index stays. Residual streams stay
    whole unless layers are coupled, as do layers that are called twice or whose weight is shared. Weights
    are new parameters: make the optimizer afterwards. Li et al., "Pruning Filters for Efficient ConvNets" (2017).

    Examples
    --------
    >>> import torch
    >>> from tersor import nn as tnn
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 8))
    >>> tnn.shrink(model, torch.randn(2, 64), 0.5)
    1 layers smaller, 9352 -> 4680 parameters, 1 left:
      2: it is an output of the model
    """
    who = "shrink"
    if not isinstance(model, nn.Module):
        raise TypeError(f"{who}: model must be a torch.nn.Module, got {type(model).__name__}")
    one_of(f"{who}: scope", scope, ("layer", "global"))
    least, step = whole(f"{who}: min_keep", min_keep), whole(f"{who}: round_to", round_to)
    for name, value in (("min_keep", least), ("round_to", step)):
        if value < 1:
            raise ValueError(f"{who}: {name} must be positive, got {value}")
    graph = Graph(who, model, example if isinstance(example, tuple) else (example,))
    chains, left = _chains(who, graph, Patterns(include, exclude, who), flag(f"{who}: coupled", coupled))
    names = [c.name for c in chains]
    with said(who, names):
        ranks = _scores(graph, chains, scores, norm)
        masks = _masks(ranks, sparsity, scope, least, step)
    before = sum(p.numel() for p in model.parameters())
    kept = {name: mask.nonzero()[:, 0] for c, mask in zip(chains, masks, strict=True) for name in c.makers}
    for chain in chains:
        keep = kept[chain.name]
        if len(keep) == chain.size:
            continue
        for name in (*chain.makers, *chain.through):
            narrow(graph.modules[name], keep, outputs=True)
        for name, run in chain.readers:
            narrow(graph.modules[name], spread(keep, run), outputs=False)
    return Shrinking(kept, left, (before, sum(p.numel() for p in model.parameters())))


def _chains(who: str, graph: Graph, patterns: Patterns, coupled: bool) -> tuple[list[Chain], dict[str, str]]:
    chains, left = list[Chain](), dict[str, str]()
    layers = graph.layers()
    patterns.check(f"{n.target}.weight" for n in layers)
    for node in layers:
        name = str(node.target)
        if any(name in c.makers for c in chains):
            continue
        if patterns.excluded(f"{name}.weight") or not patterns.wants(f"{name}.weight"):
            left[name] = "excluded" if patterns.excluded(f"{name}.weight") else "not included"
            continue
        try:
            made = graph.chain(node, coupled)
            if odd := [m for m in made.makers if not patterns.wants(f"{m}.weight") or patterns.excluded(f"{m}.weight")]:
                raise Unclear(f"its outputs are added to those of {odd[0]}, which is not to be made smaller")
            chains.append(made)
        except Unclear as e:
            if patterns.include:
                raise TypeError(f"{who}: {name} cannot be made smaller: {e}") from None
            left[name] = str(e)
    if not chains:
        raise ValueError(f"{who}: no layer can be made smaller; left: {left}")
    return chains, left


def _scores(graph: Graph, chains: list[Chain], scores: Any, norm: float) -> list[Tensor]:
    if scores is None:
        return [_together([graph.modules[m].weight.detach() for m in c.makers], norm) for c in chains]
    if not isinstance(scores, Mapping):
        raise TypeError(f"scores must be a mapping of names to tensors, got {type(scores).__name__}")
    if odd := scores.keys() ^ {c.name for c in chains}:
        raise ValueError(
            f"scores must have the names of the layers; missing or unknown: {', '.join(sorted(map(str, odd)))}"
        )
    for c in chains:
        x = scores[c.name]
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = dtype_name(x.dtype) if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"scores of {c.name!r} must be a float tensor, got {kind}")
        if tuple(x.shape) != (c.size,):
            raise ValueError(f"scores of {c.name!r} must have shape ({c.size},), got {tuple(x.shape)}")
    return [scores[c.name].detach() for c in chains]


def _together(weights: list[Tensor], norm: float) -> Tensor:
    """The norm of the rows of all of them."""
    rows = [prune.row_scores(w, norm=norm) for w in weights]
    return rows[0] if len(rows) == 1 else prune.row_scores(torch.stack(rows, 1), norm=norm)


def _masks(ranks: list[Tensor], sparsity: Any, scope: str, least: int, step: int) -> list[Tensor]:
    """Which outputs stay."""
    sizes = [len(r) for r in ranks]
    if sparsity is None:
        if any(not bool(torch.isfinite(r).all()) for r in ranks):
            raise ValueError("scores have non-finite values")
        kept = [int((r > 0).sum()) for r in ranks]
    elif scope == "layer":
        kept = [n - share(s, n) for n, s in zip(sizes, each("sparsity", sparsity, len(sizes)), strict=True)]
    else:
        at_least = [min(least, n) for n in sizes]
        found = prune.global_masks(ranks, sparsity, scores=ranks, min_keep=at_least, mixed=True)
        kept = [int(m.sum()) for m in found]
    counts = [min(n, -(-max(k, least) // step) * step) for n, k in zip(sizes, kept, strict=True)]
    goes = [n - k for n, k in zip(sizes, counts, strict=True)]
    return list(prune.global_masks(ranks, k=goes, scope="layer", scores=ranks, mixed=True))
