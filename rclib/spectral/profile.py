"""The spectrum of noise whose rows and columns have weights of their own.

W = diag(√a) X diag(√b), X (m, n) with i.i.d. entries of variance v. For large m, n the resolvents
G = (WᵀW - z)^-1 and G̃ = (W Wᵀ - z)^-1 have the diagonals

    G_jj = -1 / (z (1 + b_j e)),    G̃_ii = -1 / (z (1 + a_i ẽ)),
    e = v Σ_i a_i G̃_ii,    ẽ = v Σ_j b_j G_jj,

two equations for e and ẽ, solved by iteration. Equal weights give Marchenko and Pastur's law.

Source: Girko's equations for a variance profile; in this form Couillet and Debbah, "Random Matrix
Methods for Wireless Communications", 2011, section 6.2 (separable profile).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rclib.checks.arguments import number
from rclib.checks.arrays import Floats, real_array

__all__ = ["ProfileLaw", "profile_law"]

_POINTS = 400
_ABOVE = (
    2e-3  # how far above the real axis, relative to x: what it smooths is below any plot's width
)
_LEVELS, _ROUNDS = 24, 6


@dataclass(frozen=True)
class ProfileLaw:
    """Law of the eigenvalues of WᵀW.

    x : (p,) ascending positive points. density : (p,) of the continuous part there.
    atom : share of eigenvalues that are zero, since rows or columns of weight zero carry none.
    """

    x: Floats
    density: Floats
    atom: float

    def cdf(self, at: ArrayLike) -> Floats:
        """Share of the eigenvalues at or below `at`, those at zero included."""
        at = real_array("at", at)
        steps = 0.5 * (self.density[1:] + self.density[:-1]) * np.diff(self.x)
        mass = np.concatenate([[0.0], np.cumsum(steps)])
        mass *= (1 - self.atom) / mass[-1]  # what the grid's step loses
        inside = np.interp(at, self.x, mass, left=0.0, right=mass[-1])
        return np.asarray(np.where(at >= 0, self.atom + inside, 0.0))


def profile_law(a: ArrayLike, b: ArrayLike, *, variance: float = 1.0) -> ProfileLaw:
    """The law for weights a (m,) of rows and b (n,) of columns, entries of `variance`.

    Raises ValueError for weights that are negative, not finite, empty or all zero and a variance
    that is not positive; ArithmeticError if the equations are not solved.
    """
    rows, columns = _weights("a", a), _weights("b", b)
    v = number("variance", variance)
    if not 0 < v < 1e30:
        raise ValueError(f"variance must be positive and finite, got {variance}")
    # Equal weights count together: a drawing has few different ones.
    a_values, a_counts = _counted(rows)
    b_values, b_counts = _counted(columns)
    m, n = np.count_nonzero(rows), np.count_nonzero(columns)
    atom = 1 - min(m, n) / columns.size
    # No eigenvalue of weighted noise is beyond that of noise with the largest weights.
    top = v * rows.max() * columns.max() * (np.sqrt(m) + np.sqrt(n)) ** 2
    x = top * np.geomspace(1e-6, 1.05, _POINTS)
    z = x * (1 + 1j)
    e = -v * float(rows.sum()) / z
    for _ in range(500):  # far above the axis plain iteration settles
        tilde = _next(b_values, b_counts, e, v / z)[0]
        e = 0.5 * (e + _next(a_values, a_counts, tilde, v / z)[0])
    for above in np.geomspace(1.0, _ABOVE, _LEVELS):  # and is followed down by Newton's method
        z = x * (1 + 1j * above)
        for _ in range(_ROUNDS):
            tilde, inner = _next(b_values, b_counts, e, v / z)
            new, outer = _next(a_values, a_counts, tilde, v / z)
            step = (new - e) / (1 - inner * outer)
            e = e + step
    wrong = (np.abs(step) > 1e-9 * np.abs(e)) | (e.imag <= 0) | (tilde.imag <= 0)
    if wrong.any():
        raise ArithmeticError(f"the equations were not solved at x = {x[wrong][0]:g}")
    stieltjes = -(b_counts / (1 + b_values * e[:, None])).sum(1) / columns.size / z
    density = (stieltjes + atom / z).imag / np.pi  # without the zeros' own tail
    return ProfileLaw(x, np.maximum(density, 0.0), float(atom))


def _next(
    values: Floats, counts: Floats, other: np.ndarray, factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """-factor · Σ w / (1 + w · other) over the weights w, and its derivative by `other`."""
    terms = values / (1 + values * other[:, None])
    return -factor * (counts * terms).sum(1), factor * (counts * terms**2).sum(1)


def _counted(weights: Floats) -> tuple[Floats, Floats]:
    values, counts = np.unique(weights, return_counts=True)
    return values, counts.astype(float)


def _weights(name: str, value: ArrayLike) -> Floats:
    found = real_array(name, value)
    if found.ndim != 1 or found.size == 0:
        raise ValueError(f"{name} must have one axis and not be empty, got shape {found.shape}")
    if found.min() < 0 or found.max() == 0:
        raise ValueError(f"{name} must not be negative and not all zero, got {found.min()}")
    return found
