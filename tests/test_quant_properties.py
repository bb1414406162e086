"""Properties of the quantizers that the battery does not know, and the peers whose codes they reproduce."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import tersor
from hypothesis import given
from hypothesis import strategies as st
from tersor import quant
from tersor.quant import _plain as plain
from tersor.quant._arguments import code_range
from tersor.testing import EPS

FLOATS = ("float64", "float32", "float16")
DTYPES = [f"{u}int{b}" for u in ("", "u") for b in range(2, 9)]
SCHEMES = [f"{u}int{b}-{g}" for u in ("", "u") for b in (2, 3, 4, 7, 8) for g in ("row", "tensor", "g8")]


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def grains(x):
    k = x.shape[1]
    return [{}, {"axis": 0}, {"axis": 1}, {"axis": (0, 1)}, {"group": k // 2}]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_bound_range_and_idempotence(dtype, kind, symmetric):
    x = normal(6, 10, dtype=kind)
    lo, hi = code_range(dtype, "test")
    for grain in grains(x):
        s, z = quant.choose_qparams(x, dtype, symmetric=symmetric, **grain)
        assert s.dtype == (np.float64 if kind == "float64" else np.float32) and z.dtype == np.int32
        q = quant.quantize(x, s, z, dtype)
        assert q.min() >= lo and q.max() <= hi
        back = quant.dequantize(q, s, z)
        wide = plain.spread(s, x.shape).astype(np.float64)
        error = np.abs(x.astype(np.float64) - back)
        # an asymmetric range may end half a step short, by the rounding of its zero point
        reach = 0.5 if symmetric else 1.0
        assert (error <= reach * wide + 2 * EPS["float32"] * np.abs(x).astype(np.float64)).all()
        np.testing.assert_array_equal(quant.quantize(back, s, z, dtype), q)
        if symmetric:
            again = quant.quantize(back, *quant.choose_qparams(back, dtype, **grain), dtype)
            np.testing.assert_array_equal(again, q)
        assert (quant.dequantize(quant.quantize(np.zeros_like(x), s, z, dtype), s, z) == 0).all()


@pytest.mark.parametrize("rounding", ["half_even", "half_away", "toward_zero"])
@given(data=st.data())
def test_monotone(rounding, data):
    width = st.floats(-100, 100, width=32)
    x = np.sort(np.array(data.draw(st.lists(width, min_size=1, max_size=60)), np.float32))
    q = quant.quantize(x, data.draw(st.floats(1e-3, 10)), data.draw(st.integers(-5, 5)), "int5", rounding=rounding)
    assert (np.diff(q.astype(int)) >= 0).all()


def test_roundings_at_ties_and_beside_them():
    x = np.array([0.5, 1.5, -0.5, -1.5, 2.5, 0.49999997, -0.49999997, 1.4, -1.6], np.float32)
    for rounding, want in {
        "half_even": [0, 2, 0, -2, 2, 0, 0, 1, -2],
        "half_away": [1, 2, -1, -2, 3, 0, 0, 1, -2],
        "toward_zero": [0, 1, 0, -1, 2, 0, 0, 1, -1],
    }.items():
        assert quant.quantize(x, 1.0, rounding=rounding).tolist() == want


@pytest.mark.parametrize("kind", FLOATS)
def test_stochastic_rounding(kind):
    x = normal(3, 700, dtype=kind)
    s = np.asarray(0.3, np.float32)
    for seed in (0, 1, 2**64 - 1):
        got = quant.quantize(x, s, None, "int5", rounding="stochastic", seed=seed)
        np.testing.assert_array_equal(got, plain.codes(x, s, None, -16, 15, 0, 3, seed))
        whole = got.astype(np.float32) * s
        down = np.floor(plain.real(x) / s)
        inside = (down >= -16) & (down < 15)
        assert ((got == down) | (got == down + 1))[inside].all()
        assert whole.shape == x.shape
    a = quant.quantize(x, s, rounding="stochastic", seed=1)
    assert (a != quant.quantize(x, s, rounding="stochastic", seed=2)).any()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("layout", ["dense", "ct_dense"])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 31, 32, 33, 131])
@pytest.mark.parametrize("signed", [False, True])
def test_pack_and_unpack(bits, layout, n, signed):
    low = -(1 << bits - 1) if signed else 0
    kind = "int8" if signed else "uint8"
    q = np.random.default_rng(n).integers(low, low + (1 << bits), (3, n, 2)).astype(kind)
    for axis in (1, -2):
        w = quant.pack(q, bits, layout, axis=axis)
        word = 32 if layout == "ct_dense" else 8
        assert w.shape == (3, -(-n * bits // word), 2)
        np.testing.assert_array_equal(quant.unpack(w, bits, q.shape, layout, axis=axis, dtype=kind), q)


def test_ct_dense_is_what_compressed_tensors_packs():
    torch = pytest.importorskip("torch")
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    for bits in (4, 8):
        low = -(1 << bits - 1)
        q = np.random.default_rng(0).integers(low, -low, (5, 37)).astype(np.int8)
        want = helpers.pack_to_int32(torch.from_numpy(q), bits).numpy()
        np.testing.assert_array_equal(quant.pack(q, bits, "ct_dense"), want)
        np.testing.assert_array_equal(quant.unpack(want, bits, q.shape, "ct_dense"), q)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", FLOATS)
def test_encode_is_choose_quantize_pack(scheme, kind):
    x = normal(5, 24, seed=3, dtype=kind)
    x[1] = 0
    e = quant.encode(x, scheme)
    code, _, grain = scheme.partition("-")
    how = {"row": {"axis": 0}, "tensor": {}, "g8": {"group": 8}}[grain]
    affine = code.startswith("u")
    bits = int(code[-1])
    dtype = code if affine else (-(1 << bits - 1) + 1, (1 << bits - 1) - 1)
    s, z = quant.choose_qparams(x, dtype, symmetric=not affine, **how)
    q = quant.quantize(x, s, z if affine else None, dtype)
    np.testing.assert_array_equal(e.scale, s)
    np.testing.assert_array_equal(e.data, q if bits == 8 and not affine else quant.pack(q, bits))
    back = quant.decode(e)
    assert back.dtype == x.dtype and back.shape == x.shape
    np.testing.assert_array_equal(back, quant.dequantize(q, s, z if affine else None, dtype=kind))
    assert e.nbytes == sum(a.nbytes for a in (e.data, e.scale, e.zero_point) if a is not None)
    copy = pickle.loads(pickle.dumps(e))
    np.testing.assert_array_equal(quant.decode(copy), back)
    with pytest.raises(AttributeError):
        e.scheme = "int8-row"


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g8", "uint4-g8", "int8-tensor", "uint3-row"])
def test_encode_into(scheme):
    x, y = normal(6, 16), normal(6, 16, seed=9)
    want, e = quant.encode(y, scheme), quant.encode(x, scheme)
    assert quant.encode(y, scheme, out=e) is e
    for name in ("data", "scale", "zero_point"):
        np.testing.assert_array_equal(getattr(e, name), getattr(want, name))
    y[5, 15] = np.nan
    with pytest.raises(ValueError, match="non-finite"):
        quant.encode(y, scheme, out=e)
    for name in ("data", "scale", "zero_point"):  # nothing was changed
        np.testing.assert_array_equal(getattr(e, name), getattr(want, name))
    with pytest.raises(ValueError, match="out"):
        quant.encode(y[:3], scheme, out=e)
    with pytest.raises(TypeError, match="out"):
        quant.encode(y.astype(np.float64), scheme, out=e)


@pytest.mark.parametrize("nan", ["raise", "zero"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_quantize_into(library, nan):
    make = np.asarray if library == "numpy" else pytest.importorskip("torch").from_numpy
    x = normal(6, 16)
    want = quant.quantize(x, 0.1)
    out = make(np.full(x.shape, 99, np.int8))
    assert quant.quantize(make(x), 0.1, nan=nan, out=out) is out
    np.testing.assert_array_equal(np.asarray(out), want)
    for kind, wrong in [
        (TypeError, make(np.full(x.shape, 99, np.uint8))),
        (TypeError, None if nan == "zero" else "out"),
        (ValueError, make(np.full((6, 15), 99, np.int8))),
        (ValueError, make(np.full((16, 6), 99, np.int8)).T),
    ]:
        if wrong is not None:
            with pytest.raises(kind, match="quantize"):
                quant.quantize(make(x), 0.1, nan=nan, out=wrong)
            assert isinstance(wrong, str) or (np.asarray(wrong) == 99).all()


def test_non_finite():
    x = np.array([[1.0, np.nan, -np.inf, np.inf, 0.5]], np.float32)
    for call in (
        lambda: quant.quantize(x, 0.1),
        lambda: quant.quantize(x, 0.1, out=np.zeros(x.shape, np.int8)),
        lambda: quant.choose_qparams(x),
        lambda: quant.encode(x, "int8-row"),
    ):
        with pytest.raises(ValueError, match="non-finite"):
            call()
    s, _ = quant.choose_qparams(x, nan="zero")
    assert s == np.float32(1) / np.float32(127)
    assert quant.quantize(x, s, nan="zero").tolist() == [[127, 0, -128, 127, 64]]
    assert quant.encode(x, "int8-row", nan="zero").data.tolist() == [[127, 0, -127, 127, 64]]
    y = quant.fake_quantize(x, 0.1, None, "int4")
    assert np.isnan(y[0, 1]) and np.isfinite(np.delete(y, 1)).all()


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_zeros_and_denormals_have_codes(kind):
    tiny = np.finfo(kind).tiny
    x = np.array([[0, 0, 0], [tiny / 8, -tiny / 4, 0], [tiny, 0, -tiny]], kind)
    for scheme in ("int8-row", "uint8-row", "int4-row"):
        e = quant.encode(x, scheme)
        assert np.isfinite(e.scale).all() and (e.scale > 0).all() and e.scale[0] == tiny
        assert (np.abs(quant.decode(e) - x) <= e.scale / 2).all()


def test_threads_do_not_matter():
    x = normal(300, 257)
    before = tersor.get_num_threads()
    seen = set()
    try:
        for n in (1, 2, 5):
            tersor.set_num_threads(n)
            e = quant.encode(x, "int4-row")
            q = quant.quantize(x, 0.1, rounding="stochastic", seed=3)
            seen.add((e.data.tobytes(), e.scale.tobytes(), q.tobytes(), quant.decode(e).tobytes()))
    finally:
        tersor.set_num_threads(before)
    assert len(seen) == 1


def test_axes_and_layouts_commute():
    x = normal(6, 8)
    s, z = quant.choose_qparams(x, "uint4", axis=0, symmetric=False)
    q = quant.quantize(x, s, z, "uint4")
    t, u = quant.choose_qparams(x.T, "uint4", axis=1, symmetric=False)
    np.testing.assert_array_equal(t, s.T)
    np.testing.assert_array_equal(quant.quantize(x.T, t, u, "uint4"), q.T)
    np.testing.assert_array_equal(quant.quantize(np.asfortranarray(x), s, z, "uint4"), q)


def test_halving_the_scale_quarters_the_error():
    x = normal(1 << 18)
    inside = x[np.abs(x) < 3]
    errors = [
        np.mean((quant.fake_quantize(inside, s, None, "int8") - inside).astype(np.float64) ** 2) for s in (0.1, 0.05)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize(
    ("bits", "step", "mse"), [(2, 0.9957, 0.118846), (3, 0.5860, 0.0374397), (4, 0.3352, 0.0115429)]
)
def test_uniform_quantizer_of_a_normal(bits, step, mse):
    # Max (1960): an even number of levels around 0 is the grid moved by half a step
    x = normal(1 << 20, dtype="float64")
    half = step / 2
    y = quant.fake_quantize(x - half, step, None, f"int{bits}") + half
    assert np.mean((y - x) ** 2) == pytest.approx(mse, rel=0.01)


def test_what_is_refused():
    x = normal(4, 6)
    for call in (
        lambda: quant.choose_qparams(x, "int9"),
        lambda: quant.choose_qparams(x, axis=0, group=2),
        lambda: quant.choose_qparams(x, group=4),
        lambda: quant.choose_qparams(x, method="entropies"),
        lambda: quant.choose_qparams(x, compat="nobody"),
        lambda: quant.quantize(x, 0.0),
        lambda: quant.quantize(x, -1.0),
        lambda: quant.quantize(x, 1.0, 1 << 22),
        lambda: quant.quantize(x, 1.0, dtype=(-200, 10)),
        lambda: quant.quantize(x, 1.0, seed=-1),
        lambda: quant.quantize(x, np.ones((3, 1), np.float32)),
        lambda: quant.quantize(x, 1.0, rounding="up"),
        lambda: quant.fake_quantize(x, 1.0, grad="none"),
        lambda: quant.pack(np.full((2, 2), 16, np.uint8), 4),
        lambda: quant.pack(np.zeros((2, 2), np.uint8), 9),
        lambda: quant.pack(np.zeros((2, 2), np.uint8), 4, "gptq"),
        lambda: quant.unpack(np.zeros((2, 2), np.uint8), 4, (2, 7)),
        lambda: quant.encode(x, "int4-g4"),
        lambda: quant.encode(x, "int1-row"),
        lambda: quant.encode(x, "float8-row"),
        lambda: quant.encode(np.array(1, np.float32), "int8-row"),
    ):
        with pytest.raises(ValueError):
            call()
    for call in (
        lambda: quant.quantize([1.0], 1.0),
        lambda: quant.quantize(x.astype(int), 1.0),
        lambda: quant.dequantize(x, 1.0),
        lambda: quant.pack(x, 4),
        lambda: quant.unpack(np.zeros((2, 2), np.int32), 4, (2, 4)),
        lambda: quant.encode(x.astype(int), "int8-row"),
        lambda: quant.decode(x),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(np.exceptions.AxisError):
        quant.choose_qparams(x, axis=2)


# --- peers ---


@pytest.fixture
def ties():
    """Values with many ties of the scales below, and values around them."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.arange(-300, 300) / 8, rng.standard_normal(4000) * 8, [0.0, -0.0, 1e-30, 5e8]])
    return x[: x.size // 4 * 4].astype(np.float32).reshape(4, -1)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int4"])
@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16"])
def test_fake_quantize_is_torchs(ties, dtype, kind):
    torch = pytest.importorskip("torch")
    lo, hi = code_range(dtype, "test")
    x = torch.from_numpy(ties).to(getattr(torch, kind))
    x = torch.where(x.isfinite(), x, 0)
    for s, z in ((0.25, 0), (0.1, 3), (0.37, 5)):
        s = float(np.float32(s))  # torch rounds it, whatever the data
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        want = torch.fake_quantize_per_tensor_affine(a, s, z, lo, hi)
        got = quant.fake_quantize(b, s, z, dtype, compat="torch")
        least = torch.float32 if kind == "float64" else x.dtype  # torch multiplies float64 codes in float32
        assert torch.equal(got.to(least), want.to(least))
        want.double().square().sum().backward()
        got.double().square().sum().backward()
        assert torch.equal(a.grad.to(least), b.grad.to(least))
    if kind == "float32":
        scale = torch.tensor([0.25, 0.1, 0.37, 0.5])
        zero = torch.tensor([0, 3, 1, 2], dtype=torch.int32)
        x = x.clamp(-1e6, 1e6)  # torch wraps what does not fit 64 bits of codes
        want = torch.fake_quantize_per_channel_affine(x, scale, zero, 0, lo, hi)
        assert torch.equal(quant.fake_quantize(x, scale[:, None], zero[:, None], dtype, compat="torch"), want)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantize_is_torchs(ties, dtype):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(ties).clamp(-1e6, 1e6)
    kind = torch.qint8 if dtype == "int8" else torch.quint8
    for s, z in ((0.25, 0), (0.1, 3), (0.37, 5)):
        want = torch.quantize_per_tensor(x, s, z, kind).int_repr()
        assert torch.equal(quant.quantize(x, s, z, dtype, compat="torch"), want)
    scale, zero = torch.tensor([0.25, 0.1, 0.37, 0.5]), torch.tensor([0, 3, 1, 2])
    want = torch.quantize_per_channel(x, scale.double(), zero, 0, kind).int_repr()
    assert torch.equal(quant.quantize(x, scale[:, None], zero[:, None], dtype, compat="torch"), want)


def test_mask_is_torchs_at_the_ends():
    torch = pytest.importorskip("torch")
    x = torch.arange(-6, 6, 0.0625).requires_grad_()
    for lo, hi in ((-2, 1), (-1, 2), (0, 3)):
        for z in range(max(lo, 0), hi + 1):
            (want,) = torch.autograd.grad(torch.fake_quantize_per_tensor_affine(x, 1.0, z, lo, hi).sum(), x)
            (got,) = torch.autograd.grad(quant.fake_quantize(x, 1.0, z, (lo, hi)).sum(), x)
            assert torch.equal(got, want)


@pytest.mark.parametrize("grain", [(), (4, 1), (1, 9), (4, 3)])
def test_learned_scale_against_the_closed_form(grain):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(normal(4, 9, dtype="float64") * 5).requires_grad_()
    s = torch.full(grain, 0.7, dtype=torch.float64, requires_grad=True)
    z = torch.full(grain, 1.0, dtype=torch.float64, requires_grad=True)
    g = torch.from_numpy(normal(4, 9, seed=5, dtype="float64"))
    quant.fake_quantize(x, s, z, "int4", grad="lsq", grad_scale="lsq").backward(g)
    inside, to_s, to_z = plain.fake_slopes(x.detach().numpy(), s.detach().numpy(), z.detach().numpy(), -8, 7, 0)
    per_scale = x.numel() // max(s.numel(), 1)
    factor = 1 / np.sqrt(per_scale * 7)
    np.testing.assert_array_equal(x.grad.numpy(), np.where(inside, g.numpy(), 0))
    for got, slopes in ((s.grad, to_s), (z.grad, to_z)):
        np.testing.assert_allclose(
            got.numpy(), plain.gather(g.numpy() * slopes, grain) * factor, rtol=1e-12, atol=1e-14
        )


def test_observers_of_torch():
    torch = pytest.importorskip("torch")
    from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver

    x = torch.from_numpy(normal(5, 40))
    for symmetric in (True, False):
        scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
        watch = MinMaxObserver(dtype=torch.qint8, qscheme=scheme)
        watch(x)
        s, z = watch.calculate_qparams()
        got = quant.choose_qparams(x, "int8", symmetric=symmetric, compat="torch")
        assert torch.equal(got[0].reshape(1), s) and torch.equal(got[1].reshape(1), z.int())
        scheme = torch.per_channel_symmetric if symmetric else torch.per_channel_affine
        watch = PerChannelMinMaxObserver(dtype=torch.qint8, qscheme=scheme)
        watch(x)
        s, z = watch.calculate_qparams()
        got = quant.choose_qparams(x, "int8", axis=0, symmetric=symmetric, compat="torch")
        assert torch.equal(got[0].reshape(-1), s) and torch.equal(got[1].reshape(-1), z.int())


# --- torch ---


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g8", "uint4-g8", "uint5-tensor"])
def test_torch_in_torch_out(scheme):
    torch = pytest.importorskip("torch")
    x = normal(4, 16)
    t = torch.from_numpy(x).requires_grad_()
    a, b = quant.encode(x, scheme), quant.encode(t, scheme)
    for name in ("data", "scale", "zero_point"):
        p, q = getattr(a, name), getattr(b, name)
        assert (p is None and q is None) or np.array_equal(p, q.numpy())
    np.testing.assert_array_equal(quant.decode(a), quant.decode(b).numpy())
    out = torch.empty(4, 16)
    assert quant.decode(b, out=out) is out
    np.testing.assert_array_equal(out.numpy(), quant.decode(a))
    half = quant.encode(t.detach().bfloat16(), scheme)
    assert quant.decode(half).dtype == torch.bfloat16 and half.scale.dtype == torch.float32


def test_layer_moves_between_dtypes():
    torch = pytest.importorskip("torch")
    from tersor.nn import QuantLinear

    torch.manual_seed(0)
    layer = QuantLinear.from_float(torch.nn.Linear(32, 5), "int4-g8")
    x = torch.randn(3, 32)
    want = layer(x)
    with torch.no_grad():  # into the memory that layers share
        assert torch.equal(layer(x), want) and torch.equal(layer(x), want)
    scale = layer.scale.clone()
    layer.to(torch.bfloat16)
    assert torch.equal(layer.scale, scale), "scales keep their precision"
    y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16 and torch.allclose(y.float(), want, atol=0.1)
    layer.to(torch.float32)
    assert torch.allclose(layer(x), want, atol=0.01)


def test_layers_that_share_memory_keep_their_gradients():
    torch = pytest.importorskip("torch")
    from tersor.nn import QuantLinear

    torch.manual_seed(0)
    first = QuantLinear.from_float(torch.nn.Linear(16, 16), "int8-row")
    second = QuantLinear.from_float(torch.nn.Linear(16, 16), "int8-row")
    x = torch.randn(2, 16, requires_grad=True)
    second(first(x)).sum().backward()
    want = torch.ones(2, 16) @ second.weight @ first.weight
    assert torch.allclose(x.grad, want, atol=1e-5)


@pytest.mark.parametrize("scheme", ["int8-row", "int4-g4", "uint3-tensor"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_parts_that_do_not_fit_are_refused(scheme, library):
    make = np.asarray if library == "numpy" else pytest.importorskip("torch").from_numpy
    e = quant.encode(make(np.arange(32, dtype=np.float32).reshape(4, 8)), scheme)
    codes = e.data.astype(np.int16) if isinstance(e.data, np.ndarray) else e.data.short()
    for change, said in (
        ({"dtype": "int7"}, "dtype must be .* got 'int7'"),
        ({"shape": (4000, 8)}, r"data must have shape \(4000, "),
        ({"shape": (4, 16)}, "data must have shape"),
        ({"shape": ()}, "shape must have a last axis"),
        ({"scheme": "int5-row" if scheme != "int5-row" else "int6-row"}, "must have shape|zero_point"),
        ({"scheme": "int5"}, "scheme 'int5' is unknown"),
        ({"scheme": "int4-g3"}, "groups of 3 do not divide"),
        ({"zero_point": None if e.zero_point is not None else e.scale}, "zero_point"),
        ({"scale": e.scale[None]}, "scale must have shape"),
        ({"data": codes}, "data must be .*, got int16"),
    ):
        with pytest.raises(ValueError, match=f"decode: .*{said}|decode: {said}"):
            quant.decode(replace(e, **change))
    if library == "torch":
        from tersor.nn import QuantLinear

        with pytest.raises(ValueError, match="QuantLinear: data must have shape"):
            QuantLinear(replace(e, shape=(4000, 8)))
