"""Layer-wise quantization (row 160): widths between whole bits. The rule: the layers that change little get the few bits."""

from functools import partial

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SYSTEM = {
    "row": 160,
    "title": "Layer-Wise Quantization: A Pragmatic and Effective Method for Quantizing LLMs Beyond Integer Bit-Levels",
    "mechanism": "layers by LIM = −cos(in, out) averaged, or by ZD = the share of weights with (w − μ)/σ > 1; "
    "the k least in 2 bits and the others in 4, any quantizer",
    "evidence": "A",
    "functions": [
        "tersor.quant.layer_cosine",
        "tersor.quant.zd_score",
        "tersor.quant.choose_qparams",
        "tersor.quant.fake_quantize",
    ],
    "data": "sklearn.datasets.load_digits",
    "claims": [
        ["lim_ratio", "<=", 0.8],
        ["lim_to_reversed", "<=", 0.7],
        ["lim_to_zd", "<=", 1.0],
        ["half_share", "<=", 0.35],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
DIM, INNER, DEPTH, HIGH, LOW = 48, 64, 10, 4, 2


class Net(nn.Module):
    """Blocks x + W₂ relu(W₁ norm(x)), as the layers of a language model are for these scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read, self.norm = nn.Linear(64, DIM), nn.Linear(DIM, 10), nn.LayerNorm(DIM)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, INNER), nn.ReLU(), nn.Linear(INNER, DIM))
            for _ in range(DEPTH)
        )

    def forward(self, x: Tensor, blocks: list | None = None, seen: list | None = None) -> Tensor:
        h = self.embed(x)
        for block in blocks or self.blocks:
            before, h = h, h + block(h)
            if seen is not None:
                seen.append((before, h))
        return self.read(self.norm(h))


def narrowed(block: nn.Sequential, bits: int) -> nn.Sequential:
    made = []
    for layer in block:
        if isinstance(layer, nn.Linear):
            scale, zero = quant.choose_qparams(layer.weight, f"uint{bits}", axis=0, symmetric=False)
            new = nn.Linear(layer.in_features, layer.out_features)
            new.weight.copy_(quant.fake_quantize(layer.weight, scale, zero, f"uint{bits}"))
            new.bias.copy_(layer.bias)
            layer = new
        made.append(layer)
    return nn.Sequential(*made)


@torch.no_grad()
def measured(net: Net, x: Tensor, tx: Tensor, ty: Tensor, generator: torch.Generator) -> dict[str, float]:
    seen: list[tuple[Tensor, Tensor]] = []
    net(x, seen=seen)
    # both the larger, the more a block matters: it turns what it gets, it has few weights that are far out
    lim = torch.stack([-quant.layer_cosine(before, after).mean() for before, after in seen])
    zd = torch.tensor([-quant.zd_score(torch.cat([b[1].weight.flatten(), b[3].weight.flatten()])) for b in net.blocks])
    high, low = ([narrowed(block, bits) for block in net.blocks] for bits in (HIGH, LOW))
    right = net(tx)

    def mixed(order: Tensor, k: int) -> list[nn.Sequential]:
        few = set(order[:k].tolist())
        return [low[n] if n in few else high[n] for n in range(DEPTH)]

    def off(order: Tensor, k: int) -> float:
        return float(((net(tx, mixed(order, k)) - right) ** 2).mean() / right.var())

    def over(order: Tensor) -> float:
        """The error of the logits, averaged over all widths strictly between LOW and HIGH bits."""
        return sum(off(order, k) for k in range(1, DEPTH)) / (DEPTH - 1)

    drawn = [over(torch.randperm(DEPTH, generator=generator)) for _ in range(16)]
    by_lim, half = lim.argsort(), DEPTH // 2
    result = {"off_lim": over(by_lim), "off_zd": over(zd.argsort()), "off_drawn": sum(drawn) / len(drawn)}
    result["lim_ratio"] = result["off_lim"] / result["off_drawn"]
    result["lim_to_reversed"] = result["off_lim"] / over(by_lim.flip(0))
    result["lim_to_zd"] = result["off_lim"] / result["off_zd"]
    # the first half of the blocks costs less than its share of what all of them cost
    result["half_share"] = (off(by_lim, half) - off(by_lim, 0)) / (off(by_lim, DEPTH) - off(by_lim, 0))
    for name, k in (("four_bits", 0), ("accuracy", half), ("two_bits", DEPTH)):
        result[name] = accuracy(partial(net, blocks=mixed(by_lim, k)), tx, ty)
    return result


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=300, rate=3e-3, seed=seed)
    return {"dense": accuracy(net, tx, ty)} | measured(net, x[:256], tx, ty, torch.Generator().manual_seed(seed))


if __name__ == "__main__":
    main(SYSTEM, run)
