"""Random features against the kernels whose means they are, and ridge regression against leaving rows out one by one."""

import math

import numpy as np
import pytest
from tersor import sparse
from tersor.project import Projection, arccos_features, rff, ridge_path, tensorsketch

torch = pytest.importorskip("torch")


def numbers(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def arccos(x, y, order):
    a, b = np.linalg.norm(x), np.linalg.norm(y)
    t = math.acos(np.clip(x @ y / (a * b), -1, 1))
    s, c = math.sin(t), math.cos(t)
    j = (math.pi - t, s + (math.pi - t) * c, 3 * s * c + (math.pi - t) * (1 + 2 * c * c))[order]
    return (a * b) ** order * j / math.pi


KERNELS = {
    "rff": (rff, {"gamma": 0.3}, lambda x, y: math.exp(-0.3 * np.sum((x - y) ** 2))),
    "arccos 0": (arccos_features, {"order": 0}, lambda x, y: arccos(x, y, 0)),
    "arccos 1": (arccos_features, {}, lambda x, y: arccos(x, y, 1)),
    "arccos 2": (arccos_features, {"order": 2}, lambda x, y: arccos(x, y, 2)),
    "tensorsketch 2": (tensorsketch, {"gamma": 0.5, "coef0": 0.7}, lambda x, y: (0.5 * x @ y + 0.7) ** 2),
    "tensorsketch 3": (tensorsketch, {"degree": 3, "gamma": 0.4}, lambda x, y: (0.4 * x @ y) ** 3),
}


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_means_are_kernels(name):
    """Within five standard errors, at a pair and on the diagonal."""
    f, given, kernel = KERNELS[name]
    x, y = numbers(2, 6, seed=3) * 0.8
    z = np.stack([f(np.stack([x, y]), 31, seed=seed, **given) for seed in range(800)])
    for a, b, u, v in ((0, 1, x, y), (0, 0, x, x)):
        got = np.sum(z[:, a] * z[:, b], 1)
        assert abs(got.mean() - kernel(u, v)) < 5 * got.std() / math.sqrt(len(got)), (name, a, b)


def test_orthogonal_features():
    """Less variance than independent ones, and about the kernel's mean where d is not small."""
    d, k = 64, 64
    x, y = numbers(2, d, seed=1) / 8
    want = math.exp(-0.5 * np.sum((x - y) ** 2))
    got = {}
    for kind in ("gaussian", "orthogonal"):
        z = np.stack([rff(np.stack([x, y]), k, 0.5, kind, seed=seed) for seed in range(600)])
        got[kind] = np.sum(z[:, 0] * z[:, 1], 1)
    assert abs(got["orthogonal"].mean() - want) < 5 * got["orthogonal"].std() / math.sqrt(600) + 0.004
    assert got["orthogonal"].var() < got["gaussian"].var()
    w = np.sqrt(k) * Projection(d, k, "spinner").materialise()
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), math.sqrt(d), rtol=1e-12)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_tensors(name):
    f, given, _ = KERNELS[name]
    x = numbers(3, 6, seed=2)
    t = torch.from_numpy(x).requires_grad_(name != "arccos 0")
    y = f(t, 8, seed=5, **given)
    np.testing.assert_allclose(y.detach().numpy(), f(x, 8, seed=5, **given), rtol=1e-12, atol=1e-14)
    if name != "arccos 0":
        assert torch.autograd.gradcheck(lambda t: f(t, 8, seed=5, **given), [t])
    low = f(x.astype(np.float32), 8, seed=5, **given)
    assert low.dtype == np.float32 and f(torch.from_numpy(x).float(), 8, seed=5, **given).dtype == torch.float32
    np.testing.assert_allclose(low, y.detach().numpy(), rtol=0, atol=1e-5 * (1 + np.abs(low).max()))
    assert f(x[:0], 8, **given).shape == (0, 8) and f(x[0], 8, seed=5, **given).shape == (8,)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_sparse_rows(name):
    """Features of SciPy's matrices and of `CSR` are those of the dense rows."""
    scipy_sparse = pytest.importorskip("scipy.sparse")
    f, given, _ = KERNELS[name]
    for dtype in (np.float64, np.float32):
        x = numbers(9, 40, dtype=dtype) * (numbers(9, 40, seed=1) > 0.8)
        want, near = f(x, 12, **given), 200 * np.finfo(dtype).eps
        for layout in ("csr", "csc", "coo"):
            y = f(scipy_sparse.csr_array(x).asformat(layout), 12, **given)
            assert type(y) is np.ndarray and y.dtype == dtype and np.allclose(y, want, near, near)
        assert np.allclose(f(sparse.from_dense(x), 12, **given), want, near, near)
        y = f(sparse.from_dense(torch.from_numpy(x)), 12, **given)
        assert y.dtype is torch.from_numpy(x).dtype and np.allclose(y, want, near, near)
        assert f(scipy_sparse.csr_array((0, 40), dtype=dtype), 12, **given).shape == (0, 12)
    half = sparse.from_dense(torch.from_numpy(x).half())
    if f is tensorsketch:
        with pytest.raises(TypeError, match="tensorsketch: x must be float64 or float32, got float16"):
            f(half, 12, **given)
    else:
        assert np.allclose(f(half, 12, **given), f(half.to_dense(), 12, **given), 0.02, 0.02)
    many = sparse.from_dense(numbers(5000, 3) * (numbers(5000, 3, seed=1) > 0))  # more than go together
    assert np.allclose(f(many, 12, **given), f(many.to_dense(), 12, **given), 1e-12, 1e-12)
    for bad, message in (
        (scipy_sparse.csr_array(np.eye(3, dtype=np.int64)), "float"),
        (scipy_sparse.csr_array(np.zeros((3, 0))), "last axis that is not empty"),
        (torch.eye(3).to_sparse(), "x"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{f.__name__}: .*{message}"):
            f(bad, 12, **given)


def test_what_is_refused():
    x = numbers(3, 6)
    for f, wrong in (
        (rff, {"gamma": 0}), (rff, {"gamma": math.inf}), (rff, {"kind": "sobol"}), (rff, {"k": 0}), (rff, {"seed": -1}),
        (arccos_features, {"order": 3}), (tensorsketch, {"degree": 0}), (tensorsketch, {"coef0": -1.0}),
        (tensorsketch, {"gamma": -1.0}), (rff, {"x": np.ones(())}), (tensorsketch, {"x": np.ones((3, 0))}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{f.__name__}: "):
            f(**({"x": x, "k": 4} | wrong))
    for f, wrong in (
        (rff, {"gamma": "1"}), (rff, {"x": [1.0]}), (arccos_features, {"order": 1.0}), (tensorsketch, {"degree": "2"}),
        (tensorsketch, {"x": x.astype(np.float16)}), (rff, {"x": np.ones((2, 3), int)}),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=f"{f.__name__}: "):
            f(**({"x": x, "k": 4} | wrong))


# --- ridge ---


@pytest.mark.parametrize(("n", "p"), [(12, 5), (6, 9), (7, 7)])
@pytest.mark.parametrize("targets", [(), (3,)])
def test_ridge_path(n, p, targets):
    z, y = numbers(n, p), numbers(n, *targets, seed=1)
    alphas = [0.01, 0.5, 30.0]
    coef, loo = ridge_path(z, y, alphas)
    assert coef.shape == (3, p, *targets) and loo.shape == (3, *targets)
    for alpha, b, error in zip(alphas, coef, loo, strict=True):
        np.testing.assert_allclose(b, np.linalg.solve(z.T @ z + alpha * np.eye(p), z.T @ y), rtol=1e-9, atol=1e-12)
        left = []
        for i in range(n):
            zi, yi = np.delete(z, i, 0), np.delete(y, i, 0)
            left.append((y[i] - z[i] @ np.linalg.solve(zi.T @ zi + alpha * np.eye(p), zi.T @ yi)) ** 2)
        np.testing.assert_allclose(error, np.mean(left, 0), rtol=1e-8)
    t_coef, t_loo = ridge_path(torch.from_numpy(z), torch.from_numpy(y), alphas)
    np.testing.assert_allclose(t_coef.numpy(), coef, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(t_loo.numpy(), loo, rtol=1e-9)
    low, _ = ridge_path(z.astype(np.float32), y.astype(np.float32), alphas)
    assert low.dtype == np.float32


def test_ridge_without_penalty_is_of_least_norm():
    z = numbers(8, 3) @ numbers(3, 6, seed=1)
    y = numbers(8, seed=2)
    coef, loo = ridge_path(z, y, [0.0])
    np.testing.assert_allclose(coef[0], np.linalg.pinv(z) @ y, rtol=1e-8, atol=1e-10)
    assert np.isfinite(loo).all()
    alone, error = ridge_path(np.eye(3), np.ones(3), [0.0])
    assert np.array_equal(alone[0], np.ones(3)) and not np.isfinite(error[0])
    assert ridge_path(z, y, [])[0].shape == (0, 6)
    # the gradient of the best error by the features
    a, b = (torch.from_numpy(v).requires_grad_() for v in (numbers(6, 3), numbers(6, seed=1)))
    assert torch.autograd.gradcheck(lambda a, b: ridge_path(a, b, [0.3, 2.0])[1], [a, b])


def test_ridge_refuses():
    z, y = numbers(5, 3), numbers(5)
    for args in (
        (z[0], y, [1.0]),
        (z, y[:4], [1.0]),
        (z[:0], y[:0], [1.0]),
        (z, y, [-1.0]),
        (z, y, [math.nan]),
        (z * math.inf, y, [1.0]),
        (torch.from_numpy(z * math.nan), torch.from_numpy(y), [1.0]),
    ):
        with pytest.raises(ValueError, match="ridge_path: "):
            ridge_path(*args)
    wrong = (
        (z.astype(np.float16), y, [1.0]),
        (z, y.astype(np.float32), [1.0]),
        (z, torch.from_numpy(y), [1.0]),
        (z, [1.0], [1.0]),
        (z, y, 1.0),
        (z, y, ["one"]),
    )
    for args in wrong:
        with pytest.raises(TypeError, match="ridge_path: "):
            ridge_path(*args)


def test_ridge_of_any_size():
    z, y = numbers(9, 3), numbers(9)
    coef, loo = ridge_path(z, y, [0.0, 1.0])
    large = ridge_path(z * 1e200, y, [0.0, 1.0])
    np.testing.assert_allclose(large[0] * 1e200, [coef[0], coef[0]], rtol=1e-12)
    np.testing.assert_allclose(large[1], [loo[0], loo[0]], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_angles_of_16_bits_keep_their_turn(dtype):
    x = (torch.from_numpy(numbers(20, 16)) * 30).to(dtype)
    torch.testing.assert_close(rff(x, 32), rff(x.float(), 32).to(dtype), rtol=0, atol=0)
