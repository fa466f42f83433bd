"""Closed forms of learning in deep linear networks, of Saxe, McClelland and Ganguli (1312.6120).

Inputs are whitened, Σ31 = U S Vᵀ; a mode of strength s is learned as the scalar u = a b of a
network with two matrices, τ a' = b (s - a b) and τ b' = a (s - a b), so a² - b² stays. Times are in
units of τ = 1 / rate, that is steps times rate.

Balanced, a = b: τ u' = 2 u (s - u). Otherwise c0 = (a² - b²) / 2 and a = √(2 c0) cosh(θ/2),
b = √(2 c0) sinh(θ/2). The derivative of a is √(2 c0) sinh(θ/2) θ'/2 = b θ'/2, hence

    (τ/2) θ' = s - a b = s - c0 sinh θ.

The paper's appendix leaves out the 1/2; its times are twice as long. That contradicts its own main
text where c0 vanishes, and what is simulated. With q = tanh(θ/2) = b/a and R = √(c0² + s²),

    t = (τ / 2 R) [ ln (R + c0 + s q) / (R - c0 - s q) ] from start to end.

Solved for q, with E = e^(2 R t / τ) times the fraction at the start, and from q for u:

    q = ((R - c0) E - (R + c0)) / (s (1 + E)),      u = c0 sinh θ = 2 c0 q / (1 - q²).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad

__all__ = [
    "balanced_time",
    "deep_time",
    "infinite_time",
    "mode_strength",
    "unbalanced_strength",
    "unbalanced_time",
]


def mode_strength(t: ArrayLike, *, s: ArrayLike, u0: float) -> NDArray[np.float64]:
    """u(t) of balanced modes of two matrices that start at u0, shapes of t and s together
    (times in τ). Raises ValueError unless 0 < u0 < s."""
    strengths = np.asarray(s, dtype=float)
    _between(float(strengths.min()), u0, u0)
    # Written with what decays, so that nothing overflows at large times.
    left = np.exp(-2.0 * strengths * np.asarray(t, dtype=float))
    return np.asarray(strengths / (1.0 + (strengths / u0 - 1.0) * left))


def balanced_time(*, s: float, u0: float, end: float) -> float:
    """Time in which a balanced mode of two matrices goes from u0 to `end`.

    Raises ValueError unless 0 < u0 <= end < s.
    """
    _between(s, u0, end)
    return math.log(end * (s - u0) / (u0 * (s - end))) / (2.0 * s)


def unbalanced_time(*, s: float, a0: float, b0: float, end: float, printed: bool = False) -> float:
    """Time in which u = a b goes from a0 b0 to `end`, for a0 != b0, both positive.

    printed : as the paper's appendix has it, twice as long. ValueError unless
    0 < a0 b0 <= end < s, or if a0 = b0, where the hyperbola is a line (`balanced_time`).
    """
    a0, b0 = max(a0, b0), min(a0, b0)  # the equations do not tell them apart
    if not b0 > 0 or a0 == b0:
        raise ValueError(f"a0 and b0 must be positive and differ, got {a0} and {b0}")
    _between(s, a0 * b0, end)
    c0 = 0.5 * (a0 - b0) * (a0 + b0)
    root = math.hypot(c0, s)
    # From a b = end and a² - b² = 2 c0, without the difference of two large numbers.
    a = math.sqrt(c0 + math.hypot(c0, end))
    ends = [_antiderivative(q, s, c0, root) for q in (b0 / a0, end / a**2)]
    return (ends[1] - ends[0]) / (root if printed else 2.0 * root)


def unbalanced_strength(t: ArrayLike, *, s: ArrayLike, a0: float, b0: float) -> NDArray[np.float64]:
    """u(t) of modes of two matrices that start at a0 and b0, shapes of t and s together (times in
    τ). Raises ValueError unless 0 < a0 b0 < s, or if a0 = b0 (`mode_strength`)."""
    a0, b0 = max(a0, b0), min(a0, b0)
    if not b0 > 0 or a0 == b0:
        raise ValueError(f"a0 and b0 must be positive and differ, got {a0} and {b0}")
    strengths = np.asarray(s, dtype=float)
    _between(float(strengths.min()), a0 * b0, a0 * b0)
    c0, q0 = 0.5 * (a0 - b0) * (a0 + b0), b0 / a0
    root = np.hypot(c0, strengths)
    low = strengths**2 / (root + c0)  # R - c0, which does not cancel
    # Divided by E, so that nothing overflows at large times.
    less = np.exp(-2.0 * root * np.asarray(t, dtype=float))
    less = less * (low - strengths * q0) / (root + c0 + strengths * q0)
    q = (low - (root + c0) * less) / (strengths * (1.0 + less))
    return np.asarray(2.0 * c0 * q / ((1.0 - q) * (1.0 + q)))


def _antiderivative(q: float, s: float, c0: float, root: float) -> float:
    # R - c0 is s² / (R + c0), which does not cancel where c0 is large.
    return math.log((root + c0 + s * q) / (s * s / (root + c0) - s * q))


def deep_time(*, s: float, u0: float, end: float, depth: int) -> float:
    """Time from u0 to `end` with `depth` balanced matrices: τ u' = L u^(2 - 2/L) (s - u), by
    quadrature (relative error 1e-10). ValueError unless 0 < u0 <= end < s and depth >= 1."""
    _between(s, u0, end)
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")

    def inverse_speed(u: float) -> float:
        return float(1.0 / (depth * u ** (2.0 - 2.0 / depth) * (s - u)))

    time, _ = quad(inverse_speed, u0, end, epsabs=0.0, epsrel=1e-10, limit=200)
    return float(time)


def infinite_time(*, s: float, u0: float, end: float) -> float:
    """The limit of L times `deep_time` for many matrices L: what the number of steps tends to, up
    to the largest stable rate times L. ValueError unless 0 < u0 <= end < s."""
    _between(s, u0, end)
    return math.log(end * (s - u0) / (u0 * (s - end))) / s**2 + (1.0 / u0 - 1.0 / end) / s


def _between(s: float, u0: float, end: float) -> None:
    if not 0.0 < u0 <= end < s:
        raise ValueError(f"0 < u0 <= end < s is needed, got u0 = {u0}, end = {end}, s = {s}")
