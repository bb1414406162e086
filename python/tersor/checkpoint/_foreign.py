"""Files that are no safetensors. The one rule: what is recognised is named, with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SAVE = "write it anew with safetensors.torch.save_file(torch.load(IN, weights_only=True), OUT)"
_FOLDER = (
    "write the folder anew with transformers: AutoModel.from_pretrained(IN).save_pretrained(OUT), or the file with "
)
#: how files begin: what they are, what to do
_BEGINS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", f"a zip archive, as torch.save writes (.bin, .pt, .pth): {_SAVE}"),
    (b"\x80\x02", f"a pickle, as old torch.save wrote: {_SAVE}"),
    (b"\x80\x03", f"a pickle: {_SAVE}"),
    (b"\x80\x04", f"a pickle: {_SAVE}"),
    (b"\x80\x05", f"a pickle: {_SAVE}"),
    (b"GGUF", "a GGUF file, which inspect and tersor.convert.load read: take the model's safetensors here"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes: save it from its framework as safetensors"),
    (b"\x93NUMPY", "a NumPy array (.npy): write it with safetensors.numpy.save_file"),
    (b"version https://git-lfs", "a git-lfs pointer, and not the file: run 'git lfs pull'"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"TFL3", "a TensorFlow Lite model"),
    (b"\x08", "perhaps an ONNX model: take the model's safetensors instead"),
)
_TEXT = re.compile(rb"\s*(<!doctype|<html|<\?xml)", re.IGNORECASE)
_OTHERS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".onnx", ".msgpack", ".npz")


def recognised(head: bytes) -> str | None:
    """What a file is that begins so, and what to do; None if it is not known."""
    if head[4:8] == b"TFL3":
        head = head[4:]
    if _TEXT.match(head):
        return "a web page, and not the file: the download went wrong"
    for begin, what in _BEGINS:
        # protocol buffers begin with a small field, and so may the length of a header
        if head.startswith(begin) and (begin != b"\x08" or (b"\x12" in head[2:16] and b"{" not in head[8:9])):
            return what
    # a length in such characters would be of more bytes than any header has
    if len(head) >= 8 and all(c in b"\t\n\r" or 32 <= c < 127 for c in head[:8]):
        return "JSON: name the file of the weights, or their folder" if head.lstrip()[:1] in (b"{", b"[") else "text"
    return None


def others(names: Iterable[str]) -> str:
    """What of a folder without safetensors files holds weights in another format."""
    found = [name for name in names if name.endswith(_OTHERS)]
    if not found:
        return "no safetensors file"
    torch = found[0].endswith((".bin", ".pt", ".pth", ".ckpt"))
    hint = f": {_FOLDER}{_SAVE.removeprefix('write it anew with ')}" if torch else ""
    return f"no safetensors file, but {found[0]}{hint}"
