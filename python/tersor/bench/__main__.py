"""``python -m tersor.bench [family ...]``: what ``tersor bench`` runs in a process of its own, on one thread.

The one rule: thread counts are settled by the environment before NumPy or torch is imported.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

_LIBRARIES = ("TERSOR", "OMP", "MKL", "OPENBLAS", "NUMBA")
ONE = {f"{library}_NUM_THREADS": "1" for library in _LIBRARIES} | {"VECLIB_MAXIMUM_THREADS": "1"}


def run(arguments: Sequence[str]) -> int:
    """The benchmark in a child process with one thread; its exit status."""
    return subprocess.run(
        [sys.executable, "-m", "tersor.bench", *arguments], env=os.environ | ONE, check=False
    ).returncode


def main() -> None:
    from rich.console import Console

    from tersor import bench

    parser = argparse.ArgumentParser("tersor bench", description="Ratios against peers, on one thread.")
    parser.add_argument("families", nargs="*", choices=[*bench.FAMILIES, []], metavar="family")
    parser.add_argument("--match", default="", help="only cases with this in their name")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a case is measured")
    parser.add_argument("--brief", action="store_true", help="one case of each family, one line each")
    parser.add_argument("--targets", action="store_true", help="one line for each target, and how many hold")
    parser.add_argument("--all", action="store_true", help="every operator at every size, which may take an hour")
    chosen = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    if chosen.brief:
        measured = [bench.measure(bench.headline(f)(), chosen.seconds) for f in chosen.families or bench.FAMILIES]
        console.print(bench.brief(measured, f"{len(measured)} slices against their peers, one thread"))
        return
    every = []
    for family in chosen.families or bench.FAMILIES:
        results = []
        for build in bench.cases(family, chosen.all):
            if chosen.match in build.__name__:
                print(f"{family}: {build.__name__}", file=sys.stderr, flush=True)
                results.append(bench.measure(build(), chosen.seconds))
        every += results
        if results and not chosen.targets:
            console.print(bench.table(results, family))
    if chosen.targets:
        console.print(bench.reached(every))


if __name__ == "__main__":
    if any(os.environ.get(key) != value for key, value in ONE.items()):
        sys.exit(run(sys.argv[1:]))
    main()
