"""Global magnitude pruning against a partition of all magnitudes. The one rule: contenders return the masks, not only the
threshold, and their extra memory counts."""

import numpy as np

from tersor import prune
from tersor.bench import Case, Target

SIZES = [(4096, 1024)] * 4 + [(1024, 4096)] * 1 + [(768, 768)] * 5  # 23.9 M weights


def numpy_masks(arrays: list[np.ndarray], sparsity: float) -> list[np.ndarray]:
    magnitudes = np.concatenate([np.abs(a).ravel() for a in arrays])
    k = round(sparsity * magnitudes.size)
    threshold = np.partition(magnitudes, k)[k]
    return [np.abs(a) >= threshold for a in arrays]


def torch_masks(tensors, sparsity: float):
    import torch

    magnitudes = torch.cat([t.abs().flatten() for t in tensors])
    k = round(sparsity * magnitudes.numel())
    threshold = magnitudes.kthvalue(k + 1).values
    return [t.abs() >= threshold for t in tensors]


def global_masks_24m() -> Case:
    import torch

    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size, np.float32) for size in SIZES]
    tensors = [torch.from_numpy(a) for a in arrays]
    items = sum(a.size for a in arrays)
    return Case(
        f"global_masks f32 {items / 1e6:.0f} M weights to 90 %",
        {
            "tersor": lambda: prune.global_masks(arrays, 0.9),
            "tersor torch": lambda: prune.global_masks(tensors, 0.9),
            "np.partition": lambda: numpy_masks(arrays, 0.9),
            "torch kthvalue": lambda: torch_masks(tensors, 0.9),
        },
        traffic=5 * items,
        targets=[Target("tersor", ("np.partition",), 0.2)],
        memory=("tersor", "np.partition", "torch kthvalue"),
        items=items,
    )


CASES = [global_masks_24m]

HEADLINE = global_masks_24m
