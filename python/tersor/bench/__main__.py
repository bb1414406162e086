"""``python -m tersor.bench [family ...]``: what ``tersor bench`` runs in a process of its own, on one thread.

The one rule: thread counts are settled by the environment before NumPy or torch is imported.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

ONE = {
    key: "1"
    for key in (
        "TERSOR_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMBA_NUM_THREADS",
    )
}


def run(families: Sequence[str], match: str = "", seconds: float = 3.0) -> int:
    """The benchmark in a child process with one thread; its exit status."""
    command = [sys.executable, "-m", "tersor.bench", *families]
    env = os.environ | ONE | {"TERSOR_BENCH_MATCH": match, "TERSOR_BENCH_SECONDS": str(seconds)}
    return subprocess.run(command, env=env, check=False).returncode


def main() -> None:
    import rich

    from tersor import bench

    match, seconds = os.environ.get("TERSOR_BENCH_MATCH", ""), os.environ.get("TERSOR_BENCH_SECONDS", "3")
    results: dict[str, list[bench.Result]] = {}
    for family, build in bench.cases(sys.argv[1:]):
        if match in build.__name__:
            case = build()
            print(f"{family}: {case.title}", file=sys.stderr, flush=True)
            results.setdefault(family, []).append(bench.measure(case, float(seconds)))
    for family, measured in results.items():
        rich.print(bench.table(measured, family))


if __name__ == "__main__":
    if any(os.environ.get(key) != value for key, value in ONE.items()):
        sys.exit(run(sys.argv[1:]))
    main()
