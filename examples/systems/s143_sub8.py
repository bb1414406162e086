"""Training with integers below 8 bits (row 143): gradients of 2 bits. The rule: shifts along the axis that is summed over."""

import torch
from _common import accuracy, digits, main, seeded
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, linear

# The paper's rule for its groups is not published in full: here all rows of the sum with the same shift are a group. It has 4
# bits; digits need fewer for the scales to matter, so that here gradients have 2, weights and inputs 4.
SYSTEM = {
    "row": 143,
    "title": "Towards Accurate and Efficient Sub-8-Bit Integer Training",
    "mechanism": "g of 2 bits with scales s·2^-k_j along the inner axis j, sums by shifts; y = (x - μ) / mean|x - μ|",
    "evidence": "A",
    "functions": ["tersor.quant.pow2_scale", "tersor.quant.l1_normalize"],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["of_one_scale", "<=", 0.65],
        ["gap_kept", "<=", 0.85],
        ["over_float", ">=", -0.06],
        ["over_layer_norm", ">=", -0.03],
        ["shifts_apart", "<=", 1e-12],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
TOP, GTOP, LAST, STEPS, BATCH, RATE, WIDTH = 7, 1, 15, 300, 128, 0.3, 64


def nearest(x: Tensor) -> Tensor:
    """x in 4 bits by its peak."""
    unit = x.abs().amax() / TOP
    return (x / unit).round() * unit


def coded(g: Tensor, way: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """g in 2 bits and the scales of its rows; rounded at random, so that the mean is g."""
    peak = g.abs().amax(1, keepdim=True).clamp(min=g.abs().amax() * 2.0**-LAST)
    if way == "shift":
        base, k = quant.pow2_scale(peak)
        peak = base * 0.5**k
    unit = (peak.amax().expand_as(peak) if way == "one" else peak) / GTOP
    return (g / unit + torch.rand(g.shape, generator=generator)).floor().clamp(-GTOP, GTOP), unit


def product(g: Tensor, other: Tensor, way: str, generator: torch.Generator) -> Tensor:
    """gᵀ other, a sum over the rows of both, with g in 2 bits."""
    if way == "float":
        return g.T @ other
    q, unit = coded(g, way, generator)
    return (q * unit).T @ other


def shifted(q: Tensor, unit: Tensor, other: Tensor) -> Tensor:
    """The same sum in integers: rows of equal scales are summed alone, and their sums shifted and added."""
    k = (unit.amax() / unit).log2().round().long()[:, 0]
    total = sum((q[k == j].T.long() @ other[k == j].long()) << int(LAST - j) for j in k.unique())
    return total * (unit.amax().double() * 2.0**-LAST)


class Linear(torch.autograd.Function):
    """x wᵀ, both in 4 bits; of the gradients one is a sum over the columns of g, the other over its rows."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, way: str, generator: torch.Generator) -> Tensor:
        ctx.way, ctx.generator = way, generator
        x, w = (x, w) if way == "float" else (nearest(x), nearest(w))
        ctx.save_for_backward(x, w)
        return linear(x, w)

    @staticmethod
    def backward(ctx, g: Tensor):
        x, w = ctx.saved_tensors
        return product(g.T, w, ctx.way, ctx.generator), product(g, x, ctx.way, ctx.generator), None, None


class Net(nn.Module):
    def __init__(self, way: str, norm: str, seed: int) -> None:
        super().__init__()
        self.way, self.norm, self.generator = way, norm, torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in ((64, WIDTH), (WIDTH, WIDTH), (WIDTH, 10)))

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            if i:
                x = (quant.l1_normalize(x) if self.norm == "l1" else layer_norm(x, (WIDTH,))).relu()
            x = Linear.apply(x, layer.weight, self.way, self.generator) + layer.bias
        return x


def trained(net: Net, x: Tensor, y: Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        optimiser.zero_grad()
        cross_entropy(net(x[rows]), y[rows]).backward()
        optimiser.step()
        schedule.step()


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    result = {}
    for way, norm in (("float", "l1"), ("one", "l1"), ("free", "l1"), ("shift", "l1"), ("shift", "l2")):
        net = seeded(Net(way, norm, seed), seed)
        trained(net, x, y, seed)
        name = way if norm == "l1" else "layer_norm"
        result[name] = accuracy(net, tx, ty)
        with torch.no_grad():
            result[f"{name}_loss"] = float(cross_entropy(net(x), y))
        if name == "shift":
            made = net
    # the gradient of the logits of a trained net: samples that are learnt have almost none
    with torch.no_grad():
        g = made(x[:512]).softmax(-1)
        g[torch.arange(512), y[:512]] -= 1
        pixels = x[:512] * 16
        exact, generator = g.T @ pixels, torch.Generator().manual_seed(seed)
        error = {
            w: sum(float((product(g, pixels, w, generator) - exact).norm() ** 2) for _ in range(16))
            for w in ("one", "shift")
        }
        q, unit = coded(g, "shift", generator)
        whole = (q.double() * unit).T @ pixels.double()
        result["shifts_apart"] = float((shifted(q, unit, pixels) - whole).abs().amax() / whole.abs().amax())
    result["accuracy"] = result["shift"]
    result["of_one_scale"] = error["shift"] / error["one"]
    # of the loss that one scale adds to that of a scale for each row, what shifts keep
    added = result["one_loss"] - result["free_loss"]
    result["gap_kept"] = (result["shift_loss"] - result["free_loss"]) / added
    result["over_one"] = result["shift"] - result["one"]
    result["over_float"] = result["shift"] - result["float"]
    result["over_layer_norm"] = result["shift"] - result["layer_norm"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
