"""Measurements of notebook 82 on matrices: the rank that a share asks for, which singular values
an adaptation moves and which vectors, and the row-column correlation of a layer of neurons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from rclib.checks.arguments import count, number
from rclib.checks.arrays import Floats, real_array
from rclib.rowcolumn.measure import correlations, mean_vectors

__all__ = [
    "POWERS",
    "hidden_correlation",
    "kept_rank",
    "kept_shares",
    "rank_correlation",
    "right_overlap",
    "scaled_top",
    "value_moves",
    "vector_share",
]

POWERS = (1, 2)  # the two readings of "99 percent of the matrix": of Σσ and of Σσ²


def kept_shares(values: ArrayLike, power: int) -> Floats:
    """Share of Σ σ^power (k,) that the first 1 ... k singular values (k,) hold.

    Raises ValueError for values that do not descend, are negative or all zero.
    """
    sigma = real_array("values", values)
    if sigma.ndim != 1 or not len(sigma) or sigma[0] <= 0 or sigma[-1] < 0:
        raise ValueError("values must be singular values, not all zero")
    if np.any(np.diff(sigma) > 0):
        raise ValueError("values must descend")
    sums = np.cumsum((sigma / sigma[0]) ** count("power", power))
    shares: Floats = sums / sums[-1]
    return shares


def kept_rank(values: ArrayLike, share: float, power: int) -> int:
    """The smallest r whose first r singular values hold that share of Σ σ^power.

    Raises ValueError for a share outside (0, 1] and as `kept_shares` does.
    """
    if not 0 < number("share", share) <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share!r}")
    # The sum itself has rounding of one part in 1e16 a term, which is not to ask for another one.
    return int(np.argmax(kept_shares(values, power) >= share - 1e-12)) + 1


def value_moves(weight: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """σ_j (k,) of a matrix (o, i), and u_jᵀ ΔW v_j (k,): how far each value moves while its
    vectors stay."""
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    return s, torch.einsum("oj,oi,ji->j", u, change.double(), vh)


def rank_correlation(values: Tensor, moves: Tensor) -> float:
    """Spearman correlation of σ_j with |moves_j|. Raises ValueError if no value moved."""
    if not bool((moves != 0).any()):
        raise ValueError("moves must not all be zero")
    return float(stats.spearmanr(values.numpy(), moves.abs().numpy()).statistic)


def vector_share(weight: Tensor, change: Tensor) -> float:
    """Share of ‖ΔW‖² that moves no singular value to first order: what is off the diagonal of
    Uᵀ ΔW V, or outside of the vectors' span. Raises ValueError for ΔW = 0."""
    total = float(change.double().square().sum())
    if total == 0:
        raise ValueError("change must not be zero")
    return max(0.0, 1.0 - float(value_moves(weight, change)[1].square().sum()) / total)


def right_overlap(first: Tensor, second: Tensor, top: int) -> float:
    """Overlap Σ_ij (v_iᵀ v′_j)² / top of the spaces of the `top` leading right singular vectors of
    two matrices (o, i), in [0, 1]."""
    one, other = (torch.linalg.svd(w.double(), full_matrices=False)[2][:top] for w in
                  (first, second))  # fmt: skip
    return float((one @ other.T).square().sum()) / count("top", top)


def scaled_top(weight: Tensor, factor: float) -> Tensor:
    """The matrix (float64) with its largest singular value times a factor."""
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    scaled: Tensor = weight.double() + (factor - 1) * s[0] * torch.outer(u[:, 0], vh[0])
    return scaled


def hidden_correlation(weights: Sequence[Tensor]) -> float:
    """Correlation over the neurons of the first hidden layer: the mean of what comes in, out of
    the rows of (h, d), with the mean of what goes out, out of the columns of (h′, h)."""
    first, second = weights
    axes = {"W1": ("h1", "x"), "W2": ("h2", "h1")}
    vectors = mean_vectors({"W1": first, "W2": second}, axes)["h1"]
    return float(correlations({"h1": vectors}).matrix[0, 1])
