"""Which tensors of a checkpoint become codes, and what its configuration then says of them. The one rule: what readers could
not read back stays dense or is refused, and every reason is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tersor._assigned import Assigned
from tersor.checkpoint._format import Misuse
from tersor.checkpoint._modules import CONVOLUTION, LINEAR, TABLE, TRANSPOSED, Tree, rule_of
from tersor.checkpoint._parts import ROUTER, held, is_table
from tersor.checkpoint._patterns import Patterns
from tersor.jobs.compressed import FLOATS, SAID, Scheme, weights_said
from tersor.quant._encoded import fitting

# models whose layers are not torch.nn.Linear but its transpose
_TRANSPOSED = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
# what holds the weights of all experts in one tensor, by its name or its class
_EXPERTS = re.compile("expert|moe", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """What becomes of the tensors of a model: those to quantize, and why the others of two axes or more are left as they are.

    ``rule`` says what decided: the modules of a class, or names. ``heads`` are the linear layers that may have no weight of
    their own: those that the class ties, or by names alone the one that most call so. ``smaller`` has the length of groups
    (None: of a row) of what the groups of the scheme do not divide, ``stacked`` the experts that lie in one tensor,
    ``transposed`` the weights whose rows are inputs. ``own`` has the scheme of weights that patterns give another one.
    """

    quantized: tuple[str, ...]
    dense: Mapping[str, str]
    rule: str = "names"
    heads: tuple[str, ...] = ("lm_head",)
    smaller: Mapping[str, int | None] = field(default_factory=dict)
    stacked: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    own: Mapping[str, Scheme] = field(default_factory=dict)

    def scheme(self, name: str, scheme: Scheme) -> Scheme:
        """That of one of the weights."""
        scheme = self.own.get(name, scheme)
        return replace(scheme, group=self.smaller.get(name, scheme.group), stacked=name in self.stacked)

    @property
    def ignore(self) -> list[str]:
        """Modules that readers must take as dense."""
        left = {name.removesuffix(".weight") for name in self.dense if name.endswith(".weight")}
        return sorted(left | {head for head in self.heads if f"{head}.weight" not in self.quantized})


def _by_name(name: str, model_type: str | None) -> str:
    """The part that a tensor plays, where nothing but its name can say it."""
    if is_table(name):
        return TABLE
    return TRANSPOSED if model_type in _TRANSPOSED else LINEAR


def choose(
    tensors: Iterable[tuple[str, str, Sequence[int]]],
    scheme: Scheme,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    embeddings: bool = False,
    convolutions: bool = False,
    experts: bool = False,
    fallback: bool = False,
    schemes: Assigned[Scheme] | None = None,
    model_type: str | None = None,
    tree: Tree | None = None,
) -> Choice:
    """Which of ``tensors`` (name, safetensors dtype, shape) to quantize: weights of linear layers, as ``tree`` tells them; by
    ``scheme``, but those that have one of ``schemes``."""
    patterns = Patterns(include, exclude)
    tensors = list(tensors)
    patterns.check(name for name, _, _ in tensors)
    quantized: list[str] = []
    dense: dict[str, str] = {}
    smaller: dict[str, int | None] = {}
    stacked: list[str] = []
    own: dict[str, Scheme] = {}
    for name, dtype, shape in tensors:
        if len(shape) < 2 or not all(shape):
            continue
        other = schemes.find(name) if schemes else None
        how = other or scheme
        part = _part(name, model_type, tree)
        asked = patterns.included(name)
        stack = _experts(name, part, shape, tree)
        if patterns.excluded(name):
            dense[name] = "excluded"
        elif include and not asked:
            dense[name] = "not included"
        elif dtype not in FLOATS:
            dense[name] = f"stored as {dtype}"
        elif stack and not experts:
            dense[name] = f"of {len(shape)} axes, experts in one tensor"
        elif len(shape) != 2 and not stack and not (convolutions and _convolution(part, shape, tree)):
            dense[name] = f"of {len(shape)} axes" + ("" if part in (LINEAR, TABLE) else f", {part}")
        elif name.rpartition(".")[2] != "weight" and not stack:
            dense[name] = "not called weight, which the format wants"
        elif (why := held(name, part)) and not (asked or (embeddings and why != ROUTER)):
            dense[name] = why
        elif part not in (LINEAR, TABLE, TRANSPOSED) and len(shape) == 2:
            dense[name] = part
        elif len(shape) != 2 and not stack and how.calibrated:
            dense[name] = "a convolution, which is not calibrated"
        else:
            k = replace(how, stacked=stack).matrices(shape)[2]
            if how.group and k % how.group:
                group = fitting(how.group, k)
                if not fallback:
                    fits = f"of {group} they do" if group else "a scheme by row takes them"
                    dense[name] = f"rows of {k} do not divide into groups of {how.group}, {fits}"
                    continue
                smaller[name] = group or None
            quantized.append(name)
            stacked += [name] * stack
            own |= {name: other} if other else {}
    if schemes:
        schemes.check(quantized, dense, Misuse)
    if tree:
        kinds = {name: (own.get(name, scheme).codes, smaller.get(name, 0)) for name in quantized}
        _readable(tree, quantized, dense, kinds, (scheme.codes, 0))
    transposed = [name for name in quantized if _part(name, model_type, tree) == TRANSPOSED]
    heads = {"heads": tree.heads} if tree else {}
    return Choice(
        tuple(quantized),
        dense,
        rule_of(tree),
        smaller=smaller,
        stacked=tuple(stacked),
        transposed=tuple(transposed),
        own=own,
        **heads,
    )


def _part(name: str, model_type: str | None, tree: Tree | None) -> str:
    return tree.parts[name] if tree else _by_name(name, model_type)


def _experts(name: str, part: str, shape: Sequence[int], tree: Tree | None) -> bool:
    """Whether a tensor holds the weights of all experts of a layer, each a matrix."""
    return len(shape) == 3 and bool(_EXPERTS.search(f"{part} {name}" if tree else name)) and part != TABLE


def _convolution(part: str, shape: Sequence[int], tree: Tree | None) -> bool:
    """Whether a weight of more than two axes is that of a convolution; by names alone one of three may be of experts."""
    return part.startswith(CONVOLUTION) if tree else len(shape) in (4, 5)


def _readable(
    tree: Tree, quantized: Sequence[str], dense: Mapping[str, str], kinds: Mapping[str, Any], usual: Any
) -> None:
    """Refuses what transformers could not read back: it drops what is dense of tensors that it puts together and decodes."""
    if quantized and tree.unread:
        raise ValueError(f"a quantized {tree.model} cannot be read: {tree.unread}")
    chosen = set(quantized)
    for target, names in tree.merged.items():
        left = [name for name in names if name not in chosen]
        if quantized and left and all(name.endswith(".weight") for name in names):
            raise ValueError(
                f"{left[0]} cannot stay dense ({dense.get(left[0], 'not a matrix')}): transformers puts it together with "
                f"others to {target} and reads them quantized only"
            )
        if len(set(kinds.values())) > 1 and not chosen.isdisjoint(names):
            other, (own, _) = next((name, kind) for name, kind in kinds.items() if kind != usual)
            what = own if own != usual[0] else "other groups"
            raise ValueError(
                f"{other} cannot have {what}: transformers puts {target} together and decodes all experts as of one kind"
            )


#: bits of a code, how many share a scale, and whether there are zero points
Kind = tuple[int, int | None, bool]


def called(name: str, tree: Tree | None) -> set[str]:
    """What readers may call the module of a tensor: as the file does, as the class does, and as its base or its heads do; as
    compressed-tensors wants targets, whole names."""
    found = {target.removesuffix(".weight") for target in (name, tree.targets[name] if tree else name)}
    if tree is None or not tree.prefix:
        return found
    # one pattern for both, or readers warn of the name that they do not have
    return {rf"re:^(?:{tree.prefix}\.)?{re.escape(module.removeprefix(f'{tree.prefix}.'))}$" for module in found}


def configuration(scheme: Scheme, choice: Choice, modules: Mapping[str, Kind] | None = None) -> dict[str, Any]:
    """``quantization_config`` of ``config.json``.

    ``dequantize`` makes transformers keep its layers dense and decode every weight that comes packed, whatever the class that
    reads calls its modules; by ``targets`` and ``ignore`` alone, a layer under another name would be left without a weight. It
    knows one width and one length of groups. Where there are several (``modules``, what each of them has, by name), the modules
    of each are named: a layer of another name is dense, and one that is named stays packed until it is first used.
    """
    kinds = sorted(set((modules or {}).values()), key=lambda kind: (kind[0], kind[1] or 0, kind[2]))
    if modules and len(kinds) > 1:
        groups = {
            f"group_{i}": {
                "targets": sorted(m for m, own in modules.items() if own == kind),
                "weights": weights_said(*kind),
            }
            for i, kind in enumerate(kinds)
        }
        return {**SAID, "ignore": [], "config_groups": groups}
    tables = any(is_table(name) for name in choice.quantized)
    group = {
        "targets": ["Linear", "Embedding"] if tables else ["Linear"],
        "weights": weights_said(*(kinds[0] if kinds else (scheme.bits, scheme.group, scheme.affine))),
    }
    return {**SAID, "ignore": choice.ignore, "dequantize": True, "config_groups": {"group_0": group}}
