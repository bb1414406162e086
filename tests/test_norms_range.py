"""Norms of float64 whose squares leave its range: what has no size of its own is what it is at size 1, and so are gradients."""

import math

import numpy as np
import pytest
import torch
from tersor import norm, reduce

R = np.random.default_rng(11)
X = R.standard_normal((3, 4, 6))
G, W, B = R.standard_normal(X.shape), R.uniform(0.5, 2, 4), R.standard_normal(4)
LABELS = R.integers(-1, 3, X.shape)
SHARE = R.uniform(0.2, 2, X.shape)
#: 1e±155, 1e±200 and 1e±300, as powers of two, which change no digit
POWERS = [515, 664, 997, -515, -664, -997]


def _along(x, n, *p):
    """γ and β of n numbers, made of those of channels."""
    return [(np if isinstance(x, np.ndarray) else torch).concatenate([v, v, v])[:n] for v in p]


NORMS = {
    "layer": lambda x, w, b: norm.layer_norm(x, 6, *_along(x, 6, w, b), eps=0.0),
    "layer of two axes": lambda x, w, b: norm.layer_norm(x, (4, 6), eps=0.0),
    "group": lambda x, w, b: norm.group_norm(x, 2, w, b, eps=0.0),
    "instance": lambda x, w, b: norm.instance_norm(x, w, b, eps=0.0),
    "batch": lambda x, w, b: norm.batch_norm(x, None, None, w, b, training=True, eps=0.0),
    "crms": lambda x, w, b: norm.crms_norm(x, *_along(x, 6, w), eps=0.0),
    "rms": lambda x, w, b: norm.rms_norm(x, 6, *_along(x, 6, w), eps=0.0),
    "weights": lambda x, w, b: norm.weight_standardize(x, w[:3], eps=0.0),
    "columns": lambda x, w, b: norm.standardize(x, w[:, None], b[:, None], dim=0, eps=0.0, correction=1),
    "root mean squares": lambda x, w, b: norm.standardize(x, w[:, None], dim=(0, 2), mode="rms", eps=0.0),
    "magnitudes": lambda x, w, b: norm.standardize(x, w[:, None], b[:, None], dim=-1, mode="abs", eps=0.0),
    "labels": lambda x, w, b: norm.standardize(
        x, w[:3], b[:3], dim=None, labels=_like(LABELS, x), num_segments=3, segment_affine=True, eps=0.0
    ),
    "labels by channels": lambda x, w, b: norm.standardize(
        x, w[:, None], b[:, None], dim=(0, 2), labels=_like(LABELS, x), num_segments=3, eps=0.0
    ),
    "residual": lambda x, w, b: norm.add_norm(x, 0 * x, *_along(x, 6, w), eps=0.0)[0],
    "residual and layer": lambda x, w, b: norm.add_norm(x, x, *_along(x, 6, w, b), kind="layer", eps=0.0)[0],
    "evonorm b0": lambda x, w, b: norm.evonorm(x, "b0", w, b, b, eps=0.0),
    "evonorm b2": lambda x, w, b: norm.evonorm(x, "b2", w, b, eps=0.0),
    "evonorm s0": lambda x, w, b: norm.evonorm(x, "s0", w, b, 0 * b, groups=2, eps=0.0),
}


def _like(v, x):
    return v if isinstance(x, np.ndarray) else torch.from_numpy(v)


def _near(got, want):
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("e", POWERS)
@pytest.mark.parametrize("name", NORMS)
def test_no_size_of_its_own(name, e):
    f, size = NORMS[name], 2.0**e
    want = f(X, W, B)
    _near(f(X * size, W, B), want)
    leaves = [[torch.from_numpy(v.copy()).requires_grad_() for v in (X * s, W, B)] for s in (1.0, size)]
    right, found = (f(*given) for given in leaves)
    _near(found.detach(), want)
    right, found = (
        torch.autograd.grad(y, given, torch.from_numpy(G), allow_unused=True, materialize_grads=True)
        for y, given in zip((right, found), leaves, strict=True)
    )
    for k, (a, b) in enumerate(zip(found, right, strict=True)):
        _near(a * size if k == 0 else a, b)


@pytest.mark.parametrize("e", POWERS)
def test_statistics_weights_and_their_gradients(e):
    """What weighs elements is of no size; means are of x's, and variances are its square's, which may leave the range."""
    size, found = 2.0**e, []
    for s in (1.0, size):
        x, w = torch.from_numpy(X * s).requires_grad_(), torch.from_numpy(SHARE).requires_grad_()
        y, (count, mean, var) = norm.standardize(x, dim=-1, eps=0.0, sample_weight=w, return_stats=True)
        found.append((x, w, y, count, mean, var))
        grads = torch.autograd.grad((y * torch.from_numpy(G)).sum() + (mean / s).sum(), [x, w])
        found.append((grads[0] * s, grads[1]))
    (_, _, y, count, mean, var), right, (_, _, far_y, far_count, far_mean, far_var), sent = found
    for a, b in ((far_y, y), (far_count, count), (far_mean / size, mean), (sent[0], right[0]), (sent[1], right[1])):
        _near(a.detach(), b.detach())
    torch.testing.assert_close(far_var, var * size * size, rtol=1e-9, atol=1e-320)


def test_a_second_derivative_of_far_rows():
    found = []
    for size in (1.0, 2.0**600):
        x = torch.from_numpy(X * size).requires_grad_()
        y = norm.layer_norm(x, 6, eps=0.0)
        (first,) = torch.autograd.grad(y, x, torch.from_numpy(G), create_graph=True)
        (second,) = torch.autograd.grad((first * size * torch.from_numpy(SHARE)).sum(), x)
        found.append((first.detach() * size, second * size))
    _near(found[1][0], found[0][0])
    _near(found[1][1], found[0][1])


@pytest.mark.parametrize("e", POWERS)
def test_rows_of_all_sizes_side_by_side(e):
    """Each is what it is alone, whatever lies beside it; of equal numbers, of zeros and of what is infinite too."""
    rows = np.stack([X[0, 0], X[0, 1] * 2.0**e, np.full(6, 2.0**e), np.zeros(6), [math.inf, *X[0, 2, 1:]], X[0, 3]])
    got = norm.layer_norm(rows, 6, eps=1e-5)
    for row, y in zip(rows, got, strict=True):
        np.testing.assert_array_equal(norm.layer_norm(row, 6, eps=1e-5), y)
    assert (got[2:4] == 0).all() and np.isnan(got[4]).all()
    x = torch.from_numpy(rows).requires_grad_()
    g = torch.from_numpy(np.broadcast_to(G[0, 0], rows.shape).copy())
    (sent,) = torch.autograd.grad(norm.layer_norm(x, 6, eps=1e-5), x, g)
    for k in (2, 3):  # of equal numbers ε is all there is
        _near(sent[k], (g[k] - g[k].mean()) / 1e-5**0.5)
    np.testing.assert_allclose(norm.layer_norm(rows, 6, eps=0.0)[1], norm.layer_norm(X[0, 1], 6, eps=0.0), rtol=1e-13)


def test_an_eps_is_added_to_the_true_variance():
    centred = X - X.mean(-1, keepdims=True)
    np.testing.assert_allclose(norm.layer_norm(X * 1e-200, 6), centred * 1e-200 / np.sqrt(1e-5), rtol=1e-12)
    _near(norm.layer_norm(X * 1e155, 6), norm.layer_norm(X, 6, eps=0.0))
    _near(norm.layer_norm(X * 2.0**-500, 6, eps=0.25 * 4.0**-500), norm.layer_norm(X, 6, eps=0.25))  # both count
    _near(norm.layer_norm(X * 2.0**-560, 6, eps=4.0**-500) * 2.0**60, centred)
    _near(norm.layer_norm(X * 2.0**-1000, 6, eps=4.0**-400) * 2.0**600, centred)


@pytest.mark.parametrize("size", [2.0**515, 2.0**-664])
def test_given_statistics_are_of_the_same_size(size):
    mean, var = np.full(4, 0.5), np.full(4, 0.0)
    want = norm.standardize(X, dim=(0, 2), mean=mean, var=var, alpha=0.25, eps=0.0)
    _near(norm.standardize(X * size, dim=(0, 2), mean=mean * size, var=var, alpha=0.25, eps=0.0), want)


def test_running_statistics_leave_the_range():
    mean, var = np.zeros(4), np.ones(4)
    y = norm.batch_norm(X * 2.0**520, mean, var, training=True, eps=0.0)
    _near(y, norm.batch_norm(X, None, None, training=True, eps=0.0))
    _near(mean / 2.0**520, 0.1 * X.mean((0, 2)))
    assert np.isinf(var).all()
    seen = np.ones(4)
    _near(norm.evonorm(X * 2.0**520, "b2", running_var=seen, eps=0.0), norm.evonorm(X, "b2", eps=0.0))
    assert np.isinf(seen).all()


@pytest.mark.parametrize("e", [120, -140])
def test_float32_is_summed_in_float64(e):
    small = X.astype(np.float32)
    got = norm.layer_norm(small * np.float32(2.0**e), 6, eps=0.0)
    want = norm.layer_norm((small * np.float32(2.0**e)).astype(np.float64), 6, eps=0.0)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("e", POWERS)
def test_deviations_of_segments(e):
    want = reduce.segment_reduce(X, "std", labels=LABELS, num_segments=3)
    _near(reduce.segment_reduce(X * 2.0**e, "std", labels=LABELS, num_segments=3) / 2.0**e, want)
