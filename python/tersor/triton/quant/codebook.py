"""Codes of rows and their sums, of torch's own operations. The rule: some rows against all codes at a time, in float64, so that
no array of all pairs is made and equally near codes are equal.
"""

import torch

#: numbers in a tile
TILE = 1 << 24


def _level(x):
    """Rows over the power of two of their largest number, whose squares are ordinary: directions stay, to the bit."""
    if not x.shape[1]:
        return x
    e = torch.frexp(x.abs().amax(1, keepdim=True))[1]
    return torch.ldexp(torch.ldexp(x, -(e // 2)), e // 2 - e)


def _scores(x, c, metric):
    """What the best code has least of."""
    if metric == 2:
        x, c = _level(x), _level(c)
    if metric == 0:
        return ((x[:, None] - c) ** 2).sum(-1)
    dot = (x[:, None] * c).sum(-1)
    if metric == 1:
        return -dot
    size = (x * x).sum(-1).sqrt()[:, None] * (c * c).sum(-1).sqrt()
    return torch.where(size == 0, 0.0, -dot / torch.where(size == 0, 1.0, size))


def codebook_assign(x, c, labels, top, metric):
    """GPU form of `codebook_assign`: inputs, outputs, scalars."""
    k, d = c.shape
    if not 1 <= top <= k:
        raise ValueError(f"codebook_assign: k must lie within 1 and the {k} rows of c, got {top}")
    for name, v in (("x", x), ("c", c)):
        if not bool(v.isfinite().all()):
            raise ValueError(f"codebook_assign: {name} holds non-finite values")
    wide = c.double()
    for first in range(0, len(x), each := max(TILE // max(k * d, 1), 1)):
        rows = slice(first, first + each)
        order = _scores(x[rows].double(), wide, metric).sort(dim=1, stable=True).indices
        labels[rows] = order[:, :top]


def codebook_sums(x, labels, total, size, k):
    """GPU form of `codebook_sums`: inputs, outputs, scalars."""
    if len(x) and not (int(labels.min()) >= 0 and int(labels.max()) < k):
        raise ValueError(f"codebook_sums: labels must lie within 0 and {k - 1}")
    total.zero_(), size.zero_()
    codes = torch.arange(k, device=x.device)
    for first in range(0, len(x), each := max(TILE // max(k, 1), 1)):
        rows = slice(first, first + each)
        # a product, since sums by index are in no order on a GPU
        own = (labels[rows] == codes[:, None]).double()
        total += own @ x[rows].double()
        size += own.sum(1)
