"""Is the upper half of a spectrum nearer to a power law than to noise, and what would noise give?

A tail exponent says nothing by itself: the Hill estimate of a Marchenko-Pastur bulk, which has no
tail, is a number between 2 and 5 too (2.13 for a square matrix). Two numbers stand beside it.

    law_distance   Kolmogorov-Smirnov distance of the upper half of the eigenvalues (those from the
                   Hill cut on) to the upper half of the Marchenko-Pastur law
    tail_ratio     distance of the same half to its fitted power law, over law_distance: below 1 the
                   power law describes it better

and `noise_tail` gives α and tail ratio of independent entries of the same shape. A Gaussian matrix
W (h, d), h ≥ d, need not be drawn for that: W^T W has the eigenvalues of B B^T, B bidiagonal with
independent entries χ_h, χ_{h-1}, ..., χ_{h-d+1} on the diagonal and χ_{d-1}, ..., χ_1 beside it,
exactly in distribution, at a cost of d² instead of h d². Entries of another law with the same
variance give the same as d grows.

Sources: Dumitriu and Edelman, "Matrix models for beta ensembles" (J. Math. Phys. 2002), Theorem
3.1 with β = 1; tail_ratio is this project's measure of "heavy-tailed" (notebook 20).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigvalsh_tridiagonal

from rclib.checks.arguments import count, seed_of
from rclib.checks.arrays import Floats, real_array
from rclib.spectral.power_law import MIN_EIGENVALUES, PowerLaw, power_law
from rclib.spectral.random_matrix import marchenko_pastur, outliers

__all__ = ["NoiseTail", "TailShape", "noise_eigenvalues", "noise_tail", "tail_shape"]

# Draws for a verdict: 99 where they are cheap. Larger matrices repeat themselves to three digits.
DRAWS, FEWEST = 99, 9
_WORK = 100 * 1024**2


@dataclass(frozen=True)
class TailShape:
    """How the upper half of a spectrum lies; the module's docstring has the definitions."""

    law_distance: float
    tail_ratio: float


def tail_shape(
    eigenvalues: ArrayLike,
    *,
    rows: int,
    variance: float | None = None,
    fit: PowerLaw | None = None,
) -> TailShape:
    """`TailShape` of the eigenvalues (d,) of W^T W, W (rows, d).

    variance : of the entries of the bulk; None takes it from the median eigenvalue
    (`rclib.spectral.random_matrix.outliers`). fit : the Hill fit, if it is at hand.
    Raises ValueError as `outliers` and `power_law` do.
    """
    values = real_array("eigenvalues", eigenvalues)
    if variance is None:
        variance = outliers(values, rows=rows).variance
    fit = power_law(values, "hill") if fit is None else fit
    tail = np.sort(values[values >= fit.xmin])
    law = marchenko_pastur(values.size / rows, rows * variance)
    below = float(law.cdf(fit.xmin))
    # A cut beyond the law's edge leaves nothing of it above: every value lies beyond.
    left = max(1.0 - below, np.finfo(float).tiny)
    predicted = np.minimum((law.cdf(tail) - below) / left, 1.0)
    distance = float(np.max(np.abs(predicted - np.arange(tail.size) / tail.size)))
    return TailShape(distance, fit.distance / distance)


@dataclass(frozen=True)
class NoiseTail:
    """What independent entries give for one shape: mean and range over `draws` matrices.

    alpha : mean of α (Hill); low, high : the smallest and the largest. tail_ratio : the smallest.
    """

    alpha: float
    low: float
    high: float
    tail_ratio: float
    draws: int


def noise_eigenvalues(rows: int, columns: int, *, draws: int = 1, seed: int = 0) -> Floats:
    """Eigenvalues of W^T W for `draws` Gaussian matrices (rows, columns), the smaller size of them.

    Returns (draws, min(rows, columns)), ascending, for entries of variance one. Raises ValueError
    for sizes or draws that are no positive integers.
    """
    rows, columns, draws = count("rows", rows), count("columns", columns), count("draws", draws)
    h, d = max(rows, columns), min(rows, columns)
    generator = np.random.default_rng((seed_of("seed", seed), h, d))
    found = np.empty((draws, d))
    for i in range(draws):
        diagonal = np.sqrt(generator.chisquare(h - np.arange(d)))
        beside = np.sqrt(generator.chisquare(d - 1.0 - np.arange(d - 1)))
        squares = diagonal**2
        squares[1:] += beside**2
        product = diagonal[:-1] * beside
        found[i] = np.maximum(eigvalsh_tridiagonal(squares, product, lapack_driver="sterf"), 0.0)
    return found


@lru_cache(maxsize=1024)
def noise_tail(rows: int, columns: int, *, draws: int | None = None, seed: int = 0) -> NoiseTail:
    """`NoiseTail` of Gaussian matrices (rows, columns), whichever of the two is larger.

    draws : how many, by default 99, and fewer from min(rows, columns) = 1024 on, 9 at least.
    Raises ValueError for min(rows, columns) below 10, and as `noise_eigenvalues` does.
    """
    rows, columns = count("rows", rows), count("columns", columns)
    h, d = max(rows, columns), min(rows, columns)
    if d < MIN_EIGENVALUES:
        raise ValueError(f"min(rows, columns) must be at least {MIN_EIGENVALUES}, got {d}")
    if draws is None:
        draws = int(np.clip(_WORK // d**2, FEWEST, DRAWS))
    alphas, ratios = [], []
    for values in noise_eigenvalues(h, d, draws=draws, seed=seed):
        fit = power_law(values, "hill")
        alphas.append(fit.alpha)
        ratios.append(tail_shape(values, rows=h, fit=fit).tail_ratio)
    return NoiseTail(
        float(np.mean(alphas)), min(alphas), max(alphas), float(min(ratios)), len(alphas)
    )
