"""Neural collapse. The one rule: it is that of its definition, in matrices as the papers have them."""

import math

import numpy as np
import pytest
from drawn import LIBRARIES, draw
from tersor import metrics


def collapse_by_definition(h, y, center, w=None, b=None):
    """Matrices as the papers have them."""
    k, d, n = int(y.max()) + 1, h.shape[1], len(h)
    means = np.stack([h[y == c].mean(0) for c in range(k)])
    middle = {"classes": means.mean(0), "samples": h.mean(0), "none": np.zeros(d)}[center]
    m = means - middle
    within = sum(np.outer(v, v) for v in h - means[y]) / n
    between = m.T @ m / k
    found = {"nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-13)) / k}
    found["nc1_ratio"] = np.trace(within) / np.trace(between)
    length = np.linalg.norm(m, axis=1)
    found["nc2_norms"] = length.std() / length.mean()
    cos = m @ m.T / np.outer(length, length)
    off = [(i, j) for i in range(k) for j in range(k) if i != j]
    found["nc2_angles"] = np.mean([abs(cos[p] + 1 / (k - 1)) for p in off])
    t = np.eye(k) - 1 / k
    gap = lambda a, b: np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b))  # noqa: E731
    found["nc2"] = gap(m @ m.T, t)
    s = np.array([((h[y == c] - means[c]) ** 2).sum(1).mean() for c in range(k)])
    found["cdnv"] = np.mean([(s[i] + s[j]) / (2 * ((means[i] - means[j]) ** 2).sum()) for i, j in off])
    if w is not None:
        found["nc3"], found["nc3_align"] = gap(w @ m.T, t), gap(w, m)
        near = ((h[:, None] - means) ** 2).sum(-1).argmin(1)
        found["nc4"] = ((h @ w.T + b).argmax(1) == near).mean()
    return found


@LIBRARIES
@pytest.mark.parametrize("center", ["classes", "samples", "none"])
@pytest.mark.parametrize("d", [3, 12])
def test_collapse_is_that_of_its_definition(library, center, d):
    y = draw().permutation(np.repeat(np.arange(5), [4, 9, 6, 5, 8]))
    h = draw(1).standard_normal((32, d)) + 2 * draw(2).standard_normal((5, d))[y]
    w, b = draw(3).standard_normal((5, d)), draw(4).standard_normal(5)
    want = collapse_by_definition(h, y, center, w, b)
    got = metrics.neural_collapse(library(h), library(y), weight=library(w), bias=library(b), center=center)
    assert got.keys() == want.keys()
    for key, v in want.items():
        assert math.isclose(got[key], v, rel_tol=1e-10), key
    assert metrics.neural_collapse(library(h), library(y)).keys() == want.keys() - {"nc3", "nc3_align", "nc4"}
    if center != "none":
        moved = metrics.neural_collapse(
            library(7 * h @ np.linalg.qr(draw(5).standard_normal((d, d)))[0] + 3), library(y), center=center
        )
        assert all(math.isclose(moved[key], got[key], rel_tol=1e-10) for key in moved)


def test_a_simplex_has_collapsed():
    k, y = 6, np.repeat(np.arange(6), 4)
    means = np.eye(k) - 1 / k
    got = metrics.neural_collapse(means[y] + 5, y, weight=means, bias=np.zeros(k))
    assert got["nc1"] == got["nc1_ratio"] == got["cdnv"] == 0 and got["nc4"] == 1
    assert all(got[key] <= 1e-14 for key in ("nc2", "nc2_norms", "nc2_angles", "nc3", "nc3_align"))
    frame = np.diag(np.arange(1.0, 6))
    y = np.arange(5)
    got = metrics.neural_collapse(frame[y], y, center="none", target_gram=frame @ frame.T)
    assert got["nc2"] <= 1e-12


@pytest.mark.parametrize(
    ("said", "y", "options"),
    [
        ("class 1 of 3 has no samples", [0, 2, 2, 0], {}),
        ("class 3 of 4 has no samples", [0, 1, 2, 0], {"num_classes": 4}),
        (r"labels\[2\] is 2; classes lie within 0 and 1", [0, 1, 2, 0], {"num_classes": 2}),
        ("labels reach from -1 to 2", [0, -1, 2, 0], {}),
        ("labels reach from 0 to 0", [0, 0, 0, 0], {}),
        ("num_classes must be 2 or more", [0, 0, 0, 0], {"num_classes": 1}),
        ("labels reach from 0 to 9000", [0, 9000, 1, 2], {}),
        (r"weight must have shape \(2, 3\)", [0, 1, 1, 0], {"weight": np.ones((3, 3))}),
        ("bias is given without", [0, 1, 1, 0], {"bias": np.ones(2)}),
        ("center must be one of", [0, 1, 1, 0], {"center": "mean"}),
        ("target_gram must have shape", [0, 1, 1, 0], {"target_gram": np.ones((3, 3))}),
    ],
)
def test_what_collapse_refuses(said, y, options):
    with pytest.raises(ValueError, match=f"neural_collapse: {said}"):
        metrics.neural_collapse(draw().standard_normal((4, 3)), np.array(y), **options)
