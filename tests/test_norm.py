"""Norms of rows against torch's. The one rule: what torch computes in float64 is right."""

import numpy as np
import pytest
import torch
from tersor import norm
from torch.nn.functional import rms_norm

R = np.random.default_rng(0)
X, G = (torch.from_numpy(R.standard_normal((5, 3, 4))) for _ in range(2))
W = torch.from_numpy(R.uniform(-2, 2, (3, 4)))
EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_torch_agrees(shape, weighted, dtype):
    leaves = [X.to(dtype, copy=True).requires_grad_()] + [
        W[-1].to(dtype) if len(shape) == 1 else W.to(dtype)
    ] * weighted
    leaves[1:] = [w.clone().requires_grad_() for w in leaves[1:]]
    wide = [x.detach().double().requires_grad_() for x in leaves]
    y = norm.rms_norm(leaves[0], shape, *leaves[1:])
    want = rms_norm(wide[0], shape, *wide[1:], eps=min(EPS[dtype], 2.0**-23))
    torch.testing.assert_close(y.double(), want, rtol=4 * EPS[dtype], atol=4 * EPS[dtype])
    got = torch.autograd.grad((y * G.to(dtype)).sum(), leaves)
    right = torch.autograd.grad((want * G.to(dtype).double()).sum(), wide)
    for g, r in zip(got, right, strict=True):
        torch.testing.assert_close(g.double(), r, rtol=16 * EPS[dtype], atol=16 * EPS[dtype] * float(r.abs().max()))
    assert (norm.rms_norm(leaves[0].detach(), shape, *[w.detach() for w in leaves[1:]]) == y).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_of_samples(weighted):
    """A batch of `torch.func` is a loop, with a weight and without, of rows and of several axes."""
    for x, shape, w in ((X[0], 4, W[0]), (X, (3, 4), W)):
        given = (w,) if weighted else ()

        def f(x, shape=shape, given=given):
            return (norm.rms_norm(x, shape, *given) ** 3).sum()

        got = torch.func.vmap(torch.func.grad(f))(x)
        torch.testing.assert_close(got, torch.stack([torch.func.grad(f)(row) for row in x]))
    assert torch.autograd.gradcheck(
        lambda x, w: norm.rms_norm(x, 4, w), (X[0].clone().requires_grad_(), W[0].clone().requires_grad_())
    )
    assert torch.autograd.gradgradcheck(lambda x: norm.rms_norm(x, 4), (X[0].clone().requires_grad_(),))


def test_no_rows_and_long_rows():
    assert norm.rms_norm(np.empty((0, 4)), 4).shape == (0, 4)
    w = torch.ones(4, requires_grad=True)
    norm.rms_norm(torch.empty(0, 4), 4, w).sum().backward()
    assert w.grad.tolist() == [0.0] * 4
    x = np.full((1, 100_000), 1e30, np.float32)  # whose squares are no float32
    np.testing.assert_allclose(norm.rms_norm(x, 100_000), 1.0, rtol=1e-6)


def test_what_does_not_fit_is_refused():
    for shape, w in ((5, None), ((), None), (4, np.ones(3)), ((3, 4), np.ones(4))):
        with pytest.raises(ValueError, match=r"rms_norm: (x|weight) "):
            norm.rms_norm(X.numpy(), shape, w)
    for shape, w, eps in (
        (4, np.ones(4, np.float32), None),
        (4.0, None, None),
        (None, None, None),
        (4, None, "1"),
        (4, None, True),
    ):
        with pytest.raises(TypeError, match=r"rms_norm: "):
            norm.rms_norm(X.numpy(), shape, w, eps)
    for out in (np.empty((5, 4, 3)).swapaxes(1, 2), np.empty((5, 4, 3)), np.empty(60), np.empty(8)):
        with pytest.raises(ValueError, match=r"rms_norm: out must "):
            norm.rms_norm(X.numpy(), (3, 4), out=out)


@pytest.mark.parametrize("dtype", EPS)
def test_rows_of_no_elements(dtype):
    x = torch.empty(3, 0, dtype=dtype)
    for w in (None, torch.empty(0, dtype=dtype)):
        assert norm.rms_norm(x, 0, w).shape == (3, 0)
    if dtype != torch.bfloat16:
        assert norm.rms_norm(x.numpy(), 0).shape == (3, 0)


def test_one_weight_for_batches_of_any_size():
    f = torch.compile(lambda x, w: norm.rms_norm(x, 4, w), backend="aot_eager", fullgraph=True, dynamic=True)
    for n in (2, 3, 5):
        x = torch.from_numpy(R.standard_normal((n, 4)))
        torch.testing.assert_close(f(x, W[0]), norm.rms_norm(x, 4, W[0]))
