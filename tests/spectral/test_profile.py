"""The law of weighted noise: against Marchenko and Pastur, and against matrices."""

from __future__ import annotations

import numpy as np
import pytest

from rclib.spectral.profile import profile_law
from rclib.spectral.random_matrix import marchenko_pastur
from rclib.spectral.spectra import esd


def distance(values: np.ndarray, law: object) -> float:
    """Largest difference of the two distribution functions, zeros included."""
    ranks = np.arange(1, values.size + 1) / values.size
    return float(np.abs(law.cdf(values) - ranks).max())  # type: ignore[attr-defined]


@pytest.mark.parametrize(("m", "n"), [(300, 300), (300, 120), (120, 300)])
def test_equal_weights_are_marchenko_pastur(m: int, n: int) -> None:
    law = profile_law(np.full(m, 2.0), np.full(n, 3.0), variance=0.5)
    known = marchenko_pastur(n / m, 0.5 * 6 * m)
    at = np.linspace(known.lower + 0.02 * known.upper, 0.98 * known.upper, 50)
    inside = np.interp(at, law.x, law.density)
    np.testing.assert_allclose(inside, known.density(at), rtol=0.05, atol=0.01 / known.upper)
    np.testing.assert_allclose(law.cdf(at), known.cdf(at), atol=0.01)
    assert law.atom == pytest.approx(known.atom)


@pytest.mark.parametrize(("m", "n"), [(400, 400), (250, 500)])
def test_weights_of_a_drawing_against_a_matrix(m: int, n: int) -> None:
    random = np.random.default_rng(0)
    a, b = random.poisson(1.0, m), random.poisson(2.0, n)
    W = np.sqrt(a)[:, None] * random.standard_normal((m, n)) * np.sqrt(b)
    values = esd(W)
    law = profile_law(a, b)
    assert law.atom == pytest.approx((values == 0).mean(), abs=1e-12)
    assert distance(values[values > 0], type(law)(law.x, law.density, 0.0)) < 0.02
    # What ignores the weights is far off: Marchenko-Pastur of the same mean square.
    plain = marchenko_pastur(n / m, m * float(np.square(W).mean()))
    assert distance(values, plain) > 0.1


def test_rows_and_columns_change_places() -> None:
    """W and its transpose have the same eigenvalues but for zeros."""
    random = np.random.default_rng(1)
    a, b = random.exponential(size=60), random.exponential(size=90)
    tall, wide = profile_law(a, b), profile_law(b, a)
    np.testing.assert_allclose(tall.x, wide.x)
    np.testing.assert_allclose(90 * tall.density, 60 * wide.density, rtol=1e-4, atol=1e-12)


def test_scale() -> None:
    a = np.array([1.0, 2.0, 4.0])
    one, four = profile_law(a, a), profile_law(2 * a, a, variance=2.0)
    np.testing.assert_allclose(four.x, 4 * one.x)
    np.testing.assert_allclose(four.density, one.density / 4, rtol=1e-9)


@pytest.mark.parametrize("weights", [[], [[1.0]], [0.0, 0.0], [1.0, -1.0], [1.0, np.nan]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="a "):
        profile_law(weights, [1.0])
    with pytest.raises(ValueError, match="b "):
        profile_law([1.0], weights)
    with pytest.raises(ValueError, match="variance"):
        profile_law([1.0], [1.0], variance=0.0)
