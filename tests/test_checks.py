"""Whether rows are points. The one rule: the operators are asked, so that a row is a point where they have numbers for it."""

import math

import numpy as np
import pytest
import tersor.hyperbolic as h
import torch
from tersor import lorentz, optim
from tersor.testing import EPS

NARROW = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
both = pytest.mark.parametrize("like", [np.asarray, torch.tensor], ids=["numpy", "torch"])


@pytest.mark.parametrize("c", [0.3, 1.0])
@pytest.mark.parametrize("dtype", NARROW)
def test_the_last_number_inside(dtype, c):
    x = h.project(torch.randn(500, 7, generator=torch.Generator().manual_seed(0)).to(dtype) * 30, c)
    assert h.is_point(x, c).all()
    h.check_points(x, c)
    eps = EPS[str(dtype).removeprefix("torch.")]
    past = x.double() * (1 + 8 * eps)
    assert not h.is_point(past.to(dtype), c).any()
    assert torch.equal(h.is_point(past.to(dtype), c), h.dist0(past.to(dtype), c).isfinite())


@both
def test_rows_that_are_points(like):
    x = np.array([[0.3, 0.4], [1.0, 0.0], [1.2, 0.0], [np.nan, 0.0], [np.inf, 0.0], [1e200, 0.0], [1e-300, 5e-324]])
    ball, flat, upper = [1, 0, 0, 0, 0, 0, 1], [1, 1, 1, 0, 0, 1, 1], [1, 1, 1, 0, 0, 1, 1]
    for f, c, want in (
        (h, 1.0, ball),
        (h, 0.0, flat),
        (h, like(0.0), flat),
        (h, like(np.full((7, 1), 0.0)), flat),
        (lorentz, 1.0, upper),
        (lorentz, 0.0, flat),
        (lorentz, like(0.0), flat),
    ):
        np.testing.assert_array_equal(np.asarray(f.is_point(like(x), c)), np.array(want, bool))
        assert f.is_point(like(x), c, keepdim=True).shape == (7, 1)
        assert f.is_point(like(x.T.copy()), like(0.0), dim=0, keepdim=True).shape == (1, 7)
        f.check_points(like(x)[np.flatnonzero(want)], c if np.ndim(c) < 2 else 0.0)
    per = np.array([[1.0], [3.0], [5.0]])
    np.testing.assert_array_equal(np.asarray(h.is_point(like(x[:1]), like(per))), [True, True, False])
    assert h.is_point(like(x[:0])).shape == (0,) and h.is_point(like(np.zeros((3, 0)))).all()


@both
def test_the_first_that_is_none_is_named(like):
    x = np.zeros((2, 3, 2))
    h.check_points(like(x))
    x[1, 2] = [0.5, 1.2]
    with pytest.raises(
        ValueError, match=r"^check_points: row 1, 2 is no point of the ball: its length is 1\.3, not below 1"
    ):
        h.check_points(like(x))
    with pytest.raises(ValueError, match=r"row 1, 2 .* not below 0\.5"):
        h.check_points(like(x.swapaxes(1, 2).copy()), 4.0, dim=1)
    with pytest.raises(ValueError, match=r"row 0, 1 .* not below 0\.25"):
        h.check_points(like(x + 0.2), like(np.array([[1.0], [16.0], [1.0]])))
    with pytest.raises(ValueError, match=r"check_points: x is no point of the ball"):
        h.check_points(like(x[1, 2]))
    x[0, 1, 1] = np.nan
    for f in (h, lorentz):
        with pytest.raises(ValueError, match=r"^check_points: row 0, 1 is no point: it holds nan"):
            f.check_points(like(x))
        with pytest.raises(ValueError, match="curvature"):
            f.check_points(like(x), -1.0)
        with pytest.raises(TypeError):
            f.check_points(like(np.zeros((2, 3), np.int64)))
    with pytest.raises(ValueError, match=r"row 0 is no point: its time is beyond float64"):
        lorentz.check_points(like(np.array([[1e300, 0.0]])), 1e30)


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_points(like, dtype):
    s = np.random.default_rng(0).standard_normal((50, 6)) * np.logspace(-3, 12, 50)[:, None]
    x = lorentz.add_time(s.astype(dtype), 0.7)
    assert lorentz.is_point(like(x), 0.7, with_time=True).all()
    lorentz.check_points(like(x), 0.7, with_time=True)
    assert not np.asarray(lorentz.is_point(like(x), 0.8, with_time=True))[:10].any()
    for other in (-x, x * [1.01, 1, 1, 1, 1, 1, 1]):
        assert not np.asarray(lorentz.is_point(like(other.astype(dtype)), 0.7, with_time=True)).any()
    x[3, 0] = 2.0
    with pytest.raises(ValueError, match=r"row 3 is no point: its time is 2, that of its space part 1\.19"):
        lorentz.check_points(like(x), 0.7, with_time=True)
    with pytest.raises(ValueError, match="have a time"):
        lorentz.is_point(like(x[:, :0]), with_time=True)


def test_in_a_trace():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    for f in (h.is_point, lorentz.is_point):
        assert torch.equal(torch.compile(lambda x, f=f: f(x, 0.7), fullgraph=True)(x), f(x, 0.7))
        assert not f(x, 0.7).requires_grad
        torch.testing.assert_close(torch.func.vmap(lambda x, f=f: f(x, 0.7))(x), f(x, 0.7))
    for f in (h.check_points, lorentz.check_points):
        f(x / 9)
        torch._dynamo.reset()
        traced = torch.compile(lambda x, f=f: (f(x), x + 1)[1], backend="eager")
        assert torch.equal(traced(x / 9), x / 9 + 1)  # behind a break of the graph
        with pytest.raises(ValueError, match=r"^check_points: row 0 is no point"):
            traced(x * math.nan)
        torch._dynamo.reset()
        with pytest.raises(Exception, match="numbers are read here, which no trace can"):
            torch.compile(lambda x, f=f: (f(x), x + 1)[1], backend="eager", fullgraph=True)(x)
        with pytest.raises(TypeError, match="meta"):
            f(x.to("meta"))


@pytest.mark.parametrize("kind", [optim.RiemannianSGD, optim.RiemannianAdam])
def test_points_are_brought_inside_now_and_then(kind):
    """Also those that a sparse gradient does not name, in a ball that somebody else has made smaller."""
    x = h.expmap0(torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3)
    p, c = torch.nn.Parameter(x.clone()), torch.tensor(1.0, dtype=torch.float64)
    o = kind([p], lr=0.01, c=c, stabilize=3)
    c.fill_(4.0)
    for i in range(1, 7):
        p.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 3, dtype=torch.float64), (6, 3))
        o.step()
        assert bool(h.is_point(p.detach(), c).all()) == (i >= 3)
    assert torch.equal(p.detach()[0], h.project(x, c)[0])
    c.fill_(9.0)
    o.stabilize()
    h.check_points(p.detach(), c)
    o = kind([torch.nn.Parameter(x.clone())], c=1.0, model="lorentz", stabilize=1)
    o.param_groups[0]["params"][0].grad = torch.zeros_like(x)
    o.step()
    assert torch.equal(o.param_groups[0]["params"][0].detach(), x)
    for bad in (0, -1, 1.5, True):
        with pytest.raises((TypeError, ValueError), match=f"{kind.__name__}: stabilize"):
            kind([p], c=1.0, stabilize=bad)
