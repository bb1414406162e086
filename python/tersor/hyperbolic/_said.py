"""What docstrings of the ball say again and again, by the names that they call it (`tersor._said`)."""

from tersor._said import AXIS

SAID = AXIS | {
    "x": """\
x : array or tensor [..., d], float64, float32, float16 or bfloat16
    Points of the ball.""",
    "rows": """\
x : array or tensor [..., d], float64, float32, float16 or bfloat16
    Points of the ball; leading axes broadcast.""",
    "pairs": """\
x, y : array or tensor [..., d], float64, float32, float16 or bfloat16
    Points of the ball; leading axes broadcast.""",
    "c": """\
c : float, or array of 0 axes or [..., 1]
    The ball has curvature -c; finite, not negative.""",
    "eps": """\
eps : float, "tight" or "compat"
    How far inside the ball results stay; see `expmap0`.""",
    "inside": """\
array or tensor [..., d]
    Points of the ball, strictly inside after rounding.""",
    "refused": """\
TypeError
    If the arrays are not of one float type.
ValueError
    If c is negative or not finite, or shapes do not broadcast.""",
}
