"""The generalised Gaussian (GG) law: density, entropy, draws, and its shape from data.

    p(w) = ν / (2 β Γ(1/ν)) exp(-(|w - μ| / β)^ν),   Var w = β² Γ(3/ν) / Γ(1/ν)

ν = 2 is the normal law, 1 Laplace's, ∞ the uniform one. Two estimates of ν:

- by moments, from ρ(ν) = E w² / (E|w|)² = Γ(1/ν) Γ(3/ν) / Γ(2/ν)², which falls from ∞ to 4/3
  (Sharifi, Leon-Garcia 1995; arXiv 2506.00486 inverts a table of it, here the root is found);
- by maximum likelihood: for given ν the best β is (ν / n Σ |w|^ν)^(1/ν), and what is left is
  maximised over ν.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaincinv
from torch import Tensor

from rclib.checks.arrays import real_array

__all__ = [
    "LARGEST_SHAPE",
    "SMALLEST_SHAPE",
    "GeneralizedGaussian",
    "draw",
    "fit",
    "moment_ratio",
    "shape_by_moments",
]

SMALLEST_SHAPE, LARGEST_SHAPE = 0.1, 50.0  # beyond, an estimate is one of these


@dataclass(frozen=True)
class GeneralizedGaussian:
    """The law of shape `shape` (ν) and scale `scale` (β), both positive, around `mean` (μ)."""

    shape: float
    scale: float
    mean: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shape", "scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value!r}")
        if not math.isfinite(self.mean):
            raise ValueError(f"mean must be finite, got {self.mean!r}")

    @classmethod
    def of_variance(cls, shape: float, variance: float) -> GeneralizedGaussian:
        """The law of this shape and variance around 0. Raises ValueError unless both are > 0."""
        if not (math.isfinite(variance) and variance > 0):
            raise ValueError(f"variance must be positive and finite, got {variance!r}")
        unit = cls(shape, 1.0).variance
        return cls(shape, math.sqrt(variance / unit))

    @property
    def variance(self) -> float:
        """β² Γ(3/ν) / Γ(1/ν)."""
        nu = self.shape
        return self.scale**2 * math.exp(math.lgamma(3 / nu) - math.lgamma(1 / nu))

    @property
    def entropy(self) -> float:
        """Differential entropy in nats, 1/ν + ln(2 β Γ(1/ν) / ν)."""
        nu = self.shape
        return 1 / nu + math.log(2 * self.scale / nu) + math.lgamma(1 / nu)

    @property
    def kurtosis(self) -> float:
        """E (w - μ)⁴ / Var², 3 for the normal law."""
        a, b, c = (math.lgamma(k / self.shape) for k in (1, 3, 5))
        return math.exp(a + c - 2 * b)


def draw(law: GeneralizedGaussian, shape: Sequence[int], *, generator: torch.Generator) -> Tensor:
    """i.i.d. entries, float32: a random sign times β · Gamma(1/ν)^(1/ν).

    The Gamma variates are inverted from uniform draws of `generator`, in float64.
    """
    u = torch.rand(*shape, generator=generator, dtype=torch.float64)
    # One uniform number gives sign and size: its half, and where it lies within.
    sign = torch.where(u < 0.5, -1.0, 1.0)
    inside = (2 * u) % 1.0
    size = torch.from_numpy(gammaincinv(1 / law.shape, inside.numpy())) ** (1 / law.shape)
    return (law.mean + law.scale * sign * size).float()


def moment_ratio(shape: float) -> float:
    """ρ(ν) = Γ(1/ν) Γ(3/ν) / Γ(2/ν)². Raises ValueError unless ν is positive."""
    if not (math.isfinite(shape) and shape > 0):
        raise ValueError(f"shape must be positive and finite, got {shape!r}")
    a, b, c = (math.lgamma(k / shape) for k in (1, 2, 3))
    return math.exp(a + c - 2 * b)


def shape_by_moments(values: ArrayLike, *, mean: float = 0.0) -> float:
    """ν with ρ(ν) = mean square over squared mean size of values (any shape) around `mean`.

    0.1 or 50 where the ratio lies beyond theirs. Raises ValueError for no values, for such that
    are not finite, and if all equal `mean`.
    """
    x = _centred(values, mean)
    ratio = float((x**2).mean() / abs(x).mean() ** 2)
    if ratio >= moment_ratio(SMALLEST_SHAPE):
        return SMALLEST_SHAPE
    if ratio <= moment_ratio(LARGEST_SHAPE):
        return LARGEST_SHAPE
    return float(brentq(lambda nu: moment_ratio(nu) - ratio, SMALLEST_SHAPE, LARGEST_SHAPE))


def fit(values: ArrayLike, *, mean: float = 0.0) -> GeneralizedGaussian:
    """The law of largest likelihood around a given mean; ν from 0.1 to 50.

    Raises ValueError for no values, for such that are not finite, and if all equal `mean`.
    """
    x = abs(_centred(values, mean)).ravel()
    largest = float(x.max())
    x = x / largest  # powers of it stay finite

    def scale(nu: float) -> float:
        return float((nu * (x**nu).mean()) ** (1 / nu))

    def loss(log_nu: float) -> float:
        nu = math.exp(log_nu)
        return 1 / nu + math.log(2 * scale(nu) / nu) + math.lgamma(1 / nu)

    bounds = (math.log(SMALLEST_SHAPE), math.log(LARGEST_SHAPE))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    nu = math.exp(float(found.x))
    return GeneralizedGaussian(nu, scale(nu) * largest, mean)


def _centred(values: ArrayLike, mean: float) -> Any:
    x = real_array("values", values)
    if x.size == 0:
        raise ValueError("values must hold at least one number, got none")
    x = x - mean
    if not x.any():
        raise ValueError(f"values must differ from mean = {mean:g} somewhere, got none that does")
    return x
