"""Codes side by side on a GPU. The one rule: torch's own shifts and sums of single bits, any number of them, so there is no
kernel."""

import torch

from tersor._bits import shifted, summed


def pack(q, w, bits, words):
    """`pack`: inputs, outputs, scalars."""
    u = (q.to(torch.int16) + (1 << bits - 1)).to(torch.uint8) if q.dtype == torch.int8 else q
    ones = (u[..., None] >> torch.arange(bits, dtype=torch.uint8, device=q.device)) & 1
    ones = ones.reshape(*q.shape[:-1], q.shape[-1] * bits)
    ones = torch.nn.functional.pad(ones, (0, -ones.shape[-1] % (32 if words else 8)))
    octets = summed(ones).reshape(*q.shape[:-1], ones.shape[-1] // 8)
    w.copy_(octets.view(torch.int32) if words else octets)


def unpack(w, q, bits, last, signed):
    """`unpack`: inputs, outputs, scalars."""
    octets = w.contiguous().view(torch.uint8)
    ones = shifted(octets.reshape(-1), 8 * octets.numel()).reshape(*octets.shape[:-1], 8 * octets.shape[-1])
    ones = ones[..., : last * bits].reshape(*w.shape[:-1], last, bits).to(torch.uint8)
    u = (ones << torch.arange(bits, dtype=torch.uint8, device=w.device)).sum(-1, dtype=torch.uint8)
    q.copy_(u.to(torch.int16) - (1 << bits - 1) if signed else u)
