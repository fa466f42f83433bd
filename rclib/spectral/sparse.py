"""The spectrum of W^T W for a matrix most of whose entries are zero: Marchenko-Pastur and beyond.

W (h, d) has i.i.d. entries of mean 0, variance v and fourth cumulant κ = E w^4 - 3 v². A dense
matrix has κ of order v², and Marchenko and Pastur's law holds. If only a share p of the entries is
not zero, κ is about v² E[w^4 | w ≠ 0] / (E[w² | w ≠ 0]² p), so that κ / v² times the mean number of
entries in a row or column does not vanish, and the edge moves outwards. To first order in it the
diagonals g, g̃ of the resolvent of [[0, W^T], [W, 0]] at w = √z solve

    1 + w g + h (v u + κ u²) = 0,    1 + w g̃ + d (v u + κ u²) = 0,    u = g g̃,

since an edge is used twice in a loop with weight v and four times with weight κ. So with
ψ = v u + κ u²,

    z = (1 + h ψ) (1 + d ψ) / u,

a quartic in u. Right of the spectrum u is positive, and the edge is the smallest z over u > 0;
inside the bulk the complex pair of roots that is nearest to zero gives the density,
|Im(1 + h ψ)| / (π z). κ = 0 is Marchenko and Pastur's law. For symmetric matrices the same
step gives the edge 2 + κ n of Lee and Schnelli (Probability Theory and Related Fields, 2018);
Hwang, Lee and Schnelli (Annals of Applied Probability, 2019) prove the law of the largest
eigenvalue for the covariance matrices of this module, where mean degrees grow faster than n^(1/3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from rclib.checks.arguments import count, number
from rclib.checks.arrays import Floats, real_array

__all__ = ["SparseLaw", "entry_cumulants", "sparse_law"]


@dataclass(frozen=True)
class SparseLaw:
    """Law of the eigenvalues of W^T W, W (rows, columns).

    variance, cumulant : v and κ of an entry. upper : edge of the bulk. scale : of the largest
    eigenvalue's fluctuation around it (Tracy-Widom), that of a dense matrix of this variance.
    """

    rows: int
    columns: int
    variance: float
    cumulant: float
    upper: float
    scale: float

    def density(self, x: ArrayLike) -> Floats:
        """Density at x (any shape): of the eigenvalues that are not zero, over all d. Raises
        ValueError for an x that is not positive."""
        found = real_array("x", x)
        if found.size and found.min() <= 0:
            raise ValueError(f"x must be positive, got {found.min():g}")
        out = [self._density(float(at)) for at in found.ravel()]
        return np.asarray(out).reshape(found.shape)

    def beyond(self, eigenvalues: ArrayLike, *, deviations: float = 4.0) -> int:
        """How many eigenvalues lie more than `deviations` scales above the edge, of which noise
        alone passes 4 in well under 0.1 percent of matrices that are dense."""
        values = real_array("eigenvalues", eigenvalues)
        return int((values > self.upper + number("deviations", deviations) * self.scale).sum())

    def _density(self, z: float) -> float:
        h, d, v, k = self.rows, self.columns, self.variance, self.cumulant
        powers = [
            h * d * k * k, 2 * h * d * v * k, h * d * v * v + (h + d) * k, (h + d) * v - z, 1.0,
        ]  # fmt: skip
        roots = np.roots(powers)
        # The two that a dense matrix has; the others come from infinity.
        u = max(roots[np.abs(roots).argsort(kind="stable")[:2]], key=lambda root: abs(root.imag))
        return float(abs((h * (v * u + k * u * u)).imag) / (np.pi * z))


def sparse_law(*, rows: int, columns: int, variance: float, cumulant: float) -> SparseLaw:
    """The law for matrices of this size with entries of this variance and fourth cumulant.

    Raises ValueError for sizes below one, a variance that is not positive and a negative cumulant,
    with which the expansion has no edge.
    """
    h, d = count("rows", rows), count("columns", columns)
    v, k = number("variance", variance), number("cumulant", cumulant)
    if not 0 < v < np.inf or not 0 <= k < np.inf:
        raise ValueError(f"variance must be positive, cumulant not negative, got {v:g}, {k:g}")
    # In units of 1 / (v √(h d)), where a dense matrix has its edge at u = 1.
    unit = 1.0 / (v * np.sqrt(h * d))

    def z(log_u: float) -> float:
        u = float(np.exp(log_u)) * unit
        psi = v * u + k * u * u
        return float((1 + h * psi) * (1 + d * psi) / u)

    upper = float(optimize.minimize_scalar(z, bounds=(-8.0, 1.0), method="bounded",
                                           options={"xatol": 1e-9}).fun)  # fmt: skip
    r, c = np.sqrt(h - 0.5), np.sqrt(d - 0.5)
    return SparseLaw(h, d, v, k, upper, float(v * (r + c) * (1 / r + 1 / c) ** (1 / 3)))


def entry_cumulants(W: ArrayLike) -> tuple[float, float]:
    """Variance and fourth cumulant of the entries of a matrix, for `sparse_law`; a cumulant below
    zero is given as 0. Raises ValueError for what has no entries that vary."""
    entries = real_array("W", W).ravel()
    if entries.size == 0 or entries.min() == entries.max():
        raise ValueError("W must have entries that vary")
    centred = entries - entries.mean()
    variance = float(np.square(centred).mean())
    return variance, max(0.0, float((centred**4).mean()) - 3 * variance**2)
