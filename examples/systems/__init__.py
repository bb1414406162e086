"""Runs the systems of this folder and writes their table: ``python -m examples.systems``, or ``make systems``. The one rule: an
entry has a process of its own and its own limit of processor time, so that what crashes or hangs is one line of the table."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import HERE, System, entries

PAGE = HERE.parents[1] / "docs/systems.md"
BEGIN, END = "<!-- the table: make systems -->\n", "<!-- end of the table -->\n"
UNKNOWN = "–"


def declared() -> list[dict[str, Any]]:
    """The rows that a test or another example shows."""
    found: list[dict[str, Any]] = tomllib.loads((HERE / "rows.toml").read_text()).get("row", [])
    return found


def run(path: Path, system: System, seed: int, split: int) -> dict[str, Any]:
    """An entry in a process of its own, with one thread and its limit of processor time."""
    limit = system["seconds"]

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))

    threads = dict.fromkeys(("OMP_NUM_THREADS", "TERSOR_NUM_THREADS"), "1")
    command = [sys.executable, str(path), "--json", f"--seed={seed}", f"--split={split}"]
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, preexec_fn=bounded)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        why = f"more than {limit} s of processor time" if done.returncode in (-24, -9) else last
        return {"result": {}, "held": {why or f"ended with {done.returncode}": False}}
    return found


def line(path: Path, system: System, figure: str) -> str:
    functions = ", ".join(f"`{name.removeprefix('tersor.')}`" for name in system["functions"])
    claims = ", ".join(f"{k} {sign} {bound}" for k, sign, bound in system["claims"])
    mechanism = system["mechanism"].replace("|", r"\|")
    link = f"{system['title']} (`{path.name}`)"
    return f"| {system['row']} | {link} | {mechanism} | {functions} | {claims} | {figure} |"


def table(figures: dict[int, str]) -> str:
    """The page's table; rows that are declared follow in their order."""
    lines = {s["row"]: line(path, s, figures.get(s["row"], UNKNOWN)) for path, s in entries().items()}
    for row in declared():
        functions = ", ".join(f"`{name.removeprefix('tersor.')}`" for name in row["functions"])
        lines[row["n"]] = f"| {row['n']} | {row['title']} | | {functions} | shown by `{row['shown_by']}` | |"
    head = "| row | system | mechanism | functions | claims | figure |\n|---|---|---|---|---|---|\n"
    return head + "".join(f"{lines[n]}\n" for n in sorted(lines))


def page(figures: dict[int, str]) -> str:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + table(figures) + END + rest.partition(END)[2]


def without_figures(text: str) -> list[str]:
    return [line.rpartition("|")[0].rpartition("|")[0] if line.startswith("| ") else line for line in text.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.systems", description="runs the systems and checks their claims"
    )
    parser.add_argument("--only", help="rows, with commas between them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="results instead of lines")
    parser.add_argument("--check", action="store_true", help="run nothing: is the page's table that of the entries?")
    given = parser.parse_args()
    if given.check:
        same = without_figures(page({})) == without_figures(PAGE.read_text())
        sys.exit(None if same else f"{PAGE.name} is not the table of the entries; make systems writes it")
    some = {int(n) for n in given.only.split(",")} if given.only else None
    chosen = {p: s for p, s in entries().items() if some is None or s["row"] in some}
    if some is not None and len(chosen) < len(some):
        sys.exit(f"no entry of row {', '.join(map(str, sorted(some - {s['row'] for s in chosen.values()})))}")
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda e: run(*e, given.seed, given.split), chosen.items()))
    failed, figures = 0, {}
    for (path, system), made in zip(chosen.items(), found, strict=True):
        bad = [said for said, ok in made["held"].items() if not ok]
        failed += bool(bad)
        key = system["figure"]
        figures[system["row"]] = f"{key} {made['result'][key]:.3g}" if key in made["result"] else UNKNOWN
        if not given.json:
            print(f"{'FAIL' if bad else 'ok  '} {path.stem:28} {figures[system['row']]:32} {'; '.join(bad)}".rstrip())
    if given.json:
        print(json.dumps({path.stem: made for path, made in zip(chosen, found, strict=True)}))
    if some is None and not failed and not given.seed and not given.split and PAGE.exists():
        PAGE.write_text(page(figures))
    sys.exit(bool(failed))
