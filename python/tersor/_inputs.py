"""What the layers of a torch module are given, summed over batches, block after block. The one rule: a block is told of what it
is given once those before it are changed; what is done with that, and to which weights, is its caller's.

A calibration of any family is::

    layers, left = linears("prune", module, names)
    with changing(module) as before:
        for block, seen in visit("prune", Walk(module, batches, layers), counts, {"squares"}):
            for name, layer in block.layers.items():
                if (why := seen.left(name)) is not None:
                    left[name] = why
                    continue
                before.append((layer.weight, layer.weight.detach().clone()))
                ...  # changes the weight, by seen.squares[name]
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from tersor._gram import gram
from tersor._layers import linear
from tersor._walk import Block, Walk, shared

#: the sums there are: of outer products [K, K] of float64, of squares and of magnitudes [K] of float64; and the largest
#: magnitudes
GRAMS, SQUARES, MAGNITUDES, MAXIMA = "grams", "squares", "magnitudes", "maxima"


def linears(
    name: str, module: Any, layers: Sequence[str] | None, turned: bool = False
) -> tuple[dict[str, Any], dict[str, str]]:
    """The linear layers of a module that are asked for, all if None, and why some of them cannot be changed by themselves;
    those whose weight is ``turned`` (Conv1D) on request."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"{name}: module must be a torch.nn.Module, got {type(module).__name__}")
    every = {k: m for k, m in module.named_modules() if (linear(m) if turned else isinstance(m, torch.nn.Linear))}
    for k in layers or ():
        if k not in every:
            raise TypeError(f"{name}: {k!r} is no torch.nn.Linear{' or Conv1D' * turned} of the module")
    chosen = {k: every[k] for k in (every if layers is None else dict.fromkeys(layers))}
    made = {k: "its weight is made of other parameters" for k, m in chosen.items() if "weight" not in m._parameters}
    chosen = {k: m for k, m in chosen.items() if k not in made}
    left = made | {k: f"shared with {other or 'the module itself'}" for k, other in shared(module, chosen).items()}
    return {k: layer for k, layer in chosen.items() if k not in left}, left


@contextlib.contextmanager
def changing(module: Any) -> Iterator[list[tuple[Any, Any]]]:
    """The module as it is when it is used; parameters and what they were, as they are told, are put back after an error."""
    before: list[tuple[Any, Any]] = []
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield before
    except BaseException:
        with torch.no_grad():
            for parameter, value in reversed(before):
                parameter.copy_(value)
        raise
    finally:
        for m in training:
            m.training = True


def visit(
    name: str, walk: Walk, counts: Callable[[Any], Any] | None, want: Collection[str] = (GRAMS,)
) -> Iterator[tuple[Block, Inputs]]:
    """Each block with what its layers are given; the next one sees what it gives when the caller is done with it.

    ``counts(batch)`` gives what each token of a batch counts, shaped like the leading axes of a layer's input; if absent, an
    ``attention_mask`` of a mapping does.
    """
    for block in walk.blocks:
        walk.enter(block)
        seen = Inputs(name, walk.batches, counts or mask, want)
        if block.layers:
            walk.run(block, seen)
        yield block, seen
        walk.leave(block)


def mask(batch: Any) -> Any:
    return batch.get("attention_mask") if isinstance(batch, Mapping) else None


class Inputs:
    """Sums over the inputs of some layers, by name; those that are given one tensor in a row share its products."""

    def __init__(
        self, name: str, batches: Sequence[Any], counts: Callable[[Any], Any], want: Collection[str] = (GRAMS,)
    ) -> None:
        self.grams: dict[str, Any] = {}
        self.squares: dict[str, Any] = {}
        self.magnitudes: dict[str, Any] = {}
        self.maxima: dict[str, Any] = {}
        self._name, self._batches, self._counts, self._want = name, batches, counts, want
        self._rows: dict[str, int] = {}
        #: of each layer, the numbers of the tensors that it was given
        self._given: dict[str, list[int]] = {}
        self._number = 0
        self._last: tuple[Any, int] = (None, 0)
        self._sums: dict[str, Any] = {}

    def __call__(self, name: str, batch: int, x: Any) -> None:
        """What `Walk.run` tells: a layer is given x."""
        count = self._counts(self._batches[batch])
        if count is not None and not isinstance(count, torch.Tensor):
            raise TypeError(f"{self._name}: weights must be tensors, got {type(count).__name__}")
        if count is not None and tuple(count.shape) != (lead := tuple(x.shape[:-1])):
            # a row for each sample, pooled say, is no token; a mask is found in a batch and may be of something else
            if self._counts is not mask and lead != tuple(count.shape[:1]):
                raise ValueError(
                    f"{self._name}: weights of shape {tuple(count.shape)} for the inputs {tuple(x.shape)} of {name}: "
                    f"{lead} is needed"
                )
            count = None
        if count is not None and not bool(((count >= 0) & count.isfinite()).all()):
            raise ValueError(
                f"{self._name}: weights must be finite and not negative; those of batches[{batch}] are not"
            )
        version = -1 if x.is_inference() else x._version  # which does not tell of writes: its sums are made anew
        if self._last[0] is not x or self._last[1] != version or version < 0:
            self._last, self._number = (x, version), self._number + 1
            who = f"{self._name}: what {name or 'the module'} is given in batches[{batch}]"
            self._sums = self._of(who, x, None if count is None else count.float())
        self._given.setdefault(name, []).append(self._number)
        for kind, value in self._sums.items():
            of = getattr(self, kind)
            if name in of and kind == MAXIMA:
                of[name] = torch.maximum(of[name], value)
            elif name in of:
                of[name] += value
            else:
                of[name] = value.clone()
        rows = x[..., 0].numel() if count is None else int((count > 0).sum())
        self._rows[name] = self._rows.get(name, 0) + rows

    def _of(self, who: str, x: Any, weight: Any) -> dict[str, Any]:
        sums: dict[str, Any] = {}
        if GRAMS in self._want:
            sums[GRAMS] = gram(who, x, weight)
        if {SQUARES, MAGNITUDES, MAXIMA} & set(self._want):
            size = x.detach().abs().double()
            times = 1 if weight is None else weight[..., None]
            for kind, power in ((MAGNITUDES, 1), (SQUARES, 2)):
                if kind in self._want:
                    sums[kind] = (size**power * times).reshape(-1, x.shape[-1]).sum(0)
                    if not bool(sums[kind].isfinite().all()):
                        raise ValueError(f"{who}: x holds non-finite values")
            if MAXIMA in self._want:
                rows = size.reshape(-1, x.shape[-1])
                seen = rows if weight is None else rows * (weight.reshape(-1, 1) > 0)
                sums[MAXIMA] = seen.amax(0) if len(rows) else rows.new_zeros(rows.shape[1])
                if not bool(sums[MAXIMA].isfinite().all()):
                    raise ValueError(f"{who}: x holds non-finite values")
        return sums

    def left(self, name: str) -> str | None:
        """Why nothing is known of a layer, or None."""
        if name not in self._given:
            return "never called"
        found = next(getattr(self, kind)[name] for kind in (GRAMS, SQUARES, MAGNITUDES, MAXIMA) if kind in self._want)
        if bool((found.diagonal() if found.ndim == 2 else found).any()):
            return None
        return "all inputs are 0" if self._rows[name] else "no rows"

    def rows(self, name: str) -> int:
        """How many rows a layer was given that count."""
        return self._rows[name]

    def source(self, name: str) -> tuple[int, ...]:
        """The same for layers that were given the same tensors throughout (q, k, v of an attention): their sums are equal."""
        return tuple(self._given[name])
