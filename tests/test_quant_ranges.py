"""Ranges that leave out a little: exact where order decides, the least where a loss does. The one rule: each method is held to
its definition, written here in NumPy once more, and to the worth that it claims.
"""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from tersor import quant
from tersor.quant._ranges import CLIPS

GRAINS = [{}, {"axis": 0}, {"axis": 1}, {"group": 50}]


def data(rows=6, columns=400, seed=0, kind=np.float32):
    rng = np.random.default_rng(seed)
    return (rng.standard_t(3, (rows, columns)) * 10.0 ** np.arange(-2, rows - 2)[:, None]).astype(kind)


def parts(x, grain):
    """The elements of each scale, and the shape of the scales."""
    if "group" in grain:
        return x.reshape(-1, grain["group"]), (len(x), x.shape[1] // grain["group"])
    if "axis" in grain:
        kept = grain["axis"]
        return np.moveaxis(x, kept, 0).reshape(x.shape[kept], -1), tuple(
            n if i == kept else 1 for i, n in enumerate(x.shape)
        )
    return x.reshape(1, -1), ()


@pytest.mark.parametrize("grain", GRAINS, ids=str)
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("percentile", [99.0, 75.3, 100])
def test_percentile(grain, kind, percentile):
    x = data(kind=kind)
    rows, shape = parts(x.astype(np.float64), grain)
    s, z = quant.choose_qparams(x, "int8", method="percentile", percentile=percentile, **grain)
    compute = np.float64 if kind == np.float64 else np.float32
    reach = np.quantile(np.abs(rows), percentile / 100, axis=1).astype(compute)
    np.testing.assert_allclose(s, (reach / compute(127)).reshape(shape), rtol=4 * np.finfo(compute).eps)
    s, z = quant.choose_qparams(x, "uint8", method="percentile", percentile=percentile, symmetric=False, **grain)
    low, high = (
        np.quantile(rows, q / 100, axis=1).clip(*ends)
        for q, ends in ((100 - percentile, (None, 0)), (percentile, (0, None)))
    )
    np.testing.assert_allclose(s, ((high - low) / 255).reshape(shape), rtol=8 * np.finfo(compute).eps)
    assert (np.abs(z - (-low / s.reshape(-1)).reshape(shape)) <= 0.51).all()


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("magnitude", [True, False])
def test_long_rows_are_ranked_by_their_bits(kind, magnitude):
    """Rows long enough for histograms of digits: spread, of few numbers, and with numbers of the same leading digits."""
    rng = np.random.default_rng(1)
    for x in (
        rng.standard_normal(300_001),
        rng.integers(-3, 4, 200_000) / 4,
        1 + rng.random(150_000) / 1e4,
        np.zeros(140_000),
    ):
        x = x.astype(kind)
        want = np.quantile(np.abs(x.astype(np.float64)), 0.997)
        if magnitude:
            s, _ = quant.choose_qparams(x, "int8", method="percentile", percentile=99.7)
            want = want / 127 or np.finfo(np.float64 if kind == np.float64 else np.float32).tiny
        else:
            s, _ = quant.choose_qparams(x, "uint8", method="percentile", percentile=99.7, symmetric=False)
            low, high = (np.quantile(x.astype(np.float64), q) for q in (0.003, 0.997))
            want = (max(high, 0) - min(low, 0)) / 255 or np.finfo(np.float64 if kind == np.float64 else np.float32).tiny
        np.testing.assert_allclose(s, want, rtol=1e-6)


def test_percentile_has_no_largest_size():
    n = (1 << 24) + 3  # torch.quantile takes 2^24
    x = (np.arange(n, dtype=np.int64) * 7919 % n).astype(
        np.float32
    )  # 0 to n - 1, of which float32 holds the even ones beyond 2^24
    s, _ = quant.choose_qparams(x, (0, 1), method="percentile", percentile=75, symmetric=False)
    assert s == np.float32((n - 1) * 0.75)


@pytest.mark.parametrize("method", ["percentile", "entropy", "aciq", "mse"])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_what_is_not_finite(method, kind):
    for n in (300, 200_000):
        x = np.random.default_rng(2).standard_normal(n).astype(kind)
        bare = quant.choose_qparams(x, "int4", method=method)[0]
        odd = np.concatenate([x, np.array([np.nan, np.inf, -np.inf, np.inf], kind)])
        with pytest.raises(ValueError, match="finite"):
            quant.choose_qparams(odd, "int4", method=method)
        np.testing.assert_allclose(quant.choose_qparams(odd, "int4", method=method, nan="zero")[0], bare, rtol=1e-6)
    for x in (np.zeros((2, 4), kind), np.zeros((0, 4), kind), np.full((2, 4), np.inf, kind)):
        s, _ = quant.choose_qparams(x, "int4", axis=0, method=method, nan="zero")
        assert np.isfinite(s).all() and (s > 0).all()


def entropy(rows, levels):
    """The threshold of the GTC slides, bin by bin."""
    found = []
    for row in np.abs(rows.astype(np.float64)):
        most = row.max()
        h = np.bincount(np.minimum((row / most * 2048).astype(int), 2047), minlength=2048).astype(float)
        best, at = math.inf, 2048
        for i in range(2048, levels - 1, -1):
            p = h[:i].copy()
            if not p.any():
                continue
            p[np.flatnonzero(p)[-1]] += h[i:].sum()
            q = np.zeros(i)
            for j in range(levels):
                part = slice(j * i // levels, (j + 1) * i // levels)
                some = h[part] > 0
                if some.any():
                    q[part][some] = h[part].sum() / some.sum()
            p, q = p / p.sum(), q / q.sum()
            loss = float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())
            if loss < best - 1e-9:
                best, at = loss, i
        found.append(most * at / 2048)
    return np.array(found)


@pytest.mark.parametrize("bits", [4, 8])
def test_entropy(bits):
    x = data(3, 5000)
    s, _ = quant.choose_qparams(x, f"int{bits}", axis=0, method="entropy")
    np.testing.assert_allclose(s[:, 0] * (2 ** (bits - 1) - 1), entropy(x, 2 ** (bits - 1)), rtol=1e-6)
    # what lies on one side of 0 has all codes
    s, z = quant.choose_qparams(np.abs(x), f"uint{bits}", axis=0, method="entropy", symmetric=False)
    np.testing.assert_allclose(s[:, 0] * (2**bits - 1), entropy(x, 2**bits), rtol=1e-6)
    assert (z == 0).all()


def test_entropy_leaves_out_what_is_alone():
    x = np.concatenate([np.random.default_rng(3).standard_normal(20_000), [1000.0]]).astype(np.float32)
    s, _ = quant.choose_qparams(x, "int8", method="entropy")
    assert 127 * s < 100
    even = np.linspace(-1, 1, 20_001, dtype=np.float32)
    assert 127 * quant.choose_qparams(even, "int8", method="entropy")[0] > 0.99


@pytest.mark.parametrize("distribution", ["gauss", "laplace"])
def test_clips_lose_least(distribution):
    """The constants are where what is rounded off and what is cut off sum to the least, by a grid of thousandths."""
    far = np.linspace(0.5, 12, 11501)
    for bits in range(2, 9):
        if distribution == "laplace":
            cut = 2 * np.exp(-far)
        else:
            beyond = np.array([math.erfc(a / math.sqrt(2)) for a in far])
            cut = (far**2 + 1) * beyond - far * np.sqrt(2 / np.pi) * np.exp(-(far**2) / 2)
        best = far[np.argmin(cut + far**2 / (3 * 4**bits))]
        assert abs(CLIPS[distribution][bits - 2] - best) < 2e-3


@pytest.mark.parametrize("grain", GRAINS, ids=str)
@pytest.mark.parametrize("distribution", ["gauss", "laplace"])
def test_aciq(grain, distribution):
    x = data()
    rows, shape = parts(x.astype(np.float64), grain)
    mean = rows.mean(1)
    off = rows - mean[:, None]
    far = np.abs(off).mean(1) if distribution == "laplace" else np.sqrt((off * off).mean(1))
    reach = far * CLIPS[distribution][2]
    low, high = (
        np.maximum(np.minimum(mean - reach, 0), rows.min(1).clip(None, 0)),
        np.minimum(np.maximum(mean + reach, 0), rows.max(1).clip(0)),
    )
    s, _ = quant.choose_qparams(x, "uint4", symmetric=False, method="aciq", distribution=distribution, **grain)
    np.testing.assert_allclose(s, ((high - low) / 15).reshape(shape), rtol=1e-5)
    s, _ = quant.choose_qparams(x, "int4", method="aciq", distribution=distribution, **grain)
    np.testing.assert_allclose(s, (np.maximum(-low, high) / 7).reshape(shape), rtol=1e-5)
    with pytest.raises(ValueError, match="method='aciq' has clips for 2 to 8 bits, got 12 codes"):
        quant.choose_qparams(x, (0, 11), method="aciq")


@pytest.mark.parametrize("grain", GRAINS, ids=str)
@pytest.mark.parametrize("norm", [2.0, 2.4, 1.0])
def test_mse_has_a_norm(grain, norm):
    x = data()
    whole, zero = quant.choose_qparams(x, "int4", symmetric=False, **grain)
    s, same = quant.choose_qparams(x, "int4", symmetric=False, method="mse", norm=norm, **grain)
    np.testing.assert_array_equal(zero, same)
    tried = []
    for i in range(20):
        t = (whole * np.float32(1 - 0.025 * i)).astype(np.float32)
        d = np.abs(x - quant.dequantize(quant.quantize(x, t, zero, "int4"), t, zero)).astype(np.float64) ** norm
        tried.append(parts(d, grain)[0].sum(1).reshape(whole.shape))
    best = np.argmin(tried, 0)
    np.testing.assert_allclose(s, whole * (1 - 0.025 * best), rtol=1e-6)


def test_fewer_codes_clip_more_and_lose_less():
    x = np.random.default_rng(4).standard_normal((4, 4096)).astype(np.float32)

    def loss(method, **options):
        s, z = quant.choose_qparams(x, "int4", axis=0, method=method, **options)
        return float(((quant.fake_quantize(x, s, z, "int4") - x) ** 2).mean())

    full = loss("minmax")
    assert loss("mse") < 0.9 * full and loss("aciq") < 0.9 * full and loss("percentile", percentile=99.9) < full


@pytest.mark.parametrize("method", ["percentile", "entropy", "aciq", "mse"])
def test_threads_tensors_and_traces_give_the_same(method):
    x = torch.from_numpy(data(4, 70_000))
    for grain in ({}, {"axis": 0}, {"group": 100}):
        torch._dynamo.reset()

        def f(x, grain=grain):
            return quant.choose_qparams(x, "int4", method=method, symmetric=False, **grain)

        want = quant.choose_qparams(x.numpy(), "int4", method=method, symmetric=False, **grain)
        for got in (f(x), torch.compile(f, fullgraph=True, backend="eager")(x)):
            for a, b in zip(got, want, strict=True):
                np.testing.assert_array_equal(a.numpy(), b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 50}, "percentile must lie above 50 and be at most 100, got 50"),
        ({"percentile": 100.5}, "percentile must lie above 50 and be at most 100, got 100.5"),
        ({"percentile": math.nan}, "percentile must lie above 50"),
        ({"norm": 0}, "norm must be positive and finite, got 0"),
        ({"norm": math.inf}, "norm must be positive and finite, got inf"),
        ({"distribution": "cauchy"}, "distribution must be one of gauss, laplace, got 'cauchy'"),
        ({"method": "kl"}, "method must be one of"),
        ({"method": "percentile", "compat": "torch"}, "compat='torch' has no method='percentile'"),
    ],
)
def test_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=f"choose_qparams: {message}"):
        quant.choose_qparams(np.ones(3, np.float32), **options)


@pytest.mark.parametrize("dtype", ["uint1", (-8, 0), (-9, -5), (3, 4)])
def test_symmetric_codes_have_two_sides(dtype):
    for method in ("minmax", "percentile", "entropy", "mse"):
        with pytest.raises(ValueError, match="choose_qparams: symmetric scales need codes on both sides"):
            quant.choose_qparams(np.arange(3.0), dtype, method=method)
    scale, _ = quant.choose_qparams(np.arange(3.0), dtype, symmetric=False)
    assert 0 < scale < np.inf
