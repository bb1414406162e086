"""Reductions over segments: the GPU kernels against the CPU's, over more pieces than one. The one rule: what is found does not
depend on how segments are said.
"""

import math
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
from tersor.triton import _runs, reduce  # noqa: E402

pytestmark = pytest.mark.triton
NONE = torch.empty(0)
#: the shape, the axes that are kept, the shape of labels and how many there are
CASES = {
    "all": ((7, 500), 0, None, 0),
    "rows": ((3, 1300), 1, None, 0),
    "columns": ((1300, 3), 2, None, 0),
    "middle": ((30, 3, 40), 2, None, 0),
    "apart": ((3, 400, 2), 5, None, 0),
    "labels": ((2500,), 0, (2500,), 3),
    "labels of rows": ((60, 3, 20), 2, (60, 1, 1), 4),
    "labels of one": ((4, 300), 0, (1, 1), 2),
    "none": ((0, 3), 2, None, 0),
    "nothing kept": ((5, 0), 2, None, 0),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(_runs, "PIECE", 300)


def made(name, tensors, *scalars):
    """What the CPU gives and what the GPU's kernel does."""
    op = OPS[f"reduce.{name}"]
    both = [[_body.room(tensors[0], *w) for w in op.signature.made(tensors, scalars)] for _ in range(2)]
    op.kernel(*tensors, *both[0], *scalars)
    getattr(reduce, name)(*tensors, *both[1], *scalars)
    return both


def close(name, tensors, *scalars, dtype="float64", size=1.0):
    want, got = made(name, tensors, *scalars)
    for g, w in zip(got, want, strict=True):
        tolerance = 256 * max(EPS[dtype], EPS["float32"] if dtype != "float64" else 0)
        assert g.shape == w.shape and g.dtype == w.dtype
        assert_close(g.double().numpy(), w.double().numpy(), tolerance, scale=size)
    return got


def case(name, dtype):
    shape, kept, labelled, groups = CASES[name]
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.standard_normal(shape) + 2).to(getattr(torch, dtype))
    labels = torch.from_numpy(rng.integers(-1, groups, labelled)) if labelled else NONE.long()
    return x, labels, kept, -groups


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_found_and_sent(name, dtype):
    x, labels, kept, groups = case(name, dtype)
    rng = np.random.default_rng(4)
    weight = torch.from_numpy(rng.uniform(0, 2, x.shape)).to(x.dtype) if x.numel() else NONE
    for w in (NONE, weight):
        found = close("segment_moments", [x, labels, w], kept, groups, dtype=dtype)
        sums = close("segment_sum", [x, labels, w], kept, groups, dtype=dtype, size=1000.0)
        sent = [torch.from_numpy(rng.standard_normal(tuple(s.shape))) for s in found]
        for needs in (1, 2, 3) if dtype == "float32" else (3,):
            close("segment_moments_bwd", [*sent, x, labels, w, *found], kept, groups, needs, dtype=dtype)
            close("segment_sum_bwd", [sums[0], x, labels, w], kept, groups, needs, dtype=dtype, size=100.0)
    top, total = close("segment_logsumexp", [x, labels], kept, groups, dtype=dtype)
    close("segment_logsumexp_bwd", [top, x, labels, total], kept, groups, dtype=dtype)
    for largest in (True, False):
        want, got = made("segment_extreme", [x, labels], kept, groups, largest)
        assert torch.equal(want[0], got[0]) and torch.equal(want[1], got[1])


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint8"])
@pytest.mark.parametrize("name", CASES)
def test_integers(name, dtype):
    x, labels, kept, groups = case(name, "float64")
    ends, rng = np.iinfo(dtype), np.random.default_rng(4)
    low, high = max(ends.min, -(2**40)), min(ends.max, 2**40)
    x = torch.from_numpy(rng.integers(low, high, tuple(x.shape), dtype, endpoint=True))
    for kind in (0, 1):
        want, got = made("segment_whole", [x, labels], kept, groups, kind)
        assert torch.equal(want[0], got[0])
    for largest in (True, False):
        want, got = made("segment_extreme", [x, labels], kept, groups, largest)
        assert torch.equal(want[0], got[0]) and torch.equal(want[1], got[1])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_not_finite_stays_in_its_own(dtype):
    rows = [[math.inf, 1, 2], [1, -math.inf, 2], [math.inf, -math.inf, 2], [math.nan, 1, 2], [-math.inf] * 3, [0, 0, 0]]
    x = torch.tensor(rows, dtype=getattr(torch, dtype)).repeat_interleave(300, 1)
    for name, scalars in (("moments", ()), ("sum", ()), ("extreme", (True,)), ("extreme", (False,)), ("logsumexp", ())):
        tensors = [x, NONE.long(), NONE] if name in ("moments", "sum") else [x, NONE.long()]
        for want, got in zip(*made(f"segment_{name}", tensors, 1, 0, *scalars), strict=True):
            torch.testing.assert_close(got, want, equal_nan=True)
    sent = [torch.ones(6, 1, dtype=x.dtype), x, NONE.long(), NONE, 1, 0, 1]
    want, got = made("segment_sum_bwd", sent[:4], *sent[4:])
    assert torch.equal(got[0], want[0]) and bool((got[0] == 1).all())


def test_sums_of_float64_keep_what_rounding_takes():
    x = torch.tensor([1e16, 1.0, -1e16] * 700, dtype=torch.float64)
    assert made("segment_sum", [x, NONE.long(), NONE], 0, 0)[1][0].item() == 700
    x = torch.tensor([1e308, 1e308, -1e308, -1e308, 3.0], dtype=torch.float64)
    want, got = made("segment_sum", [x, NONE.long(), NONE], 0, 0)
    assert torch.equal(want[0], got[0]) and got[0].isfinite()


def test_equal_numbers_have_no_spread():
    x = torch.tensor([0.1, 1e30, -7.0, 3.3e-30])[:, None].expand(4, 2100).contiguous()
    _, (count, mean, var) = made("segment_moments", [x, NONE.long(), NONE], 1, 0)
    assert torch.equal(mean, x[:, :1].double()) and not var.any() and count.unique().tolist() == [2100]


@pytest.mark.parametrize("name", ["moments", "sum", "extreme", "logsumexp", "whole"])
def test_what_is_wrong_is_said_before_anything_is_written(name):
    op = OPS[f"reduce.segment_{name}"]
    x = torch.arange(6) if name == "whole" else torch.arange(6.0)
    tail = {"extreme": (True,), "whole": (0,)}.get(name, ())
    some = [NONE] if name in ("moments", "sum") else []

    def said(labels, weight):
        tensors, scalars = [x, labels, *weight], (0, -2, *tail)
        ys = [torch.full_like(_body.room(x, *w), 7) for w in op.signature.made(tensors, scalars)]
        found = []
        for run in (op.kernel, getattr(reduce, op.name)):
            with pytest.raises(ValueError) as e:
                run(*tensors, *ys, *scalars)
            found.append(str(e.value).removeprefix(f"{op.name}: "))
            assert all((y == 7).all() for y in ys)
        assert found[0] == found[1]

    said(torch.tensor([0, 1, 2, -2, 0, 1]), some)
    if some:
        for bad in (-1.0, math.nan, math.inf):
            said(torch.tensor([0, 1, 0, 0, 0, 1]), [torch.tensor([1.0, bad, 1, 1, 1, 1])])


def test_a_sum_of_integers_beyond_int64():
    x = torch.tensor([[2**62, 2**62, -1], [2**62, 2**62, 0]])
    assert made("segment_whole", [x[:1], NONE.long()], 1, 0, 0)[1][0].item() == 2**63 - 1
    for run in (OPS["reduce.segment_whole"].kernel, reduce.segment_whole):
        with pytest.raises(ValueError, match=f"the sum of segment 1 is {2**63}, which no int64 holds"):
            run(x, NONE.long(), torch.zeros(2, 1, dtype=torch.int64), 1, 0, 0)
