"""The information plane (row 30): a layer first learns the labels, then forgets the inputs. The rule: equal rows of bins are
one state, over all the data."""

import torch
from _common import digits, main, seeded
from tersor import metrics
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 30,
    "title": "Opening the Black Box of Deep Neural Networks via Information",
    "mechanism": "I(X;T) = H(T) and I(T;Y) = H(T) − H(T|Y) of the last tanh layer in 30 bins along training",
    "evidence": "S",
    "functions": ["tersor.metrics.binned_mutual_information", "tersor.metrics.MutualInformation"],
    "data": "sklearn.datasets.load_digits",
    "claims": [["labels", ">=", 3.1], ["learned", ">=", 0.3], ["compressed", ">=", 0.2], ["parts_apart", "<=", 0.0]],
    "figure": "labels",
    "seconds": 40,
}
STEPS = 1500


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, _, _ = digits(split, 1500)
    net = seeded(nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 10)), seed)

    def layer(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return net[:4](rows)

    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    plane = []
    for step in range(STEPS + 1):
        if step % 100 == 0:
            plane.append(metrics.binned_mutual_information(layer(x), y, range=(-1, 1)))
        i = torch.randint(len(x), (64,), generator=generator)
        optimiser.zero_grad()
        cross_entropy(net(x[i]), y[i]).backward()
        optimiser.step()
    parts = metrics.MutualInformation(30, (-1, 1))
    whole = metrics.binned_mutual_information(layer(x), y, range=(-1, 1))
    for i in range(0, len(x), 99):
        parts.update(layer(x)[i : i + 99], y[i : i + 99])
    first, last = plane[0], plane[-1]
    return {
        "labels": float(last.i_ty),
        "labels_at_start": float(first.i_ty),
        "learned": float(last.i_ty - first.i_ty),
        "states": float(last.h_t),
        # what the layer tells of the inputs, at its most and at the end
        "compressed": float(max(p.i_xt for p in plane) - last.i_xt),
        "parts_apart": float(sum(abs(a - float(b)) for a, b in zip(parts.compute(), whole, strict=True))),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
