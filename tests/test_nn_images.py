"""Hyperbolic layers on batches and images against what they are made of: patches, midpoints, points of the ball."""

import io

import pytest
import tersor.hyperbolic as h

torch = pytest.importorskip("torch")

from tersor import nn as tnn  # noqa: E402
from torch.nn.functional import unfold  # noqa: E402

CURVATURES = (0.0, 1e-9, 0.5, 1.0, 4.0)


def randomly(layer, size=0.1, seed=0):
    """The layer in float64 with all its parameters moved."""
    layer = layer.double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p) * size)
    return layer


def images(*shape, size=0.3, seed=1):
    torch.manual_seed(seed)
    return (torch.randn(*shape, dtype=torch.float64) * size).requires_grad_()


@pytest.mark.parametrize("last", [False, True], ids=["channels-first", "channels-last"])
@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize(
    "shape", [(3, 1, 1, 1), (3, 2, 0, 1), ((2, 3), (1, 2), (1, 0), (2, 1)), (1, 1, 0, 1), (5, 1, 4, 2)]
)
def test_convolution_is_the_layer_on_patches(shape, c, last):
    layer = randomly(tnn.PoincareConv2d(5, 7, *shape, c=c))
    x = images(2, 5, 9, 8)
    seen = x.contiguous(memory_format=torch.channels_last) if last else x
    y = layer(seen)
    patches = unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2) * layer.scale
    want = h.poincare_fc_tangent(patches, layer.weight.flatten(1).t(), layer.bias, layer.curvature())
    want = want.transpose(1, 2).reshape(y.shape)
    assert y.shape == torch.nn.functional.conv2d(x, layer.weight, None, *map(layer.__getattribute__, WAY)).shape
    assert torch.allclose(y, want, rtol=1e-12, atol=1e-14)
    g = torch.randn_like(y)
    parameters = [x, *layer.parameters()]
    for a, b in zip(torch.autograd.grad(y, parameters, g), torch.autograd.grad(want, parameters, g), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12 * float(b.abs().max()))


WAY = ("stride", "padding", "dilation")


def test_a_kernel_of_one_pixel_is_the_linear_layer():
    conv, linear = randomly(tnn.PoincareConv2d(4, 6, 1)), tnn.PoincareLinear(4, 6).double()
    linear.load_state_dict({k: v.flatten(1) if v.ndim == 4 else v for k, v in conv.state_dict().items()})
    x = images(2, 4, 3, 3)
    assert torch.allclose(conv(x).movedim(1, -1), linear(x.movedim(1, -1)), rtol=1e-13)
    fresh = tnn.PoincareConv2d(4, 4, 1).double()
    assert torch.allclose(fresh(x), x, rtol=1e-13)


@pytest.mark.parametrize("shape", [(2, 5, 3), (5, 2, 3), (4, 4, 3)])
def test_any_shape_starts_with_the_middle_pixel(shape):
    i, o, k = shape
    layer = tnn.PoincareConv2d(i, o, k, padding=1, c=0.0).double()
    x = images(2, i, 6, 6)
    same = min(i, o)
    y = layer(x) / layer.scale
    assert torch.allclose(y[:, :same], x[:, :same], rtol=1e-12)
    assert not y[:, same:].any()


def test_convolution_gradcheck():
    layer = randomly(tnn.PoincareConv2d(2, 3, 2, padding=1, learnable=True, c=0.6))
    names = [k for k, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(run, (images(1, 2, 3, 3), *layer.parameters()))


def test_convolution_saves_the_input_and_the_product():
    x = torch.randn(8, 32, 16, 16, requires_grad=True)

    def saved(layer):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.update({t.untyped_storage().data_ptr(): t.nbytes}) or t, lambda t: t
        ):
            layer(x)
        return sum(kept.values())

    plain = saved(torch.nn.Conv2d(32, 32, 3, padding=1))
    assert saved(tnn.PoincareConv2d(32, 32, 3, padding=1)) <= 2 * plain


@pytest.mark.parametrize("c", CURVATURES)
def test_beta(c):
    x = images(4, 12)
    for ball in (False, True):
        p = h.expmap0(x, c) if ball else x
        parts = tnn.beta_split(p, [3, 5, 4], c=c, ball=ball)
        assert [q.shape[-1] for q in parts] == [3, 5, 4]
        assert torch.allclose(tnn.beta_concat(parts, c=c, ball=ball), p, rtol=1e-12)
    # the expected length of a vector of the ball of one radius is kept
    torch.manual_seed(0)
    u = torch.randn(20000, 64, dtype=torch.float64)
    parts = tnn.beta_split(u, 16)
    means = [q.norm(dim=-1).mean() / tnn.beta_ratio(64, 16) / u.norm(dim=-1).mean() for q in parts]
    ratio = tnn.beta_ratio(16, 64)
    assert all(abs(m / ratio - 1) < 0.02 for m in means)


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("length", [0.0, 1e-8, 0.1, 1.0])
def test_tangent_add(c, length):
    size = max(1.0, c) ** 0.5
    u, v = images(20, 5, size=length / size), images(20, 5, size=0.4 / size, seed=2)
    curved = torch.tensor(c, dtype=torch.float64)
    y = tnn.tangent_add(u, v, curved)
    want = h.logmap0(h.mobius_add(h.expmap0(u, c), h.expmap0(v, c), c), c)
    assert torch.allclose(y, want, rtol=1e-9, atol=1e-12)
    g = torch.randn_like(y)
    for a, b in zip(torch.autograd.grad(y, (u, v), g), torch.autograd.grad(want, (u, v), g), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


def test_tangent_add_far_out_and_cancelling():
    v = torch.randn(10, 6, dtype=torch.float64)
    v = v / v.norm(dim=-1, keepdim=True)
    for r in (5.0, 20.0, 80.0):
        # the direction of r v is rounded, and counts sinh(2r) times
        assert torch.allclose(tnn.tangent_add(r * v, 0.5 * v, 1.0), (r + 0.5) * v, rtol=1e-14)
        assert torch.allclose(tnn.tangent_add(r * v, -r * v, 1.0), torch.zeros_like(v), atol=1e-12)
        single = tnn.tangent_add((r * v).float(), (0.5 * v).float(), 1.0)
        assert torch.allclose(single.double(), (r + 0.5) * v, rtol=1e-6)


@pytest.mark.parametrize("c", [0.0, 0.7])
def test_tangent_add_gradcheck(c):
    curved = torch.tensor(c + 1e-5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tnn.tangent_add, (images(3, 4), images(3, 4, seed=5), curved))


@pytest.mark.parametrize("ball", [False, True])
def test_residual_runs_along_channels(ball):
    block = tnn.PoincareConv2d(4, 4, 1, ball=ball).double()
    x = images(2, 4, 3, 5)
    x = h.expmap0(x, 1.0, dim=1) if ball else x
    y = tnn.PoincareResidual(block, ball=ball)(x)
    rows = x.movedim(1, -1)
    points = rows if ball else h.expmap0(rows, 1.0)
    want = h.mobius_scalar_mul(2.0, points, 1.0)
    want = want if ball else h.logmap0(want, 1.0)
    assert torch.allclose(y.movedim(1, -1), want, rtol=1e-9)


@pytest.mark.parametrize("ball", [False, True])
@pytest.mark.parametrize("c", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("shape", [(50, 6), (4, 6, 3, 5)])
def test_batch_norm(shape, c, ball):
    layer = tnn.PoincareBatchNorm(6, c=c, ball=ball, epsilon=1e-12).double()
    with torch.no_grad():
        layer.weight.fill_(0.6)
    x = images(*shape) + 0.2
    x = h.expmap0(x, c, dim=1) if ball else x
    y = layer(x)
    assert y.shape == x.shape
    rows = y.movedim(1, -1).reshape(-1, 6)
    points = rows if ball else h.expmap0(rows, c)
    # the spread is exact; the midpoint is, where scaling does not bend it
    assert h.dist0(points, c).square().mean().item() == pytest.approx(0.36, rel=1e-9)
    with torch.no_grad():
        middle = h.weighted_midpoint((x if ball else h.expmap0(x, c, dim=1)).movedim(1, -1).reshape(-1, 6), None, c)
        spread = h.dist(
            (x if ball else h.expmap0(x, c, dim=1)).movedim(1, -1).reshape(-1, 6), middle.expand(rows.shape), c
        )
        layer.weight.copy_(spread.square().mean().sqrt())
        layer.bias.copy_(torch.linspace(-0.2, 0.2, 6))
        y = layer(x).movedim(1, -1).reshape(-1, 6)
        target = h.expmap0(layer.bias, c)
        moved = y if ball else h.expmap0(y, c)
        # with the scale that it has, a batch is carried whole: midpoint and every distance
        assert h.dist(h.weighted_midpoint(moved, None, c), target, c).item() < 1e-7
        assert torch.allclose(h.dist(moved, target.expand(rows.shape), c), spread, rtol=1e-7)
        # and as by log, transport, exp
        points = (x if ball else h.expmap0(x, c, dim=1)).movedim(1, -1).reshape(-1, 6)
        there = h.parallel_transport(
            middle.expand(rows.shape), target.expand(rows.shape), h.logmap(middle.expand(rows.shape), points, c), c
        )
        assert torch.allclose(h.expmap(target.expand(rows.shape), there, c), moved, rtol=1e-7, atol=1e-9)


def test_batch_norm_evaluates_by_running_statistics():
    layer = tnn.PoincareBatchNorm(4, momentum=0.5).double()
    for seed in range(40):
        layer(images(200, 4, seed=seed) + 0.3)
    assert layer.num_batches_tracked == 40
    points = h.expmap0(images(4000, 4, seed=99) + 0.3, 1.0)
    middle = h.expmap0(layer.running_mean, 1.0)  # a tangent vector, as what comes in
    assert h.dist(middle, h.weighted_midpoint(points, None, 1.0), 1.0) < 0.1
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    layer.eval()
    x = images(30, 4, seed=7) - 0.5
    whole, single = layer(x), torch.cat([layer(x[i : i + 1]) for i in range(30)])
    assert torch.allclose(whole, single, rtol=1e-12)  # a row does not see the others
    u = h.mobius_add(-middle, h.expmap0(x, 1.0), 1.0)
    u = h.mobius_scalar_mul((layer.running_var + layer.epsilon).rsqrt(), u, 1.0)
    want = h.logmap0(h.gyration(torch.zeros(4, dtype=torch.float64), -middle, u, 1.0), 1.0)
    assert torch.allclose(whole, want, rtol=1e-10)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    layer.reset_running_stats()
    assert not layer.running_mean.any() and layer.running_var == 1


def test_batch_norm_gradcheck():
    layer = randomly(tnn.PoincareBatchNorm(3, learnable=True, c=0.6))
    names = [k for k, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(run, (images(5, 3), *layer.parameters()))


@pytest.mark.parametrize("ball", [False, True])
def test_pooling_is_the_midpoint_of_windows(ball):
    x = images(2, 3, 6, 4)
    p = h.expmap0(x, 1.0, dim=1)
    y = tnn.PoincareAvgPool2d(2, ball=ball)(p if ball else x)
    y = y if ball else h.expmap0(y, 1.0, dim=1)
    window = p[1, :, 2:4, 2:4].flatten(1).t()
    assert torch.allclose(y[1, :, 1, 1], h.weighted_midpoint(window, None, 1.0), rtol=1e-10)
    whole = tnn.PoincareAvgPool2d(ball=True)(p)
    assert whole.shape == (2, 3, 1, 1)
    assert torch.allclose(whole[0, :, 0, 0], h.weighted_midpoint(p[0].flatten(1).t(), None, 1.0), rtol=1e-10)


@pytest.mark.parametrize("ball", [False, True])
def test_activation(ball):
    x = images(2, 3, 4, 4)
    p = h.expmap0(x, 1.0, dim=1) if ball else x
    y = tnn.PoincareReLU(ball=ball)(p)
    want = h.expmap0(x.relu(), 1.0, dim=1) if ball else x.relu()
    assert torch.allclose(y, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("c", [0.0, 1e-9, 0.5, 2.0])
def test_attention_is_the_weighted_midpoint(c):
    q, k, v = images(2, 5, 3), images(2, 7, 3, seed=2), images(2, 7, 4, seed=3)
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[2] = False
    y = tnn.attention(q, k, v, c, scale=2.0, mask=mask)
    pq, pk, pv = (h.expmap0(x, c) for x in (q, k, v))
    for b in range(2):
        for i in range(5):
            if not mask[i].any():
                assert not y[b, i].any()
                continue
            d = torch.stack([h.dist(pq[b, i], pk[b, j], c) for j in range(7)])
            weights = torch.softmax((-2.0 * d).masked_fill(~mask[i], -torch.inf), 0)
            want = h.logmap0(h.weighted_midpoint(pv[b], weights, c), c)
            assert torch.allclose(y[b, i], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ball", [False, True])
def test_attention_layer(ball):
    layer = randomly(tnn.PoincareAttention(6, 2, ball=ball, learnable=True))
    x = images(2, 4, 6)
    x = h.expmap0(x, 1.0).detach().requires_grad_() if ball else x
    y = layer(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in (x, *layer.parameters()))
    turned = layer(x.flip(1))
    assert torch.allclose(turned, y.flip(1), rtol=1e-9)  # a set has no order
    with pytest.raises(ValueError, match="heads"):
        tnn.PoincareAttention(6, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda ball: tnn.PoincareLinear(4, 4, ball=ball),
        lambda ball: tnn.PoincareConv2d(4, 4, 3, padding=1, ball=ball),
        lambda ball: tnn.PoincareBatchNorm(4, ball=ball),
        lambda ball: tnn.PoincareReLU(ball=ball),
        lambda ball: tnn.PoincareAvgPool2d(2, ball=ball),
        lambda ball: tnn.PoincareResidual(tnn.PoincareConv2d(4, 4, 1, ball=ball), ball=ball),
    ],
    ids=["linear", "conv", "batchnorm", "relu", "pool", "residual"],
)
def test_the_two_forms_are_one_layer(make):
    tangent, ball = (randomly(make(b)) for b in (False, True))
    x = images(3, 4, 4, 4)
    dim = 1
    if isinstance(tangent, tnn.PoincareLinear):
        x, dim = images(3, 4), -1
    a, b = tangent(x), ball(h.expmap0(x, 1.0, dim=dim))
    assert torch.allclose(a, h.logmap0(b, 1.0, dim=dim), rtol=1e-9, atol=1e-12)
    file = io.BytesIO()
    torch.save(tangent.state_dict(), file)
    file.seek(0)
    again = make(False).double()
    again.load_state_dict(torch.load(file))
    assert torch.equal(again.eval()(x), tangent.eval()(x))
    assert repr(tangent) != repr(ball)
    assert tangent.float()(x.float()).dtype == torch.float32


@pytest.mark.parametrize("kind", [tnn.PoincareConv2d, tnn.LorentzConv2d])
def test_kernels_that_fit_nowhere_are_refused_by_the_layer(kind):
    x = torch.zeros(2, 4, 3, 3)
    for size, sizes in ((5, {}), (2, {"dilation": 3}), ((1, 6), {"padding": (0, 1)})):
        with pytest.raises(
            ValueError, match=rf"^{kind.__name__}: kernels \(.*\) do not fit images of \(3, 3\), padded by"
        ):
            kind(4, 4, size, **sizes)(x)
    with pytest.raises(ValueError, match="do not fit images of"):
        kind(4, 4, 1)(x[:, :, :0])
    assert kind(4, 4, 5, padding=1)(x).shape == (2, 4, 1, 1)
