"""Masks while a model is trained: held through every optimizer, nested, exact, and carried by states, copies and pickles."""

import copy
import io
import math
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tersor import nn as tnn  # noqa: E402
from tersor import prune  # noqa: E402
from torch import nn  # noqa: E402

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.01, initial_accumulator_value=0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, 0.01, history_size=3),
}
X = torch.randn(16, 12, generator=torch.Generator().manual_seed(5))


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 4))


def step(model, optimizer, n=1):
    def closure():
        optimizer.zero_grad()
        loss = model(X).square().sum()
        loss.backward()
        return loss

    for _ in range(n):
        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


def clean(model, optimizer, masks):
    """Whether everything that is pruned is +0: weights, and what goes with them."""
    for name, mask in masks.items():
        w = masks.weight(name)
        rest = [w, *(s for s in optimizer.state[w].values() if torch.is_tensor(s) and s.shape == w.shape)]
        assert all(not x[~mask].any() and not x[~mask].signbit().any() for x in rest), name


@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_masks_hold(kind):
    model = net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    step(model, optimizer, 3)  # so that there is something to remember
    masks = tnn.Masks(model).attach(optimizer)
    for share in (0.3, 0.3, 0.7, 0.9):
        masks.prune(share)
        before = {k: v.clone() for k, v in model.named_parameters()}
        step(model, optimizer, 3)
        if kind != "LBFGS":  # which remembers all parameters in one vector
            clean(model, optimizer, masks)
        for name, mask in masks.items():
            assert not masks.weight(name)[~mask].any()
        assert any(not torch.equal(before[k], v) for k, v in model.named_parameters())
        assert sum(masks.kept.values()) == 260 - round(share * 260)
    assert {k for k, _ in model.named_parameters()} == {k for k, _ in net().named_parameters()}


def test_what_an_optimizer_remembers_of_a_new_mask_is_zero():
    """The momentum of what is pruned, at once; of a state that is loaded, and of gradients that a closure makes, too."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    step(model, optimizer, 2)
    dense = copy.deepcopy(optimizer.state_dict())
    masks = tnn.Masks(model).attach(optimizer).prune(0.5)
    step(model, optimizer)
    clean(model, optimizer, masks)
    optimizer.load_state_dict(dense)
    step(model, optimizer)
    clean(model, optimizer, masks)

    def closure():
        optimizer.zero_grad()
        loss = model(X).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    clean(model, optimizer, masks)
    optimizer.step(closure=closure)
    clean(model, optimizer, masks)
    # what a mask brings back begins at 0, without a memory
    everything = {name: torch.ones_like(m) for name, m in masks.items()}
    old = {name: m.clone() for name, m in masks.items()}
    masks.update(everything)
    for name, m in old.items():
        w = masks.weight(name)
        assert not w[~m].any() and not optimizer.state[w]["momentum_buffer"][~m].any()


def test_masks_are_those_of_global_masks():
    model = net()
    weights = [p.detach().clone() for p in model.parameters() if p.ndim > 1]
    masks = tnn.Masks(model).prune(0.6, min_keep=30)
    for m, w in zip(masks.values(), prune.global_masks(weights, 0.6, min_keep=30), strict=True):
        assert torch.equal(m, w)
    masks.prune(0.8, scope="layer")
    for m, w in zip(masks.values(), prune.global_masks(weights, 0.8, scope="layer"), strict=True):
        assert int(m.sum()) == int(w.sum())
    scores = {name: torch.rand(m.shape, generator=torch.Generator().manual_seed(1)) - 0.5 for name, m in masks.items()}
    fresh = tnn.Masks(net()).prune(0.6, scores=scores)
    for m, w in zip(fresh.values(), prune.global_masks(weights, 0.6, scores=list(scores.values())), strict=True):
        assert torch.equal(m, w)


@pytest.mark.parametrize("seed", range(20))
def test_masks_only_shrink(seed):
    """Whatever weights become, zeros among them, by any share; and counts are exact."""
    rng = np.random.default_rng(seed)
    model = net(seed)
    masks = tnn.Masks(model)
    gone = 0
    for _ in range(6):
        old = {k: m.clone() for k, m in masks.items()}
        with torch.no_grad():
            for name in masks:
                w = masks.weight(name)
                w.copy_(
                    torch.round(torch.randn(w.shape, generator=torch.Generator().manual_seed(seed)))
                )  # many zeros, many ties
        masks.apply()
        of = str(rng.choice(["all", "left"]))
        share = float(rng.uniform(gone / 260 if of == "all" else 0, 1)) * 0.9 + (0.1 * gone / 260 if of == "all" else 0)
        want = round(share * 260) if of == "all" else gone + round(share * (260 - gone))
        masks.prune(share, of=of)
        gone = want
        assert 260 - sum(masks.kept.values()) == want
        assert all(not (m & ~old[k]).any() for k, m in masks.items())


def test_shares_of_what_is_left():
    masks = tnn.Masks(net())
    for _ in range(3):
        masks.prune(0.2, of="left")
    assert abs(masks.sparsity - 0.488) < 1 / 260
    masks.prune(k=10, of="left")
    assert abs(masks.sparsity - 0.488 - 10 / 260) < 1 / 260
    masks.prune([0.9, 0.6, 0.8], scope="layer")
    assert masks.kept == {"0.weight": 12, "2.weight": 40, "4.weight": 8}
    masks.prune(1.0, min_keep=5)
    assert list(masks.kept.values()) == [5, 5, 5]


def test_min_keep_holds_in_later_steps():
    model = net()
    with torch.no_grad():
        model[2].weight.mul_(1e-3)
    masks = tnn.Masks(model)
    for share in (0.5, 0.9, 0.95):
        masks.prune(share, min_keep=7)
        assert masks.kept["2.weight"] == 7
    assert tnn.Masks(copy.deepcopy(model)).prune(0.97, min_keep=7).kept["2.weight"] == 7


def test_tied_weights_are_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight
            self.again = self.a

        def forward(self, x):
            return self.again(self.b(self.a(x)))

    torch.manual_seed(0)
    model = Tied()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    masks = tnn.Masks(model).attach(optimizer).prune(0.5)
    assert list(masks) == ["a.weight"] and masks.kept == {"a.weight": 18}
    for _ in range(3):
        optimizer.zero_grad()
        model(X[:, :6]).square().sum().backward()
        optimizer.step()
    assert model.b.weight is model.a.weight and torch.equal(model.b.weight_mask, model.a.weight_mask)
    assert not model.b.weight[~model.b.weight_mask].any()


def test_states_copies_and_pickles():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    masks = tnn.Masks(model).attach(optimizer).prune(0.7)
    step(model, optimizer, 2)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = net(1)
    loaded = tnn.Masks(other)
    assert str(other.load_state_dict(torch.load(file, weights_only=True))) == "<All keys matched successfully>"
    assert loaded.kept == masks.kept and torch.equal(other(X), model(X))
    with pytest.raises(RuntimeError, match="weight_mask"):  # never silently without masks
        tnn.Masks(net()).model.load_state_dict(net().state_dict())
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        found = tnn.Masks(again)
        assert all(torch.equal(a, b) for a, b in zip(found.values(), masks.values(), strict=True))
        steps = torch.optim.SGD(again.parameters(), 0.1, momentum=0.9)
        found.attach(steps)
        step(again, steps, 2)
        clean(again, steps, found)
    both, twin = copy.deepcopy((model, masks))
    assert twin.model is both and both[0].weight_mask is twin["0.weight"]
    twin.prune(0.9)
    assert masks.sparsity == pytest.approx(0.7)
    step(model, optimizer)
    clean(model, optimizer, masks)


def test_custom_masks():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    masks = tnn.Masks(model, include=["0", "4.bias"]).attach(optimizer)
    assert list(masks) == ["0.weight", "4.bias"]
    mask = torch.arange(120).reshape(10, 12) % 3 == 0
    masks["0.weight"] = mask
    masks["4.bias"] = torch.tensor([True, False, True, True])
    step(model, optimizer, 2)
    assert not model[0].weight[~mask].any() and model[0].weight[mask].all() and model[4].bias[1] == 0
    with pytest.raises(ValueError, match=r"there is no mask called '1.weight'"):
        masks["1.weight"] = mask
    for wrong, kind in ((mask.float(), TypeError), ("words", TypeError), (mask.T, ValueError)):
        with pytest.raises(kind, match=r"Masks: the mask '0.weight' must"):
            masks.update({"4.bias": torch.zeros(4, dtype=torch.bool), "0.weight": wrong})
    assert masks["4.bias"].sum() == 3  # all or none


def test_removed():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    masks = tnn.Masks(model).attach(optimizer).prune(0.5)
    mask = masks["0.weight"].clone()
    assert masks.remove() is model and not len(masks)
    assert not model[0].weight[~mask].any()
    assert model.state_dict().keys() == net().state_dict().keys()
    step(model, optimizer)
    assert model[0].weight[~mask].any()
    assert tnn.Masks(model).sparsity == 0


def test_gradients_can_be_masked_before():
    model = net()
    masks = tnn.Masks(model).prune(0.5)
    model(X).sum().backward()
    masks.mask_gradients()
    assert all(not masks.weight(name).grad[~m].any() for name, m in masks.items())
    assert any(masks.weight(name).grad.any() for name in masks)


def test_autocast_compile_and_memory_formats():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    masks = tnn.Masks(model).attach(optimizer).prune(0.8)
    traced = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 4, 4)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            traced(x).float().square().sum().backward()
        optimizer.step()
    clean(model, optimizer, masks)
    torch.testing.assert_close(traced(x), model(x))


def test_sparse_gradients():
    table = nn.Embedding(5, 4, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), 0.1)
    with pytest.raises(ValueError, match="no weights to mask"):
        tnn.Masks(table)
    masks = tnn.Masks(table, include=["weight"]).attach(optimizer).prune(0.5)
    table(torch.tensor([1, 3, 3])).sum().backward()
    optimizer.step()
    assert not table.weight[~masks["weight"]].any()


def test_what_is_left_and_refused():
    model = nn.ModuleDict(
        {"embed": nn.Embedding(5, 4), "head": nn.Linear(4, 5), "fc": nn.Linear(4, 4), "gate": nn.Linear(4, 2)}
    )
    model["head"].weight = model["embed"].weight
    masks = tnn.Masks(model)
    assert list(masks) == ["fc.weight"] and list(tnn.Masks(model, include=["fc", "*.bias"])) == [
        "head.bias",
        "fc.weight",
        "fc.bias",
        "gate.bias",
    ]
    assert masks.left == {"embed.weight": "tied to an embedding table", "gate.weight": "a router"}
    with pytest.raises(ValueError, match=r"Masks: include: no tensor and no module is called 'nothing'"):
        tnn.Masks(model, include=["nothing"])
    with pytest.raises(TypeError, match="Masks: model must be"):
        tnn.Masks([nn.Linear(2, 2)])
    with pytest.raises(TypeError, match=r"Masks: weight has no values yet"):
        tnn.Masks(nn.LazyLinear(3))
    with pytest.raises(TypeError, match="remove_parametrizations"):
        tnn.Masks(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    old = nn.Linear(3, 3)
    nn.utils.prune.l1_unstructured(old, "weight", 0.5)
    with pytest.raises(TypeError, match=r"weight_orig is pruned by torch"):
        tnn.Masks(old)
    odd = nn.Linear(3, 3)
    odd.weight_mask = 3
    with pytest.raises(ValueError, match=r"Linear.weight_mask is there and is no mask"):
        tnn.Masks(odd)
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
    with pytest.raises(ValueError, match=r"the optimizer has none of the weights fc.weight"):
        masks.attach(optimizer)
    with pytest.raises(TypeError, match=r"Masks: optimizer must be a torch.optim.Optimizer, got str"):
        masks.attach("SGD")
    own = torch.optim.SGD(model.parameters(), 0.1)
    masks.attach(own)
    with pytest.raises(ValueError, match="attached already"):
        masks.attach(own)


def test_what_prune_says():
    masks = tnn.Masks(net()).prune(0.5)
    for given, kind, text in (
        ({}, ValueError, "give either sparsity or k"),
        ({"sparsity": 0.5, "k": 3}, ValueError, "give either sparsity or k"),
        ({"sparsity": 0.2}, ValueError, "52 of 260 weights are fewer than the 130 that are pruned already"),
        ({"sparsity": 1.5}, ValueError, "sparsity must be between 0 and 1, got 1.5"),
        ({"sparsity": "half"}, TypeError, "sparsity must be a number"),
        ({"k": 0.5}, TypeError, "k must be an integer"),
        ({"k": 261}, ValueError, "k = 261, where only 260 may be pruned"),
        ({"k": 255, "min_keep": 5}, ValueError, "k = 255, where only 245 may be pruned"),
        ({"sparsity": 0.6, "of": "rest"}, ValueError, "of must be one of all, left"),
        ({"sparsity": 0.6, "scope": "row"}, ValueError, "scope must be one of"),
        ({"sparsity": [0.6, 0.7], "scope": "layer"}, ValueError, "sparsity must be one or 3, got 2"),
        ({"sparsity": 0.6, "min_keep": -1}, ValueError, "min_keep must not be negative"),
        ({"sparsity": 0.6, "scores": {}}, ValueError, "scores must have the names of all weights"),
        ({"sparsity": 0.6, "scores": [1]}, TypeError, "scores must be a mapping"),
    ):
        before = masks.kept
        with pytest.raises(kind, match=rf"^Masks.prune: .*{text}"):
            masks.prune(**given)
        assert masks.kept == before
    bad = net()
    bad[2].weight.data[0, 0] = math.nan
    for share in (0.5, 0.6):
        with pytest.raises(ValueError, match=r"Masks.prune: .*weight '2.weight'.*non-finite"):
            tnn.Masks(bad).prune(share)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_gradual_pruning_follows_its_schedule(scope):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    pruner = tnn.GradualPruner(model, lambda t: prune.cubic_schedule(t, 2, 12, 0.0, 0.9), 6, scope=scope).attach(
        optimizer
    )
    seen = {k: m.clone() for k, m in pruner.items()}
    for t in range(1, 15):
        step(model, optimizer)
        clean(model, optimizer, pruner)
        want = prune.cubic_schedule(t, 2, 12, 0.0, 0.9)
        for group in [list(pruner)] if scope == "global" else [[k] for k in pruner]:
            n = sum(pruner[k].numel() for k in group)
            assert sum(int(pruner[k].sum()) for k in group) == n - min(round(want * n), n - 6 * len(group))
        assert all(not (m & ~seen[k]).any() for k, m in pruner.items())
        seen = {k: m.clone() for k, m in pruner.items()}
    assert pruner.steps == 14 and pruner.state_dict() == {"steps": 14}


def test_a_gradual_pruner_goes_on():
    def run(stop):
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)

        def pruner():
            return tnn.GradualPruner(model, lambda t: prune.linear_schedule(t, 0, 10, 0.0, 0.8), every=2).attach(
                optimizer
            )

        one = pruner()
        step(model, optimizer, stop)
        state = copy.deepcopy((model.state_dict(), optimizer.state_dict(), one.state_dict()))
        model = net(1)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        one = pruner()
        model.load_state_dict(state[0]), optimizer.load_state_dict(state[1]), one.load_state_dict(state[2])
        step(model, optimizer, 12 - stop)
        return model, one

    (a, p), (b, q) = run(0), run(5)
    del a, p
    (c, r) = run(7)
    assert q.kept == r.kept and q.steps == r.steps == 12 and q.sparsity == pytest.approx(0.8)
    assert all(torch.equal(u, v) for u, v in zip(b.state_dict().values(), c.state_dict().values(), strict=True))


def test_what_a_gradual_pruner_says():
    model = net()
    for given, kind, text in (
        ({"schedule": 0.5}, TypeError, "schedule must be callable"),
        ({"schedule": abs, "every": 0}, ValueError, "every must be positive"),
        ({"schedule": abs, "every": 1.5}, TypeError, "every must be an integer"),
        ({"schedule": abs, "min_keep": [1, 2]}, ValueError, "min_keep must be one or 3"),
        ({"schedule": abs, "scope": "row"}, ValueError, "scope must be"),
    ):
        with pytest.raises(kind, match=f"GradualPruner.*{text}"):
            tnn.GradualPruner(model, **given)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = tnn.GradualPruner(model, lambda t: "half").attach(optimizer)
    with pytest.raises(ValueError, match="one is attached"):
        pruner.attach(torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(TypeError, match="schedule must give numbers, got str"):
        step(model, optimizer)
    for state in ({}, {"steps": 1, "more": 2}, [1]):
        with pytest.raises(TypeError, match="GradualPruner: state"):
            pruner.load_state_dict(state)
    with pytest.raises(ValueError, match="steps must not be negative"):
        pruner.load_state_dict({"steps": -1})


@pytest.mark.parametrize("method", ["rigl", "set"])
@pytest.mark.parametrize("attached", [False, True])
def test_dynamic_masks_keep_their_number(method, attached):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    masks = tnn.Masks(model).prune(0.8, scope="layer")
    if attached:
        masks.attach(optimizer)
    dynamic = tnn.DynamicSparse(optimizer, masks, method=method, fraction=0.4, every=3, end=20, seed=3)
    kept, old, changes = masks.kept, {k: m.clone() for k, m in masks.items()}, 0
    for t in range(24):
        grown = dynamic.share()
        assert grown == (0.2 * (1 + math.cos(math.pi * t / 20)) if t and t % 3 == 0 and t < 20 else 0)
        step(model, optimizer)
        clean(model, optimizer, masks)
        assert masks.kept == kept
        moved = sum(int((m & ~old[k]).sum()) for k, m in masks.items())
        assert moved == (dynamic.moved if grown else 0)
        assert moved <= sum(int(grown * n) for n in kept.values())
        changes += bool(moved)
        old = {k: m.clone() for k, m in masks.items()}
    assert changes >= 5 and dynamic.state_dict() == {"steps": 24}
    assert dynamic.remove() is masks
    step(model, optimizer)
    clean(model, optimizer, masks)
    assert dynamic.steps == 24


def test_dynamic_training_is_repeatable_and_depends_on_its_seed():
    def run(seed):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        masks = tnn.Masks(model).prune(0.7)
        tnn.DynamicSparse(optimizer, masks, method="set", every=1, seed=seed)
        step(model, optimizer, 3)
        return torch.cat([m.flatten() for m in masks.values()])

    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(2**64 - 1))


def test_what_grows_has_the_largest_gradient_of_all_weights():
    model = nn.Linear(4, 1, bias=False)
    model.weight.data = torch.tensor([[4.0, 3.0, 0.0, 0.0]])
    optimizer = torch.optim.SGD(model.parameters(), 0.0, momentum=0.9)
    masks = tnn.Masks(model)
    masks["weight"] = torch.tensor([[True, True, False, False]])
    dynamic = tnn.DynamicSparse(optimizer, masks, fraction=0.5, every=1)
    model.weight.grad = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    optimizer.step()
    model.weight.grad = torch.tensor([[0.0, 0.0, 1.0, -2.0]])
    optimizer.step()
    assert masks["weight"].tolist() == [[True, False, False, True]] and dynamic.moved == 1
    assert model.weight.tolist() == [[4.0, 0.0, 0.0, 0.0]]
    assert optimizer.state[model.weight]["momentum_buffer"][0, 1:].tolist() == [0.0, 0.0, -2.0]


def test_what_dynamic_sparse_says():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    masks = tnn.Masks(model)
    for given, kind, text in (
        ({"method": "random"}, ValueError, "method must be one of rigl, set"),
        ({"fraction": 1.5}, ValueError, "fraction must be between 0 and 1"),
        ({"fraction": "some"}, TypeError, "fraction must be a number"),
        ({"every": 0}, ValueError, "every must be in"),
        ({"end": 0.5}, TypeError, "end must be an integer"),
        ({"seed": -1}, ValueError, "seed must be in"),
    ):
        with pytest.raises(kind, match=f"DynamicSparse: {text}"):
            tnn.DynamicSparse(optimizer, masks, **given)
    with pytest.raises(TypeError, match="masks must be Masks, got Sequential"):
        tnn.DynamicSparse(optimizer, model)
    with pytest.raises(TypeError, match=r"optimizer must be a torch.optim"):
        tnn.DynamicSparse(model, masks)
    with pytest.raises(ValueError, match=r"does not have 2.weight, 4.weight"):
        tnn.DynamicSparse(torch.optim.SGD(model[0].parameters(), 0.1), masks)
    tnn.DynamicSparse(optimizer, masks)
    with pytest.raises(ValueError, match="a step with a closure"):
        optimizer.step(lambda: 0.0)


def test_a_step_that_is_traced_or_scaled():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    masks = tnn.Masks(model).attach(optimizer).prune(0.5)
    torch._dynamo.reset()
    traced = torch.compile(lambda: optimizer.step(), backend="eager")
    scaler = torch.amp.GradScaler("cpu")
    for share in (0.5, 0.7, 0.9):
        masks.prune(share)
        optimizer.zero_grad()
        model(X).square().sum().backward()
        traced()
        clean(model, optimizer, masks)
        optimizer.zero_grad()
        scaler.scale(model(X).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        clean(model, optimizer, masks)
    exported = torch.export.export(model, (X,)).module()
    assert torch.equal(exported(X), model(X))
    layer = tnn.SparseLinear.from_dense(model[0], masks["0.weight"])
    torch.testing.assert_close(layer(X), model[0](X))
