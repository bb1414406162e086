"""Layers of norms that torch has not. The one rule: each is held to the formula of its paper in torch's own functions."""

import copy

import pytest
import torch
from tersor import nn as tnn
from tersor import norm
from torch import nn
from torch.nn import functional as F

F64 = torch.float64


def some(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def odd(layer):
    """The layer in float64 with parameters that are nobody's first ones."""
    layer = layer.double()
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(some(*p.shape, seed=i + 1))
    return layer


def close(got, want, rtol=1e-12, atol=1e-12):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


def running(layer):
    return layer.running_mean, layer.running_var


X = some(4, 5, 3, 2) + 0.5


def test_alpha_is_what_evaluation_and_training_share():
    layer, plain = odd(tnn.AlphaBatchNorm(5, alpha=1.0)), odd(nn.BatchNorm2d(5))
    for k in range(3):
        close(layer(X + k), plain(X + k))
    for got, want in zip(running(layer), running(plain), strict=True):
        close(got, want)
    assert layer.state_dict().keys() == plain.state_dict().keys()
    layer.eval(), plain.eval()
    close(layer(X), plain(X))
    layer.alpha = 0.0
    close(layer(X), plain.train()(X))
    layer.alpha, (mean, var) = 0.25, running(layer)
    own = X.transpose(0, 1).flatten(1)
    mean, var = 0.25 * mean + 0.75 * own.mean(1), 0.25 * var + 0.75 * own.var(1, correction=0)
    close(layer(X), F.batch_norm(X, mean, var, layer.weight, layer.bias))


def test_batch_and_channel_norm_one_after_the_other():
    layer, plain = odd(tnn.BatchChannelNorm(6, 3)), odd(nn.BatchNorm2d(6))
    x = some(4, 6, 3, 2)
    for _ in range(2):
        close(layer(x), F.group_norm(plain(x), 3, layer.channel_weight, layer.channel_bias))
    close(layer.eval()(x), F.group_norm(plain.eval()(x), 3, layer.channel_weight, layer.channel_bias))


def test_estimates_keep_samples_apart():
    """They move by the batch before it is normalised by them, and then no sample sees its neighbour."""
    layer = odd(tnn.BatchChannelNorm(6, 3, momentum=0.5, estimate=True))
    x = some(2, 6, 3, 2)
    y = layer(x)
    own = x.transpose(0, 1).flatten(1)
    mean, var = 0.5 * own.mean(1), 0.5 + 0.5 * own.var(1)
    close(layer.running_mean, mean)
    close(layer.running_var, var)
    known = F.batch_norm(x, mean, var, layer.weight, layer.bias)
    close(y, F.group_norm(known, 3, layer.channel_weight, layer.channel_bias))
    layer.momentum = 0.0
    other = torch.cat([x[:1], 7 * x[1:] + 3])
    assert torch.equal(layer(x)[0], layer(other)[0])
    # two batches before one backward pass: what the first needs is not moved away
    layer.momentum = 0.5
    leaf = x.clone().requires_grad_()
    (layer(leaf).square().sum() + layer(2 * leaf).square().sum()).backward()
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("c", [4, 5])
def test_instance_and_batch_norm_side_by_side(c, ratio):
    layer, x, h = odd(tnn.IBNorm(c, ratio)), some(3, c, 2, 2), int(c * ratio)
    plain = nn.BatchNorm2d(c - h).double() if h < c else None

    def want(x):
        parts = [F.instance_norm(x[:, :h], weight=layer.weight[:h], bias=layer.bias[:h])] if h else []
        if plain is not None:
            plain.weight, plain.bias = (nn.Parameter(p[h:]) for p in (layer.weight, layer.bias))
            parts.append(plain(x[:, h:]))
        return torch.cat(parts, 1)

    for k in range(2):
        one, other = ((x + k).requires_grad_() for _ in range(2))
        y, w = layer(one), want(other)
        close(y, w)
        (a,), (b,) = torch.autograd.grad(y.sin().sum(), one), torch.autograd.grad(w.sin().sum(), other)
        close(a, b)
    layer.eval()
    if plain is not None:
        plain.eval()
        close(torch.cat(running(layer)), torch.cat(running(plain)))
    close(layer(x), want(x))
    assert layer.num_batches_tracked == 2
    if h:
        with pytest.raises(ValueError, match="IBNorm: one element has no variance"):
            layer.train()(x[:, :, :1, :1])


def test_tasks_count_by_what_they_learned():
    layer, task = odd(tnn.AdaB2N(5, 3)), torch.tensor([0, 2, 2, 2])
    with torch.no_grad():
        layer.psi.copy_(torch.tensor([300.0, 800.0, 300.0]))  # the middle one is in no batch
    parts = [X[:1], X[1:]]
    mean = torch.stack([p.mean((0, 2, 3)) for p in parts]).mean(0)
    var = sum((p - mean[:, None, None]).square().mean((0, 2, 3)) for p in parts) / 2
    y = layer(X, task)
    wide = [v[:, None, None] for v in (mean, var, layer.weight, layer.bias)]
    close(y, (X - wide[0]) / (wide[1] + 1e-5).sqrt() * wide[2] + wide[3])
    close(layer.pull, mean.square().mean() + (var - 1).square().mean())
    rate = 0.1**0.5
    close(layer.running_mean, rate * mean)
    close(layer.running_var, 1 - rate + rate * var * 24 / 23)
    with torch.no_grad():  # without a say of its own a task counts by its rows
        layer.psi.fill_(-300.0)
    before = [s.clone() for s in running(layer)]
    plain = F.batch_norm(X, None, None, layer.weight, layer.bias, True)
    close(layer(X, task), plain)
    rate = rate / (rate + 0.9**0.5)
    close(layer.running_mean, before[0].lerp(X.mean((0, 2, 3)), rate))
    close(layer.eval()(X), F.batch_norm(X, *running(layer), layer.weight, layer.bias))


def test_what_tasks_count_is_learned():
    layer, task = odd(tnn.AdaB2N(5, 2)), torch.tensor([0, 1, 1, 1])
    g = some(*X.shape, seed=9)

    def f(psi):
        given = copy.deepcopy(layer)
        y = torch.func.functional_call(given, {"psi": psi}, (X, task))
        return (y * g).sum() + given.pull

    assert torch.autograd.gradcheck(f, (torch.tensor([0.3, -0.4], dtype=F64, requires_grad=True),))
    layer(X, task)
    assert copy.deepcopy(layer).pull is None and layer.pull.requires_grad
    for wrong, error in (
        (task.float(), TypeError),
        (None, TypeError),
        (task[1:], ValueError),
        (task + 1, ValueError),
        (task - 1, ValueError),
    ):
        with pytest.raises(error, match="AdaB2N: task must"):
            layer(X, wrong)
    with pytest.raises(ValueError, match="no variance"):
        layer(X[:1, :, :1, :1], task[:1])


@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_running_statistics_slow_down(kappa):
    layer, eta = tnn.AdaB2N(2, 1, kappa=kappa), 0.1**kappa
    for _ in range(6):
        assert float(layer._rate()) == pytest.approx(eta, rel=1e-6)
        eta = eta / (eta + 0.9**kappa)
        layer.num_batches_tracked.add_(1)


def test_a_norm_of_rows_becomes_one_of_batches():
    layer, plain, x = odd(tnn.PRepBN(5, decay_steps=4)), nn.BatchNorm1d(5).double(), some(3, 4, 5)
    plain.weight, plain.bias = layer.weight, layer.bias
    behind = nn.Linear(5, 3).double()
    for step in range(6):
        share, rows = max(0.0, 1 - step / 4), x.reshape(-1, 5)
        left = F.layer_norm(rows, (5,), layer.weight, layer.bias)
        want = share * left + (1 - share) * (plain(rows) + layer.alpha * rows)
        close(layer(x), want.reshape(x.shape))
        after = max(0.0, 1 - (step + 1) / 4)
        layer.eval(), plain.eval()
        close(layer(x), (after * left + (1 - after) * (plain(rows) + layer.alpha * rows)).reshape(x.shape))
        if after:
            with pytest.raises(ValueError, match=r"PRepBN\.fold: λ is"):
                layer.fold(behind)
        else:
            close(layer.fold(behind)(x), behind(layer(x)))
        layer.train(), plain.train()
    for wrong, error in ((nn.Identity(), TypeError), (nn.Linear(4, 3), ValueError)):
        with pytest.raises(error, match=r"PRepBN\.fold"):
            layer.fold(wrong)


def test_a_compiled_share_is_that_of_its_batch():
    layer, x = odd(tnn.PRepBN(5, decay_steps=4)), some(3, 4, 5)
    compiled = copy.deepcopy(layer)
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for _ in range(4):
        for f in (layer, run):
            f(x).square().sum().backward()
        for got, want in zip(compiled.parameters(), layer.parameters(), strict=True):
            close(got.grad, want.grad)


def test_a_step_that_is_refused_is_none():
    layer = tnn.PRepBN(4, decay_steps=3)
    with pytest.raises(ValueError, match="PRepBN: one row has no variance"):
        layer(torch.zeros(1, 4))
    assert float(layer.share) == 1


def test_constants_are_means_of_deviations():
    plain = odd(nn.LayerNorm(6, eps=1e-3))
    layer, x = tnn.FrozenLayerNorm.from_float(plain, positions=2), some(4, 5, 6)
    assert layer.weight is plain.weight and layer.bias is plain.bias
    close(layer(x), (x - x.mean(-1, keepdim=True)) * plain.weight + plain.bias)
    std = (x.var(-1, correction=0) + 1e-3).sqrt()
    layer.observe(x[:1])
    layer.observe(x[1:])
    want = torch.stack([std[:, 0].mean(), std[:, 1:].mean()])
    close(layer.std, want)
    assert layer.rows.tolist() == [4, 16]
    by = want[[0, 1, 1, 1, 1]][:, None]
    close(layer(x), (x - x.mean(-1, keepdim=True)) / by * plain.weight + plain.bias)
    layer.observe(x[:, :1])  # rows of the first place alone
    close(layer.std, want)
    assert layer.rows.tolist() == [8, 16]
    leaf = x.clone().requires_grad_()
    close(layer.penalty(leaf), (std - by[:, 0]).square().mean())
    assert torch.autograd.gradcheck(layer.penalty, (leaf,))
    with pytest.raises(ValueError, match=r"FrozenLayerNorm\.fold: one constant"):
        layer.fold(nn.Linear(6, 2).double())
    with pytest.raises(ValueError, match="no axis of positions"):
        layer(x[0, 0])
    # rows of one deviation: the constant is their own, and the norm a layer norm
    one = tnn.FrozenLayerNorm.from_float(plain)
    same = torch.stack([x[0, 0].roll(k) + k for k in range(4)])
    one.observe(same)
    close(one(same), plain(same))
    behind = nn.Linear(6, 2).double()
    close(one.fold(behind)(same), behind(plain(same)))
    bare = tnn.FrozenLayerNorm.from_float(nn.LayerNorm(6, elementwise_affine=False)).double()
    close(bare.fold(behind)(same), behind(bare(same)))
    with pytest.raises(TypeError, match="LayerNorm is needed"):
        tnn.FrozenLayerNorm.from_float(nn.RMSNorm(6))


def test_an_affine_map_that_moves_with_time():
    layer, x, t = odd(tnn.TimeDependentNorm((2, 3))), some(4, 5, 2, 3), some(4)
    y = layer(x, t)
    s = (layer.time_weight * t + layer.time_bias).sigmoid()[:, None, None, None]
    gain, shift = (s * p[0] + (1 - s) * p[1] for p in (layer.weight, layer.bias))
    close(y, F.layer_norm(x, (2, 3)) * gain + shift)
    # the gradients of the four follow from that of γ and β
    g = some(*x.shape, seed=3)
    y.backward(g)
    with torch.no_grad():
        z = F.layer_norm(x, (2, 3)) * g
        for p, u in ((layer.weight, z), (layer.bias, g)):
            close(p.grad, torch.stack([(s * u).sum((0, 1)), ((1 - s) * u).sum((0, 1))]))
        ds = (z * (layer.weight[0] - layer.weight[1]) + g * (layer.bias[0] - layer.bias[1])).sum((1, 2, 3))
        ds = ds * (s * (1 - s)).flatten()
        close(layer.time_weight.grad, (ds * t).sum()[None])
        close(layer.time_bias.grad, ds.sum()[None])
    for wrong in (t[:2], t[:, None], t[0]):
        with pytest.raises(ValueError, match="TimeDependentNorm: one time for each sample"):
            layer(x, wrong)
    with pytest.raises(TypeError, match="TimeDependentNorm"):
        layer(x, torch.arange(4))


@pytest.mark.parametrize("size", [(4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("shared", [True, False])
def test_grids_are_read_between_their_points(size, shared):
    k, x = len(size), some(7, 5)
    layer, at = odd(tnn.CoordinateModulation(5, size, shared=shared)), 0.8 * some(7, k, seed=2)
    ends = at.clamp(-1, 1)
    where = [(ends[:, k - 1 - i] + 1) / 2 * (n - 1) for i, n in enumerate(size)]  # the last axis of a grid first

    def read(grid):
        found = 0
        for corner in range(1 << k):
            weight, index = 1, [slice(None)]
            for i, n in enumerate(size):
                low = where[i].floor().clamp(0, n - 2).long()
                up = corner >> i & 1
                weight = weight * (where[i] - low if up else 1 - (where[i] - low))
                index.append(low + up)
            found = found + grid[tuple(index)] * weight
        return found.T

    plain = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    want = read(layer.weight) * plain + read(layer.bias)
    y = layer(x, at)
    close(y, want)
    g = some(7, 5, seed=4)
    parameters = [layer.weight, layer.bias]
    got = torch.autograd.grad((y * g).sum(), parameters)
    for a, b in zip(got, torch.autograd.grad((want * g).sum(), parameters), strict=True):
        close(a, b)
    close(layer(x.reshape(7, 1, 5), at.reshape(7, 1, k)).reshape(7, 5), y)
    with pytest.raises(ValueError, match="a coordinate for each place"):
        layer(x, at[1:])


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_what_a_block_adds_is_normalised_first(kind):
    layer, x, r = odd(tnn.PeriNorm(6, 1e-3, kind=kind)), some(4, 6), some(4, 6, seed=2)

    def plain(v, weight, bias):
        if kind == "rms":
            return F.rms_norm(v, (6,), weight, 1e-3)
        return F.layer_norm(v, (6,), weight, bias, 1e-3)

    y, s = layer(x, r)
    close(s, r + plain(x, layer.inner_weight, layer.inner_bias))
    close(y, plain(s, layer.weight, layer.bias))
    for given in ((x[:, :5], r), (x, r[:, :5])):
        with pytest.raises(ValueError, match="PeriNorm: the input must end in"):
            layer(*given)


def test_regions_have_maps_of_their_own():
    layer, mask = odd(tnn.RegionNorm(5)), some(4, 1, 3, 2, seed=7) > 0
    y = layer(X, mask)
    for region in (0, 1):
        at = (mask == region).expand_as(X)
        for c in range(5):
            v = X[:, c][at[:, c]]
            z = (v - v.mean()) / (v.var(correction=0) + 1e-5).sqrt()
            close(y[:, c][at[:, c]], z * layer.weight[region, c] + layer.bias[region, c])
    for region in (0, 1):  # of one region alone a batch norm
        want = F.batch_norm(X, None, None, layer.weight[region], layer.bias[region], True)
        close(layer(X, torch.full_like(mask, region)), want)
    assert not list(tnn.RegionNorm(5, affine=False).parameters())


@pytest.mark.parametrize("variant", ["b0", "b1", "b2", "s0", "s1", "s2"])
def test_evonorm_holds_what_its_formula_takes(variant):
    layer, x = odd(tnn.EvoNorm2d(6, variant, 3)), some(4, 6, 3, 2)
    affine = (layer.weight, layer.bias, layer.v)
    own = {"groups": 3, "running_var": torch.ones(6, dtype=F64) if variant[0] == "b" else None}
    assert (layer.v is not None) == (variant[1] == "0")
    for training in (True, True, False):
        close(layer.train(training)(x), norm.evonorm(x, variant, *affine, **own, training=training), 0, 0)
    keys = ["weight", "bias"] + ["v"] * (variant[1] == "0") + ["running_var"] * (variant[0] == "b")
    assert list(layer.state_dict()) == keys
    if variant[0] == "b":
        assert torch.equal(layer.running_var, own["running_var"]) and not torch.equal(
            layer.running_var, torch.ones(6, dtype=F64)
        )


def test_a_completed_row_is_one_of_mean_0():
    layer, x = tnn.CRMSNorm(5, 1e-5, False), some(3, 6)
    x = x - x.mean(1, keepdim=True)
    close(layer(x[:, :-1]), F.layer_norm(x, (6,))[:, :-1])
    weighted = odd(tnn.CRMSNorm(5, 1e-5))
    close(weighted(x[:, :-1]), layer(x[:, :-1]) * weighted.weight)


@pytest.mark.parametrize("gain", [False, True])
def test_filters_are_standardised_before_they_are_used(gain):
    conv, line = (
        odd(tnn.WSConv2d(4, 6, 3, 2, padding=1, groups=2, padding_mode="reflect", gain=gain)),
        odd(tnn.WSLinear(4, 6, gain=gain)),
    )

    def used(layer):
        w = layer.weight.flatten(1)
        w = (w - w.mean(1, keepdim=True)) / (w.var(1, keepdim=True) + 1e-5).sqrt()
        return (w if layer.gain is None else w * layer.gain[:, None]).reshape(layer.weight.shape)

    x = some(2, 4, 5, 5)
    want = F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), used(conv), conv.bias, 2, groups=2)
    close(conv(x), want)
    close(conv(x[0]), want[0])
    close(line(x.movedim(1, -1)), F.linear(x.movedim(1, -1), used(line), line.bias))
    plain = nn.Conv2d(4, 6, 3, groups=2)
    assert (conv.state_dict().keys() == plain.state_dict().keys()) is not gain
    # what holds codes or patterns takes a weight as it is: these layers stay
    model = nn.Sequential(tnn.WSLinear(4, 6), nn.Linear(6, 6))
    for scheme in ("int8-row", "sparse"):
        assert "0" not in tnn.convert(copy.deepcopy(model), scheme).converted
    norms = nn.Sequential(tnn.AlphaBatchNorm(4), tnn.FrozenLayerNorm(4), tnn.CRMSNorm(4))
    kinds = [type(m) for m in norms]
    assert not tnn.convert(norms, "norm").converted and not tnn.convert(norms, "dense").converted
    assert [type(m) for m in norms] == kinds


WRONG = [
    (lambda: tnn.AlphaBatchNorm(0), ValueError, "AlphaBatchNorm: num_features"),
    (lambda: tnn.AlphaBatchNorm(4, alpha=1.5), ValueError, "AlphaBatchNorm: alpha"),
    (lambda: tnn.AlphaBatchNorm(4, alpha=None), TypeError, "AlphaBatchNorm: alpha must be a number"),
    (lambda: tnn.AlphaBatchNorm(4, momentum="a"), TypeError, "AlphaBatchNorm: momentum"),
    (lambda: tnn.AlphaBatchNorm(4)(torch.ones(4)), ValueError, "AlphaBatchNorm"),
    (lambda: tnn.BatchChannelNorm(4, 3), ValueError, "BatchChannelNorm: num_groups=3"),
    (lambda: tnn.BatchChannelNorm(4, 0), ValueError, "BatchChannelNorm: num_groups=0"),
    (lambda: tnn.IBNorm(4, -0.1), ValueError, "IBNorm: ratio"),
    (lambda: tnn.IBNorm(4, eps=-1.0), ValueError, "IBNorm: eps"),
    (lambda: tnn.AdaB2N(4, 0), ValueError, "AdaB2N: num_tasks"),
    (lambda: tnn.AdaB2N(4, 2, kappa=-1.0), ValueError, "AdaB2N: kappa"),
    (lambda: tnn.AdaB2N(4, 2, momentum=None), TypeError, "AdaB2N: momentum"),
    (lambda: tnn.PRepBN(4, decay_steps=0), ValueError, "PRepBN: decay_steps"),
    (lambda: tnn.PRepBN(4, "a"), TypeError, "PRepBN: alpha"),
    (lambda: tnn.FrozenLayerNorm(4, positions=0), ValueError, "FrozenLayerNorm: positions"),
    (lambda: tnn.FrozenLayerNorm(4, eps=-1.0), ValueError, "FrozenLayerNorm: eps"),
    (lambda: tnn.CRMSNorm((2, 3)), TypeError, "CRMSNorm: normalized_shape"),
    (lambda: tnn.CRMSNorm(4, None), TypeError, "CRMSNorm: eps"),
    (lambda: tnn.TimeDependentNorm((4, 0)), ValueError, "TimeDependentNorm: normalized_shape"),
    (lambda: tnn.PeriNorm(4, kind="batch"), ValueError, "PeriNorm: kind"),
    (lambda: tnn.RegionNorm(4, affine="no"), TypeError, "RegionNorm: affine"),
    (lambda: tnn.CoordinateModulation(4, (2, 2, 2, 2)), ValueError, "CoordinateModulation: size"),
    (lambda: tnn.CoordinateModulation(4, ()), ValueError, "CoordinateModulation: size"),
    (lambda: tnn.CoordinateModulation(4, 0), ValueError, "CoordinateModulation: size"),
    (lambda: tnn.EvoNorm2d(4, "b3"), ValueError, "EvoNorm2d: variant"),
    (lambda: tnn.EvoNorm2d(4, "s0", 3), ValueError, "EvoNorm2d: groups=3"),
    (lambda: tnn.EvoNorm2d(4, momentum=2.0), ValueError, "EvoNorm2d: momentum"),
    (lambda: tnn.WSConv2d(4, 4, 3, eps=-1.0), ValueError, "WSConv2d: eps"),
    (lambda: tnn.WSLinear(4, 4, eps="a"), TypeError, "WSLinear: eps"),
]


@pytest.mark.parametrize(("make", "error", "why"), WRONG)
def test_what_no_layer_is_made_of(make, error, why):
    with pytest.raises(error, match=why):
        make()


SIXTEEN = [
    lambda: tnn.AlphaBatchNorm(6, alpha=0.5),
    lambda: tnn.BatchChannelNorm(6, 2, estimate=True),
    lambda: tnn.IBNorm(6),
    lambda: tnn.EvoNorm2d(6),
]


@pytest.mark.parametrize("make", SIXTEEN)
@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_16_bit_inputs_beside_float32_layers(make, low):
    """As torch's norms: what comes in 16 bits goes out so, and statistics stay in float32."""
    layer, wide = make(), make()
    for k in range(2):
        x = (some(4, 6, 3, 2, seed=k) + 0.5).to(low)
        y = layer(x)
        assert y.dtype == low
        close(y.float(), wide(x.float()), 0.02, 0.02)
    for a, b in zip(layer.buffers(), wide.buffers(), strict=True):
        close(a, b, 1e-5, 1e-6)


@pytest.mark.parametrize("layer", [lambda: tnn.WSLinear(1, 3), lambda: tnn.WSConv2d(4, 4, 1, groups=4)])
def test_one_weight_is_not_standardised(layer):
    with pytest.raises(ValueError, match=r"WS\w+: one weight has no variance"):
        layer()
