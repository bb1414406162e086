"""Files of GPTQ and AWQ are read as their writers packed them, code by code."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tersor import FormatError, quant
from tersor.convert import load, load_encoded


def stream(codes, bits):
    """The codes of a column, one after another from the lowest bit of the first word."""
    words = np.zeros(-(-len(codes) * bits // 32), np.uint64)
    for i, q in enumerate(int(q) for q in codes):
        word, bit = divmod(i * bits, 32)
        words[word] |= np.uint64(q << bit & 0xFFFFFFFF)
        if bit + bits > 32:
            words[word + 1] |= np.uint64(q >> 32 - bit)
    return words.astype(np.uint32).view(np.int32)


def interleaved(row):
    """Eight codes of 4 bits a word, in the order of AWQ."""
    words = np.zeros(len(row) // 8, np.uint32)
    for i, at in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        words |= row[at::8].astype(np.uint32) << np.uint32(4 * i)
    return words.view(np.int32)


def made(bits, k=64, n=32, groups=2, low=1, symmetric=False, seed=0):
    rng = np.random.default_rng(seed)
    q = rng.integers(0, 1 << bits, (k, n)).astype(np.uint8)
    z = np.full((groups, n), 1 << bits - 1) if symmetric else rng.integers(low, 1 << bits, (groups, n))
    return q, z.astype(np.uint8), rng.uniform(0.01, 0.02, (groups, n)).astype(np.float16)


def gptq(q, z, s, bits, added=1, g_idx=None):
    return {
        "a.qweight": np.stack([stream(column, bits) for column in q.T], 1),
        "a.qzeros": np.stack([stream(row - added, bits) for row in z.astype(int)]),
        "a.scales": s,
        "a.g_idx": np.asarray(np.arange(len(q)) // (len(q) // len(z)) if g_idx is None else g_idx, np.int32),
        "a.bias": np.ones(q.shape[1], np.float16),
    }


def awq(q, z, s):
    return {
        "a.qweight": np.stack(list(map(interleaved, q))),
        "a.qzeros": np.stack(list(map(interleaved, z))),
        "a.scales": s,
    }


def folder(path, tensors, **settings):
    path.mkdir(exist_ok=True)
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"quantization_config": settings} if settings else {}))
    return path


def weight(q, z, s, order):
    return ((q.astype(np.float64) - z[order]) * s[order].astype(np.float64)).T


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2", None])
@pytest.mark.parametrize("symmetric", [False, True])
def test_gptq(tmp_path, bits, form, symmetric):
    k = 96 if bits == 3 else 64
    q, z, s = made(bits, k=k, symmetric=symmetric)
    tensors = gptq(q, z, s, bits, added=0 if form == "gptq_v2" else 1)
    said = {"checkpoint_format": form} if form else {}
    path = folder(tmp_path / "m", tensors, quant_method="gptq", bits=bits, group_size=k // 2, **said)
    want = weight(q, z, s, np.arange(k) // (k // 2))
    got = load(path)
    assert sorted(got) == ["a.bias", "a.weight"] and got["a.weight"].dtype == np.float32
    np.testing.assert_allclose(got["a.weight"], want, rtol=1e-6, atol=0)
    (e,) = load_encoded(path).values()
    assert e.scheme == f"{'' if symmetric else 'u'}int{bits}-g{k // 2}" and e.shape == (32, k)
    np.testing.assert_array_equal(quant.decode(e), got["a.weight"])


def test_gptq_in_the_order_of_activations(tmp_path):
    q, z, s = made(4)
    order = np.random.default_rng(1).integers(0, 2, 64)
    path = folder(tmp_path / "m", gptq(q, z, s, 4, g_idx=order), quant_method="gptq", bits=4, desc_act=True)
    np.testing.assert_allclose(load(path)["a.weight"], weight(q, z, s, order), rtol=1e-6, atol=0)
    with pytest.raises(FormatError, match="one by one"):
        load_encoded(path)


def test_gptq_of_one_group_and_a_zero_point_beyond_the_codes(tmp_path):
    q, z, s = made(4, groups=1)
    z[0, 0] = 16
    path = folder(tmp_path / "m", gptq(q, z, s, 4), quant_method="gptq", bits=4, group_size=-1)
    np.testing.assert_allclose(load(path)["a.weight"], weight(q, z, s, np.zeros(64, int)), rtol=1e-6, atol=0)
    with pytest.raises(FormatError, match="a zero point is 16"):
        load_encoded(path)


@pytest.mark.parametrize("symmetric", [False, True])
def test_awq(tmp_path, symmetric):
    q, z, s = made(4, low=0, symmetric=symmetric)
    path = folder(tmp_path / "m", awq(q, z, s), quant_method="awq", bits=4, group_size=32, version="GEMM")
    got = load(path)["a.weight"]
    np.testing.assert_allclose(got, weight(q, z, s, np.arange(64) // 32), rtol=1e-6, atol=0)
    (e,) = load_encoded(path).values()
    assert e.scheme == ("int4-g32" if symmetric else "uint4-g32")
    np.testing.assert_array_equal(quant.decode(e), got)


GPTQ4 = {"quant_method": "gptq", "bits": 4}


@pytest.mark.parametrize(
    ("settings", "change", "said"),
    [
        ({}, {}, "no config.json beside it says of which"),
        ({"quant_method": "gptq", "bits": 5}, {}, "GPTQ of 5 bits"),
        (GPTQ4 | {"checkpoint_format": "marlin"}, {}, "'marlin'"),
        (GPTQ4 | {"pack_dtype": "int16"}, {}, "'int16'"),
        (GPTQ4 | {"dynamic": {"+:x": {}}}, {}, "dynamic"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, {}, "'gemv'"),
        ({"quant_method": "awq", "bits": 4}, {}, "does not go with scales"),
        (GPTQ4, {"a.scales": None}, "'a.scales' is missing"),
        (GPTQ4, {"a.scales": np.ones((2, 31), np.float16)}, "does not go with scales"),
        (GPTQ4, {"a.qweight": np.ones((8, 32), np.int64)}, "holds no words"),
        (GPTQ4, {"a.g_idx": np.full(64, 2, np.int32)}, "among the 2"),
        (GPTQ4, {"a.g_idx": np.zeros(50, np.int32)}, "not a group for each"),
        (
            GPTQ4,
            {"a.g_idx": None, "a.scales": np.ones((3, 32), np.float16), "a.qzeros": np.ones((3, 4), np.int32)},
            "3 groups",
        ),
    ],
)
def test_what_is_not_said_or_does_not_fit_is_refused(tmp_path, settings, change, said):
    tensors = {k: v for k, v in (gptq(*made(4), 4) | change).items() if v is not None}
    path = folder(tmp_path / "m", tensors, **settings)
    for read in (load, load_encoded):
        with pytest.raises(FormatError, match=said):
            read(path)
