"""What peers prune. The one rule: by their name, masks are theirs, written out here."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tersor.prune import Threshold, global_masks, global_threshold
from tersor.prune._job import COMPAT


def test_rounding():
    x = [np.arange(1.0, 101)]
    count = lambda s, n, **kw: n - int(global_masks([np.arange(1.0, n + 1)], s, **kw)[0].sum())  # noqa: E731
    assert count(0.5, 5) == 2 and count(0.5, 7) == 4
    assert count(0.29, 100, rounding="floor") == 28 and count(0.29, 100) == 29
    assert count(0.291, 100, rounding="ceil") == 30 and count(1.0, 7, rounding="ceil") == 7
    assert global_threshold(x, 0.1) == Threshold(10.0, [90])


def peer_masks(x, s, name):
    """The peers' own lines, on one layer (kthvalue and topk by sorting)."""
    magnitudes = np.sort(np.abs(x))
    if name == "globalmp":
        return np.abs(x) >= magnitudes[max(int(s * x.size), 1) - 1]
    if name == "mc-smoe":
        k = int(s * x.size)
        return np.abs(x) >= magnitudes[k - 1] if k else np.ones(x.size, bool)
    if name == "wanda":
        keep = np.ones(x.size, bool)
        keep[np.argsort(np.abs(x), kind="stable")[: int(x.size * s)]] = False
        return keep
    if name == "llm-compressor":
        k = int(x.size * s)
        return np.abs(x) > magnitudes[:k][-1] if k else np.ones(x.size, bool)
    return np.abs(x) > magnitudes[min(int(x.size * s), x.size - 1)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0, 1), st.sampled_from(sorted(COMPAT)))
def test_compat(seed, n, sparsity, name):
    x = np.round(np.random.default_rng(seed).standard_normal(n) * 4) / 4
    (got,) = global_masks([x], sparsity, compat=name)
    if name == "torch":
        from torch.nn.utils import prune as peer

        layer = torch.nn.Linear(n, 1, bias=False).double()
        layer.weight.data[:] = torch.tensor(x)
        peer.l1_unstructured(layer, "weight", sparsity)
        want = layer.weight_mask.numpy().reshape(-1).astype(bool)
        assert got.sum() == want.sum()
        edge = np.abs(x) == (global_threshold([x], sparsity).value or -1)
        assert (got == want)[~edge].all()
    else:
        assert (got == peer_masks(x, sparsity, name)).all()


def peers(share):
    """What the projects compute of one matrix of scores, as their code reads."""

    def wanda(s):
        mask = torch.zeros_like(s, dtype=torch.bool)
        indices = torch.sort(s, dim=-1, stable=True)[1][:, : int(s.shape[1] * share)]
        return ~mask.scatter_(1, indices, True)

    def wanda_magnitude(s):
        return s > torch.sort(s.flatten())[0][int(s.numel() * share)]

    def sparsegpt(s):
        return s > torch.sort(s.flatten())[0][int(s.numel() * share)]

    return {"wanda": wanda, "wanda-magnitude": wanda_magnitude, "sparsegpt": sparsegpt}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.77])
@pytest.mark.parametrize("name", ["wanda", "wanda-magnitude", "sparsegpt"])
@pytest.mark.parametrize("levels", [3, 1000])
def test_presets_are_the_peers(name, share, levels):
    generator = torch.Generator().manual_seed(levels)
    w = torch.randint(1, levels, (6, 20), generator=generator).float()
    want = peers(share)[name](w)
    if name == "wanda":
        got = torch.stack(global_masks(list(w), share, scope="layer", scores=list(w.abs()), compat="wanda"))
    else:
        (got,) = global_masks([w], share, compat=name)
    assert torch.equal(got, want)
