"""Wide ReLU networks that are trained on the unit vectors, in closed form.

A network f(x) = n^(-1/2) W2 relu(k^(-1/2) W1 x) of infinite width, trained by gradient flow on the
k pairs (e_i, e_i), gives at a unit vector x the sum of two parts, for each output alike:

    f(x) = q(x)ᵀ Y + f_0(x) - q(x)ᵀ f_0(E),    q(x) = T(E, E)^(-1) T(E, x)

with the training kernel T: the conjugate kernel κ if the last layer alone is trained, the tangent
kernel Θ if all are. f_0 is the output at the start, a Gaussian process of covariance κ whatever is
trained. For unit vectors at angle θ, in units of 1 / (2πk) (Cho and Saul 2009; Jacot et al. 2018):

    κ = sin θ + (π - θ) cos θ,    Θ = κ + (π - θ) cos θ

A permutation of the targets renames the outputs, so it is left out here. Derived from arXiv
2502.16763's setting; the constants of its theorems are not quoted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from rclib.checks.arguments import choice, count
from rclib.checks.arrays import Floats

__all__ = [
    "KERNELS",
    "Trained",
    "all_inputs",
    "closed_means",
    "closed_size",
    "kernel",
    "trained",
    "trained_mean",
    "two_bit_inputs",
    "unit",
]

KERNELS = ("last layer", "all layers")  # which layers are trained: κ or Θ


def unit(inputs: Floats) -> Floats:
    """Rows divided by their norm. Raises ValueError for a row of zeros."""
    norms = np.linalg.norm(inputs, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError("inputs must hold no row of zeros")
    return np.asarray(inputs / norms)


def kernel(a: Floats, b: Floats, which: str) -> Floats:
    """κ ("last layer") or Θ ("all layers") between unit vectors, (n, k) and (m, k): (n, m), with
    the factor 1 / (2πk). Raises ValueError for another name."""
    choice("which", which, KERNELS)
    cosine = np.clip(a @ b.T, -1.0, 1.0)
    # arccos loses half the digits near 1, where 0/1 vectors have only exact coincidence.
    cosine = np.where(cosine > 1 - 1e-12, 1.0, cosine)
    angle = np.arccos(cosine)
    slope = (np.pi - angle) * cosine
    found = np.sin(angle) + slope * (1 if which == "last layer" else 2)
    return np.asarray(found / (2 * np.pi * a.shape[1]))


def closed_means(k: int, ones: int, which: str) -> tuple[float, float]:
    """μ1 and μ0: mean output where the input's bit is one and where it is zero, for an input with
    `ones` ones (for ones = k there is no zero, and μ0 is that of the formula).

    With a the kernel between x and a unit vector of its support, c that between two unit vectors,
    d that of a unit vector with itself: r = (a - c) / (d - c), D = d - c + kc, μ1 = c/D + r (1 -
    ones c/D), μ0 = (c/D) (1 - ones r).
    Raises ValueError unless 1 <= ones <= k, and for an unknown kernel.
    """
    choice("which", which, KERNELS)
    if not 1 <= count("ones", ones) <= count("k", k):
        raise ValueError(f"ones must lie in 1 to k = {k}, got {ones}")
    factor = 1 if which == "last layer" else 2
    cosine = 1 / np.sqrt(ones)
    angle = np.arccos(cosine) if ones > 1 else 0.0
    a = np.sin(angle) + factor * (np.pi - angle) * cosine
    c, d = 1.0, factor * np.pi
    ratio, share = (a - c) / (d - c), c / (d - c + k * c)
    return float(share + ratio * (1 - ones * share)), float(share * (1 - ones * ratio))


@dataclass(frozen=True)
class Trained:
    """The law of the outputs at T inputs: Gaussian, independent over the k outputs.

    mean : (T, k). covariance : (T, T), the same for every output.
    """

    mean: Floats
    covariance: Floats

    def root(self) -> Floats:
        """L (T, T) with L Lᵀ = covariance. Raises numpy.linalg.LinAlgError if it has none."""
        size = len(self.covariance)
        lift = 1e-10 * float(np.trace(self.covariance)) / size
        return np.asarray(np.linalg.cholesky(self.covariance + lift * np.eye(size)))


def trained(inputs: Floats, which: str, *, without: int | None = None) -> Trained:
    """Law after training on the unit vectors, at unit vectors `inputs` (T, k).

    without : a bit whose unit vector is left out of the training.
    Raises ValueError for an unknown kernel.
    """
    seen, weights = _weights(inputs, which, without)
    across = kernel(seen, inputs, "last layer")
    half = weights.T @ across
    covariance = (
        kernel(inputs, inputs, "last layer")
        - half
        - half.T
        + weights.T @ kernel(seen, seen, "last layer") @ weights
    )
    return Trained(np.asarray(weights.T @ seen), np.asarray((covariance + covariance.T) / 2))


def trained_mean(inputs: Floats, which: str) -> Floats:
    """`trained`'s mean (T, k) alone, without the T² numbers of its covariance."""
    seen, weights = _weights(inputs, which, None)
    return np.asarray(weights.T @ seen)


def _weights(inputs: Floats, which: str, without: int | None) -> tuple[Floats, Floats]:
    """Unit vectors trained on, and what each adds to the mean at an input, (seen, T)."""
    seen: Floats = np.delete(np.eye(inputs.shape[1]), [] if without is None else [without], axis=0)
    weights = np.linalg.solve(kernel(seen, seen, which), kernel(seen, inputs, which))
    return seen, np.asarray(weights)


def closed_size(k: int, ones: int, which: str, share: float) -> float:
    """Size N of the ensemble that is right at threshold zero with probability `share`, at one input
    with `ones` ones: Φ(μ1 sqrt(N) / σ)^ones Φ(-μ0 sqrt(N) / σ)^(k - ones) = share.

    Outputs are independent and every such input is alike, so this is the share of inputs that an
    ensemble of this size has right on average. A real number, below 1 where one network does.
    Raises ValueError unless 2 <= ones <= k and 0 < share < 1, and for an unknown kernel.
    """
    count("ones", ones, 2)
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    on, off = closed_means(k, ones, which)
    x = np.zeros((1, k))
    x[0, :ones] = 1
    spread = float(trained(unit(x), which).covariance[0, 0]) ** 0.5

    def lacking(log_size: float) -> float:
        root = np.exp(log_size / 2) / spread
        right = ones * log_ndtr(on * root) + (k - ones) * log_ndtr(-off * root)
        return float(right - np.log(share))

    return float(np.exp(brentq(lacking, -30.0, 30.0)))


def two_bit_inputs(k: int) -> Floats:
    """All inputs with two ones, (k (k - 1) / 2, k), entries 0 and 1."""
    first, second = np.triu_indices(count("k", k, 2), 1)
    found = np.zeros((len(first), k))
    places = np.arange(len(first))
    found[places, first] = found[places, second] = 1.0
    return found


def all_inputs(k: int) -> Floats:
    """All inputs with two ones or more, (2^k - 1 - k, k). Raises ValueError for k over 16."""
    if count("k", k, 2) > 16:
        raise ValueError(f"k must be at most 16, got {k}")
    bits = (np.arange(1, 2**k)[:, None] >> np.arange(k)) & 1
    return np.asarray(bits[bits.sum(1) > 1], dtype=np.float64)
