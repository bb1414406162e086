"""Calibration (row 46): a net that is surer than it is right, and one number that mends it. The rule: the temperature is chosen
on rows that neither trained the net nor measure it."""

import torch
from _common import digits, main, seeded, train
from tersor import metrics
from torch import nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 46,
    "title": "A Benchmark Study on Calibration",
    "mechanism": "ECE = Σ n_b/n |acc_b − conf_b| of 5 to 30 bins from one read, of equal width or mass, of each class; "
    "softmax(z/T) with T by the loss of other rows",
    "evidence": "V",
    "functions": [
        "tersor.metrics.calibration_error",
        "tersor.metrics.calibration_curve",
        "tersor.metrics.CalibrationError",
    ],
    "data": "sklearn.datasets.load_digits: 150 rows to learn from, the others with noise",
    "claims": [["of_cold", "<=", 0.7], ["sure", ">=", 0.04], ["parts_apart", "<=", 1e-12], ["bins_agree", "<=", 0.25]],
    "figure": "ece",
    "seconds": 30,
}
BINS = [5, 10, 15, 30]


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split, 150)
    generator = torch.Generator().manual_seed(seed)
    tx = tx + 0.3 * torch.randn(tx.shape, generator=generator)  # rows unlike those that the net has learned by heart
    net = seeded(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=400, rate=5e-3, seed=seed)
    with torch.no_grad():
        logits = net(tx)
    half = len(tx) // 2
    other, logits, oy, ty = logits[:half], logits[half:], ty[:half], ty[half:]
    heat = min(torch.arange(0.5, 8, 0.1), key=lambda t: float(cross_entropy(other / t, oy)))
    cold, warm = logits.softmax(-1), (logits / heat).softmax(-1)
    before, after = (metrics.calibration_error(p, ty, n_bins=BINS) for p in (cold, warm))
    table = metrics.calibration_curve(cold, ty)
    full = table.count > 0
    parts = metrics.CalibrationError(BINS)
    for i in range(0, len(ty), 100):
        parts.update(cold[i : i + 100], ty[i : i + 100])
    return {
        "ece": float(before[2]),
        "temperature": float(heat),
        "of_cold": float(after[2] / before[2]),
        # mean confidence less accuracy over all rows
        "sure": float(((table.confidence - table.accuracy) * table.count)[full].sum() / len(ty)),
        "parts_apart": float(abs(torch.from_numpy(parts.compute()) - before).max()),
        # what the choice of bins does to the figure
        "bins_agree": float((before.max() - before.min()) / before.mean()),
        "equal_mass": float(metrics.calibration_error(cold, ty, binning="quantile")),
        "classwise": float(metrics.calibration_error(cold, ty, classwise=True)),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
