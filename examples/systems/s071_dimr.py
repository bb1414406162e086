"""DiMR's time-dependent layer norm (row 71): how noisy a picture is, said by four vectors in each norm. The rule: between two
affine maps, and no net that makes them."""

import torch
from _common import digits, main, seeded, train
from tersor import nn as tnn
from tersor import norm
from torch import Tensor, nn
from torch.nn.functional import mse_loss

SYSTEM = {
    "row": 71,
    "title": "Alleviating Distortion in Image Generation via Multi-Resolution Diffusion Models",
    "mechanism": "TD-LN: s = σ(w t + b), γ(t) = s p₁ + (1−s) p₂ and β(t) alike in a layer norm of a denoiser; against a norm "
    "that is not told t and against a layer that makes γ and β of t (the cascade of resolutions is left out)",
    "evidence": "V",
    "functions": ["tersor.norm.standardize", "tersor.nn.TimeDependentNorm"],
    "data": "sklearn.datasets.load_digits with noise of all sizes",
    "claims": [["of_untold", "<=", 0.99], ["of_made", "<=", 1.1], ["size", "<=", 0.5], ["gradient_apart", "<=", 1e-5]],
    "figure": "of_untold",
    "seconds": 60,
}
DIM, DEPTH, STEPS = 96, 3, 400


class Denoiser(nn.Module):
    """Residual blocks from a noisy digit to the noise; `kind` says what the norms know of t."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Linear(64, DIM), nn.Linear(DIM, 64)
        self.up = nn.ModuleList(nn.Linear(DIM, 2 * DIM) for _ in range(DEPTH))
        self.down = nn.ModuleList(nn.Linear(2 * DIM, DIM) for _ in range(DEPTH))
        make = tnn.TimeDependentNorm if kind == "told" else tnn.LayerNorm
        self.norms = nn.ModuleList(make(DIM) for _ in range(DEPTH))
        if kind == "made":
            self.maker = nn.ModuleList(nn.Linear(16, 2 * DIM) for _ in range(DEPTH))

    def normed(self, h: Tensor, t: Tensor, k: int) -> Tensor:
        layer = self.norms[k]
        if self.kind != "made":
            return layer(h, 4 * t - 2) if self.kind == "told" else layer(h)
        waves = t[:, None] * torch.pi * torch.arange(1, 9)
        g, b = self.maker[k](torch.cat([waves.sin(), waves.cos()], 1)).chunk(2, 1)
        return norm.standardize(h, layer.weight + g, layer.bias + b, dim=-1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.first(x)
        for k in range(DEPTH):
            h = h + self.down[k](self.up[k](self.normed(h, t, k)).relu())
        return self.last(h)


def noisy(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    t = torch.rand(len(x), generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    angle = t[:, None] * torch.pi / 2
    return (2 * x - 1) * angle.cos() + noise * angle.sin(), t, noise


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, _, tx, _ = digits(split)
    test, t, noise = noisy(tx, torch.Generator().manual_seed(seed + 1))
    result, sizes = {}, {}
    for kind in ("told", "untold", "made"):
        net, generator = seeded(Denoiser(kind), seed), torch.Generator().manual_seed(seed)

        def loss(i: Tensor, net: nn.Module = net, generator: torch.Generator = generator) -> Tensor:
            rows, at, added = noisy(x[i], generator)
            return mse_loss(net(rows, at), added)

        train(net, loss, len(x), steps=STEPS, rate=3e-3, seed=seed)
        with torch.no_grad():
            result[kind] = float(mse_loss(net(test, t), noise))
        sizes[kind] = sum(p.numel() for n, p in net.named_parameters() if n.startswith(("maker", "norms")))
    result["of_untold"] = result["told"] / result["untold"]
    result["of_made"] = result["told"] / result["made"]
    result["size"] = sizes["told"] / sizes["made"]
    # gradients of the two ends follow from that of γ
    h, s = test[:20].double(), t[:20, None].double().sigmoid()
    ends = torch.stack([torch.linspace(1, 2, 64), torch.linspace(2, 0, 64)]).double().requires_grad_()
    up = noise[:20].double()
    (norm.standardize(h, s * ends[0] + (1 - s) * ends[1], dim=-1) * up).sum().backward()
    z = norm.standardize(h, dim=-1) * up
    own = torch.stack([(s * z).sum(0), ((1 - s) * z).sum(0)])
    result["gradient_apart"] = float((ends.grad - own).abs().max() / own.abs().max())
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
