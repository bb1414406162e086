"""RECOMBINER (row 164): an image is the index of a random draw of weights. The rule: bits are what the posterior costs."""

import math

import numpy as np
from _common import digits, main
from tersor import random

# The network of coordinates has one layer here, random features and weights w = A h, so that posteriors are solved for, not
# trained; A, the prior of h and the blocks are learnt from other images, as in the paper.
SYSTEM = {
    "row": 164,
    "title": "RECOMBINER: Robust and Enhanced Compression with Bayesian Implicit Neural Representations",
    "mechanism": "w = A h, q(h) with β of each block such that KL(q | p) is its bits, i* = argmax log q/p(h_i) + G_i, "
    "h_i by counter; the blocks after are solved anew",
    "evidence": "V",
    "functions": ["tersor.random.philox4x32"],
    "data": "sklearn.datasets.load_digits, every image a function of its coordinates",
    "claims": [
        ["decoded_apart", "<=", 0.0],
        ["of_samples", "<=", 1.25],
        ["of_unsolved", "<=", 0.96],
        ["of_fewer_bits", "<=", 0.92],
        ["of_rounded", "<=", 0.96],
        ["kl_excess", "<=", 0.01],
    ],
    "figure": "psnr",
    "seconds": 20,
}
FEATURES, RANK, BLOCKS, BITS, SLACK, IMAGES = 128, 32, 8, 6, 1, 60
#: the last words of counters say what is drawn: normals, or the arrivals whose logarithms are Gumbels in falling order
NORMALS, ARRIVALS = 0xA0, 0xA1


def uniform(seed: int, images: np.ndarray, block: int, rows: np.ndarray, wide: int, tag: int) -> np.ndarray:
    """Uniforms of (0, 1) for images [m] and rows [m or 1, n]: each is a function of its counter, so that none is stored."""
    counter = np.zeros((len(images), rows.shape[1], -(-wide // 4), 4), np.uint32)
    counter[..., 0], counter[..., 1] = rows[..., None], np.arange(counter.shape[2])
    counter[..., 2], counter[..., 3] = images[:, None, None] << 8 | block, tag
    words = random.philox4x32(counter, np.array([seed, 0], np.uint32))
    return (words.reshape(*counter.shape[:2], -1)[..., :wide] + 0.5) / 2.0**32


def candidates(seed: int, images: np.ndarray, block: int, rows: np.ndarray, size: int) -> np.ndarray:
    """Draws of the prior N(0, 1), by Box and Muller."""
    u = uniform(seed, images, block, rows, 2 * size, NORMALS)
    return np.sqrt(-2 * np.log(u[..., :size])) * np.cos(2 * math.pi * u[..., size:])


def posterior(m: np.ndarray, y: np.ndarray, of: np.ndarray, bits: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means and deviations of q for each image, and KL in bits by block: the least E|y - M h|² + Σ β KL, β by bisection."""
    gram, right, square = 2 * m.T @ m, 2 * y @ m, 2 * (m * m).sum(0)
    blocks = np.unique(of)
    log_beta, step = np.zeros((len(y), len(blocks))), 2.0
    for _ in range(40):
        beta = np.exp(log_beta)[:, np.searchsorted(blocks, of)]
        mean = np.linalg.solve(gram + beta[..., None] * np.eye(len(of)), right[..., None])[..., 0]
        variance = beta / (beta + square)
        each = (variance + mean**2 - 1 - np.log(variance)) / 2 / math.log(2)
        kl = np.stack([each[:, of == b].sum(1) for b in blocks], 1)
        log_beta += step * np.sign(kl - bits)
        step *= 0.82
    return mean, np.sqrt(variance), kl


def chosen(seed: int, images: np.ndarray, block: int, mean: np.ndarray, deviation: np.ndarray, bits: int) -> np.ndarray:
    """A* coding: the index of the candidate with the largest log q/p + G, which is a draw of q if there are enough."""
    rows = np.arange(2 ** (bits + SLACK))[None]
    h = candidates(seed, images, block, rows, mean.shape[1])
    gumbel = -np.log(np.cumsum(-np.log(uniform(seed, images, block, rows, 1, ARRIVALS)[..., 0]), 1))
    ratio = (h**2 - ((h - mean[:, None]) / deviation[:, None]) ** 2).sum(-1) / 2 - np.log(deviation).sum(1)[:, None]
    return (ratio + gumbel).argmax(1)[:, None]


def encoded(m: np.ndarray, y: np.ndarray, of: np.ndarray, seed: int, bits: int = BITS, solve: bool = True):
    """The indices [images, blocks], the h that the encoder holds, and how far KL is beyond the bits."""
    images, h, indices = np.arange(len(y)), np.zeros((len(y), len(of))), []
    mean, deviation, kl = posterior(m, y, of, bits)
    excess = kl.max() / bits - 1
    for block in range(BLOCKS):
        now, rest = of == block, of >= block
        if solve and block:  # what is coded is known: the blocks after make up for its errors
            mean[:, rest], deviation[:, rest], kl = posterior(m[:, rest], y - h @ m.T, of[rest], bits)
            excess = max(excess, kl.max() / bits - 1)
        indices.append(chosen(seed, images, block, mean[:, now], deviation[:, now], bits))
        h[:, now] = candidates(seed, images, block, indices[-1], now.sum())[:, 0]
    return np.concatenate(indices, 1), h, excess


def decoded(indices: np.ndarray, of: np.ndarray, seed: int) -> np.ndarray:
    h = np.zeros((len(indices), len(of)))
    for block in range(BLOCKS):
        row = indices[:, block : block + 1]
        h[:, of == block] = candidates(seed, np.arange(len(h)), block, row, (of == block).sum())[:, 0]
    return h


def rounded(m: np.ndarray, y: np.ndarray) -> float:
    """The least error with as many bits in levels of equal steps: few features of many levels or many of few."""
    errors = []
    for bits in range(1, 6):
        n = min(BLOCKS * (BITS + SLACK) // bits, RANK)
        h = np.linalg.lstsq(m[:, :n], y.T, rcond=None)[0].T
        for step in np.linspace(0.1, 2, 20):
            q = (np.floor(h / step).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 0.5) * step
            errors.append(((q @ m[:, :n].T - y) ** 2).mean())
    return min(errors)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, _, tx, _ = (p.double().numpy() for p in digits(split))
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8)), -1).reshape(-1, 2)
    turns = places @ rng.normal(size=(2, FEATURES // 2)) * 2
    phi = np.concatenate([np.cos(turns), np.sin(turns)], 1) / FEATURES**0.5
    fitted = np.linalg.solve(phi.T @ phi + 1e-4 * np.eye(FEATURES), phi.T @ (x - x.mean(0)).T).T
    _, s, vt = np.linalg.svd(fitted, full_matrices=False)
    m = phi @ (vt[:RANK].T * (s[:RANK] / len(x) ** 0.5))  # of h to pixels: h is N(0, 1) for images to learn from
    y = tx[:IMAGES] - x.mean(0)
    # the blocks: features in a random order, cut where KL with one beta fills the bits of a block
    order = rng.permutation(RANK)
    beta = np.median((m * m).sum(0))
    share = np.cumsum(np.log1p(2 * (m * m).sum(0) / beta)[order])
    of = np.zeros(RANK, int)
    of[order] = np.minimum((share - share[0] / 2) / share[-1] * BLOCKS, BLOCKS - 1).astype(int)

    def error(h: np.ndarray) -> float:
        return float(((h @ m.T - y) ** 2).mean())

    indices, h, excess = encoded(m, y, of, seed)
    mean, deviation, _ = posterior(m, y, of, BITS)
    mine = error(h)
    unsolved = error(encoded(m, y, of, seed, solve=False)[1])
    result = {
        "psnr": -10 * math.log10(mine),
        "error": mine,
        "kl_excess": excess,
        "decoded_apart": float(np.abs(decoded(indices, of, seed) - h).max()),
    }
    result["bits_per_pixel"] = BLOCKS * (BITS + SLACK) / 64
    # draws of A* against draws of q itself
    result["of_samples"] = unsolved / np.mean([error(mean + deviation * rng.normal(size=h.shape)) for _ in range(8)])
    result["of_unsolved"] = mine / unsolved
    result["of_fewer_bits"] = mine / error(encoded(m, y, of, seed, bits=BITS - 2)[1])
    result["of_rounded"] = mine / rounded(m, y)
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
