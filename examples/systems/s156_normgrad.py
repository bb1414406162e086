"""NormGrad (row 156): where a convolution would learn from an image is where the object is. The rule: the norm of each place's
own part of the weight's gradient, from one pass back."""

import torch
from _common import digits, main, seeded, train
from tersor import metrics
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

SYSTEM = {
    "row": 156,
    "title": "There and Back Again: Revisiting Backpropagation Saliency Methods",
    "mechanism": "‖a_u‖ ‖g_u‖ for 1×1 and ‖unfold(a)_u‖ ‖g_u‖ for 3×3 convolutions, resized to the image, "
    "the product over layers",
    "evidence": "V",
    "functions": ["tersor.metrics.norm_grad"],
    "data": "sklearn.datasets.load_digits in a noisy frame of 24 × 24",
    "claims": [
        ["hit", ">=", 0.85],
        ["over_chance", ">=", 0.6],
        ["over_gradient", ">=", 0.02],
        ["weight_apart", "<=", 1e-5],
    ],
    "figure": "hit",
    "seconds": 60,
}
SIZE = 24


def framed(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Digits somewhere in frames of noise, and where they are."""
    image = 0.6 * torch.rand(len(x), 1, SIZE, SIZE, generator=generator)
    inside = torch.zeros(len(x), SIZE, SIZE, dtype=torch.bool)
    corner = torch.randint(SIZE - 8, (len(x), 2), generator=generator).tolist()
    for k, (i, j) in enumerate(corner):
        image[k, 0, i : i + 8, j : j + 8] = x[k].view(8, 8)
        inside[k, i : i + 8, j : j + 8] = True
    return image, inside


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 24, 3, padding=1)
        self.last = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        h = self.one(x).relu().unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
        z = self.two(h)
        return self.last(z.relu().amax((-1, -2))), [h, z]


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    generator = torch.Generator().manual_seed(seed)
    (image, _), (shown, inside) = framed(x, generator), framed(tx[:200], generator)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(image[i])[0], y[i]), len(x), steps=200, rate=1e-2, seed=seed, batch=32)
    logits, (h, z) = net(shown.requires_grad_())
    loss = cross_entropy(logits, ty[:200], reduction="sum")
    g, at_input = torch.autograd.grad(loss, [z, shown])
    three, one = (metrics.norm_grad(h.detach(), g, kind) for kind in ("conv3", "conv1"))

    def hits(saliency: Tensor) -> float:
        wide = interpolate(saliency[:, None], size=(SIZE, SIZE), mode="bilinear")[:, 0].flatten(1)
        return float(inside.flatten(1).gather(1, wide.argmax(1)[:, None]).double().mean())

    # one image and one place: the norm is that of the weight's whole gradient
    alone = torch.zeros_like(g[:1])
    alone[..., 5, 5] = g[0, :, 5, 5] + 1
    (whole,) = torch.autograd.grad((net.two(h[:1].detach()) * alone).sum(), net.two.weight)
    own = metrics.norm_grad(h[:1].detach(), alone, "conv3")[0, 5, 5]
    return {
        "hit": hits(three * one),
        "over_chance": hits(three * one) - 64 / SIZE**2,
        # the plain gradient of the pixels; a digit is also the brightest there is, so what the layer is given hits too
        "over_gradient": hits(three * one) - hits(at_input[:, 0].abs()),
        "activation": hits(metrics.norm_grad(h.detach(), torch.ones_like(g), "conv3")),
        "weight_apart": float(abs(own / whole.norm() - 1)),
    }


if __name__ == "__main__":
    main(SYSTEM, run)
