"""`standardize` on a GPU where scales and shifts are one number a segment: batch and region norms. The rule: sums make a table
of numbers for each segment, and one walk brings it to the elements.
"""

import math

import torch

from tersor._reference import there
from tersor._segments import shape_of
from tersor.triton import _segments, _send
from tersor.triton._runs import runs, weights


def table(x, p, kept, groups, by_segment, absent):
    """A number for each segment of what scales or shifts, None where it is another within one."""
    labels, *sizes = shape_of(x, kept, groups or -1)
    if not there(p):
        return torch.full((labels * math.prod(sizes),), absent, dtype=torch.float64, device=x.device)
    if by_segment:
        return p.double().reshape(-1)
    own = (1,) * (x.ndim - p.ndim) + tuple(p.shape)
    if any(n not in (1, m) for n, m in zip(own, sizes, strict=True)):
        return None
    return p.double().reshape(own).expand(labels, *sizes).reshape(-1)


def far(x, *stats):
    """Whether squares of float64 may have left it."""
    return x.dtype == torch.float64 and bool(
        torch.stack([((abs(s) < 2.0**-960) | (abs(s) == math.inf)).any() for s in stats]).any()
    )


def unit(count, mean, var, mode, eps, correction, alpha, given):
    """μ and r of each segment."""
    free = count - correction
    mu, v = mean, torch.where(free > 0, var * count / torch.where(free > 0, free, 1.0), math.nan)
    if mode in (1, 2):
        mu, v = 0 * mean, var + mean * mean
    if mode == 2:
        v = (count * v + (count * mean) ** 2) / (count + 1)
    if mode == 3:
        return mu, torch.ones_like(mean)
    if alpha:
        mean_given, var_given = (f.double().reshape(-1) for f in given)
        # statistics that do not count may be no number
        mu, v = (mean_given, var_given) if alpha == 1 else (
            alpha * mean_given + (1 - alpha) * mu, alpha * var_given + (1 - alpha) * v
        )  # fmt: skip
    return mu, (v + eps).rsqrt()


def forward(x, weight, bias, labels, sample_weight, *rest):
    """Whether it was done."""
    *given, y, count, mean, var, kept, groups, mode, eps, correction, alpha, by_segment = rest
    gamma, beta = (table(x, p, kept, groups, by_segment, a) for p, a in ((weight, 1.0), (bias, 0.0)))
    if gamma is None or beta is None or not x.numel():
        return False
    r, w = runs(x, labels, kept, groups), weights(x, sample_weight, "sample_weight")
    if alpha == 1:
        mean_given, var_given = (f.double().reshape(-1) for f in given)
        stats = torch.stack([torch.zeros_like(mean_given), mean_given, var_given])
    else:
        stats = _segments.moments(r, x, w)
        if far(x, stats[2]):
            return False
    mu, scale = unit(*stats, mode, eps, correction, alpha, given)
    _send.send(r, x, y, _send.STRICT, (mu, beta, gamma * scale, mu))
    for out, s in zip((count, mean, var), stats, strict=True):
        out.copy_(s.reshape(out.shape))
    return True


def backward(g, _, gmean, gvar, x, weight, bias, labels, sample_weight, *rest):
    """Whether it was done."""
    *given, count, mean, var, dx, dweight, dbias, _, kept, groups, mode, eps, correction, alpha, by_segment, needs = (
        rest
    )
    gamma = table(x, weight, kept, groups, by_segment, 1.0)
    shifted = table(x, bias, kept, groups, by_segment, 0.0)
    asked = needs & 8 and there(sample_weight)
    if asked or gamma is None or shifted is None or not x.numel() or far(x, var):
        return False
    r, w = runs(x, labels, kept, groups), weights(x, sample_weight, "sample_weight")
    n, m, v = (s.double().reshape(-1) for s in (count, mean, var))
    mu, scale = unit(n, m, v, mode, eps, correction, alpha, given)
    total, along = _segments.sums(r, g, None, x, mu)
    # an empty segment has no scale, and nothing to give
    along = torch.where(along == 0, along, along * scale)
    for p, out, bit, found in ((weight, dweight, 2, along), (bias, dbias, 4, total)):
        if needs & bit and there(p):
            out.copy_(_of(found, x, p, kept, groups, by_segment))
    if needs & 1:
        b, c = _sent(n, m, gamma * total, gamma * along, scale, mode, correction, alpha)
        some = (n > 0) & (alpha != 1)
        over = torch.where(some, n, 1.0)
        b = torch.where(some, b + gmean.double().reshape(-1) / over, 0.0)
        c = torch.where(some, c + 2 * gvar.double().reshape(-1) / over, 0.0)
        _send.send(r, x, dx, _send.BESIDE, (gamma * scale, b, c, m), w, g)
    return True


def _sent(n, m, total, along, r, mode, correction, alpha):
    """b and c of what statistics send back, w (b + c (x - μ))."""
    part = 1 - alpha
    if mode == 0:
        return -part * r * total / n, -part * r * r * along / (n - correction)
    if mode == 1:
        return -r * r * along * m / n, -r * r * along / n
    if mode == 2:
        return -r * r * along * m, -r * r * along / (n + 1)
    return -r * total / n, torch.zeros_like(total)


def _of(found, x, p, kept, groups, by_segment):
    """The sums of segments in the shape of a scale or shift."""
    if by_segment:
        return found.reshape(p.shape)
    return found.reshape(shape_of(x, kept, groups or -1)).sum(0).sum_to_size(p.shape)
