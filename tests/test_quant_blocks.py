"""Codebooks, microscaling and GGUF blocks: hand cases, the definition, properties, and the peers that are installed."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tersor import quant
from tersor.quant._grids import SMALL, TABLES

MICRO = {
    "mxfp4": "e2m1",
    "mxfp6_e2m3": "e2m3",
    "mxfp6_e3m2": "e3m2",
    "mxfp8_e4m3": "e4m3",
    "mxfp8_e5m2": "e5m2",
}
GGUF = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q8_0": 34, "gguf_mxfp4": 17}
SCHEMES = [
    "nf4",
    "fp4",
    "dynamic8",
    "nf4-row",
    "fp4-g32",
    "dynamic8-g16",
    "nf4-nested",
    "dynamic8-g16-nested",
    *MICRO,
    "mxfp4-g16",
    "mxint8",
    "nvfp4",
    *GGUF,
]
SCALINGS = ("floor", "even", "ceil", "rceil")


def normal(rows=6, last=128, seed=0, dtype=np.float32):
    """Rows of very different size; zeros, a row of them, and numbers of one size among them."""
    x = np.random.default_rng(seed).standard_normal((rows, last)) * 10.0 ** np.arange(-2, rows - 2)[:, None]
    x[0, ::7] = 0
    x[1] = 0
    x[2, :64] = np.sign(x[2, :64]) * 0.75
    return x.astype(dtype)


def groups(x, n):
    return x.reshape(*x.shape[:-1], -1, n)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_there_and_back(scheme, dtype):
    x = normal(dtype=dtype)
    if scheme in GGUF and dtype == np.float64:
        with pytest.raises(TypeError, match="is made of float32"):
            quant.encode(x, scheme)
        return
    e = quant.encode(x, scheme)
    assert (e.scheme, e.shape, e.dtype) == (scheme, x.shape, np.dtype(dtype).name)
    assert e.nbytes == sum(v.nbytes for v in e.parts.values())
    y = quant.decode(e)
    assert y.dtype == x.dtype and y.shape == x.shape and (y[1] == 0).all()
    # the numbers of a code have the same code again, scales made anew, where no scale is rounded to another type
    # (the least number of dynamic8 is -0.993: a scale that a negative number made is not made again)
    if (
        scheme not in ("nvfp4", "q4_0", "q4_1", "q5_0", "q8_0")
        and not scheme.startswith("dynamic8")
        and "nested" not in scheme
    ):
        np.testing.assert_array_equal(quant.decode(quant.encode(y, scheme)), y)
    t = quant.encode(torch.from_numpy(x.astype(np.float64)).to(getattr(torch, np.dtype(dtype).name)), scheme)
    for k, v in e.parts.items():
        np.testing.assert_array_equal(np.asarray(t.parts[k]), v)
    assert torch.equal(quant.decode(t).double(), torch.from_numpy(y.astype(np.float64)))
    same = quant.encode(np.zeros_like(x), scheme)
    assert quant.encode(x, scheme, nan="zero", out=same) is same
    for k, v in e.parts.items():
        np.testing.assert_array_equal(same.parts[k], v)
    x[3, 5] = np.inf
    with pytest.raises(ValueError, match="encode: x holds non-finite"):
        quant.encode(x, scheme, out=same)
    for k, v in e.parts.items():
        np.testing.assert_array_equal(same.parts[k], v)
    assert np.isfinite(quant.decode(quant.encode(x, scheme, nan="zero")).astype(np.float64)).all()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("block", [None, 32, 128])
def test_no_number_of_a_table_is_nearer(name, block):
    x = normal(dtype=np.float64)
    e = quant.encode(x, name, block=block)
    assert e.scheme == (name if block is None else f"{name}-g{block}")
    s = np.abs(groups(x, block or 64)).max(-1)
    np.testing.assert_array_equal(e.scale, s)
    s = np.repeat(s, block or 64, -1)
    y, table = quant.decode(e), TABLES[name].astype(np.float64)
    apart = np.abs(x[..., None] - table * s[..., None])
    assert (np.abs(x - y) <= apart.min(-1) * (1 + 1e-12)).all()


@pytest.mark.parametrize("scheme", ["nf4", "fp4-g32", "dynamic8", "nf4-g8"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_scales_that_are_coded(scheme, dtype, library):
    x = library(np.random.default_rng(2).standard_normal((9, 256)).astype(dtype))
    plain, e = quant.encode(x, scheme), quant.encode(x, scheme, nested=True)
    assert e.scheme == scheme + "-nested" and (np.asarray(e.data) == np.asarray(plain.data)).all()
    s = np.asarray(plain.scale, np.float64).ravel()
    mean, over = float(e.outer[0]), np.asarray(e.outer[1:], np.float64)
    assert abs(mean - s.mean()) < 1e-6 and len(over) == -(-s.size // 256)
    runs = [s[i : i + 256] - mean for i in range(0, s.size, 256)]
    np.testing.assert_allclose(over, [np.abs(r).max() for r in runs], rtol=1e-5)
    # scales are the nearest of their run's numbers
    codes = np.asarray(e.scale).ravel()
    for i, r in enumerate(runs):
        table = TABLES["dynamic8"].astype(np.float64) * over[i]
        mine = table[codes[256 * i : 256 * i + len(r)]]
        assert (np.abs(mine - r) <= np.abs(r[:, None] - table).min(1) + 1e-6 * over[i]).all()
    y, want = (np.asarray(quant.decode(v), np.float64) for v in (e, plain))
    assert 0 < np.abs(y - want).max() < 0.03
    assert quant.encode(x, scheme + "-nested").scheme == e.scheme
    again = quant.encode(-x, scheme, nested=True)
    assert quant.encode(x, scheme, nested=True, out=again) is again
    assert (np.asarray(quant.decode(again)) == np.asarray(quant.decode(e))).all()
    empty = quant.encode(x[:0], scheme, nested=True)
    assert quant.decode(empty).shape == (0, 256)
    for wrong in ("int8-row", "mxfp4", "q4_0"):
        with pytest.raises(ValueError, match="nested goes with"):
            quant.encode(np.asarray(x, np.float32), wrong, nested=True)
    with pytest.raises(ValueError, match="is unknown"):
        quant.encode(x, "mxfp4-nested")


def test_nf4_by_hand():
    # max|x| = 2: quotients 1, -1, 0, 0.05 (nearer to .0796 than to 0), 0.0397 (nearer to 0), -.9, and the tie of two numbers
    tie = TABLES["nf4"][12:14].astype(np.float64).mean()
    x = np.array([[2, -2, 0, 0.1, 0.0794, -1.8, 2 * tie, 2 * np.nextafter(tie, 1)]])
    e = quant.encode(x, "nf4", block=8)
    assert quant.unpack(e.data, 4, x.shape).tolist() == [[15, 0, 7, 8, 7, 0, 12, 13]]
    assert e.scale.tolist() == [[2.0]]
    assert quant.decode(e)[0, 3] == 2 * TABLES["nf4"][8].astype(np.float64)
    # the same between two float32, neither of which is the tie
    for v, code in (
        (np.float32(tie), 12 + (np.float32(tie) > tie)),
        (np.nextafter(np.float32(tie), np.float32(1)), 13),
    ):
        x = np.array([[1, v]], np.float32)
        assert quant.unpack(quant.encode(x, "nf4-row").data, 4, x.shape).tolist() == [[15, code]]


def test_fp4_by_hand():
    # twelfths of max|x|: 12, 8, 6, 4, 3, 2, 1/16, 0; the code of 0 is 0, never 8
    x = np.array([[12, -8, 6, -4, 3, -2, 0.0625, -0.0625, 0, -0.01, 0.01, 10.1, 9.9, -7.1, 0.03, -0.03]], np.float32)
    q = quant.unpack(quant.encode(x, "fp4", block=16).data, 4, x.shape).tolist()
    assert q == [[3, 10, 5, 12, 7, 14, 1, 9, 0, 0, 0, 3, 2, 10, 0, 0]]
    peer = quant.unpack(quant.encode(x, "fp4", block=16, compat="bnb").data, 4, x.shape).tolist()
    assert peer == [[3, 10, 5, 12, 7, 14, 1, 9, 0, 0, 8, 3, 2, 10, 8, 0]]


def test_mxfp4_by_hand():
    # max|x| = 7: floor has 2^0 and cuts 7 off to 6; the others 2^1
    x = np.zeros((1, 32), np.float32)
    x[0, :8] = 7, -5, 0.25, 0.26, -0.0, 2.5, 3.5, 1.75
    for scaling, exponent, want in (
        ("floor", 127, [6, -4, 0, 0.5, 0, 2, 4, 2]),
        ("even", 128, [8, -4, 0, 0, 0, 2, 4, 2]),
        ("ceil", 128, [8, -4, 0, 0, 0, 2, 4, 2]),
        ("rceil", 128, [8, -4, 0, 0, 0, 2, 4, 2]),
    ):
        e = quant.encode(x, "mxfp4", scaling=scaling)
        assert e.scale.tolist() == [[exponent]]
        assert quant.decode(e)[0, :8].tolist() == want
    assert e.data[0, 2] >> 0 & 15 == 8  # the sign of -0


@pytest.mark.parametrize("scheme", MICRO)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_micro_is_a_scale_and_small_floats(scheme, scaling, dtype):
    x, small = normal(rows=9, dtype=dtype), SMALL[MICRO[scheme]]
    x[7] *= 1e-42 / 1e5
    x[8] = np.finfo(np.float32).max / 3
    e = quant.encode(x, scheme, scaling=scaling)
    amax = np.abs(groups(x, 32)).max(-1)
    s = np.ldexp(1.0, e.scale.astype(int) - 127)
    with np.errstate(divide="ignore"):
        up, down = np.ceil(np.log2(amax / small.most)), np.floor(np.log2(amax)) - small.reach
        want = {"floor": down, "ceil": np.ceil(np.log2(amax)) - small.reach, "rceil": up}.get(scaling)
    if want is not None:
        np.testing.assert_array_equal(e.scale, np.clip(want, -127, 127) + 127)
    q = quant.unpack(e.data, small.bits, x.shape)
    each = np.repeat(s, 32, -1)
    np.testing.assert_array_equal(q, quant.float_encode((x / each).astype(dtype), MICRO[scheme]))
    np.testing.assert_array_equal(
        quant.decode(e), (quant.float_decode(q, MICRO[scheme], dtype="float64") * each).astype(dtype)
    )
    lost = {"floor": {"e2m1": 0.25, "e4m3": 0.125, "e2m3": 1 / 16, "e3m2": 0.125, "e5m2": 0.125}[MICRO[scheme]]}
    if scaling != "even":
        seen = amax > 1e-30
        assert (amax <= s * small.most / (1 - lost.get(scaling, 0)) * (1 + 1e-6))[seen].all()


def test_nvfp4_is_two_scales():
    x = normal(rows=4)
    e = quant.encode(x, "nvfp4")
    outer = np.float32(np.abs(x).max()) / np.float32(2688)
    assert e.outer == outer and e.outer.shape == ()
    amax = np.abs(groups(x, 16)).max(-1)
    inner = quant.float_encode(amax / np.float32(6) / outer, "e4m3")
    np.testing.assert_array_equal(e.scale, np.maximum(inner, 1))
    s = np.repeat(quant.float_decode(e.scale, "e4m3") * outer, 16, -1)
    q = quant.unpack(e.data, 4, x.shape)
    np.testing.assert_array_equal(q, quant.float_encode(x / s, "e2m1"))
    np.testing.assert_array_equal(quant.decode(e), quant.float_decode(q, "e2m1") * s)


def test_gguf_by_hand():
    x = np.zeros((1, 32), np.float32)
    x[0, :4] = -8, 7, 0.5, -0.5
    x[0, 16:19] = 3, 8, -7.75
    d = np.array([1], "<f2").view(np.uint8).tolist()
    # -8 comes first, so the scale is 1; 0.5 is 8.5 + .5 = 9, -0.5 is 8; 8 is cut off to 15; -7.75 is 0
    low, high = [0, 15, 9, 8] + [8] * 12, [11, 15, 0] + [8] * 13
    want = d + [a | b << 4 for a, b in zip(low, high, strict=True)]
    assert quant.encode(x, "q4_0").data.tolist() == [want]
    e = quant.encode(x * 127 / 8, "q8_0")
    assert e.data[0, :8].tolist() == [*d, 129, 111, 8, 248, 0, 0] and e.data[0, 18:21].tolist() == [48, 127, 133]
    # 8 = 2^3: scale 2^(3 - 2), stored as 128, numbers of halves of that; a tie goes to the smaller, and nothing is -0
    e = quant.encode(x, "gguf_mxfp4")
    assert e.data[0, :5].tolist() == [128, 14 | 3 << 4, 5 | 6 << 4, 0 | 14 << 4, 0]
    assert quant.decode(e)[0, :4].tolist() == [-8, 6, 0, 0] and quant.decode(e)[0, 16:19].tolist() == [3, 8, -8]


def test_a_scale_that_is_no_half_is_refused():
    with pytest.raises(ValueError, match="encode: x holds numbers so large"):
        quant.encode(np.full((1, 32), 1e7, np.float32), "q4_0")


@given(st.integers(0, 2**32 - 1), st.sampled_from(SCHEMES))
def test_rows_do_not_see_each_other(seed, scheme):
    x = normal(seed=seed, rows=5)
    e, one = quant.encode(x, scheme), quant.encode(x[2:3], scheme)
    if scheme != "nvfp4" and "nested" not in scheme:
        np.testing.assert_array_equal(quant.decode(e)[2:3], quant.decode(one))


def test_bad_arguments_are_named():
    x = normal()
    e = quant.encode(x, "nf4")
    for call, text in (
        (lambda: quant.encode(x, "nf4", block=48), "groups of 48 do not divide"),
        (lambda: quant.encode(x, "nf4-g32", block=32), "says itself how many"),
        (lambda: quant.encode(x, "int4-g32", block=32), "says itself how many"),
        (lambda: quant.encode(x, "nf4-tensor"), "is unknown"),
        (lambda: quant.encode(x, "mxfp5"), "is unknown"),
        (lambda: quant.encode(x, "q4_0", block=64), "has 32 elements"),
        (lambda: quant.encode(x[:, :48], "q4_0"), "groups of 32 do not divide"),
        (lambda: quant.encode(x, "nf4", scaling="even"), "scaling='even' goes with mx schemes"),
        (lambda: quant.encode(x, "nvfp4", scaling="even"), "scaling='even' goes with mx schemes"),
        (lambda: quant.encode(x, "mxfp4", scaling="up"), "scaling must be one of"),
        (lambda: quant.encode(x, "mxfp4", compat="bnb"), "compat='bnb' goes with nf4, fp4 and dynamic8"),
        (
            lambda: quant.encode(x, "nf4", compat="gguf"),
            "compat='gguf' goes with q4_0, q4_1, q5_0, q8_0 and gguf_mxfp4",
        ),
        (lambda: quant.encode(x, "int8-row", compat="gguf"), "compat='gguf' goes with q4_0"),
        (lambda: quant.encode(x, "nf4", out=quant.encode(x, "fp4")), "out is fp4"),
        (lambda: quant.decode(quant.Encoded(e.data, None, None, "nf4", e.shape, e.dtype)), "nf4 has a scale"),
        (lambda: quant.decode(quant.Encoded(e.data, e.scale, None, "nvfp4", e.shape, e.dtype)), "nvfp4 has an outer"),
        (
            lambda: quant.decode(quant.Encoded(e.data, e.scale, None, "mxfp4-g64", e.shape, e.dtype)),
            "scale must be uint8",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            call()


# --- peers ---


@pytest.mark.parametrize("scheme", GGUF)
def test_gguf_bytes(scheme):
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType[scheme.upper().removeprefix("GGUF_")]
    x = normal(rows=6, last=1024, seed=3) / 100
    x[3] = np.round(x[3] * 40) / 8
    want = gguf.quantize(x, kind)
    for compat in (None, "gguf"):
        np.testing.assert_array_equal(quant.encode(x, scheme, compat=compat).data, want)
    e = quant.Encoded(want, None, None, scheme, x.shape, "float32")
    assert quant.decode(e).tobytes() == gguf.dequantize(want, kind).tobytes()


@pytest.mark.parametrize("name", ["nf4", "fp4"])
@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitsandbytes_codes(name, block, dtype):
    functional = pytest.importorskip("bitsandbytes.functional")
    x = torch.from_numpy(normal(rows=6, last=512, seed=4)).to(dtype)
    packed, state = functional.quantize_4bit(x, blocksize=block, quant_type=name)
    e = quant.encode(x, name, block=block, compat="bnb")
    assert torch.equal(e.scale.reshape(-1), state.absmax.float())
    q = quant.unpack(e.data, 4, tuple(x.shape))
    assert torch.equal(quant.pack(q, 4, "bnb").reshape(-1), packed.reshape(-1))
    assert torch.equal(quant.unpack(packed.reshape(6, -1), 4, tuple(x.shape), "bnb"), q)
    if name == "nf4":
        assert torch.equal(quant.decode(e), functional.dequantize_4bit(packed, state).reshape(x.shape))


@pytest.mark.parametrize("block", [64, 256])
def test_bitsandbytes_dynamic8_and_nested(block):
    functional = pytest.importorskip("bitsandbytes.functional")
    np.testing.assert_array_equal(functional.create_dynamic_map().numpy(), TABLES["dynamic8"])
    x = torch.from_numpy(normal(rows=6, last=1024, seed=4))
    codes, state = torch.ops.bitsandbytes.quantize_blockwise.default(x, functional.create_dynamic_map(), block)
    e = quant.encode(x, "dynamic8", block=block, compat="bnb")
    assert torch.equal(e.scale.reshape(-1), state)
    # its kernel of the CPU looks codes up by 16 bits: a few are not the nearest, and zeros become other numbers
    assert (e.data != codes)[x != 0].float().mean() < 0.002
    assert (quant.decode(e) == 0)[x == 0].all()
    x = torch.randn(4, 16384, generator=torch.Generator().manual_seed(0))
    packed, state = functional.quantize_4bit(x, blocksize=block, quant_type="nf4", compress_statistics=True)
    e = quant.encode(x, "nf4", block=block, compat="bnb", nested=True)
    torch.testing.assert_close(e.outer[0], state.offset, rtol=1e-6, atol=0)
    torch.testing.assert_close(e.outer[1:], state.state2.absmax, rtol=1e-6, atol=0)
    assert (e.scale.reshape(-1) != state.absmax).float().mean() < 0.005
    back = functional.dequantize_4bit(packed, state)
    torch.testing.assert_close(quant.decode(e), back.reshape(x.shape), rtol=1e-2, atol=1e-4 * float(x.abs().max()))


@pytest.mark.parametrize("scheme", MICRO)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_torchao_scales_and_codes(scheme, scaling):
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    kinds = {"mxfp4": torch.float4_e2m1fn_x2, "mxfp8_e4m3": torch.float8_e4m3fn, "mxfp8_e5m2": torch.float8_e5m2}
    x = torch.from_numpy(normal(rows=6, last=512, seed=5))
    x[5] *= 1e30
    small = SMALL[MICRO[scheme]]
    kind = kinds.get(scheme, f"fp6_{MICRO[scheme]}")
    scale, codes = mx.to_mx(x, kind, 32, getattr(mx.ScaleCalculationMode, scaling.upper()))
    e = quant.encode(x, scheme, scaling=scaling)
    there = x.reshape(6, -1, 32).abs().amax(-1) > 0
    assert torch.equal(e.scale[there], scale.reshape(e.scale.shape).view(torch.uint8)[there])
    codes = codes.view(torch.uint8).reshape(6, -1)
    codes = quant.unpack(codes, 4, tuple(x.shape)) if small.bits == 4 else codes
    assert torch.equal(quant.unpack(e.data, small.bits, tuple(x.shape)), codes)
