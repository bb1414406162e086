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


def nm_mask_45m() -> Case:
    """Two of four of a layer of a language model, as its users would make the mask with torch."""
    import torch

    w = torch.randn(4096, 11008, generator=torch.Generator().manual_seed(0))
    a = w.numpy()

    def topk() -> torch.Tensor:
        groups = w.view(-1, 4)
        kept = groups.abs().topk(2, -1).indices
        return torch.zeros(groups.shape, dtype=torch.bool).scatter_(-1, kept, True).view_as(w)

    return Case(
        "nm_mask f32 2:4 of 4096×11008",
        {"tersor": lambda: prune.nm_mask(a, 2, 4), "tersor torch": lambda: prune.nm_mask(w, 2, 4), "torch topk": topk},
        traffic=5 * a.size,
        targets=[Target("tersor", ("torch topk",), 1 / 30)],
    )


def budget_allocate_53() -> Case:
    """The convolutions of a ResNet-50, 101 amounts each."""
    rng = np.random.default_rng(0)
    kept = np.linspace(1, 0, 101)
    losses = rng.lognormal(0, 1, (53, 1)) * (1 - kept) ** rng.uniform(0.5, 3, (53, 1))
    costs = rng.lognormal(11, 1.5, (53, 1)) * kept
    budget = 0.41 * costs[:, 0].sum()
    return Case(
        "budget_allocate 53 layers × 101 amounts",
        {
            "exact": lambda: prune.budget_allocate(costs, losses, budget),
            "binned": lambda: prune.budget_allocate(costs, losses, budget, method="binned"),
            "lagrange": lambda: prune.budget_allocate(costs, losses, budget, method="lagrange"),
        },
    )


def rd_curve_101() -> Case:
    """What a layer loses at 101 amounts, as from one mask for each."""
    import torch

    w = torch.randn(768, 768, generator=torch.Generator().manual_seed(0))
    amounts = [i / 100 for i in range(101)]

    def topk() -> list[float]:
        flat = w.abs().flatten()
        return [float((flat.topk(round(s * len(flat)), largest=False).values ** 2).sum()) for s in amounts]

    return Case(
        "rd_curve f32 101 amounts of 768×768",
        {"tersor torch": lambda: prune.rd_curve(w, amounts), "torch topk": topk},
        targets=[Target("tersor torch", ("torch topk",), 0.2)],
    )


def assign_768() -> Case:
    """The hidden units of two experts."""
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(0)
    scores = rng.standard_normal((768, 256)) @ rng.standard_normal((256, 768))
    return Case(
        "assign f64 768×768",
        {"tersor": lambda: prune.assign(scores), "scipy": lambda: linear_sum_assignment(scores)},
        targets=[Target("tersor", ("scipy",), 1.2)],
    )


CASES = [global_masks_24m, nm_mask_45m, budget_allocate_53, rd_curve_101, assign_768]

HEADLINE = global_masks_24m
