"""Norms that are one standardisation, against torch's. The one rule: what torch computes in float64 is right, and no digit of
float32 is lost."""

import fractions
import math

import numpy as np
import pytest
import torch
from tersor import nn as tnn
from tersor import norm
from tersor.testing import ulps
from torch import nn
from torch.nn import functional as F

R = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def drawn_anew():
    """Every test draws the same numbers, whichever ran before it."""
    R.bit_generator.state = np.random.default_rng(1).bit_generator.state


def some(*shape, dtype=torch.float64):
    return torch.from_numpy(R.standard_normal(shape)).to(dtype)


X, W, B = some(4, 6, 5, 7), some(6), some(6)
#: name -> ours and torch's, of x, weight and bias
PAIRS = {
    "layer_norm": (lambda x, w, b: norm.layer_norm(x, (5, 7), w, b), lambda x, w, b: F.layer_norm(x, (5, 7), w, b)),
    "group_norm": (lambda x, w, b: norm.group_norm(x, 3, w, b), lambda x, w, b: F.group_norm(x, 3, w, b)),
    "instance_norm": (norm.instance_norm, lambda x, w, b: F.instance_norm(x, None, None, w, b)),
    "batch_norm": (
        lambda x, w, b: norm.batch_norm(x, None, None, w, b, True),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
    ),
    "channels last": (
        lambda x, w, b: norm.batch_norm(x[:, :, 0, 0], None, None, w, b, True),
        lambda x, w, b: F.batch_norm(x[:, :, 0, 0], None, None, w, b, True),
    ),
}


def affine(name):
    return (some(5, 7), some(5, 7)) if name == "layer_norm" else (W, B)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", PAIRS)
def test_torch_agrees(name, dtype):
    ours, theirs = PAIRS[name]
    given = [x.to(dtype) for x in (X, *affine(name))]
    leaves = [x.clone().requires_grad_() for x in given]
    wide = [x.to(torch.float64, copy=True).requires_grad_() for x in given]
    y, want = ours(*leaves), theirs(*wide)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), want, rtol=2 * eps, atol=4 * eps)
    g = some(*y.shape, dtype=dtype)
    got = torch.autograd.grad((y * g).sum(), leaves)
    right = torch.autograd.grad((want * g.double()).sum(), wide)
    for a, b in zip(got, right, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=8 * eps, atol=8 * eps * float(b.abs().max()))
    if dtype != torch.bfloat16:
        assert ours(*(x.numpy() for x in given)).tobytes() == y.detach().numpy().tobytes()
    traced = torch.compile(ours, backend="aot_eager", fullgraph=True)
    assert torch.equal(traced(*given), y)


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_twice(name):
    ours, _ = PAIRS[name]
    leaves = [
        x.requires_grad_()
        for x in (some(3, 6, 5, 7) if name == "layer_norm" else some(3, 6, 2, 2), *map(torch.clone, affine(name)))
    ]
    if name == "layer_norm":
        leaves = [some(2, 2, 3).requires_grad_(), some(3).requires_grad_(), some(3).requires_grad_()]

        def ours(x, w, b):
            return norm.layer_norm(x, 3, w, b)

    assert torch.autograd.gradcheck(ours, leaves)
    assert torch.autograd.gradgradcheck(ours, leaves)


@pytest.mark.parametrize("mode", ["var", "rms", "crms", "abs"])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_of_all_that_may_be_said(mode, labelled, weighted):
    labels = torch.tensor([[0, 1, -1, 1], [1, 0, 0, 1], [0, 0, 1, 1]]) if labelled else None
    w = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1 if weighted else None
    if weighted and mode in ("crms", "abs"):
        w = None
    given = {"labels": labels, "num_segments": 2 if labelled else None, "mode": mode}

    def f(x, *w):
        sample = {"sample_weight": w[0]} if w else {}
        y, stats = norm.standardize(x, dim=(0, 1), return_stats=True, eps=0.1, **given, **sample)
        return y, *(s for s in stats if mode != "abs")

    leaves = [some(3, 4).requires_grad_()] + ([w.requires_grad_()] if w is not None else [])
    assert torch.autograd.gradcheck(f, leaves)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mean", [0.0, 1e2, 1e5, 3e6])
def test_every_digit_at_any_ratio_of_mean_to_deviation(mean, seed):
    """Of the result too, but for what is next to the mean: that is known to an eps of float64."""
    x = (np.random.default_rng(seed).standard_normal((4, 300)) + mean).astype(np.float32)
    y, stats = norm.standardize(x, dim=-1, eps=0.0, return_stats=True)
    exact = [[fractions.Fraction(float(v)) for v in row] for row in x]
    means = [sum(row) / len(row) for row in exact]
    variances = [sum((v - m) ** 2 for v in row) / len(row) for row, m in zip(exact, means, strict=True)]
    want = np.array(
        [[float(v - m) / float(s) ** 0.5 for v in row] for row, m, s in zip(exact, means, variances, strict=True)]
    )
    assert ulps(stats.mean.astype(np.float32), np.array([*map(float, means)]), "float32").max() <= 1
    assert ulps(stats.var.astype(np.float32), np.array([*map(float, variances)]), "float32").max() <= 1
    near = 2.0**-52 * mean
    assert (abs(y - want) <= np.spacing(abs(want).astype(np.float32)) + near).all()


@pytest.mark.parametrize("value", [0.1, 1e30, -3e-40, 60000.0])
@pytest.mark.parametrize("dim", [0, 1, (0, 1)])
def test_a_constant_segment_is_its_value(value, dim):
    for kind in (np.float32, np.float64):
        x = np.full((70, 129), value, kind)
        y, stats = norm.standardize(x, dim=dim, return_stats=True)
        assert (stats.mean == x[0, 0]).all() and (stats.var == 0).all() and (y == 0).all()


def test_what_lies_in_no_segment_is_left_out():
    x = R.standard_normal((5, 8))
    labels = np.array([0, -1, 2, 0, 2])
    y, stats = norm.standardize(x, dim=0, labels=labels, num_segments=4, return_stats=True)
    assert stats.count.shape == (4, 8) and (stats.count[1] == 0).all() and np.isnan(stats.mean[3]).all()
    assert (y[1] == 0).all()
    np.testing.assert_allclose(stats.mean[0], x[[0, 3]].mean(0), rtol=1e-14)
    x[0, 3] = np.nan
    spoiled = norm.standardize(x, dim=0, labels=labels, num_segments=4)
    bad = np.zeros((5, 8), bool)
    bad[[0, 3], 3] = True
    assert (np.isnan(spoiled) == bad).all() and (spoiled[~bad] == y[~bad]).all()
    for labels, match in ((np.array([0, 4, 0, 0, 0]), r"labels\[1\] is 4"), (np.array([0, -2, 0, 0, 0]), "is -2")):
        with pytest.raises(ValueError, match=match):
            norm.standardize(x, dim=0, labels=labels, num_segments=4)


def test_region_norm_is_batch_norm_of_a_region():
    x, (w, b) = some(2, 3, 4, 4), (some(2, 3), some(2, 3))
    mask = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    y = norm.region_norm(x, mask, w, b)
    for k, inside in enumerate((~mask, mask)):
        at = inside.expand_as(x)
        for c in range(3):
            part = x[:, c][at[:, c]]
            want = (part - part.mean()) / (part.var(correction=0) + 1e-5).sqrt() * w[k, c] + b[k, c]
            torch.testing.assert_close(y[:, c][at[:, c]], want, rtol=1e-12, atol=1e-12)
    whole = norm.region_norm(x, torch.ones_like(mask), w, b)
    torch.testing.assert_close(whole, F.batch_norm(x, None, None, w[1], b[1], True), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64])
@pytest.mark.parametrize("wrong", [-1, 2, -128])
def test_a_region_is_inside_or_outside(kind, wrong):
    x = R.standard_normal((2, 3, 2, 2))
    mask = np.zeros((2, 1, 2, 2), kind)
    mask[0, 0, 1] = 1
    assert np.array_equal(norm.region_norm(x, mask), norm.region_norm(x, mask > 0))
    mask[1, 0, 0, 1] = wrong
    for made in (np.asarray, torch.as_tensor):
        with pytest.raises(ValueError, match=rf"region_norm: mask\[5\] is {wrong}, it must be 0 or 1"):
            norm.region_norm(made(x), made(mask))


def test_a_mask_of_another_shape_is_named_and_one_of_other_numbers_in_a_trace_too():
    x = R.standard_normal((2, 3, 4, 5))
    for shape in ((2, 1, 4), (2, 2, 4, 5), (2, 1, 5, 4), (1, 2, 1, 4, 5), (3, 1, 4, 5), (5,), ()):
        for kind in (bool, np.int64):
            for made in (np.asarray, torch.as_tensor):
                with pytest.raises(ValueError, match=r"region_norm: mask must be \[2, 1, 4, 5\] beside x, got shape"):
                    norm.region_norm(made(x), made(np.zeros(shape, kind)))
    mask = torch.zeros(2, 1, 4, 5, dtype=torch.int64)
    mask[0, 0, 1] = 1
    traced = torch.compile(norm.region_norm, fullgraph=True, backend="aot_eager")
    assert torch.equal(traced(torch.as_tensor(x), mask), norm.region_norm(torch.as_tensor(x), mask))
    for wrong in (-1, 2):
        mask[1, 0, 0, 1] = wrong
        with pytest.raises(RuntimeError, match="region_norm: the numbers of mask must be 0 or 1"):
            traced(torch.as_tensor(x), mask)


def test_running_statistics():
    for kind in (np.float32, np.float64):
        x = R.standard_normal((6, 3, 5)).astype(kind)
        mean, var = np.zeros(3, kind), np.ones(3, kind)
        theirs = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        for _ in range(3):
            y = norm.batch_norm(x, mean, var, training=True, momentum=0.3)
            want = F.batch_norm(torch.from_numpy(x).double(), *theirs, training=True, momentum=0.3)
        np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(mean, theirs[0], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(var, theirs[1], rtol=1e-6)
        y = norm.batch_norm(x, mean, var)
        np.testing.assert_allclose(y, F.batch_norm(torch.from_numpy(x).double(), *theirs), rtol=1e-5, atol=1e-6)
        ends = [norm.batch_norm(x, mean, var, alpha=a) for a in (0.0, 1.0)]
        np.testing.assert_allclose(ends[0], norm.batch_norm(x, training=True), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ends[1], y)


def test_weights_of_tasks():
    """Weights that are one over a task's size give the mean of the tasks' means."""
    x, sizes = some(20, 3, 4), (19, 1)
    w = torch.cat([torch.full((n,), 1 / n, dtype=torch.float64) for n in sizes])
    _, stats = norm.standardize(x, dim=(0, 2), sample_weight=w.reshape(-1, 1, 1), return_stats=True)
    means = torch.stack([part.mean((0, 2)) for part in x.split(sizes)])
    torch.testing.assert_close(stats.mean, means.mean(0), rtol=1e-12, atol=1e-12)


def evolved(x, variant, v, groups, var=None):
    """The definition, of NumPy's moments."""
    eps = 1e-3 if variant == "b0" else 1e-5
    square = (x**2).mean((2, 3), keepdims=True) + eps
    if variant[0] == "b":
        a = np.sqrt((x.var((0, 2, 3)) if var is None else var).reshape(1, -1, 1, 1) + eps)
        own = np.sqrt(x.var((2, 3), keepdims=True) + eps)
        gate = 0 if v is None else v.reshape(1, -1, 1, 1)
        q = {"b0": gate * x + own, "b1": (x + 1) * np.sqrt(square), "b2": np.sqrt(square) - x}[variant]
        return x / np.maximum(a, q)
    parts = x.reshape(len(x), groups, -1)
    spread = np.sqrt(((parts**2).mean(-1) if variant == "s2" else parts.var(-1)) + eps)
    gate = x * (v.reshape(1, -1, 1, 1) if variant == "s0" else 1)
    return x / (1 + np.exp(-gate)) / np.repeat(spread, x.shape[1] // groups, 1)[:, :, None, None]


@pytest.mark.parametrize("variant", ["b0", "b1", "b2", "s0", "s1", "s2"])
def test_evolved_norms(variant):
    x, w, b, v = (t.numpy() for t in (X, W, B, some(6)))
    v = v if variant in ("b0", "s0") else None
    want = evolved(x, variant, v, 2) * w.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)
    got = norm.evonorm(x, variant, w, b, v, groups=2)
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13)
    narrow = [None if t is None else t.astype(np.float32) for t in (x, w, b, v)]
    low = norm.evonorm(narrow[0], variant, *narrow[1:], groups=2)
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, want, rtol=4e-6, atol=4e-6)
    leaves = [torch.from_numpy(t.copy()).requires_grad_() for t in (x[:2, :, :2, :2], w, b, v) if t is not None]

    def call(x, w, b, v=None):
        return norm.evonorm(x, variant, w, b, v, groups=2)

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)
    out = np.empty_like(narrow[0])
    assert norm.evonorm(narrow[0], variant, *narrow[1:], groups=2, out=out) is out and (out == low).all()
    torch._dynamo.reset()
    for dynamic in (False, True):
        traced = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=dynamic)
        torch.testing.assert_close(traced(*leaves), call(*leaves), rtol=1e-14, atol=1e-14)
    if variant[0] == "b":
        for made in (np.array, torch.tensor):
            var = made(np.ones(6))
            given = {"v": None if v is None else made(v), "running_var": var, "momentum": 0.25}
            norm.evonorm(made(x), variant, **given)
            np.testing.assert_allclose(var, 0.75 + 0.25 * x.var((0, 2, 3), ddof=1), rtol=1e-14)
            got, before = norm.evonorm(made(x), variant, **given, training=False), var + 0
            np.testing.assert_allclose(got, evolved(x, variant, v, 2, np.asarray(var)), rtol=1e-13, atol=1e-13)
            assert (var == before).all()
    assert norm.evonorm(x[:0], variant, v=v, groups=2).shape == x[:0].shape


def test_of_equal_spreads_the_batchs_divides():
    x = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64, requires_grad=True)
    v = torch.zeros(1, dtype=torch.float64, requires_grad=True)  # both spreads are 1
    (dv,) = torch.autograd.grad(norm.evonorm(x, "b0", v=v, eps=0.0)[0, 0, 0], v)
    assert dv.tolist() == [0.0]
    bad = np.array([[[1.0, np.nan], [1.0, 2.0]], [[3.0, 5.0], [0.0, 1.0]]])
    y = norm.evonorm(bad, "b0", v=np.zeros(2), running_var=np.ones(2), training=False)
    assert np.isfinite(
        norm.evonorm(np.full((1, 1, 2), 3e38, np.float32) * np.float32([1, -1]), "b1")
    ).all()  # and no warning
    assert np.isnan(y[0, 0]).all() and not np.isnan(y[1]).any() and not np.isnan(y[0, 1]).any()


def test_what_evolved_norms_refuse():
    x, v = np.ones((2, 6, 3)), np.ones(6)
    for call, match in (
        (lambda: norm.evonorm(x, "b3"), "variant must be"),
        (lambda: norm.evonorm(x), "v is of 'b0' and 's0', got none for 'b0'"),
        (lambda: norm.evonorm(x, "b1", v=v), "v is of 'b0' and 's0', got one for 'b1'"),
        (lambda: norm.evonorm(x, v=v[:2]), "v must have shape"),
        (lambda: norm.evonorm(x, "s1"), "groups=32 does not divide 6"),
        (lambda: norm.evonorm(x, "s1", groups=0), "groups=0 does not divide 6"),
        (lambda: norm.evonorm(x, "s1", groups=2, running_var=v), "no statistics of the batch"),
        (lambda: norm.evonorm(x, "b1", training=False), "nothing to normalise by"),
        (lambda: norm.evonorm(x, "b1", running_var=v[:1]), "running_var must have shape"),
        (lambda: norm.evonorm(x, "b1", eps=-1.0), "eps must be"),
        (lambda: norm.evonorm(x, "b1", momentum=2), "momentum must be at least 0 and at most 1, got 2"),
        (lambda: norm.evonorm(x[0, 0], "b1"), r"x must be \[N, C"),
    ):
        with pytest.raises(ValueError, match="evonorm: .*" + match):
            call()
    with pytest.raises(TypeError, match="evonorm: v is float32"):
        norm.evonorm(x, v=v.astype(np.float32))


def test_instance_and_batch_in_one_call():
    """IBN: the first half of the channels by samples, the others by the batch; an odd number of them too."""
    n, c = 3, 5
    x, h = some(n, c, 4, 4), c // 2
    labels = torch.tensor([[i * h + k if k < h else n * h + k - h for k in range(c)] for i in range(n)])
    y = norm.standardize(x, dim=None, labels=labels.reshape(n, c, 1, 1))
    want = torch.cat([F.instance_norm(x[:, :h]), F.batch_norm(x[:, h:], None, None, training=True)], 1)
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)


def test_completed_rows_and_given_deviations():
    x = some(4, 7)
    whole = torch.cat([x, -x.sum(1, keepdim=True)], 1)
    torch.testing.assert_close(norm.crms_norm(x, eps=1e-5), F.layer_norm(whole, (8,))[:, :7], rtol=1e-12, atol=1e-13)
    std = torch.rand(4, 1, dtype=torch.float64) + 0.5
    y = norm.standardize(x, W[0] * torch.ones(7, dtype=torch.float64), dim=-1, std=std)
    torch.testing.assert_close(y, (x - x.mean(1, keepdim=True)) / std * W[0], rtol=1e-12, atol=1e-13)
    y = norm.standardize(x, dim=-1, mode="abs", eps=0.1)
    u = x - x.mean(1, keepdim=True)
    torch.testing.assert_close(y, u / (u.abs().mean(1, keepdim=True) + 0.1), rtol=1e-12, atol=1e-13)


def residual_pair(x, r, w, b, iw, ib, kind, scale, eps=1e-6):
    """`add_norm` of torch's own functions."""
    d = (x.shape[-1],)

    def plain(v, w, b):
        return F.rms_norm(v, d, w, eps) if kind == "rms" else F.layer_norm(v, d, w, b, eps)

    s = r + (x if iw is None else plain(x, iw, ib))
    return scale * plain(s, w, b), s


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_residual_and_norm(kind, inner, dtype):
    eps = torch.finfo(dtype).eps
    for d, scale in ((1, 1.0), (8, 0.5), (37, 3.0)):
        x, r, gy, gs = (some(2, 5, d, dtype=dtype) for _ in range(4))
        shifts = [some(d, dtype=dtype) if kind == "layer" else None for _ in range(2)]
        w, iw = some(d, dtype=dtype), some(d, dtype=dtype) if inner else None
        given = [x, r, w, shifts[0], iw, shifts[1] if inner else None]
        leaves = [None if v is None else v.clone().requires_grad_() for v in given]
        wide = [None if v is None else v.to(torch.float64, copy=True).requires_grad_() for v in given]
        options = {"kind": kind, "scale": scale, "eps": 0.01}
        names = {"inner_weight": leaves[4], "inner_bias": leaves[5]}
        y, s = norm.add_norm(*leaves[:4], **names, **options)
        want, stream = residual_pair(*wide, kind, scale, 0.01)
        torch.testing.assert_close(s.double(), stream, rtol=eps, atol=16 * eps)
        # of the sum as it is kept
        kept = residual_pair(s.detach().double(), 0 * s.detach().double(), *wide[2:4], None, None, kind, scale, 0.01)[0]
        # rounding is of what is added, γz and β, in the reference too
        torch.testing.assert_close(
            y.double(), kept, rtol=2 * eps, atol=4 * eps * (scale + float(kept.detach().abs().max()))
        )
        there = [v for v in leaves if v is not None]
        got = torch.autograd.grad([y, s], there, [gy, gs])
        right = torch.autograd.grad([want, stream], [v for v in wide if v is not None], [gy.double(), gs.double()])
        for g, c in zip(got, right, strict=True):
            torch.testing.assert_close(g.double(), c, rtol=16 * eps, atol=64 * eps * float(c.abs().max() + 1))
        (only,) = torch.autograd.grad(norm.add_norm(*leaves[:4], **names, **options)[0].sum(), leaves[1])
        (own,) = torch.autograd.grad(residual_pair(*wide, kind, scale, 0.01)[0].sum(), wide[1])
        torch.testing.assert_close(only.double(), own, rtol=16 * eps, atol=64 * eps * float(own.abs().max() + 1))
        if dtype in (torch.float64, torch.float32):
            arrays = [None if v is None else v.numpy() for v in given]
            out = (np.empty_like(arrays[0]), np.empty_like(arrays[0]))
            names = {"inner_weight": arrays[4], "inner_bias": arrays[5]}
            made = norm.add_norm(*arrays[:4], **names, **options, out=out)
            for a, b, c in zip(made, out, (y, s), strict=True):
                assert a is b and a.tobytes() == c.detach().numpy().tobytes()
            turned = np.stack([arrays[0], arrays[0]], -1)[..., 0]
            again = norm.add_norm(turned, *arrays[1:4], **names, **options)
            assert again[0].tobytes() == out[0].tobytes() and again[1].tobytes() == out[1].tobytes()


def test_the_sum_that_is_kept_gives_the_same_norm():
    """A layer norm's bits, of rows of several pieces too."""
    for d in (5, 512, 9000):
        x, r, w, b = (some(3, d, dtype=torch.float32) for _ in range(4))
        y, s = norm.add_norm(x, r, w[0], b[0], kind="layer", eps=1e-5)
        assert torch.equal(s, x + r) and torch.equal(y, norm.layer_norm(s, d, w[0], b[0]))


def test_a_weight_of_both_norms_and_a_scale_of_numpys():
    x, r, w = some(3, 5).requires_grad_(), some(3, 5).requires_grad_(), some(5).requires_grad_()

    def f(x, r, w):
        y, s = norm.add_norm(x, r, w, inner_weight=w, scale=0.5)
        return (y * y).sum() + s.sum()

    want = torch.autograd.grad(f(x, r, w), (x, r, w))
    traced = torch.compile(f, backend="aot_eager", fullgraph=True)
    for a, b in zip(torch.autograd.grad(traced(x, r, w), (x, r, w)), want, strict=True):
        torch.testing.assert_close(a, b)
    for half in (np.float32(0.5), np.float64(0.5)):
        arrays = [v.detach().numpy() for v in (x, r, w)]
        assert (norm.add_norm(*arrays, scale=half)[0] == norm.add_norm(*arrays, scale=0.5)[0]).all()


@pytest.mark.parametrize("shape", [(2, 6, 3), (2, 6, 59, 73), (3, 6, 4099)])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_groups_are_runs_of_pieces(shape, kind):
    """A group is a row that layer norm would see, whether its channels are in one piece or in several."""
    x = (R.standard_normal(shape) + R.choice([0.0, 300.0], (shape[0], 6, *(1,) * (len(shape) - 2)))).astype(kind)
    x[-1, :2] = 0.5
    w, b = some(6).numpy().astype(kind), some(6).numpy().astype(kind)
    got = norm.group_norm(x, 3, w, b)
    rows = x.astype(np.float64).reshape(shape[0], 3, -1)
    z = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-5)
    by = (1, 6, *(1,) * (len(shape) - 2))
    want = z.reshape(shape) * w.astype(np.float64).reshape(by) + b.astype(np.float64).reshape(by)
    # a mean of 300 is known to its own last digit, which float64 shows
    eps, least = (1e-12, 1.0) if kind == np.float64 else (np.finfo(kind).eps, 1e-6)
    assert (abs(got - want) <= eps * (abs(want) + abs(b.astype(float)).reshape(by) + least)).all()
    assert (got[-1, :2] == np.broadcast_to(b[:2].reshape(-1, *(1,) * (len(shape) - 2)), got[-1, :2].shape)).all()


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_residuals_of_any_size(kind):
    """Rows whose squares are no float64, forwards and backwards; second derivatives; of 16 bits beside float32."""
    x, r, g = some(4, 16), some(4, 16), some(4, 16)
    ones = torch.ones(16, dtype=torch.float64)
    plain = {"kind": kind, "eps": 0.0, "inner_weight": ones}
    near = [v.clone().requires_grad_() for v in (x, r)]
    y, s = norm.add_norm(*near, ones, **plain)
    back = torch.autograd.grad(y, near, g)
    for size in (2.0**1000, 2.0**-1000):
        far = [(v * size).requires_grad_() for v in (x, r * 0)]
        got = norm.add_norm(*far, ones, **{**plain, "inner_weight": None})[0]
        torch.testing.assert_close(got, norm.add_norm(x, 0 * r, ones, kind=kind, eps=0.0)[0], rtol=1e-14, atol=1e-14)
        one, two = (v.clone().requires_grad_() for v in (x, 0 * r))
        want = torch.autograd.grad(norm.add_norm(one, two, ones, kind=kind, eps=0.0)[0], one, g)[0]
        torch.testing.assert_close(torch.autograd.grad(got, far, g)[0] * size, want, rtol=1e-12, atol=1e-12)
        inside = (x * size).requires_grad_()
        y_in = norm.add_norm(inside, near[1], ones, **plain)[0]
        torch.testing.assert_close(y_in, y, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(torch.autograd.grad(y_in, inside, g)[0] * size, back[0], rtol=1e-12, atol=1e-12)
    leaves = [v.clone().requires_grad_() for v in (x[:2, :5], r[:2, :5], *(some(5) for _ in range(2)))]
    assert torch.autograd.gradgradcheck(
        lambda x, r, w, v: norm.add_norm(x, r, w, kind=kind, inner_weight=v, scale=0.5, eps=0.1), leaves
    )
    half, w = some(3, 8, dtype=torch.float16), some(8, dtype=torch.float32)
    assert torch.equal(
        norm.add_norm(half, half, w, kind=kind)[0],
        norm.add_norm(half.float(), half.float(), w, kind=kind)[0].half(),
    )
    for shape in ((0, 4), (3, 0)):
        x, w = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (shape, shape[-1:]))
        y, s = norm.add_norm(x, x.detach(), w, kind=kind, inner_weight=w.detach())
        y.sum().backward()
        assert y.shape == s.shape == x.grad.shape == shape and w.grad.tolist() == [0.0] * shape[-1]
    with pytest.raises(ValueError, match=r"add_norm: weight must have shape \(8,\), got \(0,\)"):
        norm.add_norm(half, half, half.new_ones(0), kind=kind)


def test_folding():
    x, w, b = some(6, 4), some(3, 4), some(3)
    mean, var = some(4), some(4) ** 2
    scale, shift = norm.as_affine(mean, var, some(4), some(4), skip=0.3)
    torch.testing.assert_close(F.linear(x, *norm.fold(w, b, scale, shift, "before")), F.linear(x * scale + shift, w, b))
    scale, shift = some(3), some(3)
    torch.testing.assert_close(F.linear(x, *norm.fold(w, b, scale, shift)), F.linear(x, w, b) * scale + shift)


def test_weights_standardised():
    w = some(3, 2, 3, 3)
    var, mean = torch.var_mean(w, (1, 2, 3), keepdim=True)
    want = (w - mean) / (var + 1e-5).sqrt() * some(1)
    gain = want.flatten(1)[:, 0] / norm.weight_standardize(w).flatten(1)[:, 0]
    torch.testing.assert_close(norm.weight_standardize(w, gain), want, rtol=1e-12, atol=1e-12)


def test_no_elements():
    for shape, dim in (((0, 3), 0), ((3, 0), 1), ((0, 3), 1), ((2, 0, 3), (0, 2))):
        x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        y, stats = norm.standardize(x, dim=dim, return_stats=True)
        y.sum().backward()
        assert y.shape == x.shape == x.grad.shape and (stats.count == 0).all()


def test_what_does_not_fit_is_refused():
    x = np.ones((4, 6, 2))
    for call, match in (
        (lambda: norm.group_norm(x, 4), "num_groups=4 does not divide 6"),
        (lambda: norm.layer_norm(x, 3), "does not end in normalized_shape"),
        (lambda: norm.layer_norm(x, 2, np.ones(3)), "weight must have shape"),
        (lambda: norm.standardize(x, dim=(0, 0)), "names an axis twice"),
        (lambda: norm.standardize(x, dim=0, mode="std"), "mode must be"),
        (lambda: norm.standardize(x, dim=0, eps=-1.0), "eps must be"),
        (lambda: norm.standardize(x, dim=0, eps=10**400), "standardize: eps must be a number in range"),
        (lambda: norm.rms_norm(x, 2, eps=10**400), "rms_norm: eps must be a number in range"),
        (lambda: tnn.PowerNorm(6, eps=10**400), "PowerNorm: eps must be a number in range"),
        (lambda: norm.add_norm(x, x, np.ones(2), scale=math.inf), "add_norm: scale must be finite, got inf"),
        (lambda: norm.add_norm(x, x, np.ones(2), scale=10**400), "add_norm: scale must be a number in range"),
        (lambda: norm.standardize(x, dim=0, mean=np.zeros(12)), "given together"),
        (lambda: norm.standardize(x, dim=0, alpha=0.5), "alpha=0.5 mixes"),
        (lambda: norm.standardize(x, dim=0, sample_weight=-np.ones(4)), r"sample_weight\[0\] is -1"),
        (lambda: norm.batch_norm(x), "nothing to normalise by"),
        (lambda: norm.batch_norm(x[:1, :, :1], training=True), "one element"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(np.exceptions.AxisError):
        norm.standardize(x, dim=3)
    with pytest.raises(TypeError, match="labels must be"):
        norm.standardize(x, dim=0, labels=np.ones(4))
    with pytest.raises(TypeError, match="weight is float64"):
        norm.layer_norm(x.astype(np.float32), 2, np.ones(2))


LAYERS = {
    "LayerNorm": (nn.LayerNorm((5, 7)), X),
    "RMSNorm": (nn.RMSNorm((5, 7)), X),
    "GroupNorm": (nn.GroupNorm(3, 6), X),
    "BatchNorm1d": (nn.BatchNorm1d(6), X[:, :, 0]),
    "BatchNorm2d": (nn.BatchNorm2d(6, momentum=None), X),
    "BatchNorm3d": (nn.BatchNorm3d(6, track_running_stats=False), X[..., None]),
    "InstanceNorm1d": (nn.InstanceNorm1d(6), X[0, :, 0]),
    "InstanceNorm2d": (nn.InstanceNorm2d(6, affine=True), X),
    "InstanceNorm3d": (nn.InstanceNorm3d(6), X[..., None]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_torchs(name):
    layer, x = LAYERS[name]
    theirs = nn.Sequential(layer).double()
    state = {k: v.clone() for k, v in theirs.state_dict().items()}
    want = [theirs(x), theirs(2 * x), theirs.eval()(x)]
    moved = {k: v.clone() for k, v in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    theirs.train()
    assert tnn.convert(theirs, "norm").converted == ("0",)
    assert type(theirs[0]) is getattr(tnn, name) and isinstance(theirs[0], type(layer))
    got = [theirs(x), theirs(2 * x), theirs.eval()(x)]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(dict(theirs.state_dict()), moved)
    assert tnn.convert(theirs, "norm").left == {"0": "it is one already"}
    tnn.convert(theirs, "dense")
    assert type(theirs[0]) is type(layer)
    torch.testing.assert_close(theirs(x), want[2])


def trained(model, x, target, steps=8):
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


class Residual(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c, c, 3, padding=1),
            nn.BatchNorm2d(c),
            nn.ReLU(),
            nn.Conv2d(c, c, 3, padding=1),
            nn.GroupNorm(2, c),
        )

    def forward(self, x):
        return x + self.body(x)


class Attend(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.before, self.after = nn.LayerNorm(d), nn.RMSNorm(d)
        self.q, self.mlp = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x):
        q, k, v = self.q(self.before(x)).chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v)
        return x + self.mlp(self.after(x)).relu()


class Pool(nn.Module):
    def forward(self, x):
        return x.mean(1)


MODELS = {
    "resnet": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Residual(8),
        nn.InstanceNorm2d(8, affine=True),
        Residual(8),
        nn.Flatten(),
        nn.Linear(8 * 36, 4),
    ),
    "transformer": lambda: nn.Sequential(
        nn.Flatten(2), nn.Flatten(1, 1), Rows(), Attend(8), Attend(8), nn.LayerNorm(8), Pool(), nn.Linear(8, 4)
    ),
}


class Rows(nn.Module):
    def forward(self, x):
        return x.reshape(len(x), 8, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_models_train_as_with_torchs(name, dtype):
    torch.manual_seed(0)
    x, target = torch.randn(24, 1, 8, 8, dtype=dtype), torch.arange(24) % 4
    plain = MODELS[name]().to(dtype)
    swapped = MODELS[name]().to(dtype)
    swapped.load_state_dict(plain.state_dict())
    count = len(tnn.convert(swapped, "norm").converted)
    assert count == {"resnet": 6, "transformer": 5}[name]
    want, got = trained(plain, x, target), trained(swapped, x, target)
    assert want[-1] < 0.97 * want[0]
    np.testing.assert_allclose(got, want, rtol=2e-3 if dtype == torch.float32 else 1e-10)
    assert plain.state_dict().keys() == swapped.state_dict().keys()


def test_layers_under_autocast():
    for name in ("LayerNorm", "BatchNorm1d", "GroupNorm"):
        layer, x = LAYERS[name]
        model = nn.Sequential(
            type(layer)(*((5, 7),) if name == "LayerNorm" else (3, 6) if name == "GroupNorm" else (6,))
        )
        tnn.convert(model, "norm")
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x.float())
            low = model(x.bfloat16())
        assert y.dtype == torch.float32 and low.dtype == (torch.bfloat16 if name == "BatchNorm1d" else torch.float32)
        y.float().sum().backward()


def test_what_moves_no_statistics_says_so_or_leaves_them() -> None:
    for made in (np.asarray, torch.as_tensor):
        x, few = made(np.arange(8.0).reshape(4, 2)), made(np.array([0.1, 0.2, 0.3, 0.1]))
        mean, var = made(np.zeros(2)), made(np.ones(2))
        norm.batch_norm(x, mean, var, training=True, sample_weight=few)
        assert (mean != 0).all() and (var == 1).all()  # a sum of 0.7 has no unbiased variance: it was negative
        before = mean + 0
        norm.batch_norm(x, mean, var, training=True, sample_weight=0 * few)
        assert (mean == before).all() and (var == 1).all()
        norm.batch_norm(x, mean, var, training=True, sample_weight=few / few.sum() * (1 + 1e-7))
        assert (mean != before).all() and (var == 1).all()
        with pytest.raises(TypeError, match="batch_norm: running_mean must be float64"):
            norm.batch_norm(x, made(np.zeros(2, np.int64)), var, training=True)
        with pytest.raises(TypeError, match=r"batch_norm: running_mean must be a .* like x, got list"):
            norm.batch_norm(x, [0.0, 0.0], var, training=True)
    for eps in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="rms_norm: eps must be finite"):
            norm.rms_norm(np.ones((1, 2)), 2, eps=eps)


def test_a_layer_without_bias_is_folded() -> None:
    w, a, s = np.arange(6.0).reshape(2, 3), np.array([2.0, 3.0]), np.array([1.0, -1.0])
    folded, bias = norm.fold(w, None, a, s)
    assert (folded == w * a[:, None]).all() and (bias == s).all()


def test_norms_without_a_counterpart_are_said() -> None:
    model = nn.Sequential(nn.SyncBatchNorm(3), nn.LazyBatchNorm1d(), nn.LayerNorm(3))
    made = tnn.convert(model, "norm")
    assert made.converted == ("2",)
    assert made.left == {"0": "a SyncBatchNorm stays torch's", "1": "a LazyBatchNorm1d stays torch's"}


@pytest.mark.parametrize("low", ["float16", "bfloat16"])
@pytest.mark.parametrize("row", [[2, 2, 2], [6e4, -6e4, -6e4], [1e-6, 3e-6, 1e-6], [1e-5, 2e-5, 4e-5]])
def test_mean_magnitudes_of_16_bits_leave_no_range(row, low):
    x = torch.tensor(row, dtype=getattr(torch, low), requires_grad=True)
    y = norm.standardize(x, dim=0, mode="abs")
    want = norm.standardize(x.detach().double(), dim=0, mode="abs")
    torch.testing.assert_close(y.double(), want, rtol=2 * torch.finfo(x.dtype).eps, atol=1e-7)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()
    by = norm.standardize(x, dim=0, std=1e4)
    want = norm.standardize(x.detach().double(), dim=0, std=1e4)
    torch.testing.assert_close(by.double(), want, rtol=2 * torch.finfo(x.dtype).eps, atol=1e-7)


def test_what_training_moves_can_be_moved():
    x, mean, fixed = np.ones((4, 2)), np.zeros(2), np.ones(2)
    fixed.setflags(write=False)
    for make in (
        lambda: norm.batch_norm(x, mean, fixed, training=True),
        lambda: norm.evonorm(x, "b1", running_var=fixed),
    ):
        with pytest.raises(ValueError, match="norm: running_var is moved in training, got a read-only array"):
            make()
    assert not mean.any()
    norm.batch_norm(x, mean, fixed)
    with pytest.raises(ValueError, match="standardize: std must broadcast"):
        norm.standardize(x[0], dim=0, std=x)
    assert (norm.batch_norm(x, training=True, sample_weight=0.5) == 0).all()


@pytest.mark.parametrize("n", [1, 2, 7, 8, 15, 16, 17, 33, 4095, 4096, 4097, 8200])
@pytest.mark.parametrize("given", ["weight and bias", "weight", "bias", "none"])
def test_rows_around_the_ends_of_steps_and_pieces(n, given):
    x, g = (some(5, n) + 1e3).float(), some(5, n).float()
    x[3] = 0.1
    affine = [some(n).float() if k in given else None for k in ("weight", "bias")]
    leaves = [None if v is None else v.requires_grad_() for v in (x, *affine)]
    wide = [None if v is None else v.detach().double().requires_grad_() for v in leaves]
    y, want = norm.layer_norm(leaves[0], n, *leaves[1:]), F.layer_norm(wide[0], (n,), *wide[1:])
    size = want.detach().abs() + sum(v.detach().abs() for v in wide[1:] if v is not None)
    assert ((y.double() - want).abs() <= 2**-23 * (size + 1e-6)).all()
    assert torch.equal(y[3], torch.zeros(n) if affine[1] is None else affine[1])
    used = [i for i, v in enumerate(leaves) if v is not None]
    got = torch.autograd.grad(y, [leaves[i] for i in used], g)
    right = torch.autograd.grad(want, [wide[i] for i in used], g.double())
    for a, b in zip(got, right, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=4e-6, atol=4e-6 * float(b.abs().max()) + 1e-7)


@pytest.mark.parametrize("groups", [1, 2, 4, 5])
@pytest.mark.parametrize("by", ["segment", "channel", "pixel", "none"])
def test_few_labels_are_what_each_is_by_itself(by, groups):
    """With γ and β of segments, channels or pixels, and weights: values and gradients; what lies in no segment gives 0."""
    for side in (1, 4, 17):
        x, g = some(2, 3, side, side), some(2, 3, side, side)
        labels = torch.from_numpy(R.integers(-1, groups, (2, 1, side, side)))
        shape = {"segment": (groups, 3), "channel": (3, 1, 1), "pixel": (side, side), "none": None}[by]
        affine = [] if shape is None else [some(*shape).requires_grad_() for _ in range(2)]
        leaf = x.clone().requires_grad_()
        flat = [v.reshape(-1) for v in affine] if by == "segment" else affine
        y = norm.standardize(
            leaf, *flat, dim=(0, 2, 3), labels=labels, num_segments=groups, eps=0.1, segment_affine=by == "segment"
        )
        want = torch.zeros_like(x)
        for k in range(groups):
            inside = (labels == k).expand_as(x)
            w = inside.double()
            n = w.sum((0, 2, 3), keepdim=True).clamp(min=1)
            mu = (leaf * w).sum((0, 2, 3), keepdim=True) / n
            v = ((leaf - mu) ** 2 * w).sum((0, 2, 3), keepdim=True) / n
            z = (leaf - mu) / (v + 0.1).sqrt()
            gamma, beta = [p[k].view(3, 1, 1) if by == "segment" else p for p in affine] or (1.0, 0.0)
            want = torch.where(inside, z * gamma + beta, want)
        torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
        got, right = (torch.autograd.grad(v, [leaf, *affine], g) for v in (y, want))
        for a, b in zip(got, right, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
        spoiled = x.clone()
        spoiled[(labels == -1).expand_as(x)] = float("inf")
        at = (labels == groups - 1).expand_as(x)
        spoiled[at] = float("nan")
        given = [v.detach() for v in flat]
        z = norm.standardize(
            spoiled, *given, dim=(0, 2, 3), labels=labels, num_segments=groups, eps=0.1, segment_affine=by == "segment"
        )
        assert torch.equal(z[~at], y.detach()[~at]) and z[at].isnan().all()


@pytest.mark.parametrize("n", [2, 31, 33, 300, 5000])
def test_plain_sums_tell_as_much_as_differences(n):
    """On both sides of a mean of four deviations, up to which squares are summed as they are."""
    draws = np.random.default_rng(n)
    for mean in (0.5, 3.0, 3.9, 4.1, 6.0):
        x = (draws.standard_normal((6, n)) + mean).astype(np.float32)
        y, stats = norm.standardize(x, dim=-1, eps=0.0, return_stats=True)
        wide = x.astype(np.longdouble)
        var = ((wide - wide.mean(-1, keepdims=True)) ** 2).mean(-1)
        np.testing.assert_allclose(stats.mean, wide.mean(-1).astype(float), rtol=1e-14)
        np.testing.assert_allclose(stats.var, var.astype(float), rtol=1e-12)
        want = ((wide - wide.mean(-1, keepdims=True)) / np.sqrt(var)[:, None]).astype(float)
        assert ulps(y, want, "float32").max() <= 1
