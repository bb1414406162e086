"""Norms whose segments are rows: the GPU kernels against the CPU's, and which calls they take. The one rule: no call of these
runs the reference."""

import os

import numpy as np
import pytest
from tersor.testing import EPS, assert_close

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton's interpreter is chosen before Triton is imported", allow_module_level=True)

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from tersor import _body  # noqa: E402
from tersor._op import OPS  # noqa: E402
from tersor.triton import _standardize  # noqa: E402
from tersor.triton import norm as kernels  # noqa: E402

pytestmark = pytest.mark.triton
NONE = torch.empty(0)
R = np.random.default_rng(2)


def some(*shape, dtype=torch.float64):
    return torch.from_numpy(R.standard_normal(shape)).to(dtype)


#: where segments are no rows: kept, -num_segments, the shape of labels and of weights, and of γ and β (None: a number each)
TABLES = {
    "batch": (2, 0, None, None, (1, 3, 1, 1)),
    "batch without scales": (2, 0, None, None, ()),
    "batch with weights": (2, 0, None, (4, 1, 1, 1), (1, 3, 1, 1)),
    "apart": (5, 0, None, None, (4, 1, 5, 1)),
    "regions": (2, -2, (4, 1, 5, 6), None, None),
    "tasks": (2, -3, (4, 1, 1, 1), (4, 1, 5, 6), (3, 1, 1)),
    "of all": (0, -2, (4, 3, 1, 1), None, None),
}

#: what is normalised, how many of its axes are kept, and the shape of γ and β
CASES = {
    "layer": ((3, 5, 7), 2, (7,)),
    "layer of two axes": ((3, 5, 7), 1, (5, 7)),
    "long rows": ((3, 1500), 1, (1500,)),
    "group": ((2, 3, 4, 5), 2, (1, 3, 4, 1)),
    "instance": ((2, 3, 4, 5), 2, (1, 3, 1, 1)),
    "times": ((3, 5, 7), 2, (3, 1, 7)),
    "times alone": ((3, 5, 7), 2, (3, 1, 1)),
    "rows of one": ((4, 1), 1, (1,)),
    "whole": ((6, 2), 0, ()),
    "none": ((5, 3), 1, None),
}


def called(name, tensors, scalars, monkeypatch):
    """What the kernel of the CPU makes and what that of the GPU does."""
    op = OPS[f"norm.{name}"]
    made = [_body.room(tensors[0], *w) for w in op.signature.made(tensors, scalars)]
    want = [torch.full_like(y, torch.nan) for y in made]
    op.kernel(*tensors, *want, *scalars)
    with monkeypatch.context() as m:
        m.setattr(_standardize, "plain", None)
        getattr(kernels, name)(*tensors, *made, *scalars)
    return want, made


def close(got, want, dtype, size=1.0):
    for g, w in zip(got, want, strict=True):
        tolerance = 64 * max(EPS[dtype], EPS["float32"] if dtype != "float64" else 0)
        assert_close(g.double().numpy(), w.double().numpy(), tolerance, scale=size)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("case", CASES)
def test_kernels_of_rows(case, mode, dtype, monkeypatch):
    shape, axes, of = CASES[case]
    kind = getattr(torch, dtype)
    x, g = some(*shape, dtype=kind) + 3, some(*shape, dtype=kind)
    wide = torch.float32 if dtype in ("float16", "bfloat16") and axes else kind
    affine = [NONE.to(kind), NONE.to(kind)] if of is None else [some(*of, dtype=wide), some(*of, dtype=wide)]
    rest = [NONE.to(torch.int64), NONE.to(kind), NONE.double(), NONE.double()]
    correction = 0.5 if mode == 0 else 0.0
    scalars = [(1 << axes) - 1, 0, mode, 0.1, correction, 0.0, False]
    want, got = called("standardize", [x, *affine, *rest], scalars, monkeypatch)
    close(got, want, dtype, 4.0)
    stats = [w.clone() for w in want[1:]]
    sent = [torch.zeros_like(stats[0]), *(some(*s.shape) for s in stats[1:])]
    for needs in (15, 1, 2, 4):
        tensors = [g, *sent, x, *affine, *rest, *stats]
        want, got = called("standardize_bwd", tensors, [*scalars, needs], monkeypatch)
        close(got, want, dtype, 8.0)


def test_a_scale_for_each_row(monkeypatch):
    x, w = some(4, 6), some(4)
    rest = [NONE.long(), NONE.double(), NONE.double(), NONE.double()]
    scalars = [1, 0, 0, 1e-5, 0.0, 0.0, True]
    want, got = called("standardize", [x, w, w, *rest], scalars, monkeypatch)
    close(got, want, "float64")
    sent = [torch.zeros_like(s) for s in want[1:]]
    tensors = [some(4, 6), *sent, x, w, w, *rest, *want[1:]]
    want, got = called("standardize_bwd", tensors, [*scalars, 15], monkeypatch)
    close(got, want, "float64", 8.0)


def test_constant_rows_give_the_shift_whatever_they_are(monkeypatch):
    x = torch.tensor([0.1, 1e30, -7.0, 3.3e-30])[:, None].expand(4, 2100).contiguous()
    b, rest = some(2100, dtype=torch.float32), [NONE.long(), NONE, NONE.double(), NONE.double()]
    _, (y, count, mean, var) = called("standardize", [x, NONE, b, *rest], [1, 0, 0, 1e-5, 0.0, 0.0, False], monkeypatch)
    assert torch.equal(y, b.expand(4, 2100)) and torch.equal(mean, x[:, :1].double())
    assert not var.any() and count.unique().tolist() == [2100]


def test_what_has_neither_rows_nor_tables_runs_the_reference(monkeypatch):
    """A scale that is another within a segment, no element at all, squares beyond float64."""
    seen, x = [], some(3, 4, 5)
    monkeypatch.setattr(_standardize, "plain", lambda op, *args: seen.append(op.key))

    def call(x, w, kept):
        op, given = OPS["norm.standardize"], (x, w, *[NONE] * 5)
        scalars = (kept, 0, 0, 1e-5, 0.0, 0.0, False)
        made = [_body.room(x, *y) for y in op.signature.made(given, scalars)]
        _standardize.standardize(*given, *made, *scalars)

    call(x, some(5), 2)
    call(x[:0], NONE, 2)
    call(x * 1e200, NONE, 2)
    assert seen == ["norm.standardize"] * 3
    call(x, some(4, 1), 2)
    assert len(seen) == 3


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_rows_with_an_infinite_number(dtype, monkeypatch):
    """Wherever it stands, the mean is infinite, and none of two that are opposed; other rows do not see it."""
    for row, mean in (([np.inf, 1, 2], np.inf), ([1, -np.inf, 2], -np.inf), ([np.inf, -np.inf, 2], np.nan)):
        x = torch.tensor([row, [1, 2, 3]], dtype=getattr(torch, dtype))
        rest = [NONE.to(x.dtype)] * 2 + [NONE.to(torch.int64), NONE.to(x.dtype), NONE.double(), NONE.double()]
        want, got = called("standardize", [x, *rest], [1, 0, 0, 0.1, 0.0, 0.0, False], monkeypatch)
        for made in (want, got):
            torch.testing.assert_close(made[2].reshape(-1), torch.tensor([mean, 2.0]).double(), equal_nan=True)
        close([y[1] for y in got], [y[1] for y in want], dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("case", TABLES)
def test_segments_by_tables(case, mode, dtype, monkeypatch):
    kept, groups, labelled, weighted, of = TABLES[case]
    if weighted and mode == 2:
        pytest.skip("a completed row has no weights")
    kind = getattr(torch, dtype)
    x, g = some(4, 3, 5, 6, dtype=kind) + 3, some(4, 3, 5, 6, dtype=kind)
    count = int(np.prod([n if kept >> i & 1 else 1 for i, n in enumerate(x.shape)])) * (-groups or 1)
    affine = [some(*((count,) if of is None else of), dtype=kind) if of != () else NONE.to(kind) for _ in range(2)]
    labels = torch.from_numpy(R.integers(-1, -groups, labelled)) if labelled else NONE.long()
    weight = torch.from_numpy(R.uniform(0.1, 2, weighted)).to(kind) if weighted else NONE.to(kind)
    alphas = (0.0, 0.25, 1.0) if mode == 0 else (0.0,)
    for alpha in alphas:
        fixed = [some(count), some(count) ** 2 + 0.5] if alpha else [NONE.double()] * 2
        rest = [labels, weight, *fixed]
        scalars = [kept, groups, mode, 0.1, 0.5 if mode == 0 else 0.0, alpha, of is None]
        want, got = called("standardize", [x, *affine, *rest], scalars, monkeypatch)
        close(got, want, dtype, 4.0)
        stats = [w.clone() for w in want[1:]]
        sent = [torch.zeros_like(stats[0]), *(some(*s.shape) for s in stats[1:])]
        for needs in (7, 1, 2, 4) if dtype == "float32" else (7,):
            tensors = [g, *sent, x, *affine, *rest, *stats]
            want, got = called("standardize_bwd", tensors, [*scalars, needs], monkeypatch)
            close(got[:3], want[:3], dtype, 16.0)


@pytest.mark.parametrize("e", [600, 1000, -600, -1000])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (0,)])
def test_root_mean_squares_of_rows_beyond_float64(shape, e, monkeypatch):
    """Forward and back, with those that are near beside them, with no number at all, and within `add_norm`."""
    x, g = some(4, 6), some(4, 6)
    x[1] *= 2.0**e
    x[3, 2] = np.inf
    w = some(*shape)
    for eps in (0.0, 1e-6, 1e280):
        want, got = called("rms_norm", [x, w], [eps], monkeypatch)
        close(got, want, "float64", 4.0)
        rows = [v[:3] if v.shape == x.shape else v for v in (g, x, w)]
        for needs in (1, 2, 3):
            # a small row of eps 0 sends what is large, and with others nothing
            want, got = called("rms_norm_bwd", rows, [eps, needs], monkeypatch)
            for a, b in zip(got, want, strict=True):
                for one, other in zip(a, b, strict=True):
                    scale = max(float(other.abs().max()), 5e-324)
                    torch.testing.assert_close(one / scale, other / scale, rtol=1e-12, atol=1e-12)
    none = [w if shape == (6,) else NONE.double(), *[NONE.double()] * 3]
    want, got = called("add_norm", [x[:3], g[:3], *none], [False, True, 1e-6, 1.0], monkeypatch)
    close(got, want, "float64", 8.0)
