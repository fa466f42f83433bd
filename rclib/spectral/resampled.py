"""The spectrum of a matrix whose rows and columns were drawn from those of another one.

W' = c W[π, ρ] with index maps π, ρ of M' and M draws from the N' rows and N columns of a source W
(paper A, Algorithm 1). With p, q the numbers of draws of each row and column,

    W' = c R diag(√p) W diag(√q) Cᵀ,    R, C with orthonormal columns where p, q > 0:

the singular values of W' are those of the source with weights √p, √q on its rows and columns, times
c, and zeros. That is exact. Three things follow.

    zeros     W' has the rank min(D', D) at most, D', D the numbers of *different* rows and columns
              drawn, P(D = d) = N! / (N - d)! · S(M, d) / N^M (S: Stirling numbers of the second
              kind), E D = N (1 - (1 - 1/N)^M). A source of full rank has no others.
    spikes    of an outer product θ u vᵀ: √(Σ p u² Σ q v²) ≈ √(M' M / N' N), times c θ, pushed away
              by the noise (`profile_spikes`).
    bulk      independent entries become noise with weights p, q (`profile_law`): no
              Marchenko-Pastur bulk, unless every row and column is drawn equally often. The outer
              products take out of it what becomes a spike and shift the rest (`profile_shift`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rclib.checks.arguments import count, number
from rclib.checks.arrays import Floats, real_array
from rclib.spectral.profile import (
    profile_edge,
    profile_law,
    profile_shift,
    profile_spikes,
)

__all__ = [
    "ResampledSpectrum",
    "distinct_law",
    "expected_zeros",
    "resampled_spectrum",
    "weighted_matrix",
]


def weighted_matrix(W: Any, rows: ArrayLike, columns: ArrayLike) -> Floats:
    """diag(√rows) W diag(√columns) for W (m, n) and numbers of draws rows (m,), columns (n,).

    Raises ValueError for shapes that do not fit and numbers below zero.
    """
    W = real_array("W", W)
    p, q = _draws("rows", rows), _draws("columns", columns)
    if W.shape != (p.size, q.size):
        raise ValueError(f"rows and columns must fit W {W.shape}, got {p.size} and {q.size}")
    return np.asarray(np.sqrt(p)[:, None] * W * np.sqrt(q))


def distinct_law(source: int, draws: int) -> Floats:
    """Law of the number of different neurons in `draws` draws with replacement from `source`.

    Returns the probabilities of 0 ... min(source, draws). Raises ValueError for numbers below one.
    """
    n, m = count("source", source), count("draws", draws)
    law = np.zeros(min(n, m) + 1)
    law[0] = 1.0
    d = np.arange(law.size)
    for _ in range(m):  # a draw is old with chance d / n
        law[1:] = law[1:] * d[1:] / n + law[:-1] * (1 - d[:-1] / n)
        law[0] = 0.0
    return law


def expected_zeros(
    source: tuple[int, int], target: tuple[int, int], *, columns_alone: bool = False
) -> float:
    """Expected share of zeros among the singular values of a target (M', M) drawn with replacement
    from a source (N', N) of full rank: 1 - E min(D', D) / min(M', M).

    columns_alone : of one side, 1 - (N / M) (1 - (1 - 1/N)^M), which the larger of the two exceeds.
    Raises ValueError for sizes below one.
    """
    (n_rows, n), (m_rows, m) = source, target
    if columns_alone:
        n, m = count("source", n), count("target", m)
        return float(1 + n / m * np.expm1(m * np.log1p(-1 / n))) if n > 1 else 1 - 1 / m
    # E min = Σ_k P(D' ≥ k) P(D ≥ k).
    at_least = [1 - np.cumsum(distinct_law(*pair)) for pair in ((n_rows, m_rows), (n, m))]
    k = min(len(tail) for tail in at_least) - 1
    return float(1 - (at_least[0][:k] * at_least[1][:k]).sum() / min(m_rows, m))


@dataclass(frozen=True)
class ResampledSpectrum:
    """Predicted eigenvalues of W'ᵀW'.

    x, below : (p,) ascending points and how many positive eigenvalues of the bulk lie below them.
    edge : its upper end. spikes : eigenvalues beyond it, descending. rank : how many are not zero.
    """

    x: Floats
    below: Floats
    edge: float
    spikes: Floats
    rank: int

    def eigenvalues(self) -> Floats:
        """The positive ones, (rank,) ascending: quantiles of the bulk, then the spikes."""
        bulk = self.rank - self.spikes.size
        places = np.interp(np.arange(bulk) + 0.5, self.below, self.x)
        return np.concatenate([places, self.spikes[::-1]])

    def distance(self, eigenvalues: ArrayLike) -> float:
        """Kolmogorov-Smirnov distance of the bulk of measured positive eigenvalues, that is without
        as many of the largest as there are spikes, to the law. ValueError if none is left."""
        values = np.sort(real_array("eigenvalues", eigenvalues))
        values = values[: max(values.size - self.spikes.size, 0)]
        if values.size == 0:
            raise ValueError(f"eigenvalues must hold more than the {self.spikes.size} spikes")
        law = np.interp(values, self.x, self.below) / self.below[-1]
        steps = np.arange(values.size + 1) / values.size
        return float(max(np.abs(law - steps[1:]).max(), np.abs(law - steps[:-1]).max()))


def resampled_spectrum(
    products: tuple[ArrayLike, ArrayLike, ArrayLike],
    *,
    rows: ArrayLike,
    columns: ArrayLike,
    variance: float,
    scale: float = 1.0,
) -> ResampledSpectrum:
    """What becomes of a source that is outer products and noise of `variance`, from how often each
    row and column was drawn; the noise itself is not looked at.

    products : (left (m, K), strengths (K,), right (n, K)). rows (m,), columns (n,) : numbers of
    draws. scale : c, the factor of the entries.
    Raises ValueError for shapes that do not fit, numbers of draws that are negative or all zero, a
    variance or scale that is not positive; ArithmeticError as `profile_law`.
    """
    p, q = _draws("rows", rows), _draws("columns", columns)
    c = number("scale", scale)
    if not 0 < c < 1e30:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    weights = (c**2 * p, q)
    law = profile_law(*weights, variance=variance)
    spikes = profile_spikes(*products, *weights, variance=variance)
    _, shift = profile_shift(*products, *weights, variance=variance)
    rank = int(min(np.count_nonzero(p), np.count_nonzero(q)))
    spikes = spikes[: rank - 1]
    below = rank * (law.cdf(law.x) - law.atom) / (1 - law.atom) - shift
    below = np.clip(np.maximum.accumulate(below), 0.0, rank - spikes.size)
    below[-1] = rank - spikes.size  # up to what is smoothed at the edge
    edge = profile_edge(*weights, variance=variance)
    return ResampledSpectrum(law.x, below, edge, spikes, rank)


def _draws(name: str, value: ArrayLike) -> Floats:
    found = real_array(name, value)
    if found.ndim != 1 or found.size == 0 or found.min() < 0 or not found.any():
        raise ValueError(f"{name} must be numbers of draws (N,), none negative, not all zero")
    return found
