"""Metrics against what they are otherwise composed of. The one rule: a peer computes the same number, and functions of other
libraries are called as their pages say."""

import numpy as np

from tersor import metrics, reduce
from tersor.bench import Call, Case, Target, peer


def binned(p: np.ndarray, y: np.ndarray) -> float:
    """The usual few lines: edges by rounding a product."""
    bins = np.minimum((p * 15).astype(np.int64), 14)
    return float(np.abs(np.bincount(bins, y, 15) - np.bincount(bins, p, 15)).sum() / len(p))


def _torchmetrics(p: np.ndarray, y: np.ndarray) -> Call:
    def make() -> Call:
        import torch
        from torchmetrics.functional import classification

        probs, target = torch.from_numpy(p), torch.from_numpy(y)
        return lambda: classification.binary_calibration_error(probs, target, n_bins=15)

    return peer(make)


def calibration_1m() -> Case:
    rng = np.random.default_rng(0)
    p = rng.random(1_000_000, np.float32)
    y = (rng.random(len(p)) < p).astype(np.int64)
    return Case(
        "calibration_error f32 1M, 15 bins",
        {
            "tersor": lambda: metrics.calibration_error(p, y),
            "NumPy bincount": lambda: binned(p, y),
            "torchmetrics": _torchmetrics(p, y),
        },
        traffic=12 * len(p),
        targets=[Target("tersor", ("NumPy bincount",), 0.1)],
    )


def calibration_classwise() -> Case:
    rng = np.random.default_rng(0)
    p, y = rng.random((100_000, 100), np.float32), rng.integers(0, 100, 100_000)
    return Case(
        "calibration_error classwise f32 100k×100, 15 bins",
        {
            "tersor": lambda: metrics.calibration_error(p, y, classwise=True),
            "a loop over classes": lambda: np.mean([binned(p[:, k], (y == k).astype(np.int64)) for k in range(100)]),
        },
        traffic=p.nbytes,
        targets=[Target("tersor", ("a loop over classes",), 1 / 6)],
    )


def row_ids_10k() -> Case:
    rows = np.random.default_rng(0).integers(0, 4, (10_000, 16), np.uint8)
    return Case(
        "row_ids uint8 10k×16",
        {
            "tersor": lambda: reduce.row_ids(rows),
            "np.unique axis=0": lambda: np.unique(
                rows, axis=0, return_index=True, return_inverse=True, return_counts=True
            ),
        },
        traffic=rows.nbytes,
        targets=[Target("tersor", ("np.unique axis=0",), 0.1)],
    )


def kendall_100k() -> Case:
    from scipy import stats

    rng = np.random.default_rng(0)
    x = rng.standard_normal(100_000)
    y = x + rng.standard_normal(len(x))
    return Case(
        "kendall_rank_corrcoef f64 100k",
        {
            "tersor": lambda: metrics.kendall_rank_corrcoef(x, y),
            "scipy": lambda: stats.kendalltau(x, y),
        },
        traffic=2 * x.nbytes,
        targets=[Target("tersor", ("scipy",), 1 / 3)],
    )


def spearman_100k() -> Case:
    from scipy import stats

    rng = np.random.default_rng(0)
    x = rng.standard_normal(100_000)
    y = x + rng.standard_normal(len(x))
    return Case(
        "spearman_corrcoef f64 100k",
        {
            "tersor": lambda: metrics.spearman_corrcoef(x, y),
            "scipy": lambda: stats.spearmanr(x, y),
        },
        traffic=2 * x.nbytes,
        targets=[Target("tersor", ("scipy",), 0.6)],
    )


def of_samples(x: np.ndarray, y: np.ndarray) -> float:
    """By the two Gram matrices of samples."""
    k, l = ((v - v.mean(0)) @ (v - v.mean(0)).T for v in (x, y))
    return float((k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum()))


def of_features(x: np.ndarray, y: np.ndarray) -> float:
    """In float32, which has no digits left for columns far from 0."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def cka_2k() -> Case:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((2000, 128), np.float32) for _ in range(2))
    return Case(
        "cka f32 2000×128",
        {
            "tersor": lambda: metrics.cka(x, y),
            "Gram matrices": lambda: of_samples(x, y),
            "features in f32": lambda: of_features(x, y),
        },
        traffic=2 * x.nbytes,
        targets=[Target("tersor", ("Gram matrices",), 0.5)],
    )


CASES = [calibration_1m, calibration_classwise, row_ids_10k, kendall_100k, spearman_100k, cka_2k]

HEADLINE = cka_2k
