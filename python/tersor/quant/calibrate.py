"""A model quantized by what it sees. The one rule: a block is solved with what the blocks before it give in their codes, and
what cannot be solved is left as it is and said by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tersor._arrays import dtype_name
from tersor.quant._encoded import Encoded, Scheme
from tersor.quant._encoded import scheme as find_scheme
from tersor.quant.affine import dequantize
from tersor.quant.gptq import GPTQ, gptq
from tersor.quant.hessian import hessian
from tersor.quant.packing import pack

#: how codes are found; the only one of the grammar yet
SOLVERS = ("gptq",)


class Calibrated(NamedTuple):
    """What `calibrate` did.

    Attributes
    ----------
    layers : the codes of each layer, by name
    left : why the others were left as they are, by name
    scheme : of the codes, as `encode` names it
    """

    layers: dict[str, GPTQ]
    left: dict[str, str]
    scheme: str

    def encoded(self, name: str) -> Encoded:
        """The weight of a layer as `decode` and `tersor.nn.QuantLinear` take it."""
        how, found = find_scheme(self.scheme), self.layers[name]
        data = found.codes if how.raw else pack(found.codes, how.bits)
        zero = None if found.zero_point is None else found.zero_point.to(found.codes.dtype)
        kind = dtype_name(found.scale.dtype)
        return Encoded(data, found.scale, zero, self.scheme, tuple(found.codes.shape), kind)


def recipe(name: str, who: str) -> Scheme:
    """``int4-g128-gptq``: the scheme of the codes, after which comes how they are found."""
    codes, _, solver = name.rpartition("-") if isinstance(name, str) else (name, "", "")
    if solver not in SOLVERS:
        raise ValueError(f"{who}: scheme {name!r} says no way to calibrate: <code>-row-gptq or <code>-g<G>-gptq")
    how = find_scheme(codes, who)
    if how.places or how.block:
        raise ValueError(f"{who}: scheme {name!r}: codes are calibrated that are integers, with scales of their own")
    if how.group is None:
        raise ValueError(f"{who}: scheme {name!r}: a scale per row (-row) or per group (-g<G>), not one for all")
    return how


def calibrate(
    module: Any,
    batches: Iterable[Any],
    scheme: str = "int4-g128-gptq",
    *,
    layers: Sequence[str] | None = None,
    weights: Callable[[Any], Any] | None = None,
    scales: Callable[[str, Any], tuple[Any, Any]] | None = None,
    method: str = "mse",
    act_order: bool = True,
    damp: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    r"""Quantizes the linear layers of a torch module by the inputs that they are given.

    Block after block: the batches are run as far as the block, the inputs of its layers are gathered into their Hessians, its
    weights become codes by `gptq`, and what the block gives from now on is what the next one is given.

    Parameters
    ----------
    module : torch.nn.Module
        Its weights become the numbers of their codes, in place; all else is as it was. It is run without dropout.
    batches : iterable
        What the module is called with: a mapping as keywords, a tuple or list as arguments, a tensor as the only one.
    scheme : str
        ``<code>-row-gptq`` or ``<code>-g<G>-gptq``; codes as of `encode` ("int4-g128-gptq"). Signed ones use their whole range.
    layers : sequence of str, optional
        Names of the `torch.nn.Linear` modules; all if absent.
    weights : callable, optional
        ``weights(batch)`` gives what each token of a batch counts, shaped like the leading axes of a layer's input. If absent,
        an ``attention_mask`` of a mapping does, so that padding does not count.
    scales : callable, optional
        ``scales(name, weight)`` gives a layer's scale and zero point (or None); if absent, as in `gptq`.
    method, act_order, damp
        As of `gptq`.
    progress : callable, optional
        Called as ``progress(done, total)``, in layers.

    Returns
    -------
    Calibrated
        ``layers`` has the codes by name, ``encoded(name)`` packs them for `tersor.nn.QuantLinear`; ``left`` says why others
        were left as they are: never called, no rows, shared with another module, or rows that groups do not divide.

    Raises
    ------
    TypeError
        If module is no torch module, or a name is no linear layer.
    ValueError
        If there are no batches, the scheme is unknown, or a weight or an input holds non-finite values. The weights are then
        as they were.

    Notes
    -----
    Memory beyond the module: the batches, the results of one block for all of them, one Hessian (K² float64) for each layer of
    a block, the codes, the weights as they were. Each block is run twice, and what stands outside of lists of blocks once more
    for each; a module whose blocks are given more than what the last one gave (as the first batch shows) is run from its
    beginning for each block.
    """
    name = "calibrate"
    how = recipe(scheme, name)
    import torch

    from tersor.quant._walk import Walk, shared

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"{name}: module must be a torch.nn.Module, got {type(module).__name__}")
    every = {k: m for k, m in module.named_modules() if isinstance(m, torch.nn.Linear)}
    for k in layers or ():
        if k not in every:
            raise TypeError(f"{name}: {k!r} is no torch.nn.Linear of the module")
    chosen = {k: every[k] for k in (every if layers is None else dict.fromkeys(layers))}
    batches = list(batches)
    if not batches:
        raise ValueError(f"{name}: there are no batches")
    left = {k: f"shared with {other or 'the module itself'}" for k, other in shared(module, chosen).items()}
    for k, layer in chosen.items():
        if how.group and layer.in_features % how.group:
            left[k] = f"rows of {layer.in_features} do not divide into groups of {how.group}"
        elif not bool(torch.isfinite(layer.weight).all()):
            raise ValueError(f"{name}: {k}.weight holds non-finite values")
    chosen = {k: layer for k, layer in chosen.items() if k not in left}
    counts = weights or _mask
    made: dict[str, GPTQ] = {}
    before: dict[str, Any] = {}
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        walk = Walk(module, batches, chosen)
        for block in walk.blocks:
            walk.enter(block)
            grams = _Grams(batches, counts)
            walk.run(block, grams)
            for k, layer in block.layers.items():
                if k not in grams.of:
                    left[k] = "never called"
                elif not bool(grams.of[k].diagonal().any()):
                    left[k] = "no rows" if grams.empty(k) else "all inputs are 0"
                else:
                    before[k] = layer.weight.detach().clone()
                    made[k] = _solve(
                        k, layer, grams.of.pop(k), how, scales, method=method, act_order=act_order, damp=damp
                    )
                if progress:
                    progress(len(made) + len(left.keys() & chosen.keys()), len(chosen))
            walk.leave(block)
    except BaseException:
        with torch.no_grad():
            for k, weight in before.items():
                chosen[k].weight.copy_(weight)
        raise
    finally:
        for m in training:
            m.training = True
    return Calibrated(made, left, scheme.rpartition("-")[0])


def _mask(batch: Any) -> Any:
    return batch.get("attention_mask") if isinstance(batch, Mapping) else None


class _Grams:
    """The Hessians of some layers; those that are given the same tensor one after another share its products."""

    def __init__(self, batches: Sequence[Any], counts: Callable[[Any], Any]) -> None:
        self.of: dict[str, Any] = {}
        self._rows: dict[str, int] = {}
        self._batches, self._counts = batches, counts
        self._last: tuple[Any, int, Any] = (None, 0, None)

    def __call__(self, name: str, batch: int, x: Any) -> None:
        count = self._counts(self._batches[batch])
        if count is not None and tuple(count.shape) != tuple(x.shape[:-1]):
            count = None
        if self._last[0] is not x or self._last[1] != x._version:
            self._last = x, x._version, hessian(x, weights=None if count is None else count.float())
        gram = self._last[2]
        if name in self.of:
            self.of[name] += gram
        else:
            self.of[name] = gram.clone()
        rows = x[..., 0].numel() if count is None else int((count > 0).sum())
        self._rows[name] = self._rows.get(name, 0) + rows

    def empty(self, name: str) -> bool:
        return not self._rows[name]


def _solve(name: str, layer: Any, h: Any, how: Scheme, scales: Callable[..., Any] | None, **options: Any) -> GPTQ:
    """The codes of a layer, whose weight becomes their numbers; on the CPU, where the kernel is."""
    import torch

    weight = layer.weight.detach()
    scale, zero = scales(name, weight) if scales else (None, None)
    grain = {"scale": scale.cpu(), "zero_point": zero} if scale is not None else {"group": how.group or None}
    try:
        solved = gptq(weight.cpu(), h.cpu(), how.codes, symmetric=not how.affine, **grain, **options)
    except ValueError as error:
        raise ValueError(f"calibrate: {name}: {str(error).removeprefix('gptq: ')}") from None
    with torch.no_grad():
        numbers = dequantize(solved.codes, solved.scale, solved.zero_point, dtype=weight.dtype)
        layer.weight.copy_(numbers)
    return solved
