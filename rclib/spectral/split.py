"""A trained matrix as start + row-column part + rest, and the spikes that the second one makes.

    W = W(0) + Σ_k s_k u_k w_kᵀ + rest

The row-column part of the change C = W - W(0) has at most `products` outer products of a row
variable and a column variable. Two ways to get it:

    split_svd          the best such sum, whatever the variables: the leading singular triplets of C
    split_regression   the best one whose u_k are functions of measured row variables (columns of A)
                       and whose w_k are functions of measured column variables (columns of B).
                       With P_A, P_B the projections on their spans the least-squares fit A M Bᵀ is
                       P_A C P_B, and the best fit of limited rank is its truncated SVD
                       (reduced-rank regression, Izenman 1975), since C - P_A C P_B is orthogonal to
                       everything of that form

Either way the part is an orthogonal projection of C, so ‖part‖² / ‖C‖² is the share that it keeps.
A change whose entries are tied to neither rows nor columns leaves p q / (h d) to p row and q column
variables on average.

What theory says of it. If W(0) (h, d) is independent noise of variance v, and independent of u_k,
w_k, then those products with s_k² > v √(h d) take an eigenvalue of WᵀW out of the bulk, each to its
own place (`rclib.spectral.random_matrix.spike`), and the vectors of W there lie in the span of the
u_k (w_k) with the squared length that `Spike` names. Sources: Baik, Ben Arous and Péché 2005 for
the transition; Benaych-Georges and Nadakuditi 2012 for singular values and vectors of rectangular
matrices and products of any number; the row-column ansatz is paper A's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rclib.checks.arguments import brief, count
from rclib.checks.arrays import Floats, real_array
from rclib.spectral.random_matrix import spike

__all__ = ["Spikes", "Split", "ownership", "predicted_spikes", "split_regression", "split_svd"]

_RANK = 1e-10  # variables below this share of the largest direction are copies of others


@dataclass(frozen=True, eq=False)
class Split:
    """start + row_column + rest is the matrix, entry by entry up to rounding.

    start, rest: (h, d). left: (h, k) and right: (d, k), orthonormal columns u_k and w_k.
    strengths: s_k, descending, (k,).
    kept: share of the squared norm of the change in the row-column part, in [0, 1].
    """

    start: Floats
    left: Floats
    strengths: Floats
    right: Floats
    rest: Floats
    kept: float

    @property
    def row_column(self) -> Floats:
        """Σ_k s_k u_k w_kᵀ, (h, d)."""
        return np.asarray((self.left * self.strengths) @ self.right.T)


def split_svd(W: Any, start: Any, *, products: int) -> Split:
    """The split of W (h, d) whose row-column part is the truncated SVD of the change.

    Raises ValueError for shapes that differ, products outside 1 ... min(h, d), values that are not
    finite, and W = start, which has no change to split.
    """
    W, start = _pair(W, start)
    k = _products(products, min(W.shape))
    u, s, vt = np.linalg.svd(W - start, full_matrices=False)
    return _split(W, start, u[:, :k], s[:k], vt[:k].T)


def split_regression(W: Any, start: Any, *, rows: Any, columns: Any, products: int) -> Split:
    """The split whose row-column part is the regression of the change on neuron variables.

    rows: A (h, p), one row variable a column. columns: B (d, q), one column variable a column. Add
    a column of ones for the mean. Variables that depend on others (or are zero) add nothing; fewer
    than `products` independent ones on either side leave as many products.
    Raises ValueError as `split_svd`, for variables of another length and as many as there are rows
    (columns), which would explain anything.
    """
    W, start = _pair(W, start)
    k = _products(products, min(W.shape))
    a, b = _basis("rows", rows, W.shape[0]), _basis("columns", columns, W.shape[1])
    u, s, vt = np.linalg.svd(a.T @ (W - start) @ b, full_matrices=False)
    k = min(k, len(s))
    return _split(W, start, a @ u[:, :k], s[:k], b @ vt[:k].T)


def ownership(vectors: tuple[Floats, Floats], split: Split) -> Floats:
    """How much of each singular pair of W lies in the row-column part: (m,), in [0, 1].

    vectors: (h, m) and (d, m), of `rclib.spectral.spectra.singular_vectors`. Entry i is the mean of
    the squared lengths of the projections of u_i on the span of the part's left vectors, and of v_i
    on that of the right ones. By chance k (1/h + 1/d) / 2; over all directions (h = d) they sum to
    k. Raises ValueError for vectors of another matrix's shape.
    """
    found = []
    for side, own, part in zip(("left", "right"), vectors, (split.left, split.right), strict=True):
        own = real_array(f"{side} vectors", own)
        if own.ndim != 2 or len(own) != len(part):
            raise ValueError(f"{side} vectors must have {len(part)} rows, got shape {own.shape}")
        found.append(np.square(part.T @ own).sum(0))
    return np.asarray(0.5 * (found[0] + found[1]))


@dataclass(frozen=True, eq=False)
class Spikes:
    """What theory says of every product, the strongest first; arrays (k,).

    detached: whether its eigenvalue leaves the bulk. eigenvalues: its place, the edge otherwise.
    left, right: squared length that the singular vectors of W there have in the span of the
    products, 0 where it stays in the bulk. edge: of the bulk of WᵀW.
    """

    detached: np.ndarray[Any, np.dtype[np.bool_]]
    eigenvalues: Floats
    left: Floats
    right: Floats
    edge: float

    @property
    def number(self) -> int:
        """How many leave the bulk."""
        return int(self.detached.sum())


def predicted_spikes(
    strengths: ArrayLike, *, rows: int, columns: int, variance: float = 1.0
) -> Spikes:
    """`Spikes` of noise (rows, columns), entries of `variance`, plus products of these strengths.

    strengths: s_k, (k,) in any order. Raises ValueError for none and as `random_matrix.spike`.
    """
    values = real_array("strengths", strengths)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"strengths must have shape (k,) with k ≥ 1, got {values.shape}")
    found = [
        spike(float(s), rows=rows, columns=columns, variance=variance)
        for s in np.sort(values)[::-1]
    ]
    return Spikes(
        np.array([one.detached for one in found]),
        np.array([one.eigenvalue for one in found]),
        np.array([one.left for one in found]),
        np.array([one.right for one in found]),
        spike(0.0, rows=rows, columns=columns, variance=variance).eigenvalue,
    )


def _split(W: Floats, start: Floats, left: Floats, strengths: Floats, right: Floats) -> Split:
    change = W - start
    rest = change - (left * strengths) @ right.T
    kept = float(np.square(strengths).sum() / np.square(change).sum())
    return Split(start, left, strengths, right, rest, min(kept, 1.0))


def _pair(W: Any, start: Any) -> tuple[Floats, Floats]:
    W, start = real_array("W", W), real_array("start", start)
    if W.ndim != 2 or W.size == 0:
        raise ValueError(f"W must be a matrix with entries, got shape {W.shape}")
    if W.shape != start.shape:
        raise ValueError(f"start must have the shape of W, {W.shape}, got {start.shape}")
    for name, one in (("W", W), ("start", start)):
        if not np.abs(one).max() < 1e100:
            raise ValueError(f"{name} must have its largest entry below 1e100")
    if not np.square(W - start).sum() > 0:
        raise ValueError("W must differ from start: there is no change to split")
    return W, start


def _products(products: int, most: int) -> int:
    if count("products", products) > most:
        raise ValueError(f"products must lie in 1 ... {most}, got {brief(products)}")
    return int(products)


def _basis(name: str, variables: Any, length: int) -> Floats:
    """Orthonormal columns that span the variables (length, p)."""
    values = real_array(name, variables)
    if values.ndim != 2 or len(values) != length or not 0 < values.shape[1] < length:
        raise ValueError(
            f"{name} must have shape ({length}, p) with 1 ≤ p < {length}, got {values.shape}"
        )
    peaks = np.abs(values).max(0)
    if not peaks.any():
        raise ValueError(f"{name} must not all be zero")
    values = values[:, peaks > 0] / peaks[peaks > 0]
    values = values / np.linalg.norm(values, axis=0)
    u, s, _ = np.linalg.svd(values, full_matrices=False)
    return np.asarray(u[:, s > _RANK * s[0]])
