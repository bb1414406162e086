"""Layer normalization (row 131): a row is normalised by itself. The rule: what else is in the batch, and how large it is,
changes nothing, so that one row at a time can be learned from."""

import torch
from _common import accuracy, digits, main, seeded
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 131,
    "title": "Layer Normalization",
    "mechanism": "(x − μ)/σ over the units of each row, before a net's nonlinearity; against batch norm where batches are of "
    "two rows, and without a norm where weights are large",
    "evidence": "S",
    "functions": ["tersor.norm.layer_norm", "tersor.norm.batch_norm"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["over_batch", ">=", 0.15],
        ["over_none", ">=", 0.1],
        ["rescaled_apart", "<=", 1e-4],
        ["alone_apart", "<=", 0.0],
        ["far_apart", "<=", 1e-6],
    ],
    "figure": "layer",
    "seconds": 40,
}
DIM, STEPS, BATCH = 64, 1000, 2


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.lines = nn.ModuleList([nn.Linear(64, DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)])
        self.last = nn.Linear(DIM, 10)
        self.gain = nn.ParameterList(torch.ones(DIM) for _ in range(3))
        self.shift = nn.ParameterList(torch.zeros(DIM) for _ in range(3))
        self.mean, self.var = torch.zeros(3, DIM), torch.ones(3, DIM)

    def forward(self, x: Tensor) -> Tensor:
        for k, line in enumerate(self.lines):
            x, affine = line(x), (self.gain[k], self.shift[k])
            if self.kind == "layer":
                x = norm.layer_norm(x, DIM, *affine)
            elif self.kind == "batch":
                x = norm.batch_norm(x, self.mean[k], self.var[k], *affine, self.training)
            x = x.relu()
        return self.last(x)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result, nets = {}, {}
    for kind in ("layer", "batch", "none"):
        net = nets[kind] = seeded(Net(kind), seed)
        optimiser = torch.optim.SGD(net.parameters(), 0.02)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(STEPS):
            i = torch.randint(len(x), (BATCH,), generator=generator)
            optimiser.zero_grad()
            cross_entropy(net(x[i]), y[i]).backward()
            optimiser.step()
        net.eval()
        result[kind] = accuracy(net, tx, ty)
    with torch.no_grad():
        net = nets["layer"]
        said = net(tx)
        alone = torch.cat([norm.layer_norm(r, 64) for r in tx[:50].split(1)])
        result["alone_apart"] = float((alone - norm.layer_norm(tx, 64)[:50]).abs().max())
        net.lines[1].weight *= 100  # with its bias: the norm's own invariance
        net.lines[1].bias *= 100
        result["rescaled_apart"] = float((net(tx) - said).abs().max() / said.abs().max())
        h = tx.double()
        far = norm.layer_norm(
            (h + 1e5).float(), 64
        ).double()  # deviations below a thousandth of a thousandth of the mean
        near = norm.layer_norm((h + 1e5).float().double(), 64)
        result["far_apart"] = float((far - near).abs().max())
    result["over_batch"] = result["layer"] - result["batch"]
    result["over_none"] = result["layer"] - result["none"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
