"""Riemannian optimisers against torch's in flat space, geoopt's inside the ball, and the plain formula elsewhere.

The one rule: an optimiser is what its formula says, whichever way its gradients arrive.
"""

import copy
import pickle

import numpy as np
import pytest
import torch
from tersor import hyperbolic as H
from tersor import lorentz, nn
from tersor.optim import RiemannianAdam, RiemannianSGD

SGD = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.8, "nesterov": True},
    {"weight_decay": 0.1, "momentum": 0.5},
]
ADAM = [{}, {"amsgrad": True}, {"weight_decay": 0.1}, {"betas": (0.5, 0.7), "eps": 1e-3}]
BOTH = [(RiemannianSGD, k) for k in SGD] + [(RiemannianAdam, k) for k in ADAM]
either = pytest.mark.parametrize(("kind", "words"), BOTH, ids=lambda v: getattr(v, "__name__", None) or "-".join(v))


def points(n=6, d=3, c=0.7, seed=0, radius=1.0):
    u = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return H.expmap0(u / u.norm(dim=-1, keepdim=True) * radius * torch.rand(n, 1, dtype=torch.float64), c)


def loss(x, y):
    return ((x - y) ** 2 * torch.arange(1.0, 1 + x.shape[-1])).sum() + (x[..., 0] * y[..., -1]).sum()


def walk(optimizer, x, y, steps=12, sparse=None):
    for i in range(steps):
        optimizer.zero_grad()
        loss(x, y).backward()
        if sparse is not None:
            at = sparse[i % len(sparse)]
            x.grad = torch.sparse_coo_tensor(torch.tensor([at]), x.grad[at], x.shape)
        optimizer.step()
    return x.detach()


def formula(kind, words, x, y, c, steps=12, lr=0.05):
    """The textbook's step with everything written out, on the exponential map and the transport along it."""
    x, m, v, top = x.clone(), torch.zeros_like(x), 0.0, 0.0
    words = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, "amsgrad": False} | words
    b1, b2 = words.get("betas", (0.9, 0.999))
    for t in range(1, steps + 1):
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(leaf, y), [leaf])
        factor = H.lambda_x(x, c, keepdim=True)
        r = (g + words["weight_decay"] * x) / factor**2
        if kind is RiemannianSGD:
            m = r if t == 1 else words["momentum"] * m + (1 - words["dampening"]) * r
            d = r + words["momentum"] * m if words["nesterov"] else m
        else:
            m = b1 * m + (1 - b1) * r
            v = b2 * v + (1 - b2) * (factor * r).square().sum(-1, keepdim=True)
            top = torch.maximum(torch.as_tensor(top), v) if words["amsgrad"] else v
            d = m / (1 - b1**t) / ((top / (1 - b2**t)).sqrt() + words.get("eps", 1e-8))
        step = -lr * d
        n = step.norm(dim=-1, keepdim=True)
        end = H.mobius_add(x, torch.tanh(c**0.5 * factor * n / 2) * step / (c**0.5 * n), c)
        if words["momentum"] or kind is RiemannianAdam:
            m = factor / H.lambda_x(end, c, keepdim=True) * H.gyration(end, -x, m, c)
        x = end
    return x


@either
def test_the_formula(kind, words):
    start, y = points(radius=3.0), points(seed=1)
    x = start.clone().requires_grad_()
    got = walk(kind([x], lr=0.05, c=0.7, **words), x, y)
    torch.testing.assert_close(got, formula(kind, words, start, y, 0.7), rtol=1e-11, atol=1e-12)
    assert (got - start).abs().max() > 1e-2


@either
def test_euclidean_parameters_are_torch_s(kind, words):
    start, y = points(radius=3.0), points(seed=1)
    x, z = start.clone().requires_grad_(), start.clone().requires_grad_()
    theirs = torch.optim.SGD if kind is RiemannianSGD else torch.optim.Adam
    got = walk(kind([x], lr=0.05, **words), x, y)
    want = walk(theirs([z], lr=0.05, **words), z, y)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


@either
@pytest.mark.parametrize("c", [0.0, 1e-12])
def test_flat_limit(kind, words, c):
    """The metric at c = 0 is 4 times the Euclidean one: SGD has a quarter of torch's rate, Adam half (and twice the eps)."""
    adam = kind is RiemannianAdam
    start, y = points(d=1 if adam else 3), points(seed=1, d=1 if adam else 3)
    x, z = start.clone().requires_grad_(), start.clone().requires_grad_()
    got = walk(kind([x], lr=0.05, c=c, **words), x, y)
    if adam:
        changed = words | {"eps": 2 * words.get("eps", 1e-8)}
        want = walk(torch.optim.Adam([z], lr=0.025, **changed), z, y)
    else:
        want = walk(torch.optim.SGD([z], lr=0.0125, **words), z, y)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("words", ADAM, ids="-".join)
@pytest.mark.parametrize("adam", [False, True], ids=["sgd", "adam"])
def test_geoopt(adam, words):
    geoopt = pytest.importorskip("geoopt")
    if not adam:
        words = {"weight_decay": words["weight_decay"]} if "weight_decay" in words else {}
    start, y = points(), points(seed=1)
    x = start.clone().requires_grad_()
    z = geoopt.ManifoldParameter(
        start.clone(), manifold=geoopt.PoincareBallExact(torch.tensor(0.5, dtype=torch.float64))
    )
    ours, theirs = (
        (RiemannianAdam, geoopt.optim.RiemannianAdam) if adam else (RiemannianSGD, geoopt.optim.RiemannianSGD)
    )
    got = walk(ours([x], lr=0.01, c=0.5, **words), x, y)
    want = walk(theirs([z], lr=0.01, **words), z, y)
    torch.testing.assert_close(got, want.data.as_subclass(torch.Tensor), rtol=1e-9, atol=1e-11)


@either
def test_sparse_rows(kind, words):
    """Rows that are named move as they would densely; the others, and their state, stay as they are, bit for bit."""
    words = {k: v for k, v in words.items() if k != "weight_decay"}
    start, y = points(n=8), points(n=8, seed=1)
    x, z = start.clone().requires_grad_(), start.clone().requires_grad_()
    rows = [5, 0, 3]
    optimizer = kind([x], lr=0.05, c=0.7, **words)
    got = walk(optimizer, x, y, sparse=[rows])
    want = walk(kind([z], lr=0.05, c=0.7, **words), z, y)
    torch.testing.assert_close(got[rows], want[rows], rtol=1e-13, atol=1e-15)
    still = [1, 2, 4, 6, 7]
    assert torch.equal(got[still], start[still])
    for state in optimizer.state[x].values():
        if isinstance(state, torch.Tensor):
            assert not state[still].any() and state[rows].any()


def test_embedding_with_repeated_rows():
    start = points(n=8, radius=2.0)
    tables = [torch.nn.Embedding(8, 3, sparse=s, _weight=start.clone()) for s in (True, False)]
    at = torch.tensor([3, 3, 1])
    results = []
    for table in tables:
        before = table.weight.data_ptr()
        optimizer = RiemannianSGD(table.parameters(), lr=0.1, momentum=0.9, c=0.7)
        for _ in range(4):
            optimizer.zero_grad()
            H.dist0(table(at), 0.7).sum().backward()
            optimizer.step()
        assert table.weight.data_ptr() == before
        results.append(table.weight.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-13, atol=1e-15)


@either
def test_groups_of_both_kinds_and_state_dict(kind, words):
    start, y = points(), points(seed=1)
    weight = torch.randn(6, 3, dtype=torch.float64)

    def make():
        x, w = start.clone().requires_grad_(), weight.clone().requires_grad_()
        return x, w, kind([{"params": [x], "c": 0.7}, {"params": [w], "lr": 0.01}], lr=0.05, **words)

    x, w, optimizer = make()
    for part in (x, w):
        walk(optimizer, part, y, 5)
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    a, b, again = make()
    with torch.no_grad():
        a.copy_(x)
        b.copy_(w)
    again.load_state_dict(saved)
    for part, twin in ((x, a), (w, b)):
        assert torch.equal(walk(optimizer, part, y, 5), walk(again, twin, y, 5))


@either
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_stay_inside(kind, words, dtype):
    """However far a step goes; for any layout of the parameter."""
    x = torch.empty(3, 50, dtype=dtype).T
    x.copy_(points(n=50, c=1.0).to(dtype))
    x.requires_grad_()
    optimizer = kind([x], lr=1e3, c=1.0, **words)
    for _ in range(5):
        optimizer.zero_grad()
        (-x[:, 0]).sum().backward()
        optimizer.step()
        assert torch.isfinite(H.dist0(x.detach().double())).all()  # infinite or NaN from the edge on


@either
def test_curvatures_by_row_and_learned(kind, words):
    start, y = points(c=1.0), points(seed=1, c=1.0)
    c = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None]
    x = start.clone().requires_grad_()
    got = walk(kind([x], lr=0.05, c=c, **words), x, y)
    for i in range(6):
        z = start[i : i + 1].clone().requires_grad_()
        one = walk(kind([z], lr=0.05, c=float(c[i]), **words), z, y[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], one, rtol=1e-12, atol=1e-14)
    # the ball shrinks under its points
    k = torch.tensor(1.0, requires_grad=True)
    x = points(c=1.0, radius=6.0).requires_grad_()
    optimizer = kind([x], lr=0.05, c=k, **words)
    with torch.no_grad():
        k.fill_(9.0)
    walk(optimizer, x, y, 2)
    assert torch.isfinite(H.dist0(x.detach(), 9.0)).all()


def test_closure_and_untouched_gradient():
    x = points().requires_grad_()
    optimizer = RiemannianSGD([x], lr=0.1, weight_decay=0.5, c=0.7)

    def closure():
        optimizer.zero_grad()
        value = (x**2).sum()
        value.backward()
        return value

    first = optimizer.step(closure)
    assert first.requires_grad and closure() < first
    before = x.grad.clone()
    optimizer.step()
    assert torch.equal(x.grad, before)


def test_bad_arguments():
    x = points().requires_grad_()
    for words in ({"lr": -1.0}, {"weight_decay": -1.0}, {"c": -1.0}, {"c": float("nan")}):
        with pytest.raises(ValueError, match="RiemannianSGD"):
            RiemannianSGD([x], **words)
        with pytest.raises(ValueError, match="RiemannianAdam"):
            RiemannianAdam([x], **words)
    with pytest.raises(ValueError, match="nesterov"):
        RiemannianSGD([x], nesterov=True)
    with pytest.raises(ValueError, match="betas"):
        RiemannianAdam([x], betas=(1.0, 0.5))
    for c in ("1", True, torch.tensor(True), torch.tensor(1)):
        with pytest.raises(TypeError, match="RiemannianAdam: c must be"):
            RiemannianAdam([x], c=c)
    for whole in (torch.ones(2, 3, dtype=torch.int64), torch.ones(2, dtype=torch.bool)):
        with pytest.raises(TypeError, match="RiemannianSGD: a parameter must be of a float type, got"):
            RiemannianSGD([whole])
    with pytest.raises(ValueError, match="no axes"):
        RiemannianAdam([torch.zeros((), requires_grad=True)], c=1.0)
    x.grad = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1, 3, dtype=torch.float64), x.shape)
    with pytest.raises(ValueError, match="weight_decay"):
        RiemannianSGD([x], weight_decay=0.1, c=1.0).step()
    x.grad = torch.eye(6, 3, dtype=torch.float64).to_sparse()
    with pytest.raises(ValueError, match="first axis"):
        RiemannianSGD([x], c=1.0).step()


def test_embedding_of_a_tree_in_the_plane():
    """What they are for: distances of a binary tree, in two dimensions."""
    n = 31
    graph = np.full((n, n), np.inf)
    np.fill_diagonal(graph, 0)
    for i in range(1, n):
        graph[i, (i - 1) // 2] = graph[(i - 1) // 2, i] = 1
    for k in range(n):
        graph = np.minimum(graph, graph[:, k : k + 1] + graph[k])
    want = torch.tensor(graph)
    i, j = np.triu_indices(n, 1)
    for kind, lr in ((RiemannianSGD, 5.0), (RiemannianAdam, 0.05)):
        x = points(n=n, d=2, c=1.0, seed=3, radius=0.1).requires_grad_()
        optimizer = kind([x], lr=lr, c=1.0)
        errors = []
        for _ in range(150):
            optimizer.zero_grad()
            stress = ((H.dist(x[i], x[j]) / want[i, j] - 1) ** 2).mean()
            stress.backward()
            optimizer.step()
            errors.append(float(stress.detach()))
        assert errors[-1] < 0.4 * errors[0], kind


KINDS = [RiemannianSGD, RiemannianAdam]
kinds = pytest.mark.parametrize("kind", KINDS)
#: how a curvature that is learned may be given
LEARNED = {
    "parameter": lambda: torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64)),
    "curvature": lambda: nn.Curvature(1.0, learnable=True),
    "bounded": lambda: nn.Curvature(1.0, learnable=True, bounds=(0.1, 30.0)),
}
learned = pytest.mark.parametrize("make", LEARNED.values(), ids=list(LEARNED))


def value(c):
    return (c() if isinstance(c, torch.nn.Module) else c).detach()


def parts(c):
    return list(c.parameters()) if isinstance(c, torch.nn.Module) else [c]


def shrinking(kind, c, first, lr=1.0):
    """Points that run outwards in a ball that shrinks, both in one optimiser."""
    far = torch.tensor([[3.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    x = H.expmap0(far / 2, 1.0).requires_grad_()
    groups = [{"params": parts(c)}, {"params": [x], "c": c}]
    optimizer = kind(groups if first == "curvature" else groups[::-1], lr=lr)

    def go():
        optimizer.zero_grad()
        k = c() if isinstance(c, torch.nn.Module) else c
        (-H.dist(x[:1], x[1:], k.detach()).sum() - k).backward()
        optimizer.step()

    return x, optimizer, go


@kinds
@learned
def test_a_learned_curvature_is_followed_whatever_the_order(kind, make):
    results = []
    for first in ("curvature", "points"):
        c = make()
        x, optimizer, go = shrinking(kind, c, first)
        for _ in range(4):
            before = value(c).clone()
            go()
            assert value(c) > before
            # inside the ball of now, in which every distance is a number
            assert H.dist0(x.detach(), value(c)).isfinite().all()
        assert any(group["c"] is c for group in optimizer.param_groups)
        results.append((x.detach(), value(c)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@kinds
@learned
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "same"])
def test_a_state_leaves_the_curvature_that_was_given(kind, make, way):
    c = make()
    x, optimizer, go = shrinking(kind, c, "points", lr=0.1)
    go()
    state = optimizer.state_dict()
    assert state["param_groups"][0]["c"] == value(c) and not state["param_groups"][0]["c"].requires_grad
    state = {"pickle": lambda s: pickle.loads(pickle.dumps(s)), "deepcopy": copy.deepcopy, "same": lambda s: s}[way](
        state
    )
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["c"] is c
    for _ in range(6):
        go()
    assert H.dist0(x.detach(), value(c)).isfinite().all()
    # a copy of the optimiser has a copy of the curvature, which its own steps move
    twin = copy.deepcopy(optimizer)
    inner = twin.param_groups[0]["c"]
    assert inner is not c and parts(inner)[0] is twin.param_groups[1]["params"][0]


@kinds
def test_what_a_state_may_not_change(kind):
    x = points().requires_grad_()
    mine = kind([x], c=0.7)
    for other, said in (
        (kind([x], c=0.8), "c = 0.8, the group has c = 0.7"),
        (kind([x], c=0.7, model="lorentz"), "model 'lorentz'"),
    ):
        with pytest.raises(ValueError, match=said):
            mine.load_state_dict(other.state_dict())
    flat = torch.optim.SGD([x]) if kind is RiemannianSGD else torch.optim.Adam([x])
    x.grad = torch.ones_like(x)
    flat.step()
    if kind is RiemannianAdam:
        with pytest.raises(
            ValueError, match=r"is of points, which have one second moment for each row: .* as that of flat space"
        ):
            mine.load_state_dict(flat.state_dict())
    y = x.detach().clone().requires_grad_()
    ours = kind([y])
    ours.load_state_dict(copy.deepcopy(flat.state_dict()))  # what it is of flat parameters, it is here
    for p, steps in ((x, flat), (y, ours)):
        p.grad = torch.full_like(p, 0.3)
        steps.step()
    torch.testing.assert_close(x.detach(), y.detach(), rtol=1e-12, atol=1e-14)


@kinds
def test_points_that_say_they_are(kind):
    x = points().requires_grad_()
    x.manifold = type("PoincareBall", (), {})()
    with pytest.raises(TypeError, match=f"{kind.__name__}: a parameter says that it lives on PoincareBall"):
        kind([x])
    kind([x], c=0.7)
    x.manifold = type("Euclidean", (), {})()
    kind([x])
    rho = nn.Curvature(1.0, learnable=True)
    with pytest.raises(ValueError, match="a curvature is no point"):
        kind(rho.parameters(), c=rho)
    for c in (torch.ones(3, 1), torch.ones(6), torch.ones(6, 3)):  # found where it is made, not where a row is missing
        with pytest.raises(ValueError, match="does not go with the rows"):
            kind([x], c=c)
    for words in ({"margin": 1.5}, {"margin": "loose"}, {"model": "sphere"}, {"model": "lorentz", "margin": 0.1}):
        with pytest.raises(ValueError, match=kind.__name__):
            kind([x], c=1.0, **words)
    with pytest.raises(TypeError, match="maximize"):
        kind([x], c=1.0, maximize="yes")


@either
def test_uphill_and_margins(kind, words):
    start, y = points(), points(seed=1)
    x, z = start.clone().requires_grad_(), start.clone().requires_grad_()
    plain = {k: v for k, v in words.items() if k != "weight_decay"}
    up, down = kind([x], lr=0.05, c=0.7, maximize=True, **plain), kind([z], lr=0.05, c=0.7, **plain)
    for _ in range(3):
        for p, o, sign in ((x, up, -1), (z, down, 1)):
            o.zero_grad()
            (sign * loss(p, y)).backward()
            o.step()
    torch.testing.assert_close(x, z, rtol=0, atol=0)
    for margin, edge in (("compat", 1 - 1e-5), (0.25, 0.75), ("tight", 1.0)):
        x = start.clone().requires_grad_()
        o = kind([x], lr=1e3, c=1.0, margin=margin, **words)
        for _ in range(5):
            o.zero_grad()
            (-x[:, 0]).sum().backward()
            o.step()
        top = x.detach().norm(dim=-1).max()
        assert edge - 1e-3 < top <= edge * (1 + 1e-14) and H.dist0(x.detach()).isfinite().all()


@either
def test_a_refused_step_leaves_everything(kind, words):
    x, z = points(n=6).requires_grad_(), points(n=6).requires_grad_()
    optimizer = kind([x, z], lr=0.05, c=0.7, **{k: v for k, v in words.items() if k != "weight_decay"})
    before = x.detach().clone()
    x.grad, z.grad = torch.ones_like(x), torch.eye(6, 3, dtype=torch.float64).to_sparse()
    with pytest.raises(ValueError, match="first axis"):
        optimizer.step()
    assert torch.equal(x, before) and not optimizer.state


@pytest.mark.parametrize("c", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_that_never_moved_stay(dtype, c):
    x = torch.full((4, 3), 0.1, dtype=dtype, requires_grad=True)
    optimizer = RiemannianAdam([x], lr=0.1, c=c)
    x.grad = torch.zeros_like(x)
    optimizer.step()
    assert torch.equal(x.detach(), torch.full_like(x, 0.1))


@either
def test_the_hyperboloid_is_the_same_space(kind, words):
    """The same loss of the same points takes the same way in either model; decay, which is of coordinates, aside."""
    words = {k: v for k, v in words.items() if k != "weight_decay"}
    start, y = points(radius=2.0), points(seed=1)
    x, s = start.clone().requires_grad_(), lorentz.from_poincare(start, 0.7).requires_grad_()
    ball, sheet = kind([x], lr=0.05, c=0.7, **words), kind([s], lr=0.05, c=0.7, model="lorentz", **words)
    for _ in range(6):
        for optimizer, at in ((ball, lambda: x), (sheet, lambda: lorentz.to_poincare(s, 0.7))):
            optimizer.zero_grad()
            loss(at(), y).backward()
            optimizer.step()
    torch.testing.assert_close(lorentz.to_poincare(s.detach(), 0.7), x.detach(), rtol=1e-9, atol=1e-10)
    assert (x.detach() - start).abs().max() > 1e-2


@either
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_points_of_the_hyperboloid_stay_numbers(kind, words, dtype):
    x = torch.ones(5, 3, dtype=dtype, requires_grad=True)
    optimizer = kind([x], lr=1e3, c=1.0, model="lorentz", **{k: v for k, v in words.items() if k != "weight_decay"})
    for _ in range(5):
        optimizer.zero_grad()
        (-lorentz.dist0(x)).sum().backward()
        optimizer.step()
        assert lorentz.dist0(x.detach()).isfinite().all()
    assert (x.detach().norm(dim=-1) > 1e3).all()
