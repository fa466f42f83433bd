"""Ridge regression along a path of penalties, from one decomposition.

    features H (n, L), targets y (n, T):   least of |H c - y|² / n + η |c|²
        c(η) = V diag(σ / (σ² + n η)) Uᵀ y   from the singular value decomposition H = U diag(σ) Vᵀ
    kernel K (n, n), symmetric:            a(η) = (K + η κ I)⁻¹ y,  κ the mean of K's diagonal

The singular values are those of H itself and not the roots of HᵀH's eigenvalues: half of the digits
would be lost there, and what is smaller than 1e-8 of the largest would look like a floor of the
error. Neither form has an intercept: centre first where one is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from rclib.checks.arguments import number
from rclib.checks.arrays import Floats, real_array

__all__ = ["KernelPath", "RidgePath", "kernel_path", "ridge_path"]


@dataclass(frozen=True, eq=False)
class RidgePath:
    """H = left diag(values) right: left (n, k), values (k,) descending, right (k, L)."""

    left: Floats
    values: Floats
    right: Floats

    def coefficients(self, targets: Any, penalties: Sequence[float]) -> Floats:
        """c for each penalty and target: (P, L, T), or (P, L) for targets (n,).

        Directions that the features do not have (σ = 0) get nothing, also without a penalty.
        Raises ValueError for penalties that are negative or not finite, and for other shapes.
        """
        y, etas = _targets(targets, len(self.left)), _penalties(penalties)
        turned = self.left.T @ y
        squares = np.square(self.values)
        found = []
        for eta in etas:
            below = squares + len(self.left) * eta
            shrunk = np.divide(self.values, below, out=np.zeros_like(below), where=below > 0)
            found.append(self.right.T @ (shrunk[:, None] * turned))
        path = np.stack(found)
        return path if np.ndim(targets) == 2 else path[..., 0]

    def rank(self, share: float = 1e-10) -> int:
        """How many singular values exceed that share of the largest."""
        return int((self.values > share * self.values[0]).sum())


@dataclass(frozen=True, eq=False)
class KernelPath:
    """K = vectors diag(values) vectorsᵀ. scale : mean of K's diagonal."""

    vectors: Floats
    values: Floats
    scale: float

    def coefficients(self, targets: Any, penalties: Sequence[float]) -> Floats:
        """a for each penalty and target: (P, n, T), or (P, n) for targets (n,). What is predicted
        for other points is their kernel with the n points, times a.

        Raises ValueError for penalties that are not positive, and for other shapes.
        """
        y, etas = _targets(targets, len(self.vectors)), _penalties(penalties)
        if min(etas) <= 0:
            raise ValueError(f"penalties of a kernel must be positive, got {list(penalties)}")
        turned = self.vectors.T @ y
        shrunk = [turned / (self.values + eta * self.scale)[:, None] for eta in etas]
        path = np.stack([self.vectors @ one for one in shrunk])
        return path if np.ndim(targets) == 2 else path[..., 0]


def ridge_path(features: Any) -> RidgePath:
    """Decompose features (n, L), in float64.

    Raises ValueError for what is no matrix of finite numbers.
    """
    H = _matrix("features", features)
    left, values, right = linalg.svd(H, full_matrices=False, check_finite=False)
    return RidgePath(left, values, right)


def kernel_path(kernel: Any) -> KernelPath:
    """Decompose a symmetric kernel (n, n); eigenvalues below zero, which are rounding, become zero.

    Raises ValueError for what is no symmetric matrix of finite numbers.
    """
    K = _matrix("kernel", kernel)
    if K.shape[0] != K.shape[1] or not np.allclose(K, K.T, rtol=1e-4, atol=1e-6 * np.abs(K).max()):
        raise ValueError(f"kernel must be symmetric, got shape {K.shape}")
    values, vectors = linalg.eigh((K + K.T) / 2, check_finite=False, driver="evd")
    return KernelPath(vectors, np.maximum(values, 0.0), float(np.trace(K)) / len(K))


def _matrix(name: str, value: Any) -> Floats:
    matrix = real_array(name, value)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must be a matrix with entries, got shape {matrix.shape}")
    return matrix


def _targets(targets: Any, n: int) -> Floats:
    y = real_array("targets", targets)
    if y.ndim not in (1, 2) or len(y) != n:
        raise ValueError(f"targets must have {n} rows and one or two axes, got shape {y.shape}")
    return y[:, None] if y.ndim == 1 else y


def _penalties(penalties: Sequence[float]) -> list[float]:
    found = [number("penalties", one) for one in penalties]
    if not found or not all(0 <= one < np.inf for one in found):
        raise ValueError(f"penalties must be finite and not negative, got {list(penalties)}")
    return found
