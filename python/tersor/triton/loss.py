"""Losses of pairs on a GPU, composed of torch's own products, which is where the time goes. The rule: a block of rows of x at
a time, so that no array of N·M numbers is made, and losses of the negatives alone, as on the CPU.

Sums are float32, float64 for float64 data.
"""

from typing import Any

import torch

#: rows of x that meet all of y at once
_ROWS = 1024


def _units(x: torch.Tensor, cosine: bool) -> tuple[torch.Tensor, Any]:
    """Rows or their directions, and one over the lengths, 0 of a row of zeros."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if not cosine:
        return x, 1.0
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    per = torch.where(length > 0, 1 / length, 0)
    return x * per, per


def _blocks(a: torch.Tensor, b: torch.Tensor, temperature: torch.Tensor) -> Any:
    """For each block of rows: its bounds, its logits, L and t of its rows, and where its positives are."""
    n = a.shape[-2]
    for first in range(0, n, _ROWS):
        part = slice(first, min(n, first + _ROWS))
        u = a[..., part, :] @ b.mT / temperature
        row = torch.arange(u.shape[-2], device=u.device)
        own = u[..., row, row + first]
        rest = u.clone()
        rest[..., row, row + first] = -torch.inf
        sums = rest.logsumexp(-1)
        yield part, u, sums, sums - own, (..., row, row + first)


def info_nce(x: torch.Tensor, y: torch.Tensor, temperature: torch.Tensor, loss: torch.Tensor, cosine: bool) -> None:
    for part, _, _, t, _ in _blocks(_units(x, cosine)[0], _units(y, cosine)[0], temperature):
        loss[..., part] = torch.logaddexp(t, torch.zeros_like(t))


def info_nce_bwd(
    g: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    temperature: torch.Tensor,
    dx: torch.Tensor,
    dy: torch.Tensor,
    dtemperature: torch.Tensor,
    cosine: bool,
) -> None:
    (a, per_x), (b, per_y) = _units(x, cosine), _units(y, cosine)
    to_y, turn = torch.zeros_like(b), torch.zeros((), dtype=b.dtype, device=b.device)
    to_x = torch.zeros_like(a)
    for part, u, sums, t, own in _blocks(a, b, temperature):
        share = g[..., part] * t.sigmoid()
        pull = share[..., None] * (u - sums[..., None]).exp()
        pull[own] = -share
        to_x[..., part, :] = pull @ b
        to_y += pull.mT @ a[..., part, :]
        turn -= (pull * u).sum()
    for to, units, per, into in ((to_x, a, per_x, dx), (to_y, b, per_y, dy)):
        if cosine:
            to = (to - (to * units).sum(-1, keepdim=True) * units) * per
        into.copy_(to / temperature)
    dtemperature.copy_((turn / temperature).reshape(dtemperature.shape))
