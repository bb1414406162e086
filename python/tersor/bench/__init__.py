"""Ratios against peers: how a case is measured and shown. The one rule: contenders take turns in one process on one
thread, and every sample stands between two copies of the same bytes into memory that is already mapped.

A ratio to that copy says how far a call is from the memory's own speed and holds on a busy machine, where times do not.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tersor._public import families

#: the families that have a table here, the compressed layers, masks while training, and norms with reductions
FAMILIES = tuple(
    sorted(f for f in [*families(), "layers", "masks", "reductions"] if importlib.util.find_spec(f"{__name__}.{f}"))
)

Call = Callable[[], Any]

#: samples of whoever takes long
FEWEST = 3


def peer(make: Callable[[], Call]) -> Call:
    """A peer that is made at its first call, so that its absence is shown as such."""
    made: list[Call] = []

    def call() -> None:
        if not made:
            made.append(make())
        made[0]()

    return call


@dataclass
class Target:
    """``who`` takes at most ``limit`` times the fastest of ``than`` (names of contenders, or "copy")."""

    who: str
    than: tuple[str, ...]
    limit: float

    def __str__(self) -> str:
        times = f"{self.limit:.2g}×" if self.limit >= 0.1 else f"1/{1 / self.limit:.3g} of"
        return f"≤ {times} {' | '.join(self.than)}"


@dataclass
class Case:
    """One computation, done by us and by peers.

    Parameters
    ----------
    title
        What is computed, on which shape.
    calls
        Contender -> a call of no arguments; ours first. A call that raises leaves the table with its reason.
    traffic
        Bytes that must be read and written; the copy beside each sample moves half of them there and half of them back.
    targets
        What the case should reach.
    memory
        Contenders whose extra memory at the peak is measured too, in bytes per ``items``.
    """

    title: str
    calls: dict[str, Call]
    traffic: int = 0
    targets: Sequence[Target] = ()
    memory: Sequence[str] = ()
    items: int = 0


@dataclass
class Result:
    case: Case
    seconds: dict[str, float] = field(default_factory=dict)  # medians
    copies: dict[str, float] = field(default_factory=dict)  # medians of the ratio to the copy beside the sample
    failed: dict[str, str] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)  # bytes per item at the peak

    def ratio(self, target: Target) -> float | None:
        """What ``target`` limits, measured; None where a contender is missing."""
        if target.who not in self.seconds:
            return None
        if target.than == ("copy",):
            return self.copies.get(target.who)
        peers = [self.seconds[name] for name in target.than if name in self.seconds]
        return self.seconds[target.who] / min(peers) if peers else None


def measure(case: Case, seconds: float = 3.0, rounds: int = 7) -> Result:
    """Times every contender of ``case``, at least ``rounds`` samples of each and about ``seconds`` in all; of one that takes
    as long by itself, three."""
    result = Result(case)
    source = np.ones(max(case.traffic // 2, 1), np.uint8)
    sink = np.zeros_like(source)
    repeats: dict[str, int] = {}
    for name, call in case.calls.items():
        try:
            # what takes as long as all samples may is not called once more to find that out
            repeats[name] = 1 if _time(call, 1) > seconds else _repeats(call)
        except ModuleNotFoundError as error:
            result.failed[name] = f"{error.name} is not installed"
        except Exception as error:  # a peer that this machine cannot run is shown as such, not a failed benchmark
            result.failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    samples: dict[str, list[float]] = {name: [] for name in repeats}
    ratios: dict[str, list[float]] = {name: [] for name in repeats}
    with _no_gc():
        start = time.perf_counter()

        def wanted(name: str) -> bool:
            had, within = len(samples[name]), time.perf_counter() - start < seconds
            return had < FEWEST or ((had < rounds or within) and sum(samples[name]) * repeats[name] < seconds)

        while turn := [name for name in repeats if wanted(name)]:
            for name in turn:
                n = repeats[name]
                before = _copy(source, sink)
                if n > 1 or sum(samples[name]) < len(samples[name]) * seconds / 20:
                    # on the caches and the freed memory of its own last call, not on those of whoever was before
                    case.calls[name]()
                spent = _time(case.calls[name], n)
                copied = (before + _copy(source, sink)) / 2
                samples[name].append(spent)
                ratios[name].append(spent / copied)
    result.seconds = {name: statistics.median(s) for name, s in samples.items()}
    if case.traffic:
        result.copies = {name: statistics.median(r) for name, r in ratios.items()}
    result.extra = {n: _peak(case.calls[n]) / case.items for n in case.memory if n in repeats}
    return result


def _time(call: Call, n: int) -> float:
    start = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - start) / n


def _repeats(call: Call) -> int:
    """Calls per sample, so that a sample is well above the clock's grain."""
    once = _time(call, 1)
    return 1 if once > 2e-3 else max(1, int(2e-3 / max(_time(call, 3), 1e-7)))


def _copy(source: np.ndarray, sink: np.ndarray) -> float:
    start = time.perf_counter()
    np.copyto(sink, source)
    return time.perf_counter() - start


@contextlib.contextmanager
def _no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _peak(call: Call) -> float:
    """Bytes of memory above the present that ``call`` reaches (Linux; NaN elsewhere).

    What an allocator keeps of calls before goes back to the system first, or it would be used again and not be counted.
    """

    def status(key: str) -> int:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))

    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # of the C library of GNU
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        now = status("VmRSS")
        call()
        return status("VmHWM") - now
    except OSError:
        return float("nan")


def cases(family: str, every: bool = False) -> list[Callable[[], Case]]:
    """The cases of a family, each still to be built: the usual ones, or every one."""
    module = importlib.import_module(f"tersor.bench.{family}")
    found: list[Callable[[], Case]] = getattr(module, "ALL", module.CASES) if every else module.CASES
    return found


def called(name: str, build: Callable[[], Case]) -> Callable[[], Case]:
    """A case of several, under a name that ``--match`` can find."""
    build.__name__ = name
    return build


def headline(family: str) -> Callable[[], Case]:
    """The one case that stands for the family in a short table."""
    found: Callable[[], Case] = importlib.import_module(f"tersor.bench.{family}").HEADLINE
    return found


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def table(results: Sequence[Result], title: str) -> Any:
    """A rich table of results: times, ratios to the copy and to the first of ours, targets."""
    from rich.table import Table

    shown = Table(title=title, title_justify="left", pad_edge=False)
    for heading in ("case", "who"):
        shown.add_column(heading)
    for heading in ("median", "÷ copy", "÷ ours"):
        shown.add_column(heading, justify="right")
    shown.add_column("target")
    for result in results:
        first, ours = result.case.title, next(iter(result.seconds.values()), 0.0)
        for name in result.case.calls:
            if name in result.failed:
                shown.add_row(first, name, "–", "", "", f"[dim]{result.failed[name]}[/dim]")
            else:
                copies = result.copies.get(name)
                notes = [
                    f"[{'green' if ratio <= t.limit else 'red'}]{ratio:.2f}[/] {t}"
                    for t in result.case.targets
                    if t.who == name and (ratio := result.ratio(t)) is not None
                ]
                if name in result.extra:
                    notes.append(f"{result.extra[name]:.2f} bytes of extra memory per item")
                shown.add_row(
                    first,
                    name,
                    duration(result.seconds[name]),
                    f"{copies:.2f}" if copies is not None else "",
                    f"{result.seconds[name] / ours:.2f}",
                    "\n".join(notes),
                )
            first = ""
        shown.add_section()
    return shown


def reached(results: Sequence[Result]) -> Any:
    """One line per target: what it asks, what was measured, and whether that holds."""
    from rich.table import Table

    found = [(r, t, ratio) for r in results for t in r.case.targets if (ratio := r.ratio(t)) is not None]
    held = sum(ratio <= t.limit for _, t, ratio in found)
    shown = Table(title=f"{held} of {len(found)} targets hold, one thread", title_justify="left", pad_edge=False)
    for heading in ("case", "who", "asked"):
        shown.add_column(heading)
    shown.add_column("measured", justify="right")
    for result, target, ratio in found:
        color = "green" if ratio <= target.limit else "red"
        shown.add_row(result.case.title, target.who, str(target), f"[{color}]{ratio:.3g}[/]")
    return shown


def brief(results: Sequence[Result], title: str) -> Any:
    """One line per case: the fastest of ours beside every peer."""
    from rich.table import Table

    shown = Table(title=title, title_justify="left", pad_edge=False)
    shown.add_column("case")
    for heading in ("tersor", "÷ copy"):
        shown.add_column(heading, justify="right")
    shown.add_column("peers, and how many times as long they take")
    for result in results:
        ours = [name for name in result.seconds if name.startswith("tersor")]
        best = min(ours, key=result.seconds.__getitem__)
        peers = [
            f"{name} {duration(spent)} ({spent / result.seconds[best]:.1f}×)"
            for name, spent in sorted(result.seconds.items(), key=lambda item: item[1])
            if name not in ours
        ]
        copies = result.copies.get(best)
        shown.add_row(
            result.case.title,
            duration(result.seconds[best]),
            f"{copies:.2f}" if copies else "",
            "\n".join(peers),
        )
        shown.add_section()
    return shown
