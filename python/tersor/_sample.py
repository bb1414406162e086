"""Inputs for an operator, drawn from a seed: what tests, benchmarks and users' property tests feed the registry with.

The rule of this file: a sample is a function of a `Draw` alone, so that the same draw gives the same arrays everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tersor._arrays import numpy_type

__all__ = ["Draw", "Planes", "Quantized", "Rows"]


@dataclass
class Draw:
    """What a sample may depend on: a seed, a dtype, a shape, a scale and a curvature."""

    seed: int = 0
    dtype: str = "float64"
    lead: tuple[int, ...] = (5,)
    d: int = 8
    scale: float = 1.0
    c: float = 1.0
    #: the curvature as one number per row, [..., 1]
    c_rows: bool = False
    rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def cast(self, x: Any) -> np.ndarray:
        """`x` in the draw's dtype."""
        return np.asarray(x, numpy_type(self.dtype))

    def normal(self, *shape: int) -> np.ndarray:
        """Gaussian entries of the draw's scale."""
        return self.cast(self.rng.standard_normal(shape) * self.scale)


class Rows:
    """Rows ``[..., d]`` for the hyperbolic operators, then the curvature.

    Parameters
    ----------
    kinds : "tangent" (norm up to the scale), "ball" (distance from 0 up to the scale), "g" (a gradient), "row"
        (one number per row) or "factor" (the same, with an axis of 1), in the order of the operator's inputs.
    flat : whether the operator takes no curvature
    """

    def __init__(self, *kinds: str, flat: bool = False) -> None:
        self.kinds = kinds
        self.flat = flat

    def __call__(self, draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        c: Any = draw.c
        if draw.c_rows:
            c = draw.cast(draw.c * draw.rng.uniform(0.5, 1.5, (*draw.lead, 1)))
        return [self.one(draw, kind, c) for kind in self.kinds] + ([] if self.flat else [c]), {}

    def one(self, draw: Draw, kind: str, c: Any) -> np.ndarray:
        if kind == "row":
            return draw.cast(draw.rng.standard_normal(draw.lead))
        if kind == "factor":
            return draw.cast(draw.rng.uniform(-2, 2, (*draw.lead, 1)))
        x = draw.rng.standard_normal((*draw.lead, draw.d))
        if kind == "g":
            return draw.cast(x)
        norm = np.linalg.norm(x, axis=-1, keepdims=True)
        x = x / np.where(norm > 0, norm, 1) * draw.rng.uniform(0, draw.scale, (*draw.lead, 1))
        if kind == "ball":
            # a point at distance r from 0 has norm tanh(√c r / 2)/√c
            root = np.sqrt(np.maximum(np.asarray(c, np.float64), 1e-30))
            r = np.linalg.norm(x, axis=-1, keepdims=True)
            x = x * np.where(r > 0, np.tanh(root * r / 2) / (root * np.where(r > 0, r, 1)), 0.5)
        return draw.cast(x)


class Planes:
    """Products of rows with hyperplanes, and what goes with them: t [..., d], s [...], n [d], r [d], the curvature.

    Parameters
    ----------
    gradient : whether the gradient of the result comes first
    constants : constants of the call besides ``ball``, which every other draw sets
    """

    def __init__(self, gradient: bool = False, **constants: Any) -> None:
        self.gradient = gradient
        self.constants = constants

    def __call__(self, draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        rng, ball = draw.rng, bool(draw.seed % 2)
        n, r = rng.uniform(0.3, 1.5, draw.d), rng.uniform(-0.5, 0.5, draw.d)
        length = rng.uniform(0, draw.scale, draw.lead)
        s = length**2
        if ball:
            root = np.sqrt(max(draw.c, 1e-30))
            s, length = 2 * np.cosh(root * length / 2) ** 2, np.tanh(root * length / 2) / root
        t = rng.uniform(-1, 1, (*draw.lead, draw.d)) * np.asarray(length)[..., None] * n
        arrays = [draw.cast(x) for x in (t, s, n, r)]
        if self.gradient:
            arrays.insert(0, draw.cast(rng.standard_normal(t.shape)))
        return [*arrays, draw.c], {"ball": ball, **self.constants}


class Quantized:
    """Arguments for the quantizers: values in codes of a few bits and beyond, with scales of every granularity.

    Parameters
    ----------
    kinds : "x" (values), "x+" (magnitudes), "g" (a gradient), "scale", "zero_point" (int32), "z" (a float zero point), "q"
    (codes 0 to 15) or
        "data" (packed codes of 4 bits), in the order of the operator's inputs.
    scalars : constants of the call; ``dtype=True`` stands for the number of the draw's dtype
    """

    def __init__(self, *kinds: str, **scalars: Any) -> None:
        self.kinds = kinds
        self.scalars = scalars

    def __call__(self, draw: Draw) -> tuple[list[Any], dict[str, Any]]:
        shape = (*draw.lead, draw.d)
        grain = [(), (*draw.lead, 1), (*(1 for _ in draw.lead), draw.d)][draw.seed % 3]
        kind = np.float64 if draw.dtype == "float64" else np.float32
        scale = np.asarray(max(draw.scale, 1e-3) * draw.rng.uniform(0.5, 1.5, grain), kind)
        made = {
            "scale": lambda: scale,
            "zero_point": lambda: np.asarray(draw.rng.integers(-3, 4, grain), np.int32),
            "z": lambda: np.asarray(draw.rng.integers(-3, 4, grain), kind),
            "none": lambda: None,
            "x": lambda: draw.cast(draw.rng.uniform(-12, 12, shape) * float(np.max(scale, initial=1e-3))),
            "x+": lambda: draw.cast(draw.rng.uniform(0, 12, shape) * float(np.max(scale, initial=1e-3))),
            "g": lambda: draw.cast(draw.rng.standard_normal(shape)),
            "q": lambda: draw.rng.integers(0, 16, shape, np.uint8),
            "data": lambda: draw.rng.integers(0, 256, (*draw.lead, (draw.d + 1) // 2), np.uint8),
        }
        scalars = dict(self.scalars)
        if scalars.get("dtype") is True:
            scalars["dtype"] = ("float64", "float32", "float16", "bfloat16").index(draw.dtype)
        if "data" in self.kinds:
            scalars["last"] = draw.d
        return [made[k]() for k in self.kinds], scalars


class Lists:
    """Lists for operators over them, all of the same shapes and types: none or many entries, 0-d, empty, of one element, with
    tails, one of three blocks; of one type, or of several.

    Parameters
    ----------
    batch : the first axis of every entry, where they have one in common
    """

    #: the sizes that entries have: a few numbers, and what blocks of a walk leave
    SIZES = (1, 2, 7, 15, 16, 17, 33, 130, 2047, 2049)

    def __init__(self, draw: Draw, batch: int | None = None) -> None:
        self.draw = draw
        rng, lead = draw.rng, () if batch is None else (batch,)
        n = int(rng.integers(0, 41)) if draw.seed % 5 else (0, 1, 2, 12)[draw.seed // 5 % 4]
        self.shapes: list[tuple[int, ...]] = []
        for i in range(n):
            size = int(rng.choice(self.SIZES))
            own = [(size,), (), (0,), (size, 3), (2, 1, size)][int(rng.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1]))]
            if i == n // 2 and draw.seed % 7 == 0:
                own = (3 * 32768 + 5,)
            self.shapes.append((*lead, *own))
        kinds = ["float64", "float32", "float16", "bfloat16"]
        self.types = [draw.dtype if draw.seed % 3 else str(rng.choice(kinds)) for _ in self.shapes]
        #: whether sizes differ so much between entries that nothing but a norm of order 2 is the same in every order of sums
        self.graded = draw.seed % 11 == 0

    def normal(self) -> list[np.ndarray]:
        """Gaussian entries of the draw's scale."""
        rng, scale = self.draw.rng, self.draw.scale
        return [
            np.asarray(rng.standard_normal(shape) * scale).astype(numpy_type(kind))
            for shape, kind in zip(self.shapes, self.types, strict=True)
        ]
