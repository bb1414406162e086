"""Region normalization (row 139): what is in a hole is not in the statistics of the image around it. The rule: two norms by a
mask in one call."""

import torch
from _common import digits, main, seeded, train
from tersor import nn as tnn
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import mse_loss

SYSTEM = {
    "row": 139,
    "title": "Region Normalization for Image Inpainting",
    "mechanism": "RN-B: each channel has moments and an affine map of its own inside the mask and outside (the later norms of "
    "the paper, which find their mask themselves, are left out)",
    "evidence": "V",
    "functions": ["tersor.nn.RegionNorm", "tersor.norm.region_norm", "tersor.norm.batch_norm"],
    "data": "sklearn.datasets.load_digits with a square that is missing",
    "claims": [
        ["of_batch", "<=", 1.0],
        ["of_mean", "<=", 0.87],
        ["hole_seen", "<=", 0.0],
        ["batch_sees", ">=", 0.1],
        ["apart", "<=", 1e-12],
    ],
    "figure": "of_batch",
    "seconds": 60,
}
CHANNELS = 16


def holes(n: int, size: int, generator: torch.Generator) -> Tensor:
    """A square of this size somewhere in each image."""
    corner = torch.randint(9 - size, (n, 2), generator=generator)
    at = torch.arange(8)
    rows, columns = (((at >= c[:, None]) & (at < c[:, None] + size)) for c in corner.T)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


class Net(nn.Module):
    def __init__(self, region: bool) -> None:
        super().__init__()
        self.region = region
        self.conv = nn.ModuleList(nn.Conv2d(2 if k == 0 else CHANNELS, CHANNELS, 3, padding=1) for k in range(3))
        self.last = nn.Conv2d(CHANNELS, 1, 3, padding=1)
        self.norms = nn.ModuleList(
            tnn.RegionNorm(CHANNELS) if region else tnn.BatchNorm2d(CHANNELS, track_running_stats=False)
            for _ in range(3)
        )

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        x = torch.cat([image * ~mask, mask.float()], 1)
        for conv, layer in zip(self.conv, self.norms, strict=True):
            x = (layer(conv(x), mask) if self.region else layer(conv(x))).relu()
        return self.last(x)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, _, tx, _ = digits(split)
    x, tx = x.view(-1, 1, 8, 8), tx.view(-1, 1, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    mask, test_mask = holes(len(x), 4, generator), holes(len(tx), 4, generator)
    result: dict[str, float] = {}
    for name in ("region", "batch"):
        net = seeded(Net(name == "region"), seed)

        def loss(i: Tensor, net: Net = net) -> Tensor:
            return mse_loss(net(x[i], mask[i])[mask[i]], x[i][mask[i]])

        train(net, loss, len(x), steps=200, rate=5e-3, seed=seed, batch=64)
        with torch.no_grad():
            result[name] = float(mse_loss(net(tx, test_mask)[test_mask], tx[test_mask]))
    mean = x.mean(0, keepdim=True).expand_as(tx)
    result["of_batch"] = result["region"] / result["batch"]
    result["of_mean"] = result["region"] / float(mse_loss(mean[test_mask], tx[test_mask]))
    some, hole = tx[:64].double().expand(-1, 3, -1, -1).contiguous(), test_mask[:64]
    filled = torch.where(hole, some + 5, some)
    outside = ~hole.expand_as(some)
    result["hole_seen"] = float((norm.region_norm(some, hole) - norm.region_norm(filled, hole))[outside].abs().max())
    plain = [norm.batch_norm(v, training=True) for v in (some, filled)]
    result["batch_sees"] = float((plain[0] - plain[1])[outside].abs().max())
    result["apart"] = float((norm.region_norm(some, torch.zeros_like(hole)) - plain[0]).abs().max())
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
