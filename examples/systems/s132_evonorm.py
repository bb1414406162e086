"""EvoNorm (row 132): a norm and its nonlinearity in one formula. The rule: S0 knows of no other image; B0 takes the larger of
the batch's deviation and the image's own."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import norm, reduce
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 132,
    "title": "Evolving Normalization-Activation Layers",
    "mechanism": "S0: x σ(v x)/√(σ²_group + ε) γ + β; B0: x/max(√(σ²_batch + ε), v x + √(σ²_image + ε)) γ + β, in place of "
    "batch norm and ReLU, for batches of 64 and of two (composed of moments)",
    "evidence": "v",
    "functions": ["tersor.reduce.segment_moments", "tersor.norm.batch_norm"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["s0_over_batch_of_two", ">=", 0.15],
        ["s0_over_batch", ">=", -0.08],
        ["b0_over_batch", ">=", -0.05],
        ["neighbour", "<=", 0.0],
    ],
    "figure": "s0_of_two",
    "seconds": 60,
}
CHANNELS, GROUPS = 32, 4


def s0(x: Tensor, v: Tensor) -> Tensor:
    """Before the affine map: a gate over the deviation of a group of channels of the image."""
    var = reduce.segment_moments(x.reshape(len(x), GROUPS, -1), dim=2).var.to(x.dtype)
    spread = (var + 1e-5).sqrt().repeat_interleave(CHANNELS // GROUPS, 1)[:, :, None, None]
    return x * (v * x).sigmoid() / spread


def b0(x: Tensor, v: Tensor, batch: Tensor) -> Tensor:
    """The same with the variance of channels over the batch."""
    own = reduce.segment_moments(x, dim=(2, 3)).var.to(x.dtype)[:, :, None, None]
    return x / torch.maximum((batch[:, None, None] + 1e-3).sqrt(), v * x + (own + 1e-3).sqrt())


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.ModuleList(nn.Conv2d(CHANNELS if k else 1, CHANNELS, 3, 2, 1) for k in range(3))
        self.last = nn.Linear(CHANNELS, 10)
        self.gain, self.v = (nn.ParameterList(torch.ones(CHANNELS) for _ in range(3)) for _ in range(2))
        self.shift = nn.ParameterList(torch.zeros(CHANNELS) for _ in range(3))
        self.mean, self.var = torch.zeros(3, CHANNELS), torch.ones(3, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 1, 8, 8)
        for k, conv in enumerate(self.conv):
            x, v, wide = conv(x), self.v[k][:, None, None], (slice(None), None, None)
            if self.kind == "batch":
                x = norm.batch_norm(x, self.mean[k], self.var[k], self.gain[k], self.shift[k], self.training).relu()
                continue
            if self.kind == "s0":
                x = s0(x, v)
            else:
                batch = self.var[k]
                if self.training:
                    batch = reduce.segment_moments(x, dim=(0, 2, 3)).var.to(x.dtype)
                    self.var[k] = self.var[k].lerp(batch.detach(), 0.1)
                x = b0(x, v, batch)
            x = x * self.gain[k][wide] + self.shift[k][wide]
        return self.last(x.flatten(1))


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result = {}
    for size, steps, rate, kinds in ((64, 150, 5e-3, ("batch", "s0", "b0")), (2, 300, 2e-3, ("batch", "s0"))):
        for kind in kinds:
            net = seeded(Net(kind), seed)
            loss = lambda i, n=net: cross_entropy(n(x[i]), y[i])  # noqa: E731
            train(net, loss, len(x), steps=steps, rate=rate, seed=seed, batch=size)
            net.eval()
            result[f"{kind}_of_two" if size == 2 else kind] = accuracy(net, tx, ty)
    maps = torch.randn(3, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(seed))
    ones = torch.ones(CHANNELS, 1, 1)
    result["neighbour"] = float((s0(maps[[0, 1]], ones)[0] - s0(maps[[0, 2]], ones)[0]).abs().max())
    result["s0_over_batch_of_two"] = result["s0_of_two"] - result["batch_of_two"]
    result["s0_over_batch"] = result["s0"] - result["batch"]
    result["b0_over_batch"] = result["b0"] - result["batch"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
