"""The codes of one layer by its Hessian. The one rule: all ways take the same arguments; they run on the CPU, where the kernels
are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tersor._arrays import dtype_name
from tersor._layers import matrix, sizes
from tersor.quant._encoded import Scheme
from tersor.quant.adaround import adaround
from tersor.quant.affine import dequantize, quantize
from tersor.quant.gptq import GPTQ, factored, gptq
from tersor.quant.qparams import choose_qparams


class Hessians:
    """The Hessians of a block's layers, or their factors: one for layers in a row that share their inputs."""

    def __init__(self, seen: Any, options: Mapping[str, Any]) -> None:
        self._seen = seen
        self._how = {k: options[k] for k in ("act_order", "damp")}
        self._last: tuple[Any, Any] = (None, None)

    def __call__(self, name: str, layer: Any, factor: bool) -> Any:
        h = self._seen.grams.pop(name)
        if not factor:
            return h.cpu()
        compute = "float64" if dtype_name(layer.weight.dtype) == "float64" else "float32"
        key = self._seen.source(name), compute
        if self._last[0] != key:
            self._last = None, None  # not two at a time
            try:
                self._last = key, factored(h.cpu(), sizes(layer)[1], compute=compute, **self._how)
            except ValueError as error:
                raise named(name, error) from None
        return self._last[1]


def named(name: str, error: ValueError) -> ValueError:
    return ValueError(f"calibrate: {name}: {str(error).removeprefix('gptq: ')}")


def compensated(
    name: str, layer: Any, h: Any, how: Scheme, scales: Callable[..., Any] | None, options: Mapping[str, Any]
) -> GPTQ:
    """The codes of a layer; on the CPU, where the kernel is."""
    weight, scale, zero, grain = _grid(name, layer, how, scales)
    try:
        return gptq(weight, h, how.codes, scale=scale, zero_point=zero, symmetric=not how.affine, **grain, **options)
    except ValueError as error:
        raise named(name, error) from None


def learned(
    name: str, layer: Any, h: Any, how: Scheme, scales: Callable[..., Any] | None, options: Mapping[str, Any]
) -> GPTQ:
    """The codes of a layer, each next to its number."""
    weight, scale, zero, grain = _grid(name, layer, how, scales)
    method, affine = options["method"], how.affine
    return adaround(weight, h, how.codes, scale=scale, zero_point=zero, symmetric=not affine, method=method, **grain)


def _grid(
    name: str, layer: Any, how: Scheme, scales: Callable[..., Any] | None
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """A weight with the scales that are given for it, or with their granularity."""
    weight = matrix(layer).detach().contiguous()
    scale, zero = scales(name, weight) if scales else (None, None)
    if scale is None:
        return weight.cpu(), None, None, {"group": how.group or None}
    return weight.cpu(), scale.cpu(), zero, {}


def nearest(
    name: str, layer: Any, h: Any, how: Scheme, scales: Callable[..., Any] | None, options: Mapping[str, Any]
) -> GPTQ:
    """The nearest codes of a layer, with their errors."""
    weight = matrix(layer).detach().cpu().contiguous()
    scale, zero = scales(name, weight) if scales else (None, None)
    if scale is None:
        grain: dict[str, Any] = {"group": how.group} if how.group else {"axis": 0}
        scale, zero = choose_qparams(weight, how.codes, symmetric=not how.affine, method=options["method"], **grain)
        scale = scale.reshape(len(weight), -1)
        zero = zero.reshape(len(weight), -1) if how.affine else None
    codes = quantize(weight, scale.cpu(), zero, how.codes)
    delta = (dequantize(codes, scale.cpu(), zero) - weight).double()
    return GPTQ(codes, scale, zero, ((delta @ h) * delta).sum(1))


#: by the end of a scheme's name
WAYS = {"gptq": compensated, "awq": nearest, "adaround": learned, "": nearest}
