"""Power-law exponent of the upper tail of a spectrum, and its uncertainty.

For the m positive eigenvalues in ascending order λ_0 .. λ_{m-1}, a cut k keeps the
n = m - k values from x_min = λ_k upwards, and

    α_k = 1 + n / Σ_{i≥k} ln(λ_i / x_min)
    D_k = max_{j≥k} | 1 - (λ_j / x_min)^(1 - α_k) - (j - k) / n |

"hill" cuts at k = ⌊m/2⌋. "ks" takes the k that minimises D_k, over all k but the last.

Sources: paper B, "Quantities" (both rules); Clauset, Shalizi and Newman, "Power-law
distributions in empirical data" (SIAM Review 2009), eq. 3.1 and 3.2 for α and its error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rclib.checks.arguments import choice, count, seed_of
from rclib.checks.arrays import Floats, real_array

__all__ = ["METHODS", "MIN_EIGENVALUES", "PowerLaw", "bootstrap_alpha", "power_law"]

METHODS = ("hill", "ks")
MIN_EIGENVALUES = 10
_BLOCK = 1 << 20  # elements of the largest temporary array of the KS scan (8 MB)


@dataclass(frozen=True)
class PowerLaw:
    """A fitted tail, density proportional to λ^(-α) for λ ≥ x_min.

    alpha: exponent, > 1.
    xmin: smallest value of the tail.
    distance: D_k above, the Kolmogorov-Smirnov distance between tail and fit, in [0, 1].
    index: the cut k, 0-based among the positive eigenvalues in ascending order.
    tail: number n of values in the tail, x_min included.
    method: "hill" or "ks".
    """

    alpha: float
    xmin: float
    distance: float
    index: int
    tail: int
    method: str

    @property
    def standard_error(self) -> float:
        """(α - 1) / √n: the standard error of α for independent values and a fixed cut.

        Clauset et al. 2009, eq. 3.2. Eigenvalues repel each other and "ks" chooses its cut
        from the same values, so this is a scale for the uncertainty, not a confidence limit.
        """
        return (self.alpha - 1.0) / float(np.sqrt(self.tail))


def power_law(eigenvalues: ArrayLike, method: str = "hill") -> PowerLaw:
    """Fit the upper tail of `eigenvalues` (m,), given in any order.

    Eigenvalues that are exactly zero carry no logarithm and are left out before the cut is
    chosen: m counts the positive ones. `rclib.spectral.spectra.esd` writes exact zeros where the
    rank ends, so W and its transpose give the same fit. For a matrix of full column rank
    this is the definition of paper B unchanged.

    Equal KS distances: the smallest cut wins. A cut whose tail values are all equal has no
    finite α and is passed over. Cost O(m²) in the worst case; memory is bounded.

    Raises ValueError for an unknown method, NaN, infinite or negative values, fewer than 10
    positive values, or a tail of equal values.
    """
    choice("method", method, METHODS)
    values = _positive(eigenvalues)
    m = values.size
    logs = np.log(values)
    cuts = np.array([m // 2]) if method == "hill" else np.arange(m - 1)
    sizes = m - cuts
    # Sums run from the top down, on logarithms relative to the largest value, so that the
    # short tails, where the sum is small, do not lose digits.
    relative = logs - logs[-1]
    sums = np.cumsum(relative[::-1])[::-1][cuts] - sizes * relative[cuts]
    usable = values[cuts] < values[-1]
    if not usable.any():
        raise ValueError(
            f"eigenvalues must not all be equal in the tail, got {sizes[0]} values of {values[-1]}"
        )
    cuts, sizes, sums = cuts[usable], sizes[usable], sums[usable]
    slopes = sizes / sums  # α - 1
    distances = _smallest_distance(logs, cuts, slopes)
    best = int(np.argmin(distances))
    k = int(cuts[best])
    return PowerLaw(
        alpha=1.0 + float(slopes[best]),
        xmin=float(values[k]),
        distance=float(distances[best]),
        index=k,
        tail=m - k,
        method=method,
    )


def bootstrap_alpha(
    eigenvalues: ArrayLike, method: str = "hill", *, draws: int = 200, seed: int = 0
) -> Floats:
    """α of `draws` resamples of the positive eigenvalues with replacement, shape (draws,).

    The spread (standard deviation, quantiles) includes that of the cut, which
    `PowerLaw.standard_error` leaves out. Resampling treats eigenvalues as independent.
    Raises ValueError as `power_law` does, and if draws is not a positive integer or seed no
    integer of at least 0.
    """
    draws, seed = count("draws", draws), seed_of("seed", seed)
    values = _positive(eigenvalues)
    power_law(values, method)  # the errors of the fit, before any draw
    generator = np.random.default_rng(seed)
    alphas = np.empty(draws)
    for i in range(draws):
        alphas[i] = power_law(generator.choice(values, size=values.size), method).alpha
    return alphas


def _positive(eigenvalues: ArrayLike) -> Floats:
    """The positive values, ascending, (m,)."""
    values = real_array("eigenvalues", eigenvalues)
    if values.ndim != 1:
        raise ValueError(f"eigenvalues must have one axis, got shape {values.shape}")
    if values.size and values.min() < 0:
        raise ValueError(f"eigenvalues must not be negative, got {values.min()}")
    values = np.sort(values[values > 0])
    if values.size < MIN_EIGENVALUES:
        raise ValueError(
            f"eigenvalues must hold at least {MIN_EIGENVALUES} positive values, got {values.size}"
        )
    return values


def _smallest_distance(logs: Floats, cuts: NDArray[Any], slopes: Floats) -> Floats:
    """D_k for each cut (c,); exact for the smallest, infinite where a bound rules it out.

    The maximum over every 16th j is a lower bound of D_k at a 16th of the cost. Cuts are
    then computed in full in the order of their bounds, until the next bound is larger than
    the best distance found: the result is that of the full scan.
    """
    m = logs.size
    stride = 16 if cuts.size > 256 else 1
    bounds = _distances(logs, cuts, slopes, np.arange(0, m, stride))
    if stride == 1:
        return bounds
    found = np.full(cuts.size, np.inf)
    order = np.argsort(bounds, kind="stable")
    start, count = 0, 8
    # The margin covers a last-digit difference between the two passes.
    while start < order.size and bounds[order[start]] <= found.min() + 1e-12:
        some = np.sort(order[start : start + count])
        found[some] = _distances(logs, cuts[some], slopes[some], np.arange(m))
        start, count = start + count, min(2 * count, 256)
    return found


def _distances(logs: Floats, cuts: NDArray[Any], slopes: Floats, columns: NDArray[Any]) -> Floats:
    """max over j in `columns`, j ≥ k, of the difference in D_k, for each (ascending) cut (c,)."""
    out = np.empty(cuts.size)
    rows = max(1, _BLOCK // columns.size)
    for start in range(0, cuts.size, rows):
        k = cuts[start : start + rows, None]  # (r, 1)
        j = columns[np.searchsorted(columns, k[0, 0]) :]  # (J,): no j below the first cut
        if j.size == 0:  # the cut lies above the last column: nothing bounds it
            out[start : start + rows] = 0.0
            continue
        gaps = np.maximum(logs[j] - logs[k], 0.0)
        gaps *= -slopes[start : start + rows, None]
        gap = np.abs(1.0 - np.exp(gaps) - (j - k) / (logs.size - k))
        out[start : start + rows] = np.where(j >= k, gap, 0.0).max(axis=1)
    return out
