"""Ridge regression against leaving rows out one by one."""

import math

import numpy as np
import pytest
from tersor.project import ridge_path

torch = pytest.importorskip("torch")


def numbers(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


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
