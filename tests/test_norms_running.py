"""Norms by running mean squares: the declared backward pass, the two layers against their papers' steps written out."""

import copy
import math

import numpy as np
import pytest
import torch
from tersor import nn as tnn
from tersor import norm

R = np.random.default_rng(4)
F64 = torch.float64


def some(*shape, dtype=F64):
    return torch.from_numpy(R.standard_normal(shape)).to(dtype)


SHAPES = [((5, 7, 3), -1), ((4, 3, 6), 1), ((5, 1), -1), ((3,), 0), ((0, 3), -1), ((2, 0), -1)]


@pytest.mark.parametrize(("shape", "at"), SHAPES)
def test_by_the_batchs_own_it_is_the_derivative(shape, at):
    c = shape[at]
    x, w, b = some(*shape).requires_grad_(), some(c).requires_grad_(), some(c).requires_grad_()
    over = [i for i in range(len(shape)) if i != at % len(shape)]
    along = [c if i == at % len(shape) else 1 for i in range(len(shape))]
    psi = (x * x).mean(over) if over else x * x
    want = x / (psi + 1e-5).sqrt().reshape(along) * w.reshape(along) + b.reshape(along)
    psi = psi.detach().nan_to_num(1.0)
    gz = torch.empty(c, dtype=F64)
    got = norm.running_rms_norm(x, psi, w, b, share=1.0, gz=gz, channel_dim=at)
    g = some(*shape)
    close = torch.testing.assert_close
    close(got, want, rtol=1e-13, atol=1e-14)
    if x.numel():
        for a, e in zip(torch.autograd.grad(got, (x, w, b), g), torch.autograd.grad(want, (x, w, b), g), strict=True):
            close(a, e, rtol=1e-12, atol=1e-13)
        z = x / (psi + 1e-5).sqrt().reshape(along)
        h = g * w.reshape(along)
        close(gz, (h * z).mean(over) if over else h * z)
    array = norm.running_rms_norm(*(p.detach().numpy() for p in (x, psi, w, b)), share=1, channel_dim=at)
    close(torch.from_numpy(array), got.detach(), rtol=1e-15, atol=0)


def test_what_is_sent_back_is_what_is_said():
    x, w, psi, carry = some(6, 3).requires_grad_(), some(3), some(3).abs(), some(3)
    g, share, ratio = some(6, 3), torch.tensor(0.3, dtype=F64), some(3).abs()
    y = norm.running_rms_norm(x, psi, w, carry=carry, share=share, ratio=ratio, eps=1e-3)
    (dx,) = torch.autograd.grad(y, x, g)
    root = (psi + 1e-3).sqrt()
    z, h = x.detach() / root, g * w * ratio
    gamma = carry + share * (h * z).mean(0)
    torch.testing.assert_close(dx, (h - gamma * z) / root, rtol=1e-13, atol=1e-14)
    y = norm.running_rms_norm(x, psi, share=1.0)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        dx.sum().backward()


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16, torch.float32])
def test_smaller_types(low):
    x, psi, w = some(64, 5, dtype=low), some(5).abs(), some(5, dtype=torch.float32)
    one, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    got = norm.running_rms_norm(one, psi.float(), w, share=1.0)
    want = norm.running_rms_norm(wide, psi.float().double(), w.double(), share=1.0)
    eps = torch.finfo(low).eps  # a root, a quotient and a product are rounded
    assert got.dtype == low
    torch.testing.assert_close(got.double(), want, rtol=4 * eps, atol=1e-7)
    g = some(64, 5, dtype=low)
    (a,), (b,) = torch.autograd.grad(got, one, g), torch.autograd.grad(want, wide, g.double())
    torch.testing.assert_close(a.double(), b, rtol=4 * eps, atol=4 * eps)


def test_wrong_arguments():
    x, psi = some(4, 3), torch.ones(3, dtype=F64)
    for make, error, why in (
        (lambda: norm.running_rms_norm(x, psi[:2]), ValueError, "psi must have shape"),
        (lambda: norm.running_rms_norm(x, psi, channel_dim=2), ValueError, "channel_dim=2"),
        (lambda: norm.running_rms_norm(x, psi, eps=math.nan), ValueError, "eps must be"),
        (lambda: norm.running_rms_norm(x, psi, psi.float()), TypeError, "weight is"),
        (lambda: norm.running_rms_norm(x, psi.numpy()), TypeError, "psi must be a torch tensor"),
        (lambda: norm.running_rms_norm(x, psi, share="1"), TypeError, "share must be"),
        (lambda: norm.running_rms_norm(x, psi, share=psi[:2]), ValueError, "share must be"),
        (lambda: norm.running_rms_norm(x.long(), psi), TypeError, "x must be"),
        (
            lambda: norm.running_rms_norm(x.numpy(), psi.numpy(), carry=psi.numpy()),
            TypeError,
            "carry is for the gradient",
        ),
        (lambda: norm.running_rms_norm(x.numpy(), psi.numpy(), share=psi.numpy()), TypeError, "share is for the grad"),
        (lambda: norm.running_rms_norm(x, psi, gz=psi.numpy()), TypeError, "gz must be a torch tensor"),
        (lambda: tnn.PowerNorm(6, groups=4), ValueError, "does not divide"),
        (lambda: tnn.PowerNorm(0), ValueError, "channels must be positive"),
        (lambda: tnn.PowerNorm(4, alpha_bwd=1.0), ValueError, "alpha_bwd"),
        (lambda: tnn.PowerNorm(4, eps=-1.0), ValueError, "PowerNorm: eps must be"),
        (lambda: tnn.UnifiedNorm(4, eps="1"), TypeError, "UnifiedNorm: eps must be"),
        (lambda: tnn.UnifiedNorm(4, window=0), ValueError, "window"),
        (lambda: tnn.UnifiedNorm(4, momentum=-0.1), ValueError, "momentum"),
        (lambda: tnn.UnifiedNorm(4)(x), ValueError, "4 elements"),
    ):
        with pytest.raises(error, match=why):
            make()


def steps(layer, n=9, seed=1):
    """Inputs, gradients of the outputs, and what comes back, of some steps of training."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        x = torch.from_numpy(rng.standard_normal((5, 2, layer.channels)) * rng.uniform(0.5, 2, layer.channels))
        g = torch.from_numpy(rng.standard_normal(x.shape))
        x.requires_grad_()
        y = layer(x)
        (dx,) = torch.autograd.grad(y, x, g)
        made.append((x.detach().reshape(10, -1), g.reshape(10, -1), y.detach().reshape(10, -1), dx.reshape(10, -1)))
    return made


def test_power_norm_is_its_paper():
    layer = tnn.PowerNorm(4, warmup=3, alpha_fwd=0.8, alpha_bwd=0.7, eps=1e-3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
    phi, gamma = torch.ones(4, dtype=F64), torch.zeros(4, dtype=F64)
    for t, (x, g, y, dx) in enumerate(steps(layer)):
        leaf = x.clone().requires_grad_()
        scaled = leaf / (leaf.square().mean(1, keepdim=True) + 1e-3).sqrt()
        squares = scaled.detach().square().mean(0)
        psi = squares if t < 3 else phi
        z, h = scaled.detach() / (psi + 1e-3).sqrt(), g * layer.weight.detach()
        torch.testing.assert_close(y, z * layer.weight.detach())
        sent = (h - 0.3 * gamma * z) / (psi + 1e-3).sqrt()
        (want,) = torch.autograd.grad(scaled, leaf, sent)
        torch.testing.assert_close(dx, want)
        gamma = gamma + ((h - 0.3 * gamma * z) * z).mean(0)
        phi = 0.8 * phi + 0.2 * squares
    torch.testing.assert_close(layer.running_phi, phi)
    layer.eval()
    x = some(3, 4)
    scaled = x / (x.square().mean(1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(layer(x), scaled / (phi + 1e-3).sqrt() * layer.weight)


def test_unified_norm_is_its_paper():
    w, m, eps = 3, 0.6, 1e-3
    layer = tnn.UnifiedNorm(4, window=w, warmup=2, eps=eps, momentum=m).double()
    squares, sent, gamma, phi = [], [], torch.zeros(4, dtype=F64), torch.ones(4, dtype=F64)
    for t, (x, g, y, dx) in enumerate(steps(layer)):
        squares.append(x.square().mean(0))
        own = t < 3
        psi = squares[-1] if own else torch.stack(squares[-w:]).log().mean(0).exp()
        z = x / (psi + eps).sqrt()
        torch.testing.assert_close(y, z)
        own_g = (g * z).mean(0)
        sent.append(own_g)
        gamma = m * gamma + (1 - m) * (own_g if own else torch.stack(sent[-w:]).mean(0))
        torch.testing.assert_close(dx, (g - gamma * z) / (psi + eps).sqrt())  # r is 1 in the first thousand steps
        phi = m * phi + (1 - m) * psi
    torch.testing.assert_close(layer.running_phi, phi)


def test_a_step_that_sent_nothing_back_is_taken_for_the_running_one():
    layer = tnn.UnifiedNorm(2, window=3, warmup=0).double()
    for k in range(7):
        y = layer(some(8, 2).requires_grad_())
        if k != 5:
            y.backward(some(8, 2))
    assert torch.equal(layer.sent_ring[5 % 3], layer.gamma)  # and not what the step three before it sent
    assert not torch.equal(layer.sent_ring[4 % 3], layer.gamma)


def test_an_odd_batch_is_taken_for_the_running_one():
    layer = tnn.UnifiedNorm(2, window=4, warmup=0, outlier_filtration=True).double()
    rng = np.random.default_rng(0)
    for _ in range(8):
        layer(torch.from_numpy(rng.standard_normal((64, 2))))
    before, ring = layer.running_phi.clone(), layer.ring.clone()
    x = torch.from_numpy(1e3 * rng.standard_normal((64, 2))).requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, x / (x.square().mean(0) + 1e-5).sqrt())
    assert torch.equal(layer.running_phi, before)
    assert (layer.ring != ring).any(1).sum() == 1 and torch.equal(layer.ring[0], before)
    g = some(64, 2)
    (dx,) = torch.autograd.grad(y, x, g)
    leaf = x.detach().clone().requires_grad_()
    (want,) = torch.autograd.grad(leaf / (leaf.square().mean(0) + 1e-5).sqrt(), leaf, g)
    torch.testing.assert_close(dx, want)
    plain = tnn.UnifiedNorm(2, window=4, warmup=0).double()
    plain.load_state_dict(layer.state_dict())
    assert plain(1e3 * some(64, 2)).abs().mean() > 3


@pytest.mark.parametrize("kind", [tnn.PowerNorm, tnn.UnifiedNorm])
def test_the_state_goes_along(kind):
    """Copies and loaded states go on alike, dead channels and empty batches leave numbers, a trace is whole."""
    layer = kind(3, warmup=1)
    x = some(6, 3, dtype=torch.float32)
    x[:, 1] = 0
    for _ in range(6):
        layer(x.clone().requires_grad_()).sum().backward()
    other, loaded = copy.deepcopy(layer), kind(3, warmup=1)
    loaded.load_state_dict(layer.state_dict())
    want = layer(x)
    assert torch.isfinite(want).all() and torch.equal(other(x), want) and torch.equal(loaded(x), want)
    before = layer.num_batches_tracked.clone()
    assert layer(x[:0]).shape == (0, 3) and layer.num_batches_tracked == before
    traced = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(traced(x), layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("make", [lambda: tnn.PowerNorm(3, warmup=0), lambda: tnn.UnifiedNorm(3, window=2, warmup=0)])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_overflowed_is_forgotten(make, value):
    layer = make()
    for i in range(8):
        x, g = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
        if i == 2:
            g[0, 0] = value
        layer(x).backward(g)
    assert x.grad.isfinite().all()
    assert layer.gamma.isfinite().all()


def test_batches_of_functions():
    x, one, w = some(4, 5, 3), torch.ones(5, dtype=F64), some(5)

    def y(x):
        return norm.running_rms_norm(x, one, w, w, carry=w, share=0.5, channel_dim=0)

    def grad(x):
        return torch.func.grad(lambda x: y(x).square().sum())(x)

    for f in (y, grad):
        torch.testing.assert_close(torch.func.vmap(f)(x), torch.stack([f(row) for row in x]))
    layer = tnn.PowerNorm(3).double().eval()
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [300.0, 3e-3])
@pytest.mark.parametrize("make", [lambda: tnn.PowerNorm(4, warmup=2), lambda: tnn.UnifiedNorm(4, window=2, warmup=2)])
def test_statistics_of_16_bit_layers_stay_wide(make, scale, low):
    layer, wide = torch.nn.Sequential(make()).to(low), make()
    assert {b.dtype for b in layer.buffers() if b.is_floating_point()} == {torch.float32}
    for _ in range(6):
        x, g = (some(8, 4) * scale).to(low), some(8, 4).to(low)
        one, other = x.clone().requires_grad_(), x.float().requires_grad_()
        layer(one).backward(g)
        wide(other).backward(g.float())
    tol = 8 * torch.finfo(low).eps
    torch.testing.assert_close(layer.eval()(x).float(), wide.eval()(x.float()), rtol=tol, atol=tol)
    torch.testing.assert_close(one.grad.float() * scale, other.grad * scale, rtol=tol, atol=tol)
