"""What a quantized checkpoint is made of: how its files are laid out and written, and what is said of it. The one rule: what a
file will hold is known from the headers, before a weight is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tersor.checkpoint import Entry, Reader, Writer
from tersor.checkpoint._format import BITS
from tersor.checkpoint._modules import Tree
from tersor.checkpoint.reader import CHUNK
from tersor.checkpoint.writer import header
from tersor.jobs import compressed
from tersor.jobs.calibrate import Solved
from tersor.jobs.choice import Choice
from tersor.quant import pack

Step = Callable[[int], None]


class Layer(NamedTuple):
    """What becomes of a tensor: its scheme, or None and why it is left as it is; bytes before and after, scales among them."""

    shape: tuple[int, ...]
    scheme: str | None
    before: int
    after: int
    why: str = ""


@dataclass(frozen=True)
class Summary:
    """What was done: the choice of tensors, bytes of weights before and after, and what a folder was not given.

    ``untouched`` names the files of weights in subfolders, parts of their own that went along as they are; ``rounded`` the
    tensors that calibration had nothing to say of, with the reason: they are rounded to the nearest. ``widths`` has the bits of
    each tensor where they were to be chosen, ``bits`` what a quantized weight takes on average, its share of scales with it.
    ``unscaled`` has the tensors whose inputs took no scales (``-awq``, smooth), with the reason. ``unread`` says why
    transformers cannot read the folder by itself (`load` can), if it cannot. ``decoded`` names the weights that were 8-bit
    floats with scales, and were decoded as they were read. ``rotated`` says with what the weights were turned that were,
    ``unrotated`` why others were not. ``choice.smaller`` has the groups of what those of the scheme do not divide. ``layers``
    says of each tensor of two axes or more what becomes of it. ``curve`` has the bits a weight and the loss that other budgets
    come to, ``chosen`` this one's, of the weights that calibration reached. ``scarce`` has the rows and inputs of weights that
    calibration gave fewer rows than they have inputs.
    """

    choice: Choice
    before: int
    after: int
    left: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()
    rounded: Mapping[str, str] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    bits: float = 0.0
    unread: str | None = None
    unscaled: Mapping[str, str] = field(default_factory=dict)
    decoded: tuple[str, ...] = ()
    rotated: Mapping[str, str] = field(default_factory=dict)
    unrotated: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, Layer] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    chosen: tuple[float, float] | None = None
    scarce: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class Laid:
    """A file that is still to be written: its tensors, each with the one of the source that it is made of."""

    def __init__(self, reader: Reader, scheme: str, schemes: Mapping[str, compressed.Scheme], chosen: Choice) -> None:
        self.reader, self.schemes = reader, schemes
        self.parts: list[tuple[str, str, Sequence[int], Entry]] = []
        for e in reader.entries.values():
            if e.name in schemes:
                self.parts += [(*part, e) for part in compressed.layout(e.name, e.dtype, e.shape, schemes[e.name])]
            else:
                self.parts.append((e.name, e.dtype, e.shape, e))
        self.parts.sort(key=lambda part: -BITS[part[1]])  # the widest first: all stay aligned
        metadata = {"format": "pt"} | (reader.metadata or {}) | {"tersor.scheme": scheme}
        if turned := [name for name in chosen.transposed if name in reader.entries]:
            metadata[compressed.TURNED] = json.dumps(turned)
        if own := {name: schemes[name].codes for name in chosen.own if name in reader.entries}:
            metadata[compressed.OWN] = json.dumps(own)
        try:
            self.head, self.size = header([part[:3] for part in self.parts], metadata)
        except ValueError as error:
            raise ValueError(f"{reader.path}: {error}") from None

    @property
    def bytes(self) -> dict[str, int]:
        """The names that it holds, with their bytes."""
        return {name: math.prod(map(int, shape)) * BITS[dtype] // 8 for name, dtype, shape, _ in self.parts}

    def sources(self) -> dict[str, int]:
        """The bytes of what each tensor of the source becomes."""
        found = dict.fromkeys((e.name for *_, e in self.parts), 0)
        for (*_, e), n in zip(self.parts, self.bytes.values(), strict=True):
            found[e.name] += n
        return found

    def write(self, path: Path, solved: Solved, step: Step) -> None:
        """Writes it, with what is ``solved``."""
        held: dict[str, np.ndarray] = {}
        with Writer(path, head=self.head, size=self.size) as out:
            for name, _, _, e in self.parts:
                given = solved.changed.get(e.name)
                if e.name not in self.schemes and given is not None:
                    out.write(given)
                    step(e.nbytes)
                elif e.name not in self.schemes:
                    for piece in self.reader.chunks(e):
                        out.write(piece)
                        step(piece.nbytes)
                elif name == f"{e.name}_shape":
                    out.write(np.array(e.shape, "<i8"))
                elif name == f"{e.name}_packed" and e.name in solved.codes:
                    words, held[f"{e.name}_scale"] = solved.codes.pop(e.name)
                    out.write(words)
                    step(e.nbytes)
                elif name == f"{e.name}_packed":
                    some = _rows(self.reader, e, self.schemes[e.name], given, out, step)
                    held |= {e.name + part: x for part, x in some.items()}
                else:
                    out.write(held.pop(name))


def becomes(laid: Iterable[Laid], chosen: Choice, solved: Solved) -> dict[str, Layer]:
    """What becomes of each tensor that was chosen, or held back with a reason; asked before codes are written."""
    found = {}
    for one in laid:
        after = one.sources()
        for e in one.reader.entries.values():
            if e.name in one.schemes:
                own = one.schemes[e.name]
                found[e.name] = Layer(
                    e.shape, str(own) if e.name in solved.codes else own.codes, e.nbytes, after[e.name]
                )
            elif e.name in chosen.dense:
                found[e.name] = Layer(e.shape, None, e.nbytes, after[e.name], chosen.dense[e.name])
    return found


def _rows(
    reader: Reader, e: Entry, scheme: compressed.Scheme, given: np.ndarray | None, out: Writer, step: Step
) -> dict[str, np.ndarray]:
    """Writes the packed rows of a weight, or of what it has become, and returns the scales and zero points beside them."""
    many, high, k = scheme.matrices(e.shape)
    n = many * high
    width = e.nbytes // n
    block = max(1, CHUNK // width)
    scales, zeros = [], []
    for row in range(0, n, block):
        rows = min(block, n - row)
        piece = e._replace(start=e.start + row * width, stop=e.start + (row + rows) * width)
        if given is None:
            octets = next(reader.chunks(piece, piece.nbytes + 24))
        else:
            octets = np.ascontiguousarray(given[row : row + rows]).view(np.uint8).reshape(-1)
        floats = compressed.widen(octets, e.dtype).reshape(rows, k)
        try:
            if scheme.affine:
                words, scale, zero = compressed.encode_affine(floats, e.dtype, scheme)
                zeros.append(zero)
            else:
                words, scale = compressed.encode(floats, e.dtype, scheme)
        except ValueError as error:
            what = str(error)
            if not np.isfinite(floats).all():
                large = e.dtype == "F64" and np.isfinite(octets.view("<f8")).all()
                what = "has values beyond float32" if large else "has non-finite values"
            raise ValueError(f"{reader.path}: tensor {e.name!r} {what}") from None
        out.write(words)
        scales.append(scale)
        step(piece.nbytes)
    found = {"_scale": np.concatenate(scales)}
    if zeros:  # packed down the rows of each matrix
        every = np.concatenate(zeros).reshape(many, high, -1)
        found["_zero_point"] = np.stack([np.asarray(pack(z, scheme.bits, "ct_dense", axis=0)) for z in every])
    return found


def not_read(
    chosen: Choice,
    shapes: Sequence[tuple[str, str, Sequence[int]]],
    said: Mapping[str, Any],
    folder: Path | None,
    modules: Tree | None,
    affine: bool,
) -> str | None:
    """Why transformers does not read a folder by itself, as far as its tensors and its configuration tell."""
    several = len(said["config_groups"]) > 1
    for name, _, shape in shapes:
        if name not in chosen.quantized or len(shape) == 2:
            continue
        if name not in chosen.stacked:
            return f"{name} is a convolution, which transformers does not read packed"
        becomes = modules.targets[name] if modules else name
        if several or not name.endswith(".weight") or not becomes.endswith(".weight"):
            return f"{name} holds experts, which transformers does not read packed"
    if several and affine:
        return "zero points of weights of several kinds, which transformers takes for those of the first"
    if several and chosen.transposed:
        return f"{chosen.transposed[0]} is transposed, which transformers reads where all weights are of one kind"
    if several and folder and (folder / "modules.json").exists():
        return "SentenceTransformer, whose modules.json is here, never makes the call that decodes weights of several kinds"
    return None
