"""Operators that run their reference on a GPU. The one rule: it stays on the device, and gives what the kernel gives."""

import numpy as np
import pytest
import torch
from tersor import _body, _torch
from tersor._op import OPS
from tersor._sample import Draw
from tersor.triton import ABSENT, PLAIN

EPS = {"float64": 2.0**-52, "float32": 2.0**-23}
NAMES = [name for name, why in ABSENT.items() if why == PLAIN and not OPS[name].lists]  # those are `test_lists`' own


def refused(*args, **kwargs):
    raise AssertionError("a tensor became an array")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_plain_is_the_kernel(name, dtype, seed, monkeypatch):
    op = OPS[name]
    xs, scalars = op.sample(Draw(seed, dtype, (2, 3), 5))
    scalars = [scalars.get(k, op.defaults.get(k)) for k in op.scalars]
    first = next(torch.from_numpy(x) for x in xs if isinstance(x, np.ndarray))
    tensors = [
        torch.from_numpy(x) if isinstance(x, np.ndarray) else _torch._tensor(op, k, x, first.device)
        for k, x in zip(op.inputs, xs, strict=True)
    ]
    made = [_body.room(tensors[0], *w) for w in op.signature.made(tensors, scalars)]
    want = [torch.full_like(y, torch.nan if y.is_floating_point() else -77) for y in made]
    op.kernel(*tensors, *want, *scalars)
    monkeypatch.setattr(torch.Tensor, "__array__", refused)
    _body.plain(op, *tensors, *made, *scalars)
    for y, w in zip(made, want, strict=True):
        size = max((float(x.abs().max()) for x in (*tensors, w) if x.numel() and x.is_floating_point()), default=1.0)
        torch.testing.assert_close(y, w, rtol=1e4 * EPS[dtype], atol=1e4 * EPS[dtype] * max(size, 1.0), equal_nan=True)
