"""What a benchmark measures. The one rule: a number that it shows is held against one that is known."""

import numpy as np
import pytest
import torch
from tersor import prune
from tersor.bench import FAMILIES, _peak, cases


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
