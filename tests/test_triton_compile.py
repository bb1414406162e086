"""Every GPU kernel compiled to machine code for a GPU that is not there: the interpreter lets more pass than the compiler."""

import importlib
import os
import sys

import pytest
from tersor import _body
from tersor._sample import Draw
from tersor.triton import COMPOSED
from test_ops import ALL, inputs, run

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels do not compile", allow_module_level=True)

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from test_torch import tensor  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

if torch.cuda.is_available():
    pytest.skip("there is a GPU to run them on", allow_module_level=True)


def launcher(op):
    try:
        found = getattr(importlib.import_module(f"tersor.triton.{op.family}"), op.name, None)
    except ModuleNotFoundError:
        return None
    # what is plain torch on any device has nothing to compile
    kernels = found and {"triton", "_segments"} & vars(sys.modules[found.__module__]).keys()
    return found if kernels and op.key not in COMPOSED else None


class Absent:
    """A GPU as the compiler needs it."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def compiled(monkeypatch):
    """Launches compile and do not run; the list of what was compiled."""
    done = []
    run_or_compile = JITFunction.run

    def compile_only(self, *args, grid, warmup, **kwargs):
        done.append(run_or_compile(self, *args, grid=grid, warmup=True, **kwargs))
        return done[-1]

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(driver, "_active", Absent())
    return done


DTYPES = ("float32", "float64", "bfloat16")
CASES = [
    pytest.param(op, d, id=f"{op.key}-{d}")
    for op in ALL
    if launcher(op)
    for d in op.options.triton_dtypes or op.options.dtypes or DTYPES
    if d != "float16"  # differs from bfloat16 in its loads only
]


def launched(op, dtype, seed, rows):
    args = inputs(op, Draw(seed, dtype, (5,), 8, 0.9, c_rows=rows))
    if op.vectors > 1 and op.name.endswith("_bwd") and not rows:
        last = args[op.vectors - 1]
        args = (*args[: op.vectors - 1], last.reshape(-1, last.shape[-1])[:1].copy(), *args[op.vectors :])
    out = [tensor(y) for y in run(op, args)]
    given = [tensor(x) for x in args]
    for i in range(op.n):
        if not isinstance(given[i], torch.Tensor):
            given[i] = torch.empty(0) if given[i] is None else torch.tensor(given[i], dtype=torch.float64)
    kept = [_body.room(given[0], *w) for w in op.signature.made(given[: op.n], given[op.n :])[op.shown :]]
    launcher(op)(*given[: op.n], *out, *kept, *given[op.n :])


@pytest.mark.parametrize(("op", "dtype"), CASES)
def test_compiles(op, dtype, compiled):
    # numbers by value with one row for all, whose gradient is a sum; numbers per row (16 bits differ in their loads only)
    for rows in (False, True)[: 1 if dtype == "bfloat16" else 2]:
        launched(op, dtype, 7, rows)
    for seed in range(100):  # an operator that runs its reference for some calls
        if compiled:
            break
        launched(op, dtype, seed, False)
    assert all("cubin" in kernel.asm for kernel in compiled) and compiled


@pytest.mark.parametrize("mode", range(4))
def test_norms_of_rows_compile(mode, compiled):
    from tersor.triton.norm import standardize, standardize_bwd

    x, w, none = torch.randn(4, 8), torch.randn(8), torch.empty(0)
    stats = [torch.ones(4, 1, dtype=torch.float64) for _ in range(3)]
    how = (1, 0, mode, 1e-5, 0.0, 0.0, False)
    standardize(x, w, w, *[none] * 4, x.clone(), *stats, *how)
    standardize_bwd(x, *stats, x, w, w, *[none] * 4, *stats, x.clone(), w.clone(), w.clone(), none, *how, 7)
    assert len(compiled) == 2 and all("cubin" in kernel.asm for kernel in compiled)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_segments_compile(dtype, labelled, weighted, compiled):
    from tersor.triton import _segments, _send
    from tersor.triton._runs import runs

    x = torch.randn(4, 3, 5).to(getattr(torch, dtype))
    r = runs(x, torch.zeros(4, 1, 1, dtype=torch.int64) if labelled else torch.empty(0), 2, -1 if labelled else 0)
    w, stats = x.abs() if weighted else None, torch.ones(3, dtype=torch.float64)
    _segments.moments(r, x, w)
    _segments.sums(r, x, w)
    _segments.sums(r, x, None, x, stats)
    for form in range(4):
        _send.send(r, x, x.clone(), form, (stats,) * 4, w, x)
    assert len(compiled) >= 10 and all("cubin" in kernel.asm for kernel in compiled)
