"""Random projections against scikit-learn and a stored dense matrix; the Walsh–Hadamard transform against its copy limit.
The one rule: peers get their matrix before the clock starts, we never have one."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tersor import project
from tersor.bench import Case, Target, called


def sparse_10000() -> Case:
    from sklearn.random_projection import SparseRandomProjection

    n, d, k = 10000, 10000, 256
    x = np.random.default_rng(0).standard_normal((n, d), np.float32)
    ours = project.Projection(d, k, kind="sparse")
    peer = SparseRandomProjection(k, random_state=0).fit(x)
    stored = np.ascontiguousarray(np.asarray(peer.components_.todense(), np.float32).T)
    out = np.empty((n, k), np.float32)
    return Case(
        f"Projection sparse f32 {n}×{d} to {k}",
        {
            "tersor": lambda: ours(x),
            "scikit-learn": lambda: peer.transform(x),
            "dense product": lambda: np.matmul(x, stored, out=out),
        },
        traffic=x.nbytes + out.nbytes,
        targets=[Target("tersor", ("scikit-learn",), 1 / 12), Target("tersor", ("dense product",), 1 / 8)],
    )


def fwht_4096() -> Case:
    x = np.random.default_rng(0).standard_normal((4096, 4096), np.float32)
    out = np.empty_like(x)
    return Case(
        "fwht f32 4096 rows of 4096",
        {
            "tersor out=": lambda: project.fwht(x, out=out),
            "tersor": lambda: project.fwht(x),
            "numpy steps": lambda: numpy_fwht(x),
        },
        traffic=2 * x.nbytes,
        targets=[Target("tersor out=", ("copy",), 1.4)],
    )


def numpy_fwht(x: np.ndarray) -> np.ndarray:
    d, h = x.shape[-1], 1
    while h < d:
        pairs = x.reshape(*x.shape[:-1], d // (2 * h), 2, h)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = np.stack([a + b, a - b], axis=-2).reshape(x.shape)
        h *= 2
    return x


def gaussian_10000() -> Case:
    from sklearn.random_projection import GaussianRandomProjection

    n, d, k = 4000, 10000, 256
    x = np.random.default_rng(0).standard_normal((n, d), np.float32)
    ours = project.Projection(d, k)
    peer = GaussianRandomProjection(k, random_state=0).fit(x)
    stored, out = np.ascontiguousarray(peer.components_.T, np.float32), np.empty((n, k), np.float32)
    return Case(
        f"Projection gaussian f32 {n}×{d} to {k}",
        {
            "tersor": lambda: ours(x),
            "scikit-learn": lambda: peer.transform(x),
            "dense product": lambda: np.matmul(x, stored, out=out),
        },
        traffic=x.nbytes + out.nbytes,
        targets=[Target("tersor", ("dense product",), 1.25)],
    )


def sketches() -> Case:
    from scipy.linalg import clarkson_woodruff_transform as cwt

    n, d, k = 4000, 8192, 256
    x = np.random.default_rng(0).standard_normal((n, d), np.float32)
    kinds = {kind: project.Projection(d, k, kind) for kind in ("countsketch", "osnap", "srht", "spinner", "fastfood")}
    calls = {f"tersor {kind}": lambda p=p: p(x) for kind, p in kinds.items()}
    return Case(
        f"sketches f32 {n}×{d} to {k}",
        {**calls, "scipy cwt": lambda: cwt(x.T, k, seed=0)},
        traffic=x.nbytes,
        targets=[
            Target("tersor countsketch", ("copy",), 2.0),
            Target("tersor countsketch", ("scipy cwt",), 1.0),
            Target("tersor srht", ("copy",), 4.0),
        ],
    )


def _port(d: int, total: int) -> Callable[[Any], Any]:
    """Fastfood as it is published for torch: B, Π and G are kept, and both transforms have the whole length."""
    import torch

    size = 1 << (total - 1).bit_length()
    generator = torch.Generator().manual_seed(0)
    b = torch.randint(0, 2, (size,), generator=generator).float() * 2 - 1
    places, g = torch.randperm(size, generator=generator), torch.randn(size, generator=generator)
    divisor = float((size * g.square().sum() * total / size).sqrt())

    def transform(x: torch.Tensor) -> torch.Tensor:
        h = 1
        while h < size:
            x = x.view(-1, 2, h)
            x = torch.stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 1]], 1)
            h *= 2
        return x.reshape(size)

    def port(v: torch.Tensor) -> torch.Tensor:
        x = transform(b * torch.nn.functional.pad(v, (0, size - d)))
        return transform(g * x[places])[:total] / divisor

    return port


def fastfood_long() -> Case:
    """The offset of subspace training."""
    import torch

    d, total = 1000, 10**6
    v, port = torch.randn(d), _port(d, total)
    ours = {g: project.Projection(d, total, "fastfood", g=g) for g in ("gaussian", "rademacher")}
    return Case(
        f"fastfood f32 {d} to {total}",
        {
            "tersor gaussian": lambda: ours["gaussian"](v),
            "tersor ±1": lambda: ours["rademacher"](v),
            "torch port": lambda: port(v),
        },
        traffic=4 << 20,
        targets=[Target("tersor gaussian", ("torch port",), 1 / 40)],
        memory=["tersor gaussian", "torch port"],
        items=total,
    )


def fastfood_longest() -> Case:
    """Of 10^8 we alone are asked: the port, whose work grows faster than its length, takes 2^24 numbers, an eighth of 2^27."""
    import torch

    d = 1000
    v, port = torch.randn(d), _port(d, 10**7)
    ours = {
        (t, g): project.Projection(d, t, "fastfood", g=g) for t in (10**7, 10**8) for g in ("gaussian", "rademacher")
    }
    return Case(
        f"fastfood f32 {d} to 10^8, the port to 10^7",
        {
            "tersor gaussian": lambda: ours[10**8, "gaussian"](v),
            "tersor ±1": lambda: ours[10**8, "rademacher"](v),
            "tersor gaussian, 10^7": lambda: ours[10**7, "gaussian"](v),
            "torch port, 10^7": lambda: port(v),
        },
        traffic=4 << 27,
        targets=[
            Target("tersor gaussian", ("torch port, 10^7",), 8 / 40),
            Target("tersor gaussian, 10^7", ("torch port, 10^7",), 1 / 40),
        ],
        memory=["tersor gaussian"],
        items=10**8,
    )


def _fwht(power: int, limit: float) -> Callable[[], Case]:
    """2^22 numbers in rows of 2^power: up to 2^18 a row stays in the second cache."""

    def case() -> Case:
        x = np.random.default_rng(0).standard_normal((1 << (22 - power), 1 << power), np.float32)
        out = np.empty_like(x)
        return Case(
            f"fwht f32 {len(x)} rows of 2^{power}",
            {"tersor out=": lambda: project.fwht(x, out=out), "numpy steps": lambda: numpy_fwht(x)},
            traffic=2 * x.nbytes,
            targets=[Target("tersor out=", ("copy",), limit)],
        )

    return called(f"fwht_{power}", case)


def features() -> Case:
    from sklearn.kernel_approximation import PolynomialCountSketch, RBFSampler

    n, d, k = 2000, 512, 4096
    x = np.random.default_rng(0).standard_normal((n, d), np.float32)
    rbf = RBFSampler(gamma=0.1, n_components=k, random_state=0).fit(x)
    poly = PolynomialCountSketch(degree=2, n_components=k, random_state=0).fit(x)
    return Case(
        f"features f32 {n}×{d} to {k}",
        {
            "tersor rff": lambda: project.rff(x, k, 0.1),
            "tersor rff orthogonal": lambda: project.rff(x, k, 0.1, "orthogonal"),
            "tersor tensorsketch": lambda: project.tensorsketch(x, k),
            "scikit-learn RBFSampler": lambda: rbf.transform(x),
            "scikit-learn PolynomialCountSketch": lambda: poly.transform(x),
        },
        traffic=x.nbytes + 4 * n * k,
        targets=[
            Target("tersor rff", ("scikit-learn RBFSampler",), 1.1),
            Target("tersor tensorsketch", ("scikit-learn PolynomialCountSketch",), 1 / 4),
        ],
    )


CASES = [
    sparse_10000, gaussian_10000, sketches, fastfood_long, fwht_4096, _fwht(18, 1.4), _fwht(20, 3.0), _fwht(22, 3.0), features
]  # fmt: skip

#: with what takes minutes and some GB
ALL = [*CASES, fastfood_longest]

HEADLINE = sparse_10000
