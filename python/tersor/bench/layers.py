"""Compressed linear layers beside the dense one and other runtimes'. The one rule: a contender is measured as its users call
it, and every ratio that is asked for is one to torch's dense layer, or to the fastest of the peers that do the same.
"""

from collections.abc import Callable

import numpy as np

from tersor.bench import Call, Case, Target, _runtimes, called, peer

#: shares of torch's dense layer that are asked for: (bits, activations) -> by rows, of 4096 x 4096
SHARES = {
    (8, "float"): {1: 0.28, 16: 0.45, 128: 0.60},
    (4, "float"): {1: 0.20, 16: 0.40, 128: 0.58},
    (8, "int8"): {1: 0.13, 16: 0.12, 128: 0.17},
    (4, "int8"): {1: 0.07, 16: 0.14, 128: 0.20},
}


def _case(outs: int, inputs: int, rows: int, bits: int, activations: str) -> Case:
    import torch

    from tersor.nn import QuantLinear

    torch.manual_seed(0)
    torch.set_num_threads(1)
    linear, x = torch.nn.Linear(inputs, outs), torch.randn(rows, inputs)
    w, integers = linear.weight.detach().numpy(), activations == "int8"
    layer = QuantLinear.from_float(linear, "int8-row" if bits == 8 else "int4-g128", activations)
    a = np.ascontiguousarray(x.numpy())
    calls: dict[str, Call] = {
        "tersor": _runtimes._inference(layer, x),
        "dense": _runtimes._inference(linear, x),
        "onnxruntime bits": peer(lambda: _runtimes.onnxruntime_bits(w, a, bits, integers)),
        "openvino": peer(lambda: _runtimes.openvino_weights(w, a, bits, integers)),
    }
    if bits == 8:
        calls["torchao"] = peer(lambda: _runtimes.torchao(linear, x, integers))
        if integers:
            calls["torch dynamic"] = peer(lambda: _runtimes.torch_dynamic(linear, x))
            calls["onnxruntime int8"] = peer(lambda: _runtimes.onnxruntime_int8(w, a))
    elif not integers:
        calls["bitsandbytes nf4"] = peer(lambda: _runtimes.bitsandbytes4(linear, x))
    peers = tuple(name for name in calls if name not in ("tersor", "dense"))
    targets = [Target("tersor", peers, 1.0)]
    share = SHARES[bits, activations].get(rows) if outs == 4096 else 1.0
    if share:
        targets.insert(0, Target("tersor", ("dense",), share))
    plural = "row" if rows == 1 else "rows"
    return Case(f"int{bits}, {activations} activations, {rows} {plural} of {inputs}→{outs}", calls, targets=targets)


def _named(outs: int, inputs: int, rows: int, bits: int, activations: str) -> Callable[[], Case]:
    name = f"int{bits}_{activations}_{outs}x{inputs}_{rows}"
    return called(name, lambda: _case(outs, inputs, rows, bits, activations))


def _alone(scheme: str, outs: int, inputs: int, rows: int, share: float) -> Callable[[], Case]:
    """A layer beside the dense one, where no other runtime has such codes or nobody would measure another."""

    def case() -> Case:
        import torch

        from tersor.nn import QuantLinear

        torch.manual_seed(0)
        torch.set_num_threads(1)
        linear, x = torch.nn.Linear(inputs, outs), torch.randn(rows, inputs)
        layer = QuantLinear.from_float(linear, scheme)
        calls = {"tersor": _runtimes._inference(layer, x), "dense": _runtimes._inference(linear, x)}
        plural = "row" if rows == 1 else "rows"
        named = f"{scheme}, {rows} {plural} of {inputs}→{outs}"
        return Case(named, calls, targets=[Target("tersor", ("dense",), share)])

    return called(f"{scheme}_{outs}x{inputs}_{rows}", case)


def _conv(channels: int, side: int, share: float) -> Callable[[], Case]:
    """A convolution of 3 x 3 with rounded patches beside torch's, on an image whose channels lie beside each other."""

    def case() -> Case:
        import torch

        from tersor.nn import QuantConv2d

        torch.manual_seed(0)
        torch.set_num_threads(1)
        conv = torch.nn.Conv2d(channels, channels, 3, padding=1)
        x = torch.randn(1, channels, side, side)
        beside = x.to(memory_format=torch.channels_last)
        layer = QuantConv2d.from_float(conv, "int8-row", "int8")
        calls = {
            "tersor": _runtimes._inference(layer, beside),
            "dense": _runtimes._inference(conv, x),
            "dense channels-last": _runtimes._inference(conv, beside),
        }
        named = f"int8, int8 activations, 3 x 3, {side} x {side} pixels of {channels}→{channels}"
        return Case(named, calls, targets=[Target("tersor", ("dense", "dense channels-last"), share)])

    return called(f"conv_{channels}_{side}", case)


KINDS = [(8, "float"), (4, "float"), (8, "int8"), (4, "int8")]
CASES = [_named(4096, 4096, rows, *kind) for kind in KINDS for rows in (1, 16, 128)]
CASES += [_named(1536, 384, rows, *kind) for kind in KINDS for rows in (1, 16, 512)]
# small floats are no slower than dense by more than what their decoding takes; a small layer is what a call costs
CASES += [_alone(f"mxfp{kind}", 1536, 384, rows, 1.05) for kind in ("8_e4m3", "6_e3m2") for rows in (1, 16, 512)]
CASES += [_alone("int8-row", 32, 64, 1, 2.0)]
CASES += [_conv(64, 56, 2.0), _conv(256, 14, 0.5), _conv(512, 7, 0.3)]
HEADLINE = CASES[0]
