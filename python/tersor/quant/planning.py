"""How much of a training should be quantized. The one rule: what was fitted is said to be, and by whom."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np


def _real(name: str, what: str, v: Any) -> float:
    """A number of any type in float64: products in types of a few bits would leave these."""
    if not isinstance(v, (int, float, np.integer, np.floating)) or isinstance(v, bool):
        raise TypeError(f"{name}: {what} must be a number, got {type(v).__name__}")
    try:
        return float(v)
    except OverflowError:
        raise ValueError(f"{name}: {what} is beyond float64") from None


def _positive(name: str, **numbers: Any) -> list[float]:
    found = []
    for what, v in numbers.items():
        found.append(_real(name, what, v))
        if not 0 < found[-1] < math.inf:
            raise ValueError(f"{name}: {what} must be positive and finite, got {v}")
    return found


def _tokens(d: float, n: float, bits: float) -> float:
    """The logarithm of tokens a byte, of numbers whose product or quotient leaves float64 too."""
    size = n * bits / 8
    if 1e-290 < size < math.inf and 1e-290 < (found := d / size) < math.inf:
        return math.log(found)
    return math.log(d) - math.log(n) - math.log(bits) + math.log(8)


def qat_fraction(n: float, d: float, bits: float) -> float:
    r"""The share of training tokens that quantization-aware training should have, by the tokens S for a byte of the model.

    .. math:: f = e^{-6.7297 / \ln S},\qquad S = \frac{D}{N B / 8}

    Parameters
    ----------
    n : float
        Parameters of the model.
    d : float
        Tokens of the whole training.
    bits : float
        Bits of a quantized weight.

    Returns
    -------
    float
        Between 0 and 1, rising with S.

    Raises
    ------
    TypeError
        If one is no number.
    ValueError
        If a number is not positive and finite, or there is no more than a token a byte: the law says nothing there.

    Notes
    -----
    "Compute-Optimal Quantization-Aware Training" (2025), a fit with a mean error of 0.09.
    """
    name = "qat_fraction"
    n, d, bits = _positive(name, n=n, d=d, bits=bits)
    tokens = _tokens(d, n, bits)
    if tokens <= 0:
        raise ValueError(
            f"{name}: {d:g} tokens are {math.exp(tokens):g} a byte of {n:g} weights of {bits:g} bits; "
            "the law wants more than 1"
        )
    return math.exp(-6.7297 / tokens)


class QATLaw(NamedTuple):
    """The constants of `qat_loss`, as somebody fitted them to trainings of their own.

    Attributes
    ----------
    floor, a, alpha, b, beta : of the loss without quantization, floor + a N^-alpha + b D^-beta
    theta, kappa : what bits cost that no training makes up for
    phi, chi, psi, omega : what a short quantized part costs
    lam, mu, nu, xi, rho : what both parts together cost
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    theta: float
    kappa: float
    phi: float
    chi: float
    psi: float
    omega: float
    lam: float
    mu: float
    nu: float
    xi: float
    rho: float


def qat_loss(n: float, d: float, d_qat: float, bits: float, law: QATLaw) -> float:
    r"""The loss that a training comes to whose last tokens are quantized, by a law of that form.

    .. math:: L = E + \frac{A}{N^\alpha} + \frac{B}{D^\beta} + \theta\,2^{-\kappa b}
              + \frac{\varphi\,2^{-\chi b}}{N^\psi S_{\mathrm{qat}}^\omega}
              + \frac{\lambda\,2^{-\mu b}}{N^\nu S_{\mathrm{fp}}^\xi S_{\mathrm{qat}}^\rho},
              \qquad S_x = \frac{D_x}{N b / 8}

    Parameters
    ----------
    n : float
        N, parameters of the model.
    d : float
        D, tokens of the whole training.
    d_qat : float
        Of these, the tokens of the quantized part; the others are :math:`D_{\mathrm{fp}}`.
    bits : float
        b, bits of a quantized weight.
    law : QATLaw
        The constants: none are known here, they are fitted to the losses of some trainings.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If one is no number, or law no QATLaw.
    ValueError
        If a number is not positive and finite, d_qat is not below d, a constant is not finite, or the loss is beyond float64.

    Notes
    -----
    The form of "Compute-Optimal Quantization-Aware Training" (2025); with the share that loses least found by trying some,
    `qat_fraction` is the answer that its authors' own constants give. The last term alone wants tokens before the quantized
    part, so a training that is quantized throughout has no place in it.

    Examples
    --------
    >>> law = QATLaw(1.5, 0, 1, 0, 1, theta=0.5, kappa=1, phi=0, chi=1, psi=0, omega=1, lam=0, mu=1, nu=0, xi=1, rho=1)
    >>> qat_loss(1e9, 1e11, 1e10, 4, law)
    1.53125
    """
    name = "qat_loss"
    n, d, d_qat, bits = _positive(name, n=n, d=d, d_qat=d_qat, bits=bits)
    if not d_qat < d:
        raise ValueError(f"{name}: d_qat must be below d = {d:g}, got {d_qat:g}")
    if not isinstance(law, QATLaw):
        raise TypeError(f"{name}: law must be a QATLaw, got {type(law).__name__}")
    for what, v in law._asdict().items():
        if not math.isfinite(_real(name, f"law.{what}", v)):
            raise ValueError(f"{name}: law.{what} must be finite, got {v}")
    c = QATLaw(*map(float, law))
    # logarithms of each term: powers of numbers of a billion leave float64 where their product does not
    ln, fp, qat = math.log(n), _tokens(d - d_qat, n, bits), _tokens(d_qat, n, bits)
    terms = (
        (c.a, -c.alpha * ln),
        (c.b, -c.beta * math.log(d)),
        (c.theta, -c.kappa * bits * math.log(2)),
        (c.phi, -c.chi * bits * math.log(2) - c.psi * ln - c.omega * qat),
        (c.lam, -c.mu * bits * math.log(2) - c.nu * ln - c.xi * fp - c.rho * qat),
    )
    try:
        loss = math.fsum([c.floor, *(v * math.exp(power) for v, power in terms if v)])
    except (OverflowError, ValueError):  # infinities of both signs too
        loss = math.inf
    if not math.isfinite(loss):
        raise ValueError(
            f"{name}: the loss of this law is beyond float64 at n={n:g}, d={d:g}, d_qat={d_qat:g}, bits={bits:g}"
        )
    return loss
