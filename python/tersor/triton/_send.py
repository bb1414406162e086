"""What segments on a GPU send back to their elements. The rule: an element reads what its segment knows, and is
written once."""

import triton
import triton.language as tl

from tersor.triton._rows import _stored
from tersor.triton._runs import TILE

#: what an element of a segment that knows a, b, c, m is sent: w (b + c (x - m)), b alone where c is 0; b exp(x - m);
#: b + c (x - m); a g + w (b + c (x - m)), b alone where c is 0
SLOPE, EXPONENT, STRICT, BESIDE = (tl.constexpr(k) for k in range(4))


@triton.jit
def _send(
    g,
    x,
    weight,
    own,
    first,
    second,
    third,
    mean,
    y,
    n,
    count,
    inner,
    FORM: tl.constexpr,
    OWN: tl.constexpr,
    WEIGHTED: tl.constexpr,
    D: tl.constexpr,
):
    """What segments know, at their elements; 0 at those of none."""
    i = tl.program_id(0).to(tl.int64) * D + tl.arange(0, D)
    live = i < n
    s = tl.load(own + i, live, -1) if OWN else i // inner % count
    some = live & (s >= 0)
    b = tl.load(second + s, some, 0.0)
    c = tl.load(third + s, some, 0.0)
    u = tl.load(x + i, live, 0.0).to(tl.float64) - tl.load(mean + s, some, 0.0)
    if FORM == EXPONENT:
        v = tl.where(b == 0, 0, b * tl.exp(u))
    elif FORM == STRICT:
        v = b + c * u
    else:
        # what does not count may be no number
        v = b + tl.where(c == 0, 0, c * tl.where(u == u, u, 0))
    if WEIGHTED:
        v *= tl.load(weight + i, live, 0.0).to(tl.float64)
    if FORM == BESIDE:
        v += tl.load(first + s, some, 0.0) * tl.load(g + i, live, 0.0).to(tl.float64)
    at = y + i
    tl.store(at, _stored(tl.where(some, v, 0), at), live)


def send(r, x, y, form, tables, weight=None, g=None):
    """To each element of `x` what its segment makes of it."""
    n = x.numel()
    if n:
        a, b, c, m = tables
        _send[(triton.cdiv(n, TILE),)](
            x if g is None else g, x, x if weight is None else weight, r.starts if r.own is None else r.own, a, b, c, m, y, n,
            max(r.count, 1), r.inner, FORM=form, OWN=r.own is not None, WEIGHTED=weight is not None, D=TILE,
            enable_fp_fusion=False,
        )  # fmt: skip
