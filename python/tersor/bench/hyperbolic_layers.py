"""Hyperbolic layers against torch's Euclidean ones and HypLL's. The one rule: a layer stands beside the Euclidean layer of its
shape, forward and backward together unless the title says otherwise, and every contender gets the memory format it likes.
"""

from collections.abc import Callable
from typing import Any

from tersor.bench import Case, Target

Make = Callable[[Any], Any]


def _hypll() -> Any:
    """HypLL's ball, which its layers share."""
    from hypll.manifolds.poincare_ball import Curvature, PoincareBall

    return PoincareBall(Curvature(1.0, constraining_strategy=lambda c: c))


def _tagged(x: Any, ball: Any, dim: int) -> Any:
    from hypll.tensors import ManifoldTensor

    return ManifoldTensor(x, manifold=ball, man_dim=dim)


def _both(layer: Any, x: Any, g: Any) -> Callable[[], None]:
    x = x.detach().requires_grad_()
    parameters = [x, *layer.parameters()]

    def call() -> None:
        for p in parameters:
            p.grad = None
        layer(x).backward(g)

    return call


def _forward(layer: Any, x: Any) -> Callable[[], None]:
    import torch

    def call() -> None:
        with torch.no_grad():
            layer(x)

    return call


def _peer(make: Make, x: Any, g: Any, dim: int) -> Callable[[], None]:
    """HypLL's layer on points, forward and backward; made at the first call, so that its absence is shown as such."""
    made: list[Any] = []

    def call() -> None:
        if not made:
            ball = _hypll()
            made.append((make(ball), x.detach().requires_grad_(), ball))
        layer, leaf, ball = made[0]
        leaf.grad = None
        layer(_tagged(leaf, ball, dim)).tensor.backward(g)

    return call


def _linear(n: int, i: int, o: int, limit: float) -> Case:
    import torch

    from tersor import nn as tnn

    torch.manual_seed(0)
    x, g = torch.randn(n, i) * 0.1, torch.randn(n, o)

    def peer(ball: Any) -> Any:
        from hypll.nn import HLinear

        return HLinear(i, o, manifold=ball)

    return Case(
        f"PoincareLinear f32 {n}×{i}→{o}, forward + backward",
        {
            "tersor": _both(tnn.PoincareLinear(i, o), x, g),
            "tersor ball": _both(tnn.PoincareLinear(i, o, ball=True), x, g),
            "nn.Linear": _both(torch.nn.Linear(i, o), x, g),
            "hypll": _peer(peer, x, g, 1),
        },
        targets=[Target("tersor", ("nn.Linear",), limit)],
    )


def linear_65536x64() -> Case:
    return _linear(65536, 64, 64, 2.0)


def linear_16384x256() -> Case:
    return _linear(16384, 256, 256, 1.4)


def conv_8x32x32x32() -> Case:
    import torch

    from tersor import nn as tnn

    torch.manual_seed(0)
    x, g = torch.randn(8, 32, 32, 32) * 0.1, torch.randn(8, 32, 32, 32)
    last = torch.channels_last
    ours, plain = tnn.PoincareConv2d(32, 32, 3, padding=1), torch.nn.Conv2d(32, 32, 3, padding=1)

    def peer(ball: Any) -> Any:
        from hypll.nn import HConvolution2d

        return HConvolution2d(32, 32, 3, manifold=ball, padding=1)

    return Case(
        "PoincareConv2d 3×3 f32 8×32×32×32→32, forward + backward",
        {
            "tersor": _both(ours, x.contiguous(memory_format=last), g.contiguous(memory_format=last)),
            "tersor channels first": _both(ours, x, g),
            "tersor forward": _forward(ours, x.contiguous(memory_format=last)),
            "nn.Conv2d": _both(plain, x, g),
            "nn.Conv2d channels last": _both(plain, x.contiguous(memory_format=last), g.contiguous(memory_format=last)),
            "nn.Conv2d forward": _forward(plain, x),
            "hypll": _peer(peer, x, g, 1),
        },
        targets=[
            Target("tersor", ("nn.Conv2d", "nn.Conv2d channels last"), 3.5),
            Target("tersor channels first", ("nn.Conv2d",), 3.5),
            Target("tersor forward", ("nn.Conv2d forward",), 3.0),
        ],
    )


def batch_norm_8192x64() -> Case:
    import torch

    from tersor import nn as tnn

    torch.manual_seed(0)
    x, g = torch.randn(8, 64, 32, 32) * 0.1, torch.randn(8, 64, 32, 32)
    last = torch.channels_last

    def peer(ball: Any) -> Any:
        from hypll.nn import HBatchNorm2d

        return HBatchNorm2d(64, manifold=ball, use_midpoint=True)

    return Case(
        "PoincareBatchNorm f32 8192 rows of 64, forward + backward",
        {
            "tersor": _both(
                tnn.PoincareBatchNorm(64), x.contiguous(memory_format=last), g.contiguous(memory_format=last)
            ),
            "tersor ball": _both(
                tnn.PoincareBatchNorm(64, ball=True), x.contiguous(memory_format=last), g.contiguous(memory_format=last)
            ),
            "nn.BatchNorm2d": _both(torch.nn.BatchNorm2d(64), x, g),
            "hypll": _peer(peer, x, g, 1),
        },
        targets=[Target("tersor", ("nn.BatchNorm2d",), 4.0)],
    )


CASES = [linear_65536x64, linear_16384x256, conv_8x32x32x32, batch_norm_8192x64]
