"""Points spread evenly. The one rule: shares of the volume are what they are by its integral."""

import math

import pytest
import torch
from scipy import integrate, stats
from tersor import hyperbolic, lorentz, nn


def share(r, most, c, d):
    area = (lambda t: math.sinh(c**0.5 * t) ** (d - 1)) if c else (lambda t: t ** (d - 1))
    return integrate.quad(area, 0, r)[0] / integrate.quad(area, 0, most)[0]


@pytest.mark.parametrize(
    ("d", "most", "c"), [(1, 2.0, 1.0), (2, 8.0, 1.0), (2, 1.0, 0.0), (3, 6.0, 0.5), (5, 0.3, 2.0)]
)
@pytest.mark.parametrize("model", ["ball", "lorentz"])
def test_radii_have_their_share_of_the_volume(d, most, c, model):
    q = nn.UniformDisk(d, torch.tensor(most, dtype=torch.float64), c, model=model)
    u = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)
    got = [share(float(r), most, c, d) for r in q._radii(u)]
    torch.testing.assert_close(torch.tensor(got), u, rtol=1e-7, atol=1e-8, check_dtype=False)
    torch.manual_seed(0)
    x = q.sample((400,))
    assert x.shape == (400, d) and x.dtype == torch.float64
    r = {"ball": hyperbolic, "lorentz": lorentz}[model].dist0(x, c)
    assert (r <= most * (1 + 1e-9)).all()
    shares = [share(float(v), most, c, d) for v in r[:100]]
    assert stats.kstest(shares, "uniform").pvalue > 1e-3
    assert (x.mean(0).abs() < 0.3 * x.abs().max()).all()


def test_density():
    q = nn.UniformDisk(2, torch.tensor([1.0, 3.0], dtype=torch.float64), 0.7)
    volume = 2 * math.pi / 0.7 * (torch.cosh(0.7**0.5 * q.radius) - 1)
    x = hyperbolic.expmap0(torch.tensor([[0.9, 0.0]], dtype=torch.float64), 0.7)  # 1.8 away
    p = q.log_prob(x)
    assert p[0] == -math.inf
    torch.testing.assert_close(p[1], -volume[1].log(), rtol=1e-12, atol=0)
    assert q.log_prob(torch.tensor([2.0, 0.0], dtype=torch.float64)).isnan().all()
    assert q.expand((3, 2)).sample((4,)).shape == (4, 3, 2, 2)


@pytest.mark.parametrize("d", [2, 4])
def test_gradients_are_those_of_the_radii(d):
    u = torch.tensor([0.1, 0.6], dtype=torch.float64)
    most, c = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 0.8))
    assert torch.autograd.gradcheck(lambda r, c: nn.UniformDisk(d, r, c, validate_args=False)._radii(u), (most, c))


def test_refused():
    for bad in (0.0, -1.0):
        with pytest.raises(ValueError, match="radius"):
            nn.UniformDisk(2, bad)
    with pytest.raises(ValueError, match="UniformDisk: dim"):
        nn.UniformDisk(0, 1.0)
    with pytest.raises(ValueError, match="UniformDisk: model"):
        nn.UniformDisk(2, 1.0, model="klein")


def test_what_is_no_disk_or_no_point_of_it_is_refused() -> None:
    for radius, c, error in ((float("inf"), 1.0, ValueError), (1.0, -1.0, ValueError), ("a", 1.0, TypeError)):
        with pytest.raises(error, match="UniformDisk: "):
            nn.UniformDisk(2, radius, c)
    for radius, c in ((710.0, 1.0), (800.0, 4.0)):
        with pytest.raises(ValueError, match="UniformDisk: the hyperboloid's points in torch"):
            nn.UniformDisk(2, torch.tensor(radius, dtype=torch.float64), c, model="lorentz")
    with pytest.raises(ValueError, match="UniformDisk: points of 2 coordinates are needed"):
        nn.UniformDisk(2, 1.0).log_prob(torch.zeros(3))


@pytest.mark.parametrize(
    ("d", "radius", "model", "dtype"),
    [
        (2, 10.0, "ball", torch.float32),
        (2, 17.0, "ball", torch.float32),
        (3, 12.0, "ball", torch.float32),
        (2, 80.0, "lorentz", torch.float32),
        (2, 5.0, "ball", torch.float16),
        (2, 1e-4, "ball", torch.float16),
        (3, 12.0, "ball", torch.float16),  # of which half the samples are rounded to the edge of the ball
        (2, 3.0, "lorentz", torch.bfloat16),
        (2, 36.0, "ball", torch.float64),
        (5, 36.0, "lorentz", torch.float64),
        (1, 1e-40, "ball", torch.float32),
    ],
)
def test_every_sample_is_in_the_disk(d, radius, model, dtype):
    """Also one that its type rounds out of it: a sample without a density spoils every mean of logarithms."""
    torch.manual_seed(0)
    q = nn.UniformDisk(d, torch.tensor(radius, dtype=dtype), model=model)
    assert q.log_prob(q.sample((20000,))).isfinite().all()


@pytest.mark.parametrize(
    "make", [lambda c: nn.UniformDisk(2, 1.0, c), lambda c: nn.WrappedNormal(torch.zeros(2), 1.0, c)]
)
def test_what_is_no_curvature_is_refused_by_name(make):
    who = "^(UniformDisk|WrappedNormal): "
    for c in ("a", None, [1.0], True):
        with pytest.raises(TypeError, match=who + "c must be a number, a tensor or a Curvature, got"):
            make(c)
    with pytest.raises(TypeError, match=who + "c must be of a float type, got int64"):
        make(torch.tensor(1))
    for c in (-1.0, math.nan, torch.tensor(math.inf)):
        with pytest.raises(ValueError, match=who + "curvature must be finite"):
            make(c)
    for c in (torch.tensor([1.0, 2.0]), nn.Curvature([1.0, 2.0])):
        with pytest.raises(ValueError, match=who + r"c must be a number or of 0 axes.*, got shape \(2,\)"):
            make(c)
    with pytest.raises(TypeError, match=r"^WrappedNormal: scale must be a number or a tensor, got str"):
        nn.WrappedNormal(torch.zeros(2), "a")
    with pytest.raises(TypeError, match=r"^UniformDisk: model must be a string, got list"):
        nn.UniformDisk(2, 1.0, model=[])


@pytest.mark.parametrize("d", [1, 2])
def test_disks_of_any_radius(d):
    """Where sines and squares of radii are beyond float64."""
    share = torch.tensor([1e-200, 0.1, 0.5, 1.0], dtype=torch.float64)
    for radius in (600.0, 650.0, 700.0, 2000.0, 1e6):
        r = nn.UniformDisk(d, torch.tensor(radius, dtype=torch.float64))._radii(share)
        want = (
            share * radius if d == 1 else radius + share.log() / (d - 1)
        )  # of exp((d - 1) r) / 2 for all that is drawn
        torch.testing.assert_close(r, want, rtol=1e-12, atol=0)
    assert nn.UniformDisk(d, 1e4).sample((5,)).isfinite().all()
    assert nn.UniformDisk(d, 88.0, model="lorentz").sample((5,)).isfinite().all()
    with pytest.raises(ValueError, match="end before this radius"):
        nn.UniformDisk(d, 90.0, model="lorentz")
