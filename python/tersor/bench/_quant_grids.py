"""Grids that are not affine, and codebooks, beside what torch, NumPy and scikit-learn do. The rule: of the same bytes, in one
process on one thread."""

import numpy as np

from tersor import quant
from tersor.bench import Case, Target

N = 4096


def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, N)).astype(np.float32)


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
