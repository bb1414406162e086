"""Means, maps and layers of the hyperboloid. The one rule: they are those of whole points, written out, or of the ball."""

import math

import numpy as np
import pytest
import tersor.hyperbolic as h
import tersor.lorentz as lorentz
import torch
from tersor import nn

C = 0.7


def points(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def whole(x, c=C):
    return torch.cat([(1 / c + x.square().sum(-1, keepdim=True)).sqrt(), x], -1)


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=atol)


def randomly(layer):
    for i, p in enumerate(layer.parameters()):
        if p.shape:
            p.data = points(*p.shape, seed=i + 1, scale=0.5)
    return layer.double().requires_grad_()


@pytest.mark.parametrize("lift", [np.asarray, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("dim", [-1, 0])
def test_times_come_and_go(lift, dim):
    x = lift(points(3, 4).numpy())
    y = lorentz.add_time(x, C, dim=dim)
    time = y[..., 0] if dim else y[0]
    np.testing.assert_allclose(time**2 - (x**2).sum(dim), 1 / C, rtol=1e-13)
    back = lorentz.drop_time(y, dim=dim)
    assert type(back) is type(x) and np.array_equal(back, x)
    assert np.isnan(np.asarray(lorentz.drop_time(-y, dim=dim))).all()
    with pytest.raises(ValueError, match="drop_time"):
        lorentz.drop_time(x[:, :0])


@pytest.mark.parametrize("c", [0.0, 1e-9, 0.7, 3.0])
def test_hyperplanes_are_those_of_the_ball(c):
    x, z, a = points(6, 4), points(3, 4, seed=1), points(3, seed=2)
    ball = lorentz.to_poincare(x, c)
    logits = lorentz.mlr(x, z, a, c)
    close(logits, h.poincare_mlr(ball, z.T / 2, a / 2, c))
    close(lorentz.to_poincare(lorentz.fc(x, z, a, c), c), h.poincare_fc(ball, z.T / 2, a / 2, c))
    close(lorentz.fc(x, torch.eye(4, dtype=x.dtype), None, c), x)
    if c >= 0.7:  # the formula of the paper, and that it is a distance
        root, n = math.sqrt(c), z.norm(dim=1)
        inner = x @ (z / n[:, None]).T * (root * a).cosh() - whole(x, c)[:, :1] * (root * a).sinh()
        close(logits, n / root * (root * inner).asinh())
        foot = lorentz.expmap0(a[:, None] * z / n[:, None], c)
        close(lorentz.mlr(foot, z, a, c).diagonal(), torch.zeros(3, dtype=x.dtype))
    close(
        torch.from_numpy(lorentz.mlr(x.numpy(), z.numpy(), a.numpy(), c)), logits
    )  # the products are each library's own


def test_hyperplanes_far_out():
    """Where the ball of the data's type has ended."""
    x = lorentz.expmap0(torch.tensor([[30.0, 0.0], [40.0, 40.0]]))
    z = torch.tensor([[1.0, 0.0], [0.6, -0.8]])
    want = (x.double() @ z.double().T).asinh()
    torch.testing.assert_close(lorentz.mlr(x, z).double(), want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("c", [0.0, 0.7])
def test_midpoints_by_a_matrix(c):
    x, w = points(5, 3), points(2, 4, 5, seed=1).exp()
    got = lorentz.weighted_midpoint_bmm(x, w, c)
    close(got, lorentz.midpoint(x.expand(2, 4, 5, 3), w, c))
    ball = lorentz.to_poincare(x, c)
    close(h.weighted_midpoint_bmm(ball, w, c), h.weighted_midpoint(ball.expand(2, 4, 5, 3), w, c, reducedim=[2]))
    close(lorentz.to_poincare(got, c), h.weighted_midpoint_bmm(ball, w, c))
    for family in (lorentz, h):
        f = family.weighted_midpoint_bmm
        a, b = f(ball.numpy(), w.numpy(), c), f(ball, w, c).numpy()
        # of the row's length: a coordinate in which points cancel has no digits of its own
        assert (np.linalg.norm(a - b, axis=-1) <= 1e-14 * np.linalg.norm(b, axis=-1)).all()
        assert (f(ball, 0 * w, c) == 0).all()
        with pytest.raises(ValueError, match="weighted_midpoint_bmm: weights"):
            f(ball, w[..., :3], c)
        with pytest.raises(TypeError, match="weighted_midpoint_bmm: weights"):
            f(ball, w.float(), c)
        args = (
            lorentz.to_poincare(x, 0.7).requires_grad_(),
            w[0].clone().requires_grad_(),
            torch.tensor(0.7).double().requires_grad_(),
        )
        assert torch.autograd.gradcheck(f, args) and torch.autograd.gradgradcheck(f, args)


def test_frechet_mean():
    x, w = points(2, 6, 3), points(2, 6, seed=1).exp()
    ball = lorentz.to_poincare(x, C)
    close(lorentz.frechet_mean(x, w, C), lorentz.from_poincare(h.frechet_mean(ball, w, C), C))
    mean = lorentz.frechet_mean(x, c=C)
    spread = lorentz.dist2(x, mean[:, None], C).mean(-1)
    close(lorentz.frechet_variance(x, c=C), spread)
    close(lorentz.logmap(mean[:, None], x, C).mean(1), torch.zeros(2, 3, dtype=x.dtype))
    close(lorentz.frechet_mean(x, w, 0.0), (w[..., None] * x).sum(1) / w.sum(1)[..., None])
    np.testing.assert_allclose(lorentz.frechet_mean(x.numpy(), w.numpy(), C), lorentz.frechet_mean(x, w, C))
    assert lorentz.frechet_mean(torch.tensor([[1e20, 0.0]])).isnan().all()  # 46 from the origin
    args = (x[0].requires_grad_(), w[0].requires_grad_(), torch.tensor(0.7).double().requires_grad_())
    assert torch.autograd.gradcheck(lorentz.frechet_mean, args)
    with pytest.raises(ValueError, match="frechet_mean: x"):
        lorentz.frechet_mean(x[0, 0])
    with pytest.raises(TypeError, match="frechet_mean: weights"):
        lorentz.frechet_mean(x, w.float())


def test_linear_is_a_map_of_whole_points():
    layer = randomly(nn.LorentzLinear(4, 3, c=C))
    x = points(5, 4)
    close(layer(x), whole(x) @ layer.weight.T + layer.bias)
    fresh = nn.LorentzLinear(4, 3, c=C)
    assert (fresh.weight[:, 0] == 0).all() and (fresh.weight[:, 1:] != 0).all()
    close(randomly(nn.LorentzLinear(4, 3, c=C, planes=True))(x).shape, torch.Size([5, 3]))
    for make in (nn.LorentzLinear, nn.LorentzAttention):
        with pytest.raises(ValueError, match=rf"{make.__name__}: c must be positive"):
            make(4, 2, c=0.0)
    nn.LorentzLinear(4, 3, c=0.0, planes=True)


def test_logits():
    layer = randomly(nn.LorentzMLR(4, 3, c=C))
    x = points(5, 4)
    close(layer(x), lorentz.mlr(x, layer.weight, layer.bias, C))
    with pytest.raises(ValueError, match="LorentzMLR"):
        layer(x[:, :3])


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2)])
def test_convolution_is_a_map_of_concatenated_points(stride, padding, dilation):
    layer = randomly(nn.LorentzConv2d(3, 5, (3, 2), stride, padding, dilation, c=C))
    x = points(2, 3, 7, 6)
    patches = torch.nn.functional.unfold(x, (3, 2), dilation, padding, stride).movedim(1, -1)
    want = whole(patches) @ torch.cat([layer.time[:, None], layer.weight.flatten(1)], 1).T + layer.bias
    got = layer(x)
    close(got.flatten(2).movedim(1, -1), want)
    close(layer(x[0]), got[0])
    with pytest.raises(ValueError, match=r"LorentzConv2d: images \[B, 3, H, W\]"):
        layer(x[:, :2])
    with pytest.raises(ValueError, match="LorentzConv2d: stride"):
        nn.LorentzConv2d(3, 5, 3, 0)


def test_batch_norm():
    layer = nn.LorentzBatchNorm(3, 1e-12, momentum=0.5, c=C).double()
    layer.weight.data[0], layer.bias.data[:] = 0.6, torch.tensor([0.2, -0.1, 0.3])
    x = points(8, 3)
    y = layer(x)
    to, m = lorentz.expmap0(2 * layer.bias, C), lorentz.midpoint(x, c=C)
    spread = lorentz.dist2(x, m, C).mean().sqrt()
    v = lorentz.parallel_transport(m, to, lorentz.logmap(m, x, C), C)
    close(y, lorentz.expmap(to, v * (0.6 / spread), C), atol=1e-9)
    close(lorentz.dist2(y, to, C).mean(), torch.tensor(0.36, dtype=torch.float64), atol=1e-9)
    layer.eval()
    assert layer(x).isfinite().all() and not torch.equal(layer(x), y)


def test_attention():
    layer = randomly(nn.LorentzAttention(6, 2, c=C))
    x = points(3, 5, 6)
    mask = torch.ones(5, 5).tril().bool()
    mask[0] = False
    q, k, v = ((whole(x) @ a.weight.T + a.bias) for a in (layer.q, layer.k, layer.v))
    heads = []
    for i in range(2):
        at = slice(3 * i, 3 * i + 3)
        d = lorentz.dist(q[:, :, None, at], k[:, None, :, at], C)
        w = torch.softmax((-layer.log_scale[i].exp() * d).masked_fill(~mask, -torch.inf), -1).nan_to_num(0)
        sums = w @ whole(v[..., at])
        square = sums[..., :1].square() - sums[..., 1:].square().sum(-1, keepdim=True)
        heads.append(sums[..., 1:] / torch.where(square > 0, C * square, 1).sqrt())
    y = torch.cat(heads, -1)
    close(layer(x, mask=mask), whole(y) @ layer.out.weight.T + layer.out.bias, atol=1e-10)
    with pytest.raises(ValueError, match="LorentzAttention: 4 heads"):
        nn.LorentzAttention(6, 4)


def test_curvature_by_row():
    """Distances with a curvature for each row of x are those of pairs; a row of y may lie outside the balls of some."""
    x, y = points(4, 3, scale=0.2), points(6, 3, seed=1, scale=0.2)
    y[0] = torch.tensor([0.9, 0.9, 0.0])
    c = torch.tensor([[0.3], [1.0], [0.0], [1e-9]], dtype=torch.float64)
    got = h.cdist(x, y, c)
    want = h.dist(x[:, None], y, c[:, None])
    torch.testing.assert_close(got, want, rtol=1e-13, atol=0, equal_nan=True)
    assert got.isnan().nonzero().tolist() == [[1, 0]]
    np.testing.assert_allclose(h.cdist(x.numpy(), y.numpy(), c.numpy()), want, rtol=1e-13)
    near, at = h.knn(x, y, 5, c)
    order, places = want.sort(-1)
    torch.testing.assert_close(near, order[:, :5], rtol=1e-13, atol=0)
    assert torch.equal(at, places[:, :5])
    assert h.knn(x, y, 6, c)[1][1, -1] == -1
    assert torch.equal(h.knn(x, x, 1, c, skip_self=True)[1], h.knn(x, x, 2, c)[1][:, 1:])
    args = (x.requires_grad_(), y.requires_grad_(), c[:2].requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y, c: h.cdist(x[:2], y[1:], c), args)
    far = torch.autograd.grad(h.cdist(x[:1], y, c[:1].detach()).sum(), y)[0]
    assert far.isfinite().all()
    # at the edge, to the last digits
    edge = torch.tensor([[1 - 1e-13, 0.0], [0.0, 0.6]], dtype=torch.float64)
    c = torch.tensor([[1.0], [1 - 1e-9]], dtype=torch.float64)
    close(h.cdist(edge.flip(0), edge, c), h.dist(edge.flip(0)[:, None], edge, c[:, None]))
    with pytest.raises(ValueError, match="cdist: c must be a number or one for each row of x"):
        h.cdist(x, y, c[:1, 0].expand(3))
    with pytest.raises(ValueError, match="curvature"):
        h.cdist(x, y, -torch.ones(4, 1))


def test_frechet_mean_with_curvatures():
    x = points(3, 5, 2, scale=0.2)
    c = torch.tensor([[0.3], [1.0], [0.0]], dtype=torch.float64)
    for f in (h.frechet_mean, h.frechet_variance):
        each = torch.stack([f(x[i], c=c[i, 0]) for i in range(3)])
        close(f(x, c=c), each)
        np.testing.assert_allclose(f(x.numpy(), c=c.numpy()), each, rtol=1e-12)
    args = (x.requires_grad_(), c[:2].requires_grad_())
    assert torch.autograd.gradcheck(lambda x, c: h.frechet_mean(x[:2], c=c), args)
    for bad in (c[:2], c[:, 0]):
        with pytest.raises(ValueError, match=r"frechet_mean: .*c "):
            h.frechet_mean(x, c=bad)
