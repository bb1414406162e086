"""Memory and references after thousands of calls of every operator. The one rule: a leak is what grows every time.

What is measured is of this process alone, so that others may run beside it.
"""

import gc
import os
import sys

import numpy as np
import pytest
from tersor._lists import flat
from tersor._op import OPS
from tersor._sample import Draw


def status(key: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's process table")
@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.sample is not None])
def test_no_leak_in_ten_thousand_calls(name):
    op = OPS[name]
    inputs, scalars = op.sample(Draw(dtype="float32", lead=(4,), d=8))

    def call():
        op.numpy(tuple(inputs), dict(scalars))

    def fail():
        with pytest.raises(TypeError):
            op.numpy(tuple(inputs), {**scalars, "nonsense": 1})

    for body, calls in ((call, 10_000), (fail, 1_000)):
        for _ in range(200):
            body()
        gc.collect()
        arrays = [x for x in flat(inputs) if isinstance(x, np.ndarray)]  # numbers and None are everybody's
        counts = [sys.getrefcount(x) for x in arrays]
        fds, grown = len(os.listdir("/proc/self/fd")), [2048]
        while grown[-1] > 1024 and len(grown) < 4:  # KiB; a leak comes every time, an arena of Python's allocator once
            before = status("VmRSS")
            for _ in range(calls):
                body()
            gc.collect()
            grown.append(status("VmRSS") - before)
        assert grown[-1] <= 1024, grown[1:]
        assert len(os.listdir("/proc/self/fd")) == fds
        assert [sys.getrefcount(x) for x in arrays] == counts
