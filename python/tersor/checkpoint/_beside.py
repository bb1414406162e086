"""What lies beside the weights of a model folder. The one rule: what another reader needs goes along, the same weights
once more in another format do not, and what stays behind is said.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tersor.checkpoint._atomic import is_temporary

#: folders that hold no part of the model: histories, caches, other formats of the same weights, states of a training
FOLDERS: tuple[str, ...] = (".git", ".hg", ".svn", ".cache", ".huggingface", ".ipynb_checkpoints", "__pycache__")
FOLDERS += ("onnx", "openvino", "coreml", "gguf", "original", "checkpoint-*", "global_step*")
#: files that hold weights in another format, or the state of a training
WEIGHTS: tuple[str, ...] = (
    *("pytorch_model*.bin", "model*.bin", "adapter_model*.bin", "diffusion_pytorch_model*.bin", "*.bin.index.json"),
    *("*.pt", "*.pth", "*.ckpt", "*.ckpt.index", "*.ckpt.data-*", "*.ot", "*.npz", "*.nemo", "*.engine", "*.llamafile"),
    *("*.gguf", "*.ggml", "ggml-*.bin", "*.h5", "*.h5.index.json", "*.keras", "*.msgpack", "*.msgpack.index.json"),
    *("*.onnx", "*.onnx_data", "*.onnx.data", "*.tflite", "*.mlmodel", "openvino_model*.bin", "openvino_model*.xml"),
)
SAFE = (".safetensors", ".safetensors.index.json")


def holds_weights(name: str) -> bool:
    """Whether a file is one of weights, by its name."""
    file = os.path.basename(name)
    return file.endswith(SAFE[0]) or (any(fnmatchcase(file, p) for p in WEIGHTS) and not file.endswith(".json"))


def walk(folder: Path, ours: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """Relative paths of a model's other files, and whether each goes along; links count as what they point to.

    ``ours`` are the names of the model's own files. A folder that stays behind comes as one path that ends in a slash.
    """
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        info = os.stat(where)
        if (info.st_dev, info.st_ino) in seen:
            folders.clear()  # a link that leads back up
            continue
        seen.add((info.st_dev, info.st_ino))
        above = os.path.relpath(where, folder)
        above = "" if above == os.curdir else above
        for name in [name for name in folders if any(fnmatchcase(name, p) for p in FOLDERS)]:
            folders.remove(name)
            yield os.path.join(above, name, ""), False
        folders.sort()
        # elsewhere than beside the model's weights, a file may be the only one that holds those of its part
        double = not above or any(name.endswith(".safetensors") for name in files)
        for name in sorted(files):
            path = os.path.join(above, name)
            if path in ours or is_temporary(name):
                continue
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(os.stat(os.path.join(where, name)).st_mode):
                    other = any(fnmatchcase(name, p) for p in WEIGHTS) or (not above and name.endswith(SAFE))
                    yield path, not (double and other) and name not in FOLDERS


def link(folder: Path, target: Path, ours: frozenset[str]) -> None:
    """Everything of ``folder`` but its own weights, as it is, in ``target``, which will take its place.

    Files come as further names of the same files where the file system has such, links as links.
    """
    for where, folders, files in os.walk(folder):
        above = Path(where).relative_to(folder)
        for name in [*folders, *files]:
            source, made = Path(where) / name, target / above / name
            if str(above / name) in ours or is_temporary(name):
                continue
            if source.is_symlink():
                made.unlink(missing_ok=True)
                made.symlink_to(os.readlink(source), source.is_dir())
            elif name in folders:
                made.mkdir(exist_ok=True)
            else:
                made.unlink(missing_ok=True)
                try:
                    os.link(source, made)
                except OSError:
                    shutil.copy2(source, made)


def in_few(names: list[str], most: int = 6) -> str:
    """Names in one line: those files that differ by their number alone once."""
    short = list(dict.fromkeys(re.sub(r"-\d{3,}-of-\d{3,}", "-*", name) for name in names))
    return ", ".join(short[:most]) + (f", and {len(short) - most} more" if len(short) > most else "")
