"""``tersor info``. The one rule: what is not there is said so, and nothing is installed or downloaded."""

from __future__ import annotations

import contextlib

import click

import tersor
from tersor.cli._console import console


@click.command()
@click.option("--ops", is_flag=True, help="Every operator, and what it runs on a GPU.")
def info(ops: bool) -> None:
    """Version, instruction set, threads, packages.

    What was found beside tersor: NumPy, torch, Triton, a GPU.
    """
    if ops:
        _operators()
        return
    import importlib.metadata
    import platform

    from rich.table import Table

    level, levels = tersor._core.level()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("tersor", tersor.__version__)
    table.add_row("instruction set", f"{level} (of {', '.join(levels)})" + (", AMX" if tersor._core.tiles() else ""))
    table.add_row("threads", str(tersor.get_num_threads()))
    table.add_row("python", platform.python_version())
    for package in ("numpy", "torch", "triton"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            table.add_row(package, importlib.metadata.version(package))
            continue
        table.add_row(package, "not installed")
    table.add_row("GPU", _gpu())
    console().print(table)


def _operators() -> None:
    from rich.table import Table

    from tersor.triton import ABSENT, COMPOSED, PLAIN

    words = {PLAIN: "plain: the reference in torch, on the device"}
    table = Table("family", "operator", "on a GPU", box=None, pad_edge=False)
    for op in sorted(tersor.OPS.values(), key=lambda op: op.key):
        if op.key in ABSENT:
            runs = words.get(ABSENT[op.key], f"none: {ABSENT[op.key]}")
        else:
            runs = "composed of torch's operations" if op.key in COMPOSED else "kernel"
        table.add_row(op.family, op.name, runs)
    console().print(table)


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return "unknown without torch"
    if not torch.cuda.is_available():
        return "none found"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
