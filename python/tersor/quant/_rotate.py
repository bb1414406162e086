"""Rotations folded into the weights of a module before it is quantized. The one rule: a rotation stands only if the module then
gives what it gave, and gave the same when it was turned by what no type rounds; all else is put back, and said.

What the blocks of a transformer add to and read from may be turned as a whole, x -> x Q, where it is read through norms
without a mean and a bias: RMS(x Q) = RMS(x) Q. The weights of such norms go into the layers that read them. What a layer of
values gives may be turned head by head, since attention mixes tokens and no numbers of a head. (QuaRot, SpinQuant, 2024.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from tersor._layers import linear, matrix, sizes
from tersor.quant import _turns
from tersor.quant._fold import same
from tersor.quant._sensitivity import results
from tersor.quant._wide import differs
from tersor.quant.hadamard import order

#: linear layers before one that are tried, the last called first
_TRIED = 3
#: of what a head may have for its size
_SIZES = ("head_dim", "attention_head_size", "d_kv", "key_value_proj_dim")
Before = list[tuple[Any, Any]]


class _Seen:
    """What one run shows: by which norm a linear layer's input was given, and which linear layers came before it."""

    def __init__(self, walk: Any) -> None:
        self.reads: dict[Any, Any] = {}
        self.past: dict[Any, list[Any]] = {}
        made: list[tuple[Any, Any]] = []
        linears: list[Any] = []

        def see(module: Any, args: Any) -> None:
            source = next((m for m, y in reversed(made) if _alike(y, args[0])), None)
            self.reads.setdefault(module, source)
            self.past.setdefault(module, [m for m in reversed(linears) if m is not module][:_TRIED])

        def gave(module: Any, _: Any, result: Any) -> None:
            if isinstance(result, torch.Tensor) and isinstance(getattr(module, "weight", None), torch.Tensor):
                made.append((module, result))
                if linear(module):
                    linears.append(module)

        modules = list(walk.module.modules())
        hooks = [m.register_forward_pre_hook(see) for m in modules if linear(m)]
        hooks += [m.register_forward_hook(gave) for m in modules if m is not walk.module]
        try:
            with torch.no_grad():
                walk.call(0)
        finally:
            for hook in hooks:
                hook.remove()


class Rotations:
    """What was turned, and why other layers were not; ``touched`` are the parameters that have changed."""

    def __init__(self, walk: Any, layers: Mapping[str, Any], before: Before) -> None:
        self.walk, self.layers, self.before = walk, layers, before
        self.rotated: dict[str, str] = {}
        self.unrotated: dict[str, str] = {}
        self.touched: list[Any] = []
        self._owners: dict[Any, list[str]] = {}
        for name, module in walk.module.named_modules():
            for parameter in module.parameters(recurse=False):
                self._owners.setdefault(parameter, []).append(name)
        self._seen = _Seen(walk)
        with torch.no_grad():
            self._want = self._now = self._given()
        why = self._stream()
        for name, layer in layers.items():
            if layer not in self._seen.reads:
                self.unrotated[name] = "never called"
            elif (size := self._heads(layer)) is not None:
                self.rotated[name] = f"{self.rotated.get(name, '')} heads of {size}".strip()
        self.unrotated |= {k: why for k in layers if k not in self.rotated and k not in self.unrotated}

    def _given(self) -> list[Any]:
        """What the module gives for the first batch, copied: it may be memory that is written to."""
        return [x.clone() for x in results(self.walk.call(0))]

    @contextlib.contextmanager
    def _with(self, new: Mapping[Any, Any]) -> Iterator[Before]:
        """The module with these parameters while it is looked at; what they were is told, and put back unless it is taken."""
        with torch.no_grad():
            saved = [(p, p.detach().clone()) for p in new]
            for p, value in new.items():
                p.copy_(value)
            yield saved
            for p, value in saved:
                p.copy_(value)

    def _exact(self, new: Mapping[Any, Any]) -> bool:
        """Whether parameters that no type rounds leave what the module now gives as it is: what is not as it is thought to be,
        16 bits would hide otherwise."""
        with self._with(new):
            return same(self._now, self._given(), True)

    def _stays(self, turns: Callable[[], Mapping[Any, Any]]) -> bool:
        """Whether the module, as it now is, gives the same with these parameters, which are not kept."""
        with torch.no_grad():
            want = self._given()
        with self._with(turns()):
            return same(want, self._given())

    def _try(self, new: Mapping[Any, Any]) -> bool:
        """Whether the module gives the same with these parameters, which it then keeps."""
        with self._with(new) as saved:
            got = self._given()
            stands = same(self._want, got)
            if stands:
                self.before.extend(saved)
                self.touched += list(new)
                self._now = got
                saved.clear()
        return stands

    def _stream(self) -> str:
        """Turns what blocks add to; why that cannot be done, or what is then said of layers that have no part in it."""
        reads = {layer: norm for layer, norm in self._seen.reads.items() if _norm(norm)}
        if not reads:
            return "no norm without a mean and a bias gives its inputs, nor attention without more between"
        n = max((sizes(layer)[1] for layer in reads), default=0)
        reads = {layer: norm for layer, norm in reads.items() if sizes(layer)[1] == n}
        if not order(n):
            return f"there is no Hadamard matrix of order {n}"
        tables = [m for m in self.walk.module.modules() if isinstance(m, torch.nn.Embedding) and m.embedding_dim == n]
        writes = [m for m in self._seen.reads if m not in reads and sizes(m)[0] == n]
        for parameter in (m.weight for m in [*reads, *tables, *writes]):
            if len(owners := self._owners[parameter]) > 1:
                return f"{owners[0]} and {owners[1]} are one weight, which would have to be two"
        if not tables:
            return "no table of embeddings begins what norms read"
        if other := self._other(n, {*reads, *reads.values(), *tables, *writes}):
            return (
                f"{other} may read or write what blocks add to, and is not seen to do so as norms and linear layers do"
            )
        why = "something else than norms and linear layers reads or writes what blocks add to"
        if not self._exact(self._stream_of(n, reads, tables, writes, None)):
            return why
        for plus in (0.0, 1.0):  # some norms multiply with their weight and one more
            turns = partial(self._stream_of, n, reads, tables, writes, plus)
            if not self._multiplies(reads, plus) or differs(self.walk, partial(self._stays, turns)):
                continue
            if self._try(turns()):
                turned = {*reads, *writes}
                self.rotated |= {k: "stream" for k, layer in self.layers.items() if layer in turned}
                return "nothing of what it reads or gives is turned"
        return why

    def _multiplies(self, reads: Mapping[Any, Any], plus: float) -> bool:
        """Whether norms multiply with their weight and so much more, as halves of layers tell exactly: 16 bits may hide it."""
        gave = []
        for times in (1, 2):
            new = {m.weight: (m.weight.detach() * (1 - plus) + plus) * times - plus for m in reads.values()}
            with self._with(new | {layer.weight: layer.weight.detach() / times for layer in reads}):
                gave.append(self._given())
        return same(gave[0], gave[1], True)

    def _other(self, n: int, turned: set[Any]) -> str | None:
        """A module besides these that has weights of such a size: a run need not reach it, nor show what it does to 16 bits."""
        for name, module in self.walk.module.named_modules():
            if module not in turned and any(n in p.shape for p in module.parameters(recurse=False)):
                return name
        return None

    def _stream_of(
        self, n: int, reads: Mapping[Any, Any], tables: Any, writes: Any, plus: float | None
    ) -> dict[Any, Any]:
        """What blocks add to turned, and norms in what reads them; or, without a word of ``plus``, with other signs."""
        new: dict[Any, Any] = {}
        turn = _turns.signed if plus is None else _turns.turned
        for layer, norm in reads.items():
            if plus is None:
                new[layer.weight] = _turns.laid(layer, turn(matrix(layer), n, 1))
                continue
            folded = matrix(layer).detach().double() * (norm.weight.detach().double() + plus)
            new[layer.weight] = _turns.laid(layer, turn(folded, n, 1))
            new[norm.weight] = torch.full_like(norm.weight, 1 - plus)
        for table in tables:
            new[table.weight] = turn(table.weight, n, 1)
        for layer in writes:
            new[layer.weight] = _turns.laid(layer, turn(matrix(layer), n, 0))
            if layer.bias is not None:
                new[layer.bias] = turn(layer.bias, n, 0)
        return new

    def _heads(self, layer: Any) -> int | None:
        """Turns the heads of values that a layer is given, if that is what they are; how large they are."""
        if _norm(self._seen.reads[layer]) or len(self._owners[layer.weight]) > 1:
            return None
        for values in self._seen.past[layer]:
            if len(self._owners[values.weight]) > 1 or values.weight is layer.weight:
                continue
            for size in self._sizes(layer, values):
                found = self._exact(self._heads_of(layer, values, size, _turns.shuffled))
                if found and self._try(self._heads_of(layer, values, size, _turns.turned)):
                    return size
        return None

    def _heads_of(self, layer: Any, values: Any, size: int, turn: Any) -> dict[Any, Any]:
        new = {values.weight: _turns.laid(values, turn(matrix(values), size, 0))}
        new[layer.weight] = _turns.laid(layer, turn(matrix(layer), size, 1))
        if values.bias is not None:
            new[values.bias] = turn(values.bias, size, 0)
        return new

    def _sizes(self, layer: Any, values: Any) -> Iterator[int]:
        """What heads of a layer's inputs may have for a size: what the modules around it say."""
        path = self._owners[layer.weight][0].split(".")
        above = [self.walk.module.get_submodule(".".join(path[:i])) for i in range(len(path) - 1, -1, -1)]
        said = (getattr(m, name, None) for m in above for name in _SIZES)
        heads = dict.fromkeys(s for s in said if isinstance(s, int) and not isinstance(s, bool) and s > 1)
        for size in heads:
            if sizes(layer)[1] % size == 0 == sizes(values)[0] % size and order(size):
                yield size


def _alike(y: Any, x: Any) -> bool:
    """Whether a tensor is another one or a view of all of it, as a slice from the first token on is."""
    return y is x or (y.shape == x.shape and y.dtype == x.dtype and y.data_ptr() == x.data_ptr() and x.numel() > 0)


def _norm(module: Any) -> bool:
    """Whether a module may be a norm without a mean and a bias, by its parameters; what it does is found out."""
    if module is None or linear(module) or isinstance(module, torch.nn.Embedding):
        return False
    own = dict(module.named_parameters())
    return own.keys() == {"weight"} and own["weight"].ndim == 1
