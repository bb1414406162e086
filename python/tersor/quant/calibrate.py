"""A model quantized by what it sees. The one rule: a block is solved with what the blocks before it give in their codes, and
what cannot be solved is left as it is and said by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tersor._arrays import dtype_name, flag
from tersor._layers import matrix, sizes
from tersor.quant._encoded import Encoded, Scheme, fitted
from tersor.quant._encoded import scheme as find_scheme
from tersor.quant.adaround import adaround
from tersor.quant.affine import dequantize, quantize
from tersor.quant.allocate import bit_allocate
from tersor.quant.gptq import GPTQ, factored, gptq
from tersor.quant.packing import pack
from tersor.quant.pareto import bit_pareto
from tersor.quant.qparams import choose_qparams

#: how codes are found: with each other's errors made up for; to the nearest, with inputs scaled; up or down, as is learned
SOLVERS = ("gptq", "awq", "adaround")
#: the widths that ``bits="auto"`` chooses from
WIDTHS = (2, 3, 4, 5, 6, 8)


class Calibrated(NamedTuple):
    """What `calibrate` did.

    Attributes
    ----------
    layers : the codes of each layer, by name
    left : why the others were left as they are, by name
    scheme : of the codes, as `encode` names it; without a width ("int-g128") where it was chosen; `encoded` has that of each
        layer, whose groups may be smaller
    widths : the bits of each layer's codes, where they were chosen
    folded : of each layer with scaled inputs ("-awq", smooth) the name of the module that divides them, whose parameters have
        changed
    unscaled : why the other layers have none
    rotated : of each layer whose weight was turned, what it shares the turn with: "stream", "heads of 64"
    unrotated : why the other layers' were not
    touched : the parameters that have changed besides the weights of ``layers``, by name
    curve : where widths were to be chosen, the bits a weight and the loss that budgets of any size come to (`bit_pareto`)
    chosen : the bits a weight and the loss of the choice that was made
    """

    layers: dict[str, GPTQ]
    left: dict[str, str]
    scheme: str
    widths: Mapping[str, int] = {}
    folded: Mapping[str, str] = {}
    unscaled: Mapping[str, str] = {}
    rotated: Mapping[str, str] = {}
    unrotated: Mapping[str, str] = {}
    touched: tuple[str, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    chosen: tuple[float, float] | None = None

    def encoded(self, name: str) -> Encoded:
        """The weight of a layer as `decode` and `tersor.nn.QuantLinear` take it."""
        scheme, found = self.scheme, self.layers[name]
        if self.widths:
            scheme = scheme.replace("int", f"int{self.widths[name]}")
        how = fitted(find_scheme(scheme), found.codes.shape[1])
        data = found.codes if how.raw else pack(found.codes, how.bits)
        zero = None if found.zero_point is None else found.zero_point.to(found.codes.dtype)
        kind = dtype_name(found.scale.dtype)
        return Encoded(data, found.scale, zero, how.name, tuple(found.codes.shape), kind)


def recipe(name: str, who: str, widths: Sequence[int] = ()) -> Scheme:
    """``int4-g128-gptq``: the scheme of the codes, after which comes how they are found. With ``widths`` to choose from its
    code has none: ``int-g128-gptq`` is told as that of the widest."""
    codes, _, solver = name.rpartition("-") if isinstance(name, str) else (name, "", "")
    if solver not in SOLVERS:
        raise ValueError(
            f"{who}: scheme {name!r} says no way to calibrate: <code>-row or <code>-g<G>, then -gptq, -awq or -adaround"
        )
    code, _, grain = codes.partition("-")
    if code in ("int", "uint"):
        if not widths:
            raise ValueError(f"{who}: scheme {name!r} has no width: name one (int4-g128-gptq), or give bits and budget")
        codes = f"{code}{max(widths)}-{grain}"
        if solver != "gptq":
            raise ValueError(f"{who}: scheme {name!r}: widths are chosen with -gptq")
    elif widths:
        raise ValueError(
            f"{who}: scheme {name!r} has its width, bits={list(widths)} are others: int-g128-gptq has none"
        )
    how = find_scheme(codes, who)
    if how.own:
        raise ValueError(f"{who}: scheme {name!r}: codes are calibrated that are integers, with scales of their own")
    if how.group is None:
        raise ValueError(f"{who}: scheme {name!r}: a scale per row (-row) or per group (-g<G>), not one for all")
    return how


def widths_of(bits: str | Sequence[int] | None, budget: float | None, who: str) -> tuple[int, ...]:
    """The widths to choose from, none where there is nothing to choose."""
    if (bits is None) != (budget is None):
        raise ValueError(f"{who}: bits and budget go together, got bits={bits!r} and budget={budget!r}")
    if bits is None:
        return ()
    if isinstance(bits, str) and bits != "auto":
        raise ValueError(f'{who}: bits must be "auto" or some widths, got {bits!r}')
    found = WIDTHS if isinstance(bits, str) else tuple(bits)
    if not found or not all(isinstance(b, int) and 2 <= b <= 8 for b in found):
        raise ValueError(f'{who}: bits must be "auto" or widths of 2 to 8, got {bits!r}')
    return tuple(sorted(set(found)))


def widest(among: Sequence[int], cost: Callable[[int], float], budget: float) -> int:
    """The most bits that the budget of one layer allows, by itself; the fewest there are if none."""
    return max((b for b in among if cost(b) <= budget), default=min(among))


def calibrate(
    module: Any,
    batches: Iterable[Any],
    scheme: str = "int4-g128-gptq",
    *,
    layers: Sequence[str] | None = None,
    weights: Callable[[Any], Any] | None = None,
    scales: Callable[..., tuple[Any, Any]] | None = None,
    bits: str | Sequence[int] | None = None,
    budget: float | None = None,
    cost: Callable[[str, int], float] | None = None,
    fallback: bool = False,
    rotate: bool = False,
    smooth: float | None = None,
    method: str = "mse",
    act_order: bool = True,
    damp: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    r"""Quantizes the linear layers of a torch module by the inputs that they are given.

    Block after block: the batches are run as far as the block, the inputs of its layers are gathered into their Hessians, its
    weights become codes by `gptq`, and what the block gives from now on is what the next one is given.

    With ``-awq`` codes are those of rounding to the nearest, after inputs are scaled by `awq_search`. The scales go into the
    norm or the linear layer that gives the inputs, where the block then gives the same as before; where nothing takes them, the
    layer is rounded as it is.

    With ``-adaround`` each weight becomes the code below it or the one above, as `adaround` learns in 500 steps: some hundred
    times the work of `gptq`.

    Parameters
    ----------
    module : torch.nn.Module
        Its weights become the numbers of their codes, in place; all else is as it was, but for what takes scales ("-awq",
        smooth) or is turned. It is run without dropout.
    batches : iterable
        What the module is called with: a mapping as keywords, a tuple or list as arguments, a tensor as the only one.
    scheme : str
        ``<code>-row`` or ``<code>-g<G>``, then ``-gptq``, ``-awq`` or ``-adaround``; codes as of `encode` ("int4-g128-gptq").
        Signed ones use their whole range.
    layers : sequence of str, optional
        Names of the `torch.nn.Linear` modules, or of transformers' ``Conv1D`` (GPT-2), whose codes are [out, in] too; all if
        absent.
    weights : callable, optional
        ``weights(batch)`` gives what each token of a batch counts, shaped like the leading axes of a layer's input; where
        that has a row for each sample (pooled), rows count 1 each, and any other shape is an error. If absent, an
        ``attention_mask`` of a mapping does, so that padding does not count.
    scales : callable, optional
        ``scales(name, weight)`` gives a layer's scale and zero point (or None); if absent, as in `gptq`. With widths to choose
        it is ``scales(name, weight, bits)``.
    bits : "auto" or sequence of int, optional
        Widths that each layer's codes may have ("auto": 2, 3, 4, 5, 6 and 8); the scheme has none, as "int-g128-gptq". They are
        chosen by `bit_allocate` for the least sum of what the errors of each layer do to what the module gives: its error by
        `gptq` in the norm of its Hessian, output by output, times the squared effect of that output, which one backward pass
        of random signs says for each batch.
    budget : float, optional
        With bits: the average bits a weight may take, over all layers that are quantized, scales among them.
    cost : callable, optional
        With bits: ``cost(name, bits)`` gives the bits that a layer takes in all; if absent, its codes and 32 a scale.
    fallback : bool
        Whether layers whose rows the groups do not divide have smaller ones, the largest power of two from 16 on that does, or
        a scale for the whole row; they are left if not.
    rotate : bool
        Whether weights are turned by Hadamard matrices first (`hadamard`, of random signs that are the same ones every time),
        wherever the module then gives the same as before: what its blocks add to, if it is read through norms without a mean
        and a bias, and the heads of what attention mixes. Norms, tables and layers that are not quantized change with it.
    smooth : float, optional
        From 0 to 1, the alpha of `smooth_scales`: how much of what is hard to round goes from the inputs of layers to their
        weights, for products with int8 activations. Inputs are scaled as with "-awq", where something takes the scales;
        ``folded`` and ``unscaled`` say where.
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
        If there are no batches, the scheme is unknown, a weight or an input holds non-finite values, the budget is below what
        the fewest bits take, or smooth is beyond 0 and 1 or comes with "-awq" or widths to choose. The weights are then as they
        were.

    Notes
    -----
    Memory beyond the module: the batches, the results of one block for all of them, one Hessian (K² float64) for each layer of
    a block, the codes, the weights as they were. Each block is run twice, and what stands outside of lists of blocks once more
    for each; a module whose blocks are given more than what the last one gave (as the first batch shows) is run from its
    beginning for each block. Widths to choose cost all of it once more, with a backward pass, and the codes of every layer in
    each width, from one factor of its Hessian, which layers of one input (q, k and v of an attention) share.
    """
    name = "calibrate"
    among = widths_of(bits, budget, name)
    how, solver = recipe(scheme, name, among), scheme.rpartition("-")[2]
    if smooth is not None and (isinstance(smooth, bool) or not 0 <= (smooth := float(smooth)) <= 1):
        raise ValueError(f"{name}: smooth must be within 0 and 1, got {smooth!r}")
    if smooth is not None and (solver == "awq" or among):
        other = "-awq scales inputs itself" if solver == "awq" else "widths are chosen of inputs as they are"
        raise ValueError(f"{name}: smooth does not go with scheme {scheme!r}: {other}")
    from tersor._inputs import GRAMS, MAGNITUDES, MAXIMA, changing, linears, visit
    from tersor._walk import Walk
    from tersor.quant._rotate import Rotations
    from tersor.quant._scaled import scale, searched, smoothed

    chosen, left = linears(name, module, layers, turned=True)
    batches = list(batches)
    if not batches:
        raise ValueError(f"{name}: there are no batches")
    fallback = flag(f"{name}: fallback", fallback)
    kinds = {k: fitted(how, sizes(layer)[1]) for k, layer in chosen.items()}
    for k, layer in chosen.items():
        if kinds[k].group != how.group and not fallback:
            left[k] = f"rows of {sizes(layer)[1]} do not divide into groups of {how.group}"
        elif not bool(layer.weight.isfinite().all()):
            raise ValueError(f"{name}: {k}.weight holds non-finite values")
    chosen = {k: layer for k, layer in chosen.items() if k not in left}
    solve = {"gptq": _solve, "awq": _nearest, "adaround": _learned}[solver]
    want = (GRAMS, *([MAGNITUDES] if solver == "awq" else []), *([MAXIMA] if smooth is not None else []))
    options = {"method": method, "act_order": act_order, "damp": damp}
    made: dict[str, GPTQ] = {}
    widths: dict[str, int] = {}
    curve: tuple[tuple[float, float], ...] = ()
    chosen_at: tuple[float, float] | None = None
    folded: dict[str, str] = {}
    unscaled: dict[str, str] = {}
    with changing(module) as before:
        walk = Walk(module, batches, chosen)
        turned = Rotations(walk, chosen, before) if flag(f"{name}: rotate", rotate) else None
        if among:
            prices = cost or _cost(kinds, chosen)
            widths, curve, chosen_at = _widths(
                walk, chosen, weights, kinds, among, float(budget or 0), prices, scales, options
            )
            walk = Walk(module, batches, chosen)
        for block, seen in visit(name, walk, weights, want):
            if solver == "awq" or smooth is not None:
                way = searched(seen, kinds) if smooth is None else smoothed(seen, smooth)
                scale(walk, block, seen, way, folded, unscaled, before)
            hessians = _Hessians(seen, solver == "gptq", options)
            for k, layer in block.layers.items():
                if (why := seen.left(k)) is not None:
                    left[k] = why
                else:
                    before.append((layer.weight, layer.weight.detach().clone()))
                    own = replace(kinds[k], bits=widths[k]) if among else kinds[k]
                    of = scales and (functools.partial(scales, bits=own.bits) if among else scales)
                    made[k] = solve(k, layer, hessians(k, layer), own, of, options)
                    numbers = dequantize(made[k].codes, made[k].scale, made[k].zero_point, dtype=layer.weight.dtype)
                    matrix(layer).detach().copy_(numbers)
                if progress:
                    progress(len(made) + len(left.keys() & chosen.keys()), len(chosen))
    taken = {k: widths[k] for k in made} if among else {}
    named = {p: k for k, p in module.named_parameters()}
    coded = {chosen[k].weight for k in made}
    touched = dict.fromkeys(named[p] for p, _ in before if p in named and p not in coded)
    return Calibrated(
        made,
        left,
        scheme.rpartition("-")[0],
        taken,
        folded,
        unscaled,
        turned.rotated if turned else {},
        turned.unrotated if turned else {},
        tuple(touched),
        curve,
        chosen_at,
    )


def _cost(kinds: Mapping[str, Scheme], layers: Mapping[str, Any]) -> Callable[[str, int], float]:
    def cost(name: str, bits: int) -> float:
        (n, k), how = sizes(layers[name]), kinds[name]
        return float(n * (k * bits + 32 * (k // how.elements(k)) * (2 if how.affine else 1)))

    return cost


def _widths(
    walk: Any,
    layers: Mapping[str, Any],
    weights: Callable[[Any], Any] | None,
    kinds: Mapping[str, Scheme],
    among: Sequence[int],
    budget: float,
    cost: Callable[[str, int], float],
    scales: Callable[..., Any] | None,
    options: Mapping[str, Any],
) -> tuple[dict[str, int], tuple[tuple[float, float], ...], tuple[float, float]]:
    """The bits of each layer, of what it is given while nothing is changed; what other budgets come to, and this one."""
    from tersor._inputs import mask, visit
    from tersor.quant._sensitivity import gains

    counts = weights or mask
    gain = gains(walk.module, walk.call, len(walk.batches), layers, lambda batch: counts(walk.batches[batch]))
    losses: dict[str, list[float]] = {}
    for block, seen in visit("calibrate", walk, weights):
        hessians = _Hessians(seen, True, options)
        for k, layer in block.layers.items():
            if seen.left(k) is not None:
                continue  # is left, and said to be
            h = hessians(k, layer)
            losses[k] = []
            for b in among:
                of = scales and functools.partial(scales, bits=b)
                errors = _solve(k, layer, h, replace(kinds[k], bits=b), of, options).error
                losses[k].append(float(errors @ gain[k]))
    if losses and not any(map(any, losses.values())):
        raise ValueError(
            "calibrate: no gradient leads from what the module gives to its layers: no width can be chosen"
        )
    costs = [[cost(k, b) for b in among] for k in losses]
    numbers = sum(layers[k].weight.numel() for k in losses)
    allowed = budget * numbers
    if losses and sum(map(min, costs)) > allowed:
        least = sum(map(min, costs)) / numbers
        raise ValueError(
            f"calibrate: budget {budget:g} is below the {least:g} bits a weight that {min(among)} bits take"
        )
    shape = (len(losses), len(among))
    tables = np.reshape(list(losses.values()), shape), np.reshape(costs, shape)
    made, front = bit_allocate(*tables, allowed), bit_pareto(*tables)
    found = {k: among[i] for k, i in zip(losses, made.choice, strict=True)}
    # what only the quantized module reaches (an expert that was never chosen) is known too late
    known = {k: widest(among, functools.partial(cost, k), budget * layer.weight.numel()) for k, layer in layers.items()}
    per = max(numbers, 1)
    curve = tuple((float(c) / per, float(v)) for c, v in zip(front.cost, front.loss, strict=True))
    return known | found, curve, (made.cost / per, made.loss)


class _Hessians:
    """The Hessians of a block's layers, or their factors: one for layers in a row that share their inputs."""

    def __init__(self, seen: Any, factors: bool, options: Mapping[str, Any]) -> None:
        self._seen, self._factors = seen, factors
        self._how = {k: options[k] for k in ("act_order", "damp")}
        self._last: tuple[Any, Any] = (None, None)

    def __call__(self, name: str, layer: Any) -> Any:
        h = self._seen.grams.pop(name)
        if not self._factors:
            return h.cpu()
        compute = "float64" if dtype_name(layer.weight.dtype) == "float64" else "float32"
        key = self._seen.source(name), compute
        if self._last[0] != key:
            self._last = None, None  # not two at a time
            try:
                self._last = key, factored(h.cpu(), sizes(layer)[1], compute=compute, **self._how)
            except ValueError as error:
                raise _named(name, error) from None
        return self._last[1]


def _named(name: str, error: ValueError) -> ValueError:
    return ValueError(f"calibrate: {name}: {str(error).removeprefix('gptq: ')}")


def _solve(
    name: str, layer: Any, h: Any, how: Scheme, scales: Callable[..., Any] | None, options: Mapping[str, Any]
) -> GPTQ:
    """The codes of a layer; on the CPU, where the kernel is."""
    weight, scale, zero, grain = _grid(name, layer, how, scales)
    try:
        return gptq(weight, h, how.codes, scale=scale, zero_point=zero, symmetric=not how.affine, **grain, **options)
    except ValueError as error:
        raise _named(name, error) from None


def _learned(
    name: str, layer: Any, h: Any, how: Scheme, scales: Callable[..., Any] | None, options: Mapping[str, Any]
) -> GPTQ:
    """The codes of a layer, each next to its number."""
    weight, scale, zero, grain = _grid(name, layer, how, scales)
    method, affine = options["method"], how.affine
    return adaround(weight, h, how.codes, scale=scale, zero_point=zero, symmetric=not affine, method=method, **grain)


def _grid(
    name: str, layer: Any, how: Scheme, scales: Callable[..., Any] | None
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """A weight with the scales that are given for it, or with their granularity."""
    weight = matrix(layer).detach().contiguous()
    scale, zero = scales(name, weight) if scales else (None, None)
    if scale is None:
        return weight.cpu(), None, None, {"group": how.group or None}
    return weight.cpu(), scale.cpu(), zero, {}


def _nearest(
    name: str, layer: Any, h: Any, how: Scheme, scales: Callable[..., Any] | None, options: Mapping[str, Any]
) -> GPTQ:
    """The nearest codes of a layer, with their errors."""
    weight = matrix(layer).detach().cpu().contiguous()
    scale, zero = scales(name, weight) if scales else (None, None)
    if scale is None:
        grain: dict[str, Any] = {"group": how.group} if how.group else {"axis": 0}
        scale, zero = choose_qparams(weight, how.codes, symmetric=not how.affine, method=options["method"], **grain)
        scale = scale.reshape(len(weight), -1)
        zero = zero.reshape(len(weight), -1) if how.affine else None
    codes = quantize(weight, scale.cpu(), zero, how.codes)
    delta = (dequantize(codes, scale.cpu(), zero) - weight).double()
    return GPTQ(codes, scale, zero, ((delta @ h) * delta).sum(1))
