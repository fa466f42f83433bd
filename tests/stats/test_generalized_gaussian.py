"""stats.generalized_gaussian: against scipy's gennorm and closed values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import gennorm, kstest

from rclib.stats import generalized_gaussian as gg

SHAPES = (0.5, 1.0, 1.5, 2.0, 8.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_moments_are_scipys(shape: float) -> None:
    law = gg.GeneralizedGaussian(shape, 0.7)
    peer = gennorm(shape, scale=0.7)
    assert law.variance == pytest.approx(peer.var())
    assert law.entropy == pytest.approx(float(peer.entropy()))
    assert law.kurtosis == pytest.approx(3 + float(peer.stats(moments="k")))
    assert gg.GeneralizedGaussian.of_variance(shape, 2.5).variance == pytest.approx(2.5)


def test_the_ratio_has_its_known_values_and_falls() -> None:
    assert gg.moment_ratio(2.0) == pytest.approx(math.pi / 2)
    assert gg.moment_ratio(1.0) == pytest.approx(2.0)
    assert gg.moment_ratio(1e4) == pytest.approx(4 / 3, rel=1e-6)
    ratios = [gg.moment_ratio(nu) for nu in np.geomspace(0.1, 50, 60)]
    assert all(a > b for a, b in itertools.pairwise(ratios))


@pytest.mark.parametrize("shape", SHAPES)
def test_draws_have_the_law(shape: float) -> None:
    law = gg.GeneralizedGaussian(shape, 0.3, 0.1)
    values = gg.draw(law, (100, 200), generator=torch.Generator().manual_seed(5)).double().numpy()
    assert kstest(values.ravel(), gennorm(shape, loc=0.1, scale=0.3).cdf).pvalue > 0.001
    # Signs are independent of sizes.
    sign, size = np.sign(values.ravel() - 0.1), np.abs(values.ravel() - 0.1)
    assert abs(np.corrcoef(sign, size)[0, 1]) < 4 / len(sign) ** 0.5


@pytest.mark.parametrize("shape", [0.6, 1.0, 1.5, 2.0, 4.0])
def test_both_estimates_find_the_shape_as_scipy_does(shape: float) -> None:
    values = gennorm.rvs(shape, scale=0.02, size=100_000, random_state=7)
    law = gg.fit(values)
    nu, _, beta = gennorm.fit(values, floc=0)
    assert law.shape == pytest.approx(nu, rel=1e-3)
    assert law.scale == pytest.approx(beta, rel=1e-3)
    assert law.shape == pytest.approx(shape, rel=0.03)
    assert gg.shape_by_moments(values) == pytest.approx(shape, rel=0.03)
    assert gg.fit(values * 1e-30).shape == pytest.approx(law.shape, rel=1e-4)


def test_a_given_mean_is_taken_off() -> None:
    values = gennorm.rvs(1.0, loc=3.0, size=20_000, random_state=1)
    assert gg.fit(values, mean=3.0).shape == pytest.approx(1.0, abs=0.05)
    assert gg.shape_by_moments(values, mean=3.0) == pytest.approx(1.0, abs=0.05)
    assert gg.shape_by_moments(values) > 2


def test_estimates_end_at_their_bounds() -> None:
    assert gg.shape_by_moments([1.0, -1.0]) == gg.LARGEST_SHAPE
    assert gg.shape_by_moments([*[1e-9] * 1_000_000, 1.0]) == gg.SMALLEST_SHAPE


def test_what_is_no_law_and_no_data_is_refused() -> None:
    with pytest.raises(ValueError, match="shape must be positive and finite, got 0"):
        gg.GeneralizedGaussian(0.0, 1.0)
    with pytest.raises(ValueError, match="scale must be positive and finite, got -1"):
        gg.GeneralizedGaussian(1.0, -1.0)
    with pytest.raises(ValueError, match="mean must be finite, got nan"):
        gg.GeneralizedGaussian(1.0, 1.0, math.nan)
    with pytest.raises(ValueError, match="variance must be positive and finite, got 0"):
        gg.GeneralizedGaussian.of_variance(1.0, 0.0)
    with pytest.raises(ValueError, match="shape must be positive and finite, got -2"):
        gg.moment_ratio(-2)
    for function in (gg.fit, gg.shape_by_moments):
        with pytest.raises(ValueError, match="values must hold at least one number"):
            function([])
        with pytest.raises(ValueError, match=r"values must differ from mean = 0 somewhere"):
            function([0.0, 0.0])
        with pytest.raises(ValueError, match="values"):
            function([1.0, math.nan])
