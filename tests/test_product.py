"""Products of hyperbolic spaces. The one rule: what is asked of a product is asked of its factors."""

import pytest
import torch
from tersor import hyperbolic, lorentz, nn, optim

MODELS = {"ball": hyperbolic, "lorentz": lorentz}


@pytest.mark.parametrize("model", MODELS)
def test_of_two_and_flat_space(model):
    family, c = MODELS[model], (1.0, 0.5, 0.0)
    space = nn.ProductSpace([2, 3, 1], c, model=model)
    g = torch.Generator().manual_seed(0)
    u, v = (0.4 * torch.randn(5, 6, dtype=torch.float64, generator=g) for _ in range(2))
    x, y = space.expmap0(u), space.expmap0(v)
    parts = [slice(0, 2), slice(2, 5), slice(5, 6)]
    want = sum(family.dist(x[:, at], y[:, at], k) ** 2 for at, k in zip(parts, c, strict=True)) ** 0.5
    torch.testing.assert_close(space.dist(x, y), want)
    torch.testing.assert_close(space.dist2(x, y), want**2)
    torch.testing.assert_close(space.cdist(x, y).diagonal(), want)
    torch.testing.assert_close(space.logmap0(x), u)
    torch.testing.assert_close(space.expmap(x, space.logmap(x, y)), y)
    assert torch.equal(space.join(space.split(x)), x)
    (d,) = torch.autograd.grad(space.dist(x.requires_grad_(), x.detach()).sum(), x)
    assert (d == 0).all()


def test_tables_and_learned_curvatures():
    torch.manual_seed(0)
    space = nn.ProductSpace([2, 3], [0.7, 1.5], learnable=True)
    tables = space.embeddings(6, std=0.3, dtype=torch.float64)
    optimizer = optim.RiemannianAdam(tables.parameters(), lr=0.05)
    first = [c().item() for c in space.curvatures]
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        x = space.join([table(torch.arange(6)) for table in tables])
        loss = (space.cdist(x, x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(c().item() != a for c, a in zip(space.curvatures, first, strict=True))
    other = nn.ProductSpace([2, 3], learnable=True)
    other.load_state_dict(space.state_dict())
    assert torch.equal(other.dist(x, x.flip(0)), space.dist(x, x.flip(0)))


def test_refused():
    for dims, c in (([], 1.0), ([2, 0], 1.0), ([2, 3], [1.0])):
        with pytest.raises(ValueError, match="ProductSpace"):
            nn.ProductSpace(dims, c)
    space = nn.ProductSpace([2, 3])
    with pytest.raises(ValueError, match="rows of 5 coordinates"):
        space.dist(torch.zeros(4), torch.zeros(4))
    with pytest.raises(ValueError, match="factors have"):
        space.join([torch.zeros(3), torch.zeros(2)])
    with pytest.raises(ValueError, match="model"):
        nn.ProductSpace([2], model="sphere")
