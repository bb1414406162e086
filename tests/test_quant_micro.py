"""Microscaled integers. The one rule: codes are the nearest 64ths of the power of two that the largest element asks for."""

import math

import ml_dtypes
import numpy as np
import pytest
from tersor import quant

torch = pytest.importorskip("torch")
KINDS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
SCALINGS = ("floor", "even", "ceil", "rceil")


def power(amax, scaling):
    """k of the scale 2^k, by the words of the documentation, in exact numbers."""
    if amax == 0:
        return -127
    k = math.frexp(amax)[1] - 1  # floor of the logarithm
    v = math.ldexp(amax, -k)
    if scaling == "even":  # rounded to six digits, away from 0 between two
        k += math.floor(v * 64 + 0.5) == 128
    elif scaling == "ceil":
        k += v > 1
    elif scaling == "rceil":
        k += v > 127 / 64
    return min(max(k, -127), 127)


def rows(dtype):
    rng = np.random.default_rng(0)
    edges = [
        1.0,
        127 / 64,
        np.nextafter(127 / 64, 2),
        2 - 1 / 128,
        np.nextafter(2.0, 0),
        2.0,
        0.0,
        5e-324,
        1e-45,
        1e-39,
        3e-38,
    ]
    edges += [6e4] + ([3.3e38, 2.0**127] if dtype not in (np.float16,) else [])
    x = rng.uniform(-1, 1, (len(edges) + 4, 64))
    x[: len(edges)] *= np.array(edges)[:, None]
    x[: len(edges), [0, 32]] = np.array(edges)[:, None]
    x[len(edges) :] *= 10.0 ** np.arange(-3, 1)[:, None]
    with np.errstate(over="ignore", under="ignore"):
        x = x.astype(dtype)
    assert np.isfinite(x.astype(float)).all()
    return x


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("dtype", KINDS)
def test_scales_and_codes(dtype, scaling):
    x = rows(dtype)
    e = quant.encode(x, "mxint8", scaling=scaling)
    assert (e.scheme, e.data.dtype, e.scale.dtype, e.scale.shape) == ("mxint8", np.int8, np.uint8, (len(x), 2))
    wide = x.astype(np.float64).reshape(len(x), 2, 32)
    k = np.array([[power(float(np.abs(g).max()), scaling) for g in row] for row in wide])
    np.testing.assert_array_equal(e.scale, k + 127)
    unit = np.ldexp(1.0, k - 6)[..., None]
    with np.errstate(over="ignore", under="ignore"):
        want = np.clip(np.rint(wide / unit), -127, 127)
        np.testing.assert_array_equal(e.data.reshape(wide.shape), want)
        numbers = (want * unit).reshape(x.shape).astype(dtype)
        np.testing.assert_array_equal(quant.decode(e), numbers)
    lost = np.abs(wide - want * unit)
    cut = {"floor": 1, "even": 0.5, "ceil": 1, "rceil": 0.5}[scaling]  # of a step: what is beyond 127 of them
    assert (lost <= np.where(np.abs(wide) > 127 * unit, cut, 0.5) * unit).all()
    t = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if dtype == ml_dtypes.bfloat16 else torch.from_numpy(x)
    same = quant.encode(t, "mxint8", scaling=scaling)
    assert torch.equal(same.data, torch.from_numpy(e.data)) and torch.equal(same.scale, torch.from_numpy(e.scale))
    assert quant.decode(same).dtype == t.dtype
    np.testing.assert_array_equal(quant.decode(same).double().numpy(), numbers.astype(float))


def test_signs_and_what_is_coded_twice():
    x = rows(np.float32)
    e, other = quant.encode(x, "mxint8"), quant.encode(-x, "mxint8")
    np.testing.assert_array_equal(other.data, -e.data)
    again = quant.encode(quant.decode(e), "mxint8")
    np.testing.assert_array_equal(quant.decode(again), quant.decode(e))
    assert quant.encode(x, "mxint8-row").scale.shape == (len(x), 1)
    assert quant.encode(x[0], "mxint8-row").scale.shape == (1,) and quant.encode(x, "mxint8-g16").scale.shape == (
        len(x),
        4,
    )
    for shape in ((0, 64), (3, 0)):
        e = quant.encode(np.zeros(shape, np.float32), "mxint8-row")
        assert (e.scale == 0).all() and quant.decode(e).shape == shape


def test_what_is_not_finite_and_what_is_overwritten():
    x = np.linspace(-1, 1, 64, dtype=np.float32)[None].copy()
    x[0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match=r"^encode: x holds non-finite"):
        quant.encode(x, "mxint8")
    e = quant.encode(x, "mxint8", nan="zero")
    assert e.data[0, :3].tolist() == [0, 127, -127] and e.scale.tolist() == [[126, 127]]
    out = quant.encode(np.zeros_like(x), "mxint8")
    assert quant.encode(x, "mxint8", nan="zero", out=out) is out
    np.testing.assert_array_equal(out.data, e.data)
    np.testing.assert_array_equal(out.scale, e.scale)
    with pytest.raises(ValueError, match=r"encode: mxint8 reaches 3.4\d*e\+38, x holds 1e\+300"):
        quant.encode(np.full((1, 32), 1e300), "mxint8")
    for options, said in (
        ({"scale": 1.0}, "a scale goes with int schemes"),
        ({"method": "mse"}, "chooses scales of integer schemes"),
        ({"compat": "torch"}, "goes with codes of integers"),
        ({"compat": "bnb"}, "goes with nf4"),
        ({"nested": True}, "nested goes with"),
    ):
        with pytest.raises(ValueError, match=f"encode: .*{said}"):
            quant.encode(np.ones((1, 32), np.float32), "mxint8", **options)
    for wrong in ("mxint8-tensor", "mxint8-nested", "mxint4", "umxint8"):
        with pytest.raises(ValueError, match="is unknown"):
            quant.encode(np.ones((1, 32), np.float32), wrong)
    with pytest.raises(ValueError, match="integers, with scales of their own"):
        quant.calibrate(torch.nn.Linear(32, 4), [torch.ones(2, 32)], "mxint8-row-gptq")


@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("release", [False, True])
def test_layers_multiply_them(activations, release):
    from tersor import nn as tnn

    torch.manual_seed(0)
    linear, x = torch.nn.Linear(96, 24), torch.randn(5, 96)
    layer = tnn.QuantLinear.from_float(linear, "mxint8", activations, release=release)
    assert layer.panels is not None
    rounded = x
    if activations == "int8":
        s = x.abs().amax(1, keepdim=True) / 127
        rounded = (x / s).round() * s
    want = torch.nn.functional.linear(rounded.double(), layer.weight.double(), linear.bias.double())
    torch.testing.assert_close(layer(x).double(), want, rtol=1e-5, atol=1e-5)
    empty = tnn.QuantLinear.empty(96, 24, "mxint8", activations=activations)
    empty.load_state_dict(layer.state_dict())
    assert torch.equal(empty(x), layer(x))
    table = tnn.QuantEmbedding.from_float(torch.nn.Embedding(7, 64), "mxint8")
    assert torch.equal(table(torch.arange(7)), table.weight)
    model = torch.nn.Sequential(torch.nn.Linear(100, 4), torch.nn.Linear(64, 4))
    assert tnn.convert(model, "mxint8", activations=activations, fallback=True).smaller == {"0": "mxint8-row"}


def test_files_of_integers_do_not_take_their_scales(tmp_path):
    from tersor.jobs.containers import Codes

    with pytest.raises(ValueError, match=r"w: mxint8 of \(1, 32\) is no matrix of integers"):
        Codes.of("w", quant.encode(np.ones((1, 32), np.float32), "mxint8"))


def test_traced():
    x = torch.from_numpy(rows(np.float32))
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def both(x):
        e = quant.encode(x, "mxint8")
        return e.data, e.scale, quant.decode(e)

    e = quant.encode(x, "mxint8")
    for got, want in zip(both(x), (e.data, e.scale, quant.decode(e)), strict=True):
        assert torch.equal(got, want)
