"""Channels, experts, embeddings, layers and clients. The one rule: each is compared with its definition, with brute force, or
with another library, and what is exact is equal."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from tersor import prune

rng = np.random.default_rng(0)


def both(f, *arrays):
    """A function of arrays and of tensors: the same numbers."""
    got = f(*arrays)
    torch.testing.assert_close(f(*map(torch.from_numpy, arrays)), torch.from_numpy(np.asarray(got)))
    return got


# --- channels ---


@pytest.mark.parametrize("width", [1, 2, 5, 7, 12, 13, 31])
def test_channels_are_adaptive_means(width):
    x = rng.standard_normal((2, 12, 3, 1))
    got = both(lambda v: prune.interpolate_channels(v, width), x)
    rows = torch.from_numpy(x).movedim(1, -1).reshape(-1, 1, 12)
    want = torch.nn.functional.adaptive_avg_pool1d(rows, width).reshape(2, 3, 1, width).movedim(-1, 1)
    np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-15)
    for kind in (torch.float16, torch.bfloat16, torch.float32):
        made = prune.interpolate_channels(torch.from_numpy(x).to(kind), width)
        assert made.dtype == kind
        want = prune.interpolate_channels(torch.from_numpy(x).to(kind).double(), width)
        torch.testing.assert_close(made.double(), want, rtol=torch.finfo(kind).eps, atol=1e-7)
    assert torch.autograd.gradcheck(
        lambda v: prune.interpolate_channels(v, width, axis=-3), torch.from_numpy(x).requires_grad_()
    )


def test_infinite_channels_stay_where_they_are():
    x = np.array([[1.0, np.inf, 2.0, 3.0, np.nan]])
    assert prune.interpolate_channels(x, 4).tolist()[0][2] == 2.5
    assert prune.interpolate_channels(torch.from_numpy(x), 4)[0, 2] == 2.5


# --- embeddings ---


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("surrogate", ["long-tailed", "identity"])
def test_rows_below_a_threshold(p, surrogate):
    e = np.concatenate([rng.standard_normal((40, 3)) * s for s in (0.2, 0.5, 2)] + [np.zeros((1, 3))])
    t = rng.uniform(0.2, 1, len(e))
    norm = np.linalg.norm(e, p, -1)
    got = both(lambda v, u: prune.threshold_rows(v, u, p=p, surrogate=surrogate), e, t)
    np.testing.assert_array_equal(got, np.where((norm > t)[:, None], e, 0))
    assert not np.signbit(got[norm <= t]).any()
    v, u = torch.from_numpy(e).requires_grad_(), torch.from_numpy(t).requires_grad_()
    g = torch.from_numpy(rng.standard_normal(e.shape))
    de, dt = torch.autograd.grad((prune.threshold_rows(v, u, p=p, surrogate=surrogate) * g).sum(), (v, u))
    far = abs(norm - t)
    slope = np.where(far <= 0.4, 2 - 4 * far, np.where(far <= 1, 0.4, 0)) if surrogate == "long-tailed" else 1
    a = (g.numpy() * e).sum(-1) * slope
    unit = np.sign(e) if p == 1 else e / np.where(norm, norm, 1)[:, None]
    np.testing.assert_allclose(dt, -a, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(de, np.where((norm > t)[:, None], g, 0) + a[:, None] * unit, rtol=1e-12, atol=1e-13)


def test_a_row_at_its_threshold_goes_and_infinite_ones_stay():
    e = np.array([[0.5, 0.5], [np.inf, 0.0], [np.nan, 1.0]])
    np.testing.assert_array_equal(prune.threshold_rows(e, 1.0), [[0, 0], [np.inf, 0], [np.nan, 1]])
    got = prune.threshold_rows(torch.from_numpy(e), 1.0)
    np.testing.assert_array_equal(got.numpy(), [[0, 0], [np.inf, 0], [np.nan, 1]])
    assert prune.threshold_rows(e, -1.0)[0, 0] == 0.5
    for call, word in (
        (lambda: prune.threshold_rows(e, np.ones(2)), r"threshold has shape \(2,\), the rows of e \(3,\)"),
        (lambda: prune.threshold_rows(e, 1.0, p=3), "p must be 1 or 2"),
        (lambda: prune.threshold_rows(e, 1.0, surrogate="none"), "surrogate must be one of"),
    ):
        with pytest.raises(ValueError, match=f"threshold_rows: {word}"):
            call()


def test_prefixes():
    e, dims = rng.standard_normal((2, 4, 5)), rng.integers(0, 7, (2, 4))
    got = both(prune.prefix_mask, e, dims)
    for i, j in itertools.product(range(2), range(4)):
        assert got[i, j].tolist() == [*e[i, j, : dims[i, j]], *[0.0] * (5 - min(dims[i, j], 5))]
    with pytest.raises(ValueError, match="prefix_mask: dims has shape"):
        prune.prefix_mask(e, np.zeros((3,), int))


def test_mixed_widths():
    rows = [30, 1000, 50_000]
    assert prune.md_dims(rows, 0.0, dim=16) == [16, 16, 16]
    wide = prune.md_dims(rows, 0.4, budget=10**6, power_of_two=False)
    assert sum(n * d for n, d in zip(rows, wide, strict=True)) <= 10**6
    assert wide == sorted(wide, reverse=True)
    for got, want in zip(prune.md_dims(rows, 0.4, dim=64), [64 * (n / 30) ** -0.4 for n in rows], strict=True):
        assert got & (got - 1) == 0 and 2**-0.5 <= got / want <= 2**0.5
    for given_, word in (({}, "exactly one"), ({"dim": 1, "budget": 1}, "exactly one"), ({"dim": 0}, "dim must be 1")):
        with pytest.raises(ValueError, match=f"md_dims: {word}"):
            prune.md_dims(rows, 0.5, **given_)


# --- experts ---


@settings(max_examples=60)
@given(st.integers(0, 7), st.integers(0, 4), st.integers(0, 2**32 - 1), st.booleans())
def test_assignments_are_the_best(n, more, seed, whole):
    draw = np.random.default_rng(seed)
    scores = draw.integers(-3, 4, (n, n + more)).astype(float) if whole else draw.standard_normal((n, n + more))
    for maximize in (False, True):
        got = prune.assign(scores, maximize=maximize)
        assert len(set(got.tolist())) == n
        rows, columns = linear_sum_assignment(scores, maximize)
        assert scores[np.arange(n), got].sum() == pytest.approx(scores[rows, columns].sum(), abs=1e-12)


def test_assignments_in_batches_and_of_many():
    scores = rng.standard_normal((3, 60, 90))
    got = both(prune.assign, scores)
    assert got.shape == (3, 60) and got.dtype == np.int64
    for s, p in zip(scores, got, strict=True):
        assert s[np.arange(60), p].sum() == pytest.approx(s[linear_sum_assignment(s)].sum(), abs=1e-10)
    with pytest.raises(ValueError, match="assign: scores must be"):
        prune.assign(np.ones((3, 2)))
    with pytest.raises(ValueError, match="assign: scores have non-finite"):
        prune.assign(np.full((2, 2), np.inf))


def expert(seed):
    draw = np.random.default_rng(seed)
    return [draw.standard_normal((12, 5)), draw.standard_normal((12,)), draw.standard_normal((4, 12))]


def call(w1, b1, w2, x):
    return np.maximum(x @ w1.T + b1, 0) @ w2.T


def test_a_permuted_expert_is_aligned():
    one, x = expert(0), rng.standard_normal((6, 5))
    order = rng.permutation(12)
    other = [one[0][order], one[1][order], one[2][:, order]]
    back = prune.expert_align(one, other)
    assert order[back].tolist() == list(range(12))
    torch.testing.assert_close(
        prune.expert_align(*[[torch.from_numpy(w).float() for w in e] for e in (one, other)]), torch.from_numpy(back)
    )
    moved = [other[0][back], other[1][back], other[2][:, back]]
    merged = [prune.expert_merge(np.stack(ws), np.array([2.0, 5.0])) for ws in zip(one, moved, strict=True)]
    np.testing.assert_allclose(call(*merged, x), call(*one, x), rtol=1e-12)  # equal experts are reproduced
    for bad, word in (
        (([one[0]], other), "reference has 1 arrays, expert 3"),
        ((one, [other[0], other[1], other[2].T]), "shape"),
        (([one[0], one[2]], [other[0], other[2]], [0, 0]), "4 hidden units, those before it 12"),
    ):
        with pytest.raises(ValueError, match=f"expert_align: .*{word}"):
            prune.expert_align(bad[0], bad[1], axes=bad[2] if len(bad) > 2 else None)
    with pytest.raises(TypeError, match=r"expert_align: expert\[0\] must be a NumPy array"):
        prune.expert_align([one[0]], ["w"])


def test_groups_of_experts():
    usage = [np.array([4.0, 4.0, 1.0, 3.0]), np.array([0.0, 0.0, 0.0])]
    logits = [rng.standard_normal((9, 4)), rng.standard_normal((9, 3))]
    for groups in range(2, 8):
        made = prune.expert_groups(usage, logits, groups)
        assert sum(len(set(g.tolist())) for g in made) == groups
        for g, f, z in zip(made, usage, logits, strict=True):
            kept = sorted(set(g.tolist()))
            assert all(g[k] == k for k in kept)
            assert min(f[kept]) >= max((f[i] for i in range(len(f)) if i not in kept), default=0)
            unit = z / np.linalg.norm(z, axis=0)
            for i in set(range(len(f))) - set(kept):
                assert g[i] == max(kept, key=lambda k: unit[:, i] @ unit[:, k])
        torch.testing.assert_close(
            prune.expert_groups([torch.from_numpy(f) for f in usage], [torch.from_numpy(z) for z in logits], groups),
            [torch.from_numpy(g) for g in made],
        )
    with pytest.raises(ValueError, match="expert_groups: groups must be from 2"):
        prune.expert_groups(usage, logits, 1)
    with pytest.raises(ValueError, match=r"expert_groups: usage\[0\] must be finite"):
        prune.expert_groups([-usage[0], usage[1]], logits, 3)


def test_merged_experts_are_means():
    w, f, groups = rng.standard_normal((5, 3, 2)), np.array([1.0, 0.0, 3.0, 0.0, 0.0]), np.array([0, 3, 0, 3, 4])
    got = both(prune.expert_merge, w, f, groups)
    np.testing.assert_allclose(got[0], (w[0] + 3 * w[2]) / 4, rtol=1e-15)
    np.testing.assert_allclose(got[1], (w[1] + w[3]) / 2, rtol=1e-15)
    assert (got[2] == got[0]).all() and (got[3] == got[1]).all() and (got[4] == w[4]).all()
    f[0] = 1e-320  # a share is of the largest: nothing overflows or is lost
    np.testing.assert_allclose(prune.expert_merge(w[:2], np.array([1e308, 1e308])), (w[0] + w[1]) / 2)
    x = torch.from_numpy(w).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: prune.expert_merge(v, torch.ones(5), torch.from_numpy(groups)), x)
    assert prune.expert_merge(torch.from_numpy(w).bfloat16(), torch.ones(5)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="expert_merge: groups must be 5 numbers from 0 to 4"):
        prune.expert_merge(w, np.ones(5), groups + 1)
    with pytest.raises(TypeError, match="expert_merge: groups must be an int64"):
        prune.expert_merge(w, np.ones(5), groups * 1.0)


def test_low_rank_and_rows():
    w = rng.standard_normal((20, 3)) @ rng.standard_normal((3, 12)) + 0.1 * rng.standard_normal((20, 12))
    lost = [4, 11]
    w[lost] += 5 * rng.standard_normal((2, 12))
    made = prune.lowrank_plus_sparse(w, 0.7, 0.5)
    assert made.left.shape == (20, 6) and made.right.shape == (6, 12) and len(made.kept) == 10
    rest = w - made.left @ made.right
    norm = (rest**2).sum(1)
    assert min(norm[made.kept]) >= max(np.delete(norm, made.kept))
    np.testing.assert_allclose(made.to_dense()[made.kept], w[made.kept], rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(rest), np.linalg.norm(np.linalg.svd(w)[1][6:]), rtol=1e-10)
    tensor = prune.lowrank_plus_sparse(torch.from_numpy(w), 0.7, 0.5)
    np.testing.assert_allclose(tensor.to_dense(), made.to_dense(), rtol=1e-9, atol=1e-12)
    scores = np.arange(20.0)  # rows of one's own choice, and those of sum 0 stay
    assert prune.lowrank_plus_sparse(w, 0.0, 0.9, scores=scores).kept.tolist() == [18, 19]
    w[19] = [1, -1] * 6
    assert prune.lowrank_plus_sparse(w, 0.0, 0.9, scores=scores).rows[1].tolist() == [1, -1] * 6
    with pytest.raises(ValueError, match="lowrank_plus_sparse: ratio"):
        prune.lowrank_plus_sparse(w, 1.5, 0.5)


# --- layers, heads, amounts ---


@settings(max_examples=40)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_layers_are_those_of_brute_force(n, seed):
    draw = np.random.default_rng(seed)
    costs, losses, budget = draw.integers(0, 9, n), draw.integers(0, 9, n), int(draw.integers(0, 30))
    made = prune.layer_knapsack(costs, losses, budget)
    assert made.cost == (costs * made.choice).sum() <= budget
    best = min(
        (losses * (1 - np.array(z))).sum()
        for z in itertools.product((0, 1), repeat=n)
        if (costs * np.array(z)).sum() <= budget
    )
    assert made.loss == best == (losses * (1 - made.choice)).sum()
    other = prune.layer_knapsack(torch.from_numpy(costs), torch.from_numpy(losses), budget)
    assert other.choice.tolist() == made.choice.tolist()


@settings(max_examples=40)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_heads_and_neurons_are_those_of_brute_force(h, n, seed):
    draw = np.random.default_rng(seed)
    heads, neurons = (draw.integers(0, 9, k).astype(float) for k in (h, n))
    budget, a, b = int(draw.integers(0, 20)), int(draw.integers(1, 6)), int(draw.integers(1, 4))
    made = prune.head_neuron_search(heads, neurons, budget, head_cost=a, neuron_cost=b)
    assert made.cost == a * made.heads.sum() + b * made.neurons.sum() <= budget
    assert made.score == heads[made.heads].sum() + neurons[made.neurons].sum()
    best = max(
        (heads * i).sum() + (neurons * j).sum()
        for i in map(np.array, itertools.product((0, 1), repeat=h))
        for j in map(np.array, itertools.product((0, 1), repeat=n))
        if a * i.sum() + b * j.sum() <= budget
    )
    assert made.score == best
    other = prune.head_neuron_search(
        torch.from_numpy(heads), torch.from_numpy(neurons), budget, head_cost=a, neuron_cost=b
    )
    assert other.heads.tolist() == made.heads.tolist() and other.neurons.tolist() == made.neurons.tolist()


def test_what_the_search_of_heads_says():
    heads, neurons = np.ones((2, 3)), np.ones((2, 8))
    made = prune.head_neuron_search(heads, neurons, np.inf, head_cost=0.1, neuron_cost=0.1)
    assert made.heads.shape == (2, 3) and made.heads.all() and made.neurons.all()
    # 3 / 0.1 is 30 and 0.3 / 0.1 less than 3: what is kept fits as floats have it
    for budget in (0.3, 0.7, 1.1):
        assert prune.head_neuron_search(heads, neurons, budget, head_cost=0.1, neuron_cost=0.1).cost <= budget
    for given_, word in (({"head_cost": 0}, "head_cost must be positive"), ({"budget": -1}, "budget must not be")):
        options = {"budget": 1.0, "head_cost": 1.0, "neuron_cost": 1.0} | given_
        with pytest.raises(ValueError, match=f"head_neuron_search: {word}"):
            prune.head_neuron_search(heads, neurons, **options)
    with pytest.raises(ValueError, match="head_neuron_search: neurons must be finite"):
        prune.head_neuron_search(heads, -neurons, 1.0, head_cost=1.0, neuron_cost=1.0)


def test_curves_are_those_of_masks():
    amounts = [0.5, 0.0, 1.0, 0.25, 0.9, 0.5]
    for w in (rng.standard_normal((9, 7)), rng.integers(-2, 3, (9, 7)).astype(float)):
        x = rng.standard_normal((50, 7))
        h = 2 * x.T @ x / 50
        plain = both(lambda v: prune.rd_curve(v, amounts), w)
        through = both(lambda v, g: prune.rd_curve(v, amounts, hessian=g), w, h)
        for s, a, b in zip(amounts, plain, through, strict=True):
            gone = np.where(prune.global_masks([w], s)[0], 0, w)
            np.testing.assert_allclose(a, (gone**2).sum(), rtol=1e-13)
            np.testing.assert_allclose(b, 2 * ((x @ gone.T) ** 2).sum(1).mean(), rtol=1e-11, atol=1e-14)
    assert prune.rd_curve(np.ones((0, 3)), [0.0, 1.0]).tolist() == [0, 0]
    for bad, word in (
        (lambda: prune.rd_curve(w, [2.0]), r"amounts\[0\] must be between"),
        (lambda: prune.rd_curve(w * np.nan, [0.5]), "w holds non-finite"),
        (lambda: prune.rd_curve(w, [0.5], hessian=np.eye(3)), "hessian must be"),
    ):
        with pytest.raises(ValueError, match=f"rd_curve: {word}"):
            bad()
    with pytest.raises(TypeError, match="rd_curve: amounts must be a sequence"):
        prune.rd_curve(w, 0.5)


# --- clients ---


def test_clients_move_a_mask():
    w, mask = rng.standard_normal((6, 8)), rng.random((6, 8)) < 0.5
    grads = [rng.standard_normal((6, 8)) for _ in range(3)]
    kept = int(mask.sum())
    sent = [prune.fedtiny_send(np.where(mask, np.nan, g), mask, 5) for g in grads]
    mean = np.zeros(w.size)
    for (values, indices), g, n in zip(sent, grads, (1, 2, 5), strict=True):
        free = np.flatnonzero(~mask)
        best = sorted(free, key=lambda i: (-abs(g.flat[i]), i))[:5]
        assert indices.tolist() == sorted(best) and values.tolist() == [g.flat[i] for i in sorted(best)]
        mean[indices] += n / 8 * values
    made = prune.fedtiny_update(w, mask, sent, 4, counts=[1, 2, 5])
    gone = sorted(np.flatnonzero(mask), key=lambda i: (abs(w.flat[i]), -i))[:4]
    grown = sorted(np.flatnonzero(~mask), key=lambda i: (-abs(mean[i]), i))[:4]
    want = mask.copy()
    want.flat[gone], want.flat[grown] = False, True
    assert (made == want).all() and made.sum() == kept
    tensors = [(torch.from_numpy(v), torch.from_numpy(i)) for v, i in sent]
    other = prune.fedtiny_update(torch.from_numpy(w), torch.from_numpy(mask), tensors, 4, counts=[1, 2, 5])
    assert other.numpy().tolist() == made.tolist()
    # no more grow than gradients were sent, and of none the mask stays
    assert (prune.fedtiny_update(w, mask, [], 4) == mask).all()
    one = prune.fedtiny_send(grads[0], mask, 1)
    assert (prune.fedtiny_update(w, mask, [one], 4) != mask).sum() == 2
    assert len(prune.fedtiny_send(grads[0], mask, 100)[0]) == (~mask).sum()


def test_what_clients_may_not_send():
    w, mask = np.ones(4), np.array([True, False, False, True])
    for sent, kind, word in (
        ([(np.ones(1), np.array([0]))], ValueError, r"sent\[0\] has gradients of weights that are kept"),
        ([(np.ones(1), np.array([4]))], ValueError, r"sent\[0\] has indices from 4 to 4, w 4 weights"),
        ([(np.ones(2), np.array([1, 1]))], ValueError, r"sent\[0\] has an index twice"),
        ([(np.ones(2), np.array([1]))], ValueError, r"sent\[0\] has values of shape"),
        ([np.ones(2)], TypeError, r"sent\[0\] must be a pair"),
    ):
        with pytest.raises(kind, match=f"fedtiny_update: {word}"):
            prune.fedtiny_update(w, mask, sent, 1)
    with pytest.raises(ValueError, match="fedtiny_send: grad has non-finite"):
        prune.fedtiny_send(np.full(4, np.nan), mask, 1)
    with pytest.raises(ValueError, match="fedtiny_count: step must be"):
        prune.fedtiny_count(11, 10, 5)


def test_faults_of_lists_are_named() -> None:
    ones = np.ones((2, 3))
    with pytest.raises(TypeError, match=r"expert_align: expert\[0\] must be a NumPy array"):
        prune.expert_align([ones], [torch.ones(2, 3)])
    with pytest.raises(ValueError, match=r"expert_groups: logits\[0\] has no tokens"):
        prune.expert_groups([np.ones(3)], [np.ones((0, 3))], 2)
    with pytest.raises(ValueError, match=r"rd_curve: amounts\[1\] must be between 0 and 1"):
        prune.rd_curve(ones, [0.5, 2])
    with pytest.raises(ValueError, match=r"fedtiny_update: sent\[0\] holds non-finite"):
        sent = [(np.array([np.nan]), np.array([1]))]
        prune.fedtiny_update(np.ones(2), np.array([True, False]), sent, 1)
    assert prune.lowrank_plus_sparse(np.diag([1e300, 2e300, 3e300]), 0, 2 / 3).kept.tolist() == [2]


def test_tensors_without_memory_are_named() -> None:
    x, row = torch.ones(2, 3, device="meta"), torch.ones(3, device="meta")
    for name, call in (
        ("expert_align: reference.0.", lambda: prune.expert_align([x], [x])),
        ("expert_groups: usage.0.", lambda: prune.expert_groups([row], [x], 1)),
        ("expert_merge: weights", lambda: prune.expert_merge(x, torch.ones(2))),
        ("lowrank_plus_sparse: w", lambda: prune.lowrank_plus_sparse(x, 0.5, 0.5)),
        ("fedtiny_send: grad", lambda: prune.fedtiny_send(x, x > 0, 1)),
        ("fedtiny_update: w", lambda: prune.fedtiny_update(x, x > 0, [], 1)),
        ("layer_knapsack: costs", lambda: prune.layer_knapsack(row, row, 1)),
    ):
        with pytest.raises(TypeError, match=f"{name} is on meta"):
            call()
