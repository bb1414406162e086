"""Pruning of torch modules by what their layers are given. The one rule: every matrix gives up the same share, and the next
block sees what the pruned ones before it give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tersor._arrays import torch_module
from tersor._layers import in_short
from tersor._values import one_of, readable
from tersor.prune._operators import _apply_mask
from tersor.prune._rank import share
from tersor.prune.calibrated import sparsegpt, wanda_mask
from tersor.prune.patterns import nm_of

METHODS = ("wanda", "sparsegpt")


class Calibrated(NamedTuple):
    """What `calibrate` kept.

    Attributes
    ----------
    masks : dict of bool tensors [N, K]
        True where a weight is kept, by the names of the layers that were pruned.
    left : dict of str
        Why other layers were left as they were.
    """

    masks: dict[str, Any]
    left: dict[str, str]

    def __repr__(self) -> str:
        return in_short(f"{len(self.masks)} layers pruned", self.left)


def calibrate(
    module: Any,
    batches: Iterable[Any],
    sparsity: float | None = None,
    *,
    method: str = "sparsegpt",
    nm: tuple[int, int] | str | None = None,
    layers: Sequence[str] | None = None,
    weights: Callable[[Any], Any] | None = None,
    damp: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    r"""Prunes the linear layers of a torch module by the inputs that they are given.

    Block after block: the batches are run as far as the block, what its layers are given is summed, their weights are pruned,
    and what the block gives from now on is what the next one is given.

    "wanda" prunes where :math:`|w_{ij}|\,\|x_j\|` is least and leaves the rest as it is; "sparsegpt" prunes where the error of
    what the layer gives is least and lets the weights that are left answer for it.

    Parameters
    ----------
    module : torch.nn.Module
        Pruned in place. It is run without dropout.
    batches : iterable
        What the module is called with: a mapping as keywords, a tuple or list as arguments, a tensor as the only one.
    sparsity : float between 0 and 1
        Share of each row ("wanda") or of each matrix ("sparsegpt") to prune.
    method : "wanda" or "sparsegpt"
    nm : (n, m) or "n:m"
        Instead of the share: n of every m weights in a row are kept.
    layers : sequence of str, optional
        Names of the `torch.nn.Linear` modules; all if absent.
    weights : callable, optional
        ``weights(batch)`` gives what each token of a batch counts, shaped like the leading axes of a layer's input. If absent,
        an ``attention_mask`` of a mapping does, so that padding does not count. Where shapes differ each token counts 1.
    damp : float
        As of `sparsegpt`.
    progress : callable, optional
        Called as ``progress(done, total)``, in layers.

    Returns
    -------
    Calibrated
        ``masks`` for `apply_mask` and for what trains on; ``left`` says why other layers were left: never called, no rows,
        shared with another module, made of other parameters, or rows that m does not divide.

    Raises
    ------
    TypeError
        If module is no torch module, a name is no linear layer, or a weight has no memory.
    ValueError
        If there are no batches, not exactly one of sparsity and nm is given or one is out of range, the method is unknown, or a
        weight or an input holds non-finite values. The weights are then as they were.

    Notes
    -----
    Memory beyond the module: the batches, the results of one block for all of them, K² float64 for each layer of a block
    ("sparsegpt", K for "wanda"), the masks, the weights as they were. Each block is run twice. Sun et al. (2024), "A simple and
    effective pruning approach for large language models", equation 1; Frantar and Alistarh (2023), "SparseGPT".
    """
    name = "calibrate"
    one_of(f"{name}: method", method, METHODS)
    if (sparsity is None) == (nm is None):
        raise ValueError(f"{name}: exactly one of sparsity and nm must be given")
    groups = None if nm is None else nm_of(name, nm)
    try:
        share(0.0 if sparsity is None else sparsity, 0)
    except (TypeError, ValueError) as e:
        raise type(e)(f"{name}: {e}") from None
    if not damp >= 0:
        raise ValueError(f"{name}: damp must not be negative, got {damp}")
    from tersor._inputs import GRAMS, SQUARES, changing, linears, visit
    from tersor._walk import Walk

    torch = torch_module()
    chosen, left = linears(name, module, layers)
    batches = list(batches)
    if not batches:
        raise ValueError(f"{name}: there are no batches")
    for k, layer in chosen.items():
        readable(name, **{f"{k}.weight": layer.weight.detach()})
        if groups and layer.in_features % groups[1]:
            left[k] = f"rows of {layer.in_features} do not divide into groups of {groups[1]}"
        elif not bool(layer.weight.isfinite().all()):
            raise ValueError(f"{name}: {k}.weight holds non-finite values")
    chosen = {k: layer for k, layer in chosen.items() if k not in left}
    masks: dict[str, Any] = {}
    done = 0
    with changing(module) as before:
        walk = Walk(module, batches, chosen)
        for block, seen in visit(name, walk, weights, (SQUARES if method == "wanda" else GRAMS,)):
            for k, layer in block.layers.items():
                if (why := seen.left(k)) is None:
                    w = layer.weight.detach()
                    before.append((layer.weight, w.clone()))
                    if method == "wanda":
                        norm = seen.squares[k].sqrt().to(torch.float64 if w.dtype == torch.float64 else torch.float32)
                        masks[k] = wanda_mask(w, norm, sparsity, nm=groups)
                        w.copy_(_apply_mask(w, masks[k]))
                    else:
                        pruned, masks[k] = sparsegpt(w, seen.grams[k], sparsity, nm=groups, damp=damp)
                        w.copy_(pruned)
                else:
                    left[k] = why
                done += 1
                if progress:
                    progress(done, len(chosen))
    return Calibrated(masks, left)
