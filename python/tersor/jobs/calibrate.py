"""The weights of a transformers model as codes, found by what its layers are given of some texts. The one rule: codes and
scales are those that its file will hold, names those of its tensors."""

from __future__ import annotations

import functools
import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tersor._layers import transposed
from tersor.checkpoint._modules import Tree
from tersor.jobs import compressed, running
from tersor.jobs._experts import placed, said

#: by the tensor's name, packed words and scales
Codes = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass
class Solved:
    """What calibration found.

    ``codes`` of tensors; ``rounded``, why there are none of others; ``widths``, the bits of every tensor where they were to be
    chosen; ``unread`` says
    of a folder why transformers does not read it back to the same model, or None. ``changed`` has the tensors without codes
    that took scales or were turned, ``unscaled`` why inputs of others have none, ``rotated`` and ``unrotated`` what was turned;
    ``curve`` and ``chosen`` the bits a weight and the loss of other budgets and of this one; ``scarce`` the rows and inputs of
    those that were given fewer rows than they have inputs.
    """

    codes: Codes = field(default_factory=dict)
    rounded: dict[str, str] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    unread: Callable[[Path], str | None] = lambda _: None
    changed: dict[str, np.ndarray] = field(default_factory=dict)
    unscaled: dict[str, str] = field(default_factory=dict)
    rotated: dict[str, str] = field(default_factory=dict)
    unrotated: dict[str, str] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    chosen: tuple[float, float] | None = None
    scarce: dict[str, tuple[int, int]] = field(default_factory=dict)


def solve(
    folder: Path,
    config: Mapping[str, Any],
    tree: Tree | None,
    every: Mapping[str, tuple[str, Sequence[int]]],
    schemes: Mapping[str, compressed.Scheme],
    scheme: compressed.Scheme,
    texts: Sequence[str],
    *,
    bits: str | Sequence[int] | None = None,
    budget: float | None = None,
    rotate: bool = False,
    smooth: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Solved:
    """Codes and scales of the tensors that have ``schemes``, and why there are none of some; ``every`` tensor has a safetensors
    dtype and a shape.

    With ``bits`` to choose from, all of them together take ``budget`` bits a weight at most.

    Raises
    ------
    Misuse
        If a package is missing.
    ValueError
        If transformers does not know the model, it reads no text, it has no tokenizer, or what a layer is given is not finite.
    """
    names = {name: every[name] for name in schemes}
    merges = tree.merged if tree and bits is not None else {}
    if merged := next((t for t, some in merges.items() if names.keys() & set(some)), None):
        raise ValueError(
            f"{folder}: widths cannot differ: transformers puts {merged} together and decodes it as of one width"
        )
    # scales along the outputs, as files have those of transposed layers, take up what their inputs are scaled by
    awq = any(own.solver == "awq" for own in schemes.values())
    ran = running.opened(folder, config, tree, list(schemes), texts, turned=not awq)
    model, tree, modules, left = ran.model, ran.tree, ran.modules, ran.left
    places = {} if bits is not None else placed(folder, model, tree, left)
    pieces = {p.name: target for target, some in places.items() for p in some}
    left = {name: why for name, why in left.items() if name not in pieces}
    modules = modules | {target: some[0].name for target, some in places.items()}
    import torch

    from tersor import quant
    from tersor.quant._recipes import widths_of
    from tersor.quant._widths import widest

    def scales(target: str, weight: Any, bits: int = 0) -> tuple[Any, None]:
        name = modules[target]
        own = schemes[name]
        rows = weight.t().contiguous() if turned(target) else weight
        _, exact = compressed.scales(rows.numpy(), names[name][0], replace(own, bits=bits or own.bits))
        found = torch.from_numpy(exact)
        return (
            found.repeat_interleave(rows.shape[1] // found.shape[1], 1).t().contiguous() if turned(target) else found
        ), None

    def turned(target: str) -> bool:
        return target not in places and transposed(model.get_submodule(target))

    def stored(target: str, codes: Any, scale: Any) -> tuple[Any, Any]:
        """Codes and scales as they lie in the file."""
        if turned(target):
            codes, scale = codes.t().contiguous(), scale.t()
            k = codes.shape[1]
            scale = scale[:, :: k // schemes[modules[target]].scales(k)].contiguous()
        return codes.numpy(), scale.numpy()

    def cost(name: str, bits: int) -> int:
        dtype, shape = names[name]
        return replace(schemes[name], bits=bits).size(shape, dtype)

    if not any(schemes[name].solver for name in modules.values()):
        return Solved(rounded=left)
    own = {glob.escape(t): str(schemes[n]) for t, n in modules.items() if str(schemes[n]) != str(scheme)}
    made = quant.calibrate(
        model,
        ran.batches,
        str(scheme),
        schemes=own if bits is None else None,
        layers=list(ran.modules),
        experts=list(places),
        rotate=rotate,
        smooth=smooth,
        fallback=True,  # which weights are here at all is decided
        scales=scales,
        bits=bits,
        budget=budget,
        cost=lambda target, b: cost(modules[target], b),
        progress=progress,
    )
    for target, why in made.left.items():
        left |= dict.fromkeys([p.name for p in places[target]] if target in places else [modules[target]], why)
    few = said(made.rounded, places, {t: len(made.layers[t].codes) for t in made.rounded})
    solved = Solved(rounded=left | few, curve=made.curve, chosen=made.chosen)
    for target in made.layers.keys() & places.keys():
        codes, steps = made.layers[target].codes.numpy(), made.layers[target].scale.numpy()
        for piece in places[target]:
            words = compressed.pack(np.ascontiguousarray(piece.rows(codes)), schemes[piece.name].bits)
            scale = np.ascontiguousarray(piece.rows(steps))
            solved.codes[piece.name] = words, compressed.stored(scale, names[piece.name][0])
    for target, found in made.layers.items():
        if target in places:
            continue
        name = modules[target]
        width = made.widths.get(target, schemes[name].bits)
        codes, steps = stored(target, found.codes, found.scale)
        solved.codes[name] = compressed.pack(codes, width), compressed.stored(steps, names[name][0])
        solved.widths[name] = width
    solved.scarce = {modules[target]: sizes for target, sizes in made.scarce.items()}
    solved.unscaled = {modules[target]: why for target, why in made.unscaled.items()}
    solved.rotated = {modules[target]: how for target, how in made.rotated.items()}
    solved.unrotated = {modules[target]: why for target, why in made.unrotated.items()}
    touched = {*made.touched}
    solved.changed = {
        name: _kept(folder, name, model.get_parameter(target), every[name][0])
        for name, target in tree.targets.items()
        if target in touched and name not in solved.codes
    }
    for name in left if bits is not None else ():  # as wide as the budget lets each of them be
        among = widths_of(bits, budget, "calibrate")
        room = (budget or 0) * np.prod(names[name][1], dtype=float)
        solved.widths[name] = widest(among, functools.partial(cost, name), room)
    if bits is None and len({(own.bits, own.group) for own in schemes.values()}) == 1:
        return solved
    want = None if left else running.first(model, ran.batches[0])
    solved.unread = lambda path: _unread(ran, path, want)
    return solved


def _kept(folder: Path, name: str, parameter: Any, dtype: str) -> np.ndarray:
    try:
        return running.kept(parameter, dtype)
    except ValueError as error:
        raise ValueError(f"{folder}: tensor {name!r}: {error}") from None


def _unread(ran: running.Running, folder: Path, want: Any) -> str | None:
    """Why a folder is not read back to the model that gave ``want`` (None: not known), if it is not."""
    try:
        got = running.first(ran.again(folder), ran.batches[0])
    except ImportError:
        return None  # of compressed-tensors: nothing is known
    except Exception as error:  # whatever a model's own code says of weights that are still packed
        return " ".join(str(error).split())[:200]
    same = want is None or bool((got - want).norm() <= 1e-3 * want.norm())
    return None if same else f"{type(ran.model).__name__} gives other results"
