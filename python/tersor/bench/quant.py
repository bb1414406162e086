"""Quantizers against the formula in torch, eager and compiled, and widths against an integer program. The one rule: every
contender gives the same; what is quantized are float32 weights of 4096×4096."""

import functools

import numpy as np

from tersor import quant
from tersor.bench import Case, Target
from tersor.quant._grids import NUMBERS

N = 4096


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


def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, N)).astype(np.float32)


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


def torch_log_sqrt2(x, scale):
    import torch

    q = torch.round(-2 * torch.log2(x / scale))
    held = q.clamp(0, 15)
    y = scale * torch.exp2(-torch.ceil(held / 2)) * (1 + (held % 2) * (2**0.5 - 1))
    return torch.where(q >= 16, torch.zeros_like(y), y)


def attention() -> np.ndarray:
    """Rows after softmax, and the largest of them."""
    x = np.exp(weights())
    return x / x.sum(-1, keepdims=True, dtype=np.float32)


def log_sqrt2() -> Case:
    import torch

    x = attention()
    s, out = x.max(), np.empty_like(x)
    t, scale = torch.from_numpy(x), torch.tensor(s)
    codes = quant.quantize_log(x, s)
    compiled = torch.compile(torch_log_sqrt2)
    return Case(
        f"fake_quantize_log √2 4 bits f32 {N}×{N}",
        {
            "tersor out=": lambda: quant.fake_quantize_log(x, s, out=out),
            "tersor": lambda: quant.fake_quantize_log(x, s),
            "tersor torch": lambda: quant.fake_quantize_log(t, scale),
            "torch.compile": lambda: compiled(t, scale),
            "torch eager": lambda: torch_log_sqrt2(t, scale),
            "(to codes)": lambda: quant.quantize_log(x, s),
            "(and back)": lambda: quant.dequantize_log(codes, s, out=out),
        },
        traffic=2 * x.nbytes,
        targets=[Target("tersor out=", ("copy",), 1.2), Target("tersor torch", ("torch.compile",), 1.0)],
    )


def torch_fixed_point(x, wl: int, fl: int):
    import torch

    q = torch.floor(x * 2.0**fl + torch.rand_like(x)).clamp(-(2 ** (wl - 1)), 2 ** (wl - 1) - 1)
    return q * 2.0**-fl


def fixed_point_words() -> Case:
    import torch

    w = weights()
    t, out = torch.from_numpy(w), np.empty_like(w)
    compiled = torch.compile(torch_fixed_point)
    return Case(
        f"fixed_point 8.4 f32 {N}×{N}",
        {
            "tersor out=": lambda: quant.fixed_point(w, 8, 4, out=out),
            "tersor torch": lambda: quant.fixed_point(t, 8, 4),
            "torch.compile": lambda: compiled(t, 8, 4),
            "torch eager": lambda: torch_fixed_point(t, 8, 4),
            "(half even)": lambda: quant.fixed_point(w, 8, 4, rounding="half_even", out=out),
        },
        traffic=2 * w.nbytes,
        targets=[Target("tersor torch", ("torch eager",), 1.0)],
    )


def torch_shiftmax(q, s: float):
    """As I-ViT simulates it, in float32."""
    import torch

    x = q - q.amax(-1, keepdim=True)
    x = x + torch.floor(x / 2) - torch.floor(x / 16)
    x0 = torch.floor(torch.tensor(-1.0 / s))
    x = torch.maximum(x, 15 * x0)
    p = torch.floor(x / x0)
    e = torch.floor(((x - x0 * p) / 2 - x0) * 2 ** (15 - p)).clamp(min=0)
    factor = torch.floor((2**31 - 1) / e.sum(-1, keepdim=True).clamp(max=2**31 - 1))
    return torch.floor(e * factor / 2**24)


def integer_softmax() -> Case:
    import torch

    q = np.random.default_rng(0).integers(-128, 128, (64 * 12 * 197, 197)).astype(np.int8)
    t = torch.from_numpy(q)
    wide = t.float()
    compiled = torch.compile(torch_shiftmax)
    return Case(
        "shiftmax int8 64×12×197×197",
        {
            "tersor": lambda: quant.shiftmax(q, 0.05),
            "tersor torch": lambda: quant.shiftmax(t, 0.05),
            "torch.compile float32": lambda: compiled(wide, 0.05),
            "torch eager float32": lambda: torch_shiftmax(wide, 0.05),
        },
        traffic=5 * q.nbytes,
        targets=[Target("tersor torch", ("torch eager float32",), 1.0)],
    )


def torch_assign(x, c):
    return ((x * x).sum(-1, keepdim=True) - 2 * x @ c.T + (c * c).sum(-1)).argmin(-1)


def codebook() -> Case:
    import torch

    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(1 << 18, 8)).astype(np.float32), rng.normal(size=(256, 8)).astype(np.float32)
    t, book = torch.from_numpy(x), torch.from_numpy(c)
    compiled = torch.compile(torch_assign)
    return Case(
        f"codebook_assign 256 codes f32 {1 << 18}×8",
        {
            "tersor": lambda: quant.codebook_assign(x, c),
            "tersor torch": lambda: quant.codebook_assign(t, book),
            "torch.compile": lambda: compiled(t, book),
            "torch eager": lambda: torch_assign(t, book),
            "torch cdist": lambda: torch.cdist(t, book).argmin(-1),
        },
        traffic=x.nbytes + 8 * len(x),
        targets=[Target("tersor torch", ("torch cdist",), 1.0)],
    )


def codebook_of_numbers() -> Case:
    import torch

    x = weights()[:256].reshape(-1, 1)
    c = np.sort(np.random.default_rng(1).normal(size=(256, 1)).astype(np.float32), 0)
    t = torch.from_numpy(x)
    edges = torch.from_numpy((c[1:, 0] + c[:-1, 0]) / 2)
    return Case(
        f"codebook_assign 256 codes f32 {x.size}×1",
        {
            "tersor": lambda: quant.codebook_assign(x, c),
            "torch bucketize": lambda: torch.bucketize(t, edges),
        },
        traffic=x.nbytes + 8 * x.size,
        targets=[Target("tersor", ("torch bucketize",), 1.0)],
    )


def groups_of_numbers() -> Case:
    x = np.random.default_rng(0).normal(size=200_000)

    def scikit():
        from sklearn.cluster import KMeans

        return KMeans(10, n_init=1, random_state=0).fit(x[:, None])

    return Case(
        "kmeans_1d 10 groups f64 200000",
        {"tersor": lambda: quant.kmeans_1d(x, 10), "scikit-learn (not the optimum)": scikit},
        traffic=2 * x.nbytes,
        targets=[Target("tersor", ("scikit-learn (not the optimum)",), 0.5)],
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
    bit_allocate,
    gptq_int4_g128,
    encode_nf4,
    decode_nf4,
    encode_blocks,
    float_encode_e4m3,
    log_sqrt2,
    fixed_point_words,
    integer_softmax,
    codebook,
    codebook_of_numbers,
    groups_of_numbers,
]

HEADLINE = encode_int8_row
