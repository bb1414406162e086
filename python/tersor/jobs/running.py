"""A transformers model that is run on texts. The one rule: it is the class that its configuration names, of transformers' own
code, with the folder's own tokenizer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tersor._layers import linear
from tersor.checkpoint._format import Misuse, StrPath
from tersor.checkpoint._modules import Tree, class_of, quiet

#: tokens of a text beyond which it is cut, of a batch with its padding
LENGTH = 2048
BATCH = 4096


@dataclass
class Running:
    """A model in memory with texts to run it on.

    ``modules`` has the tensor of each linear layer that was asked for, by the layer's name in ``model``; ``left`` says of the
    other tensors why they have none.
    """

    model: Any
    tree: Tree
    batches: list[dict[str, Any]]
    modules: dict[str, str]
    left: dict[str, str]

    def again(self, folder: Path) -> Any:
        """The model that a folder holds, of the same class."""
        return _load(type(self.model), folder)


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


def folder_of(folder: Path | None, decoded: Sequence[str], src: StrPath, instead: str) -> Path:
    """The folder of a model that can be run, or a Misuse: a file is none, and transformers would decode 8-bit floats itself."""
    if folder is None:
        raise Misuse(f"{os.fspath(src)}: calibration runs a model, which is a folder")
    if decoded:
        raise Misuse(f"{os.fspath(src)}: calibration runs a model, and this one is of 8-bit floats: {instead}")
    return folder


def opened(
    folder: Path,
    config: Mapping[str, Any],
    tree: Tree | None,
    chosen: Sequence[str],
    texts: Sequence[str],
    turned: bool = False,
) -> Running:
    """The model of a folder whose tensors ``chosen`` are those of interest, in float32; layers whose weight is ``turned``
    (Conv1D) are among them on request.

    Raises
    ------
    Misuse
        If a package is missing.
    ValueError
        If transformers does not know the model, it reads no text, or it has no tokenizer.
    """
    try:
        import torch
        import transformers
    except ImportError as missing:
        raise Misuse(f"calibration needs {missing.name}: pip install 'tersor[models]'") from None
    if tree is None:
        raise ValueError(f"{folder}: calibration runs the model, and transformers does not know it")
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{folder}: calibration wants some texts, got {texts!r:.60}")
    head, _ = class_of(transformers, config)
    model = _load(head, folder)
    if model.main_input_name != "input_ids":
        raise ValueError(f"{folder}: {tree.model} reads {model.main_input_name}, and calibration has texts alone")
    with quiet("transformers"):
        batches = _batches(_tokens(transformers, folder, model.config, texts), model.config)
    modules = {}
    left: dict[str, str] = {}
    layers = {name: m for name, m in model.named_modules() if linear(m)}
    for name in chosen:
        target = tree.targets[name].removesuffix(".weight")
        if target in layers and (turned or isinstance(layers[target], torch.nn.Linear)):
            modules[target] = name
        elif target in layers:
            left[name] = "a transposed layer (Conv1D), whose scales go along its outputs"
        else:
            left[name] = "no linear layer while the model runs"
    return Running(model, tree, batches, modules, left)


def _load(head: Any, folder: Path) -> Any:
    import torch
    import transformers

    with quiet("transformers"), _no_bars(transformers):
        return head.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()


def first(model: Any, batch: Mapping[str, Any]) -> Any:
    import torch

    from tersor.quant._sensitivity import results

    with torch.no_grad():
        return results(model(**batch))[0]


def kept(parameter: Any, dtype: str) -> np.ndarray:
    """A parameter as a file of ``dtype`` keeps it: 16-bit words of bfloat16."""
    import torch

    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    found = parameter.detach().to(kinds[dtype])
    if not bool(found.isfinite().all()) and bool(parameter.isfinite().all()):
        raise ValueError(f"a weight that was changed has values beyond {dtype}")
    return np.asarray((found.view(torch.int16) if dtype == "BF16" else found).numpy())


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
