"""Coordinate-aware modulation (row 144): a neural field whose features are scaled and shifted by where it is asked. The rule:
the modulation is read from small grids, on features that are normalised over all places. The norm alone in a wider net comes as
far for some starts, so that the gain is claimed over nets without it."""

import torch
from _common import digits, main, seeded
from tersor import nn as tnn
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import grid_sample, mse_loss

SYSTEM = {
    "row": 144,
    "title": "Coordinate-Aware Modulation for Neural Fields",
    "mechanism": "y = γ(x) (h − μ)/σ + β(x): moments of each feature over the places of the batch, γ and β from bilinear grids "
    "at the coordinate x (one for all features of a layer); against wider nets without them",
    "evidence": "V",
    "functions": ["tersor.nn.CoordinateModulation", "tersor.norm.standardize"],
    "data": "sklearn.datasets.load_digits, 16 of them as one image",
    "claims": [["gain", ">=", 0.3], ["over_norm", ">=", -1.5], ["over_grids", ">=", 0.1], ["size", "<=", 1.0]],
    "figure": "psnr",
    "seconds": 60,
}
SIDE, GRID, DIM, STEPS = 32, 8, 24, 200


class Field(nn.Module):
    """Coordinates to a value; `kind` says what stands between the layers."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.lines = nn.ModuleList([nn.Linear(10, width), nn.Linear(width, width), nn.Linear(width, 1)])
        self.cam = nn.ModuleList(tnn.CoordinateModulation(width, (GRID, GRID)) for _ in range(2 * (kind == "cam")))
        self.grids = nn.ParameterList(torch.zeros(2, GRID, GRID) for _ in range(2 * (kind == "grids")))

    def forward(self, at: Tensor) -> Tensor:
        frequencies = torch.pi * torch.arange(1, 3)
        waves = (at[:, :, None] * frequencies).flatten(1)
        h = torch.cat([at, waves.sin(), waves.cos()], 1)
        for k, line in enumerate(self.lines[:2]):
            h = line(h)
            if self.kind == "cam":
                h = self.cam[k](h, at)
            elif self.kind == "norm":
                h = norm.standardize(h, dim=0)
            elif self.kind == "grids":  # without the norm
                both = grid_sample(self.grids[k][None], at[None, None], align_corners=True, padding_mode="border")
                h = (1 + both[0, 0].T) * h + both[0, 1].T
            h = h.relu()
        return self.lines[2](h)[:, 0]


def fit(field: nn.Module, at: Tensor, image: Tensor) -> float:
    """The signal to noise ratio of an image after training, in decibels."""
    optimiser = torch.optim.Adam(field.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = mse_loss(field(at), image)
        loss.backward()
        optimiser.step()
        schedule.step()
    return float(-10 * loss.detach().log10())


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    tiles = digits(split)[0][:16].view(4, 4, 8, 8)
    image = tiles.permute(0, 2, 1, 3).reshape(-1)
    line = torch.linspace(-1, 1, SIDE)
    at = torch.stack([line.repeat(SIDE), line.repeat_interleave(SIDE)], 1)
    result, sizes = {}, {}
    for kind, width in (("cam", DIM), ("norm", DIM + 6), ("grids", DIM), ("plain", DIM + 6)):
        field = seeded(Field(kind, width), seed)
        for p in field.grids:
            nn.init.zeros_(p)
        for layer in field.cam:
            layer.reset_parameters()
        result[kind] = fit(field, at, image)
        sizes[kind] = sum(p.numel() for p in field.parameters())
    result["psnr"] = result["cam"]
    result["gain"] = result["cam"] - result["plain"]
    result["over_norm"] = result["cam"] - result["norm"]
    result["over_grids"] = result["cam"] - result["grids"]
    result["size"] = sizes["cam"] / min(sizes["plain"], sizes["norm"])
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
