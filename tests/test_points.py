"""Tables of points. The one rule: c is said once, and distances, neighbours and optimisers have it from there."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from tersor import hyperbolic, lorentz, nn, optim

FAMILIES = {"ball": hyperbolic, "lorentz": lorentz}
models = pytest.mark.parametrize("model", FAMILIES)
kinds = pytest.mark.parametrize("kind", [optim.RiemannianSGD, optim.RiemannianAdam])


def table(model="ball", n=12, d=3, **options):
    torch.manual_seed(0)
    return nn.HEmbedding(n, d, model=model, std=0.8, dtype=torch.float64, **({"c": 0.7} | options))


def trained(net, optimizer, steps=5):
    ids = torch.tensor([[0, 3], [5, 3], [1, 1], [4, 2]])
    for _ in range(steps):
        optimizer.zero_grad()
        x, y = net(ids).unbind(1)
        (net.dist(x, y) - 1).square().sum().backward()
        optimizer.step()
    return net.weight.detach().clone()


@models
@kinds
@pytest.mark.parametrize("sparse", [False, True])
def test_the_optimiser_has_c_from_the_table(model, kind, sparse):
    told, silent, flat = (table(model, sparse=sparse) for _ in range(3))
    got = trained(told, kind(told.parameters(), lr=0.05))
    want = trained(silent, kind([{"params": silent.parameters(), "c": 0.7, "model": model}], lr=0.05))
    assert torch.equal(got, want)
    if not sparse:  # and it is another one than that of flat space
        del flat.weight.curvature
        assert not (trained(flat, kind(flat.parameters(), lr=0.05)) - want).abs().max() < 1e-3  # or NaN
    assert (got[6:] == table(model).weight[6:]).all()


@kinds
@models
def test_a_learned_curvature_beside_the_points(kind, model):
    net = table(model, c=1.0, learnable=True)
    optimizer = kind(net.parameters(), lr=0.05)
    first = net.curvature().item()
    trained(net, optimizer)
    assert net.curvature().item() != first
    assert net.cdist(net.weight).isfinite().all()
    other = table(model, c=1.0, learnable=True)
    again = kind(other.parameters(), lr=0.05)
    other.load_state_dict(net.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(trained(net, optimizer), trained(other, again))


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save", "to", "assign"])
def test_copies_say_where_they_live(way):
    net = table(learnable=True)
    if way == "torch.save":
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    elif way == "assign":
        other = table(learnable=True)
        other.load_state_dict(net.state_dict(), assign=True)
    else:
        other = {
            "deepcopy": copy.deepcopy,
            "pickle": lambda m: pickle.loads(pickle.dumps(m)),
            "to": lambda m: m.float(),
        }[way](net)
    assert other.weight.curvature is other.curvature and other.weight.model == "ball"
    with torch.no_grad():
        other.curvature.rho.sub_(1.0)
    place = optim.RiemannianSGD(other.parameters(), lr=0.1)
    trained(other, place)
    assert hyperbolic.dist0(other.weight.detach(), other.curvature()).isfinite().all()


@models
def test_what_it_answers(model):
    net, h = table(model), FAMILIES[model]
    w = net.weight.detach()
    np.testing.assert_allclose(net.cdist(w).detach(), h.cdist(w, w, 0.7))
    np.testing.assert_allclose(net.dist(w[:4], w[4:8]).detach(), h.dist(w[:4], w[4:8], 0.7))
    d, at = net.nearest(torch.arange(12), 3)
    whole = h.dist(w[:, None], w[None], 0.7).fill_diagonal_(torch.inf)
    want, places = whole.sort(dim=-1, stable=True)
    np.testing.assert_allclose(d, want[:, :3], rtol=1e-12)
    assert torch.equal(at, places[:, :3])
    assert net(torch.tensor([[3, 1]])).shape == (1, 2, 3)
    assert torch.equal(h.logmap0(net.weight, 0.7).std() > 0.3, torch.tensor(True))


def test_first_points():
    net = nn.HEmbedding(5, 4, padding_idx=-2, init=lambda v: torch.nn.init.constant_(v, 0.25))
    want = hyperbolic.expmap0(torch.full((5, 4), 0.25))
    want[3] = 0
    assert torch.equal(net.weight.detach(), want)
    net(torch.tensor([3, 1])).sum().backward()
    assert not net.weight.grad[3].any() and net.weight.grad[1].all()
    assert str(net) == "HEmbedding(\n  5, 4, padding_idx=3\n  (curvature): Curvature(1)\n)"


def test_what_a_table_does_not_take():
    for options, said in (
        ({"n": 0}, "num_embeddings must"),
        ({"padding_idx": 12}, "padding_idx"),
        ({"model": "sphere"}, "model"),
        ({"c": -1.0}, "c must be"),
        ({"c": [1.0, 2.0]}, "one curvature"),
    ):
        with pytest.raises(ValueError, match=said):
            table(**options)
    with pytest.raises(TypeError, match="int64 or int32"):
        table()(torch.ones(3))
    for sizes, said in (((4.0, 3), "num_embeddings"), ((4, True), "embedding_dim"), ((4, 3, 1.0, 1.0), "padding_idx")):
        with pytest.raises(TypeError, match=f"HEmbedding: {said} must be an integer"):
            nn.HEmbedding(*sizes)
    for rows in (torch.tensor(1), torch.tensor([[0, 1]])):
        with pytest.raises(ValueError, match=r"HEmbedding: nearest takes indices \[N\], got"):
            table().nearest(rows, 2)
    with pytest.raises(ValueError, match="11 other rows"):
        table().nearest(torch.arange(3), 12)


@pytest.mark.parametrize("like", [np.asarray, torch.as_tensor])
def test_neighbours_but_not_oneself(like):
    """Also of points that lie on each other, where the own index is not the first."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 3)) / 9
    x[5] = x[2] = x[7]
    whole = hyperbolic.cdist(x, x, 0.7)
    np.fill_diagonal(whole, np.inf)
    order = np.argsort(whole, -1, kind="stable")
    for k in (0, 1, 2, 8):
        d, at = hyperbolic.knn(like(x), like(x), k, 0.7, skip_self=True)
        assert (np.asarray(at) == order[:, :k]).all()
        np.testing.assert_allclose(d, np.take_along_axis(whole, order, -1)[:, :k])
    many = np.repeat(x[:1], 6, 0)
    assert not (np.asarray(hyperbolic.knn(like(many), like(many), 2, skip_self=True)[1]) == np.arange(6)[:, None]).any()
    for bad in (
        lambda: hyperbolic.knn(like(x), like(x[:4]), 2, skip_self=True),
        lambda: hyperbolic.knn(like(x), like(x), 9, skip_self=True),
    ):
        with pytest.raises(ValueError, match=r"knn: (skip_self|k) "):
            bad()
