"""CalibTIP (row 62): a layer is calibrated to give what it gave. The rule: each alone, then widths by an integer program."""

import torch
from _common import accuracy, digits, main, seeded, train
from tersor import quant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

SYSTEM = {
    "row": 62,
    "title": "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer Programming",
    "mechanism": "AdaQuant: min |W x + b − (Ŵ x̂ + b̂)|² of each layer over W, b, scales and zero points of weights and of x; "
    "widths: min Σ_l ΔL_l(k_l) under a size",
    "evidence": "V",
    "functions": ["tersor.quant.fake_quantize", "tersor.quant.choose_qparams", "tersor.quant.bit_allocate"],
    "data": "sklearn.datasets.load_digits, 200 images to calibrate",
    "claims": [
        ["layer_ratio", "<=", 0.6],
        ["grids_ratio", "<=", 0.68],
        ["net_ratio", "<=", 0.69],
        ["program_ratio", "<=", 0.87],
    ],
    "figure": "accuracy",
    "seconds": 40,
}
WIDTHS = (64, 64, 48, 48, 10)
BITS = (2, 3, 4, 6)
#: bits a weight on average, bits of what layers take, images, steps of Adam
MEAN, ACTIVATIONS, IMAGES, STEPS = 3, 4, 200, 150


class Layer:
    """A linear layer in codes: weights of `bits` with a scale for each row, inputs of ACTIVATIONS, one scale for all."""

    def __init__(self, layer: nn.Linear, x: Tensor, bits: int) -> None:
        self.codes, self.taken = f"uint{bits}", f"uint{ACTIVATIONS}"
        self.weight, self.bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        self.ws, self.wz = (v.float() for v in quant.choose_qparams(self.weight, self.codes, axis=0, symmetric=False))
        self.xs, self.xz = (v.float() for v in quant.choose_qparams(x, self.taken, symmetric=False))

    def __call__(self, x: Tensor) -> Tensor:
        w = quant.fake_quantize(self.weight, self.ws, self.wz, self.codes, grad="lsq")
        return linear(quant.fake_quantize(x, self.xs, self.xz, self.taken, grad="lsq"), w, self.bias)

    def calibrated(self, x: Tensor, y: Tensor, generator: torch.Generator, grids: bool = True) -> "Layer":
        """AdaQuant: weights, bias and grids to the y that the layer gave on x, in batches of 50."""
        rates = {"weight": 1e-3, "bias": 1e-3, **({"ws": 1e-3, "wz": 1e-3, "xs": 1e-3, "xz": 1e-2} if grids else {})}
        optimiser = torch.optim.Adam(
            [{"params": [getattr(self, k).requires_grad_()], "lr": r} for k, r in rates.items()]
        )
        for _ in range(STEPS):
            i = torch.randint(len(x), (50,), generator=generator)
            optimiser.zero_grad()
            ((self(x[i]) - y[i]) ** 2).mean().backward()
            optimiser.step()
            with torch.no_grad():  # a zero point is a code
                self.wz.clamp_(0, 2 ** int(self.codes[4:]) - 1)
                self.xz.clamp_(0, 2**ACTIVATIONS - 1)
        for k in rates:
            getattr(self, k).requires_grad_(False)
        return self


def through(layers: list, x: Tensor) -> list[Tensor]:
    """What each layer takes, and at the end the logits."""
    taken = [x]
    for n, layer in enumerate(layers):
        y = layer(taken[-1])
        taken.append(y.relu() if n < len(layers) - 1 else y)
    return taken


def run(seed: int = 0, split: int = 0) -> dict[str, float]:
    x, y, tx, ty = digits(split)
    sizes = (64, *WIDTHS)
    net = seeded(nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, WIDTHS, strict=False)), seed)
    train(net, lambda i: cross_entropy(through(net, x[i])[-1], y[i]), len(x), steps=400, rate=4e-3, seed=seed)
    net.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    x = x[:IMAGES]
    seen, held = through(net, x), through(net, tx)
    result = {"dense": accuracy(lambda v: through(net, v)[-1], tx, ty)}
    made, errors = {}, {}
    for n, layer in enumerate(net):
        y, want = layer(seen[n]), layer(held[n])
        for bits in BITS:
            kinds = {"rounded": Layer(layer, seen[n], bits)}
            kinds["all"] = Layer(layer, seen[n], bits).calibrated(seen[n], y, generator)
            if bits == BITS[0]:
                kinds["weights"] = Layer(layer, seen[n], bits).calibrated(seen[n], y, generator, grids=False)
            for kind, q in kinds.items():
                made[kind, n, bits] = q
                errors[kind, n, bits] = float(((q(held[n]) - want) ** 2).mean() / want.var())
    for kind in ("rounded", "weights", "all"):
        result["error_" + kind] = sum(errors[kind, n, BITS[0]] for n in range(len(net)))
    result["layer_ratio"] = result["error_all"] / result["error_rounded"]
    result["grids_ratio"] = result["error_all"] / result["error_weights"]

    def off(layers: list, v: Tensor, logits: Tensor) -> float:
        return float(((through(layers, v)[-1] - logits) ** 2).mean() / logits.var())

    for kind in ("rounded", "all"):
        layers = [made[kind, n, BITS[0]] for n in range(len(net))]
        result["off_" + kind] = off(layers, tx, held[-1])
        result["two_bits_" + kind] = accuracy(lambda v, q=layers: through(q, v)[-1], tx, ty)
    result["net_ratio"] = result["off_all"] / result["off_rounded"]

    # ΔL of a layer at a width alone: of the logits, as 200 images that the net was trained on have next to no other loss (ours)
    loss = [[off([*net[:n], made["all", n, b], *net[n + 1 :]], x, seen[-1]) for b in BITS] for n in range(len(net))]
    cost = torch.tensor([[layer.weight.numel() * float(b) for b in BITS] for layer in net])
    budget = MEAN * sum(layer.weight.numel() for layer in net)

    def put(choice: Tensor) -> list:
        return [made["all", n, BITS[int(k)]] for n, k in enumerate(choice)]

    chosen = put(quant.bit_allocate(torch.tensor(loss), cost, budget).choice)
    drawn = torch.randint(len(BITS), (2000, len(net)), generator=generator)
    size = cost.expand(2000, -1, -1).gather(2, drawn[..., None]).sum((1, 2))
    others = [off(put(choice), tx, held[-1]) for choice in drawn[(size <= budget) & (size > 0.9 * budget)][:24]]
    result |= {"off_program": off(chosen, tx, held[-1]), "off_drawn": sum(others) / len(others)}
    result["program_ratio"] = result["off_program"] / result["off_drawn"]  # to choices of about the same size
    result["accuracy"] = accuracy(lambda v: through(chosen, v)[-1], tx, ty)
    return result


if __name__ == "__main__":
    main(SYSTEM, run)
