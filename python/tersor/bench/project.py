"""Random projections against scikit-learn and a stored dense matrix; the Walsh–Hadamard transform against its copy limit.
The one rule: peers get their matrix before the clock starts, we never have one."""

import numpy as np

from tersor import project
from tersor.bench import Case, Target


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
        targets=[Target("tersor", ("scikit-learn",), 1 / 8), Target("tersor", ("dense product",), 1 / 8)],
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
        targets=[Target("tersor out=", ("copy",), 2.0)],
    )


def numpy_fwht(x: np.ndarray) -> np.ndarray:
    d, h = x.shape[-1], 1
    while h < d:
        pairs = x.reshape(*x.shape[:-1], d // (2 * h), 2, h)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = np.stack([a + b, a - b], axis=-2).reshape(x.shape)
        h *= 2
    return x


CASES = [sparse_10000, fwht_4096]

HEADLINE = sparse_10000
