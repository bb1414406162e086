"""A module run block after block over the same batches. The one rule: what a block is given is what the module gives it, whose
blocks before it have changed meanwhile; of those only the last results are kept.

Blocks are the children of the outermost lists (`torch.nn.ModuleList`, `Sequential`) that hold layers; a layer outside of them
is a block of its own. A run is broken off where its block is done. Blocks that are done already are not run again but answer
with what the last of them gave, where that was seen to change nothing of what the next block is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree


class _Stop(BaseException):
    """The block is done; not an error that a module could catch."""


@dataclass(eq=False)
class Block:
    """A module, its layers by name, and the list it is one of (None: of none)."""

    module: Any
    layers: dict[str, Any] = field(default_factory=dict)
    chain: int | None = None
    #: calls in one run of the whole
    calls: int = 0


def _lists(module: Any) -> Iterator[Any]:
    if isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)) and len(module) > 1:
        yield module
        return
    for child in module.children():
        yield from _lists(child)


class Walk:
    """``for block in walk.blocks: walk.run(...)``, in the order in which they are called.

    Parameters
    ----------
    module : what is run
    batches : what it is called with, once each: a mapping as keywords, a sequence as arguments, all else as the only one
    layers : the layers of interest, by name
    """

    def __init__(self, module: Any, batches: Sequence[Any], layers: Mapping[str, Any]) -> None:
        self.module, self.batches = module, batches
        self.blocks = self._order(layers)
        #: of each list, the blocks that are done and what the last of them gave for each batch
        self._done: dict[int, list[Any]] = {}
        self._kept: dict[int, list[Any]] = {}
        self._short = False

    def _order(self, layers: Mapping[str, Any]) -> list[Block]:
        of: dict[Any, Block] = {}
        for number, each in enumerate(_lists(self.module)):
            for child in each.children():
                block = Block(child, chain=number)
                of |= dict.fromkeys(child.modules(), block)
        blocks: list[Block] = []
        for name, layer in layers.items():
            block = of.setdefault(layer, Block(layer))
            block.layers[name] = layer
            if block not in blocks:
                blocks.append(block)
        called: list[Block] = []
        with contextlib.ExitStack() as hooks:
            for block in blocks:

                def count(*_: Any, block: Block = block) -> None:
                    block.calls += 1
                    called.append(block)

                hooks.callback(block.module.register_forward_pre_hook(count).remove)
            self._call(0)
        # what the first batch does not reach is looked for in all of them, together
        rest = Block(self.module, {k: m for block in blocks if not block.calls for k, m in block.layers.items()})
        return [*dict.fromkeys(called), *([rest] if rest.layers else [])]

    def call(self, batch: int) -> Any:
        """What the module gives for a batch."""
        given = self.batches[batch]
        if isinstance(given, Mapping):
            return self.module(**given)
        return self.module(*given) if isinstance(given, (tuple, list)) else self.module(given)

    def _call(self, batch: int) -> None:
        with torch.no_grad(), contextlib.suppress(_Stop):
            self.call(batch)

    @contextlib.contextmanager
    def _answering(self, batch: int, short: bool) -> Iterator[None]:
        """Blocks that are done answer without being run."""
        changed = []
        try:
            for chain, kept in self._kept.items() if short else ():
                for module in self._done[chain]:
                    # a copy: the block that is given it may write to it
                    module.forward = lambda *_, answer=kept[batch], **__: _pytree.tree_map(_copy, answer)
                    changed.append(module)
            yield
        finally:
            for module in changed:
                del module.forward

    def given(self, block: Block, batch: int, short: bool) -> list[Any]:
        """The tensors that a block is given, copied."""
        found: list[Any] = []

        def see(_: Any, args: Any, kwargs: Any) -> None:
            found.extend(x.clone() for x in _pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor))
            raise _Stop

        with self._answering(batch, short):
            hook = block.module.register_forward_pre_hook(see, with_kwargs=True)
            try:
                self._call(batch)
            finally:
                hook.remove()
        return found

    def enter(self, block: Block) -> None:
        """Finds out whether what comes next may leave out the blocks that are done."""
        self._short = False
        if not self._kept or not block.calls:
            return
        want = self.given(block, 0, False)
        try:
            got = self.given(block, 0, True)
        except Exception:  # whatever a module does with an answer that it did not expect
            return
        self._short = len(want) == len(got) and all(
            a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(want, got, strict=True)
        )

    def run(self, block: Block, see: Callable[[str, int, Any], None]) -> None:
        """Runs all batches up to the end of a block; ``see(name, batch, x)`` is told what its layers are given."""
        self.listen(block, block.layers, lambda name, batch, args, _: see(name, batch, args[0]))

    def listen(self, block: Block, modules: Mapping[str, Any], see: Callable[[str, int, Any, Any], None]) -> None:
        """The same of any modules of a block, with all that they are given: ``see(name, batch, args, kwargs)``."""
        for batch in range(len(self.batches)):
            with contextlib.ExitStack() as hooks:
                for name, module in modules.items():

                    def tell(_: Any, args: Any, kwargs: Any, name: str = name, batch: int = batch) -> None:
                        see(name, batch, args, kwargs)

                    hooks.callback(module.register_forward_pre_hook(tell, with_kwargs=True).remove)
                if block.calls == 1:
                    hooks.callback(block.module.register_forward_hook(_stop).remove)
                hooks.enter_context(self._answering(batch, self._short))
                self._call(batch)

    def result(self, block: Block, batch: int) -> list[Any]:
        """What each call of a block gives for a batch, up to the first one's end where it is called once."""
        kept: list[Any] = []

        def keep(_: Any, __: Any, result: Any) -> None:
            kept.append(result)
            if block.calls == 1:
                raise _Stop

        hook = block.module.register_forward_hook(keep)
        try:
            with self._answering(batch, self._short):
                self._call(batch)
        finally:
            hook.remove()
        return kept

    def leave(self, block: Block) -> None:
        """Keeps what a block gives now, unless nothing comes after it or it is no link of a chain."""
        if block.chain is None or block.calls != 1 or block is self.blocks[-1] or "forward" in vars(block.module):
            return
        kept = [result for batch in range(len(self.batches)) for result in self.result(block, batch)]
        if len(kept) == len(self.batches):
            self._done.setdefault(block.chain, []).append(block.module)
            self._kept[block.chain] = kept


def _copy(x: Any) -> Any:
    return x.clone() if isinstance(x, torch.Tensor) else x


def _stop(*_: Any) -> None:
    raise _Stop


def shared(module: Any, layers: Iterable[str]) -> dict[str, str]:
    """The layers whose weight is another module's too, and whose."""
    owners: dict[int, list[str]] = {}
    for name, inner in module.named_modules():
        for parameter in inner.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    found = {}
    for name in layers:
        others = [o for o in owners[id(module.get_submodule(name).weight)] if o != name]
        if others:
            found[name] = others[0]
    return found
