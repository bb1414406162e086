"""Nets as hash encoders (row 47): which units are on is a code of what is seen. The rule: codes alone, no activation's size,
are compared. Claims are of widths: that training makes a better hash is not so for digits, where 128 random units do as
well, and is returned without a claim."""

import torch
from _common import digits, main, seeded, train
from tersor import project, reduce
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 47,
    "title": "Neural networks behave as hash encoders: An empirical study",
    "mechanism": "signs of the activations of a ReLU layer, without constant columns: redundancy is 1 − distinct codes / data, "
    "categorisation the accuracy of nearest codes (Hamming) and of a linear head on codes",
    "evidence": "V",
    "functions": ["tersor.reduce.row_ids", "tersor.project.ridge_path"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["redundancy", "<=", 0.1],
        ["narrow_over_wide", ">=", 0.5],
        ["wide_over_narrow", ">=", 0.3],
        ["linear", ">=", 0.75],
    ],
    "figure": "nearest",
    "seconds": 30,
}


def nearest(codes: Tensor, y: Tensor, others: Tensor, ty: Tensor) -> float:
    """Accuracy of the three codes with the fewest other bits, ties to the lower row."""
    near = (codes.float() - 0.5) @ (others.float() - 0.5).T  # the more, the fewer bits differ
    votes = y[near.argsort(dim=0, descending=True, stable=True)[:3]]
    return float((votes.mode(0).values == ty).double().mean())


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result: dict[str, float] = {}
    for width in (8, 128):
        net = seeded(
            nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)),
            seed,
        )
        for when in ("start", "trained"):
            if when == "trained":
                train(net, lambda i, n=net: cross_entropy(n(x[i]), y[i]), len(x), steps=300, rate=4e-3, seed=seed)
            with torch.no_grad():
                codes, others = net[:4](x) > 0, net[:4](tx) > 0
            vary = (codes != codes[0]).any(0)  # a column that is constant says nothing
            codes, others = codes[:, vary], others[:, vary]
            distinct = len(reduce.row_ids(codes.numpy()).first)
            result[f"redundancy_{width}_{when}"] = 1 - distinct / len(codes)
            result[f"nearest_{width}_{when}"] = nearest(codes, y, others, ty)
    one_hot = torch.eye(10, dtype=torch.float64)[y]
    a, b = (torch.cat([c.double(), torch.ones(len(c), 1).double()], 1) for c in (codes, others))
    coef, _ = project.ridge_path(a.numpy(), one_hot.numpy(), [10.0])
    result["linear"] = float((b @ torch.from_numpy(coef[0])).argmax(1).eq(ty).double().mean())
    plain = torch.cdist(tx, x).argsort(dim=1, stable=True)[:, :3]
    result["pixels"] = float((y[plain].mode(1).values == ty).double().mean())
    result["nearest"] = result["nearest_128_trained"]
    result["redundancy"] = result["redundancy_128_trained"]
    result["narrow_over_wide"] = result["redundancy_8_trained"] - result["redundancy"]
    result["wide_over_narrow"] = result["nearest"] - result["nearest_8_trained"]
    result["narrow_learned"] = result["nearest_8_trained"] - result["nearest_8_start"]
    result["wide_learned"] = result["nearest"] - result["nearest_128_start"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
