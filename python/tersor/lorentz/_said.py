"""What docstrings of the hyperboloid say again and again, by the names that they call it (`tersor._said`)."""

from tersor._said import AXIS

SAID = AXIS | {
    "x": """\
x : array or tensor [..., d]
    Points.""",
    "c": """\
c : float, or array of 0 axes or [..., 1]
    Curvature -c; finite, not negative.""",
    "points": """\
array or tensor [..., d]
    Points. Differentiable.""",
    "refused": """\
TypeError, ValueError
    If arrays are not of one float type, c is negative or not finite, or shapes do not broadcast.""",
    "refused_rows": """\
TypeError, ValueError
    If x is not a float array, or c is negative or not finite.""",
}
