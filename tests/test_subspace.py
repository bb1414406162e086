"""Training in a random subspace: what the paper's normalisation promises, and that nothing large is kept."""

import copy
import io
import math
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tersor import nn as tnn  # noqa: E402
from tersor.project import Projection  # noqa: E402

KINDS = [("gaussian", {}), ("sparse", {}), ("fastfood", {}), ("fastfood", {"g": "rademacher"})]
EVERY = pytest.mark.parametrize(("kind", "own"), KINDS, ids=["gaussian", "sparse", "fastfood", "signs"])
LAYOUTS = pytest.mark.parametrize("layout", ["global", "per_tensor"])


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3))


def columns(model):
    d = model.v.numel()
    out = []
    for i in range(d):
        with torch.no_grad():
            model.v.zero_()[i] = 1.0
            out.append(model.offset().clone())
            model.v.zero_()
    return torch.stack(out, 1)


@EVERY
@LAYOUTS
def test_it_begins_where_the_module_is_and_moves_in_the_subspace(kind, own, layout):
    plain, x = net(), torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    model = tnn.Subspace(net(), 7, kind, seed=3, layout=layout, **own)
    assert torch.equal(model(x), plain(x)) and not [
        n for n, p in model.named_parameters() if p.requires_grad != (n == "v")
    ]
    p = columns(model)
    start = torch.cat([q.flatten() for q in plain.parameters()])
    steps = torch.optim.SGD([model.v], 0.1)
    for _ in range(3):
        steps.zero_grad()
        model(x).square().sum().backward()
        steps.step()
    now = torch.cat([q.flatten() for q in model.state().values()])
    torch.testing.assert_close(now, start + p @ model.v.detach(), rtol=1e-5, atol=1e-6)
    # the gradient by v is that by the parameters, projected
    steps.zero_grad()
    model(x).square().sum().backward()
    whole = net()
    with torch.no_grad():
        for q, value in zip(whole.parameters(), model.state().values(), strict=True):
            q.copy_(value)
    whole(x).square().sum().backward()
    want = p.T @ torch.cat([q.grad.flatten() for q in whole.parameters()])
    torch.testing.assert_close(model.v.grad, want, rtol=1e-4, atol=1e-5)
    merged = model.merge()
    torch.testing.assert_close(merged(x), whole(x))
    assert all(q.requires_grad for q in merged.parameters()) and not model.v.any()


@EVERY
@LAYOUTS
def test_columns_have_length_one(kind, own, layout):
    module = torch.nn.Linear(15, 16)  # 256 parameters: a power of two
    model = tnn.Subspace(module, 9, kind, layout=layout, **own)
    lengths = columns(model).norm(dim=0)
    if kind != "fastfood" or layout == "global":
        torch.testing.assert_close(lengths, torch.ones(9), rtol=1e-5, atol=1e-5)
    else:
        moved = []
        for seed in range(300):
            other = tnn.Subspace(torch.nn.Linear(5, 4), 3, kind, seed=seed, layout=layout, **own)
            with torch.no_grad():
                other.v.copy_(torch.tensor([0.6, 0.0, -0.8]))
            moved.append(float(other.offset().detach().square().sum()))
        assert abs(np.mean(moved) - 1) < 5 * np.std(moved) / math.sqrt(len(moved)) + 1e-9


def test_it_is_the_projection_of_all_parameters():
    model = tnn.Subspace(net(), 4, "fastfood", seed=5)
    with torch.no_grad():
        model.v.normal_()
    total = sum(p.numel() for p in net().parameters())
    assert torch.equal(model.offset(), Projection(4, total, "fastfood", seed=5)(model.v))
    assert set(model.state_dict()) == {"v", *(f"module.{k}" for k in net().state_dict())}
    assert tnn.Subspace(net(), 4).lengths.shape == (4,)


def test_buffers_ties_and_types():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.norm = torch.nn.BatchNorm1d(4).to(torch.float64)

        def forward(self, x):
            return self.norm(self.b(self.a(x)).double())

    torch.manual_seed(0)
    module = Tied()
    model = tnn.Subspace(copy.deepcopy(module), 3)
    assert model.total == 24
    x = torch.randn(8, 4)
    torch.testing.assert_close(model(x), module(x))
    assert int(model.module.norm.num_batches_tracked) == 1
    model(x).sum().backward()
    assert model.v.grad.isfinite().all()


def test_as_torch_treats_its_own():
    """Cast, saved, copied, traced and differentiated: what the plain call gives."""
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    model = tnn.Subspace(net(), 5)
    with torch.no_grad():
        model.v.normal_(generator=torch.Generator().manual_seed(2))
    want = model(x).detach()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = tnn.Subspace(net().apply(_again), 5)
    assert not torch.equal(other(x), want)
    other.load_state_dict(torch.load(file, weights_only=True))
    for same in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(same(x), want)
    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(x), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), want, rtol=0.05, atol=0.05)
    model(x).square().sum().backward()
    v = {"v": model.v.detach()}
    rest = {k: p.detach() for k, p in model.named_parameters() if k != "v"}
    grad = torch.func.grad(lambda v: torch.func.functional_call(model, {**rest, **v}, (x,)).square().sum())(v)
    torch.testing.assert_close(grad["v"], model.v.grad)


def _again(m):
    if hasattr(m, "reset_parameters"):
        m.reset_parameters()


def test_digits_are_learnt_in_few_dimensions():
    """More of them lose less: what the intrinsic dimension is read from."""
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = torch.from_numpy(x[:600]).float() / 16, torch.from_numpy(y[:600])
    loss = {}
    for d in (2, 200):
        torch.manual_seed(0)
        model = tnn.Subspace(torch.nn.Linear(64, 10), d, "fastfood")
        steps = torch.optim.Adam([model.v], 0.3)
        for _ in range(40):
            steps.zero_grad()
            error = torch.nn.functional.cross_entropy(model(x), y)
            error.backward()
            steps.step()
        loss[d] = error.item()
    assert loss[200] < 0.5 < 1.5 < loss[2]


def test_what_is_refused():
    for wrong in (
        {"kind": "srht"},
        {"layout": "rows"},
        {"d": 0},
        {"module": torch.nn.ReLU()},
        {"kind": "sparse", "g": "gaussian"},
    ):
        with pytest.raises(ValueError, match=r"Subspace|project"):
            tnn.Subspace(**({"module": net(), "d": 3} | wrong))
    with pytest.raises(ValueError, match="Subspace: parameter weight has no shape before the first call"):
        tnn.Subspace(torch.nn.LazyLinear(3), 3)
    for wrong in ({"module": 3}, {"d": 2.5}):
        with pytest.raises(TypeError, match=r"Subspace|project"):
            tnn.Subspace(**({"module": net(), "d": 3} | wrong))
    with pytest.raises(TypeError, match="parameter w must be of a float type"):
        odd = torch.nn.Module()
        odd.w = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
        tnn.Subspace(odd, 3)
