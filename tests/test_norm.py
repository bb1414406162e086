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


@pytest.mark.parametrize("e", [600, 1000, -600, -1000])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_whose_squares_are_no_numbers(weighted, e):
    """A power of two goes through as it is: y and dw stay, dx is that much smaller; rows beside are not touched."""
    factor = torch.tensor([1.0, 2.0**e, 1.0, 2.0**e, 2.0 ** (e // 2)], dtype=torch.float64)[:, None, None]
    near, far = X.clone().requires_grad_(), (X * factor).requires_grad_()
    leaves = [W[-1].clone().requires_grad_() for _ in range(2)] if weighted else [None, None]
    want, got = norm.rms_norm(near, 4, leaves[0], 0.0), norm.rms_norm(far, 4, leaves[1], 0.0)
    close = {"rtol": 1e-14, "atol": 1e-15}
    torch.testing.assert_close(got, want, **close)
    right, found = (torch.autograd.grad((y * G).sum(), [x, *[w] * weighted])
                    for y, x, w in ((want, near, leaves[0]), (got, far, leaves[1])))  # fmt: skip
    torch.testing.assert_close(found[0] * factor, right[0], **close)
    if weighted:
        torch.testing.assert_close(found[1], right[1], rtol=1e-13, atol=1e-13)
    x = far.detach().numpy().copy()
    norm.rms_norm(x, 4, None if not weighted else W[-1].numpy(), 0.0, out=x)  # in place
    assert (x == got.detach().numpy()).all()
    still = norm.rms_norm(np.array([[np.inf, 1e200], [1e200, 1e200], [0.0, 0.0]]), 2)
    assert np.isnan(still[0]).any() and (abs(still[1] - 1) < 1e-15).all() and (still[2] == 0).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [False, True])
def test_a_weight_of_float32_beside_16_bits(kind, rows):
    """As layers keep it: what is exact in 16 bits gives the same bits, its gradient is float32, and other types do not mix."""
    x, g = X.to(kind), G.to(kind)
    w = (W[:, None].expand(3, 1, 4).reshape(3, 4) if rows else W[-1]).to(kind).float()
    given = [x[:1] if rows else x, w]

    def f(x, w):
        return norm._rms_norm(x, w, 1e-6) if rows else norm.rms_norm(x, 4, w, 1e-6)

    one, other = ([a.clone().requires_grad_() for a in (given[0], w_)] for w_ in (w, w.to(kind)))
    y, z = f(*one), f(*other)
    assert y.dtype == kind and torch.equal(y, z)
    up = g[: y.shape[0]]
    got, want = torch.autograd.grad((y * up).sum(), one), torch.autograd.grad((z * up).sum(), other)
    assert got[1].dtype == torch.float32 and torch.equal(got[0], want[0]) and torch.equal(got[1].to(kind), want[1])
    if not rows:
        if kind == torch.float16:
            a = x.numpy()
            np.testing.assert_array_equal(norm.rms_norm(a, 4, w.numpy(), 1e-6), y.detach().numpy())
            out = np.empty_like(a)
            assert norm.rms_norm(a, 4, w.numpy(), 1e-6, out=out) is out and (out == y.detach().numpy()).all()
        traced = torch.compile(f, fullgraph=True, backend="aot_eager")
        assert torch.equal(traced(x, w), y)
        single = torch.func.vmap(f, in_dims=(0, None))(x, w)
        assert torch.equal(single, y)
        for bad in (w.double(), w.to(torch.bfloat16 if kind == torch.float16 else torch.float16)):
            with pytest.raises(TypeError, match="rms_norm: weight is"):
                f(x, bad)
        with pytest.raises(TypeError, match="rms_norm: weight is"):
            f(x.float(), w.to(kind))


def test_gradients_that_nobody_needs_are_not_made():
    op = norm._rms_norm_bwd.op
    x, g, w = X.numpy(), G.numpy(), W[-1].numpy()
    whole = op.numpy((g, x, w, 1e-6, 3), {})
    for needs in range(4):
        for part, want, bit in zip(op.numpy((g, x, w, 1e-6, needs), {}), whole, (1, 2), strict=True):
            assert (part == want).all() if needs & bit else part.shape == (0,)


@pytest.mark.parametrize("dtype", EPS)
def test_a_row_with_an_infinite_number(dtype):
    """As torch: it is none itself, what is finite beside it is 0; other rows do not see it, far ones neither."""
    inf = float("inf")
    for d in (2, 5, 16, 37, 100):
        x = torch.ones(3, d, dtype=dtype)
        x[1, d // 2] = inf
        if dtype == torch.float64:
            x[2] = 1e300
        y = norm.rms_norm(x, d, eps=0.0)
        want = torch.ones(3, d, dtype=dtype)
        want[1] = 0.0
        want[1, d // 2] = float("nan")
        torch.testing.assert_close(y, want, equal_nan=True, rtol=4 * EPS[dtype], atol=0)
        torch.testing.assert_close(norm.rms_norm(-x[:2], d), rms_norm(-x[:2], (d,)), equal_nan=True)


def test_out_that_has_a_gradient_is_refused():
    x, w = torch.randn(4), torch.ones(4, requires_grad=True)
    made = 2 * w
    for out in (w, made):  # what is written there has none, and who made it would go on with his own
        with pytest.raises(RuntimeError, match=r"^rms_norm: out= does not support automatic differentiation"):
            norm.rms_norm(x, 4, out=out)
        with pytest.raises(RuntimeError, match=r"^add_norm: out= does not support automatic differentiation"):
            norm.add_norm(x, x, torch.ones(4), out=(torch.empty(4), out))
    assert torch.equal(w, torch.ones(4)) and torch.equal(made, 2 * w)
    with torch.no_grad():
        assert norm.rms_norm(x, 4, out=w) is w
