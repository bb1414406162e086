"""What the systems of this folder share. The one rule: an entry says what it claims in a literal, and is held to it by `main`.

An entry is ``s<row>_<name>.py`` with ``SYSTEM``, read without importing it, and ``run(seed, split) -> {str: float}``;
docs/systems.md says what the keys mean.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import json
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
#: what an entry says of itself, and the type of each
KEYS = {
    "row": int,
    "title": str,
    "mechanism": str,
    "evidence": str,
    "functions": list,
    "data": str,
    "claims": list,
    "figure": str,
    "seconds": int,
}
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
System = dict[str, Any]


def header(path: Path) -> System:
    """The literal ``SYSTEM`` of a file, checked, without running the file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == ["SYSTEM"]:
            found = ast.literal_eval(node.value)
            break
    else:
        raise ValueError(f"{path.name}: there is no SYSTEM")
    if found.keys() != KEYS.keys():
        raise ValueError(
            f"{path.name}: keys of SYSTEM that are missing or unknown: {sorted(found.keys() ^ KEYS.keys())}"
        )
    for key, kind in KEYS.items():
        if not isinstance(found[key], kind):
            raise ValueError(f"{path.name}: {key} must be {kind.__name__}, got {found[key]!r}")
    if found["row"] != int(path.name[1:4]):
        raise ValueError(f"{path.name}: is called so, and its row is {found['row']}")
    for claim in found["claims"]:
        if len(claim) != 3 or claim[1] not in COMPARE:
            raise ValueError(f"{path.name}: a claim is a key, one of {', '.join(COMPARE)} and a number, got {claim!r}")
    return found


def entries() -> dict[Path, System]:
    """The entries of this folder by their rows."""
    found = {path: header(path) for path in sorted(HERE.glob("s[0-9][0-9][0-9]_*.py"))}
    rows = [system["row"] for system in found.values()]
    if len(set(rows)) < len(rows):
        raise ValueError(f"rows with two entries: {sorted({r for r in rows if rows.count(r) > 1})}")
    return found


def named(name: str) -> Any:
    """What a public name like "tersor.quant.gptq" stands for."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@contextmanager
def counted(names: list[str]) -> Iterator[dict[str, int]]:
    """How often each function is called, by the name of its module and its own."""
    calls = dict.fromkeys(names, 0)
    kept = []
    for name in names:
        module, _, attribute = name.rpartition(".")
        home = importlib.import_module(module)
        kept.append((home, attribute, getattr(home, attribute)))

        def stands_in(*args: Any, _name: str, _of: Callable[..., Any], **kwargs: Any) -> Any:
            calls[_name] += 1
            return _of(*args, **kwargs)

        f = kept[-1][2]
        if isinstance(f, type):  # a class is made, not replaced: its instances are asked for their type

            class Counted(f):
                def __init__(self, *args: Any, _name: str = name, **kwargs: Any) -> None:
                    calls[_name] += 1
                    super().__init__(*args, **kwargs)

            setattr(home, attribute, Counted)
        else:
            setattr(home, attribute, functools.partial(stands_in, _name=name, _of=f))
    try:
        yield calls
    finally:
        for home, attribute, f in kept:
            setattr(home, attribute, f)


def main(system: System, run: Callable[[int, int], dict[str, float]]) -> None:
    """Runs an entry and prints its claims; exits with 1 if one fails or a function that it names is not called."""
    parser = argparse.ArgumentParser(description=system["title"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with torch.random.fork_rng(), counted(system["functions"]) as calls:
        result = {k: float(v) for k, v in run(given.seed, given.split).items()}
    idle = [name for name, n in calls.items() if not n]
    held = {f"{k} {sign} {bound}": COMPARE[sign](result[k], bound) for k, sign, bound in system["claims"]}
    held |= {f"{name} is called": False for name in idle}
    if given.json:
        print(json.dumps({"result": result, "held": held}))
    else:
        for said, ok in held.items():
            print("ok  " if ok else "FAIL", said)
        for key, value in result.items():
            print(f"{key:24} {value:.4g}")
        print(f"figure {result[system['figure']]:.4g}")
    sys.exit(not all(held.values()))


def split(x: np.ndarray, y: np.ndarray, number: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`n` rows to learn from and the others to be measured on, by the permutation of this number."""
    order = np.random.default_rng(1000 + number).permutation(len(x))
    parts = (x[order[:n]], y[order[:n]], x[order[n:]], y[order[n:]])
    return tuple(torch.from_numpy(np.ascontiguousarray(p)) for p in parts)  # type: ignore[return-value]


def digits(number: int, n: int = 1200) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's digits, pixels in [0, 1], as `split` parts them."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return split((x / 16).astype(np.float32), y.astype(np.int64), number, n)


def digit_graph(number: int, n: int = 1000, k: int = 6, labels: int = 5) -> tuple[Tensor, Tensor, Any, Tensor, Tensor]:
    """Images of digits and edges between each and its k nearest: pixels, classes, the matrix, `labels` rows of each class that
    are known, and the rows to be measured on."""
    from tersor import graph

    x, y, _, _ = digits(number, n)
    a = graph.adjacency(graph.knn_edges(x, k), n=n, undirected=True)
    known = torch.cat([(y == c).nonzero()[:labels, 0] for c in range(10)])
    other = torch.ones(n, dtype=torch.bool)
    other[known] = False
    return x, y, a, known, other.nonzero()[:, 0]


def seeded(module: nn.Module, seed: int) -> nn.Module:
    """The module with the usual start of torch's layers, drawn from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        if p.ndim > 1:
            bound = 1 / p[0].numel() ** 0.5
            nn.init.uniform_(p, -bound, bound, generator=generator)
        elif p.ndim == 1 and not torch.equal(p, torch.ones_like(p)):
            nn.init.zeros_(p)
    return module


def normed(make: Callable[[], nn.Module], width: int = 64) -> nn.Module:
    """Two hidden layers over digits with a norm of this kind after each."""
    return nn.Sequential(
        nn.Linear(64, width), make(), nn.ReLU(), nn.Linear(width, width), make(), nn.ReLU(), nn.Linear(width, 10)
    )


def train(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    n: int,
    *,
    steps: int,
    rate: float,
    seed: int,
    batch: int = 128,
    hold: Callable[[torch.optim.Optimizer], Any] = lambda optimiser: None,
) -> None:
    """Adam with a cosine schedule on ``loss(rows)``, rows drawn from 0 to n - 1 by the seed; `hold` is given the optimiser."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
    hold(optimiser)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(torch.randint(n, (batch,), generator=generator)).backward()
        optimiser.step()
        schedule.step()


@torch.no_grad()
def accuracy(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """The share of rows whose largest logit is that of the class."""
    return float((model(x).argmax(-1) == y).double().mean())
