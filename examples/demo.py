"""The main job on a real model: inspect it, prune it, quantize it, and embed sentences with what came out.

The one rule: files are written by the code of the command line, and every figure is measured here.
"""

import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minilm import Embedder, MiniLM, folder
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from sentences import GRADES, SENTENCES
from tersor import summary
from tersor.bench.__main__ import run
from tersor.checkpoint import Model
from tersor.convert import load, load_encoded, quantize_safetensors
from tersor.nn import SparseLinear, convert
from tersor.prune import calibrate, global_prune, prune_safetensors

HERE = Path(__file__).parent
OUT = HERE.parent / "demo"
#: what is said of models whose activations are rounded too
AS_INT8 = ", int8 activations"
console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def inspect(path: Path) -> None:
    total = summary.Magnitudes()
    with Model(path) as model:
        for reader, entry in model.tensors():
            if entry.dtype in summary.FLOATS:
                for piece in reader.chunks(entry):
                    total.update(entry.dtype, piece)
    console.print(f"{total.count / 1e6:.1f} M weights; how large they are:")
    for line in summary.histogram(total, width=50):
        console.print(line)


def megabytes(path: Path) -> str:
    return f"{sum(f.stat().st_size for f in path.glob('*.safetensors')) / 1e6:.1f} MB"


def similarities(x: np.ndarray) -> np.ndarray:
    return (x[::2] * x[1::2]).sum(1)


def latencies(embedders: dict[str, Embedder], sentences: list[str] = SENTENCES, rounds: int = 9) -> dict[str, float]:
    """Median seconds of a forward pass over the sentences; the models take turns."""
    tokens = next(iter(embedders.values())).tokens(sentences)
    spent: dict[str, list[float]] = {name: [] for name in embedders}
    with torch.inference_mode():
        for _ in range(rounds):
            for name, embedder in embedders.items():
                start = time.perf_counter()
                embedder.model(*tokens)
                spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in spent.items()}


def sparse(source: Path, texts: list[str]) -> dict[str, Embedder]:
    """The model with 80 and 90 % of its layers' weights pruned, the rest multiplied as sparse matrices."""
    made = {}
    for share in (0.8, 0.9):
        for method in ("magnitude", "wanda", "sparsegpt"):
            embedder = made[f"{share:.0%} {method}"] = Embedder(source, load(source))
            if method == "magnitude":
                layers = [m for m in embedder.model.modules() if isinstance(m, torch.nn.Linear)]
                global_prune([m.weight.data for m in layers], share, inplace=True)
            else:
                batch = embedder.tokens(texts)
                calibrate(embedder.model, [batch], share, method=method, weights=lambda tokens: tokens[1])
            convert(embedder.model, "sparse", include=["layers.*"])  # by magnitude some layers keep more than others
    return made


#: the headings of what `kept` says
KEPT = ("cosine to dense", "the least", "rank to dense", "rank to grades")


def kept(x: np.ndarray, dense: np.ndarray) -> list[str]:
    """What embeddings have kept of the dense model's: cosines, and ranks of the similarities of pairs."""
    cosine, alike = (x * dense).sum(1), similarities(x)
    ranks = (spearmanr(alike, other).statistic for other in (similarities(dense), GRADES))
    return [f"{v:.4f}" for v in (cosine.mean(), cosine.min(), *ranks)]


def compare(dense: Embedder, made: dict[str, Embedder]) -> None:
    """What pruning costs and gives, beside the dense model."""
    embedders = {"dense": dense, **made}
    seconds, alone = latencies(embedders), latencies(embedders, SENTENCES[:1], 25)
    own = dense(SENTENCES)
    table = Table(title="pruned without training, as sparse matrices (nn.convert)", title_justify="left")
    for heading in ("model", *KEPT, "÷ torch", "1 sentence", "÷ torch"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, embedder in embedders.items():
        table.add_row(
            name,
            *kept(embedder(SENTENCES), own),
            f"{seconds[name] / seconds['dense']:.2f}",
            f"{alone[name] * 1e3:.1f} ms",
            f"{alone[name] / alone['dense']:.2f}",
        )
    console.print(table)
    slow = [name for name in made if seconds[name] > seconds["dense"] or alone[name] > alone["dense"]]
    console.print(
        f"Slower than dense somewhere: {', '.join(slow) or 'none'}.\n"
        "A model that is not trained on bears less than these shares: the cosines and ranks say what is left of it.\n"
    )


def main() -> None:
    source = folder()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    console.rule("all-MiniLM-L6-v2")
    inspect(source)

    console.rule("pruned and quantized")
    dense = Embedder(source, load(source))
    sizes, embedders = {"dense": megabytes(source)}, {"dense": dense}
    for share in (0.3, 0.5):
        name, path = f"pruned {share:.0%}", OUT / f"pruned-{share}"
        prune_safetensors(source, path, share)
        embedders[name] = Embedder(path, load(path))
        embedders[name].model.replace(lambda _, linear: SparseLinear.from_dense(linear))
        sizes[name] = megabytes(path)
    for scheme in ("int8-row", "int4-g128"):
        for embeddings in (False, True):
            name = f"{scheme}{' --embeddings' if embeddings else ''}"
            path = OUT / name.replace(" --", "-")
            quantize_safetensors(source, path, scheme, embeddings=embeddings)
            for activations in ("float",) if embeddings else ("float", "int8"):
                shown = name + AS_INT8 * (activations == "int8")
                embedders[shown], sizes[shown] = Embedder(path, load(path)), megabytes(path)
                convert(embedders[shown].model, scheme, activations=activations)
    texts = (HERE / "calibration.txt").read_text().splitlines()
    calibrated: dict[str, dict[str, Any]] = {"int4-g128-awq": {}, "int4-g128-gptq": {}}
    calibrated["int-g128-gptq"] = {"bits": "auto", "budget": 4.25}
    for name, widths in calibrated.items():
        quantize_safetensors(source, OUT / name, name, calibration=texts, **widths)
        codes = {MiniLM.module_name(k): code for k, code in load_encoded(OUT / name).items()}
        for activations in ("float", "int8"):
            shown = name + ", 4.25 bits" * bool(widths) + AS_INT8 * (activations == "int8")
            embedders[shown], sizes[shown] = Embedder(OUT / name, load(OUT / name)), megabytes(OUT / name)
            convert(embedders[shown].model, codes, activations=activations)

    vectors = {name: embedder(SENTENCES) for name, embedder in embedders.items()}
    seconds = latencies(embedders)
    table = Table(title=f"{len(SENTENCES)} sentences, {torch.get_num_threads()} threads", title_justify="left")
    for heading in ("model", "file", *KEPT, "forward", "÷ torch"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, x in vectors.items():
        table.add_row(
            name,
            sizes[name],
            *kept(x, vectors["dense"]),
            f"{seconds[name] * 1e3:.0f} ms",
            f"{seconds[name] / seconds['dense']:.2f}",
        )
    console.print(table)
    console.print(
        f"-gptq and -awq were calibrated on {len(texts)} sentences that are not among these; int-g128-gptq has a width\n"
        "for each weight.\n"
        "rank: Spearman's correlation of the similarities of the 30 pairs, with those of the dense model and with the grades\n"
        "a person gave. Half of this model is its table of word vectors, which stays dense unless --embeddings is given.\n"
    )
    compare(dense, sparse(source, texts))
    sys.stdout.flush()
    sys.exit(run(["--brief", "--seconds", os.environ.get("DEMO_SECONDS", "2")]))


if __name__ == "__main__":
    main()
