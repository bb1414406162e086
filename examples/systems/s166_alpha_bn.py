"""α-BN (row 166): statistics of training mixed with those of the shifted batch. The rule: nothing is trained at test time but
two numbers per channel, and how sure classes are of each other is asked without labels."""

import torch
from _common import digits, main, seeded, train
from tersor import metrics
from tersor import nn as tnn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 166,
    "title": "Test-time Batch Statistics Calibration for Covariate Shift",
    "mechanism": "μ = α μ_s + (1−α) μ_t and so σ², of training and of the test batch; the correlation of classes PᵀP of the "
    "predictions (as a measure: the published loss of it is not verified)",
    "evidence": "A",
    "functions": ["tersor.nn.AlphaBatchNorm", "tersor.norm.batch_norm", "tersor.metrics.class_correlation"],
    "data": "sklearn.datasets.load_digits, with less contrast, brighter and noisy",
    "claims": [
        ["over_training", ">=", 0.04],
        ["over_batch", ">=", 0.03],
        ["clean_cost", "<=", 0.08],
        ["confusion_ratio", "<=", 0.85],
    ],
    "figure": "mixed",
    "seconds": 20,
}

BATCH, SHARES = 4, {"training": 1.0, "mixed": 0.5, "batch": 0.0}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lines = nn.ModuleList([nn.Linear(64, 96), nn.Linear(96, 96), nn.Linear(96, 10)])
        self.norms = nn.ModuleList(tnn.AlphaBatchNorm(96) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for line, layer in zip(self.lines[:2], self.norms, strict=True):
            x = layer(line(x)).relu()
        return self.lines[2](x)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=250, rate=5e-3, seed=seed)
    net.eval()
    generator = torch.Generator().manual_seed(seed)
    moved = 0.6 * tx + 0.3 + 0.1 * torch.randn(tx.shape, generator=generator)

    @torch.no_grad()
    def logits(rows: Tensor, alpha: float) -> Tensor:
        for layer in net.norms:
            layer.alpha = alpha
        return torch.cat([net(part) for part in rows.split(BATCH)])

    def share(rows: Tensor, alpha: float) -> float:
        return float((logits(rows, alpha).argmax(-1) == ty).double().mean())

    def confusion(alpha: float) -> float:
        r = metrics.class_correlation(logits(moved, alpha).softmax(-1))
        return float(1 - r.diagonal().mean())

    result = {f"{name}{k}": share(rows, a) for rows, k in ((tx, "_clean"), (moved, "")) for name, a in SHARES.items()}
    result["over_training"] = result["mixed"] - result["training"]
    result["over_batch"] = result["mixed"] - result["batch"]  # few rows do not say what their statistics are
    result["clean_cost"] = result["training_clean"] - result["mixed_clean"]
    result["confusion_training"], result["confusion_mixed"] = confusion(1.0), confusion(0.5)
    result["confusion_ratio"] = result["confusion_mixed"] / result["confusion_training"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
