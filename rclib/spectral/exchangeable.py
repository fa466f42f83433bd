"""A weight matrix read as a sample of an exchangeable array: shares, kernel, own start.

An array whose law no permutation of rows or columns changes is X_ij = f(u_i, v_j, w_ij) with
independent u, v, w (Aldous 1981, Hoover 1979), so its entries split into uncorrelated parts

    X_ij = μ + r_i + c_j + g(u_i, v_j) + e_ij,     E[g | u_i] = E[g | v_j] = 0,  E[e | u, v] = 0:

row, column, interaction and residual. Products of two entries tell the variances of the first:

    same row      E[X_ij X_ik] = μ² + σ_r²          same entry    E[X_ij²] = μ² + σ_r² + ... + σ_e²
    same column   E[X_ij X_kj] = μ² + σ_c²          no index      E[X_ij X_kl] = μ²

The means over all such pairs are unbiased, and so are σ_r², σ_c² and σ_g² + σ_e² from them; a
variance near zero may come out below it. One entry a pair (u_i, v_j) cannot part σ_g² from σ_e² by
moments of any fixed order in two entries. The spectrum can: with m rows and n columns g is a sum of
outer products with singular values θ that grow like √(m n), independent residuals give singular
values of order √m + √n. So θ is read off the values beyond the edge of the residuals
(`rclib.spectral.random_matrix`), and Σ θ² / ((m-1)(n-1)) is σ_g². Of an outer product too weak to
be seen, θ² < σ_e² √(m n), at most σ_e² / √(m n) is counted as residual instead.

Where the start of every entry is known, `given_start` parts them without the spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rclib.checks.arguments import brief, count, flag, number, seed_of
from rclib.checks.arrays import Floats, real_array
from rclib.spectral.random_matrix import outliers, spike_strength

__all__ = [
    "Decomposition",
    "Excess",
    "VarianceShares",
    "decompose",
    "four_cycle_excess",
    "given_start",
    "kernel_values",
    "own_start",
]

_ROUNDS = 100  # of the variance's fixed point, which takes about five


@dataclass(frozen=True)
class VarianceShares:
    """Shares of the variance of an entry; they sum to 1 and may lie below 0 by sampling.

    row, column : of the main effects. interaction : of functions of row and column together.
    residual : of what is independent from entry to entry. variance : of an entry, not a share.
    """

    row: float
    column: float
    interaction: float
    residual: float
    variance: float


@dataclass(frozen=True)
class Decomposition:
    """`decompose`: shares; strengths θ of the outer products of the interaction, descending, (k,);
    residual (m, n), what is left without mean, main effects and those k outer products."""

    shares: VarianceShares
    strengths: Floats
    residual: Floats


def kernel_values(W: Any, *, multiplier: float, top: int) -> Floats:
    """The `top` largest singular values of a layer h -> m W h as an integral operator, descending.

    W (N', N) with multiplier m is the kernel w = N m W of a mean over N neurons; sampled at N'
    and N points its operator has the singular values σ_k(w) / √(N' N), which tend to limits if
    the neurons of every width are samples of one law (paper A). Shape (top,).
    Raises ValueError for a top outside 1 ... min(N', N), what is no matrix, not finite numbers.
    """
    W = _matrix("W", W, 1)
    if count("top", top) > min(W.shape):
        raise ValueError(f"top must lie in 1 ... {min(W.shape)}, got {brief(top)}")
    m = number("multiplier", multiplier)
    if not abs(m) < 1e100:
        raise ValueError(f"multiplier must lie in (-1e100, 1e100), got {m}")
    values = np.linalg.svd(W, compute_uv=False)[:top]
    return np.asarray(abs(m) * np.sqrt(W.shape[1] / W.shape[0]) * values)


def decompose(X: Any) -> Decomposition:
    """Row, column, interaction and residual of a matrix (m, n) from itself alone.

    The outer products are those beyond the edge of the residuals by four Tracy-Widom scales
    (`random_matrix.outliers`), whose variance is found along with them: what is left of the total.
    Raises ValueError for fewer than 4 rows or columns, an X that does not vary or is not finite.
    """
    X = _matrix("X", X, 4)
    row, column, rest = _variances(X)
    inner = _doubly_centred(X)
    m, n = X.shape[0] - 1, X.shape[1] - 1  # the dimensions that centring leaves
    u, s, vt = np.linalg.svd(inner, full_matrices=False)
    squares = np.zeros(n)  # the spectrum of the n x n Gram matrix, zeros included
    squares[: min(m, n)] = s[: min(m, n)] ** 2
    whole = float(squares.sum())
    strengths = np.zeros(0)
    if whole > 1e-24 * float(np.square(X).sum()):
        noise: float | None = None
        for _ in range(_ROUNDS):
            found = outliers(squares, rows=m, variance=noise)
            strengths = np.array(
                [
                    spike_strength(x, rows=m, columns=n, variance=found.variance)
                    for x in found.values
                ]
            )
            left = (whole - float(np.square(strengths).sum())) / (m * n)
            if left <= 1e-12 * whole / (m * n):  # outer products alone: there is no edge
                break
            if noise is not None and abs(left - noise) <= 1e-12 * noise:
                break
            noise = left
    k = len(strengths)
    interaction = float(np.square(strengths).sum()) / (m * n)
    shares = _shares(row, column, interaction, rest - interaction)
    return Decomposition(shares, strengths, inner - (u[:, :k] * s[:k]) @ vt[:k])


def given_start(X: Any, start: Any, *, own: float) -> VarianceShares:
    """The same shares where the start (m, n) is known, whose entries were drawn independently.

    A trained entry is then row and column variables plus (1 + β) times its own start; own is β,
    from `own_start`. The residual's variance is (1 + β)² that of the start, and the interaction's
    the rest. Raises ValueError for other shapes and as `decompose`.
    """
    X, start = _matrix("X", X, 4), _matrix("start", start, 4)
    if X.shape != start.shape:
        raise ValueError(f"start must have the shape of X, {X.shape}, got {start.shape}")
    beta = number("own", own)
    if not abs(beta) < 1e50:
        raise ValueError(f"own must lie in (-1e50, 1e50), got {beta}")
    row, column, rest = _variances(X)
    residual = (1.0 + beta) ** 2 * _variances(start)[2]
    return _shares(row, column, rest - residual, residual)


def own_start(change: Any, start: Any, *, products: int) -> float:
    """β in change_ij = (row and column variables) + β start_ij: what it owes to its own start.

    With P, Q the projections off the `products` leading singular vectors of the change on either
    side, which row and column variables span, β is the regression of P C Q on P S Q, S the start
    without its mean. Under the row-column ansatz it is of order 1/N: one entry moves its neuron's
    input by 1/N. Raises ValueError for shapes that differ or do not exceed products.
    """
    C, S = _matrix("change", change, 1), _matrix("start", start, 1)
    if C.shape != S.shape:
        raise ValueError(f"start must have the shape of change, {C.shape}, got {S.shape}")
    k = count("products", products, 0)
    if k >= min(C.shape):
        raise ValueError(f"products must lie below {min(C.shape)}, got {k}")
    u, s, vt = np.linalg.svd(C, full_matrices=False)
    S = S - S.mean()
    S = S - u[:, :k] @ (u[:, :k].T @ S)
    S = S - (S @ vt[:k].T) @ vt[:k]
    power = float(np.square(S).sum())
    if not power > 0:
        raise ValueError("start must vary off the outer products of the change, it does not")
    # <P C Q, P S Q> with P C Q = Σ_{i > k} s_i u_i v_i^T.
    return float(np.einsum("i,ji,jl,il->", s[k:], u[:, k:], S, vt[k:], optimize=True)) / power


@dataclass(frozen=True)
class Excess:
    """value : relative excess over independent entries; spread : its standard deviation when
    the entries are permuted."""

    value: float
    spread: float


def four_cycle_excess(
    residual: Any, *, removed: int = 0, centred: bool = True, permutations: int = 8, seed: int = 0
) -> Excess:
    """How far the entries of a matrix R (m, n) are from independent: tr (R^T R)² over its mean.

    For independent entries of zero mean, variance v and kurtosis κ = E x⁴ / v²,

        E tr (R^T R)² = m n v² (m + n - 2 + κ);

    anything that ties entries of a rectangle i, k x j, l together (outer products left over, rows
    or columns of unequal variance, blocks) makes it larger. removed : outer products that were
    taken out of R, and `centred` its row and column means, which leaves fewer dimensions.
    Raises ValueError for dimensions that leave fewer than 2, permutations below 2 and R = 0.
    """
    R = _matrix("residual", residual, 2)
    gone = count("removed", removed, 0) + flag("centred", centred)
    if min(R.shape) - gone < 2:
        raise ValueError(
            f"removed and centred must leave residual {R.shape} 2 dimensions, they take {gone}"
        )
    draws = count("permutations", permutations, 2)
    if not R.any():
        raise ValueError("residual must not be zero")
    flat = R.ravel()
    kurtosis = R.size * float(np.sum(flat**4)) / float(np.sum(flat**2)) ** 2
    generator = np.random.default_rng(seed_of("seed", seed))
    m, n = R.shape
    drawn = [
        _four_cycles(generator.permutation(flat).reshape(m, n), m, n, kurtosis)
        for _ in range(draws)
    ]
    value = _four_cycles(R, m - gone, n - gone, kurtosis)
    return Excess(value, float(np.std(drawn, ddof=1)))


def _four_cycles(R: Floats, m: int, n: int, kurtosis: float) -> float:
    gram = R @ R.T if R.shape[0] < R.shape[1] else R.T @ R
    found = float(np.square(gram).sum()) / float(np.trace(gram)) ** 2
    return found * m * n / (m + n - 2 + kurtosis) - 1.0


def _variances(X: Floats) -> tuple[float, float, float]:
    """Unbiased variances of row effects, column effects, and of interaction and residual."""
    m, n = X.shape
    X = X - X.mean()  # changes no variance, and keeps digits
    square, rows, columns = float(np.square(X).sum()), X.sum(1), X.sum(0)
    in_rows, in_columns = float(rows @ rows) - square, float(columns @ columns) - square
    same_row, same_column = in_rows / (m * n * (n - 1)), in_columns / (m * n * (m - 1))
    others = float(X.sum()) ** 2 - square - in_rows - in_columns
    none = others / (m * n * (m - 1) * (n - 1))
    return same_row - none, same_column - none, square / (m * n) - same_row - same_column + none


def _shares(row: float, column: float, interaction: float, residual: float) -> VarianceShares:
    total = row + column + interaction + residual
    if not total > 0:
        raise ValueError("X must vary: all its entries are equal")
    return VarianceShares(
        row / total, column / total, interaction / total, residual / total, variance=total
    )


def _doubly_centred(X: Floats) -> Floats:
    return np.asarray(X - X.mean(1, keepdims=True) - X.mean(0, keepdims=True) + X.mean())


def _matrix(name: str, value: Any, least: int) -> Floats:
    array = real_array(name, value)
    if array.ndim != 2 or min(array.shape) < least:
        raise ValueError(
            f"{name} must be a matrix of at least {least} x {least}, got shape {array.shape}"
        )
    peak = float(np.abs(array).max())
    if peak and not 1e-60 < peak < 1e60:
        raise ValueError(f"{name} must have its largest entry in (1e-60, 1e60), got {peak}")
    return array
