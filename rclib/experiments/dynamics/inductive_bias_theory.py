"""Left tails of test errors: quadratic forms of Gaussians, exactly and by their fitted model.

Boopathy et al. (arXiv 2406.15941) measure the information that a task needs as
I(ε) = -ln P(e <= ε), e the test error of a hypothesis that fits the training data. In the space of
a Gaussian process e = (1/m) |μ + C^(1/2) z - y|² over m test points: with the eigenvalues λ_i of C
and b_i the coordinates of μ - y,

    e = Σ (√λ_i z_i + b_i)² / m,    K(s) = Σ_i -½ ln(1 - 2 l_i s) + (b_i² / m) s / (1 - 2 l_i s)

with l = λ / m, its cumulant generating function. The paper fits c χ'²(df, nc) to samples of e.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import ncx2, norm

__all__ = [
    "Quadratic",
    "fitted",
    "information",
    "likelihood_fit",
    "likelihood_information",
    "sankaran",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quadratic:
    """A sum of independent scaled noncentral χ²: weights l (k,), degrees of freedom df (k,), and
    shift (k,), each l times the noncentrality. Weights of zero add their shift as it is."""

    weights: Floats
    df: Floats
    shift: Floats

    @classmethod
    def of(cls, weights: ArrayLike, df: ArrayLike, shift: ArrayLike) -> Quadratic:
        """From arrays or numbers that belong together.

        Raises ValueError for negative entries and if no weight is positive.
        """
        l, f, b = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(a, dtype=float)) for a in (weights, df, shift))
        )
        if min(l.min(), f.min(), b.min()) < 0 or not l.max() > 0:
            raise ValueError("weights, df and shift must be nonnegative, and one weight positive")
        return cls(l, f, b)

    def cumulant(self, r: int) -> float:
        """κ_r = 2^(r-1) (r-1)! Σ l^(r-1) (df l + r shift)."""
        factor = 2.0 ** (r - 1) * float(np.prod(np.arange(1, r)))
        powers = self.weights ** (r - 1)
        return factor * float((powers * (self.df * self.weights + r * self.shift)).sum())

    def _k(self, s: float) -> tuple[float, float, float]:
        """K, K' and K'' at s below the pole."""
        left = 1.0 - 2.0 * self.weights * s
        k = float((-0.5 * self.df * np.log(left) + self.shift * s / left).sum())
        first = float((self.df * self.weights / left + self.shift / left**2).sum())
        second = self.weights * (2 * self.df * self.weights / left**2 + 4 * self.shift / left**3)
        return k, first, float(second.sum())

    def log_cdf(self, at: float) -> float:
        """ln P(e <= at) by the saddlepoint, in the form of Barndorff-Nielsen: relative error of the
        probability below one percent for ten degrees of freedom or more.

        -inf at and below the smallest value. Raises ValueError for a value that is not finite.
        """
        if not np.isfinite(at):
            raise ValueError(f"at must be finite, got {at}")
        if at <= float(self.shift[self.weights == 0].sum()):
            return -np.inf
        pole = 0.5 / float(self.weights.max())
        high, low = pole * (1 - 1e-12), -1.0 / float(self.weights.max())
        while self._k(low)[1] > at:
            low *= 4.0
            if low < -1e200:
                return -np.inf
        if self._k(high)[1] < at:
            return 0.0
        s = float(brentq(lambda x: self._k(x)[1] - at, low, high, xtol=1e-300, rtol=1e-13))
        k, _, second = self._k(s)
        w = np.sign(s) * np.sqrt(max(2.0 * (s * at - k), 0.0))
        v = s * np.sqrt(second)
        if abs(w) < 1e-3:  # at the mean, where both vanish
            return float(norm.logcdf(w + self.cumulant(3) / (6.0 * self.cumulant(2) ** 1.5)))
        return float(norm.logcdf(w + np.log(v / w) / w))

    def sample(self, random: np.random.Generator, n: int) -> Floats:
        """`n` draws of e where every df is one; ValueError otherwise."""
        if not (self.df == 1).all():
            raise ValueError("samples are drawn of one degree of freedom each")
        z = random.standard_normal((n, len(self.weights)))
        return np.asarray(np.square(np.sqrt(self.weights) * z + np.sqrt(self.shift)).sum(1))


def information(law: Quadratic, at: float) -> float:
    """I = -ln P(e <= at) in nats."""
    return -law.log_cdf(at) + 0.0


def fitted(errors: ArrayLike) -> Quadratic:
    """The scaled noncentral χ² with the first three sample cumulants of `errors`: κ1 = c (df + nc),
    κ2 = 2 c² (df + 2 nc), κ3 = 8 c³ (df + 3 nc), so κ1 c² - κ2 c + κ3 / 8 = 0. Where none has them,
    the scaled χ² with the first two. Raises ValueError unless the sample varies.
    """
    e = np.asarray(errors, dtype=float)
    k1, k2 = float(e.mean()), float(e.var(ddof=1)) if len(e) > 1 else 0.0
    if not (k1 > 0 and k2 > 0):
        raise ValueError("errors must be positive and vary")
    k3 = float(np.power(e - k1, 3).mean())
    inside = k2 * k2 - 0.5 * k1 * k3
    if inside >= 0:
        c = (k2 - np.sqrt(inside)) / (2.0 * k1)
        if c > 0:
            nc, df = k2 / (2 * c * c) - k1 / c, 2 * k1 / c - k2 / (2 * c * c)
            if nc >= 0 and df >= 0:
                return Quadratic.of(c, df, c * nc)
    c = k2 / (2.0 * k1)
    return Quadratic.of(c, k1 / c, 0.0)


def likelihood_fit(errors: ArrayLike) -> tuple[float, float, float]:
    """(df, nc, c) of the maximum-likelihood c χ'²(df, nc) of `errors`, by scipy's search without a
    shift, as in the authors' code. Raises ValueError for errors that are not positive."""
    e = np.asarray(errors, dtype=float)
    if not e.min() > 0:
        raise ValueError(f"errors must be positive, got {e.min()}")
    df, nc, _, scale = (float(v) for v in ncx2.fit(e, floc=0))
    return df, nc, scale


def likelihood_information(fit: tuple[float, float, float], at: float) -> tuple[float, float]:
    """I at an error as the authors' code reads it off a `likelihood_fit`, and its fallback alone:
    -ln of the distribution function, and where that is not finite z² / 2 with z of `sankaran`."""
    df, nc, scale = fit
    z = sankaran(at / scale, df=df, nc=nc)
    fallback = 0.5 * z * z if z < 0 else 0.0
    exact = -float(ncx2.logcdf(at / scale, df, nc))
    return (exact if np.isfinite(exact) else fallback), fallback


def sankaran(x: float, *, df: float, nc: float) -> float:
    """z with Φ(z) ≈ P(χ'²(df, nc) <= x), of Sankaran (Biometrika 1963)."""
    first, second, third = df + nc, df + 2 * nc, df + 3 * nc
    h = 1 - 2 * first * third / (3 * second**2)
    p = second / first**2
    m = (h - 1) * (1 - 3 * h)
    mean = 1 + h * p * (h - 1 - 0.5 * (2 - h) * m * p)
    return float(((x / first) ** h - mean) / (h * np.sqrt(2 * p) * (1 + 0.5 * m * p)))
