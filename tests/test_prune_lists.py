"""Lists of arrays. The one rule: an array that stands twice is one; memory that is shared otherwise is refused."""

import numpy as np
import pytest
import torch
from tersor.prune import apply_mask, global_masks, global_prune, global_threshold, topk_rows


def test_an_array_that_stands_twice_is_one():
    e, o = torch.tensor([0.1, 0.2]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    masks = global_masks([e, o, e], 0.5)
    assert [m.tolist() for m in masks] == [[False, False], [False, True, True, True], [False, False]]
    assert [t.tolist() for t in global_prune([e.clone(), o], 0.5)] == [[0, 0], [0, 2, 3, 4]]
    t = np.array([1.0, 2.0, 3.0])
    a, b = global_masks([t, t], k=1)
    assert a.tolist() == b.tolist() == [False, True, True]
    assert global_threshold([t, t[:]], k=1) == (1.0, [2, 2])
    global_prune([e, o, e], 0.5, inplace=True)
    assert e.tolist() == [0, 0] and o.tolist() == [0, 2, 3, 4]
    with pytest.raises(ValueError, match="min_keep differs"):
        global_masks([t, t], k=1, min_keep=[0, 1])


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_arrays_that_share_some_memory_are_refused(library):
    x = np.arange(12.0)
    with pytest.raises(ValueError, match=r"arrays\[0\] and arrays\[2\] share memory"):
        global_masks([library(x[:8]), library(np.ones(3)), library(x[4:])], 0.5)
    assert len(global_masks([library(x[:4]), library(x[4:])], 0.5)) == 2
    columns = x.reshape(3, 4)
    assert len(global_masks([library(columns[:, ::2]), library(columns[:, 1::2])], 0.5)) == 2


def test_what_is_no_list_of_arrays_is_named():
    for wrong, says in [
        (torch.nn.Linear(2, 2), "got Linear"),
        ([torch.nn.Linear(2, 2)], r"arrays\[0\] must be a NumPy array or a torch tensor, got Linear"),
        ([torch.eye(2).to_sparse()], "layout"),
        ([np.ma.masked_array(np.ones(3), [0, 1, 0])], "MaskedArray"),
        ([np.arange(3)], "int64"),
    ]:
        with pytest.raises(TypeError, match=says):
            global_masks(wrong, 0.5)
    with pytest.raises(TypeError, match=r"topk_rows: x must be float64, .* got int64"):
        topk_rows(np.arange(4).reshape(1, 4), 1)


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_what_shares_memory_with_itself_is_not_written(library):
    as_strided = np.lib.stride_tricks.as_strided
    for shape, steps, fine in (
        ((4,), (0,), False),
        ((3, 2), (1, 1), False),
        ((3, 2), (2, 1), True),
        ((3, 2), (3, 4), True),  # 0 3 6 and 4 7 10
        ((5, 2), (3, 9), False),
        ((1, 2), (0, 1), True),
        ((0, 2), (0, 0), True),
    ):
        memory = np.ones(40, np.float32)
        x = library(memory)
        if isinstance(x, np.ndarray):
            x = as_strided(x, shape, [4 * s for s in steps])
        else:
            x = x.as_strided(shape, steps)
        if fine:
            global_prune([x], 1.0, inplace=True)
            assert not x.any()
            continue
        with pytest.raises(ValueError, match=r"global_prune: arrays\[0\]: elements share memory"):
            global_prune([x], 0.5, inplace=True)
        assert memory.all()
        with pytest.raises(ValueError, match=r"apply_mask: .*contiguous"):
            apply_mask(x, x > 0, out=x)
        assert int((global_prune([x], k=1)[0] == 0).sum()) == 1
