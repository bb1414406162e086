"""What a benchmark measures. The one rule: a number that it shows is held against one that is known."""

import numpy as np
import pytest
import torch
from rich.console import Console
from tersor import prune
from tersor.bench import FAMILIES, Case, Result, Target, _peak, cases, reached


@pytest.mark.serial
@pytest.mark.parametrize("megabytes", [3, 20, 100])
@pytest.mark.parametrize("library", ["numpy", "torch", "tersor"])
def test_memory_that_an_allocator_has_kept_is_counted(library, megabytes):
    """A call's result is memory, whatever calls before it left behind; an allocator keeps it, and gives it out again."""
    n = megabytes << 20
    x = np.ones(n // 4, np.float32)
    call = {
        "numpy": lambda: np.ones(n, np.uint8),
        "torch": lambda: torch.ones(n, dtype=torch.uint8),
        "tersor": lambda: prune.apply_mask(x, mask),
    }[library]
    mask = x != 0
    for _ in range(3):
        call()
    spent = _peak(call)
    if np.isnan(spent):
        pytest.skip("this system does not tell")
    assert 0.95 * n < spent < n + (3 << 20)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_case_has_a_name_that_can_be_asked_for(family):
    for every in (False, True):
        names = [build.__name__ for build in cases(family, every)]
        assert [name for name in names if name in ("case", "<lambda>")] == []
        assert len(set(names)) == len(names)


def test_targets_are_told_one_by_one():
    case = Case("a sum", {"tersor": int, "torch": int}, targets=[
        Target("tersor", ("torch",), 0.5), Target("tersor", ("copy",), 2.0), Target("tersor", ("absent",), 1.0),
    ])  # fmt: skip
    console = Console(width=120, record=True)
    console.print(reached([Result(case, {"tersor": 3.0, "torch": 4.0}, {"tersor": 1.5})]))
    lines = console.export_text().splitlines()
    assert lines[0].startswith("1 of 2 targets hold")
    assert [line.split("│")[4].strip() for line in lines if "a sum" in line] == ["0.75", "1.5"]
