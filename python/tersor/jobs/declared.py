"""What the settings of a quantized folder declare of its weights. The one rule: what is not understood whole is refused by
name, never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tersor._op import FormatError
from tersor.jobs import gptq_awq

#: what stands beside a weight, and is used up when it is restored
BESIDE = ("weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "weight_scale_inv")
#: what is of no use without the codes it belongs to
_PARTS = {"weight_packed": BESIDE, "qweight": ("qzeros", "g_idx")}
FORMATS = (None, "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense")
#: of names that belong to formats which are not read
_FOREIGN = re.compile(r"(^|\.)(absmax|SCB|quant_map|W_q|weight_global_scale|weight\._data|bitmask)$")


def check(settings: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Refuses what a folder's configuration or names say is in a format that is not read."""
    method = settings.get("quant_method", "compressed-tensors")
    if method not in ("compressed-tensors", "fp8", *gptq_awq.METHODS):
        raise FormatError(f"weights quantized by {method!r} are not read (compressed-tensors, fp8, gptq and awq are)")
    kinds = [settings.get("format")] if method == "compressed-tensors" else []
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        kinds.append(group.get("format") if isinstance(group, dict) else None)
    for kind in kinds:
        if kind not in (*FORMATS, "mixed-precision"):
            raise FormatError(f"the format {kind!r} is not read ({', '.join(f for f in FORMATS if f)} are)")
    if method in gptq_awq.METHODS and not any(name.rpartition(".")[2] == "qweight" for name in names):
        raise FormatError(f"weights quantized by {method!r} are read where they are called qweight, and none is")
    for name in names:
        module, dot, part = name.rpartition(".")
        stem = module + dot
        whole = next((w for w, some in _PARTS.items() if part in some), None)
        if (
            whole
            and not any(stem + w in names for w in ("weight", "weight_packed", "qweight"))
            and (settings or part == "weight_shape")
        ):
            raise FormatError(f"tensor {stem + whole!r} is missing beside {name!r}")
        if _FOREIGN.search(name):
            raise FormatError(f"{name!r} belongs to a format that is not read")
        if name.rpartition(".")[2] == "qweight" and method not in gptq_awq.METHODS:
            raise FormatError(f"{name!r} is of GPTQ or AWQ, and no config.json beside it says of which and how")


@dataclass(frozen=True)
class Known:
    """What is said of how the weights of some modules (``targets``) are quantized; None where nothing is said.

    ``bits`` are those of a code, ``shared`` the rows and columns that share a scale, None among them for all of an axis;
    ``words`` is how words of GPTQ or AWQ are laid out.
    """

    targets: tuple[str, ...] = ()
    bits: int | None = None
    shared: tuple[int | None, int | None] | None = None
    words: gptq_awq.Words | None = None

    def block(self, n: int, k: int) -> tuple[int, int] | None:
        return (self.shared[0] or n, self.shared[1] or k) if self.shared else None


def _length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def known(settings: Mapping[str, Any]) -> list[Known]:
    """What a configuration says of weights, group by group."""
    if settings.get("quant_method") in gptq_awq.METHODS:
        return [Known(words=gptq_awq.Words.of(settings))]
    if settings.get("quant_method") == "fp8":
        size = settings.get("weight_block_size")
        if size is None:
            return []
        if not (isinstance(size, list) and len(size) == 2 and all(map(_length, size))):
            raise FormatError(f"weight_block_size {size!r:.80} is no pair of lengths")
        return [Known(shared=(size[0], size[1]))]
    found = []
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(weights, dict):
            continue
        targets = group.get("targets")
        targets = tuple(t for t in targets if isinstance(t, str)) if isinstance(targets, list) else ()
        bits = weights.get("num_bits")
        found.append(Known(targets, bits if _length(bits) else None, _shared(weights)))
    return found


def _shared(weights: Mapping[str, Any]) -> tuple[int | None, int | None] | None:
    strategy, group, block = (weights.get(key) for key in ("strategy", "group_size", "block_structure"))
    if strategy == "block" or (strategy is None and block is not None):
        if isinstance(block, str):  # as older releases write it: 128x128
            block = [int(n) if n.isdecimal() else 0 for n in block.split("x")]
        if not (isinstance(block, list) and len(block) == 2 and all(map(_length, block))):
            raise FormatError(f"block_structure {block!r:.80} is no pair of lengths")
        return block[0], block[1]
    if strategy == "tensor":
        return None, None
    if strategy == "channel" or group == -1:
        return 1, None
    return (1, group) if _length(group) else None


def of(module: str, groups: list[Known]) -> list[Known]:
    """What is said of a module, by the most special of the targets that may be its own: its name, a pattern, a class.

    A class cannot be told by a name: all groups that name one are left, and all there are where no target fits.
    """
    if any(module in group.targets for group in groups):
        return [group for group in groups if module in group.targets]
    patterns = sorted((t, i) for i, group in enumerate(groups) for t in group.targets if t.startswith("re:"))
    for pattern, i in patterns:
        try:
            if re.match(pattern.removeprefix("re:"), module):
                return [groups[i]]
        except re.error:
            raise FormatError(f"the target {pattern!r:.80} is no pattern") from None
    return [
        g for g in groups if not g.targets or any(re.fullmatch("[A-Z][A-Za-z0-9]*", t) for t in g.targets)
    ] or groups


def layout(said: list[Known]) -> gptq_awq.Words:
    """How the words of GPTQ or AWQ are laid out, which a configuration has said."""
    return next(group.words for group in said if group.words)
