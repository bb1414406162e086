"""Masks of weights that stay while a model is trained. The one rule: after every step what is pruned is +0, in the weight and
in what the optimizer remembers of it, and the model is otherwise what it was.

Masks are held by hooks of the optimizer, over weights that are themselves pruned, and not by a parametrisation: that would
rename the weights in every state, untie weights that modules share, make the model impossible to pickle, stand between a
module and what reads its weight (torch's attention, `torch.fx`, a converter), copy each weight in each forward pass, and keep
what was pruned alive under its mask, to be moved by momentum and decay. What a hook costs is that each optimizer must be
attached, once. The masks are buffers beside their weights, so that copies, states, devices and the processes of DDP have
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersor import prune
from tersor._arrays import dtype_name, is_distributed, whole
from tersor._bits import is_packed, unpacked
from tersor._values import one_of
from tersor.checkpoint._patterns import Patterns
from tersor.nn._held import Held, masked
from tersor.nn._masked import SUFFIX, buffered, chosen, each, said, scored
from tersor.nn._steps import check_optimizer
from tersor.prune._rank import share
from tersor.prune.apply import prune_inplace


class Masks(Held, Mapping[str, Tensor]):
    r"""Masks of a model's weights: a mapping of names to bool tensors, True where a weight is kept.

    Parameters
    ----------
    model : torch.nn.Module
        Each weight gets a buffer ``<weight>_mask`` beside it, all True, or keeps the one that is there (of a copy, say).
    include, exclude : sequences of shell patterns on names of parameters or of their modules
        Without `include`, all parameters of two axes or more but tables of embeddings and routers, as `tersor prune` takes
        them; what is included is taken even so, biases by patterns that end in their own name (``"*.bias"``). A pattern that
        names nothing is an error.

    Attributes
    ----------
    left : mapping of names to why a parameter of two axes or more has no mask
    sparsity : the share of the weights that is pruned

    Raises
    ------
    TypeError
        If model is not a module, or a parameter is no plain one (a DTensor, one without its first value, one that a
        parametrisation or ``torch.nn.utils.prune`` makes a weight of).
    ValueError
        If no parameter is chosen, a pattern names nothing, or a buffer of that name is something else.

    See Also
    --------
    GradualPruner, DynamicSparse, tersor.prune.global_masks, SparseLinear

    Notes
    -----
    A weight that several modules share is one weight with one mask. Gradients are masked when the optimizer begins its step:
    whoever clips their norm calls `mask_gradients` before. Memory: one byte a weight. Under DDP masks are buffers like others
    (``broadcast_buffers=False`` saves sending them, as all processes make the same); FSDP's shards are refused: prune the whole
    model.

    Examples
    --------
    >>> import torch
    >>> from tersor import nn as tnn
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> masks = tnn.Masks(model).attach(optimizer)
    >>> masks.prune(0.9, min_keep=64)
    Masks(2 weights, 90.0% pruned)
    >>> model(torch.randn(4, 64)).square().mean().backward()
    >>> optimizer.step()  # pruned weights stay +0
    >>> masks.prune(0.2, of="left")
    Masks(2 weights, 92.0% pruned)
    """

    def __init__(self, model: nn.Module, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        who = type(self).__name__
        if not isinstance(model, nn.Module):
            raise TypeError(f"{who}: model must be a torch.nn.Module, got {type(model).__name__}")
        self.model, self.left = model, dict[str, str]()
        self._places = chosen(who, model, Patterns(include, exclude, who), self.left)
        self._hooks: list[tuple[torch.optim.Optimizer, tuple[Any, Any, dict[str, Any]]]] = []
        found = {name: [buffered(who, *place) for place in places] for name, places in self._places.items()}
        for name, masks in found.items():
            mask = next((m for m in masks if m is not None), None)
            for (module, attribute), there in zip(self._places[name], masks, strict=True):
                if mask is None:
                    mask = torch.ones_like(getattr(module, attribute), dtype=torch.bool)
                if there is None:
                    module.register_buffer(attribute + SUFFIX, mask)
        self.apply()

    # --- what they are ---

    def __getitem__(self, name: str) -> Tensor:
        module, attribute = self._places[name][0]
        mask: Tensor = getattr(module, attribute + SUFFIX)
        return mask

    # they are themselves: mappings compare their values, which tensors do not

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __setitem__(self, name: str, mask: Tensor) -> None:
        """A mask of one's own, at once: what it prunes is +0, what it brings back begins at +0."""
        self.update({name: mask})

    def update(self, masks: Mapping[str, Tensor]) -> Masks:
        """Takes masks of one's own by the names of their weights, all or, after an error, none.

        Parameters
        ----------
        masks : mapping of names to bool tensors of the shapes of the weights, or to their bits (`tersor.prune.pack_mask`)

        Raises
        ------
        TypeError
            If a mask is not a bool tensor.
        ValueError
            If there is no weight of that name, or the shapes differ.
        """
        who, masks = type(self).__name__, dict(masks)
        for name, mask in masks.items():
            if name not in self._places:
                raise ValueError(f"{who}: there is no mask called {name!r}; there are {', '.join(self)}")
            if isinstance(mask, Tensor) and is_packed(mask):
                masks[name] = mask = unpacked(who, f"the mask {name!r}", mask, tuple(self[name].shape))
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                kind = dtype_name(mask.dtype) if hasattr(mask, "dtype") else type(mask).__name__
                raise TypeError(f"{who}: the mask {name!r} must be a bool tensor, got {kind}")
            if mask.shape != self[name].shape:
                raise ValueError(
                    f"{who}: the mask {name!r} must have shape {tuple(self[name].shape)}, got {tuple(mask.shape)}"
                )
            self.weight(name)
        for name, mask in masks.items():
            for module, attribute in self._places[name]:
                getattr(module, attribute + SUFFIX).copy_(mask)
            prune_inplace(self.weight(name), self[name])
        return self

    def weight(self, name: str) -> Tensor:
        """The parameter of this name.

        Raises
        ------
        TypeError
            If it has become a shard of several processes.
        """
        module, attribute = self._places[name][0]
        weight: Tensor = getattr(module, attribute)
        if is_distributed(weight):
            raise TypeError(f"{type(self).__name__}: {name} is a DTensor; masks are held on whole weights")
        return weight

    @property
    def kept(self) -> dict[str, int]:
        """How many weights each mask keeps."""
        return {name: int(mask.sum()) for name, mask in self.items()}

    @property
    def sparsity(self) -> float:
        """The share of the weights that is pruned."""
        total = sum(mask.numel() for mask in self.values())
        return 1 - sum(self.kept.values()) / total if total else 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} weights, {self.sparsity:.1%} pruned)"

    # --- what is pruned ---

    def prune(
        self,
        sparsity: float | Sequence[float] | None = None,
        *,
        k: int | Sequence[int] | None = None,
        of: str = "all",
        scope: str = "global",
        min_keep: int | Sequence[int] = 0,
        scores: Mapping[str, Tensor] | None = None,
    ) -> Masks:
        """Prunes the least of the weights that are left; what is pruned stays so.

        Parameters
        ----------
        sparsity : float between 0 and 1, or one for each weight if ``scope="layer"``
            The share to be pruned in the end, of all weights or of those that are left now.
        k : int, or one for each weight if ``scope="layer"``
            Their number instead.
        of : "all" or "left"
            What the share and the number are of: 0.2 of what is left, three times, is 0.488 of all.
        scope : "global" or "layer"
            Rank all weights together, or each by itself.
        min_keep : int, or one for each weight
            The largest so many of each are kept; a share then prunes fewer, while a k that is too large is an error.
        scores : mapping of every name to a tensor of the shape of the weight
            Rank these, with their sign, instead of magnitudes.

        Returns
        -------
        Masks
            These.

        Raises
        ------
        TypeError
            If weights are no plain floats, or an argument is of a wrong type.
        ValueError
            If more is pruned already, k is more than can be, an argument is out of range, or what is ranked is not finite.

        Notes
        -----
        Exactly as many as `tersor.prune.global_masks` counts, of equals those of the lowest index kept.
        """
        who, names = f"{type(self).__name__}.prune", list(self)
        with said(who, names):
            found = self._found(sparsity, k, of, scope, min_keep, scores)
        return self.update(dict(zip(names, found, strict=True)))

    def _found(self, sparsity: Any, k: Any, of: str, scope: str, min_keep: Any, scores: Any) -> list[Tensor]:
        one_of("of", of, ("all", "left"))
        one_of("scope", scope, ("global", "layer"))
        if (sparsity is None) == (k is None):
            raise ValueError("give either sparsity or k")
        masks, ranked = list(self.values()), [self.weight(name).detach() for name in self]
        if scores is not None:
            ranked = scored(scores, self)
        left = [int(m.sum()) for m in masks]
        keep = [min(n, whole("min_keep", m)) for n, m in zip(left, each("min_keep", min_keep, len(left)), strict=True)]
        if min(keep) < 0:
            raise ValueError(f"min_keep must not be negative, got {min_keep}")
        groups = [[i] for i in range(len(left))] if scope == "layer" else [list(range(len(left)))]
        given = each("k", k, len(groups)) if sparsity is None else each("sparsity", sparsity, len(groups))
        counts = []
        for group, value in zip(groups, given, strict=True):
            here, total = sum(left[i] for i in group), sum(masks[i].numel() for i in group)
            gone = 0 if of == "left" else total - here
            count = whole("k", value) if sparsity is None else share(value, here + gone)
            if count < gone:
                raise ValueError(f"{count} of {total} weights are fewer than the {gone} that are pruned already")
            most = here - sum(keep[i] for i in group)
            if count - gone > most and sparsity is None:
                raise ValueError(f"k = {value}, where only {gone + most} may be pruned")
            counts.append(min(count - gone, most))
        # only what is left is ranked: a weight that is 0 and kept is not taken for one that was pruned
        some = [x if n == m.numel() else x[m] for x, m, n in zip(ranked, masks, left, strict=True)]
        options: dict[str, Any] = {"scores": None if scores is None else some, "min_keep": keep, "scope": scope}
        options["mixed"] = True  # as a model has them
        found = prune.global_masks(some, k=counts if scope == "layer" else counts[0], **options)
        return [
            new if n == m.numel() else m.clone().masked_scatter_(m, new)
            for new, m, n in zip(found, masks, left, strict=True)
        ]

    def apply(self) -> Masks:
        """Makes what is pruned +0 again, after weights were loaded or written by something that is no optimizer."""
        for name, mask in self.items():
            prune_inplace(self.weight(name), mask)
        return self

    def mask_gradients(self) -> Masks:
        """Makes the gradients of what is pruned +0, as every step does by itself: for who looks at gradients before."""
        for name, mask in self.items():
            masked(self.weight(name).grad, mask)
        return self

    def remove(self) -> nn.Module:
        """Takes the masks and all hooks away: what is pruned stays 0 until it is trained again.

        Returns
        -------
        torch.nn.Module
            The model.
        """
        self.apply().detach()
        for places in self._places.values():
            for module, attribute in places:
                delattr(module, attribute + SUFFIX)
        self._places = {}
        return self.model

    # --- what stays pruned ---

    def attach(self, optimizer: torch.optim.Optimizer) -> Masks:
        """Holds the masks through every step of an optimizer.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            Several may be attached, each with some of the weights. One that was copied or loaded is another one.

        Returns
        -------
        Masks
            These.

        Raises
        ------
        TypeError
            If optimizer is none of torch's kind.
        ValueError
            If it has none of the weights, or is attached already.
        """
        who = type(self).__name__
        check_optimizer(who, optimizer)
        if any(other is optimizer for other, _ in self._hooks):
            raise ValueError(f"{who}: the optimizer is attached already")
        if not self._own(optimizer):
            raise ValueError(f"{who}: the optimizer has none of the weights {', '.join(self)}")
        pre = optimizer.register_step_pre_hook(self._before)
        post = optimizer.register_step_post_hook(self._after)
        self._hooks.append((optimizer, (pre, post, {})))
        return self

    def detach(self, optimizer: torch.optim.Optimizer | None = None) -> Masks:
        """Lets go of an optimizer, or of all."""
        for other, (pre, post, _) in self._hooks:
            if optimizer is None or other is optimizer:
                pre.remove(), post.remove()
        self._hooks = [] if optimizer is None else [(o, hooks) for o, hooks in self._hooks if o is not optimizer]
        return self
