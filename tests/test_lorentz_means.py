"""Midpoints and all pairs of the hyperboloid, far out and by rows. The one rule: right to the digits of the data, NaN where
that is said, refused otherwise; truth is the weighted sum in 320 bits."""

import numpy as np
import pytest
import tersor.hyperbolic as h
import torch
from exact import dot, norm, real, sqrt, ulp
from tersor import lorentz, nn, sparse
from tersor.testing import EPS
from test_lorentz import LEAST, tau, true_dist

#: groups that a difference of large numbers says nothing of, by a point, a multiple and its neighbour in the type
GROUPS = {
    "one": lambda x, y: [x],
    "equal": lambda x, y: [x, x, x],
    "ray": lambda x, y: [x, 3 * x, x],
    "near": lambda x, y: [x, y],
    "apart": lambda x, y: [x, y, -x, np.roll(x, 1)],
}


def far(dtype, r, c=1.0):
    rng = np.random.default_rng(int(r))
    u = np.round(rng.standard_normal(5) * 1000)  # of few digits, so that multiples are multiples
    x = (u * 2.0 ** np.round(np.log2(np.sinh(r) / np.linalg.norm(u) / np.sqrt(c)))).astype(dtype)
    return x, np.nextafter(x, np.full_like(x, np.inf))


def wanted(s, w, c):
    p, k = real(s), real(w)[:, None]
    total, time = np.sum(k * p, 0), np.sum(k * tau(p, real(c)), 0)
    return total / sqrt(time**2 - real(c) * dot(total, total)), np.sum(norm(k * p), 0) / sqrt(
        time**2 - real(c) * dot(total, total)
    )


@pytest.mark.parametrize("c", [0.3, 1.0])
@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_midpoints_at_any_radius(dtype, kind, c):
    for r in (1, 5, 9, 12, 17, 20, 26, 30, 40, 60, 80):
        x, y = far(dtype, r, c)
        s = np.stack(GROUPS[kind](x, y)).astype(dtype)
        w = np.random.default_rng(0).uniform(0.5, 2, len(s)).astype(dtype)
        want, size = wanted(s, w, c)
        unit = np.maximum(ulp(size, EPS[dtype]), LEAST[dtype])
        lists = sparse.from_dense(w[None])
        for got in (lorentz.midpoint(s, w, c), lorentz.segment_midpoint(lists, s, c)[0]):
            assert (norm(real(got) - want) / unit <= (1 if dtype == "float32" else 16)).all(), r
        (got,) = lorentz.weighted_midpoint_bmm(s, w[None], c)
        if np.isnan(got).any():
            assert r > 25
        else:
            lost = 16 * max(1.0, np.exp(2 * (r - 18)))
            assert (norm(real(got) - want) / unit <= (1 if dtype == "float32" else lost)).all(), r


@pytest.mark.parametrize("r", [3.0, 9.0, 15.0, 20.0, 24.0, 27.0, 30.0, 35.0])
def test_midpoints_of_the_ball_by_a_matrix_are_right_or_nan(r):
    """float64 points at one place: a difference of squares said another one, and no word of it."""
    u = np.random.default_rng(0).standard_normal(5)
    x = h.expmap0(u / np.linalg.norm(u) * r / 2)
    s = np.stack([x, x, x])
    got, want = h.weighted_midpoint_bmm(s, np.ones((1, 3)))[0], h.weighted_midpoint(s)
    assert (np.isnan(got).all() and r > 25) or h.dist(got, want) <= 1e-15 * np.exp(r)


def points(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).standard_normal(shape) * scale


@pytest.mark.parametrize("like", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_midpoints_over_any_axes(like):
    x, w = like(points(2, 3, 4, 5)), like(np.exp(points(2, 3, 4, seed=1)))
    want = lorentz.midpoint(x, w, 0.7)
    assert want.shape == (2, 3, 5)
    np.testing.assert_array_equal(lorentz.midpoint(x, w, 0.7, reducedim=[2]), want)
    np.testing.assert_array_equal(lorentz.midpoint(x, w, 0.7, keepdim=True), want[:, :, None])
    moved = like(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))
    np.testing.assert_allclose(lorentz.midpoint(moved, w, 0.7, dim=1), np.moveaxis(np.asarray(want), -1, 1), rtol=1e-14)
    both = lorentz.midpoint(x, w, 0.7, reducedim=[0, 2])
    flat = like(np.ascontiguousarray(np.asarray(x).swapaxes(0, 1).reshape(3, 8, 5)))
    weights = like(np.ascontiguousarray(np.asarray(w).swapaxes(0, 1).reshape(3, 8)))
    np.testing.assert_allclose(both, lorentz.midpoint(flat, weights, 0.7), rtol=1e-14)
    kept = lorentz.midpoint(moved, w, 0.7, dim=1, reducedim=[0, 3], keepdim=True)
    np.testing.assert_allclose(kept, np.asarray(both).T[None, :, :, None], rtol=1e-14)
    ball = h.weighted_midpoint(lorentz.to_poincare(x, 0.7), w, 0.7, reducedim=[0, 2])
    np.testing.assert_allclose(lorentz.to_poincare(both, 0.7), ball, rtol=1e-13)
    matrix = like(np.exp(points(7, 4, seed=2)))
    np.testing.assert_allclose(
        lorentz.midpoint(x[0, 0], matrix, 0.7), lorentz.weighted_midpoint_bmm(x[0, 0], matrix, 0.7), rtol=1e-13
    )
    with pytest.raises(np.exceptions.AxisError):
        lorentz.midpoint(x, dim=4)
    with pytest.raises(ValueError, match="holds dim"):
        lorentz.midpoint(x, reducedim=[-1])
    with pytest.raises(ValueError, match=r"^midpoint: .*broadcast"):
        lorentz.midpoint(x, w[:, :2])
    with pytest.raises(ValueError, match=r"^midpoint: x must be"):
        lorentz.midpoint(x[0, 0, 0])
    assert lorentz.midpoint(x[:, :, :0]).shape == (2, 3, 5)
    assert (np.asarray(lorentz.midpoint(x, 0 * w)) == 0).all()


@pytest.mark.parametrize("like", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_curvatures_by_rows(like):
    c = like(np.array([[0.2], [1.0], [3.0], [0.0]]))
    x, y, w = (like(v) for v in (points(4, 5, 3), points(6, 3, seed=1), np.exp(points(4, 5, seed=2))))
    got = lorentz.midpoint(x, w, c)
    pairs = lorentz.cdist(x[:, 0], y, c)
    for i, one in enumerate((0.2, 1.0, 3.0, 0.0)):
        np.testing.assert_allclose(got[i], lorentz.midpoint(x[i], w[i], one), rtol=1e-14)
        np.testing.assert_array_equal(pairs[i], lorentz.cdist(x[i, :1], y, one)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_pairs_with_a_curvature_for_each_row(dtype):
    rng = np.random.default_rng(0)
    c = np.geomspace(1e-3, 20, 30)[:, None].astype(dtype)
    r = np.linspace(0, 40 if dtype == "float32" else 25, 30)[:, None]
    u = rng.standard_normal((30, 4))
    x = (u / np.linalg.norm(u, axis=-1, keepdims=True) * np.sinh(r) / np.sqrt(c)).astype(dtype)
    y = np.concatenate([x[::2], x[1::3] * np.asarray(1.0001, dtype), 0 * x[:1], 1e-3 * u[:4].astype(dtype)])
    want = true_dist(real(x)[:, None], real(y)[None], real(c)[:, None])
    got = lorentz.cdist(x, y, c)
    unit = np.maximum(ulp(want, EPS[dtype]), LEAST[dtype])
    assert np.max(np.abs(real(got) - want) / unit) <= (1 if dtype == "float32" else 8)
    assert (got[np.arange(0, 30, 2), np.arange(15)] == 0).all()
    np.testing.assert_array_equal(lorentz.cdist(*(torch.from_numpy(v) for v in (x, y, c))), got)


def test_gradients_of_rows_with_curvatures():
    torch.manual_seed(0)
    x, y = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    c = torch.tensor([[0.2], [1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    for f in (lorentz.cdist, lambda x, y, c: lorentz.midpoint(x[:, None] + y, None, c)):
        assert torch.autograd.gradcheck(f, (x, y, c)) and torch.autograd.gradgradcheck(f, (x, y, c))
    narrow = [v.detach().float().requires_grad_() for v in (x, y, c)]  # by pairs, not row by row
    grads = torch.autograd.grad(lorentz.cdist(*narrow).sum(), narrow)
    for a, b in zip(grads, torch.autograd.grad(lorentz.cdist(x, y, c).sum(), (x, y, c)), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
    whole = torch.compile(lorentz.cdist, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x, y, c), lorentz.cdist(x, y, c), rtol=1e-14, atol=0)


@pytest.mark.parametrize("c", [0.0, 1.3])
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_midpoints_of_lists(c, scale):
    rng = np.random.default_rng(0)
    x, counts = points(30, 5, scale=scale), np.array([3, 0, 7, 1, 12, 0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    a = sparse.CSR(rng.uniform(0, 2, 23), rng.integers(0, 30, 23), indptr, (6, 30))
    got = lorentz.segment_midpoint(a, x, c)
    for i in range(6):
        part = slice(a.indptr[i], a.indptr[i + 1])
        want = lorentz.midpoint(x[a.indices[part]], a.data[part], c) if counts[i] else np.zeros(5)
        np.testing.assert_allclose(got[i], want, rtol=1e-13)
    np.testing.assert_allclose(
        lorentz.to_poincare(got, c), h.segment_midpoint(a, lorentz.to_poincare(x, c), c), rtol=1e-12, atol=1e-15
    )
    t = torch.tensor(x, requires_grad=True)
    np.testing.assert_allclose(lorentz.segment_midpoint(a, t, c).detach(), got, rtol=1e-14)
    pattern = [torch.tensor(v) for v in (a.indices, a.indptr)]
    data = torch.tensor(a.data + 0.1, requires_grad=True)
    k = torch.tensor(c, dtype=torch.float64, requires_grad=c > 0)
    f = lambda t, data, k: lorentz.segment_midpoint(sparse.CSR(data, *pattern, (6, 30)), t, k)  # noqa: E731
    assert torch.autograd.gradcheck(f, (t, data, k), atol=1e-6)
    if scale < 1:
        assert torch.autograd.gradgradcheck(f, (t, data, k), atol=1e-6)
    none = sparse.CSR(np.zeros(0), np.zeros(0, np.int64), np.zeros(3, np.int64), (2, 30))
    assert (lorentz.segment_midpoint(none, x, c) == 0).all()


def test_second_derivatives_of_points_at_one_place():
    """All derivatives of a square of a distance, which has none itself."""
    x = torch.tensor([[3.0, 1.0], [3.0, 1.0], [0.1, -2.0]], dtype=torch.float64)
    for far_out in (1.0, 40.0):
        s = (far_out * x).requires_grad_()
        w = torch.tensor([[1.0, 2.0, 0.3], [0.5, 0.2, 1.0]], dtype=torch.float64, requires_grad=True)
        for f in (lorentz.weighted_midpoint_bmm, lambda s, w: h.weighted_midpoint_bmm(lorentz.to_poincare(s), w)):
            assert torch.autograd.gradcheck(f, (s, w), atol=1e-6)
            assert torch.autograd.gradgradcheck(f, (s, w), atol=1e-5)


def test_a_curvature_that_is_none_is_refused_everywhere():
    x, two, bad = points(2, 2), np.array([0.1, 4.0]), np.array(-1.0)
    w = np.ones((2, 2))
    lists = sparse.from_dense(w)
    for name, call in {
        "midpoint": lambda c: lorentz.midpoint(x, None, c),
        "segment_midpoint": lambda c: lorentz.segment_midpoint(lists, x, c),
        "weighted_midpoint_bmm": lambda c: lorentz.weighted_midpoint_bmm(x, w, c),
        "linear": lambda c: lorentz.linear(x, w, None, c),
        "cdist": lambda c: lorentz.cdist(x, x, c),
        "antipode": lambda c: h.antipode(x, c),
        "tangent_add": lambda c: nn.tangent_add(*(torch.from_numpy(v) for v in (x, x)), torch.from_numpy(c)),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: c(urvature)? must be"):
            call(two)
        with pytest.raises(ValueError, match=f"^{name}: curvature must be"):
            call(bad)
    with pytest.raises(ValueError, match=r"^cdist: c must be a number or one for each row"):
        lorentz.cdist(x, x, np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"^segment_midpoint: weights"):
        lorentz.segment_midpoint(sparse.from_dense(-w), x)
    with pytest.raises(TypeError, match=r"^segment_midpoint: a must be a CSR"):
        lorentz.segment_midpoint(w, x)
