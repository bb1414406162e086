"""I-Segmenter (row 171): a transformer without a float after calibration. The rule: shifts stand for exp, GELU and norms."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, layer_norm

# The segmenter's lambda of ShiftGELU has no published formula that was read; the operators here are those of I-ViT.
SYSTEM = {
    "row": 171,
    "title": "I-Segmenter: Integer-Only Vision Transformer for Efficient Semantic Segmentation",
    "mechanism": "W8A8 products in int32, Shiftmax, ShiftGELU, I-LayerNorm, scales as m/2^e, residuals of 16 bits",
    "evidence": "v",
    "functions": [
        "tersor.quant.shiftmax",
        "tersor.quant.shift_gelu",
        "tersor.quant.int_layernorm",
        "tersor.quant.dyadic",
        "tersor.quant.requantize",
    ],
    "data": "sklearn.datasets.load_digits, a row of pixels is a token",
    "claims": [
        ["over_float", ">=", -0.01],
        ["of_narrow", "<=", 0.5],
        ["of_relu", "<=", 0.65],
        ["of_hard", "<=", 0.5],
        ["roots_apart", "<=", 0.0],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
DIM, INNER, HEADS, TOKENS = 32, 64, 2, 9


class Net(nn.Module):
    """One block of attention and one of a perceptron over the rows of an image; it keeps the peaks of what it passes on."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read = nn.Linear(8, DIM), nn.Linear(DIM, 10)
        self.place, self.cls = nn.Parameter(torch.zeros(TOKENS, DIM)), nn.Parameter(torch.zeros(1, DIM))
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.up, self.down = nn.Linear(DIM, INNER), nn.Linear(INNER, DIM)
        self.peaks: dict[str, float] = {}

    def seen(self, name: str, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            self.peaks[name] = max(self.peaks.get(name, 0.0), float(x.abs().amax()))
        return x

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.cls.expand(len(x), 1, DIM), self.embed(x.view(-1, 8, 8))], 1) + self.place
        a = self.seen("normed", layer_norm(self.seen("stream", h), (DIM,)))
        q, k, v = self.seen("qkv", self.qkv(a)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        share = self.seen("score", q @ k.mT / (DIM / HEADS) ** 0.5).softmax(-1)
        h = self.seen("stream", h + self.out(self.seen("mixed", (share @ v).transpose(1, 2).flatten(2))))
        inner = self.seen("inner", self.up(self.seen("normed", layer_norm(h, (DIM,)))))
        h = self.seen("stream", h + self.down(self.seen("gelu", gelu(inner))))
        return self.read(self.seen("normed", layer_norm(h, (DIM,)))[:, 0])


class Whole:
    """The net in integers: every tensor that it passes on is of codes, every scale a number known before."""

    def __init__(self, net: Net, bits: int = 16, soft: bool = True, smooth: bool = True, root: str = "newton") -> None:
        self.net, self.soft, self.smooth, self.root = net, soft, smooth, root
        self.s = {name: peak / 127 for name, peak in net.peaks.items()}
        self.s["stream"] = net.peaks["stream"] / (2 ** (bits - 1) - 1)
        self.stream = f"int{bits}"

    def to(self, z: Tensor, have: float | Tensor, name: str, dtype: str = "int8") -> Tensor:
        """Sums of the scale `have` as codes of the scale of that name."""
        m, e = quant.dyadic(have / self.s[name])
        return quant.requantize(z, m, e, dtype).long()

    def dense(self, layer: nn.Linear, a: Tensor, s: float, alike: bool = False) -> tuple[Tensor, Tensor]:
        """Sums of 32 bits, and their scale: one for each feature, or one for all so that they can be compared."""
        w = layer.weight.double()
        scale = (w.abs().amax() if alike else w.abs().amax(1)) / 127
        codes, bias = (w.T / scale).round().long(), (layer.bias.double() / (s * scale)).round().long()
        return a @ codes + bias, s * scale

    def normed(self, h: Tensor) -> Tensor:
        return self.to(quant.int_layernorm(h, root=self.root), DIM**0.5 / 2**30, "normed")

    def __call__(self, x: Tensor) -> Tensor:
        net, s = self.net, self.s
        pixels = (x * 16).long()  # they are integers from 0 to 16
        rows = self.to(*self.dense(net.embed, pixels.view(-1, 8, 8), 1 / 16), "stream", self.stream)
        place, cls = ((p.double() / s["stream"]).round().long() for p in (net.place, net.cls))
        h = torch.cat([cls.expand(len(x), 1, DIM), rows], 1) + place
        qkv = self.to(*self.dense(net.qkv, self.normed(h), s["normed"]), "qkv")
        q, k, v = qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        score = self.to(q @ k.mT, s["qkv"] ** 2 / (DIM / HEADS) ** 0.5, "score")
        # without the exponential all weight is that of the largest score
        hard = 127 * (score == score.amax(-1, keepdim=True))
        share = quant.shiftmax(score, s["score"]).long() if self.soft else hard
        mixed = self.to((share @ v).transpose(1, 2).flatten(2), s["qkv"] / 2**7, "mixed")
        h = h + self.to(*self.dense(net.out, mixed, s["mixed"]), "stream", self.stream)
        inner = self.to(*self.dense(net.up, self.normed(h), s["normed"]), "inner")
        bent = quant.shift_gelu(inner, s["inner"]).long() if self.smooth else inner.clamp(min=0) << 7
        down = self.dense(net.down, self.to(bent, s["inner"] / 2**7, "gelu"), s["gelu"])
        h = h + self.to(*down, "stream", self.stream)
        z, scale = self.dense(net.read, self.normed(h)[:, 0], s["normed"], alike=True)
        assert not z.is_floating_point()
        self.unit = float(scale)  # what a step of the logits is worth: to be compared, not to decide
        return z


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=500, rate=4e-3, seed=seed)
    with torch.no_grad():
        net(x[:256])
        result = {"float": accuracy(net, tx, ty)}
        made = {
            "whole": Whole(net),
            "narrow": Whole(net, bits=8),
            "hard": Whole(net, soft=False),
            "relu": Whole(net, smooth=False),
        }
        z = {name: made[name](tx) for name in made}
        logits = net(tx)
        apart = {name: float((z[name] * made[name].unit - logits).norm() / logits.norm()) for name in made}
        exact = Whole(net, root="exact")(tx)
    result |= {f"{name}_error": error for name, error in apart.items()}
    result["accuracy"] = float((z["whole"].argmax(-1) == ty).double().mean())
    result["over_float"] = result["accuracy"] - result["float"]
    # the error of the logits with residuals of 16 bits against 8, Shiftmax against the maximum, ShiftGELU against ReLU
    for name in ("narrow", "hard", "relu"):
        result[f"of_{name}"] = apart["whole"] / apart[name]
    # ten steps of Newton from 2^16 are the root while sums of squares lie between 2^15 and 2^48
    result["roots_apart"] = float((exact != z["whole"]).double().mean())
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
