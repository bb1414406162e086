"""Where ranges end, beside what torch and NumPy say. The rule: of the same bytes, in one process on one thread."""

import numpy as np

from tersor import quant
from tersor.bench import Case, Target


def numbers(n: int = 1024, k: int = 4096) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, k), np.float32)


def torch_mse(x, group: int, shares: int):
    """The share of the range with the least sum of squares, as calibration loops search for it."""
    import torch

    rows = x.reshape(-1, group)
    whole = rows.abs().amax(1, keepdim=True) / 7
    best, least = whole, torch.full_like(whole, torch.inf)
    for i in range(shares):
        s = whole * (1 - 0.025 * i)
        error = (((rows / s).round().clamp(-8, 7) * s - rows) ** 2).sum(1, keepdim=True)
        best, least = torch.where(error < least, s, best), torch.minimum(error, least)
    return best


def mse_g128() -> Case:
    import torch

    x = numbers()
    t = torch.from_numpy(x)
    return Case(
        "choose_qparams int4 g128 mse, 20 shares, f32 1024×4096",
        {
            "tersor": lambda: quant.choose_qparams(x, "int4", group=128, method="mse"),
            "tersor norm 2.4": lambda: quant.choose_qparams(x, "int4", group=128, method="mse", norm=2.4),
            "torch eager": lambda: torch_mse(t, 128, 20),
        },
        traffic=2 * x.nbytes,
        targets=[Target("tersor", ("torch eager",), 0.1)],
    )


def percentile_tensor() -> Case:
    import torch

    x = np.abs(numbers())
    t = torch.from_numpy(x).reshape(-1)
    return Case(
        "choose_qparams percentile f32 4 M numbers",
        {
            "tersor": lambda: quant.choose_qparams(x, method="percentile", percentile=99.9),
            "np.percentile": lambda: np.percentile(x, 99.9),
            "torch.quantile": lambda: torch.quantile(t, 0.999),
        },
        traffic=3 * x.nbytes,
        targets=[Target("tersor", ("np.percentile",), 1.0)],
    )


def aciq_row() -> Case:
    import torch

    x = numbers()
    t = torch.from_numpy(x)
    return Case(
        "choose_qparams int4 per row aciq f32 1024×4096",
        {
            "tersor": lambda: quant.choose_qparams(x, "int4", axis=0, method="aciq"),
            "torch": lambda: (t.amin(1), t.amax(1), t.mean(1), t.std(1)),
        },
        traffic=4 * x.nbytes,
        targets=[Target("tersor", ("torch",), 1.0)],
    )


def entropy_tensor() -> Case:
    x = numbers()
    return Case(
        "choose_qparams int8 entropy f32 4 M numbers",
        {
            "tersor": lambda: quant.choose_qparams(x, method="entropy"),
            "np.histogram alone": lambda: np.histogram(np.abs(x), 2048),
        },
        traffic=3 * x.nbytes,
        targets=[Target("tersor", ("np.histogram alone",), 1.0)],
    )
