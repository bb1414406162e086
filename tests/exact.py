"""Numbers of 320 bits in NumPy object arrays. The one rule: what comes in is taken as it is, nothing is rounded to float64."""

import gmpy2
import numpy as np

BITS = 320
gmpy2.get_context().precision = BITS


def _lift(f):
    return np.frompyfunc(f, 1, 1)


exact = _lift(lambda x: gmpy2.mpfr(float(x), BITS))
sqrt, tanh, atanh, asinh, acosh, sinh, cosh = (
    _lift(getattr(gmpy2, k)) for k in ("sqrt", "tanh", "atanh", "asinh", "acosh", "sinh", "cosh")
)


def real(x):
    """An array as numbers of 320 bits (rows as they are stored, whatever their dtype)."""
    return exact(np.asarray(x, np.float64))


def dot(x, y):
    return np.sum(x * y, -1, keepdims=True)


def norm(x):
    return sqrt(dot(x, x))


def ratio(f, r):
    """f(r)/r with the limit 1 at r = 0, for f(r) = r + O(r^3)."""
    one = gmpy2.mpfr(1)
    zero = r == 0
    s = np.where(zero, one, r)
    return np.where(zero, one, f(s) / s)


def ulp(x, eps):
    """The unit in the last place of |x| in a type whose 1 is followed by 1 + eps."""
    x = np.abs(np.asarray(x, np.float64))
    return 2.0 ** np.floor(np.log2(np.where(x > 0, x, 1.0))) * eps
