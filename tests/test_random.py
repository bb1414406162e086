"""Philox against its published answers, Triton's own generator, and words that must never change."""

import os

import numpy as np
import pytest
from tersor.random import TAGS, philox4x32, words

ANSWERS = [  # Random123, kat_vectors: counter, key, words
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "want"), ANSWERS)
def test_known_answers(counter, key, want):
    counter, key = np.array(counter, np.uint32), np.array(key, np.uint32)
    assert philox4x32(counter, key).tolist() == want
    assert philox4x32.op.reference(counter, key).tolist() == want
    many = philox4x32(np.broadcast_to(counter, (3, 5, 4)), key)
    assert many.shape == (3, 5, 4) and (many == np.array(want, np.uint32)).all()


def test_torch_gives_the_same_words():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    counter, key = rng.integers(0, 2**32, (40, 4), np.uint32), rng.integers(0, 2**32, 2, np.uint32)
    got = philox4x32(torch.from_numpy(counter), torch.from_numpy(key))
    assert got.dtype == torch.uint32
    np.testing.assert_array_equal(got.numpy(), philox4x32(counter, key))


def test_what_is_refused():
    with pytest.raises(ValueError, match="philox4x32"):
        philox4x32(np.zeros(3, np.uint32), np.zeros(2, np.uint32))
    with pytest.raises(ValueError, match="philox4x32"):
        philox4x32(np.zeros(4, np.uint32), np.zeros(3, np.uint32))
    with pytest.raises(TypeError, match="philox4x32"):
        philox4x32(np.zeros(4, np.int64), np.zeros(2, np.uint32))


def test_the_words_of_the_contract():
    """word(tag, stream; a, b) from its definition, and golden values."""
    seed, stream, a, b = 0x0123456789ABCDEF, 77, 2**40 + 3, 2**33 + 6
    for tag in sorted(set(TAGS.values())):
        counter = np.array([b >> 2, a & 0xFFFFFFFF, a >> 32, tag + 256 * stream], np.uint32)
        key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
        assert words(seed, tag, stream, a, b) == philox4x32(counter, key)[b & 3]
    assert TAGS == {
        "gaussian": 1,
        "rademacher": 2,
        "sparse": 3,
        "countsketch": 4,
        "osnap": 4,
        "srht": 5,
        "spinner": 6,
        "fastfood": 7,
        "hash": 17,
        "rounding": 32,
        "growth": 32,
    }


@pytest.mark.triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="runs in Triton's interpreter")
def test_triton_draws_the_same_words():
    torch, triton = pytest.importorskip("torch"), pytest.importorskip("triton")
    import triton.language as tl

    # the interpreter runs the function as it stands; a closure over tl is what it needs
    @triton.jit
    def kernel(counter, out, seed, N: tl.constexpr):
        i = tl.arange(0, N)
        c0 = tl.load(counter + 4 * i, mask=i < N).to(tl.uint32)
        c1 = tl.load(counter + 4 * i + 1, mask=i < N).to(tl.uint32)
        c2 = tl.load(counter + 4 * i + 2, mask=i < N).to(tl.uint32)
        c3 = tl.load(counter + 4 * i + 3, mask=i < N).to(tl.uint32)
        w0, w1, w2, w3 = tl.philox(seed.to(tl.int64), c0, c1, c2, c3)
        tl.store(out + 4 * i, w0.to(tl.int64), mask=i < N)
        tl.store(out + 4 * i + 1, w1.to(tl.int64), mask=i < N)
        tl.store(out + 4 * i + 2, w2.to(tl.int64), mask=i < N)
        tl.store(out + 4 * i + 3, w3.to(tl.int64), mask=i < N)

    rng = np.random.default_rng(1)
    counter = rng.integers(0, 2**32, (64, 4), np.uint32)
    for seed in (0, 5, -3, 2**62 + 12345):
        out = torch.zeros(64, 4, dtype=torch.int64)
        kernel[(1,)](torch.from_numpy(counter.astype(np.int64)), out, seed, N=64)
        key = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)
        np.testing.assert_array_equal(out.numpy().astype(np.uint32), philox4x32(counter, key))
