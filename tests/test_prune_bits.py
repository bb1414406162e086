"""Masks of bits, and lists of several float types. The one rule: bits are the mask, and types are not mixed unasked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tersor import prune
from tersor.prune import bits

torch = pytest.importorskip("torch")


@given(shape=st.lists(st.integers(0, 9), max_size=3), seed=st.integers(0, 9), torched=st.booleans())
def test_bits_are_the_mask(shape, seed, torched):
    mask = np.asarray(np.random.default_rng(seed).random(shape) < 0.5)
    given = torch.from_numpy(mask) if torched else mask
    packed = prune.pack_mask(given)
    assert type(packed) is type(given) and str(packed.dtype).endswith("uint8")
    assert packed.tolist() == [
        sum(int(m) << i for i, m in enumerate(mask.ravel()[at : at + 8])) for at in range(0, mask.size, 8)
    ]
    back = prune.unpack_mask(packed, shape)
    assert tuple(back.shape) == tuple(shape) and np.array_equal(back, mask) and str(back.dtype).endswith("bool")
    # in the order of the elements, however they lie
    if len(shape) == 2:
        assert np.array_equal(prune.pack_mask(given.T), prune.pack_mask(mask.T.copy()))
    if not torched:
        assert np.array_equal(prune.unpack_mask(packed.repeat(2)[::2], shape), mask)


def test_bits_of_tensors_elsewhere():
    """The way of other devices, tried on this one."""
    mask = torch.rand(3, 7, generator=torch.manual_seed(0)) < 0.5
    want = prune.pack_mask(mask)
    assert torch.equal(bits.summed(mask), want) and torch.equal(bits.shifted(want, 21).reshape(3, 7), mask)
    bare = prune.pack_mask(mask.to("meta"))
    assert bare.shape == (3,) and prune.unpack_mask(bare, (3, 7)).shape == (3, 7)
    assert bits.summed(mask[:0]).shape == (0,) and bits.shifted(want[:0], 0).shape == (0,)


def test_bits_in_a_trace():
    mask = torch.rand(3, 7, generator=torch.manual_seed(0)) < 0.5
    packed = prune.pack_mask(mask)
    whole = torch.compile(prune.pack_mask, fullgraph=True, backend="aot_eager")
    back = torch.compile(lambda x: prune.unpack_mask(x, (3, 7)), fullgraph=True, backend="aot_eager")
    assert torch.equal(whole(mask), packed) and torch.equal(back(packed), mask)
    rows = torch.func.vmap(prune.pack_mask)(mask)
    assert torch.equal(rows[:, 0], torch.stack([prune.pack_mask(row)[0] for row in mask]))
    assert torch.equal(torch.func.vmap(lambda x: prune.unpack_mask(x, (7,)))(rows), mask)


@pytest.mark.parametrize("lib", [np.array, torch.tensor])
def test_masks_in_bits(lib):
    rng = np.random.default_rng(0)
    arrays = [lib(rng.standard_normal(s).astype(np.float32)) for s in ((5, 7), (3,), (0, 4), (2, 2, 2))]
    arrays.append(arrays[0])  # tied
    for options in ({"sparsity": 0.4}, {"k": [3, 1, 0, 2, 3], "scope": "layer"}, {"sparsity": 0.9, "min_keep": 1}):
        packed = prune.global_masks(arrays, **options, out="bits")
        for x, few, mask in zip(arrays, packed, prune.global_masks(arrays, **options), strict=True):
            assert tuple(few.shape) == (-(-int(np.prod(x.shape)) // 8),)
            assert np.array_equal(prune.unpack_mask(few, x.shape), mask)


def test_what_are_no_bits():
    full = np.array([255], np.uint8)
    for call, error, text in (
        (
            lambda: prune.pack_mask([True]),
            TypeError,
            "^pack_mask: mask must be a",
        ),
        (lambda: prune.pack_mask(full), TypeError, "^pack_mask: mask must be bool, got uint8"),
        (lambda: prune.unpack_mask(full > 0, (1,)), TypeError, "^unpack_mask: bits must be uint8, got bool"),
        (lambda: prune.unpack_mask(full, 8), TypeError, "^unpack_mask: shape must be a sequence of integers, got int"),
        (lambda: prune.unpack_mask(full, (-8,)), ValueError, "^unpack_mask: shape must not be negative"),
        (lambda: prune.unpack_mask(full, (9,)), ValueError, r"^unpack_mask: bits has shape \(1,\), .* needs 2 bytes"),
        (
            lambda: prune.unpack_mask(full, (7,)),
            ValueError,
            r"^unpack_mask: a bit past the 7 of a mask of \(7,\) is set",
        ),
        (lambda: prune.global_masks([np.ones(3)], 0.5, out="byte"), ValueError, "out must be"),
        (lambda: prune.global_prune([np.ones(3)], 0.5, out="bits"), TypeError, "^global_prune: out is of global_masks"),
    ):
        with pytest.raises(error, match=text):
            call()
    assert prune.unpack_mask(full, (2, 4)).all() and prune.unpack_mask(full[:0], (0, 4)).shape == (0, 4)


def test_types_are_mixed_where_that_is_asked():
    a, b = np.array([1.0, 4.0], np.float32), np.array([2.0, 3.0], np.float16)
    for function in (prune.global_masks, prune.global_threshold, prune.global_prune):
        with pytest.raises(TypeError, match=r"arrays\[1\] is float16, arrays\[0\] float32; mixed=True ranks"):
            function([a, b], 0.5)
    with pytest.raises(TypeError, match=r"scores\[1\] is float64, scores\[0\] float32"):
        prune.global_masks([a, a + 1], 0.5, scores=[a, a.astype(np.float64)])
    eight = torch.tensor([1.0, 4.0]).to(torch.float8_e4m3fn)
    with pytest.raises(TypeError, match=r"arrays\[1\] is float16, arrays\[0\] float8_e4m3fn"):
        prune.global_masks([eight, torch.tensor([2.0, 3.0], dtype=torch.float16)], 0.5)
    masks = prune.global_masks([a, b], 0.5, mixed=True)
    assert [m.tolist() for m in masks] == [[False, True], [False, True]]
    assert prune.global_threshold([a, b, a], 0.5, mixed=True).value == 2
    # scores are ranked, arrays are not
    assert prune.global_masks([a, b], k=1, scores=[a, b.astype(np.float32)])[0].tolist() == [False, True]
