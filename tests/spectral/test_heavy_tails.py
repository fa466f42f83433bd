"""rclib.spectral.heavy_tails: noise by another route, and what is told from it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rclib.spectral.heavy_tails import noise_eigenvalues, noise_tail, tail_shape
from rclib.spectral.power_law import power_law
from rclib.spectral.random_matrix import marchenko_pastur
from rclib.spectral.spectra import esd


@pytest.mark.parametrize(("h", "d"), [(40, 40), (60, 25), (12, 30)])
def test_eigenvalues_without_a_matrix_have_the_law_of_those_of_one(h: int, d: int) -> None:
    rng = np.random.default_rng(3)
    n = min(h, d)
    drawn = np.array([esd(rng.standard_normal((max(h, d), n))) for _ in range(400)])
    made = noise_eigenvalues(h, d, draws=400, seed=1)
    assert made.shape == (400, n)
    # Each order statistic by a two-sample test of its own; smallest, middle and largest.
    for place in (0, n // 2, -1):
        assert stats.ks_2samp(drawn[:, place], made[:, place]).pvalue > 0.001
    np.testing.assert_allclose(made.sum(1).mean(), h * d, rtol=0.01)  # E trace
    np.testing.assert_array_equal(made, noise_eigenvalues(h, d, draws=400, seed=1))
    wrong = noise_eigenvalues(h + 4, d, draws=400)  # a control: another shape is noticed
    assert stats.ks_2samp(drawn[:, -1], wrong[:, -1]).pvalue < 0.001


def test_alpha_of_noise_is_that_of_the_marchenko_pastur_law() -> None:
    # α = 1 + 1 / E[ln λ/median | λ > median], the limit of Hill's estimate.
    for h, d in ((600, 600), (1200, 300)):
        law = marchenko_pastur(d / h)
        x = np.linspace(law.median_of_positive(), law.upper, 200_001)
        density = law.density(x)
        mean = np.trapezoid(np.log(x / x[0]) * density, x) / np.trapezoid(density, x)
        found = noise_tail(h, d)
        assert found.alpha == pytest.approx(1 + 1 / mean, rel=0.005)
        assert found.low < found.alpha < found.high
        assert found.tail_ratio > 4
        assert found is noise_tail(h, d)


def test_a_gaussian_square_shows_2_13_and_is_no_heavy_tail() -> None:
    values = esd(np.random.default_rng(0).standard_normal((512, 512)))
    found = noise_tail(512, 512)
    assert power_law(values).alpha == pytest.approx(2.13, abs=0.03)
    assert found.low <= power_law(values).alpha <= found.high
    assert tail_shape(values, rows=512).tail_ratio > found.tail_ratio > 1


def test_a_power_law_is_nearer_to_a_power_law() -> None:
    rng = np.random.default_rng(1)
    pareto = np.sort(rng.random(300) ** (-1 / 1.2))
    found = tail_shape(pareto, rows=300)
    assert found.tail_ratio < 0.5
    fit = power_law(pareto)
    again = tail_shape(pareto, rows=300, fit=fit)
    assert again == found
    # The definition, by loops.
    law = marchenko_pastur(1.0, 300 * (np.median(pareto) / 300 / 0.6528))
    tail = pareto[pareto >= fit.xmin]
    below = float(law.cdf(tail[0]))
    gaps = [
        abs((float(law.cdf(v)) - below) / (1 - below) - i / len(tail)) for i, v in enumerate(tail)
    ]
    assert found.law_distance == pytest.approx(max(gaps), rel=0.01)
    assert found.tail_ratio == pytest.approx(fit.distance / max(gaps), rel=0.01)


def test_fewer_draws_of_large_matrices() -> None:
    assert noise_tail(16, 12).draws == 99
    assert noise_tail(4096, 1500).draws < 99
    assert noise_tail(16, 12, draws=5).draws == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((9, 20), r"min\(rows, columns\) must be at least 10, got 9"),
        ((0, 20), "rows must be a positive integer"),
        ((20, 2.5), "columns must be a positive integer"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noise_tail(*arguments)  # type: ignore[arg-type]
