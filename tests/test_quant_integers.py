"""Integer operators of vision transformers against Python's own integers, which have no width."""

import math

import numpy as np
import pytest
import tersor
from hypothesis import given
from hypothesis import strategies as st
from tersor import quant
from tersor._op import OPS

torch = pytest.importorskip("torch")

ONE = 2**31 - 1
#: what a GPU computes
PLAIN = {
    getattr(quant, k): OPS[f"quant.{k}"].reference for k in ("shift_exp", "shiftmax", "shift_gelu", "int_layernorm")
}
KINDS = [np.int8, np.uint8, np.int16, np.int32, np.int64]


def shift_exp(x, s, n):
    unit = -math.floor(-1 / s)
    x = x + x // 2 - x // 16
    x = max(x, -n * unit)
    p = x // -unit
    r = x + unit * p
    assert -unit < r <= 0
    return (r + 2 * unit) * 2 ** min(n - p, 200) // 2  # what is beyond 2^63 is held there anyway


def shiftmax(row, s, bits):
    e = [shift_exp(x - max(row), s, 15) for x in row]
    factor = ONE // min(sum(e), ONE)
    return [v * factor // 2 ** (32 - bits) for v in e]


def shift_gelu(row, s, bits):
    s, out = 1.702 * s, []
    for x in row:
        e, other = shift_exp(x - max(row), s, 23), shift_exp(-max(row), s, 23)
        out.append(x * (e * (ONE // min(e + other, ONE)) // 2 ** (32 - bits)))
    return out


def layernorm(row, newton):
    n, total = len(row), sum(row)
    mean = total // n
    over = 2 * (total - mean * n)
    mean += over > n or (over == n and mean % 2 == 1)
    v = sum((x - mean) ** 2 for x in row)
    k = 2**16
    for _ in range(10):
        k = (k + v // k) // 2
    k = k if newton else max(math.isqrt(v), 1)
    return [(x - mean) * (ONE // k) // 2 for x in row]


def both(f, q, *args, **kwargs):
    """NumPy's result, which torch, the plain formula and any number of threads give too."""
    got = f(q, *args, **kwargs)
    t = torch.from_numpy(q)
    np.testing.assert_array_equal(f(t, *args, **kwargs).numpy(), got)
    if f in PLAIN:
        args = [*args, *({"newton": True, "exact": False}[v] for v in kwargs.values())]
        np.testing.assert_array_equal(PLAIN[f](t, *args).numpy(), got)
        args = args[: len(args) - len(kwargs)]
    before = tersor.get_num_threads()
    try:
        for threads in (1, 3):
            tersor.set_num_threads(threads)
            np.testing.assert_array_equal(f(q, *args, **kwargs), got)
    finally:
        tersor.set_num_threads(before)
    return got


@st.composite
def rows(draw):
    kind = draw(st.sampled_from(KINDS))
    wide = np.iinfo(np.int32 if kind == np.int64 else kind)
    bound = draw(st.sampled_from([1, 7, 127, 2**15, 2**20, 2**31 - 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(1, 1), (3, 2), (2, 197), (5, 33)]))
    return rng.integers(max(-bound, wide.min), min(bound, wide.max), shape, np.int64, endpoint=True).astype(kind)


scales = st.one_of(st.floats(1e-3, 2.0), st.sampled_from([1e-6, 0.1, 1.0, 100.0, 2.0**-31, 1 / 3]))


@given(rows(), scales, st.integers(1, 31))
def test_shift_exp(q, s, n):
    want = [[min(shift_exp(int(x), s, n), 2**63 - 1) for x in row] for row in q]
    got = both(quant.shift_exp, q, s, n)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, np.array(want, np.int64))


@given(rows(), scales, st.integers(2, 16))
def test_shiftmax(q, s, bits):
    got = both(quant.shiftmax, q, s, bits)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, [shiftmax([int(x) for x in row], s, bits) for row in q])


@given(rows(), scales, st.integers(2, 16))
def test_shift_gelu(q, s, bits):
    want = [shift_gelu([int(x) for x in row], s, bits) for row in q]
    if max(abs(v) for row in want for v in row) > 2**31 - 1:
        with pytest.raises(ValueError, match=r"shift_gelu: a result of -?\d+ does not fit 32 bits"):
            quant.shift_gelu(q, s, bits)
        return
    np.testing.assert_array_equal(both(quant.shift_gelu, q, s, bits), want)


@given(rows(), st.booleans())
def test_int_layernorm(q, newton):
    if max(sum((int(x) - round(sum(map(int, row)) / len(row))) ** 2 for x in row) for row in q) >= 2**63:
        for f in (quant.int_layernorm, PLAIN[quant.int_layernorm]):
            with pytest.raises(ValueError, match=r"the squares of a row sum to 2\^63 or more"):
                f(q)
        return
    got = both(quant.int_layernorm, q, root="newton" if newton else "exact")
    np.testing.assert_array_equal(got, [layernorm([int(x) for x in row], newton) for row in q])


@given(rows(), st.integers(-1000, 1000))
def test_layernorm_does_not_see_an_even_shift(q, shift):
    wide = q.astype(np.int64) // 4
    np.testing.assert_array_equal(quant.int_layernorm(wide + 2 * shift), quant.int_layernorm(wide))


@given(rows(), st.floats(1e-12, 1e6), st.sampled_from(["int8", "uint8", "int4", "int16", "int32"]))
def test_requantize(z, ratio, dtype):
    m, e = quant.dyadic(ratio)
    assert 2**30 <= m <= 2**31
    assert abs(m / 2.0**e - ratio) <= ratio * 2.0**-31
    bits = int(dtype.strip("uint"))
    lo, hi = (0, 2**bits - 1) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    def rne(p, e):
        if e <= 0:
            return p << -e
        floor, left = p >> e, p & (2**e - 1)
        return floor + (left > 2 ** (e - 1) or (left == 2 ** (e - 1) and floor % 2 == 1))

    got = both(quant.requantize, z, m, e, dtype)
    assert got.dtype == np.dtype({"int4": "int8"}.get(dtype, dtype))
    np.testing.assert_array_equal(got, [[min(max(rne(int(x) * m, e), lo), hi) for x in row] for row in z])
    exact = np.asarray(z, np.float64) * ratio
    inside = (exact > lo) & (exact < hi)
    assert (np.abs(got - exact)[inside] <= 0.5 + 2.0**-31 * np.abs(exact)[inside] + 1e-6).all()


def test_a_factor_for_each_column():
    ratio = np.array([0.5, 0.013, 2.0], np.float64)
    m, e = quant.dyadic(ratio)
    z = np.array([[3, 100, -7], [5, -100, 70]], np.int32)
    np.testing.assert_array_equal(quant.requantize(z, m, e), [[2, 1, -14], [2, -1, 127]])
    for j in range(3):
        np.testing.assert_array_equal(
            quant.requantize(z, m, e)[:, j], quant.requantize(z[:, j].copy(), int(m[j]), int(e[j]))
        )
    tm, te = quant.dyadic(torch.from_numpy(ratio))
    assert tm.tolist() == m.tolist() and te.tolist() == e.tolist()
    assert quant.requantize(torch.from_numpy(z), tm, te).tolist() == [[2, 1, -14], [2, -1, 127]]


def test_what_they_stand_for():
    """In the ranges that the documentation names they are softmax, GELU and layer normalization."""
    rng = np.random.default_rng(0)
    q = rng.integers(-127, 128, (64, 197), np.int8)
    s = 6 / 127
    x = q * s
    soft = np.exp(x - x.max(-1, keepdims=True))
    soft /= soft.sum(-1, keepdims=True)
    assert np.abs(quant.shiftmax(q, s, 16) / 2.0**15 - soft).max() < 0.01
    assert np.abs(quant.shiftmax(q, s) / 2.0**7 - soft).max() < 0.024
    gelu = x / (1 + np.exp(-1.702 * x))
    assert (np.abs(quant.shift_gelu(q, s) * s / 2.0**7 - gelu) <= 0.04 * np.abs(x) + 0.06).all()
    norm = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    assert np.abs(quant.int_layernorm(q) * math.sqrt(197) / 2.0**30 - norm).max() < 0.02


def test_what_is_refused():
    q = np.zeros((2, 3), np.int32)
    for error, match, call in [
        (TypeError, "shiftmax: q must be", lambda: quant.shiftmax(q.astype(np.float32), 0.1)),
        (ValueError, "shift_exp: s must be finite", lambda: quant.shift_exp(q, 0.0)),
        (ValueError, "shift_exp: n must lie within 1 and 31, got 32", lambda: quant.shift_exp(q, 0.1, 32)),
        (ValueError, "shiftmax: bits must lie within 2 and 16, got 1", lambda: quant.shiftmax(q, 0.1, 1)),
        (ValueError, "int_layernorm: root must be one of", lambda: quant.int_layernorm(q, root="fast")),
        (ValueError, "shiftmax: integers of 32 bits are taken, got", lambda: quant.shiftmax(q + np.int64(2**40), 0.1)),
        (ValueError, "dyadic: ratio must be positive and finite", lambda: quant.dyadic(0.0)),
        (
            ValueError,
            "requantize: .*2 and 2 factors",
            lambda: quant.requantize(q, np.ones(2, np.int64), np.ones(2, int)),
        ),
        (ValueError, "requantize: m must lie within", lambda: quant.requantize(q, 2**40, 3)),
        (TypeError, "requantize: m must be", lambda: quant.requantize(q, 0.5, 3)),
    ]:
        with pytest.raises(error, match=match):
            call()


def published(kind, q, s, bits):
    """I-ViT's quant_modules.py on integers, as it stands there but for its names."""
    x, s = q.float(), torch.tensor(s, dtype=torch.float32)

    def exp(x, s, n):
        x = x + (x / 2).floor() - (x / 2**4).floor()
        x0 = (-1.0 / s).floor()
        x = torch.max(x, n * x0)
        q = (x / x0).floor()
        r = x - x0 * q
        return ((r / 2 - x0) * 2 ** (n - q)).floor().clamp(min=0)

    if kind == "int_layernorm":
        mean = x.mean(axis=-1, keepdim=True).round()
        y = x - mean
        squares = torch.sum(y**2, axis=-1, keepdim=True)
        k = 2**16
        for _ in range(10):
            k = ((k + (squares / k).floor()) / 2).floor()
        return (y * ((2**31 - 1) / k).floor() / 2).floor()
    top = x.max(dim=-1, keepdim=True)[0]
    if kind == "shiftmax":
        e = exp(x - top, s, 15)
        total = e.sum(dim=-1, keepdim=True).clamp_max(2**31 - 1)
        return (e * ((2**31 - 1) / total).floor() / 2 ** (31 - bits + 1)).floor()
    e, other = exp(x - top, s * 1.702, 23), exp(-top, s * 1.702, 23)
    total = (e + other).clamp_max(2**31 - 1)
    return x * (e * ((2**31 - 1) / total).floor() / 2 ** (31 - bits + 1)).floor()


@pytest.mark.parametrize("kind", ["shiftmax", "shift_gelu", "int_layernorm"])
@pytest.mark.parametrize("s", [0.004, 0.03, 0.11, 0.7])
def test_the_simulation_is_that_of_the_published_code(kind, s):
    rng = np.random.default_rng(0)
    f, given = getattr(quant, kind), () if kind == "int_layernorm" else (s, 8)
    for n, bound in ((1, 127), (197, 127), (384, 127), (64, 2**15)):
        q = torch.from_numpy(rng.integers(-bound, bound, (50, n)).astype(np.int32))
        got = f(q, *given, compat="ivit_f32")
        assert got.dtype == torch.int32 and got.shape == q.shape
        assert torch.equal(got.double(), published(kind, q, s, 8).double())
        # of NumPy the same but for the order of sums, and close to what is exact
        own = f(q.numpy(), *given, compat="ivit_f32")
        assert own.dtype == np.int32 and (own == got.numpy()).mean() > 0.95
        exact = f(q, *given).double()
        one = {"shiftmax": 1, "shift_gelu": bound, "int_layernorm": 1 + 1e-5 * float(exact.abs().max())}[kind]
        if kind != "shift_gelu" or s >= 0.03:  # below, the reciprocal of a GELU's exponentials has few digits
            assert (got.double() - exact).abs().max() <= 2 * one


def test_what_the_simulation_does_not_take():
    q = np.ones((2, 4), np.int8)
    with pytest.raises(ValueError, match="shiftmax: compat must be"):
        quant.shiftmax(q, 0.1, compat="ivit")
    with pytest.raises(ValueError, match="int_layernorm: compat='ivit_f32' goes with root='newton'"):
        quant.int_layernorm(q, root="exact", compat="ivit_f32")
    with pytest.raises(TypeError, match="shift_gelu: q must be"):
        quant.shift_gelu(q.astype(np.float32), 0.1, compat="ivit_f32")
    for far in (np.array([[2**40, 1]]), torch.tensor([[-(2**31) - 1, 1]])):
        with pytest.raises(ValueError, match="shiftmax: integers of 32 bits are taken"):
            quant.shiftmax(far, 0.1, compat="ivit_f32")
    for shape in ((), (2, 0)):
        with pytest.raises(ValueError, match="shiftmax: compat='ivit_f32' takes rows"):
            quant.shiftmax(np.ones(shape, np.int8), 0.1, compat="ivit_f32")
    assert quant.shiftmax(np.ones((0, 3), np.int8), 0.1, compat="ivit_f32").shape == (0, 3)
    for wide in (np.array([[2**20, 5]]), torch.tensor([[2**20, 5]])):  # not held silently at the end of int32
        for compat in (None, "ivit_f32"):
            with pytest.raises(ValueError, match=r"shift_gelu: a result .*does not fit 32 bits: scale q down"):
                quant.shift_gelu(wide, 0.01, 16, compat=compat)
    q32 = torch.tensor([[2**16, 5]])  # within int32 still
    assert quant.shift_gelu(q32, 0.01, 15, compat="ivit_f32")[0, 0] == published("shift_gelu", q32, 0.01, 15)[0, 0]
    same = quant.shiftmax(np.full((1, 4), 9, np.int8), 0.1, compat="ivit_f32")
    np.testing.assert_array_equal(same, [[31, 31, 31, 31]])
