"""Alignment of representations (CKA). The one rule: it is that of Gram matrices written out, and so is its gradient."""

import math

import numpy as np
import pytest
import torch
from drawn import LIBRARIES, draw
from tersor import metrics


def cka_of_samples(x, y, debiased=False):
    """By the centred Gram matrices."""
    n = len(x)

    def gram(v):
        k = v @ v.T
        if debiased:
            np.fill_diagonal(k, 0)
            return k
        h = np.eye(n) - 1 / n
        return h @ k @ h

    def hsic(k, l):
        if not debiased:
            return (k * l).sum()
        whole = k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l).sum() / (n - 2)
        return (np.trace(k @ l) + whole) / (n * (n - 3))

    k, l = gram(x), gram(y)
    return hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("shape", [(40, 5, 7), (9, 20, 3), (12, 30, 40)])
def test_cka_is_that_of_gram_matrices(shape, debiased):
    n, d, e = shape
    x, y = draw().standard_normal((n, d)), draw(1).standard_normal((n, e))
    y[:, :3] += x[:, :3]
    want = cka_of_samples(x, y, debiased)
    assert math.isclose(metrics.cka(x, y, debiased=debiased), want, rel_tol=1e-11, abs_tol=1e-13)
    by_grams = metrics.cka(x @ x.T, y @ y.T, debiased=debiased, gram=True)
    assert math.isclose(by_grams, want, rel_tol=1e-11, abs_tol=1e-13)
    turn = np.linalg.qr(draw(2).standard_normal((d, d)))[0]
    same = metrics.cka(3e7 * (x @ turn) + 11, 1e-9 * y - 5e-7, debiased=debiased)
    assert math.isclose(same, want, rel_tol=1e-11, abs_tol=1e-12)
    far = (x + 1000).astype(np.float32), (y - 1000).astype(np.float32)
    assert abs(metrics.cka(*far, debiased=debiased) - want) <= 2e-4
    exact = cka_of_samples(*(v.astype(np.float64) - v.astype(np.float64).mean(0) for v in far), debiased)
    assert math.isclose(metrics.cka(*far, debiased=debiased), exact, rel_tol=2e-5)


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("debiased", [False, True])
def test_cka_has_its_gradient(gram, debiased):
    x, y = (torch.from_numpy(draw(i).standard_normal((6, 6 if gram else 3 + 5 * i))) for i in range(2))
    x, y = ((v @ v.T if gram else v).requires_grad_() for v in (x, y))
    assert torch.autograd.gradcheck(lambda a, b: metrics.cka(a, b, debiased=debiased, gram=gram), (x, y))
    x, y = x.detach(), y.detach()
    assert math.isclose(metrics.cka(x, y), metrics.cka(x.numpy(), y.numpy()), rel_tol=1e-13)


def test_the_gradient_of_cka_is_the_formulas():
    x, y = (torch.from_numpy(draw(i).standard_normal((20, 4 + i))).requires_grad_() for i in range(2))
    metrics.cka(x, y).backward()
    a, b = ((v - v.mean(0)).detach() for v in (x, y))
    A, B, C = ((v.T @ u).norm() for u, v in ((a, b), (a, a), (b, b)))
    dx = 2 / (B * C) * b @ (b.T @ a) - 2 * A**2 / (B**3 * C) * a @ (a.T @ a)
    torch.testing.assert_close(x.grad, dx, rtol=1e-12, atol=1e-15)


@LIBRARIES
@pytest.mark.parametrize("debiased", [False, True])
def test_a_matrix_of_cka_is_of_its_pairs(library, debiased):
    layers = [library(draw(i).standard_normal((12, 3 + 6 * i))) for i in range(3)]
    table = metrics.cka_matrix(layers, debiased=debiased)
    other = metrics.cka_matrix(layers[:2], layers, debiased=debiased)
    for i, x in enumerate(layers):
        for j, y in enumerate(layers):
            assert math.isclose(table[i, j], metrics.cka(x, y, debiased=debiased), rel_tol=1e-13)
    np.testing.assert_allclose(np.asarray(other), np.asarray(table)[:2], rtol=1e-13)


def test_cka_of_what_does_not_vary():
    x = draw().standard_normal((8, 3))
    assert math.isnan(metrics.cka(np.full((8, 2), 0.1), x))
    assert math.isnan(metrics.cka(x.astype(np.float32), np.full((8, 9), 0.1, np.float32)))
    for call, said in (
        (lambda: metrics.cka(x[:1], x[:1]), "x has 1 rows, it takes 2"),
        (lambda: metrics.cka(x[:3], x[:3], debiased=True), "x has 3 rows, it takes 4"),
        (lambda: metrics.cka(x, x[:5]), "y has 5 rows, x 8"),
        (lambda: metrics.cka(x, x, gram=True), "x must be square"),
        (lambda: metrics.CKA(debiased=True), "debiased must be False"),
        (lambda: metrics.cka_matrix([]), "xs is empty"),
        (lambda: metrics.cka_matrix([x, x[:4]]), r"xs\[1\] has 4 rows"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match=r"cka_matrix: xs\[1\] is float32"):
        metrics.cka_matrix([x, x.astype(np.float32)])
