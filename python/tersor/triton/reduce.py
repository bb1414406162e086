"""GPU kernels of reductions over segments. The rule: the same segments as in Rust, found in `_runs`, walked in `_pieces`."""

import torch

from tersor._body import plain
from tersor._op import OPS
from tersor._reference import there
from tersor.triton import _peaks, _segments, _send
from tersor.triton._runs import runs, weights


def segment_moments(x, labels, weight, count, mean, var, kept, groups):
    """GPU kernel of `segment_moments`: inputs, outputs, scalars."""
    r, w = runs(x, labels, kept, groups), weights(x, weight, "weight")
    for y, found in zip((count, mean, var), _segments.moments(r, x, w), strict=True):
        y.copy_(found.reshape(y.shape))


def segment_moments_bwd(gcount, gmean, gvar, x, labels, weight, count, mean, var, dx, dweight, kept, groups, needs):
    """GPU kernel of `segment_moments_bwd`; weights get theirs by the reference."""
    if needs & 2 and there(weight):
        inputs = (gcount, gmean, gvar, x, labels, weight, count, mean, var)
        plain(OPS["reduce.segment_moments_bwd"], *inputs, dx, dweight, kept, groups, needs)
        return
    if needs & 1:
        b, c = (v.double().reshape(-1) / count.reshape(-1) for v in (gmean, 2 * gvar))
        tables = (b, b, c, mean.reshape(-1))
        _send.send(runs(x, labels, kept, groups), x, dx, _send.SLOPE, tables, weights(x, weight, "weight"))


def segment_sum(x, labels, weight, y, kept, groups):
    """GPU kernel of `segment_sum`."""
    r = runs(x, labels, kept, groups)
    y.copy_(_segments.sums(r, x, weights(x, weight, "weight"))[0].reshape(y.shape))


def segment_sum_bwd(g, x, labels, weight, dx, dweight, kept, groups, needs):
    """GPU kernel of `segment_sum_bwd`; weights get theirs by the reference."""
    if needs & 2 and there(weight):
        plain(OPS["reduce.segment_sum_bwd"], g, x, labels, weight, dx, dweight, kept, groups, needs)
        return
    if needs & 1:
        b = g.double().reshape(-1)
        _send.send(
            runs(x, labels, kept, groups), x, dx, _send.SLOPE, (b, b, 0 * b, 0 * b), weights(x, weight, "weight")
        )


def segment_extreme(x, labels, y, at, kept, groups, largest):
    """GPU kernel of `segment_extreme`."""
    _peaks.extreme(runs(x, labels, kept, groups), x, largest, y, at)


def segment_logsumexp(x, labels, y, total, kept, groups):
    """GPU kernel of `segment_logsumexp`."""
    _peaks.logsumexp(runs(x, labels, kept, groups), x, y, total)


def segment_logsumexp_bwd(g, x, labels, total, dx, kept, groups):
    """GPU kernel of `segment_logsumexp_bwd`."""
    b = g.double().reshape(-1)
    _send.send(runs(x, labels, kept, groups), x, dx, _send.EXPONENT, (b, b, b, total.reshape(-1)))


def segment_whole(x, labels, y, kept, groups, kind):
    """GPU kernel of `segment_whole`; a sum that leaves int64 is an error."""
    r = runs(x, labels, kept, groups)
    if kind or x.dtype != torch.int64:
        y.copy_(_segments.whole(r, x, kind).reshape(y.shape))
        return
    # halves of 32 bits, no sum of which leaves the range
    high, low = (_segments.whole(r, v, 0) for v in (x >> 32, x & 0xFFFFFFFF))
    high += low >> 32
    beyond = (high < -(2**31)) | (high >= 2**31)
    if bool(beyond.any()):
        i = int(beyond.int().argmax())
        v = (int(high[i]) << 32) + (int(low[i]) & 0xFFFFFFFF)
        raise ValueError(f"the sum of segment {i} is {v}, which no int64 holds")
    y.copy_(((high << 32) + (low & 0xFFFFFFFF)).reshape(y.shape))
