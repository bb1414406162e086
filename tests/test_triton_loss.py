"""The GPU kernels of cross entropy where rows are no ordinary ones. The one rule: what the CPU gives, and NaN for a label that
is no class."""

import os

import numpy as np
import pytest

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton's interpreter is chosen before Triton is imported", allow_module_level=True)

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from tersor import loss  # noqa: E402
from tersor.triton import loss as kernels  # noqa: E402

pytestmark = pytest.mark.triton


def on_gpu(x, target, smoothing, gamma):
    """The losses of rows, and their gradients."""
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    rows, d = torch.empty(len(x), dtype=kind), torch.empty_like(x)
    kept = [torch.empty(len(x), dtype=torch.float64) for _ in range(4)]
    how, nothing = (-100, smoothing, gamma), x.new_empty(0)
    kernels.cross_entropy(x, target, nothing, rows, *kept, *how)
    kernels.cross_entropy_bwd(torch.ones_like(rows), x, target, nothing, *kept, d, nothing, *how, 1)
    return rows, d


def on_cpu(x, target, smoothing, gamma):
    x = x.clone().requires_grad_()
    how = {"label_smoothing": smoothing, "gamma": gamma, "reduction": "none"}
    rows = loss.cross_entropy(x, target, **how)
    return rows.detach(), torch.autograd.grad(rows.sum(), x)[0]


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 0.0), (0.0, 0.5), (0.1, 2.0)])
def test_rows_that_are_not_ordinary(kind, smoothing, gamma):
    inf, x = np.inf, np.random.default_rng(0).standard_normal((12, 5))
    x[:7] = [
        [1, np.nan, 0, 1, 2], [inf, 0, 1, 1, 2], [0, inf, 1, 1, 2], [-inf] * 5, [40, 0, 0, 0, 0], [7, 7, 7, 1, 7],
        [1e4, -1e4, 0, 9e3, 1],
    ]  # fmt: skip
    if not smoothing:
        x[7:9] = [[0, 1, -inf, 2, 3], [-inf, 0, 1, 2, 3]]
    x, target = torch.from_numpy(x).to(kind), torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, -100, 4, 2])
    limit = 1e-13 if kind == torch.float64 else 1e-6
    for got, want in zip(on_gpu(x, target, smoothing, gamma), on_cpu(x, target, smoothing, gamma), strict=True):
        torch.testing.assert_close(got, want, rtol=limit, atol=1e-30, equal_nan=True)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("smoothing", "gamma"), [(0.1, 0.0), (0.9, 0.5), (0.1, 2.0)])
def test_what_is_far_apart_and_what_is_impossible(kind, smoothing, gamma):
    inf, top = np.inf, torch.finfo(kind).max
    rows = [[1, -inf, -inf], [1, 2, -inf], [1, -inf, 0], [1, 2, -inf], [top, 0, 0], [-top, top, 0], [top, -top, -top]]
    x, target = torch.tensor(rows, dtype=torch.float64).to(kind), torch.tensor([0, 0, 0, 2, 0, 2, 0])
    for got, want in zip(on_gpu(x, target, smoothing, gamma), on_cpu(x, target, smoothing, gamma), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13 if kind == torch.float64 else 1e-2, atol=1e-30)


def test_labels_that_are_no_classes():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 3)))
    rows, d = on_gpu(x, torch.tensor([0, 3, -1, -100, 2**62]), 0.0, 0.0)
    assert rows.isnan().tolist() == [False, True, True, False, True] and rows[3] == 0
    assert d.isnan().all(-1).tolist() == [False, True, True, False, True] and not d[3].any()
