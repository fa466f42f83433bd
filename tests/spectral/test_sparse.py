"""spectral.sparse against drawn matrices, moments, and the law of Marchenko and Pastur."""

from __future__ import annotations

import numpy as np
import pytest

from rclib.spectral.random_matrix import marchenko_pastur
from rclib.spectral.sparse import entry_cumulants, sparse_law
from rclib.spectral.spectra import esd


def law_of(h: int, d: int, p: float):  # type: ignore[no-untyped-def]
    v = p * (1 - p)
    return sparse_law(rows=h, columns=d, variance=v, cumulant=v * (1 - 6 * v))


def test_without_a_cumulant_it_is_marchenko_pastur() -> None:
    for h, d in ((300, 192), (40, 200)):
        law = sparse_law(rows=h, columns=d, variance=0.3, cumulant=0.0)
        dense = marchenko_pastur(d / h, 0.3 * h)
        assert law.upper == pytest.approx(dense.upper, rel=1e-8)
        x = np.linspace(1e-3, 1.1 * dense.upper, 400)
        np.testing.assert_allclose(law.density(x), dense.density(x), atol=1e-9)


@pytest.mark.parametrize(("h", "d", "p"), [(300, 192, 0.07), (60, 120, 0.1)])
def test_mass_and_moments_are_exact(h: int, d: int, p: float) -> None:
    """E tr(WᵀW)² / d of independent entries is h κ + h v² (h + d + 1)."""
    law = law_of(h, d, p)
    x = np.linspace(1e-4, 1.02 * law.upper, 6001)
    density = law.density(x)
    v, k = law.variance, law.cumulant
    assert np.trapezoid(density, x) == pytest.approx(min(1.0, h / d), rel=2e-3)
    assert np.trapezoid(density * x, x) == pytest.approx(h * v, rel=1e-3)
    assert np.trapezoid(density * x * x, x) == pytest.approx(h * k + h * v * v * (h + d), rel=1e-3)
    assert x[density > 0].max() == pytest.approx(law.upper, rel=1e-3)


@pytest.mark.parametrize(("h", "d", "p"), [(300, 192, 0.07), (100, 64, 0.064)])
def test_the_edge_is_that_of_drawn_masks(h: int, d: int, p: float) -> None:
    """The largest eigenvalue lies 1.2 scales below the edge in the mean, with spread 1.27, as
    Tracy and Widom's law says; from the dense edge it would be two scales further up."""
    random, law = np.random.default_rng(0), law_of(h, d, p)
    tops = np.array([esd((random.random((h, d)) < p) - p).max() for _ in range(40)])
    away = (tops - law.upper) / law.scale
    assert -2.4 < away.mean() < -0.6
    dense = marchenko_pastur(d / h, h * law.variance).upper
    assert (tops.mean() - dense) / law.scale > 0.5
    assert np.mean([law.beyond([top]) for top in tops]) < 0.1
    assert law.beyond([law.upper, law.upper + 5 * law.scale]) == 1


def test_cumulants_of_entries() -> None:
    mask = (np.random.default_rng(1).random((400, 300)) < 0.1).astype(float)
    v, k = entry_cumulants(mask)
    p = mask.mean()
    assert v == pytest.approx(p * (1 - p))
    assert k == pytest.approx(v * (1 - 6 * v))
    assert entry_cumulants(np.random.default_rng(2).uniform(size=(50, 50)))[1] == 0.0


def test_what_does_not_fit_is_named() -> None:
    for options, message in (
        ({"rows": 0}, "rows must"),
        ({"variance": 0.0}, "variance must be positive"),
        ({"cumulant": -1.0}, "cumulant not negative"),
    ):
        with pytest.raises(ValueError, match=message):
            sparse_law(**{"rows": 3, "columns": 2, "variance": 1.0, "cumulant": 0.0, **options})
    with pytest.raises(ValueError, match="x must be positive"):
        law_of(30, 20, 0.2).density([0.0])
    with pytest.raises(ValueError, match="entries that vary"):
        entry_cumulants(np.ones((3, 3)))
