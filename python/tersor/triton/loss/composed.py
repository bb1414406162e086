"""Losses of pairs on a GPU, composed of torch's own products, which is where the time goes. The rule: 1024
rows of x meet all of y at a time, so that of N·M numbers no more than 1024·M are there at once, and losses are made of the
negatives alone, as on the CPU.

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
    # by a power of two the squares are numbers, whatever the rows are
    top = x.abs().amax(-1, keepdim=True) if x.shape[-1] else x.new_zeros(*x.shape[:-1], 1)
    size = torch.where((top > 0) & top.isfinite(), torch.exp2(top.log2().floor()), 1)
    x = x / size
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    per = torch.where(length > 0, 1 / length, 0)
    return x * per, per / size


def _checked(temperature: torch.Tensor) -> torch.Tensor:
    """The temperature, if it is finite and positive; of another NaN comes on the GPU, which would have to be waited for."""
    fine = (temperature > 0) & temperature.isfinite()
    if temperature.device.type == "cpu" and not fine:
        raise ValueError(f"info_nce: temperature must be finite and positive, got {float(temperature)}")
    return torch.where(fine, temperature, torch.nan)


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
    for part, _, _, t, _ in _blocks(_units(x, cosine)[0], _units(y, cosine)[0], _checked(temperature)):
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
    needs: int,
) -> None:
    (a, per_x), (b, per_y), temperature = _units(x, cosine), _units(y, cosine), _checked(temperature)
    to_y, turn = torch.zeros_like(b), torch.zeros((), dtype=b.dtype, device=b.device)
    to_x = torch.zeros_like(a)
    for part, u, sums, t, own in _blocks(a, b, temperature):
        share = g[..., part] * t.sigmoid()
        pull = share[..., None] * (u - sums[..., None]).exp()
        pull[own] = -share
        if needs & 1:
            to_x[..., part, :] = pull @ b
        if needs & 2:
            to_y += pull.mT @ a[..., part, :]
        turn -= (pull * u).sum()
    for bit, to, units, per, into in ((1, to_x, a, per_x, dx), (2, to_y, b, per_y, dy)):
        if not needs & bit:
            continue
        if cosine:
            to = (to - (to * units).sum(-1, keepdim=True) * units) * per
        into.copy_(to / temperature)
    if needs & 4:
        dtemperature.copy_((turn / temperature).reshape(dtemperature.shape))
