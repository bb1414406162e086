"""Masks of images compared. The one rule: errors are those of their definition, and borders are followed once."""

import math

import numpy as np
import pytest
from drawn import LIBRARIES, draw
from tersor import metrics


def shifted(m, di, dj):
    """A mask moved by so much, with False where nothing comes from."""
    out = np.zeros_like(m)
    for i, j in np.argwhere(m):
        if 0 <= i + di < m.shape[0] and 0 <= j + dj < m.shape[1]:
            out[i + di, j + dj] = True
    return out


def cross(m):
    return m | shifted(m, 1, 0) | shifted(m, -1, 0) | shifted(m, 0, 1) | shifted(m, 0, -1)


@LIBRARIES
@pytest.mark.parametrize("relax", [0, 1, 2, 30])
def test_relaxed_errors_are_those_of_their_definition(library, relax):
    rng = draw(relax)
    for _ in range(10):
        p, t, skeleton = (cross(cross(rng.random((14, 11)) < 0.03 * k)) for k in (1, 1, 0.3))
        deep = p | t
        for _ in range(relax):
            rest = np.pad(deep, 1, constant_values=True)  # what is outside the image is set
            deep = rest[1:-1, :-2] & rest[1:-1, 2:] & rest[:-2, 1:-1] & rest[2:, 1:-1] & rest[1:-1, 1:-1]
        want = []
        for wrong, other in ((p & ~t, t), (t & ~p, p)):
            grown = wrong & deep
            for _ in range(relax):
                grown = cross(grown) & ~other
            want.append(grown & wrong)
        fp, fn = metrics.relaxed_errors(library(p), library(t), library(skeleton), relax)
        np.testing.assert_array_equal(np.asarray(fp), want[0])
        np.testing.assert_array_equal(np.asarray(fn), want[1] | (skeleton & ~p))


@LIBRARIES
def test_corrections_of_squares(library):
    t = np.zeros((80, 80), bool)
    t[20:60, 20:60] = True
    effort = lambda p, **o: metrics.human_correction_effort(library(p), library(t), **o)  # noqa: E731
    assert effort(t) == (0, 0, 0, 0)
    assert effort(np.roll(t, (1, 1), (0, 1))) == (0, 0, 0, 0)  # off by a pixel is not off
    island = t.copy()
    island[0:12, 0:12] = True
    assert effort(island) == (0, 1, 0, 0)
    hole = t.copy()
    hole[32:48, 32:48] = False
    # pixels missed within: nothing but what is right around them
    assert effort(hole) == (0, 0, 0, 1)
    side = t.copy()
    side[20:60, 60:75] = True
    assert effort(side) == (2, 0, 0, 0)  # one straight border with what is right
    bite = t.copy()
    bite[20:60, 20:36] = False
    assert effort(bite, relax=0) == (0, 0, 4, 0)  # along three sides
    assert effort(bite) == (0, 0, 6, 0)  # growth with the cross leaves two corners out
    slit = t.copy()
    slit[30:50, 40] = False
    assert effort(slit) == (0, 0, 0, 1)
    spur = t.copy()
    spur[40, 60:75] = True
    with_spur = lambda **o: metrics.human_correction_effort(library(t), library(spur), **o)  # noqa: E731
    assert with_spur() == (0, 0, 0, 0)  # too thin to be seen, but for its skeleton
    assert with_spur(skeleton=library(spur & ~t)) == (0, 0, 2, 0)
    nothing = np.zeros_like(t)
    assert effort(nothing)[:2] == (0, 0) and effort(nothing).fn_points >= 4
    for wrong, said in (({"relax": -1}, "relax must not be"), ({"epsilon": math.nan}, "epsilon must be")):
        with pytest.raises(ValueError, match=f"human_correction_effort: {said}"):
            effort(t, **wrong)
    with pytest.raises(ValueError, match=r"target has shape \(80, 80\), pred \(4, 80\)"):
        effort(t[:4])


def test_borders_are_followed_once():
    from scipy import ndimage
    from tersor.metrics import masks

    for seed in range(30):
        m = draw(seed).random((9, 12)) < 0.1 + 0.03 * seed
        label = masks._regions(m)
        want, regions = ndimage.label(m, np.ones((3, 3)))
        assert label.max(initial=-1) + 1 == regions
        assert len({(a, b) for a, b in zip(label.ravel(), want.ravel(), strict=True)}) == regions + (not m.all())
        borders = masks._borders(m)
        edge = m & ~ndimage.binary_erosion(m, border_value=0)
        assert {p for path in borders for p in path} == set(map(tuple, np.argwhere(edge).tolist()))
        holes = ndimage.label(~np.pad(m, 1))[1] - 1
        assert len(borders) == regions + holes
        for path in borders:
            assert all(
                max(abs(a - c), abs(b - d)) <= 1 for (a, b), (c, d) in zip(path, path[1:] + path[:1], strict=True)
            )
