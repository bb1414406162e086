"""Fixed point, scales by powers of two, rows by their mean deviation: against the definitions, in exact arithmetic."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import tersor
from tersor import quant
from tersor.random import TAGS, words

torch = pytest.importorskip("torch")
FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def values(kind):
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=300) * 10.0 ** rng.integers(-6, 3, 300), np.arange(-40, 40) / 16])
    return x.astype(kind)


@pytest.mark.parametrize(
    ("wl", "fl"), [(2, 0), (8, 4), (8, 12), (16, 8), (24, 20), (25, 3), (32, 16), (32, -4), (6, -3)]
)
@pytest.mark.parametrize("kind", FLOATS)
def test_words(kind, wl, fl):
    """Every result is a word, and the nearest to x, half to even; drawn ones are a word beside x, and their own if x is one."""
    x = values(kind)
    unit, lo, hi = Fraction(2) ** -fl, -(2 ** (wl - 1)), 2 ** (wl - 1) - 1
    digits = {8: 53, 4: 24, 2: 24}[x.dtype.itemsize]
    if wl - 1 > digits:
        hi = 2 ** (wl - 1) - 2 ** (wl - 1 - digits)
    exact = [Fraction(float(v)) / unit for v in x]
    even = quant.fixed_point(x, wl, fl, rounding="half_even")
    want = [float(min(max(round(v), lo), hi) * unit) for v in exact]
    np.testing.assert_array_equal(even, np.asarray(want, np.float64).astype(kind))
    drawn = quant.fixed_point(x, wl, fl, seed=2**64 - 1)
    assert drawn.dtype == x.dtype
    down = np.array([float(min(max(math.floor(v), lo), hi) * unit) for v in exact]).astype(kind)
    up = np.array([float(min(max(math.ceil(v), lo), hi) * unit) for v in exact]).astype(kind)
    assert ((drawn == down) | (drawn == up)).all()


def test_what_is_drawn_is_the_contracts():
    x = np.random.default_rng(0).uniform(-7, 7, 5000).astype(np.float32)
    w = words(9, TAGS["rounding"], 0, np.zeros(x.size, np.uint64), np.arange(x.size, dtype=np.uint64))
    u = (w >> np.uint32(8)) * 2.0**-24
    v = np.clip(x * 4.0, -32, 31)
    r = np.trunc(v)
    want = np.where(u < np.abs(v - r), r + np.sign(v), r) / 4
    before = tersor.get_num_threads()
    try:
        for threads in (1, 2, 5):
            tersor.set_num_threads(threads)
            np.testing.assert_array_equal(quant.fixed_point(x, 6, 2, seed=9), want)
    finally:
        tersor.set_num_threads(before)
    big = np.full(400_000, 0.3, np.float32)
    y = quant.fixed_point(big, 8, 0, seed=1)
    assert set(np.unique(y)) == {0, 1} and abs(y.mean() - 0.3) < 5 * math.sqrt(0.21 / big.size)
    assert (quant.fixed_point(big, 8, 0, seed=2) != y).any()


def test_gradient_of_words():
    x = torch.tensor([-9.0, -8.2, -8.0, 0.3, 7.4, 7.6, 9.0, math.nan], requires_grad=True)
    for rounding in ("half_even", "stochastic"):
        y = quant.fixed_point(x, 4, 0, rounding=rounding)
        (dx,) = torch.autograd.grad(y.sum(), x)
        assert dx.tolist() == [0, 1, 1, 1, 1, 0, 0, 0]
    assert math.isnan(quant.fixed_point(x.detach(), 4, 0)[-1])
    out = x.detach().clone()
    assert quant.fixed_point(out, 4, 0, rounding="half_even", out=out) is out
    assert out.tolist()[:7] == [-8, -8, -8, 0, 7, 7, 7]


@pytest.mark.parametrize("kind", FLOATS)
def test_scales_by_powers_of_two(kind):
    s = np.abs(np.random.default_rng(0).normal(size=(40, 3))).astype(kind) + np.asarray(2.0**-10, kind)
    s[0], s[1] = s.max(), s.max() / np.asarray(8, kind)
    base, k = quant.pow2_scale(s)
    assert base == s.max() and base.dtype == s.dtype and k.dtype == np.int32 and (k >= 0).all()
    for v, n in zip(np.asarray(s, np.float64).ravel(), k.ravel(), strict=True):
        top = Fraction(float(base))
        assert top / 2 ** int(n) >= Fraction(float(v)) > top / 2 ** (int(n) + 1)
    assert k[0].tolist() == [0, 0, 0] and k[1].tolist() == [3, 3, 3]
    if kind != ml_dtypes.bfloat16:
        tb, tk = quant.pow2_scale(torch.from_numpy(s))
        assert tb == base and tk.dtype == torch.int32 and (tk.numpy() == k).all()
    for bad in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="pow2_scale: s must be positive and finite"):
            quant.pow2_scale(np.asarray([1.0, bad]))
    with pytest.raises(ValueError, match="pow2_scale: s is empty"):
        quant.pow2_scale(np.zeros(0))


def test_rows_by_their_mean_deviation():
    x = np.random.default_rng(0).normal(size=(5, 33)) * 10.0 ** np.arange(-3, 2)[:, None] + 3
    y = quant.l1_normalize(x)
    np.testing.assert_allclose(np.abs(y).mean(-1), 1, rtol=1e-13)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-11)
    np.testing.assert_allclose(quant.l1_normalize(4 * x - 7), y, atol=1e-9)
    flat = torch.full((2, 4), 3.0, requires_grad=True)
    z = quant.l1_normalize(flat)
    (d,) = torch.autograd.grad(z.sum(), flat)
    assert z.tolist() == d.tolist() == [[0] * 4] * 2
    t = torch.from_numpy(x).requires_grad_()
    assert torch.autograd.gradcheck(quant.l1_normalize, [t], eps=1e-8, atol=1e-5)
    with pytest.raises(ValueError, match="l1_normalize"):
        quant.l1_normalize(np.array(1.0))


def test_push_down_keeps_the_distribution():
    w = np.random.default_rng(0).normal(size=20_000).astype(np.float32) / 8
    wl, fl = quant.push_down(w)
    assert (wl, fl) == quant.push_down(torch.from_numpy(w))

    def divergence(wl, fl):
        ends = w.min(), w.max()
        p, q = (
            np.histogram(np.clip(v, *ends), 100, ends)[0] / w.size
            for v in (w, quant.fixed_point(w, wl, fl, rounding="half_even"))
        )
        with np.errstate(all="ignore"):
            return np.where(p > 0, p * np.log(p / q), 0).sum()

    assert divergence(wl, fl) <= 1e-3 < divergence(32, fl - 1)
    assert wl == fl + 1 or divergence(wl - 1, fl) > 1e-3
    long, short = quant.push_down(64 * w)
    assert long > short + 2 and short == max(fl - 6, 0)
    assert quant.push_down(w, threshold=0.1)[1] < fl
    coarse = np.random.default_rng(0).integers(-3, 4, 999).astype(np.float64)
    assert quant.push_down(coarse) == (3, 0)
    assert quant.push_down(np.full(5, 0.5)) == (2, 1)
    wl, fl = quant.push_down(w, kl="adapt_compat")
    assert 2 <= wl <= 32 and 0 <= fl < wl
    with pytest.raises(ValueError, match="push_down: w holds non-finite"):
        quant.push_down(np.array([1.0, np.nan]))


def test_push_up():
    # L = ln 10 - 1 = 1.302585: s1 = 1, s2 = min(ceil(54.3), 32) - 4 = 28
    assert quant.push_up(8, 4, diversity=10, strategy="min") == (13, 5)
    assert quant.push_up(8, 4, diversity=10, strategy="max") == (32, 24)
    assert quant.push_up(8, 4, diversity=10, strategy="mean") == (27, 19)
    # L <= 0: by one
    assert quant.push_up(8, 4, diversity=2.0) == quant.push_up(8, 4, diversity=2.0, strategy="max") == (13, 5)
    # L = ln 4 - 1 = 0.386: s1 = ceil(6.7) = 7, s2 = ceil(4.77) - 0 = 5
    assert quant.push_up(16, 0, diversity=4, strategy="min") == (17, 5)
    assert quant.push_up(16, 0, diversity=4, strategy="max") == (17, 7)
    assert quant.push_up(32, 32, diversity=4) == (32, 24)
    for match, call in [
        ("diversity must be positive", lambda: quant.push_up(8, 4, diversity=0)),
        ("strategy must be one of", lambda: quant.push_up(8, 4, diversity=2, strategy="most")),
        ("wl must lie within 2 and 32", lambda: quant.push_up(40, 4, diversity=2)),
        ("fl must lie within 0 and 32", lambda: quant.push_up(8, -1, diversity=2)),
    ]:
        with pytest.raises(ValueError, match=f"push_up: {match}"):
            call()


def test_what_is_refused():
    x = np.ones(3, np.float32)
    for match, call in [
        ("wl must lie within 2 and 32, got 1", lambda: quant.fixed_point(x, 1, 0)),
        ("fl must lie within -126 and 126, got 127", lambda: quant.fixed_point(x, 8, 127)),
        ("rounding must be one of", lambda: quant.fixed_point(x, 8, 4, rounding="up")),
        ("seed must be in", lambda: quant.fixed_point(x, 8, 4, seed=-1)),
    ]:
        with pytest.raises(ValueError, match=f"fixed_point: {match}"):
            call()
    with pytest.raises(TypeError, match="fixed_point: x must be"):
        quant.fixed_point(x.astype(np.int32), 8, 4)
