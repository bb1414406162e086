"""What the tensors of a checkpoint are to the model that reads it. The one rule: the module tree says so, built without memory
from the configuration by the class that transformers has for it; no code of the checkpoint is run.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LINEAR = "linear"
TABLE = "an embedding table"
CONVOLUTION = "a convolution"
TIED = "tied to an embedding table"
#: rows are inputs, and readers that decode have it so too
TRANSPOSED = "a transposed layer (Conv1D)"
NO_PART = "not a part of the model that config.json names"


@dataclass(frozen=True)
class Tree:
    """The class that was asked, and the part that each tensor plays: `LINEAR`, `TABLE`, or why it is neither.

    Where the configuration names no class that is known, that is the base class of its ``model_type``.
    ``targets`` has the parameter that each tensor becomes.
    ``merged`` has the tensors that readers put together, by what becomes of them: all of one are quantized or none is read.
    ``prefix`` is what the names of its base begin with where it has a head.
    ``heads`` are the linear layers whose weight is tied to another's, and may not be in the file.
    ``unread`` says why readers cannot take a quantized model of this class at all.
    """

    model: str
    parts: Mapping[str, str]
    merged: Mapping[str, list[str]]
    unread: str | None
    targets: Mapping[str, str] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    prefix: str = ""


def rule_of(tree: Tree | None) -> str:
    """What decided about the tensors."""
    return f"the modules of {tree.model}" if tree else "names"


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def tree(folder: Path, config: Mapping[str, Any], names: Iterable[str]) -> Tree | None:
    """The parts of the tensors ``names``, or None where transformers is not at hand or does not know the model."""
    try:
        import torch
        import transformers
    except ImportError:
        return None
    head, named = class_of(transformers, config)
    if head is None:
        return None
    try:  # whatever a class does with an odd configuration: names are then left to decide
        with quiet("transformers"), torch.device("meta"):
            settings = head.config_class.from_pretrained(folder, local_files_only=True)
            if hasattr(settings, "quantization_config"):
                del settings.quantization_config
            model = head(settings)
            transforms = _Transforms(model)
            states = transforms.states
            modules = dict(model.named_modules())
            tied = getattr(model, "all_tied_weights_keys", None) or {}
            tied = {*tied, *(tied.values() if isinstance(tied, dict) else ())}
            parts: dict[str, str] = {}
            targets: dict[str, str] = {}
            into: dict[str, list[str]] = {}
            for name in names:
                target, pattern = transforms.target(name)
                targets[name] = target
                parts[name] = _part(target, pattern is not None, modules, states, tied, torch.nn)
                if pattern is not None:
                    into.setdefault(target, []).append(name)
            merged = {target: some for target, some in into.items() if len(some) > 1}
            parts |= {name: LINEAR for some in merged.values() for name in some if name.endswith(".weight")}
            tied_to = {name: modules.get(name.removesuffix(".weight")) for name in tied if name.endswith(".weight")}
            heads = sorted(n.removesuffix(".weight") for n, m in tied_to.items() if isinstance(m, torch.nn.Linear))
            split = [c for c in transforms.converters if len(c.source_patterns) == 1 < len(c.target_patterns)]
            swapped = sorted(_swapped() & {type(module).__name__ for module in modules.values()})
    except Exception:
        return None
    if not named and all(part == NO_PART for part in parts.values()):
        return None
    unread = None
    if split:
        unread = f"transformers splits {split[0].source_patterns[0]!r} on the way in, and then cannot decode"
    elif swapped:
        unread = f"transformers puts other modules, with other weights, in the place of {swapped[0]}"
    return Tree(head.__name__, parts, merged, unread, targets, tuple(heads), model.base_model_prefix)


class _Transforms:
    """What transformers does with the names of a file on their way into a model."""

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping

        transforms = get_model_conversion_mapping(model)
        self.states = model.state_dict()
        self._prefix = model.base_model_prefix
        self._renamings: list[Any] = [t for t in transforms if type(t).__name__ != "WeightConverter"]
        self.converters: list[Any] = [t for t in transforms if type(t).__name__ == "WeightConverter"]

    def target(self, name: str) -> tuple[str, str | None]:
        """The parameter that a tensor becomes, and the pattern of what is put together to make it."""
        from transformers.core_model_loading import rename_source_key

        found: tuple[str, str | None] = rename_source_key(
            name, self._renamings, self.converters, self._prefix, self.states
        )
        return found


def targets(model: Any, names: Iterable[str]) -> dict[str, str]:
    """The parameter of a model that each tensor of a file becomes, as transformers has it; its own name where nothing says."""
    try:
        transforms = _Transforms(model)
        return {name: transforms.target(name)[0] for name in names}
    except Exception:  # no model of transformers, or one that it maps in a way not known here
        return {name: name for name in names}


def class_of(transformers: Any, config: Mapping[str, Any]) -> tuple[Any, bool]:
    """The class that a configuration names, or else the base class of its type, which is what `AutoModel` takes; whether it
    is the named one."""
    classes = config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    found = _model(transformers, name)
    if found is not None:
        return found, True
    kind = config.get("model_type")
    try:
        from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

        base: Any = MODEL_MAPPING_NAMES.get(kind, "") if isinstance(kind, str) else ""
    except ImportError:
        return None, False
    return _model(transformers, base if isinstance(base, str) else base[0]), False


def _model(transformers: Any, name: str) -> Any:
    found = getattr(transformers, name, None) if name else None
    return found if getattr(found, "config_class", None) is not None else None


def _swapped() -> set[str]:
    """Names of the classes in whose place transformers puts others before it loads a quantized model, decoded or not."""
    try:
        from transformers.quantizers.base import MODULES_TO_PATCH_FOR_QUANTIZATION as patched
    except ImportError:
        return set()
    classes: Mapping[str, Any] = patched
    return {name for name, how in classes.items() if "compressed-tensors" in how.get("quantization_methods", ())}


def _part(
    target: str, merged: bool, modules: Mapping[str, Any], states: Mapping[str, Any], tied: set[str], nn: Any
) -> str:
    owner, _, parameter = target.rpartition(".")
    module = modules.get(owner)
    if merged:
        return f"a part of {target}, which readers put together"
    if module is None or target not in states:
        return NO_PART
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return TABLE
    if target in tied:
        return TIED
    if isinstance(module, nn.Linear) and parameter == "weight":
        return LINEAR
    kind = type(module).__name__
    if kind == "Conv1D":
        return TRANSPOSED if parameter == "weight" else f"no weight of a linear layer but {kind}.{parameter}"
    if isinstance(module, nn.modules.conv._ConvNd):
        return f"{CONVOLUTION} ({kind})"
    return f"no weight of a linear layer but {kind}.{parameter}"
