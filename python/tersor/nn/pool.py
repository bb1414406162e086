"""Average pooling. The one rule: the average of points is their midpoint."""

from __future__ import annotations

from torch import Tensor, nn

from tersor import hyperbolic
from tersor._arrays import sizes
from tersor.hyperbolic._words import margin
from tersor.nn._cast import accept, exactly
from tersor.nn.conv import Pair, pair
from tersor.nn.curvature import Curvature, curvature


class PoincareAvgPool2d(nn.Module):
    """Midpoints of the windows of images whose pixels are vectors along the channels.

    Parameters
    ----------
    kernel_size : int, pair or None
        The window; None: the whole image.
    stride : int, pair or None
        None: the size of the window.
    padding : int or pair
        How far windows may reach past the border; what lies there has no part in a midpoint.
    c, learnable, ball, eps
        As `PoincareLinear` takes them.
    """

    def __init__(
        self,
        kernel_size: Pair | None = None,
        stride: Pair | None = None,
        padding: Pair = 0,
        c: float | nn.Parameter | Curvature = 1.0,
        *,
        learnable: bool = False,
        ball: bool = False,
        eps: float | str = "tight",
    ) -> None:
        super().__init__()
        for name, given in (("kernel_size", kernel_size), ("stride", stride)):
            if given is not None:
                pair(self, name, given, 1)
        pair(self, "padding", padding, 0)
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = stride if stride is not None else kernel_size
        self.curvature, self.ball, self.eps = curvature(c, learnable), ball, margin(type(self).__name__, "eps", eps)

    def forward(self, x: Tensor) -> Tensor:
        accept(self, x)
        if x.ndim not in (3, 4):
            raise ValueError(
                f"PoincareAvgPool2d: images [B, C, H, W] or [C, H, W] are needed, got shape {sizes(x.shape)}"
            )
        if x.ndim == 3:
            return self.forward(x[None])[0]
        c = self.curvature()
        flat = {"tangent": not self.ball}
        if self.kernel_size is None:
            whole = {"reducedim": (2, 3), "dim": 1, "keepdim": True, **flat}
            return exactly(hyperbolic.weighted_midpoint, x, None, c, self.eps, **whole)
        size = (self.kernel_size, self.stride, self.padding)
        return exactly(hyperbolic.window_midpoint, x.movedim(1, -1), *size, c, self.eps, **flat).movedim(-1, 1)

    def extra_repr(self) -> str:
        size = (
            ""
            if self.kernel_size is None
            else f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        )
        return ", ".join([size] * bool(size) + ["ball"] * self.ball)
