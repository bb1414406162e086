"""Every operator of the registry under pytest-benchmark, on its own sample at two sizes. The one rule: no operator is
named here; ratios to peers and their targets are in ``tersor.bench``."""

import pytest
import tersor  # noqa: F401  (declares the operators)
from tersor._op import OPS
from tersor._sample import Draw

SIZES = {"4x8": ((4,), 8), "16384x64": ((16384,), 64)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("key", [key for key, op in OPS.items() if op.sample is not None])
def test_operator(benchmark, key: str, library: str, size: str) -> None:
    op = OPS[key]
    lead, d = SIZES[size]
    inputs, scalars = op.sample(Draw(dtype="float32", lead=lead, d=d))
    benchmark.group = f"{key} {size}"
    if library == "torch":
        torch = pytest.importorskip("torch")
        inputs = [torch.from_numpy(x) if hasattr(x, "__array_interface__") else x for x in inputs]
        benchmark(lambda: op.torch(tuple(inputs), dict(scalars)))
    else:
        benchmark(lambda: op.numpy(tuple(inputs), dict(scalars)))
