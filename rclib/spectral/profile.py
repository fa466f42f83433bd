"""The spectrum of noise whose rows and columns have weights of their own.

W = diag(√a) X diag(√b), X (m, n) with i.i.d. entries of variance v. For large m, n the resolvents
G = (WᵀW - z)^-1 and G̃ = (W Wᵀ - z)^-1 have the diagonals

    G_jj = -1 / (z (1 + b_j e)),    G̃_ii = -1 / (z (1 + a_i ẽ)),
    e = v Σ_i a_i G̃_ii,    ẽ = v Σ_j b_j G_jj,

two equations for e and ẽ, solved by iteration. Equal weights give Marchenko and Pastur's law.

Right of the spectrum e is real and negative, and the second equation gives z for every e: with
f(e) = -v Σ_j b_j / (1 + b_j e), z solves e = -v Σ_i a_i / (z + a_i f). As e falls from 0, z falls
from infinity to the edge, where dz / de = 0.

Outer products U Θ Vᵀ in the matrix before it is weighted, X + U Θ Vᵀ, put eigenvalues of WᵀW
beyond the edge at the z where one of Θ M₁ Θ M₂ is 1, with

    M₁ = √z Uᵀ diag(a) G̃ U,    M₂ = √z Vᵀ diag(b) G V;

for equal weights that is the law of Benaych-Georges and Nadakuditi (`random_matrix.spike`). Inside
the bulk they move eigenvalues too: with κ(z) the eigenvalues of Θ M₁ Θ M₂, the number below x falls
by Σ_k arg(1 - κ_k(x + i0)) / π, since det(WᵀW - z) gains the factor det(1 - Θ M₁ Θ M₂).

Sources: Girko's equations for a variance profile; in this form Couillet and Debbah, "Random Matrix
Methods for Wireless Communications", 2011, section 6.2 (separable profile). The real solution as
Silverstein and Choi (J. Multivariate Analysis 1995) find the support; the outliers as
Benaych-Georges and Nadakuditi 2012, with the diagonals above for the resolvents.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from rclib.checks.arguments import brief, number
from rclib.checks.arrays import Floats, real_array

__all__ = ["ProfileLaw", "profile_edge", "profile_law", "profile_shift", "profile_spikes"]

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
    rows, columns, v = _weights("a", a), _weights("b", b), _variance(variance)
    x, z, e, _ = _solved(rows.tobytes(), columns.tobytes(), v)
    b_values, b_counts = _counted(columns)
    atom = 1 - min(np.count_nonzero(rows), np.count_nonzero(columns)) / columns.size
    stieltjes = -(b_counts / (1 + b_values * e[:, None])).sum(1) / columns.size / z
    density = (stieltjes + atom / z).imag / np.pi  # without the zeros' own tail
    return ProfileLaw(x.copy(), np.maximum(density, 0.0), float(atom))


@lru_cache(maxsize=4)  # the law and the shift of one matrix ask for the same
def _solved(
    row_bytes: bytes, column_bytes: bytes, v: float
) -> tuple[Floats, np.ndarray, np.ndarray, np.ndarray]:
    """Points x and z, e, ẽ a little above them, (p,), for weights as the bytes of their arrays."""
    rows, columns = np.frombuffer(row_bytes), np.frombuffer(column_bytes)
    # Equal weights count together: a drawing has few different ones.
    a_values, a_counts = _counted(rows)
    b_values, b_counts = _counted(columns)
    m, n = np.count_nonzero(rows), np.count_nonzero(columns)
    # No eigenvalue of weighted noise is beyond that of noise with the largest weights.
    top = v * rows.max() * columns.max() * (np.sqrt(m) + np.sqrt(n)) ** 2
    x = top * np.geomspace(1e-6, 1.05, _POINTS)
    z = x * (1 + 1j)
    e = -v * float(rows.sum()) / z
    moving = np.arange(x.size)
    for _ in range(500):  # far above the axis plain iteration settles, point by point
        last, factor = e[moving], v / z[moving]
        tilde = _sum(b_values, b_counts, last, factor)
        e[moving] = 0.5 * (last + _sum(a_values, a_counts, tilde, factor))
        moving = moving[np.abs(e[moving] - last) > 1e-6 * np.abs(last)]
        if moving.size == 0:
            break
    for above in np.geomspace(1.0, _ABOVE, _LEVELS):  # and is followed down by Newton's method
        z = x * (1 + 1j * above)
        for _ in range(_ROUNDS):
            tilde, inner = _next(b_values, b_counts, e, v / z)
            new, outer = _next(a_values, a_counts, tilde, v / z)
            step = (new - e) / (1 - inner * outer)
            e = e + step
            if (np.abs(step) <= 1e-12 * np.abs(e)).all():
                break
    wrong = (np.abs(step) > 1e-9 * np.abs(e)) | (e.imag <= 0) | (tilde.imag <= 0)
    if wrong.any():
        raise ArithmeticError(f"the equations were not solved at x = {x[wrong][0]:g}")
    return x, z, e, tilde


def profile_edge(a: ArrayLike, b: ArrayLike, *, variance: float = 1.0) -> float:
    """Upper edge of `profile_law`: the largest eigenvalue of WᵀW in the limit of large sizes.

    Raises ValueError as `profile_law` does.
    """
    real = _Real(_weights("a", a), _weights("b", b), _variance(variance))
    return float(real.z(real.edge()))


def profile_spikes(
    left: ArrayLike,
    strengths: ArrayLike,
    right: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    variance: float = 1.0,
) -> Floats:
    """Eigenvalues beyond the edge that K outer products put there, descending, (at most K,).

    W = diag(√a) (X + left diag(strengths) rightᵀ) diag(√b), left (m, K), right (n, K), X noise of
    `variance`; the products may be any fixed ones, also such as are not orthogonal. Those that are
    too weak to leave the bulk are not in the answer.
    Raises ValueError as `profile_law` does, for shapes that do not fit and strengths below zero.
    """
    rows, columns, v = _weights("a", a), _weights("b", b), _variance(variance)
    u, w = _products(left, strengths, right, rows.size, columns.size)
    if not u.any():
        return np.zeros(0)
    real = _Real(rows, columns, v)

    def levels(e: float) -> Floats:
        """Eigenvalues of Θ M₁ Θ M₂, ascending: all grow with |e|."""
        z, f = float(real.z(e)), real.f(e)
        first = (u * (rows / (z + rows * f))[:, None]).T @ u
        second = (w * (columns / (1 + columns * e))[:, None]).T @ w
        values, vectors = np.linalg.eigh(second)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.asarray(np.linalg.eigvalsh(root.T @ first @ root))  # √z · √z / z = 1

    edge = real.edge()
    # No eigenvalue lies beyond this, by the triangle inequality.
    norm = float(
        np.linalg.norm(np.sqrt(rows)[:, None] * u) * np.linalg.norm(np.sqrt(columns)[:, None] * w)
    )
    beyond = (norm + float(np.sqrt(real.z(edge)))) ** 2
    far = max(-v * float(rows.sum()) / (4 * beyond), 0.5 * edge)
    found = []
    for k in range(int((levels(edge) > 1).sum())):
        e = optimize.brentq(lambda e, k=k: levels(e)[-1 - k] - 1, far, edge, xtol=1e-13 * abs(edge))
        found.append(float(real.z(e)))
    return np.array(found)


def profile_shift(
    left: ArrayLike,
    strengths: ArrayLike,
    right: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    variance: float = 1.0,
) -> tuple[Floats, Floats]:
    """Points x (p,) of `profile_law` and how many eigenvalues of WᵀW the outer products of
    `profile_spikes` take away from below them, (p,).

    That number is not whole: places move by parts of a distance between neighbours. Beyond the
    edge it is how many spikes lie above x. Raises as `profile_law` and `profile_spikes`.
    """
    rows, columns, v = _weights("a", a), _weights("b", b), _variance(variance)
    u, w = _products(left, strengths, right, rows.size, columns.size)
    x, z, e, tilde = _solved(rows.tobytes(), columns.tobytes(), v)
    first = _form(u, rows / (1 + rows * tilde[:, None]))
    second = _form(w, columns / (1 + columns * e[:, None])) / z[:, None, None]
    kappa = np.linalg.eigvals(first @ second)
    return x.copy(), np.asarray(np.angle(1 - kappa).sum(1) / np.pi)


def _form(vectors: Floats, weights: np.ndarray) -> np.ndarray:
    """vectorsᵀ diag(weights) vectors for weights (p, n): (p, K, K)."""
    pairs = vectors[:, :, None] * vectors[:, None, :]
    n, k = vectors.shape
    return (weights @ pairs.reshape(n, k * k)).reshape(len(weights), k, k)


def _products(
    left: ArrayLike, strengths: ArrayLike, right: ArrayLike, m: int, n: int
) -> tuple[Floats, Floats]:
    """The vectors times √strength, (m, K) and (n, K)."""
    theta = real_array("strengths", strengths)
    u, w = real_array("left", left), real_array("right", right)
    if theta.ndim != 1 or u.shape != (m, theta.size) or w.shape != (n, theta.size):
        raise ValueError(
            f"left, strengths and right must have shapes ({m}, K), (K,) and ({n}, K), "
            f"got {u.shape}, {theta.shape} and {w.shape}"
        )
    if theta.size and theta.min() < 0:
        raise ValueError(f"strengths must not be negative, got {brief(theta.min())}")
    return u * np.sqrt(theta), w * np.sqrt(theta)


class _Real:
    """The equations right of the spectrum, where e < 0 and z are real."""

    def __init__(self, rows: Floats, columns: Floats, v: float) -> None:
        self.a, self.a_counts = _counted(rows)
        self.b, self.b_counts = _counted(columns)
        self.v = v

    def f(self, e: Floats | float) -> Floats:
        return np.asarray(
            -self.v * (self.b_counts * self.b / (1 + self.b * np.asarray(e)[..., None])).sum(-1)
        )

    def z(self, e: Floats | float) -> Floats:
        """The z (...) of every e (...) in (-1 / max b, 0), by Newton's method from the left of the
        root of a convex function."""
        f, e = self.f(e), np.asarray(e)
        z = -self.a[-1] * f - self.v * self.a_counts[-1] * self.a[-1] / e
        for _ in range(200):
            terms = self.a / (z[..., None] + self.a * f[..., None])
            left = self.v * (self.a_counts * terms).sum(-1) + e
            slope = self.v * (self.a_counts * terms**2 / np.where(self.a > 0, self.a, 1.0)).sum(-1)
            step = left / slope
            z = z + step
            if (np.abs(step) <= 1e-14 * z).all():
                break
        return np.asarray(z)

    def edge(self) -> float:
        """The e of the edge: the first minimum of z as e falls from 0."""
        # In the logit of -e max b; it is of order √(m / n) or its inverse there.
        places = np.linspace(-12.0, 12.0, 961)

        def at(place: float | Floats) -> Floats:
            return self.z(-1 / (1 + np.exp(-np.asarray(place))) / self.b[-1])

        rising = np.flatnonzero(np.diff(at(places)) > 0)
        first = int(rising[0]) if rising.size else places.size - 2
        bounds = (places[max(first - 1, 0)], places[first + 1])
        best = optimize.minimize_scalar(
            lambda p: float(at(p)), bounds=bounds, method="bounded", options={"xatol": 1e-9}
        )
        return float(-1 / (1 + np.exp(-best.x)) / self.b[-1])


def _sum(values: Floats, counts: Floats, other: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """-factor · Σ w / (1 + w · other) over the weights w."""
    return np.asarray(-factor * ((values / (1 + values * other[:, None])) @ counts))


def _next(
    values: Floats, counts: Floats, other: np.ndarray, factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`_sum`, and its derivative by `other`."""
    terms = values / (1 + values * other[:, None])
    return -factor * (terms @ counts), factor * ((terms * terms) @ counts)


def _counted(weights: Floats) -> tuple[Floats, Floats]:
    values, counts = np.unique(weights, return_counts=True)
    return values, counts.astype(float)


def _variance(value: float) -> float:
    v = number("variance", value)
    if not 0 < v < 1e30:
        raise ValueError(f"variance must be positive and finite, got {value}")
    return v


def _weights(name: str, value: ArrayLike) -> Floats:
    found = real_array(name, value)
    if found.ndim != 1 or found.size == 0:
        raise ValueError(f"{name} must have one axis and not be empty, got shape {found.shape}")
    if found.min() < 0 or found.max() == 0:
        raise ValueError(f"{name} must not be negative and not all zero, got {found.min()}")
    return found
