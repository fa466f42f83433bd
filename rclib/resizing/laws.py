"""Laws of a neuron's variables, estimated from the neurons of one network, to draw new ones from.

A row of `sample` (N, p) is a neuron. Its first `joint` columns are estimated together, the others
column by column: what a neuron has from its start in thousands of directions cannot be estimated
together from a few hundred neurons. With mean μ, covariance S of the joint columns and s² the
variances of the others, a draw is

    copies        x_π, π uniform: copying with repetition, paper A's Algorithm 1;
    smoothed      μ + (x_π - μ + h ζ) / √(1 + h²), ζ ~ N(0, diag(S, s²)): a kernel density of
                  bandwidth h, shrunk so that mean and covariance stay (Silverman and Young 1987).
                  h = 0 are copies; h = ∞ is the normal law with the same mean and covariance;
    mixture       k normal laws with one covariance, by EM; the k of the smallest BIC. A fixed point
                  of EM has the mean and the covariance of the sample;
    independent   every column drawn by itself from its own values: the marginals and nothing else.

A linear map of the joint columns maps the draws of the first three (of the mixture in law only).
The rule for h is fixed beforehand: the bandwidth of a grid under which neurons that were left out
are likeliest (`held_out_bandwidth`), or Silverman's (`silverman`).

Sources: Silverman, "Density Estimation" (1986), sections 4.3 and 6.4; Silverman and Young,
Biometrika 74 (1987).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.checks.arguments import brief, count, number

__all__ = [
    "BANDWIDTHS",
    "Mixture",
    "copies",
    "fit_mixture",
    "held_out_bandwidth",
    "held_out_likelihood",
    "independent",
    "mixture",
    "silverman",
    "smoothed",
]

BANDWIDTHS = tuple(2.0 ** (k / 2) for k in range(-8, 7))  # 1/16 to 8
FOLDS = 5


def copies(sample: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    """(n,) rows of the sample, drawn uniformly with repetition: their numbers.

    Raises ValueError for what is no sample and a number below one.
    """
    _check(sample, 1)
    return torch.randint(len(sample), (count("n", n),), generator=generator)


def smoothed(
    sample: Tensor, n: int, *, bandwidth: float, joint: int, generator: torch.Generator
) -> Tensor:
    """n draws (n, p) of the kernel density estimate, float64.

    bandwidth : h from 0 to infinity, in units of the sample's own spread. joint : how many
    columns are estimated together.

    Raises ValueError naming the argument for a bandwidth that is negative or NaN, for what is no
    sample of at least two neurons and a number of joint columns that it does not have.
    """
    h = number("bandwidth", bandwidth)
    if not h >= 0:
        raise ValueError(f"bandwidth must not be negative, got {h}")
    _check(sample, 2, joint)
    x = sample.double()
    base = x[copies(sample, n, generator=generator)]
    if h == 0:
        return base
    mean = x.mean(0)
    noise = torch.empty_like(base)
    # X'ε / √(N - 1) has the covariance of X, also for fewer neurons than columns.
    epsilon = torch.randn(len(base), len(x), generator=generator, dtype=x.dtype)
    noise[:, :joint] = epsilon @ (x - mean)[:, :joint] / math.sqrt(len(x) - 1)
    if joint < x.shape[1]:
        rest = torch.randn(len(base), x.shape[1] - joint, generator=generator, dtype=x.dtype)
        noise[:, joint:] = rest * x[:, joint:].std(0)
    if math.isinf(h):
        return mean + noise
    return mean + (base - mean + h * noise) / math.sqrt(1 + h * h)


def independent(sample: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    """n draws (n, p) with the marginal laws of the sample and independent columns, float64.

    Raises ValueError as `copies`.
    """
    _check(sample, 1)
    places = torch.randint(len(sample), (count("n", n), sample.shape[1]), generator=generator)
    return sample.double().gather(0, places)


def silverman(n: int, dimension: int) -> float:
    """Silverman's bandwidth (4 / (q + 2))^(1 / (q + 4)) n^(-1 / (q + 4)) of n points in q
    dimensions: the best one for a normal law. Raises ValueError for numbers below one."""
    n, q = count("n", n), count("dimension", dimension)
    return float((4 / (n * (q + 2))) ** (1 / (q + 4)))


def held_out_likelihood(sample: Tensor, bandwidths: Sequence[float]) -> list[float]:
    """Mean log-likelihood of left-out neurons under `smoothed`, at each bandwidth.

    sample : (N, q), the joint columns. Neuron i is judged by the estimate from all that are not of
    its fold, i mod 5: mean, covariance and kernels are theirs, else the covariance would know it.

    Raises ValueError unless the four other folds hold more than q + 1 neurons, for columns that are
    linearly dependent, and for bandwidths that are not positive.
    """
    _check(sample, 2)
    x = sample.double()
    folds = torch.arange(len(x)) % FOLDS
    least = len(x) - int((folds == 0).sum())
    q = x.shape[1]
    if least <= q + 1:
        raise ValueError(
            f"sample must hold more neurons to judge {q} joint columns, got {len(x)} "
            f"(four fifths of them must be more than {q + 1})"
        )
    hs = [number("bandwidths", h) for h in bandwidths]
    if not hs or not all(h > 0 for h in hs):
        raise ValueError(f"bandwidths must be positive, at least one, got {brief(bandwidths)}")
    totals = [0.0] * len(hs)
    for fold in range(FOLDS):
        known, new = x[folds != fold], x[folds == fold]
        white, log_scale = _whitening(known)
        mean = known.mean(0)
        a, b = (known - mean) @ white, (new - mean) @ white
        for place, h in enumerate(hs):
            totals[place] += float((_kernel_log_density(a, b, h) - log_scale).sum())
    return [total / len(x) for total in totals]


def held_out_bandwidth(sample: Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> float:
    """The bandwidth of largest `held_out_likelihood`. Raises ValueError as there."""
    scores = held_out_likelihood(sample, bandwidths)
    return float(bandwidths[max(range(len(scores)), key=scores.__getitem__)])


def _kernel_log_density(centres: Tensor, points: Tensor, h: float) -> Tensor:
    """Log density at whitened points (m, q) of the shrunk kernels at centres (n, q)."""
    q = centres.shape[1]
    if math.isinf(h):
        return -0.5 * points.square().sum(1) - 0.5 * q * math.log(2 * math.pi)
    variance = h * h / (1 + h * h)
    distances = torch.cdist(points, centres / math.sqrt(1 + h * h)).square()
    log_sum = torch.logsumexp(-0.5 * distances / variance, 1) - math.log(len(centres))
    return log_sum - 0.5 * q * math.log(2 * math.pi * variance)


def _whitening(x: Tensor) -> tuple[Tensor, float]:
    """(map to unit covariance (q, q), half the log determinant of the covariance)."""
    values, vectors = torch.linalg.eigh(torch.cov(x.t()).reshape(x.shape[1], x.shape[1]))
    if not bool(values[0] > 1e-12 * values[-1]):
        raise ValueError(
            f"sample must have joint columns that are not linearly dependent, got variances from "
            f"{float(values[0]):.1e} to {float(values[-1]):.1e}"
        )
    return vectors / values.sqrt(), 0.5 * float(values.log().sum())


@dataclass(frozen=True, eq=False)
class Mixture:
    """k normal laws with one covariance: weights (k,), means (k, q), covariance (q, q).

    log_likelihood : of the sample. bic : k q + q (q + 1) / 2 + k - 1 numbers count.
    """

    weights: Tensor
    means: Tensor
    covariance: Tensor
    log_likelihood: float
    bic: float

    def draw(self, n: int, *, generator: torch.Generator) -> Tensor:
        """n draws (n, q), float64. Raises ValueError for a number below one."""
        chosen = torch.multinomial(
            self.weights, count("n", n), replacement=True, generator=generator
        )
        # The root by eigenvectors: a covariance within components may be nearly singular.
        values, vectors = torch.linalg.eigh(self.covariance)
        root = vectors * values.clamp(min=0).sqrt()
        noise = torch.randn(n, len(root), generator=generator, dtype=self.means.dtype)
        drawn: Tensor = self.means[chosen] + noise @ root.t()
        return drawn


def fit_mixture(
    sample: Tensor, components: int, *, restarts: int = 3, steps: int = 100, seed: int = 0
) -> Mixture:
    """Maximum likelihood by EM from `restarts` random choices of neurons as first means.

    Raises ValueError naming the argument for more components than neurons, fewer neurons than
    q + 2 and columns that are linearly dependent.
    """
    k = count("components", components)
    _check(sample, 2)
    x = sample.double()
    n, q = x.shape
    if n < max(k, q + 2):
        raise ValueError(f"sample must hold at least {max(k, q + 2)} neurons, got {n}")
    white, log_scale = _whitening(x)
    centre = x.mean(0)
    u = (x - centre) @ white
    generator = torch.Generator().manual_seed(seed)
    best = None
    for _ in range(count("restarts", restarts)):
        means = u[torch.randperm(n, generator=generator)[:k]]
        found = _expectation_maximization(u, means, count("steps", steps))
        if best is None or found[3] > best[3]:
            best = found
    assert best is not None
    weights, means, covariance, likelihood = best
    likelihood -= n * log_scale
    back = torch.linalg.inv(white)
    free = k * q + q * (q + 1) / 2 + k - 1
    return Mixture(
        weights,
        centre + means @ back,
        back.t() @ covariance @ back,
        likelihood,
        free * math.log(n) - 2 * likelihood,
    )


def _expectation_maximization(
    u: Tensor, means: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor, float]:
    """(weights, means, covariance, log-likelihood) of whitened points after EM."""
    n, q = u.shape
    weights = torch.full((len(means),), 1 / len(means), dtype=u.dtype)
    total = u.t() @ u / n
    covariance = torch.eye(q, dtype=u.dtype)
    before, likelihood = -math.inf, -math.inf
    for _ in range(steps):
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp(min=1e-6)  # of the sample's variance: no component shrinks to a point
        half = vectors / values.sqrt()
        squares = torch.cdist(u @ half, means @ half).square()
        log = weights.clamp(min=1e-300).log() - 0.5 * squares
        norm = torch.logsumexp(log, 1)
        constant = q * math.log(2 * math.pi) + float(values.log().sum())
        likelihood = float(norm.sum()) - 0.5 * n * constant
        if likelihood - before < 1e-5 * n:
            break
        before = likelihood
        share = (log - norm[:, None]).exp()
        mass = share.sum(0)
        means = share.t() @ u / mass.clamp(min=1e-12)[:, None]
        weights = mass / n
        covariance = total - (means * weights[:, None]).t() @ means
    return weights, means, covariance, likelihood


def mixture(sample: Tensor, *, components: Sequence[int] = (2, 4, 8), seed: int = 0) -> Mixture:
    """The mixture of smallest BIC. Raises ValueError as `fit_mixture`, and for no components."""
    if not components:
        raise ValueError(f"components must name at least one number, got {brief(components)}")
    found = [fit_mixture(sample, k, seed=seed) for k in components]
    return min(found, key=lambda one: one.bic)


def _check(sample: Tensor, least: int, joint: int | None = None) -> None:
    if not isinstance(sample, Tensor) or sample.ndim != 2 or not sample.is_floating_point():
        raise ValueError(f"sample must be a tensor (neurons, variables), got {brief(sample)}")
    if len(sample) < least or not sample.shape[1]:
        raise ValueError(
            f"sample must hold at least {least} neurons and a variable, got {tuple(sample.shape)}"
        )
    if not bool(torch.isfinite(sample).all()):
        raise ValueError("sample must be finite, got NaN or infinite values")
    if joint is not None and not 0 <= count("joint", joint, 0) <= sample.shape[1]:
        raise ValueError(f"joint must be at most {sample.shape[1]} columns, got {joint}")
