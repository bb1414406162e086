"""Masks of bits, and lists of several float types. The one rule: bits are the mask, and types are not mixed unasked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tersor import _bits as bits
from tersor import nn as tnn
from tersor import prune, sparse

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


@pytest.mark.parametrize("lib", [np.asarray, torch.from_numpy])
def test_bits_are_taken_wherever_a_mask_is(lib):
    rng = np.random.default_rng(3)
    w, g = (lib(rng.standard_normal((5, 7))) for _ in range(2))
    mask = lib(rng.random((5, 7)) < 0.5)
    few = prune.pack_mask(mask)
    for f in (
        lambda m: prune.apply_mask(w, m),
        lambda m: prune.apply_mask(w, mask=m),
        lambda m: prune.rigl_update(w, g, m, 0.3),
        lambda m: prune.set_update(w, m, 0.3, seed=1),
        lambda m: prune.fedtiny_send(g, m, 4)[1],
        lambda m: prune.fedtiny_update(w, m, [prune.fedtiny_send(g, m, 4)], 2),
        lambda m: sparse.from_dense(w, m).to_dense(),
        lambda m: sparse.from_dense(w, mask=m).data,
    ):
        assert np.array_equal(f(few), f(mask))
    out = lib(np.array(w))
    assert prune.apply_mask(out, few, out=out) is out and np.array_equal(out, prune.apply_mask(w, mask))
    for wrong, said in [
        (few[:-1], r"apply_mask: mask has shape \(4,\), a mask of \(5, 7\) needs 5 bytes"),
        (few | lib(np.array([0, 0, 0, 0, 128], np.uint8)), r"apply_mask: a bit past the 35 .* is set in mask"),
    ]:
        with pytest.raises(ValueError, match=said):
            prune.apply_mask(w, wrong)
    with pytest.raises(TypeError, match="apply_mask: mask must be bool, got uint8; mask != 0 makes one"):
        prune.apply_mask(w, lib(np.ones((5, 7), np.uint8)))
    with pytest.raises(TypeError, match="from_dense: mask must be bool, got float64"):
        sparse.from_dense(w, w)


def test_bits_are_taken_by_layers():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Conv2d(7, 5, 1))
    mask = torch.rand(5, 7) < 0.5
    few = prune.pack_mask(mask)
    x = torch.randn(2, 7)
    want = tnn.SparseLinear.from_dense(model[0], mask)
    assert torch.equal(tnn.SparseLinear.from_dense(model[0], few)(x), want(x))
    image = torch.randn(2, 7, 3, 3)
    conv = tnn.SparseConv1x1.from_float(model[1], mask)
    assert torch.equal(tnn.SparseConv1x1.from_float(model[1], few)(image), conv(image))
    masks = tnn.Masks(model)
    masks["0.weight"] = few
    assert torch.equal(masks["0.weight"], mask) and masks.kept["0.weight"] == int(mask.sum())
    assert not model[0].weight[~mask].any()
    with pytest.raises(
        ValueError, match=r"Masks: the mask '0.weight' has shape \(3,\), a mask of \(5, 7\) needs 5 bytes"
    ):
        masks.update({"1.weight": few, "0.weight": few[:3]})
    assert masks.kept["1.weight"] == 35  # none, after an error


def test_bits_are_taken_in_a_trace():
    w, mask = torch.randn(3, 7, requires_grad=True), torch.rand(3, 7) < 0.5
    few = prune.pack_mask(mask)
    torch._dynamo.reset()
    traced = torch.compile(prune.apply_mask, fullgraph=True, backend="aot_eager")
    assert torch.equal(traced(w, few), prune.apply_mask(w, mask))
    (got,) = torch.autograd.grad(prune.apply_mask(w, few).sum(), w)
    assert torch.equal(got, mask.float())
    rows = torch.func.vmap(prune.apply_mask)(w.detach(), torch.func.vmap(prune.pack_mask)(mask))
    assert torch.equal(rows, prune.apply_mask(w.detach(), mask))
