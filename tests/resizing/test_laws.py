"""resizing.laws: moments, limits and known laws, against scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture
from torch import Tensor

from rclib.resizing import laws


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def skewed(n: int = 60, p: int = 4) -> Tensor:
    """Neurons with a covariance, a mean and a law that is not normal."""
    z = torch.randn(n, p, generator=generator(1), dtype=torch.float64)
    z[:, 0] = z[:, 0].exp()
    z[:, 1] += z[:, 0]
    return z + 3.0


def test_no_bandwidth_is_copying() -> None:
    x = skewed()
    new = laws.smoothed(x, 500, bandwidth=0.0, joint=3, generator=generator())
    places = laws.copies(x, 500, generator=generator())
    assert torch.equal(new, x[places])
    near = laws.smoothed(x, 500, bandwidth=1e-6, joint=3, generator=generator())
    assert torch.allclose(near, new, atol=1e-4)
    assert not torch.equal(near, new)
    counts = torch.bincount(places, minlength=60)
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


@pytest.mark.parametrize("h", [0.0, 0.3, 2.0, math.inf])
def test_smoothing_keeps_mean_and_covariance(h: float) -> None:
    x = skewed()
    n = 200_000
    new = laws.smoothed(x, n, bandwidth=h, joint=2, generator=generator())
    # Kernels have the sample's S, their centres (N - 1) / N of it.
    wanted = torch.cov(x.t()) * (1 - 1 / (len(x) * (1 + h * h)))
    off = (torch.cov(new.t()) - wanted) / wanted.diagonal().outer(wanted.diagonal()).sqrt()
    assert torch.allclose(new.mean(0), x.mean(0), atol=0.02)
    assert off[:2, :2].abs().max() < 0.03
    assert off.diagonal().abs().max() < 0.03
    # The others are kept with their partners as far as the base neuron goes, and no further.
    share = 1 / (1 + h * h)
    correlation = torch.corrcoef(new.t())[2, 3] / torch.corrcoef(x.t())[2, 3]
    assert float(correlation) == pytest.approx(share, abs=0.1)


def test_a_wide_kernel_makes_a_normal_law_of_any_other() -> None:
    x = skewed()
    skew = [
        float(
            stats.skew(laws.smoothed(x, 50_000, bandwidth=h, joint=4, generator=generator())[:, 0])
        )
        for h in (0.0, 0.5, 1.0, math.inf)
    ]
    own = float(stats.skew(x[:, 0].numpy()))
    assert own > 1
    # The sum of (1 + h²)^(-1/2) x and a normal one: its skewness times (1 + h²)^(-3/2).
    for value, h in zip(skew, (0.0, 0.5, 1.0, math.inf), strict=True):
        assert value == pytest.approx(own * (1 + h * h) ** -1.5, abs=0.05)


def test_fewer_neurons_than_columns_draw_within_their_span() -> None:
    x = torch.randn(5, 12, generator=generator(), dtype=torch.float64)
    new = laws.smoothed(x, 40, bandwidth=0.7, joint=12, generator=generator())
    assert int(torch.linalg.matrix_rank(new - x.mean(0))) == 4


def test_independent_keeps_the_marginals_alone() -> None:
    x = skewed()
    new = laws.independent(x, 100_000, generator=generator())
    assert torch.allclose(new.mean(0), x.mean(0), atol=0.02)
    assert set(new[:, 0].tolist()) == set(x[:, 0].tolist())
    assert abs(float(torch.corrcoef(x.t())[0, 1])) > 0.5
    assert torch.corrcoef(new.t()).fill_diagonal_(0).abs().max() < 0.02


def test_held_out_likelihood_is_that_of_scipy() -> None:
    x = skewed(43, 3)
    got = laws.held_out_likelihood(x, [0.4, math.inf])
    for h, value in zip((0.4, math.inf), got, strict=True):
        total = 0.0
        for i in range(len(x)):
            known = x[torch.arange(len(x)) % 5 != i % 5].numpy()
            mean, cov = known.mean(0), np.cov(known.T)
            if math.isinf(h):
                total += stats.multivariate_normal(mean, cov).logpdf(x[i])
                continue
            centres = mean + (known - mean) / math.sqrt(1 + h * h)
            kernel = stats.multivariate_normal(np.zeros(3), cov * h * h / (1 + h * h))
            total += math.log(kernel.pdf(x[i].numpy() - centres).mean())
        assert value == pytest.approx(total / len(x), abs=1e-8)


def test_the_rule_smooths_a_normal_law_and_not_clusters() -> None:
    normal = torch.randn(200, 6, generator=generator(), dtype=torch.float64)
    assert laws.held_out_bandwidth(normal) >= 0.9
    corners = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    clusters = 0.2 * normal[:, :2] + corners[torch.arange(200) % 4]
    assert laws.held_out_bandwidth(clusters) <= 0.25
    # A linear map of the columns changes nothing.
    mapped = clusters @ torch.randn(2, 2, generator=generator(3), dtype=torch.float64)
    assert laws.held_out_bandwidth(mapped) == laws.held_out_bandwidth(clusters)


def test_silverman() -> None:
    kde = stats.gaussian_kde(np.random.default_rng(0).standard_normal((3, 77)), "silverman")
    assert laws.silverman(77, 3) == pytest.approx(kde.factor)


def test_a_known_mixture_is_recovered() -> None:
    centres = torch.tensor([[0.0, 0.0], [4.0, 1.0], [-2.0, 5.0]], dtype=torch.float64)
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    made = laws.Mixture(
        torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), centres, covariance, 0.0, 0.0
    )
    x = made.draw(3000, generator=generator())
    found = laws.mixture(x, components=(1, 2, 3, 4, 6))
    assert len(found.weights) == 3
    order = found.weights.argsort(descending=True)
    assert torch.allclose(found.weights[order], made.weights, atol=0.03)
    assert torch.allclose(found.means[order], centres, atol=0.1)
    assert torch.allclose(found.covariance, covariance, atol=0.05)
    peer = GaussianMixture(3, covariance_type="tied", n_init=3, random_state=0).fit(x.numpy())
    assert found.log_likelihood / 3000 == pytest.approx(peer.score(x.numpy()), abs=1e-3)
    assert found.bic == pytest.approx(peer.bic(x.numpy()), rel=1e-3)


def test_a_mixture_has_the_moments_of_the_sample() -> None:
    x = skewed(80, 3)
    found = laws.fit_mixture(x, 2, steps=500)
    new = found.draw(200_000, generator=generator())
    assert torch.allclose(new.mean(0), x.mean(0), atol=0.02)
    assert torch.allclose(torch.cov(new.t()), torch.cov(x.t(), correction=0), atol=0.06)
    one = laws.fit_mixture(x, 1)
    normal = stats.multivariate_normal(x.mean(0), torch.cov(x.t(), correction=0))
    assert one.log_likelihood == pytest.approx(normal.logpdf(x.numpy()).sum())


def test_errors_name_the_argument() -> None:
    x, g = skewed(), generator()
    for bandwidth in (-0.1, math.nan):
        with pytest.raises(ValueError, match="bandwidth must not be negative"):
            laws.smoothed(x, 3, bandwidth=bandwidth, joint=2, generator=g)
    with pytest.raises(ValueError, match="joint must be at most 4"):
        laws.smoothed(x, 3, bandwidth=1.0, joint=5, generator=g)
    with pytest.raises(ValueError, match="at least 2 neurons"):
        laws.smoothed(x[:1], 3, bandwidth=1.0, joint=2, generator=g)
    with pytest.raises(ValueError, match="n must be"):
        laws.copies(x, 0, generator=g)
    with pytest.raises(ValueError, match="finite, got NaN"):
        laws.independent(x * math.nan, 2, generator=g)
    with pytest.raises(ValueError, match="neurons, variables"):
        laws.copies(x[0], 2, generator=g)
    with pytest.raises(ValueError, match="more neurons to judge 4"):
        laws.held_out_bandwidth(x[:6])
    with pytest.raises(ValueError, match="linearly dependent"):
        laws.held_out_bandwidth(torch.cat([x, x[:, :1]], 1))
    for bad in ([], [0.0]):
        with pytest.raises(ValueError, match="bandwidths must be positive"):
            laws.held_out_likelihood(x, bad)
    with pytest.raises(ValueError, match="at least 61 neurons, got 60"):
        laws.fit_mixture(x, 61)
    with pytest.raises(ValueError, match="components must name"):
        laws.mixture(x, components=())
