"""A model quantized by what it sees. The one rule: a block is solved with what the blocks before it give in their codes, and
what cannot be solved is left as it is and said by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tersor._arrays import flag
from tersor._layers import matrix, sizes
from tersor.quant._calibrated import Calibrated
from tersor.quant._encoded import fitted
from tersor.quant._recipes import Recipes, widths_of
from tersor.quant._solvers import WAYS, Hessians
from tersor.quant._widths import prices, widths
from tersor.quant.affine import dequantize
from tersor.quant.gptq import GPTQ


def calibrate(
    module: Any,
    batches: Iterable[Any],
    scheme: str = "int4-g128-gptq",
    *,
    schemes: Mapping[str, str] | None = None,
    layers: Sequence[str] | None = None,
    experts: bool | Sequence[str] = False,
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
    schemes : mapping of shell patterns to schemes, optional
        For layers that have another one: ``{"lm_head": "int8-row", "*.down_proj": "int8-g128-gptq"}``. The first pattern that
        names a layer decides; one that decides of none is an error. Without a way to calibrate at its end a layer is rounded
        to the nearest in its place, and those after it are solved with that; all others are calibrated in one way. Not with
        bits.
    layers : sequence of str, optional
        Names of the `torch.nn.Linear` modules, or of transformers' ``Conv1D`` (GPT-2), whose codes are [out, in] too; all if
        absent.
    experts : bool or sequence of str
        Whether the experts of mixtures that lie in two tensors (transformers' Mixtral, Qwen-MoE, DeepSeek and the others of its
        common forwards) are quantized too, each by the rows that are routed to it, or the names of such tensors
        (``"…experts.down_proj"``). An expert that is given fewer rows than it has columns is rounded to the nearest, and
        ``rounded`` says so. Their inputs are neither scaled nor turned, and widths are not chosen for them.
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
    recipes = Recipes(scheme, schemes, name, among)
    solver = recipes.solver
    if smooth is not None and (isinstance(smooth, bool) or not 0 <= (smooth := float(smooth)) <= 1):
        raise ValueError(f"{name}: smooth must be within 0 and 1, got {smooth!r}")
    if smooth is not None and (solver == "awq" or among):
        other = "-awq scales inputs itself" if solver == "awq" else "widths are chosen of inputs as they are"
        raise ValueError(f"{name}: smooth does not go with scheme {scheme!r}: {other}")
    from tersor._inputs import GRAMS, MAGNITUDES, MAXIMA, changing, linears, mask, visit
    from tersor._walk import Walk
    from tersor.quant._mixtures import Mixtures
    from tersor.quant._rotate import Rotations
    from tersor.quant._scaled import scale, searched, smoothed

    chosen, left = linears(name, module, layers, turned=True)
    whole = experts if isinstance(experts, (list, tuple)) else flag(f"{name}: experts", experts)
    batches = list(batches)
    if not batches:
        raise ValueError(f"{name}: there are no batches")
    fallback = flag(f"{name}: fallback", fallback)
    kinds = {k: fitted(recipes.of(k).how, sizes(layer)[1]) for k, layer in chosen.items()}
    for k, layer in chosen.items():
        group = recipes.of(k).how.group
        if kinds[k].group != group and not fallback:
            left[k] = f"rows of {sizes(layer)[1]} do not divide into groups of {group}"
        elif not bool(layer.weight.isfinite().all()):
            raise ValueError(f"{name}: {k}.weight holds non-finite values")
    chosen = {k: layer for k, layer in chosen.items() if k not in left}
    mixtures = Mixtures(name, module, whole, recipes, fallback)
    if among:
        mixtures.leave("experts, for which no widths are chosen")
    recipes.check(list(chosen), list(mixtures.kinds), left | mixtures.left)
    want = (GRAMS, *([MAGNITUDES] if solver == "awq" else []), *([MAXIMA] if smooth is not None else []))
    options = {"method": method, "act_order": act_order, "damp": damp}
    made: dict[str, GPTQ] = {}
    bits_of: dict[str, int] = {}
    curve: tuple[tuple[float, float], ...] = ()
    chosen_at: tuple[float, float] | None = None
    folded: dict[str, str] = {}
    unscaled: dict[str, str] = {}
    rounded: dict[str, tuple[int, ...]] = {}
    scarce: dict[str, tuple[int, int]] = {}
    done, total = 0, len(chosen) + len(mixtures.kinds)
    with changing(module) as before:
        walk, experts_of = _walked(Walk, module, batches, chosen, mixtures)
        turned = Rotations(walk, chosen, before) if flag(f"{name}: rotate", rotate) else None
        if among:
            each = cost or prices(kinds, chosen)
            bits_of, curve, chosen_at = widths(
                walk, chosen, weights, kinds, among, float(budget or 0), each, scales, options
            )
            walk, experts_of = _walked(Walk, module, batches, chosen, mixtures)
        for block, seen in visit(name, walk, weights, want):
            if solver == "awq" or smooth is not None:
                way = searched(seen, kinds, recipes) if smooth is None else smoothed(seen, smooth)
                wanted = [k for k in block.layers if smooth is not None or recipes.of(k).solver]
                scale(walk, block, seen, way, wanted, folded, unscaled, before)
            hessians = Hessians(seen, options)
            for k, layer in block.layers.items():
                if (why := seen.left(k)) is not None:
                    left[k] = why
                else:
                    before.append((layer.weight, layer.weight.detach().clone()))
                    own = replace(kinds[k], bits=bits_of[k]) if among else kinds[k]
                    how, given, inputs = recipes.of(k).solver, seen.rows(k), sizes(layer)[1]
                    if how == "gptq" and given < inputs:
                        scarce[k] = given, inputs
                    of = scales and (functools.partial(scales, bits=own.bits) if among else scales)
                    made[k] = WAYS[how](k, layer, hessians(k, layer, how == "gptq"), own, of, options)
                    numbers = dequantize(made[k].codes, made[k].scale, made[k].zero_point, dtype=layer.weight.dtype)
                    matrix(layer).detach().copy_(numbers)
                if progress:
                    progress(done := done + 1, total)
            for k in experts_of[block]:
                found, few = mixtures.solve(
                    walk, block, k, lambda i: (weights or mask)(batches[i]), scales, options, before
                )
                made, rounded = made | found, rounded | few
                if solver == "awq" or smooth is not None:
                    unscaled |= dict.fromkeys(found, "experts")
                if progress and found:
                    progress(done := done + len(found), total)
    taken = {k: bits_of[k] for k in made} if among else {}
    named = {p: k for k, p in module.named_parameters()}
    coded = {chosen[k].weight if k in chosen else module.get_parameter(k) for k in made}
    touched = dict.fromkeys(named[p] for p, _ in before if p in named and p not in coded)
    return Calibrated(
        made,
        left | mixtures.left,
        recipes.codes,
        taken,
        folded,
        unscaled,
        turned.rotated if turned else {},
        turned.unrotated if turned else {},
        tuple(touched),
        curve,
        chosen_at,
        recipes.others({k: f"{k}.weight" if k in chosen else k for k in made}),
        rounded,
        scarce,
    )


def _walked(
    make: Callable[..., Any], module: Any, batches: Sequence[Any], layers: Mapping[str, Any], mixtures: Any
) -> tuple[Any, dict[Any, list[str]]]:
    """A walk over layers and experts, whose blocks hold the layers alone; the names of the experts of each block."""
    walk = make(module, batches, {**layers, **mixtures.modules})
    of = {block: [k for k in block.layers if k in mixtures.modules] for block in walk.blocks}
    for block in walk.blocks:
        block.layers = {k: layer for k, layer in block.layers.items() if k not in mixtures.modules}
    return walk, of
