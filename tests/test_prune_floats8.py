"""Floats of 8 bits in selections. The one rule: what is found in them is what is found in the float16 that holds them."""

import numpy as np
import pytest
from tersor import prune

torch = pytest.importorskip("torch")
ml_dtypes = pytest.importorskip("ml_dtypes")
KINDS = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")


def pairs(kind, *shape):
    """Weights with ties in both libraries, each beside the same numbers in float16."""
    w = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(getattr(torch, kind))
    yield w, w.half()
    yield w.view(torch.uint8).numpy().view(getattr(ml_dtypes, kind)), w.half().numpy()


def same(x, y):
    """Equal numbers; of the narrow type as bytes, so that types are equal too."""
    x, y = (
        np.asarray(t.float() if t.dtype.is_floating_point else t) if isinstance(t, torch.Tensor) else t for t in (x, y)
    )
    return np.array_equal(np.asarray(x, np.float32), np.asarray(y, np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_selections_are_those_of_float16(kind):
    for x, wide in pairs(kind, 6, 16):
        score = wide * wide
        assert same(prune.nm_mask(x, 2, 4), prune.nm_mask(wide, 2, 4))
        assert same(prune.nm_mask(x, 1, 3, axis=0), prune.nm_mask(wide, 1, 3, axis=0))
        assert same(prune.nm_mask(x, 2, 4, score=score), prune.nm_mask(wide, 2, 4, score=score))
        assert same(prune.block_mask(x, 0.5, block=(2, 4)), prune.block_mask(wide, 0.5, block=(2, 4)))
        for magnitude in (False, True):
            values, indices = prune.topk_rows(x, 3, magnitude=magnitude)
            want = prune.topk_rows(wide, 3, magnitude=magnitude)
            assert same(indices, want[1]) and same(values, want[0]) and values.dtype == x.dtype
        for k in (0, 40, 96):
            h = prune.MagnitudeHistogram(x.dtype, k)
            while not h.done:
                h.update(x[:2])
                h.update(x[2:])
                h.advance()
            assert h.threshold == prune.global_threshold([wide], k=k).value


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_eight_bits_are_applied(kind):
    for x, wide in pairs(kind, 5, 8):
        mask = prune.nm_mask(x, 2, 4)
        want = prune.apply_mask(wide, mask)
        for given in (mask, prune.pack_mask(mask)):
            y = prune.apply_mask(x, given)
            assert y.dtype == x.dtype and same(y, want)
        out = x.clone() if isinstance(x, torch.Tensor) else x.copy()
        assert prune.apply_mask(out, mask, out=out) is out and same(out, want)
        bytes_ = np.asarray(out.view(torch.uint8) if isinstance(out, torch.Tensor) else out.view(np.uint8))
        assert not bytes_[~np.asarray(mask)].any()  # +0, whatever the sign was
    x, mask = torch.ones(2, 2).to(getattr(torch, kind)), torch.eye(2) > 0
    whole = torch.compile(prune.apply_mask, fullgraph=True, backend="aot_eager")
    assert same(whole(x, mask), torch.eye(2))
    assert prune.topk_rows(x[:, :0], 0)[0].shape == (2, 0)


def test_what_is_kept_keeps_its_bits():
    words = torch.arange(256, dtype=torch.uint8)
    for kind in KINDS:
        x = words.view(getattr(torch, kind))
        assert torch.equal(prune.apply_mask(x, torch.ones(256, dtype=torch.bool)).view(torch.uint8), words)
        assert not prune.apply_mask(x, torch.zeros(256, dtype=torch.bool)).view(torch.uint8).any()


def test_what_is_refused():
    x = torch.ones(2, 4).to(torch.float8_e4m3fn)
    bad = torch.full((2, 4), torch.nan).to(torch.float8_e5m2)
    for kind, message, call in (
        (TypeError, "apply_mask: mask must be bool, got float32", lambda: prune.apply_mask(x, torch.ones(2, 4))),
        (TypeError, "apply_mask: mask must be a torch tensor", lambda: prune.apply_mask(x, np.ones((2, 4), bool))),
        (ValueError, r"apply_mask: mask has shape \(2, 2\)", lambda: prune.apply_mask(x, torch.eye(2) > 0)),
        (TypeError, "apply_mask: out must be", lambda: prune.apply_mask(x, x == x, out=torch.ones(2, 4))),
        (ValueError, "apply_mask: out has shape", lambda: prune.apply_mask(x, x == x, out=x[:1].clone())),
        (ValueError, "nm_mask: .*non-finite", lambda: prune.nm_mask(bad, 2, 4)),
        (ValueError, "topk_rows: .*non-finite", lambda: prune.topk_rows(bad, 2)),
        (TypeError, "nm_mask: w must be .*float8_e5m2fnuz, got int32", lambda: prune.nm_mask(x.int(), 2, 4)),
        (ValueError, "topk_rows: .*0-d", lambda: prune.topk_rows(x[0, 0], 0)),
    ):
        with pytest.raises(kind, match=message):
            call()


def test_a_histogram_takes_types_as_they_are_imported():
    import ml_dtypes

    for kind in (ml_dtypes.float8_e4m3fn, np.dtype(ml_dtypes.float8_e5m2), torch.float8_e4m3fn, np.float32):
        h = prune.MagnitudeHistogram(kind, 2)
        while not h.done:
            x = torch.tensor([3.0, -1.0, 2.0])
            h.update(x.to(kind) if isinstance(kind, torch.dtype) else x.numpy().astype(kind))
            h.advance()
        assert h.threshold == 2
    for kind, said in ((np.ones(2), "an array"), (np.int8, "int8")):
        with pytest.raises(TypeError, match=f"float8_e5m2fnuz.*got {said}"):
            prune.MagnitudeHistogram(kind, 2)
