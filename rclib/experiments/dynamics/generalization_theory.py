"""Test and training error of linear students over the time of gradient flow, in closed form.

Advani and Saxe (arXiv 1710.03667): y = w̄ x + ε, x of variance 1/N a component, P = α N samples,
τ dw/dt = Xᵀ(y - X w). Errors are in units of the noise's variance; SNR and INR are the variances of
a component of the teacher and of the start in these units. The eigenvalues λ of XᵀX have the
Marchenko-Pastur law ρ between (√α ± 1)², with an atom 1 - α at zero below α = 1: directions in
which nothing is learned. Times are in units of τ.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from rclib.checks.arguments import number
from rclib.spectral.random_matrix import MarchenkoPastur, marchenko_pastur

__all__ = [
    "best_time",
    "direction_time",
    "expectation",
    "final_error",
    "generalization_error",
    "input_law",
    "ridge_error",
    "training_error",
]

Floats = NDArray[np.float64]
NODES = 4000  # of the midpoint rule in the angle; errors below 1e-8 up to t = 1e4


def input_law(alpha: float) -> MarchenkoPastur:
    """The law of the eigenvalues of XᵀX, its atom at zero included. ValueError unless α > 0."""
    if not number("alpha", alpha) > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    return marchenko_pastur(1.0 / alpha, variance=alpha)


def expectation(f: Callable[[Floats], Floats], alpha: float) -> Floats:
    """∫ f ρ over the bulk, without the atom. f : (NODES,) -> (..., NODES)."""
    law = input_law(alpha)
    angle = (np.arange(NODES) + 0.5) * np.pi / NODES  # exact for smooth periodic functions
    half = 0.5 * (law.upper - law.lower)
    at = 0.5 * (law.upper + law.lower) + half * np.cos(angle)
    weights = half**2 * np.sin(angle) ** 2 / (2.0 * NODES * at)
    return np.asarray(f(at) @ weights)


def generalization_error(t: ArrayLike, *, alpha: float, snr: float, inr: float = 0.0) -> Floats:
    """E_g(t): 1 + ∫ ρ [(SNR + INR) e^(-2λt) + (1 - e^(-λt))² / λ], shape of t."""
    times = np.asarray(t, dtype=float)[..., None]

    def integrand(at: Floats) -> Floats:
        falling = (snr + inr) * np.exp(-2 * at * times)
        return np.asarray(falling + np.expm1(-at * times) ** 2 / at)

    return np.asarray(1.0 + expectation(integrand, alpha) + input_law(alpha).atom * (snr + inr))


def training_error(t: ArrayLike, *, alpha: float, snr: float, inr: float = 0.0) -> Floats:
    """E_t(t) a sample: (1/α) [∫ ρ e^(-2λt) (λ (SNR + INR) + 1) + max(0, α - 1)], shape of t."""
    times = np.asarray(t, dtype=float)[..., None]

    def integrand(at: Floats) -> Floats:
        return np.asarray(np.exp(-2 * at * times) * (at * (snr + inr) + 1.0))

    return np.asarray((expectation(integrand, alpha) + max(0.0, alpha - 1.0)) / alpha)


def final_error(*, alpha: float, snr: float, inr: float = 0.0) -> float:
    """E_g at t = infinity; infinite at α = 1, where it grows like √t."""
    if alpha == 1:
        return float("inf")
    if alpha > 1:
        return 1.0 + 1.0 / (alpha - 1.0)
    return 1.0 + (1.0 - alpha) * (snr + inr) + alpha / (1.0 - alpha)


def ridge_error(*, alpha: float, snr: float) -> float:
    """Error of ridge regression at its best penalty γ = 1/SNR on ½|y - Xw|² + ½ γ |w|², from zero:
    1 + ∫ ρ (SNR γ² + λ) / (λ + γ)², the atom included."""
    penalty = 1.0 / snr

    def integrand(at: Floats) -> Floats:
        return (snr * penalty**2 + at) / (at + penalty) ** 2

    return 1.0 + float(expectation(integrand, alpha)) + input_law(alpha).atom * snr


def direction_time(at: ArrayLike, *, snr: float, inr: float = 0.0) -> Floats:
    """Best time to stop one direction of eigenvalue λ: ln(1 + λ (SNR + INR)) / λ."""
    values = np.asarray(at, dtype=float)
    return np.asarray(np.log1p(values * (snr + inr)) / values)


def best_time(*, alpha: float, snr: float, inr: float = 0.0) -> tuple[float, float]:
    """The time at which E_g is least, between 1e-3 and 1e4, and E_g there."""
    grid = np.geomspace(1e-3, 1e4, 60)
    coarse = generalization_error(grid, alpha=alpha, snr=snr, inr=inr)
    i = int(np.argmin(coarse))
    low, high = np.log(grid[max(i - 1, 0)]), np.log(grid[min(i + 1, len(grid) - 1)])
    found = minimize_scalar(
        lambda x: float(generalization_error(np.exp(x), alpha=alpha, snr=snr, inr=inr)),
        bounds=(float(low), float(high)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x)), float(found.fun)
