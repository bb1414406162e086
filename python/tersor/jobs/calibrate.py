"""The weights of a transformers model as codes, found by what its layers are given of some texts. The one rule: the model is
the class that its configuration names, of transformers' own code, with the folder's own tokenizer.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tersor.checkpoint._format import Misuse, StrPath
from tersor.checkpoint._modules import Tree, class_of, quiet
from tersor.jobs import compressed

#: tokens of a text beyond which it is cut, of a batch with its padding
LENGTH = 2048
BATCH = 4096

#: by the tensor's name, packed words and scales
Codes = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass
class Solved:
    """What calibration found.

    ``codes`` of tensors; ``rounded``, why there are none of others; ``widths``, the bits of every tensor where they were to be
    chosen, and ``modules``, the same by what the classes that read them may call their modules; ``unread`` says
    of a folder why transformers does not read it back to the same model, or None. ``changed`` has the tensors without codes
    that took scales, ``unscaled`` why inputs of others have none.
    """

    codes: Codes = field(default_factory=dict)
    rounded: dict[str, str] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    modules: dict[str, int] = field(default_factory=dict)
    unread: Callable[[Path], str | None] = lambda _: None
    changed: dict[str, np.ndarray] = field(default_factory=dict)
    unscaled: dict[str, str] = field(default_factory=dict)


def read_texts(path: StrPath) -> list[str]:
    """The lines of a text file that hold something: a sentence or a document each."""
    try:
        texts = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError(f"{path}: holds no text")
    return texts


def solve(
    folder: Path,
    config: Mapping[str, Any],
    tree: Tree | None,
    every: Mapping[str, tuple[str, Sequence[int]]],
    chosen: Sequence[str],
    scheme: compressed.Scheme,
    texts: Sequence[str],
    *,
    bits: str | Sequence[int] | None = None,
    budget: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Solved:
    """Codes and scales of the tensors ``chosen`` of ``every`` one (with their safetensors dtypes and shapes), and why there are
    none of some.

    With ``bits`` to choose from, all of them together take ``budget`` bits a weight at most.

    Raises
    ------
    Misuse
        If a package is missing.
    ValueError
        If transformers does not know the model, it reads no text, it has no tokenizer, or what a layer is given is not finite.
    """
    try:
        import torch
        import transformers
    except ImportError as missing:
        raise Misuse(f"calibration needs {missing.name}: pip install 'tersor[models]'") from None
    from tersor import quant
    from tersor.quant.calibrate import widest, widths_of

    names = {name: every[name] for name in chosen}
    if tree is None:
        raise ValueError(f"{folder}: calibration runs the model, and transformers does not know it")
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{folder}: calibration wants some texts, got {texts!r:.60}")
    if bits is not None and (merged := next((t for t, some in tree.merged.items() if names.keys() & set(some)), None)):
        raise ValueError(
            f"{folder}: widths cannot differ: transformers puts {merged} together and decodes it as of one width"
        )
    head, _ = class_of(transformers, config)
    with quiet("transformers"), _no_bars(transformers):
        model = head.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
        if model.main_input_name != "input_ids":
            raise ValueError(f"{folder}: {tree.model} reads {model.main_input_name}, and calibration has texts alone")
        batches = _batches(_tokens(transformers, folder, model.config, texts), model.config)
    modules = {}
    left: dict[str, str] = {}
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    for name in names:
        target = tree.targets[name].removesuffix(".weight")
        if target in linear:
            modules[target] = name
        else:
            left[name] = "no linear layer while the model runs"

    def scales(target: str, weight: Any, bits: int = scheme.bits) -> tuple[Any, None]:
        _, exact = compressed.scales(weight.numpy(), names[modules[target]][0], replace(scheme, bits=bits))
        return torch.from_numpy(exact), None

    def cost(name: str, bits: int) -> int:
        dtype, shape = names[name]
        return replace(scheme, bits=bits).size(shape, dtype)

    made = quant.calibrate(
        model,
        batches,
        str(scheme),
        layers=list(modules),
        scales=scales,
        bits=bits,
        budget=budget,
        cost=lambda target, b: cost(modules[target], b),
        progress=progress,
    )
    left |= {modules[target]: why for target, why in made.left.items()}
    solved = Solved(rounded=left)
    for target, found in made.layers.items():
        name = modules[target]
        width = made.widths.get(target, scheme.bits)
        words = compressed.pack(found.codes.numpy(), width)
        solved.codes[name] = words, compressed.stored(found.scale.numpy(), names[name][0])
        solved.widths[name] = width
    solved.unscaled = {modules[target]: why for target, why in made.unscaled.items()}
    touched = {f"{source}.{p}" for source in made.folded.values() for p in ("weight", "bias")}
    solved.changed = {
        name: _kept(model.get_parameter(target), every[name][0])
        for name, target in tree.targets.items()
        if target in touched and name not in solved.codes
    }
    if bits is None:
        return solved
    for name in left:  # as wide as the budget lets each of them be
        among = widths_of(bits, budget, "calibrate") or (scheme.bits,)
        room = (budget or 0) * np.prod(names[name][1], dtype=float)
        solved.widths[name] = widest(among, functools.partial(cost, name), room)
    for name, width in solved.widths.items():
        for called in _called(name, tree, model.base_model_prefix):
            solved.modules[called] = width
    want = None if left else _first(model, batches[0])
    solved.unread = lambda path: _unread(transformers, head, path, batches[0], want)
    return solved


def _first(model: Any, batch: Mapping[str, Any]) -> Any:
    import torch

    from tersor.quant._sensitivity import results

    with torch.no_grad():
        return results(model(**batch))[0]


def _unread(transformers: Any, head: Any, folder: Path, batch: Mapping[str, Any], want: Any) -> str | None:
    """Why a folder is not read back to the model that gave ``want`` (None: not known), if it is not."""
    import torch

    try:
        with quiet("transformers"), _no_bars(transformers):
            got = _first(head.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval(), batch)
    except ImportError:
        return None  # of compressed-tensors: nothing is known
    except Exception as error:  # whatever a model's own code says of weights that are still packed
        return " ".join(str(error).split())[:200]
    same = want is None or bool((got - want).norm() <= 1e-3 * want.norm())
    return None if same else f"{head.__name__} gives other results"


def _kept(parameter: Any, dtype: str) -> np.ndarray:
    """A parameter as a file of ``dtype`` keeps it: 16-bit words of bfloat16."""
    import torch

    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    found = parameter.detach().to(kinds[dtype])
    return np.asarray((found.view(torch.int16) if dtype == "BF16" else found).numpy())


def _called(name: str, tree: Tree, prefix: str) -> set[str]:
    """What readers may call the module of a tensor: as the file does, as the class does, and as its base or its heads do; as
    compressed-tensors wants targets, whole names."""
    found = {target.removesuffix(".weight") for target in (name, tree.targets[name])}
    if not prefix:
        return found
    # one pattern for both, or readers warn of the name that they do not have
    return {rf"re:^(?:{prefix}\.)?{re.escape(module.removeprefix(f'{prefix}.'))}$" for module in found}


@contextlib.contextmanager
def _no_bars(transformers: Any) -> Iterator[None]:
    """transformers draws a bar of its own while it loads a model."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _tokens(transformers: Any, folder: Path, config: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, as many as the model has places for."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a tokenizer's own code says of files that are not there
        what = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder}: its tokenizer cannot be read, which calibration needs: {what}") from None
    places = getattr(config, "max_position_embeddings", None) or LENGTH
    room = min(LENGTH, tokenizer.model_max_length, places)
    tokens = [ids for ids in tokenizer(list(texts), truncation=True, max_length=room)["input_ids"] if ids]
    if not tokens:
        raise ValueError(f"{folder}: its tokenizer finds nothing in the texts")
    if (most := max(map(max, tokens))) >= (size := config.get_text_config().vocab_size):
        raise ValueError(f"{folder}: its tokenizer gives token {most}, the model has {size}")
    return tokens


def _batches(tokens: list[list[int]], config: Any) -> list[dict[str, Any]]:
    """Texts of like length side by side, padded; what is padding is masked."""
    import torch

    some: list[list[list[int]]] = []
    for ids in sorted(tokens, key=len):
        if not some or (len(some[-1]) + 1) * len(ids) > BATCH:
            some.append([])
        some[-1].append(ids)
    batches = []
    for texts in some:
        wide = max(map(len, texts))
        ids = torch.full((len(texts), wide), getattr(config.get_text_config(), "pad_token_id", None) or 0)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if config.is_encoder_decoder:
            batch |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
        batches.append(batch)
    return batches
