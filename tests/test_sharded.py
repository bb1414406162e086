"""Layers, optimisers and functions over several processes: DDP, FSDP2, DTensors. The one rule: what is spread over processes is
what one process with all of it gets, or is refused by name.

Two processes are started once for all checks; this file is also the program that they run.
"""

import copy
import datetime
import functools
import json
import os
import subprocess
import sys
import tempfile
import traceback
import warnings

import pytest
import torch
from tersor import graph, hyperbolic, metrics, nn, optim, prune, quant, sparse
from tersor._op import OPS
from test_layers import IMAGE, LAYERS, made
from test_public_torch import CASES, CONSTANT
from torch import distributed as dist

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(
        not (dist.is_available() and dist.is_gloo_available()), reason="needs the gloo backend of torch"
    ),
]

SIZE = 2
#: how errors begin: with the function, or the operator that it is made of
NAMES = tuple({f"{op.name}: " for op in OPS.values()} | {f"{name.split('.')[1]}: " for name in CASES})
#: name -> what both processes do; assertions that fail are the test's
CHECKS = {}


def check(*names):
    """Registers a check, or one for each name, which it is called with."""

    def register(f):
        for name in names or [None]:
            CHECKS[f.__name__ if name is None else f"{f.__name__}[{name}]"] = (f, () if name is None else (name,))
        return f

    return register


def whole(x):
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def close(got, want, rtol=1e-5, atol=1e-6):
    torch.testing.assert_close(whole(got), want, rtol=rtol, atol=atol)


def spread(x, at):
    """A tensor that all have, as a DTensor; a sum of equal parts where that is asked."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if at.is_partial():
        return DTensor.from_local(x / SIZE, MESH, [at])
    return distribute_tensor(x.detach().clone(), MESH, [at])


def refused(f, *names):
    """Whether a call is a TypeError that names who was called."""
    try:
        f()
    except TypeError as e:
        assert str(e).startswith(names), e
        return True
    return False


# --- layers ---


def model(name):
    """A layer after one of torch's, so that there always is something to train; and its input for all processes."""
    layer, x = made(name)
    first = (
        torch.nn.Conv2d(x.shape[1], x.shape[1], 1) if LAYERS[name][1] is IMAGE else torch.nn.Linear(*x.shape[-1:] * 2)
    )
    x = torch.cat([x, 0.7 * x.flip(0)])
    return torch.nn.Sequential(first, layer).train(), x


def shard(net):
    """FSDP2 as the page says: learned curvatures are float64, and torch shards parameters of one type together."""
    from torch.distributed.fsdp import fully_shard

    for m in net.modules():
        if isinstance(m, nn.Curvature) and m.learnable:
            fully_shard(m, mesh=MESH)
    fully_shard(net[1], mesh=MESH)
    return fully_shard(net, mesh=MESH)


def together(net, parts):
    """The outputs and mean gradients of one process with the parts of all; statistics of batches are those of a part."""
    ys, sums = [], {}
    for x in parts:
        net.zero_grad()
        y = net(x)
        (y * y).mean().backward()
        ys.append(y.detach())
        for k, p in net.named_parameters():
            if p.grad is not None:
                sums[k] = sums.get(k, 0) + p.grad / len(parts)
    for k, p in net.named_parameters():
        p.grad = sums.get(k)
    return ys


def trained(name, wrap):
    """Two steps of a layer in one process and in all; the plain model and the other."""
    plain, x = model(name)
    net = copy.deepcopy(plain)
    inner, parts = net, x.chunk(SIZE)
    net = wrap(net)
    one, all_ = (torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (plain, net))
    for _ in range(2):
        all_.zero_grad()
        want = together(plain, parts)[RANK]
        y = net(parts[RANK])
        close(y, want)
        (y * y).mean().backward()
        grads = {k: p.grad for k, p in plain.named_parameters() if p.grad is not None}
        found = {k: whole(p.grad) for k, p in inner.named_parameters() if p.grad is not None}
        assert found.keys() >= grads.keys()
        for k, g in found.items():  # DDP gives zeros to what had no part
            close(g, grads.get(k, torch.zeros_like(g)))
        one.step()
        all_.step()
        for (k, p), q in zip(inner.named_parameters(), plain.parameters(), strict=True):
            close(p, q.detach()), k
    return plain, net, parts[RANK]


#: what these give or send back hangs on all steps before, of which one process alone has seen others
BY_STEPS = ("PowerNorm", "UnifiedNorm", "PRepBN", "BatchChannelNorm by estimates")
ALIKE = [name for name in LAYERS if name not in BY_STEPS]


@check(*ALIKE)
def ddp(name):
    trained(name, lambda net: torch.nn.parallel.DistributedDataParallel(net, find_unused_parameters=True))


@check(*ALIKE)
def fsdp(name):
    from torch.distributed.checkpoint import load, save
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict

    plain, net, x = trained(name, shard)
    # a state of whole tensors goes into a plain model, and back into a sharded one
    state = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True))
    fresh, other = model(name)[0], model(name)[0]
    if RANK == 0:
        assert str(fresh.load_state_dict(state)) == "<All keys matched successfully>"
        for (k, v), w in zip(fresh.state_dict().items(), plain.state_dict().values(), strict=True):
            if "running" not in k and "tracked" not in k:  # statistics of batches are those of each process
                close(v, w)
    again = shard(other)
    set_model_state_dict(again, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    net.eval(), again.eval()
    for v, w in zip(again.parameters(), net.parameters(), strict=True):
        assert torch.equal(whole(v.detach()), whole(w.detach()))
    # and as it is sharded, through files
    place = os.path.join(FOLDER, name.replace(" ", "-"))
    save(get_model_state_dict(net), checkpoint_id=place, no_dist=False)
    third = shard(model(name)[0])
    state = get_model_state_dict(third)
    load(state, checkpoint_id=place)
    set_model_state_dict(third, state)
    for v, w in zip(third.parameters(), net.parameters(), strict=True):
        assert torch.equal(whole(v.detach()), whole(w.detach()))
    if not any("running" in k for k, _ in plain.named_buffers()):
        third.eval()
        close(third(x), again(x))


#: layers of which each has first weights of its own
RANDOM = nn.PoincareMLR | nn.LorentzLinear | nn.LorentzConv2d | nn.LorentzAttention


@check(*LAYERS)
def made_on_meta(name):
    """As large models are: made without memory, sharded, and only then given memory and first weights, or a state."""
    plain, x = model(name)
    net = shard(model(name)[0].to("meta"))
    net.to_empty(device="cpu")
    for m in net[1].modules():
        for p in m.parameters(recurse=False):
            p.detach().fill_(9.0)
        if hasattr(m, "reset_parameters"):
            m.reset_parameters()
    if not isinstance(
        plain[1], nn.QuantLinear | nn.QuantConv2d | nn.SparseLinear | nn.SparseInt8Linear | nn.SparseConv1x1
    ):  # these are made of the weights of others
        for (k, p), q in zip(net[1].named_parameters(), plain[1].parameters(), strict=True):
            drawn = isinstance(plain[1], nn.TopKFFN | nn.WSConv2d | nn.WSLinear) and k != "gain"
            if drawn or (isinstance(plain[1], RANDOM) and k.rpartition(".")[2] == "weight"):
                first, w = whole(p.detach()), q.detach()
                assert first.shape == w.shape and 0 < first.std() < 1, k
                assert torch.equal(first == 0, w == 0), k  # the time's column
            else:
                assert torch.equal(whole(p.detach()), q.detach()), k
        for (k, b), c in zip(net[1].named_buffers(), plain[1].buffers(), strict=True):
            torch.testing.assert_close(b, c, rtol=0, atol=0, equal_nan=True, msg=k)
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(net, plain.state_dict(), options=StateDictOptions(full_state_dict=True))
    close(net.eval()(x).detach(), plain.eval()(x).detach())


@check("RiemannianSGD", "RiemannianAdam")
def sharded_layers_take_riemannian_steps(kind):
    """The rows of a table of points under FSDP2, with a curvature of its own that is learned as a number."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )
    from torch.distributed.fsdp import fully_shard

    def run(net, wrap, parts):
        wrap(net)
        steps = getattr(optim, kind)(net.parameters(), 0.1, c=0.7, **rules)
        for _ in range(3):
            steps.zero_grad()
            for x in parts:
                (hyperbolic.dist0(net(x), 0.7).mean() / (1 if wrap is shards else len(parts))).backward()
            steps.step()
        return net, steps

    def shards(net):
        return fully_shard(net, mesh=MESH)

    torch.manual_seed(0)
    rules = {"momentum": 0.9} if kind == "RiemannianSGD" else {}
    table = torch.nn.Embedding(5, 4)
    table.weight.data.mul_(0.1)
    ids = torch.tensor([[0, 1, 1, 3], [2, 1, 4, 4]])
    plain, _ = run(copy.deepcopy(table), lambda net: net, ids)
    net, steps = run(copy.deepcopy(table), shards, ids[RANK][None])
    close(net.weight.detach(), plain.weight.detach())
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    state = get_optimizer_state_dict(net, steps, options=options)
    other = shards(copy.deepcopy(table))
    again = getattr(optim, kind)(other.parameters(), 0.1, c=0.7, **rules)
    set_optimizer_state_dict(other, again, state, options=options)
    old, new = steps.state[net.weight], again.state[other.weight]
    assert old.keys() == new.keys()
    for k in old:
        close(whole(new[k]), whole(old[k])) if isinstance(old[k], torch.Tensor) else None


@check("RiemannianSGD", "RiemannianAdam")
def sharded_tables_say_where_they_live(kind):
    """Shards of a table's points are points to the optimiser, which nobody has told the curvature."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    plain = nn.HEmbedding(5, 4, c=0.7, std=0.3)
    net = fully_shard(copy.deepcopy(plain), mesh=MESH)
    ids = torch.tensor([[0, 1, 1, 3], [2, 1, 4, 4]])
    for table, parts in ((plain, ids), (net, ids[RANK][None])):
        steps = getattr(optim, kind)(table.parameters(), 0.1)
        for _ in range(3):
            steps.zero_grad()
            for x in parts:
                (hyperbolic.dist0(table(x), 0.7).mean() / len(parts)).backward()
            steps.step()
    assert hasattr(net.weight, "full_tensor") and net.weight.curvature is net.curvature
    close(net.weight.detach(), plain.weight.detach())


RULES = {
    "RiemannianSGD": {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01},
    "RiemannianSGD nesterov": {"momentum": 0.9, "nesterov": True},
    "RiemannianAdam": {"amsgrad": True, "weight_decay": 0.01},
}


def curvatures(rows, at):
    """Curvatures in all forms: as one process has them, and as several do."""
    from torch.distributed.tensor import Shard

    number, learned = torch.tensor(0.7), torch.tensor([0.7])
    each = torch.linspace(0.5, 0.9, rows)[:, None]
    return {
        "none": (None, None),
        "float": (0.7, 0.7),
        "0-d": (torch.nn.Parameter(number), torch.nn.Parameter(number.clone())),
        "sharded": (learned, torch.nn.Parameter(spread(learned, Shard(0)))),
        "rows": (each, spread(each, at)),
    }


@check(*RULES)
def riemannian_steps(rule):
    from torch.distributed.tensor import Partial, Replicate, Shard

    kind = rule.split()[0]

    def steps(x, gs, c):
        p = torch.nn.Parameter(x)
        one = getattr(optim, kind)([p], 0.1, c=c, **RULES[rule])
        for g in gs:
            p.grad = g
            one.step()
        return p.detach()

    for rows in (4, 3, 1):  # as many for all, more for the first, none for the last
        x = 0.2 * torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))
        gs = [torch.randn(rows, 4, generator=torch.Generator().manual_seed(9 + i)) for i in range(3)]
        for at in (Shard(0), Replicate()):
            for of in (at, Partial()):  # of gradients, a sum still to be made too
                for name, (c, d) in curvatures(rows, at).items():
                    want = steps(x.clone(), [g.clone() for g in gs], c)
                    got = steps(spread(x, at), [spread(g, of) for g in gs], d)
                    assert got.placements == (at,), name
                    close(got, want)
        for at, c in ((Shard(1), 0.7), (Partial(), 0.7), (Partial(), None)):
            assert refused(lambda at=at, c=c, x=x: getattr(optim, kind)([spread(x, at)], c=c), kind)
        close(steps(spread(x, Shard(1)), [spread(g, Shard(1)) for g in gs], None), steps(x.clone(), gs, None))
    assert refused(
        lambda: steps(spread(torch.zeros(3, 4), Shard(0)), [spread(torch.ones(3, 4), Shard(0))], torch.ones(3, 1)), kind
    )
    assert refused(lambda: steps(torch.zeros(3, 4), [torch.ones(3, 4)], spread(torch.ones(3, 1), Shard(0))), kind)
    for wrong in (-1.0, float("nan")):  # in the shard of one process only
        c = spread(torch.tensor([[0.5], [wrong]]), Shard(0))
        try:
            getattr(optim, kind)([spread(torch.zeros(2, 4), Shard(0))], c=c)
        except ValueError as e:
            assert "finite and not negative" in str(e)
        else:
            raise AssertionError("no error")


@check("RiemannianSGD", "RiemannianAdam")
def sparse_gradients_under_ddp(kind):
    def run(net, parts, inner):
        steps = getattr(optim, kind)(inner.parameters(), 0.1, c=0.7)
        for _ in range(3):
            steps.zero_grad()
            for x in parts:
                (hyperbolic.dist0(net(x), 0.7).mean() / len(parts)).backward()
            steps.step()
        return inner.weight.detach()

    torch.manual_seed(0)
    table = torch.nn.Embedding(5, 4, sparse=True)
    table.weight.data.mul_(0.1)
    ids = torch.tensor([[0, 1, 1, 3], [2, 1, 3, 3]])
    other = copy.deepcopy(table)
    close(run(torch.nn.parallel.DistributedDataParallel(other), ids[RANK][None], other), run(table, ids, table))


@check()
def layers_outside_of_the_model_that_was_sharded():
    """Their parameters are shards there: which is said by name, whatever comes in."""
    for name in LAYERS:
        net, x = model(name)
        if not list(net[1].parameters(recurse=False)):
            continue
        net = shard(net)
        assert refused(functools.partial(type(net[1]).forward, net[1], x), type(net[1]).__name__), name
        if isinstance(net[1], nn.SparseLinear):
            assert refused(net[1].to_dense, "SparseLinear: data")


# --- pruning ---


@check()
def pruning_is_that_of_the_whole_tensors():
    import numpy as np
    from torch.distributed.tensor import Replicate, Shard

    seen = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        kinds = [str(rng.choice(["float32", "float16", "float64"])) for _ in range(rng.integers(1, 5))]
        arrays = [
            torch.from_numpy(np.round(rng.standard_normal((int(rng.integers(0, 6)), 3)) * 2).astype(kind))
            for kind in kinds
        ]
        ats = [Shard(0) if rng.random() < 0.7 else Replicate() for _ in arrays]
        parts = [spread(x, at) for x, at in zip(arrays, ats, strict=True)]
        tied = rng.random() < 0.25
        if tied:  # one array at two places
            arrays, parts, ats = [*arrays, arrays[0]], [*parts, parts[0]], [*ats, ats[0]]
        options = {"ties": str(rng.choice(["low", "high", "all", "none"])), "mixed": True}
        if rng.random() < 0.3:
            options["min_keep"] = int(rng.integers(0, 4))
        own, sparsity = {}, float(rng.random())
        if rng.random() < 0.3:
            scores = [torch.from_numpy(np.round(rng.standard_normal(x.shape))) for x in arrays]
            options["scores"] = [*scores[:-1], scores[0]] if tied else scores
            own["scores"] = [spread(x, at) for x, at in zip(scores, ats, strict=True)]
            if tied:
                own["scores"][-1] = own["scores"][0]
        if rng.random() < 0.2:
            options["scope"] = "layer"
        try:
            want = prune.global_masks(arrays, sparsity, **options)
        except ValueError as e:
            try:
                prune.global_masks(parts, sparsity, **{**options, **own})
            except ValueError as other:
                assert str(other) == str(e)
                continue
            raise AssertionError("no error") from None
        seen += 1
        got = prune.global_masks(parts, sparsity, **{**options, **own})
        for m, w, at in zip(got, want, ats, strict=True):
            assert m.placements == (at,) and torch.equal(whole(m), w), seed
        pruned = prune.global_prune(iter(parts), sparsity, **{**options, **own})
        for x, p, w in zip(arrays, pruned, want, strict=True):
            assert torch.equal(whole(p), torch.where(w, x, 0)), seed
        if options.pop("scope", None) is None:
            one = prune.global_threshold(arrays, [0.0, sparsity], **options)
            assert prune.global_threshold(parts, [0.0, sparsity], **{**options, **own}) == one
            assert prune.global_threshold(parts, sparsity, **{**options, **own}) == one[1]
    assert seen > 12, seen


@check()
def pruning_in_place_and_what_is_refused():
    from torch.distributed.tensor import Partial, Replicate, Shard

    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    want = prune.global_prune([x], 0.5)[0]
    for at in (Shard(0), Replicate()):
        p = torch.nn.Parameter(spread(x, at))
        [back] = prune.global_prune([p], 0.5, inplace=True)
        assert back is p and torch.equal(whole(p.detach()), want)
        q = torch.nn.Parameter(spread(x, at))  # and gradients go to what is kept
        (prune.global_prune([q], 0.5)[0] ** 2).sum().backward()
        assert torch.equal(whole(q.grad), 2 * want)
    d = spread(x, Shard(0))
    for name in ("global_masks", "global_threshold"):
        f = getattr(prune, name)
        for wrong in ([spread(x, Shard(1))], [spread(x, Partial())], [d, x], [x, d]):
            assert refused(lambda f=f, wrong=wrong: f(wrong, 0.5), name)
        assert refused(lambda f=f: f([d], 0.5, group=dist.group.WORLD), name)
        assert refused(lambda f=f: f([d], 0.5, scores=[x.abs()]), name)
        assert refused(lambda f=f: f([x], 0.5, scores=[d]), name, "prune: scores[0]")
    assert refused(lambda: prune.MagnitudeHistogram("float32", 3).update(d), "MagnitudeHistogram.update")
    bad = x.clone()
    bad[-1, -1] = torch.nan  # in one process only: an error in all
    try:
        prune.global_masks([spread(bad, Shard(0))], 0.5)
    except ValueError as e:
        assert "non-finite" in str(e)
    else:
        raise AssertionError("no error")


@check()
def pruning_on_a_mesh_of_two_axes():
    """As FSDP2 places replicas of shards."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = dist.device_mesh.init_device_mesh("cpu", (1, SIZE))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    parts = [
        distribute_tensor(x, mesh, [Replicate(), Shard(0)]),
        distribute_tensor(x.T, mesh, [Replicate(), Replicate()]),
    ]
    for m, w in zip(prune.global_masks(parts, 0.5), prune.global_masks([x, x.T.clone()], 0.5), strict=True):
        assert torch.equal(whole(m), w)
    wrong = [distribute_tensor(x, mesh, [Shard(0), Replicate()]), parts[0]]
    assert refused(lambda: prune.global_masks(wrong, 0.5), "global_masks")


@check("rigl", "set")
def masks_under_ddp(method):
    """Gradual pruning, then moving masks: the weights and masks of one process with all rows."""

    def run(net, inner, parts):
        steps = torch.optim.SGD(inner.parameters(), lr=0.1, momentum=0.9)
        masks = nn.GradualPruner(inner, lambda t: prune.cubic_schedule(t, 0, 3, 0.0, 0.6), 4).attach(steps)
        for t in range(6):
            if t == 3:
                nn.DynamicSparse(steps, masks, method=method, every=1, fraction=0.5)
            steps.zero_grad()
            for x in parts:
                (net(x).square().mean() / len(parts)).backward()
            steps.step()
        return inner

    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    inner, x = copy.deepcopy(plain), torch.randn(2 * SIZE, 6)
    run(torch.nn.parallel.DistributedDataParallel(inner), inner, [x.chunk(SIZE)[RANK]])
    run(plain, plain, x.chunk(SIZE))
    for (k, v), w in zip(inner.state_dict().items(), plain.state_dict().values(), strict=True):
        if k.endswith("mask"):
            assert torch.equal(v, w), k
        close(v, w)


@check()
def masks_are_refused_by_shards():
    plain = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 4))
    masks = nn.Masks(plain).prune(0.5)
    steps = torch.optim.SGD(plain.parameters(), lr=0.1)
    masks.attach(steps)
    net = shard(plain)
    assert refused(lambda: masks.prune(0.6), "Masks.prune: 0.weight is a DTensor")
    assert refused(masks.apply, "Masks: 0.weight is a DTensor")
    assert refused(lambda: masks.attach(torch.optim.SGD(net.parameters(), lr=0.1)), "Masks: 0.weight is a DTensor")
    assert refused(lambda: nn.Masks(net), "Masks: 0.weight is a DTensor")
    w = next(net.parameters())
    assert refused(lambda: prune.set_update(w, w > 0, 0.5, seed=0), "set_update: w must be a plain tensor")


# --- metrics ---


@check()
def metrics_are_those_of_all_processes():
    """States are merged in the order of ranks: every process has the bytes of one that saw all, also where one saw nothing."""
    from test_metrics_parts import PARTS, fed, parts_of, same

    for key in PARTS.args[1]:
        kind, options, data, _ = parts_of()[key]
        for cuts in ([0, 23, 60], [0, 60, 60], [0, 0, 60]):
            mine = fed(kind, options, data, [cuts[RANK], cuts[RANK + 1]])
            mine.sync()
            assert same(mine, fed(kind, options, data, cuts)), (key, cuts)
            assert repr(mine.compute()) == repr(fed(kind, options, data, cuts).compute())
    nobody = kind(**options)
    nobody.sync()
    assert not nobody.state_dict()


@check()
def metrics_of_other_settings_are_refused():
    for metric in (metrics.CalibrationError(5 + RANK), metrics.NeuralCollapse(3 + RANK)):
        try:
            metric.sync()
        except ValueError as e:
            assert ".sync: the settings of rank 0" in str(e)
        else:
            raise AssertionError("no error")
    wide = metrics.RunningMoments()
    wide.update(torch.ones(3, 2 + RANK))
    before = wide.state_dict()
    try:
        wide.sync()
    except ValueError as e:
        assert "RunningMoments.sync: sizes differ" in str(e)
    else:
        raise AssertionError("no error")
    assert all((v == before[k]).all() for k, v in wide.state_dict().items())
    from torch.distributed.tensor import Shard

    assert refused(lambda: wide.update(spread(torch.ones(4, 2), Shard(0))), "RunningMoments.update: x")
    for f in (metrics.calibration_error, metrics.neural_collapse, metrics.spearman_corrcoef):
        x = spread(torch.ones(4, 2), Shard(0))
        assert refused(lambda f=f, x=x: f(x, torch.zeros(4, dtype=torch.int64)), f.__name__)


# --- graphs ---


@check()
def graphs_cut_by_rows_have_the_bits_of_one():
    """A rank gives its own rows: hops, gradients and embeddings are those of one process, sums over nodes up to rounding."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 30, (2, 200), generator=generator).numpy()
    x = torch.randn(30, 4, dtype=torch.float64, generator=generator)
    a = graph.adjacency(edges, n=30, dtype="float64")
    for cuts in ([0, 11, 30], [0, 30, 30]):
        part = slice(cuts[RANK], cuts[RANK + 1])
        own = sparse.from_scipy(a.to_scipy()[part])
        for norm in ("sym", "row", "col", (-0.5, -0.5)):
            leaf, mine = x.clone().requires_grad_(), x[part].clone().requires_grad_()
            want = graph.propagate(a, leaf, 3, norm, self_loops=True, teleport=0.1)
            got = graph.propagate(own, mine, 3, norm, self_loops=True, teleport=0.1, group=True)
            close(got, want[part], 1e-13, 1e-13)
            assert norm not in ("sym", "row") or torch.equal(got, want[part])
            (want**2).sum().backward()
            (got**2).sum().backward()
            close(mine.grad, leaf.grad[part], 1e-12, 1e-12)
        whole = graph.fastrp(a, 16, [0.5, 1, 2], alpha=-0.5)
        close(
            torch.from_numpy(graph.fastrp(own, 16, [0.5, 1, 2], alpha=-0.5, group=True)), torch.from_numpy(whole[part])
        )


# --- functions ---

#: what takes no rows of several processes, and why
REFUSED = {
    "graph.edge_attention": "takes plain tensors",
    "graph.hypergraph_propagate": "takes plain tensors",
    "graph.propagate": "takes plain tensors",
    "hyperbolic.cdist": "all pairs",
    "hyperbolic.delta_hyperbolicity": "all pairs",
    "hyperbolic.dist": "its case has the vectors along the axis that is sharded",
    "hyperbolic.frechet_mean": "a mean over the rows",
    "hyperbolic.frechet_variance": "a mean over the rows",
    "hyperbolic.knn": "all pairs",
    "hyperbolic.poincare_fc": "its case shards the axis that is summed over",
    "hyperbolic.poincare_fc_tangent": "its case shards the axis that is summed over",
    "hyperbolic.poincare_mlr": "its case shards the axis that is summed over",
    "hyperbolic.segment_midpoint": "its matrix is whole",
    "hyperbolic.tangent_project": "its case has the mean along the axis that is sharded",
    "hyperbolic.softmin_dist": "all pairs",
    "hyperbolic.weighted_midpoint": "a mean over the rows",
    "hyperbolic.weighted_midpoint_bmm": "a mean over the rows",
    "hyperbolic.window_midpoint": "windows over the rows",
    "lorentz.fc": "its case shards the hyperplanes, with which no rows go",
    "lorentz.frechet_mean": "a mean over the rows",
    "lorentz.frechet_variance": "a mean over the rows",
    "lorentz.midpoint": "takes plain tensors",
    "lorentz.mlr": "its case shards the hyperplanes, with which no rows go",
    "lorentz.segment_midpoint": "takes plain tensors",
    "lorentz.weighted_midpoint_bmm": "a mean over the rows",
    "loss.cross_entropy": "its labels are plain",
    "loss.info_nce": "all pairs",
    "metrics.cka": "all pairs",
    "metrics.loss_barrier": "takes plain tensors",
    "norm.add_norm": "its case shards the weight",
    "norm.batch_norm": "statistics over the rows",
    "norm.crms_norm": "takes plain tensors",
    "norm.evonorm": "statistics over the rows",
    "norm.group_norm": "takes plain tensors",
    "norm.instance_norm": "takes plain tensors",
    "norm.layer_norm": "takes plain tensors",
    "norm.region_norm": "takes plain tensors",
    "norm.rms_norm": "its case shards the weight",
    "norm.standardize": "takes plain tensors",
    "norm.weight_standardize": "takes plain tensors",
    "project.arccos_features": "takes plain tensors",
    "project.dual": "takes plain tensors",
    "project.ntk": "takes plain tensors",
    "project.patch_kernel": "all pairs",
    "project.project": "takes plain tensors",
    "project.rff": "takes plain tensors",
    "project.ridge_path": "all rows at once",
    "project.singular_vote": "all pairs",
    "project.tensorsketch": "takes plain tensors",
    "prune.apply_mask": "its mask is plain",
    "prune.interpolate_channels": "takes plain tensors",
    "prune.prefix_mask": "takes plain tensors",
    "prune.threshold_rows": "takes plain tensors",
    "quant.choose_qparams": "a range over the rows",
    "quant.codebook_assign": "all pairs",
    "quant.encode": "codes are no DTensors",
    "quant.hadamard": "takes plain tensors",
    "quant.packed_linear": "its weight is plain",
    "quant.requantize": "its factors belong to columns",
    "reduce.segment_moments": "takes plain tensors",
    "reduce.segment_reduce": "takes plain tensors",
    "sparse.conv1x1": "takes plain tensors",
    "sparse.linear": "takes plain tensors",
    "sparse.sddmm": "takes plain tensors",
    "sparse.softmax": "takes plain tensors",
    "sparse.spmm": "takes plain tensors",
    "sparse.spmv": "takes plain tensors",
    "sparse.sub_dimensions": "takes plain tensors",
    "sparse.topk_ffn": "takes plain tensors",
}


def asked(name, xs, ds):
    """Calls a function with tensors and with DTensors; whether that was refused. Else values and gradients are the same."""
    f, smooth = CASES[name][0], name not in CONSTANT
    want = f(*xs)
    if refused(lambda: f(*ds), *NAMES):
        return True
    ds = [d.detach().requires_grad_(smooth) for d in ds]
    got = f(*ds)
    assert hasattr(got, "full_tensor"), name
    close(got.detach(), want, 1e-11, 1e-12)
    if smooth:
        leaves = [x.clone().requires_grad_() for x in xs]
        slopes = torch.autograd.grad((f(*leaves) ** 2).sum(), leaves)
        (got**2).sum().backward()
        for d, w in zip(ds, slopes, strict=True):
            close(d.grad, w, 1e-11, 1e-12)
    return False


@check(*CASES)
def function(name):
    from torch.distributed.tensor import Partial, Replicate, Shard

    xs = CASES[name][1]
    assert asked(name, xs, [spread(x, Shard(0)) for x in xs]) == (name in REFUSED)
    for at in (lambda x: Replicate(), lambda x: Shard(x.ndim - 1), lambda x: Partial()):
        asked(name, xs, [spread(x, at(x)) for x in xs])
    if len(xs) > 1:  # one row for all, in one process; and of one argument
        some = [x[:1] if i else x for i, x in enumerate(xs)]
        if name.startswith("hyperbolic.") and name not in REFUSED and name != "hyperbolic.mobius_matvec":
            asked(name, some, [spread(x, Shard(0)) for x in some])
            assert asked(name, some, [spread(x, Replicate() if i else Shard(0)) for i, x in enumerate(some)]) is False
    one = [x[:1] for x in xs]  # nothing in the last process
    if name not in REFUSED and name != "quant.pack":
        assert not asked(name, one, [spread(x, Shard(0)) for x in one])


@check()
def layers_on_distributed_rows():
    """Rows that are sharded go through layers whose parameters every process has: gradients to both are those of the whole."""
    from torch.distributed.tensor import Replicate, Shard, distribute_module

    for name in ("PoincareLinear", "PoincareLinear ball", "PoincareMLR"):
        plain, x = made(name, torch.float64)
        layer = distribute_module(copy.deepcopy(plain), MESH)
        x, d = x.requires_grad_(), spread(x, Shard(0)).requires_grad_()
        want, got = plain(x), layer(d)
        assert got.placements == (Shard(0),)
        close(got.detach(), want.detach(), 1e-11, 1e-12)
        (want**2).sum().backward()
        (got**2).sum().backward()
        close(d.grad, x.grad, 1e-11, 1e-12)
        for p, q in zip(layer.parameters(), plain.parameters(), strict=True):
            assert p.placements == (Replicate(),)
            close(p.grad, q.grad, 1e-10, 1e-11)


@check()
def curvatures_of_functions():
    """A curvature that every process has, or one has, is one number, and its gradient is that of all rows."""
    from torch.distributed.tensor import Replicate, Shard

    x = 0.2 * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    (hyperbolic.expmap0(x, c) ** 2).sum().backward()
    for at in (Replicate(), Shard(0), Shard(1)):
        d = spread(c.detach(), at).requires_grad_()
        (hyperbolic.expmap0(spread(x, Shard(0)), d) ** 2).sum().backward()
        close(d.grad, c.grad, 1e-12, 1e-13)
    plain = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    # it would have that of the rows at hand
    assert refused(lambda: hyperbolic.expmap0(spread(x, Shard(0)), plain), "expmap0: c")


@check()
def scales_of_quantizers():
    """Scales that go with rows are sharded with them; groups of rows, and random bits by place, are refused."""
    from torch.distributed.tensor import Replicate, Shard

    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    d = spread(x, Shard(0))
    for scale, at in (
        (torch.rand(4, 1) / 9 + 0.01, Shard(0)),
        (torch.rand(1, 6) / 9 + 0.01, Replicate()),
        (torch.rand(1, 2) / 9 + 0.01, Replicate()),
        (torch.tensor(0.05), Replicate()),
    ):
        dist.broadcast(scale, 0)
        s = spread(scale, at)
        q = quant.quantize(x, scale)
        assert torch.equal(whole(quant.quantize(d, s)), q)
        assert torch.equal(whole(quant.dequantize(spread(q, Shard(0)), s)), quant.dequantize(q, scale))
        a, b = scale.clone().requires_grad_(), s.detach().requires_grad_()
        want, got = quant.fake_quantize(x, a, grad="lsq"), quant.fake_quantize(d, b, grad="lsq")
        assert torch.equal(whole(got), want.detach())
        (want**2).sum().backward()
        (got**2).sum().backward()
        close(b.grad, a.grad)
    for scale, at in (
        (torch.full((2, 1), 0.1), Replicate()),
        (torch.full((2, 1), 0.1), Shard(0)),
        (torch.full((4, 1), 0.1), Replicate()),
    ):
        for f in (quant.quantize, quant.fake_quantize):
            assert refused(functools.partial(f, d, spread(scale, at)), f.__name__)
    assert refused(lambda: quant.quantize(d, 0.1, rounding="stochastic"), "quantize")


@check()
def nothing_without_memory_goes_to_a_kernel():
    """Not where it has no elements either."""
    from torch.distributed.tensor import Shard

    e = spread(torch.zeros(0, 4), Shard(0))
    for f in (hyperbolic.expmap0, hyperbolic.lambda_x, lambda x: hyperbolic.expmap(x, x, out=torch.zeros_like(x))):
        assert len(f(e)) == 0
    assert whole(prune.global_masks([e], 0.5)[0]).shape == (0, 4)
    assert refused(lambda: hyperbolic.poincare_fc_tangent(e, torch.zeros(4, 3)), "poincare_fc_tangent")
    out = torch.zeros(3, 4)
    assert refused(lambda: hyperbolic.expmap0(spread(out, Shard(0)), out=out), "expmap0: out")
    plain = torch.zeros(3, 4)
    assert refused(lambda: hyperbolic.expmap0(plain, out=spread(plain, Shard(0))), "expmap0: out")


def main(place, folder, rank):
    global MESH, RANK, FOLDER
    warnings.simplefilter("ignore")
    RANK, FOLDER = rank, folder
    wait = datetime.timedelta(seconds=60)  # where one fails, the other must not wait for long
    dist.init_process_group("gloo", init_method="file://" + place, rank=rank, world_size=SIZE, timeout=wait)
    MESH = dist.device_mesh.init_device_mesh("cpu", (SIZE,))
    found = {}
    for name, (f, args) in CHECKS.items():
        try:
            f(*args)
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc()
    with open(os.path.join(folder, f"{rank}.json"), "w") as file:
        json.dump(found, file)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # a thread of gloo would abort the usual end


@pytest.fixture(scope="module")
def found():
    """What every check came to in each process."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, os.path.join(folder, "meet"), folder]
        both = [
            subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE, text=True, env=environment)
            for i in range(SIZE)
        ]
        try:
            errors = [p.communicate(timeout=240)[1] for p in both]
        finally:
            for p in both:
                p.kill()
        assert [p.returncode for p in both] == [0] * SIZE, "\n".join(errors)
        made = []
        for i in range(SIZE):
            with open(os.path.join(folder, f"{i}.json")) as file:
                made.append(json.load(file))
        return made


@pytest.mark.parametrize("name", list(CHECKS))
def test_over_two_processes(found, name):
    for one in found:
        assert one[name] is None, one[name]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
