"""The vote of infinite depth and kernels of patches. The one rule: a result is what many digits say it is, at any size."""

import math

import mpmath
import numpy as np
import pytest
from tersor.project import dual, ntk, patch_kernel, singular_vote

torch = pytest.importorskip("torch")
rng = np.random.default_rng(0)
GAP, Y = rng.uniform(1e-6, 2, (5, 9)), rng.choice([-1.0, 1.0], (9, 2))


@pytest.mark.parametrize("d", [0, 0.5, 3, 64, 1e5])
def test_a_vote_is_its_formula(d):
    gap = GAP.copy()
    gap[1, 2] = 1e-10
    with mpmath.workdps(40):
        for got, row in zip(singular_vote(gap, Y, d), gap, strict=True):
            w = [mpmath.mpf(2 * s) ** (-mpmath.mpf(d) / 2) for s in row]
            want = [sum(a * int(b) for a, b in zip(w, y, strict=True)) / max(w) for y in Y.T]
            np.testing.assert_allclose(got, [float(v) for v in want], rtol=1e-9, atol=1e-12)


def test_limits_of_votes():
    np.testing.assert_array_equal(singular_vote(GAP, Y, 0), np.tile(Y.sum(0), (5, 1)))
    np.testing.assert_allclose(singular_vote(GAP, Y, 1e7), Y[GAP.argmin(1)], atol=1e-12)
    same = GAP.copy()
    same[0, [2, 5]] = 0
    np.testing.assert_array_equal(singular_vote(same, Y, 3)[0], Y[2] + Y[5])
    np.testing.assert_array_equal(singular_vote(same, Y, 3)[1:], singular_vote(GAP, Y, 3)[1:])
    tiny = np.array([[5e-324, 1e308]])
    assert singular_vote(tiny, np.array([1.0, -1.0]), 64).tolist() == [1]
    assert singular_vote(np.zeros((3, 0)), np.zeros((0, 2)), 1).tolist() == [[0, 0]] * 3
    assert singular_vote(np.zeros((0, 2)), np.ones(2), 1).shape == (0,)
    assert singular_vote(np.array([[1e-5, 0.5]]), np.array([1.0, -1.0]), 1e308).tolist() == [1]
    assert np.isnan(singular_vote(np.array([[np.nan, 1.0]]), np.ones(2), 1)).all()
    assert singular_vote(np.array([[0.5, 1.0]]), np.full(2, 1e308), 0).tolist() == [np.inf]
    assert np.isnan(singular_vote(np.array([[0.5, 1.0]]), np.array([np.inf, -np.inf]), 0)).all()
    assert singular_vote(np.array([[0.5, 1.0]], np.float16), np.full(2, 6e4, np.float16), 0).tolist() == [np.inf]
    assert singular_vote(np.array([[-1e-16, 1.0]]), np.array([1.0, -1.0]), 1).tolist() == [1]


@pytest.mark.parametrize(("kind", "d"), [("poly2", 1), ("poly3", 2), ("poly5", 4), ("poly9", 8)])
def test_deep_networks_have_its_pole(kind, d):
    """Theorem 1: the exponent is -log φ'(0)/log φ'(1), half the dimension of the sphere the data are on."""
    gap = np.array([[1e-5, 1.6e-4]])
    deep = ntk(1 - gap, 24, kind, gap=gap, which="nngp")[0]
    votes = [singular_vote(gap, np.eye(2)[:, i], d)[0] for i in (0, 1)]
    assert abs(math.log(deep[0] / deep[1]) / math.log(votes[0] / votes[1]) - 1) < 0.02


def explicit(x, z, patch, wrap, kind="relu"):
    d = x.shape[1]
    count = d if wrap else d - patch + 1
    out = np.zeros((len(x), len(z)))
    for i, j in np.ndindex(*out.shape):
        for p in range(count):
            at = [(p + t) % d for t in range(patch)]
            a, b = x[i, at], z[j, at]
            size = math.sqrt(a @ a) * math.sqrt(b @ b)
            if size:
                out[i, j] += size * dual(np.clip(np.array([a @ b / size]), -1, 1), kind)[0][0] / count
    return out


@pytest.mark.parametrize("kind", ["relu", "erf", "poly3", (0.0, 0.5, 0.5)])
@pytest.mark.parametrize(("patch", "wrap"), [(1, True), (2, True), (2, False), (6, True), (6, False)])
def test_patch_kernels_are_their_formula(kind, patch, wrap, monkeypatch):
    x, z = rng.standard_normal((5, 6)), rng.standard_normal((4, 6))
    x[0, :3] = 0
    z[1] = 2 * x[1]
    got = patch_kernel(x, z, patch, kind, wrap=wrap)
    np.testing.assert_allclose(got, explicit(x, z, patch, wrap, kind), rtol=1e-7, atol=1e-7)
    monkeypatch.setattr("tersor.project.singular.BLOCK", 1)
    assert patch_kernel(x, z, patch, kind, wrap=wrap).tobytes() == got.tobytes()
    t = patch_kernel(torch.from_numpy(x), torch.from_numpy(z), patch, kind, wrap=wrap)
    np.testing.assert_allclose(t, got, rtol=1e-12, atol=1e-14)


def test_patch_kernels_at_the_ends():
    x = rng.standard_normal((4, 5))
    near = x * (1 + 1e-9 * rng.standard_normal((4, 5)))
    k = patch_kernel(x, near, 3)
    with mpmath.workdps(40):
        for i in range(4):
            want = mpmath.mpf(0)
            for p in range(5):
                at = [(p + t) % 5 for t in range(3)]
                a, b = ([mpmath.mpf(float(v)) for v in r[i, at]] for r in (x, near))
                size = mpmath.sqrt(sum(v * v for v in a)) * mpmath.sqrt(sum(v * v for v in b))
                c = sum(v * w for v, w in zip(a, b, strict=True)) / size
                t = mpmath.acos(min(c, 1))
                want += size * (mpmath.sin(t) + c * (mpmath.pi - t)) / mpmath.pi / 5
            assert abs(k[i, i] - float(want)) < 1e-14 * float(want)
    np.testing.assert_allclose(patch_kernel(1e200 * x, 1e-200 * x, 2), patch_kernel(x, x, 2), rtol=1e-12)
    tiny = patch_kernel(np.full((1, 2), 5e-324), np.full((1, 2), 1e300), 2)[0, 0]
    assert abs(tiny / (2 * 5e-324 * 1e300) - 1) < 1e-14
    zero = patch_kernel(np.zeros((2, 4)), x[:, :4], 2)
    assert not zero.any()
    odd = x.copy()
    odd[1, 2] = np.nan
    assert np.isnan(patch_kernel(odd, x, 2)).any(1).tolist() == [False, True, False, False]
    assert patch_kernel(x[:0], x, 2).shape == (0, 4) and patch_kernel(x, x[:0], 2).shape == (4, 0)
    half = patch_kernel(x.astype(np.float32), x.astype(np.float32), 2)
    assert half.dtype == np.float32 and np.linalg.eigvalsh(patch_kernel(x, x, 2)).min() > -1e-12


def test_gradients():
    x, z = (torch.from_numpy(rng.standard_normal((n, 5))).requires_grad_() for n in (3, 2))
    assert torch.autograd.gradcheck(lambda x, z: patch_kernel(x, z, 2), (x, z))
    gap, y = (torch.from_numpy(v).requires_grad_() for v in (GAP, Y))
    assert torch.autograd.gradcheck(lambda g, y: singular_vote(g, y, 2.5), (gap, y))
    with torch.no_grad():
        x[0] = 0
        x[1, :2] = z[0, :2]
        g = torch.zeros(1, 9, dtype=torch.float64)
    (patch_kernel(x, z, 2).sum() + patch_kernel(x, x, 2).sum()).backward()
    assert x.grad.isfinite().all() and z.grad.isfinite().all()
    singular_vote(g.requires_grad_(), y, 2).sum().backward()
    assert not g.grad.any()


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: singular_vote(GAP, Y[:3], 1), ValueError, r"singular_vote: gap must be \[m, n\].*\(5, 9\), \(3, 2\)"),
        (lambda: singular_vote(GAP, Y, -1), ValueError, "singular_vote: d must be finite and not negative, got -1"),
        (lambda: singular_vote(GAP, Y, math.inf), ValueError, "singular_vote: d must be finite"),
        (lambda: singular_vote(-GAP, Y, 1), ValueError, "singular_vote: gaps must not be negative, got -"),
        (lambda: singular_vote(GAP, Y.astype("f4"), 1), TypeError, "singular_vote: y is float32, gap is float64"),
        (lambda: singular_vote(GAP, torch.from_numpy(Y), 1), TypeError, "singular_vote: y must be"),
        (lambda: patch_kernel(GAP, GAP, 0), ValueError, "patch_kernel: patch must be in 1 .. 9, got 0"),
        (lambda: patch_kernel(GAP, GAP, 10), ValueError, "got 10"),
        (lambda: patch_kernel(GAP, GAP, 1.5), TypeError, "patch_kernel: patch must be an integer"),
        (lambda: patch_kernel(GAP, Y, 1), ValueError, r"patch_kernel: x must be \[m, d\].*\(9, 2\)"),
        (lambda: patch_kernel(GAP, GAP, 1, "tanh"), ValueError, "patch_kernel: kind must be one of"),
        (lambda: patch_kernel(GAP.astype(int), GAP, 1), TypeError, "patch_kernel: x must be"),
    ],
)
def test_what_is_refused_is_named(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
