"""Quantizers: equality with torch bit for bit, error bounds, order, idempotence, packing, encoding, bad input."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tersor import quant

NAMES = [f"int{b}" for b in range(2, 9)] + [f"uint{b}" for b in range(1, 9)]


def data(rows=12, columns=256, dtype=np.float32, seed=0):
    x = np.random.default_rng(seed).standard_normal((rows, columns)) * 10.0 ** np.arange(-3, rows - 3)[:, None] / 1e3
    return x.astype(dtype)


def code_range(name):
    bits = int(name.lstrip("uint"))
    return (0, 2**bits - 1) if name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("grain", [{}, {"axis": 0}, {"axis": 1}, {"group": 32}], ids=str)
def test_error_bound_order_and_idempotence(name, symmetric, grain):
    x = data()
    if name == "uint1" and symmetric:
        pytest.skip("one bit has no symmetric range")
    scale, zero = quant.choose_qparams(x, name, symmetric=symmetric, **grain)
    q = quant.quantize(x, scale, zero, name)
    lo, hi = code_range(name)
    assert q.dtype == (np.int8 if lo < 0 else np.uint8)
    assert q.min() >= lo and q.max() <= hi
    y = quant.dequantize(q, scale, zero)
    if not (symmetric and lo == 0):  # an unsigned symmetric range is one code short above
        per = np.repeat(scale, 32, -1) if "group" in grain else scale
        assert (np.abs(x - y) <= 0.5 * per * (1 + 1e-5) + 2 * np.spacing(np.abs(x))).all()
    np.testing.assert_array_equal(quant.quantize(y, scale, zero, name), q)
    order = np.argsort(x[0], kind="stable")
    if "axis" not in grain or grain["axis"] == 0:
        first = q[0][order] if "group" not in grain else q[0][np.argsort(x[0][:32])]
        head = first if "group" not in grain else q[0][:32][np.argsort(x[0][:32], kind="stable")]
        assert (np.diff(head.astype(int)) >= 0).all()


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e3), st.integers(-128, 127))
def test_torch_bit_for_bit(seed, scale, zero):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    s = np.float32(scale)
    x = (rng.standard_normal(300) * 50 * s).astype(np.float32)
    x[:60] = (rng.integers(-300, 300, 60) / 2 * s).astype(np.float32)  # ties
    t = torch.from_numpy(x)
    want = torch.quantize_per_tensor(t, float(s), zero, torch.qint8).int_repr().numpy()
    np.testing.assert_array_equal(quant.quantize(x, s, np.int32(zero), (-128, 127), compat="torch"), want)
    fake = torch.fake_quantize_per_tensor_affine(t, float(s), zero, -128, 127).numpy()
    got = quant.fake_quantize(x, s, np.int32(zero), (-128, 127), compat="torch")
    np.testing.assert_array_equal(got, fake)


def test_gradient_is_torchs_mask():
    torch = pytest.importorskip("torch")
    x = torch.linspace(-3, 3, 1001, requires_grad=True)
    scale, zero = torch.tensor(0.31), torch.tensor(1, dtype=torch.int32)
    for name, lo, hi in (("int2", -2, 1), ("int4", -8, 7)):
        ours = torch.autograd.grad(quant.fake_quantize(x, scale, zero, name).sum(), x)[0]
        theirs = torch.autograd.grad(torch.fake_quantize_per_tensor_affine(x, 0.31, 1, lo, hi).sum(), x)[0]
        assert torch.equal(ours, theirs)


def test_stochastic_rounding_is_fair_and_repeatable():
    x = np.full(200_000, 0.3, np.float32)
    q = quant.quantize(x, 1.0, None, "int8", rounding="stochastic", seed=5)
    assert set(np.unique(q)) == {0, 1}
    assert abs(q.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)
    np.testing.assert_array_equal(q, quant.quantize(x, 1.0, None, "int8", rounding="stochastic", seed=5))
    assert (q != quant.quantize(x, 1.0, None, "int8", rounding="stochastic", seed=6)).any()
    whole = np.arange(-100, 100, dtype=np.float32)
    np.testing.assert_array_equal(quant.quantize(whole, 1.0, None, "int8", rounding="stochastic"), whole)


@given(st.integers(1, 8), st.integers(0, 130), st.integers(0, 2**32 - 1))
def test_pack_and_back(bits, n, seed):
    q = np.random.default_rng(seed).integers(0, 2**bits, (3, n)).astype(np.uint8)
    w = quant.pack(q, bits)
    np.testing.assert_array_equal(quant.unpack(w, bits, q.shape), q)
    if n:  # by the definition: bit i of a row is bit i mod 8 of byte i div 8, and what is left over is 0
        stream = (q[:, :, None] >> np.arange(bits)).reshape(3, -1) & 1
        np.testing.assert_array_equal(w, np.packbits(stream, -1, bitorder="little"))


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g128", "uint4-g128", "int3-g64"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_encode_is_choose_and_quantize(scheme, dtype):
    x = data(5, 256, dtype)
    e = quant.encode(x, scheme)
    y = quant.decode(e)
    assert y.dtype == x.dtype and y.shape == x.shape
    code, _, grain = scheme.partition("-")
    keep = {"axis": 0} if grain == "row" else {"group": int(grain[1:])}
    scale, zero = quant.choose_qparams(x, code, symmetric=code[0] != "u", **keep)
    want = quant.dequantize(quant.quantize(x, scale, zero, code), scale, zero)
    np.testing.assert_array_equal(y, want.astype(dtype))
    again = pickle.loads(pickle.dumps(e))
    np.testing.assert_array_equal(quant.decode(again), y)


def test_zeros_denormals_and_empty():
    for x in (np.zeros((2, 128), np.float32), np.full((2, 128), 1e-45, np.float32), np.zeros((0, 128), np.float32)):
        for scheme in ("int8-row", "int4-g128"):
            assert np.isfinite(quant.decode(quant.encode(x, scheme))).all()
    assert quant.quantize(np.zeros(0, np.float32), 1.0).size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error_and_changes_nothing(bad):
    x = data()
    x[3, 7] = bad
    out = np.full(x.shape, 99, np.int8)
    with pytest.raises(ValueError, match="finite"):
        quant.quantize(x, 1.0, None, "int8", out=out)
    assert (out == 99).all()
    for call in (lambda: quant.choose_qparams(x), lambda: quant.encode(x, "int8-row"), lambda: quant.quantize(x, 1.0)):
        with pytest.raises(ValueError, match="finite"):
            call()
    q = quant.quantize(x, 1.0, None, "int8", nan="zero")
    assert q[3, 7] == (0 if np.isnan(bad) else 127 if bad > 0 else -128)


def test_bad_arguments_are_named():
    x = data()
    for call, error in (
        (lambda: quant.choose_qparams(x, group=100), ValueError),
        (lambda: quant.choose_qparams(x, axis=0, group=32), ValueError),
        (lambda: quant.choose_qparams(x, "int9"), ValueError),
        (lambda: quant.quantize(x, np.ones((5, 1), np.float32)), ValueError),
        (lambda: quant.quantize(x, 0.0), ValueError),
        (lambda: quant.quantize(x, -1.0), ValueError),
        (lambda: quant.quantize(x, np.nan), ValueError),
        (lambda: quant.quantize(x.astype(np.int32), 1.0), TypeError),
        (lambda: quant.encode(x, "int4-g100"), ValueError),
        (lambda: quant.encode(x, "nonsense"), ValueError),
        (lambda: quant.quantize(x, 1.0, rounding="up"), ValueError),
    ):
        with pytest.raises(error):
            call()


@pytest.mark.parametrize("library", [np.asarray, lambda x: __import__("torch").as_tensor(x)])
@pytest.mark.parametrize(("dtype", "zero"), [("int8", 128), ("int8", -129), ("uint4", 16), ("uint8", -1), ("int4", 9)])
def test_a_zero_point_that_is_no_code_is_refused(library, dtype, zero):
    x = library(np.ones((2, 3), np.float32))
    for z in (zero, library(np.full((2, 1), zero, np.int32))):
        with pytest.raises(ValueError, match="quantize: zero_point must lie within"):
            quant.quantize(x, 0.5, z, dtype)
    q = library(np.ones((2, 3), np.int8))
    with pytest.raises(ValueError, match="dequantize: zero_point must lie within"):
        quant.dequantize(q, 0.5, 200)


def test_masked_arrays_are_refused():
    x = np.ma.masked_array(np.ones((2, 4), np.float32), np.eye(2, 4))
    for call in (lambda: quant.encode(x, "int8-row"), lambda: quant.quantize(x, 0.5), lambda: quant.choose_qparams(x)):
        with pytest.raises(TypeError, match="MaskedArray"):
            call()


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g8", "uint8-row", "uint4-row", "int8-tensor"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_denormals_come_back(scheme, dtype, library):
    import torch

    unit = np.finfo(dtype).smallest_subnormal
    for k in (1, 2, 3, 100, 127, 190, 191, 600, 1000):
        x = (np.array([[k, -k, 0, k // 2, 1, -1, k // 3, -(k // 4)]]) * unit.astype(np.float64)).astype(dtype)
        e = quant.encode(x if library == "numpy" else torch.from_numpy(x), scheme)
        y, s = np.asarray(quant.decode(e)), np.asarray(e.scale, np.float64)
        half = 0.5 * s.max() * (1 + 1e-6) + 0.5 * float(unit)  # and the rounding of a denormal that is stored
        assert np.abs(y.astype(np.float64) - x.astype(np.float64)).max() <= half, (k, x, y)
        s, _ = quant.choose_qparams(
            x if library == "numpy" else torch.from_numpy(x), scheme.partition("-")[0], symmetric=scheme[0] == "i"
        )
        assert np.isfinite(np.asarray(s)).all() and (np.asarray(s) > 0).all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_was_finite_comes_back_finite(dtype, library):
    import ml_dtypes
    import torch

    most = float(ml_dtypes.finfo(dtype).max)
    x = np.array([[most, -most, 0.0, 0.3 * most]]).astype(dtype)
    if library == "torch":
        x = torch.tensor(x.astype(np.float64)).to(getattr(torch, dtype))

    def finite(y, step):
        y, wanted = (np.asarray(v.double() if library == "torch" else v, np.float64) for v in (y, x))
        assert np.isfinite(y).all()
        assert (np.abs(y - wanted) <= np.max(np.asarray(step, np.float64))).all()

    for scheme in ("int8-row", "uint8-row", "uint4-row", "uint1-row", "int3-row", "uint8-tensor"):
        e = quant.encode(x, scheme)
        finite(quant.decode(e), e.scale)
    for compat in (None, "torch", "ct") if "64" in dtype or "32" in dtype else (None,):
        if compat:  # the peers subtract before they divide, and have no scale of what is beyond their type
            with pytest.raises(ValueError, match=f"compat='{compat}' has no finite scale"):
                quant.choose_qparams(x, "uint8", symmetric=False, compat=compat)
            continue
        s, z = quant.choose_qparams(x, "uint8", symmetric=False)
        finite(quant.dequantize(quant.quantize(x, s, z, "uint8"), s, z, dtype=dtype), s)
        for grad in ("ste", "lsq"):
            finite(quant.fake_quantize(x, s, z, "uint8", grad=grad), s)
