"""Spectra of weight matrices: eigenvalues of W^T W, ranks, alignment, overlaps.

    esd(W)                          eigenvalues of W^T W, ascending
    alignment(W, β)                 |<v_1, β>|, v_1 the top right singular vector of W
    overlaps(W, M)                  <u_i(W), u_j(M)>², and the same on the right
    kernel_target_alignment(Z, y)   <K, y y^T> / (‖K‖ ‖y y^T‖), K = Z Z^T

A matrix W has shape (h, d) and acts on vectors of size d. All results are float64; input may
be a NumPy array or a torch tensor of any floating type and device.

Source: paper B, "Quantities". The power-law fits (`rclib.spectral.power_law`) and the laws of
random matrices (`rclib.spectral.random_matrix`) are importable from here as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh_tridiagonal, lapack

from rclib.checks.arguments import brief
from rclib.checks.arrays import Floats, real_array, safe_scale
from rclib.spectral.power_law import PowerLaw, bootstrap_alpha, power_law
from rclib.spectral.random_matrix import (
    MarchenkoPastur,
    Outliers,
    Spike,
    marchenko_pastur,
    outliers,
    spike,
)
from rclib.spectral.rounding import entries_eps, numerical_rank, precision

__all__ = [
    "MarchenkoPastur",
    "Outliers",
    "Overlaps",
    "PowerLaw",
    "Spectrum",
    "Spike",
    "alignment",
    "bootstrap_alpha",
    "effective_rank",
    "esd",
    "kernel_target_alignment",
    "marchenko_pastur",
    "outliers",
    "overlaps",
    "power_law",
    "singular_vectors",
    "spectrum",
    "spike",
    "stable_rank",
    "top_direction",
    "vector_alignment",
    "vector_overlaps",
]

# The Gram matrix squares the singular values, so λ_min carries a relative error of about
# 1e-16 · λ_max / λ_min. Beyond this ratio the singular values are computed from W itself.
_GRADED = 1e8


@dataclass(frozen=True)
class Spectrum:
    """eigenvalues: of W^T W, ascending, (d,). v1: top right singular vector of W, (d,)."""

    eigenvalues: Floats
    v1: Floats


class Overlaps(NamedTuple):
    """left[i, j] = <u_i(W), u_j(M)>², right[i, j] = <v_i(W), v_j(M)>²; both (k, k).

    Singular vectors are counted from the largest singular value. Where singular values
    coincide (zero ones included) the single vectors, and so the single entries, are not
    determined; sums over the block are.
    """

    left: Floats
    right: Floats


def esd(W: Any) -> Floats:
    """Eigenvalues of W^T W for W (h, d), ascending, shape (d,).

    Computed in float64 from the smaller Gram matrix; when the eigenvalues span more than
    eight decades, from the singular values of W, so that small ones keep a relative error
    below about 1e-7 either way. Those beyond the rank of W are exactly zero: the d - h
    missing ones when h < d, and any singular value below max(h, d) · 2.2e-16 · σ_1 (the
    usual numerical rank), as it cannot be told from zero. Of a W in a narrower type (float32,
    float16, bfloat16) those that are the rounding of its entries are zero as well
    (`rclib.spectral.rounding`); float64 is taken as exact, so `esd(W.double())` keeps them.

    Raises ValueError if W has not two axes, is empty, or holds NaN, infinite values or
    entries whose squares leave float64.
    """
    given = W
    W = _matrix("W", W)
    gram, _ = _gram(W)
    return _clean(W, np.linalg.eigvalsh(gram), given)


def spectrum(W: Any) -> Spectrum:
    """`esd(W)` and the top right singular vector, from one reduction to tridiagonal form.

    Raises ValueError as `esd`, and for W = 0, which has no top direction.
    """
    given = W
    W = _nonzero("W", _matrix("W", W))
    gram, tall = _gram(W)
    reduced = _tridiagonal(gram)
    values = reduced.diagonal
    if values.size > 1:
        values = eigh_tridiagonal(
            values, reduced.beside, eigvals_only=True, check_finite=False, lapack_driver="sterf"
        )
    _, top = _top_pair(reduced)
    return Spectrum(_clean(W, values, given), top if tall else _other_side(W, top))


def top_direction(W: Any) -> tuple[float, Floats]:
    """The largest eigenvalue of W^T W and the top right singular vector, without the others.

    Raises ValueError as `spectrum`.
    """
    W = _nonzero("W", _matrix("W", W))
    gram, tall = _gram(W)
    value, top = _top_pair(_tridiagonal(gram))
    return value, top if tall else _other_side(W, top)


def alignment(W: Any, beta: Any) -> float:
    """sim(W, β) = |<v_1, β>| in [0, 1]; β (d,) is divided by its length.

    Source: paper B, "Quantities". Raises ValueError for W = 0, β = 0, a β of another size,
    or values that are not finite.
    """
    return vector_alignment(top_direction(W)[1], beta)


def vector_alignment(v: Floats, beta: Any) -> float:
    """|<v, β>| / ‖β‖ for a unit vector v (d,). Raises ValueError for a β of another shape or of
    length zero."""
    v, beta = real_array("v", v), safe_scale(real_array("beta", beta))
    if v.ndim != 1 or np.abs(v).max(initial=0.0) > 2.0 or abs(np.linalg.norm(v) - 1.0) > 1e-6:
        raise ValueError(f"v must be a vector of length one, got shape {v.shape}")
    if beta.shape != v.shape:
        raise ValueError(f"beta must have shape {v.shape}, as W has columns, got {beta.shape}")
    length = float(np.linalg.norm(beta))
    if length == 0:
        raise ValueError("beta must not be zero")
    return min(1.0, abs(float(v @ beta)) / length)


def overlaps(W: Any, M: Any, *, top: int | None = None) -> Overlaps:
    """Squared inner products of the singular vectors of W and M, both (h, d): (left, right).

    top: keep the leading `top` directions of each; default all min(h, d).
    Source: paper B, "Quantities", with M = W_{t+1} - W_t.
    Raises ValueError for shapes that differ, W = 0 or M = 0, a bad `top`, or values that are
    not finite.
    """
    W, M = _matrix("W", W), _matrix("M", M)
    if W.shape != M.shape:
        raise ValueError(f"M must have the shape of W, {W.shape}, got {M.shape}")
    W, M = _nonzero("W", W), _nonzero("M", M)
    return vector_overlaps(singular_vectors(W, top=top), singular_vectors(M, top=top))


def singular_vectors(W: Any, *, top: int | None = None) -> tuple[Floats, Floats]:
    """Left (h, k) and right (d, k) singular vectors of W (h, d) as columns, the largest first.

    top : k, all by default. Raises ValueError for a top outside 1 ... min(h, d).
    """
    W = _matrix("W", W)
    k = min(W.shape) if top is None else top
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= min(W.shape):
        raise ValueError(f"top must be an integer from 1 to {min(W.shape)}, got {brief(top)}")
    u, _, vt = np.linalg.svd(W, full_matrices=False)
    return np.ascontiguousarray(u[:, :k]), np.ascontiguousarray(vt[:k].T)


def vector_overlaps(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> Overlaps:
    """`overlaps` of two results of `singular_vectors`, so that each matrix is factored once.

    Raises ValueError for vectors of matrices of different shapes, or that are not finite.
    """
    for name, pair in (("first", first), ("second", second)):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"{name} must be a pair (left, right), got {type(pair).__name__}")
    found = []
    for i, side in enumerate(("left", "right")):
        u, v = (
            real_array(f"{side} vectors of {name}", pair[i])
            for name, pair in (("first", first), ("second", second))
        )
        if max(np.abs(u).max(initial=0.0), np.abs(v).max(initial=0.0)) > 1.0 + 1e-6:
            raise ValueError(f"{side} vectors of first and second must have length one")
        if u.ndim != 2 or v.ndim != 2 or len(u) != len(v):
            raise ValueError(
                f"{side} vectors of first and second must be the columns of two matrices with as "
                f"many rows, got shapes {u.shape} and {v.shape}"
            )
        found.append((u.T @ v) ** 2)
    return Overlaps(*found)


def kernel_target_alignment(Z: Any, y: Any) -> float:
    """<K, y y^T> / (‖K‖ ‖y y^T‖) with K = Z Z^T, Frobenius norms; Z (n, h), y (n,). In [0, 1].

    <K, y y^T> = ‖Z^T y‖² and ‖Z Z^T‖ = ‖Z^T Z‖, so only the smaller of the two Gram matrices
    is formed. Source: paper B, "Quantities"; Cristianini et al. 2001 (not centred).
    Raises ValueError for shapes that do not fit, Z = 0, y = 0, or values that are not finite.
    """
    Z, y = _matrix("Z", Z), safe_scale(real_array("y", y))
    if y.shape != (Z.shape[0],):
        raise ValueError(f"y must have shape ({Z.shape[0]},), as Z has rows, got {y.shape}")
    if not Z.any() or not y.any():
        raise ValueError(f"{'y' if Z.any() else 'Z'} must not be zero")
    norm = float(np.linalg.norm(_gram(Z)[0]))
    along = Z.T @ y
    return float(along @ along) / (norm * float(y @ y))


def stable_rank(W: Any) -> float:
    """‖W‖_F² / ‖W‖_2² = Σ λ_i / λ_max, between 1 and the rank.

    W: matrix (h, d), or the eigenvalues (d,) of W^T W. Source: Rudelson and Vershynin 2007.
    Raises ValueError for W = 0 and as `esd` does.
    """
    values = _eigenvalues(W)
    return float(values.sum() / values.max())


def effective_rank(W: Any) -> float:
    """exp of the entropy of p_i = σ_i / Σ σ_j, σ the singular values; between 1 and the rank.

    W: matrix (h, d), or the eigenvalues (d,) of W^T W (σ = √λ).
    Source: Roy and Vetterli 2007. (Others take p_i from the eigenvalues, or call the stable
    rank "effective"; this is neither.) Raises ValueError for W = 0 and as `esd` does.
    """
    sigma = np.sqrt(_eigenvalues(W))
    p = sigma[sigma > 0] / sigma.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def _eigenvalues(W: Any) -> Floats:
    """W (h, d) or eigenvalues (d,) → eigenvalues, not all zero."""
    values = real_array("W", W)
    if values.ndim != 1:
        values = esd(W)
    elif values.size == 0 or values.min() < 0:
        raise ValueError(f"eigenvalues must not be negative or missing, got {values}")
    else:
        values = safe_scale(values)
    if not values.any():
        raise ValueError("W must not be zero")
    return values


def _matrix(name: str, value: ArrayLike | Any) -> Floats:
    array = real_array(name, value)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} must be a matrix with entries, got shape {array.shape}")
    peak = max(float(array.max()), -float(array.min()))
    if peak and not 1e-100 < peak < 1e100:
        raise ValueError(f"{name} must have its largest entry in (1e-100, 1e100), got {peak}")
    return array


def _gram(W: Floats) -> tuple[Floats, bool]:
    """The smaller of W^T W and W W^T, and whether it is the first."""
    tall = W.shape[0] >= W.shape[1]
    return (W.T @ W, True) if tall else (W @ W.T, False)


def _clean(W: Floats, values: NDArray[Any], given: Any) -> Floats:
    """Eigenvalues (k,) of the smaller Gram matrix, ascending → those of W^T W, (d,).

    given : W as it came, whose type says how precisely its entries are known."""
    if values[0] * _GRADED < values[-1]:
        sigma = np.linalg.svd(W, compute_uv=False)[::-1].copy()
        sigma[sigma <= max(W.shape) * np.finfo(np.float64).eps * sigma[-1]] = 0.0
        values = sigma**2
    values = np.maximum(values, 0.0)
    eps = entries_eps(given)
    if eps is not None:
        whole = torch.from_numpy(W)
        rank = numerical_rank(values, whole, precision(whole, eps=eps))
        values[: values.size - rank] = 0.0
    missing = np.zeros(W.shape[1] - values.size)
    return np.concatenate([missing, values])


class _Tridiagonal(NamedTuple):
    """S = Q T Q^T: T by its diagonal (k,) and what stands beside it (k - 1,), Q by reflectors."""

    reflectors: Floats
    diagonal: Floats
    beside: Floats
    tau: Floats


def _tridiagonal(gram: Floats) -> _Tridiagonal:
    """The reduction of a symmetric matrix, which is what eigenvalues alone cost."""
    k = gram.shape[0]
    if k == 1:
        return _Tridiagonal(gram, gram[0].copy(), np.empty(0), np.empty(0))
    work, _ = lapack.dsytrd_lwork(k, lower=1)
    # gram.T is the same matrix in the memory order LAPACK wants.
    reduced, diagonal, beside, tau, _ = lapack.dsytrd(gram.T, lower=1, lwork=int(work))
    return _Tridiagonal(reduced, diagonal, beside, tau)


def _top_pair(reduced: _Tridiagonal) -> tuple[float, Floats]:
    """The largest eigenvalue and its vector (k,): of T by bisection and inverse iteration, and Q
    turns it back."""
    k = reduced.diagonal.size
    if k == 1:
        return float(reduced.diagonal[0]), np.ones(1)
    value, top = eigh_tridiagonal(
        reduced.diagonal,
        reduced.beside,
        select="i",
        select_range=(k - 1, k - 1),
        check_finite=False,
        lapack_driver="stebz",
    )
    # Q leaves the first coordinate alone; its reflectors lie below the subdiagonal.
    lower = np.asfortranarray(reduced.reflectors[1:, :-1])
    top[1:] = lapack.dormqr("L", "N", lower, reduced.tau, top[1:], 64 * k)[0]
    return float(value[0]), top[:, 0]


def _other_side(W: Floats, top: Floats) -> Floats:
    """v_1 = W^T u_1 / σ_1."""
    top = W.T @ top
    return np.asarray(top / np.linalg.norm(top))


def _nonzero(name: str, W: Floats) -> Floats:
    if not W.any():
        raise ValueError(f"{name} must not be zero, got shape {W.shape} of zeros")
    return W
