"""RepQ-ViT (row 189): quantize with the quantizer that fits, run with the one that is cheap; 4 bits everywhere."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

SYSTEM = {
    "row": 189,
    "title": "RepQ-ViT: Scale Reparameterization for Post-Training Quantization of Vision Transformers",
    "mechanism": "s_c, z_c of each channel of a norm's result become one s̃ = mean s_c, γ, β and W, b take r = s/s̃; "
    "softmax in steps of √2, run in steps of 2; ranges from three percentiles",
    "evidence": "V",
    "functions": [
        "tersor.quant.repq_reparam",
        "tersor.quant.fake_quantize",
        "tersor.quant.quantize",
        "tersor.quant.choose_qparams",
        "tersor.quant.quantize_log",
        "tersor.quant.fake_quantize_log",
    ],
    "data": "sklearn.datasets.load_digits, a row of pixels is a token",
    "claims": [
        ["norm_ratio", "<=", 0.58],
        ["moved_codes", "<=", 0.001],
        ["root_ratio", "<=", 0.63],
        ["small_ratio", "<=", 0.66],
        ["folded_gap", "<=", 1e-6],
        ["over_layerwise", ">=", 0.0],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
DIM, INNER, HEADS, TOKENS, BITS = 32, 64, 2, 9, 4
CODES = f"uint{BITS}"
At = Callable[[str, Tensor], Tensor]


class Net(nn.Module):
    """A block of a vision transformer; `at` is given what each product takes, by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read = nn.Linear(8, DIM), nn.Linear(DIM, 10)
        self.place, self.cls = nn.Parameter(torch.zeros(TOKENS, DIM)), nn.Parameter(torch.zeros(1, DIM))
        self.first, self.second = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.up, self.down = nn.Linear(DIM, INNER), nn.Linear(INNER, DIM)

    def forward(self, x: Tensor, at: At = lambda _, v: v) -> Tensor:
        t = torch.cat([self.cls.expand(len(x), 1, DIM), self.embed(x.view(-1, 8, 8))], 1) + self.place
        q, k, v = self.qkv(at("first", self.first(t))).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        share = at("share", (q @ k.mT / (DIM / HEADS) ** 0.5).softmax(-1))
        t = t + self.out(at("mixed", (share @ v).transpose(1, 2).flatten(2)))
        t = t + self.down(at("inner", gelu(self.up(at("second", self.second(t))))))
        return self.read(t[:, 0])


def searched(x: Tensor, kept: bool = False) -> tuple[Tensor, Tensor]:
    """Scale and zero point of a tensor or of each channel: of three percentiles the one with the least squared error.

    The range holds 0, so that the zero point is a code; the published code leaves it free."""
    rows = x.reshape(-1, x.shape[-1] if kept else 1)
    best, found = torch.full((rows.shape[1],), torch.inf), None
    for p in (0.999, 0.9999, 0.99999):
        low, high = rows.quantile(1 - p, 0).clamp(max=0), rows.quantile(p, 0).clamp(min=0)
        scale = (high - low).clamp(min=1e-8) / (2**BITS - 1)
        made = torch.stack([scale, (-low / scale).round()])
        error = ((quant.fake_quantize(rows, made[:1], made[1:], CODES) - rows) ** 2).mean(0)
        found = made if found is None else torch.where(error < best, made, found)
        best = torch.minimum(error, best)
    return found[0], found[1]


def searched_log(x: Tensor, base: str | int) -> float:
    tops = [float(x.flatten().quantile(p)) for p in (0.999, 0.9999, 0.99999)]
    return min(tops, key=lambda top: float(((quant.fake_quantize_log(x, top, BITS, base=base) - x) ** 2).sum()))


def folded(x: Tensor, top: float) -> Tensor:
    """Codes in steps of √2 as shifts of two scales: 2^-⌈q/2⌉ s, s larger by √2 where q is odd."""
    q = quant.quantize_log(x, top, BITS, base="sqrt2").long()
    value = top * torch.where(q % 2 == 1, 2**0.5, 1.0) * 2.0 ** -((q + 1) // 2)
    return torch.where(q == 2**BITS, 0.0, value)


def deployed(net: Net, one: dict[str, tuple[Tensor, Tensor]], share: Callable[[Tensor], Tensor]) -> partial:
    """What the net does with weights of 4 bits, a scale for each row, and with 4 bits for all that products take."""
    made = copy.deepcopy(net)
    for layer in (made.qkv, made.out, made.up, made.down):
        scale, zero = quant.choose_qparams(layer.weight, CODES, axis=0, symmetric=False, method="mse")
        layer.weight.copy_(quant.fake_quantize(layer.weight, scale, zero, CODES))
    return partial(made, at=lambda name, v: share(v) if name == "share" else quant.fake_quantize(v, *one[name], CODES))


def taken(net: Net, x: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    net(x, lambda name, v: seen.setdefault(name, v))
    return seen


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    generator = torch.Generator().manual_seed(seed)
    for norm in (net.first, net.second):  # digits leave channels even; gains start as uneven as a large model's end
        norm.weight.data = torch.randn(DIM, generator=generator).exp()
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=500, rate=6e-3, seed=seed)
    with torch.no_grad():
        seen, held = taken(net, x[:256]), taken(net, tx)
        one = {name: searched(v) for name, v in seen.items()}
        plain, s = dict(one), held["share"]
        top, small = searched_log(seen["share"], "sqrt2"), s < s.median()
        off = folded(s, top) - s
        off2 = quant.fake_quantize_log(s, searched_log(seen["share"], 2), BITS, base=2) - s
        result = {"dense": accuracy(net, tx, ty), "root_ratio": float((off**2).mean() / (off2**2).mean())}
        # over all shares of nine tokens an even grid errs as little: it is the many small ones that it takes for 0
        even = quant.fake_quantize(s, *one["share"], CODES) - s
        result["small_ratio"] = float((off[small] ** 2).mean() / (even[small] ** 2).mean())
        result["folded_gap"] = float((off + s - quant.fake_quantize_log(s, top, BITS)).abs().max())
        repq, moved, errors = copy.deepcopy(net), [], torch.zeros(2)
        for norm, layer in (("first", "qkv"), ("second", "up")):
            a, b = getattr(repq, norm), getattr(repq, layer)
            scale, zero = searched(seen[norm], kept=True)
            codes = quant.quantize(held[norm], scale[None, None], zero[None, None], CODES)
            right, unit = b(held[norm]), (held[norm] - a.bias) / a.weight
            errors[0] += ((b(quant.fake_quantize(held[norm], *plain[norm], CODES)) - right) ** 2).mean() / right.var()
            new = quant.repq_reparam(a.weight, a.bias, b.weight, b.bias, scale, zero)
            for p, value in zip((a.weight, a.bias, b.weight, b.bias), new[:4], strict=True):
                p.copy_(value)
            one[norm], v = (new.scale, new.zero_point), unit * a.weight + a.bias
            errors[1] += ((b(quant.fake_quantize(v, *one[norm], CODES)) - right) ** 2).mean() / right.var()
            moved.append(float((quant.quantize(v, *one[norm], CODES) != codes).double().mean()))
        result |= {"moved_codes": max(moved), "norm_ratio": float(errors[1] / errors[0])}
        layerwise = deployed(net, plain, lambda v: quant.fake_quantize(v, *plain["share"], CODES))
        result["layerwise"] = accuracy(layerwise, tx, ty)
        result["accuracy"] = accuracy(deployed(repq, one, lambda v: folded(v, top)), tx, ty)
    result["over_layerwise"] = result["accuracy"] - result["layerwise"]
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
