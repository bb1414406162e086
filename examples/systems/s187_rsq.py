"""RSQ (row 187): important tokens have more say in codes of 2 bits. The rule: rotate, weigh by attention, solve."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import project, quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

SYSTEM = {
    "row": 187,
    "title": "RSQ: Learning from Important Tokens Leads to Better Quantized LLMs",
    "mechanism": "H = Σ w_t x_t x_tᵀ, w_t the attention that token t receives, on inputs turned by H_n diag(±1); codes by GPTQ",
    "evidence": "V",
    "functions": ["tersor.quant.hessian", "tersor.quant.gptq", "tersor.project.fwht", "tersor.quant.dequantize"],
    "data": "sklearn.datasets.load_digits, a row of pixels is a token",
    "claims": [
        ["of_rounding", "<=", 0.5],
        ["heavy_ratio", "<=", 0.84],
        ["turned_outlier", "<=", 0.9],
        ["over_rounding", ">=", 0.0],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
DIM, INNER, HEADS, TOKENS = 32, 64, 2, 9
#: the weights of tokens reach from LEAST to 1 before they are made 1 on average, as the paper's scripts have it
LEAST = 0.005


class Net(nn.Module):
    """One block of attention and one of a perceptron over the rows of an image and a token that is read out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read = nn.Linear(8, DIM), nn.Linear(DIM, 10)
        self.place, self.cls = nn.Parameter(torch.zeros(TOKENS, DIM)), nn.Parameter(torch.zeros(1, DIM))
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.up, self.down = nn.Linear(DIM, INNER), nn.Linear(INNER, DIM)

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = torch.cat([self.cls.expand(len(x), 1, DIM), self.embed(x.view(-1, 8, 8))], 1) + self.place
        q, k, v = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        share = (q @ k.mT / (DIM / HEADS) ** 0.5).softmax(-1)
        return tokens + self.out((share @ v).transpose(1, 2).flatten(2)), share

    def forward(self, x: Tensor, up: Tensor | None = None, down: Tensor | None = None) -> Tensor:
        h, _ = self.attend(x)
        inner = linear(h, self.up.weight if up is None else up, self.up.bias).relu()
        return self.read((h + linear(inner, self.down.weight if down is None else down, self.down.bias))[:, 0])


def turned(x: Tensor, signs: Tensor) -> Tensor:
    """x turned so that what one feature carries is spread over all: x diag(±1) H/√n. For weights and inputs alike, y stays."""
    return project.fwht(x * signs, norm="ortho")


def solved(w: Tensor, h: Tensor | None) -> Tensor:
    """w in codes of 2 bits, solved with h or rounded."""
    if h is None:
        scale, zero = quant.choose_qparams(w, "uint2", axis=0, symmetric=False)
        return quant.dequantize(quant.quantize(w, scale, zero, "uint2"), scale, zero)
    made = quant.gptq(w, h, "uint2", symmetric=False)
    return quant.dequantize(made.codes, made.scale, made.zero_point)


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    net = seeded(Net(), seed)
    train(net, lambda i: cross_entropy(net(x[i]), y[i]), len(x), steps=700, rate=4e-3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        h, share = net.attend(x[:256])
        received = share.sum((1, 2))  # over heads and queries
        low, high = received.amin(1, keepdim=True), received.amax(1, keepdim=True)
        weight = LEAST + (1 - LEAST) * (received - low) / (high - low)
        weight = weight / weight.mean()
        inner = net.up(h).relu()
        result, errors = {"dense": accuracy(net, tx, ty)}, {}
        for name in ("rounded", "even", "heavy"):
            made = []
            for w, a in ((net.up.weight, h), (net.down.weight, inner)):
                signs = torch.randint(0, 2, (w.shape[1],), generator=generator) * 2.0 - 1
                r, t = turned(w, signs), turned(a, signs)
                gram = None if name == "rounded" else quant.hessian(t, weights=weight if name == "heavy" else None)
                back = project.fwht(solved(r, gram), norm="ortho") * signs
                made.append(back)
                errors.setdefault(name, []).append(((linear(a, back - w) ** 2).sum(-1) * weight).sum())
                result["turned_outlier"] = float(t.abs().amax() / t.std() / (a.abs().amax() / a.std()))
            result[name] = accuracy(lambda v, m=made: net(v, *m), tx, ty)
    result["accuracy"] = result["heavy"]
    result["over_rounding"] = result["heavy"] - result["rounded"]
    result["of_rounding"] = float(sum(errors["heavy"]) / sum(errors["rounded"]))
    # the error of the tokens that matter, with their weights in H against without them
    result["heavy_ratio"] = float(sum(errors["heavy"]) / sum(errors["even"]))
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
