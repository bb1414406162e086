"""Quantizers against the formula in torch, eager and compiled, and widths against an integer program. The one rule: every
contender gives the same; what is quantized are float32 weights of 4096×4096."""

import functools

import numpy as np

from tersor import quant
from tersor.bench import Case, Target
from tersor.bench._quant_grids import (
    N,
    codebook,
    codebook_of_numbers,
    fixed_point_words,
    groups_of_numbers,
    integer_softmax,
    log_sqrt2,
    weights,
)
from tersor.bench._quant_ranges import aciq_row, entropy_tensor, mse_g128, percentile_tensor
from tersor.quant._grids import NUMBERS


def torch_int8_row(x):
    import torch

    scale = x.abs().amax(-1, keepdim=True) / 127
    return torch.round(x / scale).clamp(-127, 127).to(torch.int8), scale


def torch_int4_g128(x):
    import torch

    groups = x.unflatten(-1, (-1, 128))
    scale = groups.abs().amax(-1, keepdim=True) / 7
    codes = (torch.round(groups / scale).clamp(-7, 7) + 8).to(torch.uint8).flatten(-2)
    return codes[..., ::2] | (codes[..., 1::2] << 4), scale.squeeze(-1)


def torch_fake_quantize(x, scale, lo: int, hi: int):
    import torch

    return torch.round(x / scale).clamp(lo, hi) * scale


def encode_int8_row() -> Case:
    import torch

    w = weights()
    t = torch.from_numpy(w)
    out = quant.encode(w, "int8-row")
    compiled = torch.compile(torch_int8_row)
    return Case(
        f"encode int8-row f32 {N}×{N}",
        {
            "tersor out=": lambda: quant.encode(w, "int8-row", out=out),
            "tersor out= nan=zero": lambda: quant.encode(w, "int8-row", nan="zero", out=out),
            "tersor": lambda: quant.encode(w, "int8-row"),
            "tersor torch": lambda: quant.encode(t, "int8-row"),
            "torch.compile": lambda: compiled(t),
            "torch eager": lambda: torch_int8_row(t),
        },
        traffic=w.nbytes + w.size,
        targets=[Target("tersor out=", ("copy",), 1.3), Target("tersor torch", ("torch.compile",), 1.0)],
    )


def encode_int4_g128() -> Case:
    import torch

    w = weights()
    t = torch.from_numpy(w)
    out = quant.encode(w, "int4-g128")
    compiled = torch.compile(torch_int4_g128)
    return Case(
        f"encode int4-g128 f32 {N}×{N}",
        {
            "tersor out=": lambda: quant.encode(w, "int4-g128", out=out),
            "tersor out= nan=zero": lambda: quant.encode(w, "int4-g128", nan="zero", out=out),
            "tersor": lambda: quant.encode(w, "int4-g128"),
            "tersor torch": lambda: quant.encode(t, "int4-g128"),
            "torch.compile": lambda: compiled(t),
            "torch eager": lambda: torch_int4_g128(t),
        },
        traffic=w.nbytes + w.size // 2,
        targets=[Target("tersor out=", ("copy",), 1.6), Target("tersor torch", ("torch.compile",), 1.0)],
    )


def fake_quantize_row() -> Case:
    import torch

    w = weights()
    out = np.empty_like(w)
    scale, _ = quant.choose_qparams(w, "int8", axis=0)
    t, s = torch.from_numpy(w), torch.from_numpy(scale)
    compiled = torch.compile(torch_fake_quantize)
    return Case(
        f"fake_quantize int8 per row f32 {N}×{N}",
        {
            "tersor out=": lambda: quant.fake_quantize(w, scale, None, "int8", out=out),
            "tersor": lambda: quant.fake_quantize(w, scale, None, "int8"),
            "tersor torch": lambda: quant.fake_quantize(t, s, None, "int8"),
            "torch.compile": lambda: compiled(t, s, -127, 127),
            "torch eager": lambda: torch_fake_quantize(t, s, -127, 127),
            "torch fake_quantize": lambda: torch.fake_quantize_per_channel_affine(
                t, s[:, 0], torch.zeros(N, dtype=torch.int32), 0, -127, 127
            ),
        },
        traffic=2 * w.nbytes,
        targets=[Target("tersor out=", ("copy",), 1.1), Target("tersor torch", ("torch.compile",), 1.0)],
    )


def integer_program(loss, cost, budget):
    """The least loss by CBC."""
    import pulp

    layers, levels = loss.shape
    program = pulp.LpProblem("widths", pulp.LpMinimize)
    x = [[pulp.LpVariable(f"x{i}_{k}", cat="Binary") for k in range(levels)] for i in range(layers)]
    every = [(i, k) for i in range(layers) for k in range(levels)]
    program += pulp.lpSum(loss[i, k] * x[i][k] for i, k in every)
    program += pulp.lpSum(cost[i, k] * x[i][k] for i, k in every) <= budget
    for one in x:
        program += pulp.lpSum(one) == 1
    program.solve(pulp.PULP_CBC_CMD(msg=False))
    return pulp.value(program.objective)


def bit_allocate() -> Case:
    rng, bits = np.random.default_rng(0), np.arange(2, 8)
    loss = rng.lognormal(0, 2, (300, 1)) * 4.0**-bits * rng.uniform(0.7, 1.3, (300, 6))
    cost = rng.uniform(1e4, 1e7, (300, 1)) * (bits + rng.uniform(0, 0.3, (300, 1)))
    budget = 2 * cost[:, 0].sum()
    return Case(
        "widths of 300 layers of 6 levels",
        {
            "tersor": lambda: quant.bit_allocate(loss, cost, budget),
            "tersor lagrangian": lambda: quant.bit_allocate(loss, cost, budget, method="lagrangian"),
            "PuLP + CBC": lambda: integer_program(loss, cost, budget),
        },
        targets=[Target("tersor", ("PuLP + CBC",), 1 / 15)],
    )


def torch_nf4(x, middles):
    import torch

    blocks = x.unflatten(-1, (-1, 64))
    scale = blocks.abs().amax(-1, keepdim=True)
    codes = torch.bucketize(blocks / scale, middles, out_int32=True).to(torch.uint8).flatten(-2)
    return codes[..., ::2] | (codes[..., 1::2] << 4), scale.squeeze(-1)


def torch_nf4_back(data, scale, table):
    import torch

    codes = torch.stack([data & 15, data >> 4], -1).flatten(-2)
    return (table[codes.int()].unflatten(-1, (-1, 64)) * scale.unsqueeze(-1)).flatten(-2)


def encode_nf4() -> Case:
    import torch

    w = weights()
    t, table = torch.from_numpy(w), torch.from_numpy(NUMBERS["nf4"])
    middles = (table[1:] + table[:-1]) / 2
    out = quant.encode(w, "nf4")
    return Case(
        f"encode nf4 f32 {N}×{N}",
        {
            "tersor out=": lambda: quant.encode(w, "nf4", out=out),
            "tersor out= nan=zero": lambda: quant.encode(w, "nf4", nan="zero", out=out),
            "tersor": lambda: quant.encode(w, "nf4"),
            "torch eager": lambda: torch_nf4(t, middles),
        },
        traffic=w.nbytes + w.size // 2 + w.size // 16,
        targets=[Target("tersor out= nan=zero", ("copy",), 2.3)],
    )


def decode_nf4() -> Case:
    import torch

    w = weights()
    e, out, table = quant.encode(w, "nf4"), np.empty_like(w), torch.from_numpy(NUMBERS["nf4"])
    data, scale = torch.from_numpy(e.data), torch.from_numpy(e.scale)
    return Case(
        f"decode nf4 f32 {N}×{N}",
        {
            "tersor out=": lambda: quant.decode(e, out=out),
            "tersor": lambda: quant.decode(e),
            "torch eager": lambda: torch_nf4_back(data, scale, table),
        },
        traffic=w.nbytes + w.size // 2 + w.size // 16,
        targets=[Target("tersor out=", ("copy",), 1.5)],
    )


def encode_blocks() -> Case:
    w = weights()
    made = {s: quant.encode(w, s) for s in ("mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "nvfp4", "q4_0", "q8_0", "gguf_mxfp4")}
    return Case(
        f"encode in blocks f32 {N}×{N}",
        {s: functools.partial(quant.encode, w, s, nan="zero", out=e) for s, e in made.items()},
        traffic=w.nbytes + w.size // 2,
        targets=[Target("mxfp4", ("copy",), 2.3)],
    )


def torch_words(q):
    """Eight codes of 4 bits a word, down the first axis: what packers of GPTQ do."""
    import torch

    places = torch.arange(0, 32, 4, dtype=torch.int32)
    return (q.to(torch.int32).unflatten(0, (-1, 8)) << places[:, None]).sum(1, dtype=torch.int32)


def pack_words() -> Case:
    import torch

    q = np.random.default_rng(0).integers(0, 16, (N, N)).astype(np.uint8)
    t = torch.from_numpy(q)
    ct = quant.pack(q, 4, "ct_dense")
    return Case(
        f"pack 4 bits {N}×{N}",
        {
            "tersor gptq_v2": lambda: quant.pack(q, 4, "gptq_v2"),
            "tersor ct_dense": lambda: quant.pack(q, 4, "ct_dense"),
            "tersor awq": lambda: quant.pack(q, 4, "awq"),
            "tersor repack ct to gptq": lambda: quant.repack(ct, 4, q.shape, "ct_dense", "gptq_v2"),
            "torch eager gptq": lambda: torch_words(t),
        },
        traffic=q.nbytes * 3 // 2,
        targets=[Target("tersor ct_dense", ("torch eager gptq",), 0.5)],
    )


def float_encode_e4m3() -> Case:
    import torch

    w = weights()
    t, out = torch.from_numpy(w), np.empty(w.shape, np.uint8)
    return Case(
        f"float_encode e4m3 f32 {N}×{N}",
        {
            "tersor out= nan=zero": lambda: quant.float_encode(w, "e4m3", nan="zero", out=out),
            "tersor": lambda: quant.float_encode(w, "e4m3"),
            "torch cast": lambda: t.to(torch.float8_e4m3fn),
        },
        traffic=w.nbytes + w.size,
        targets=[Target("tersor out= nan=zero", ("copy",), 1.5)],
    )


def torch_gptq(w, h, scale, group, block=128):
    """The usual loop: the inverse factored, columns one after another, what follows told of a block at a time."""
    import torch

    w, h, k = w.clone(), h.clone(), w.shape[1]
    h.diagonal().add_(0.01 * h.diagonal().mean())
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    made = torch.empty_like(w)
    for at in range(0, k, block):
        own, errors, u = w[:, at : at + block].clone(), torch.empty_like(w[:, at : at + block]), upper[at : at + block]
        for i in range(own.shape[1]):
            s = scale[:, (at + i) // group]
            made[:, at + i] = torch.clamp(torch.round(own[:, i] / s), -8, 7) * s
            errors[:, i] = (own[:, i] - made[:, at + i]) / u[i, at + i]
            own[:, i:] -= errors[:, i, None] * u[i, at + i : at + own.shape[1]]
        w[:, at + block :] -= errors @ u[:, at + block :]
    return made


def gptq_int4_g128() -> Case:
    import torch

    w, x = torch.from_numpy(weights()), torch.from_numpy(np.random.default_rng(1).normal(size=(2 * N, N)))
    h = quant.hessian(x.float() + 0.5 * x[:, :1].float())
    scale, _ = quant.choose_qparams(w, "int4", group=128)
    single = h.float()
    return Case(
        f"gptq int4-g128 f32 {N}×{N}",
        {
            "tersor": lambda: quant.gptq(w, h, "int4", scale=scale),
            "torch in blocks": lambda: torch_gptq(w, single, scale, 128),
        },
        targets=[Target("tersor", ("torch in blocks",), 1 / 4)],
    )


CASES = [
    encode_int8_row,
    encode_int4_g128,
    fake_quantize_row,
    mse_g128,
    percentile_tensor,
    aciq_row,
    entropy_tensor,
    bit_allocate,
    gptq_int4_g128,
    encode_nf4,
    decode_nf4,
    encode_blocks,
    pack_words,
    float_encode_e4m3,
    log_sqrt2,
    fixed_point_words,
    integer_softmax,
    codebook,
    codebook_of_numbers,
    groups_of_numbers,
]

HEADLINE = encode_int8_row
