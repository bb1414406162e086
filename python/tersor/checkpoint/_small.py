"""8-bit floats. The one rule: each byte is a float16, which holds them all, so that no library is needed to read them."""

from __future__ import annotations

import numpy as np

#: exponent bits, bias, whether the type is without -0
SMALL = {"F8_E4M3": (4, 7, False), "F8_E5M2": (5, 15, False), "F8_E4M3FNUZ": (4, 8, True), "F8_E5M2FNUZ": (5, 16, True)}


def table(dtype: str) -> np.ndarray:
    """The float16 of every byte of an 8-bit float type."""
    bits, bias, unsigned_zero = SMALL[dtype]
    code = np.arange(256)
    m = 7 - bits
    exponent, mantissa = code >> m & (1 << bits) - 1, code & (1 << m) - 1
    one = float(1 << m)
    value = np.where(exponent > 0, (1 + mantissa / one) * 2.0 ** (exponent - bias), mantissa / one * 2.0 ** (1 - bias))
    value = np.where(code >= 128, -value, value)
    if unsigned_zero:
        value[128] = np.nan
    elif dtype == "F8_E4M3":
        value[[127, 255]] = np.nan
    else:  # infinities and NaN as in IEEE 754
        value[exponent == 31] = np.where(mantissa[exponent == 31], np.nan, np.inf)
    return value.astype(np.float16)
