"""ZeroQ (row 188): quantize without data. The rule: what the norms have seen is enough to calibrate and to choose widths."""

from functools import partial
from typing import Any

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

SYSTEM = {
    "row": 188,
    "title": "ZeroQ: A Novel Zero Shot Quantization Framework",
    "mechanism": "images from noise by Σ_l |μ̂_l − μ_l|² + |σ̂_l − σ_l|² of the batch norms; ranges of activations and "
    "Ω_l(k) = mean KL(M ‖ M with layer l at k bits) from them; widths by Σ_l Ω_l(k_l) under a size",
    "evidence": "V",
    "functions": [
        "tersor.quant.bn_distill_loss",
        "tersor.quant.kl_rows",
        "tersor.quant.bit_allocate",
        "tersor.quant.choose_qparams",
        "tersor.quant.fake_quantize",
    ],
    "data": "sklearn.datasets.load_digits, none of which the quantizer sees",
    "claims": [
        ["range_ratio", "<=", 0.77],
        ["profile_ratio", "<=", 0.87],
        ["kl_ratio", "<=", 0.75],
        ["cost_of_8_bits", "<=", 0.02],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
WIDTHS = (8, 16, 32, 32)
BITS = (2, 3, 4, 5, 6, 8)
#: the size of the net that widths are chosen for, in bits a weight, and the width of activations
MEAN, ACTIVATIONS, IMAGES, STEPS = 3, 4, 128, 100


class Net(nn.Module):
    """Four convolutions with batch norms. `at` is given what each layer takes, `seen` gets what each norm takes."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, bias=False) for i, o in zip((1, *WIDTHS), WIDTHS, strict=False))
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in WIDTHS)
        self.read = nn.Linear(WIDTHS[-1], 10)

    def layers(self) -> list[Tensor]:
        return [c.weight for c in self.convs] + [self.read.weight]

    def forward(self, x: Tensor, weights: Any = None, at: Any = lambda _, v: v, seen: Any = None) -> Tensor:
        weights, h = weights or self.layers(), x.view(-1, 1, 8, 8)
        for n, norm in enumerate(self.norms):
            h = conv2d(at(n, h), weights[n], padding=1, stride=1 + n % 2)
            if seen is not None:
                seen.append((h, norm.running_mean, norm.running_var))
            h = norm(h).relu()
        return at(len(WIDTHS), h.mean((2, 3))) @ weights[-1].T + self.read.bias


def distilled(net: Net, generator: torch.Generator) -> Tensor:
    """Images whose statistics are those that the batch norms have kept, by Adam from normal noise.

    All places of all images are one sample (ours): of maps of 2x2 places an image alone has no statistics."""
    x = torch.randn(IMAGES, 64, generator=generator).requires_grad_()
    optimiser = torch.optim.Adam([x], 0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        seen = [(x[:, None], torch.zeros(1), torch.ones(1))]  # so are the pixels: 0 on average, of variance 1
        net(x, seen=seen)
        optimiser.zero_grad()
        sum(quant.bn_distill_loss(v.transpose(0, 1).flatten(1)[None], *kept) for v, *kept in seen).backward()
        optimiser.step()
        schedule.step()
    return x.detach()


def narrowed(w: Tensor, bits: int) -> Tensor:
    """Weights in asymmetric codes, a scale for each channel that is made."""
    scale, zero = quant.choose_qparams(w, f"uint{bits}", axis=0, symmetric=False)
    return quant.fake_quantize(w, scale, zero, f"uint{bits}")


def ranges(net: Net, x: Tensor) -> Tensor:
    """Least and largest value that each layer takes from an image, on average over the images."""
    found: list[Tensor] = []

    def look(_: int, v: Tensor) -> Tensor:
        found.append(torch.stack([v.flatten(1).amin(1).mean(), v.flatten(1).amax(1).mean()]))
        return v

    net(x, at=look)
    return torch.stack(found)


def sensitivity(net: Net, x: Tensor) -> Tensor:
    """Ω of every layer and width."""
    logits, weights, rows = net(x), net.layers(), []
    for n, w in enumerate(weights):
        made = [[*weights[:n], narrowed(w, bits), *weights[n + 1 :]] for bits in BITS]
        rows.append(torch.stack([quant.kl_rows(logits, net(x, m)).mean() for m in made]))
    return torch.stack(rows)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    mean, std = x.mean(), x.std()
    x, tx = (x - mean) / std, (tx - mean) / std
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i], label_smoothing=0.1), len(x), steps=300, rate=1e-2, seed=seed)
    net.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    data = {"noise": torch.randn(IMAGES, 64, generator=generator), "made": distilled(net, generator), "held": tx}
    reach = {name: ranges(net, v) for name, v in data.items()}
    omega = {name: sensitivity(net, v) for name, v in data.items()}
    result = {"dense": accuracy(net, tx, ty)}
    for name in ("made", "noise"):
        # of what layers inside take, and of Ω but for a factor that all layers have in common, which no choice depends on
        result["range_" + name] = float((reach[name] / reach["held"])[1:, 1].log().abs().mean())
        profile = (omega[name] / omega["held"]).log()
        result["profile_" + name] = float((profile - profile.mean()).abs().mean())
    result |= {f"{k}_ratio": result[f"{k}_made"] / result[f"{k}_noise"] for k in ("range", "profile")}
    weights, logits = net.layers(), net(tx)
    cost = torch.tensor([[float(w.numel() * bits) for bits in BITS] for w in weights])
    budget = MEAN * sum(w.numel() for w in weights)

    def lost(choice: Tensor) -> tuple[float, list[Tensor]]:
        w = [narrowed(v, BITS[int(k)]) for v, k in zip(weights, choice, strict=True)]
        return float(quant.kl_rows(logits, net(tx, w)).mean()), w

    result["kl_made"], chosen = lost(quant.bit_allocate(omega["made"], cost, budget).choice)
    drawn = torch.randint(len(BITS), (2000, len(weights)), generator=generator)
    sizes = cost.expand(2000, -1, -1).gather(2, drawn[..., None]).sum((1, 2))
    others = [lost(choice)[0] for choice in drawn[(sizes <= budget) & (sizes > 0.9 * budget)][:24]]
    result["kl_drawn"] = sum(others) / len(others)  # of choices of about the same size
    result["kl_ratio"] = result["kl_made"] / result["kl_drawn"]
    low, high = reach["made"].clamp(max=0)[:, 0], reach["made"][:, 1]
    step, code = (high - low) / (2**ACTIVATIONS - 1), f"uint{ACTIVATIONS}"
    zero = (-low / step).round()
    narrow = partial(net, weights=chosen, at=lambda n, v: quant.fake_quantize(v, step[n], zero[n], code))
    result["accuracy"] = accuracy(narrow, tx, ty)
    eights = [narrowed(w, 8) for w in weights]
    result["cost_of_8_bits"] = result["dense"] - accuracy(partial(net, weights=eights), tx, ty)
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
