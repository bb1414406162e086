"""The wrapped normal distribution. The one rule: its density is one by volume, and its samples are of that density."""

import numpy as np
import pytest
import torch
from tersor import hyperbolic, lorentz, nn

FAMILIES = {"ball": hyperbolic, "lorentz": lorentz}
models = pytest.mark.parametrize("model", FAMILIES)


def place(model, v, c):
    """A point at distance |v| from the origin, in either model."""
    return FAMILIES[model].expmap0(v / (2 if model == "ball" else 1), c)


@models
@pytest.mark.parametrize("c", [0.0, 0.5, 2.0])
def test_the_density_is_one_by_volume(model, c):
    """In the plane, around a point that is not the origin, with unlike deviations."""
    loc = place(model, torch.tensor([0.7, -0.4], dtype=torch.float64), c)
    q = nn.WrappedNormal(loc, torch.tensor([0.6, 0.3], dtype=torch.float64), c, model=model)
    r = torch.linspace(0, 9, 1201, dtype=torch.float64)
    turn = torch.arange(256, dtype=torch.float64) * (2 * torch.pi / 256)
    v = r[:, None, None] * torch.stack([turn.cos(), turn.sin()], -1)
    volume = torch.sinh(c**0.5 * r) / c**0.5 if c else r
    p = q.log_prob(place(model, v, c)).exp().mean(1) * 2 * torch.pi * volume
    assert abs(float(torch.trapezoid(p, r)) - 1) < 1e-4


@models
def test_samples_are_of_the_density(model):
    """Seen from the mean they are normal vectors, and their mean logarithm of the density is that of the formula."""
    torch.manual_seed(0)
    c, sigma = 0.8, torch.tensor([0.9, 0.4, 0.2], dtype=torch.float64)
    loc = place(model, torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64), c)
    q = nn.WrappedNormal(loc, sigma, c, model=model)
    x, space, unit = q.sample((20000,)), FAMILIES[model], 2 if model == "ball" else 1
    at = loc.expand_as(x)
    v = unit * space.parallel_transport0back(at, space.logmap(at, x, c), c)
    torch.testing.assert_close(v.std(0), sigma, rtol=0.03, atol=0)
    assert (v.mean(0).abs() < 0.03 * 4 * sigma).all()
    torch.testing.assert_close(v.norm(dim=-1), space.dist(at, x, c))
    r = c**0.5 * v.norm(dim=-1)
    want = torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), sigma).log_prob(v).sum(-1)
    torch.testing.assert_close(q.log_prob(x), want - 2 * (torch.sinh(r) / r).log(), rtol=1e-9, atol=1e-9)
    assert torch.equal(q.mean, loc) and torch.equal(q.mode, loc)


def test_both_models_have_one_density():
    x = lorentz.expmap0(torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 0.7)
    one = nn.WrappedNormal(x[0], 0.4, 0.7, model="lorentz").log_prob(x)
    other = nn.WrappedNormal(lorentz.to_poincare(x[0], 0.7), 0.4, 0.7).log_prob(lorentz.to_poincare(x, 0.7))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@models
def test_gradients(model):
    loc = (0.2 * torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).requires_grad_()
    scale = torch.tensor([0.5, 0.2, 0.7], dtype=torch.float64, requires_grad=True)
    c = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)

    x = 0.5 * loc.detach() + 0.01

    def drawn(loc, scale, c):
        torch.manual_seed(1)
        return nn.WrappedNormal(loc, scale, c, model=model).rsample((4,))

    def density(loc, scale, c):
        return nn.WrappedNormal(loc, scale, c, model=model).log_prob(x)

    assert torch.autograd.gradcheck(drawn, (loc, scale, c))
    assert torch.autograd.gradcheck(density, (loc, scale, c))
    curve = nn.Curvature(0.6, learnable=True)
    q = nn.WrappedNormal(loc, scale, curve, model=model)
    q.log_prob(q.rsample()).sum().backward()
    assert curve.rho.grad.isfinite().all()
    far = nn.WrappedNormal(torch.zeros(2), 300.0, model="lorentz").log_prob(torch.tensor([1e30, 1e30]))
    assert far.isfinite()  # no sinh of a radius of 70


def test_as_torch_has_distributions():
    q = nn.WrappedNormal(torch.zeros(3, 1, 2), torch.full((4, 1), 0.5), 0.7)
    assert q.batch_shape == (3, 4) and q.event_shape == (2,)
    assert q.rsample((5,)).shape == (5, 3, 4, 2) and not q.sample().requires_grad
    assert q.log_prob(torch.zeros(2)).shape == (3, 4)
    wide = q.expand((6, 3, 4))
    assert wide.batch_shape == (6, 3, 4) and wide.sample().shape == (6, 3, 4, 2)
    assert (hyperbolic.dist0(q.sample((100,)), 0.7).isfinite()).all()
    half = nn.WrappedNormal(torch.zeros(2, dtype=torch.bfloat16), 0.5)
    assert half.log_prob(half.sample()).dtype == torch.bfloat16
    for bad in (np.zeros(3), torch.zeros(3, dtype=torch.int64), torch.tensor(0.0)):
        with pytest.raises(TypeError, match="WrappedNormal: loc"):
            nn.WrappedNormal(bad)
    with pytest.raises(ValueError, match="model"):
        nn.WrappedNormal(torch.zeros(2), model="sphere")
    with pytest.raises(ValueError, match="scale"):
        nn.WrappedNormal(torch.zeros(2), -1.0)
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)  # what torch.compile does
    try:
        with pytest.raises(ValueError, match=r"WrappedNormal: scale must be positive, got 0\.0"):
            nn.WrappedNormal(torch.zeros(2), torch.tensor([0.5, 0.0]))
        nn.WrappedNormal(torch.zeros(2), -1.0, validate_args=False)
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def test_no_density_outside_the_ball():
    q = nn.WrappedNormal(torch.tensor([0.1, 0.2]), 0.5, 0.7, validate_args=False)
    density = q.log_prob(torch.tensor([[0.3, 0.1], [1.2, 0.0], [9.0, -9.0]]))
    assert density.isnan().tolist() == [False, True, True]
    assert nn.WrappedNormal(torch.tensor([1.2, 0.0]), 0.5, 0.7).log_prob(torch.tensor([0.1, 0.2])).isnan()
