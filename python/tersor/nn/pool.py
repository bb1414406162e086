"""Average pooling. The one rule: the average of points is their midpoint."""

from __future__ import annotations

from torch import Tensor, nn

from tersor import hyperbolic
from tersor.nn.curvature import Curvature, curvature

Pair = int | tuple[int, int]


class PoincareAvgPool2d(nn.Module):
    """Midpoints of the windows of images whose pixels are vectors along the channels.

    Parameters
    ----------
    kernel_size : int, pair or None
        The window; None: the whole image.
    stride : int, pair or None
        None: the size of the window. Windows lie inside the image.
    c, learnable, ball, eps
        As `PoincareLinear` takes them.
    """

    def __init__(
        self,
        kernel_size: Pair | None = None,
        stride: Pair | None = None,
        c: float | Curvature = 1.0,
        *,
        learnable: bool = False,
        ball: bool = False,
        eps: float | str = "tight",
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride if stride is not None else kernel_size
        self.curvature, self.ball, self.eps = curvature(c, learnable), ball, eps

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"PoincareAvgPool2d: images [B, C, H, W] are needed, got {tuple(x.shape)}")
        c = self.curvature()
        points = x if self.ball else hyperbolic.expmap0(x, c, dim=1)
        if self.kernel_size is None:
            y = hyperbolic.weighted_midpoint(points, None, c, self.eps, reducedim=(2, 3), dim=1, keepdim=True)
        else:
            k, s = ((v, v) if isinstance(v, int) else v for v in (self.kernel_size, self.stride or self.kernel_size))
            windows = points.unfold(2, k[0], s[0]).unfold(3, k[1], s[1])
            y = hyperbolic.weighted_midpoint(windows, None, c, self.eps, reducedim=(4, 5), dim=1)
        z: Tensor = y if self.ball else hyperbolic.logmap0(y, c, dim=1)
        return z

    def extra_repr(self) -> str:
        size = "" if self.kernel_size is None else f"kernel_size={self.kernel_size}, stride={self.stride}"
        return ", ".join([size] * bool(size) + ["ball"] * self.ball)
