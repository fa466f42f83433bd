"""Random-matrix laws against simulated matrices and numerical integrals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from rclib.spectral.random_matrix import marchenko_pastur, outliers, spike, spike_strength


def noise(h: int, d: int, seed: int, variance: float = 1.0) -> np.ndarray:
    return np.sqrt(variance) * np.random.default_rng(seed).normal(size=(h, d))


def eigenvalues(W: np.ndarray) -> np.ndarray:
    values = np.zeros(W.shape[1])
    sigma = np.linalg.svd(W, compute_uv=False)
    values[: sigma.size] = sigma**2
    return np.sort(values)


@pytest.mark.parametrize("aspect", [0.1, 2 / 3, 0.999, 1.0, 2.5])
@pytest.mark.parametrize("variance", [1.0, 7.3])
def test_density_has_the_moments_of_the_law(aspect: float, variance: float) -> None:
    """Mass 1 - atom, mean v, second moment v² (1 + q): traces of W^T W / h and its square."""
    law = marchenko_pastur(aspect, variance)

    def moment(power: int) -> float:
        return quad(lambda x: x**power * law.density(x), law.lower, law.upper, limit=300)[0]

    assert moment(0) == pytest.approx(1 - law.atom, abs=1e-5)
    assert law.atom == pytest.approx(max(0.0, 1 - 1 / aspect))
    assert moment(1) == pytest.approx(variance, rel=1e-5)
    assert moment(2) == pytest.approx(variance**2 * (1 + aspect), rel=1e-5)
    assert law.density([law.lower - 0.1, law.upper + 0.1]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("aspect", [0.4, 1.0, 3.0])
def test_cdf_median_and_log_density_are_integrals_of_the_density(aspect: float) -> None:
    law = marchenko_pastur(aspect, 2.0)
    for x in np.linspace(law.lower, law.upper, 6)[1:-1]:
        part = quad(law.density, law.lower, x, limit=300)[0]
        assert law.cdf(x) == pytest.approx(law.atom + part, abs=1e-6)
    median = law.median_of_positive()
    half = quad(law.density, law.lower, median, limit=300)[0]
    assert half == pytest.approx((1 - law.atom) / 2, abs=1e-6)
    low = np.log10(max(law.lower, 1e-12))
    mass = quad(lambda u: law.log10_density(10**u), low, np.log10(law.upper), limit=500)[0]
    assert mass == pytest.approx(1 - law.atom, abs=1e-5)
    assert law.cdf([-1.0, law.upper + 1]) == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize(("h", "d"), [(600, 400), (300, 300), (200, 500)])
def test_law_describes_simulated_matrices(h: int, d: int) -> None:
    values = eigenvalues(noise(h, d, seed=5, variance=2.5))
    law = marchenko_pastur(d / h, h * 2.5)  # for W^T W itself
    empirical = np.arange(1, d + 1) / d
    assert np.max(np.abs(law.cdf(values) - empirical)[values > 0]) < 0.01
    assert values.max() < law.upper * 1.05
    assert np.mean(values == 0) == pytest.approx(law.atom)


def test_largest_eigenvalue_has_tracy_widom_centre_and_scale() -> None:
    """TW1 has mean -1.2065 and standard deviation 1.2680 (tabulated by its authors)."""
    h, d, draws = 80, 50, 400
    largest = np.array([eigenvalues(noise(h, d, seed=s))[-1] for s in range(draws)])
    found = outliers(np.ones(d), rows=h, variance=1.0)
    scaled = (largest - found.edge) / found.scale
    assert np.mean(scaled) == pytest.approx(-1.2065, abs=4 * 1.268 / np.sqrt(draws))
    assert np.std(scaled) == pytest.approx(1.268, rel=0.15)


@pytest.mark.parametrize(("h", "d"), [(300, 200), (200, 300)])
@pytest.mark.parametrize("variance", [None, 1.7])
def test_outliers_counts_planted_spikes(h: int, d: int, variance: float | None) -> None:
    rng = np.random.default_rng(11)
    for planted in (0, 1, 3):
        left = np.linalg.qr(rng.normal(size=(h, max(planted, 1))))[0][:, :planted]
        right = np.linalg.qr(rng.normal(size=(d, max(planted, 1))))[0][:, :planted]
        strengths = 60.0 + 10 * np.arange(planted)
        W = noise(h, d, seed=planted, variance=1.7) + (left * strengths) @ right.T
        values = eigenvalues(W)
        found = outliers(values, rows=h, variance=variance)
        assert found.count == planted
        assert found.values.tolist() == values[::-1][:planted].tolist()
        assert found.variance == pytest.approx(1.7, rel=0.03)
        assert found.threshold == pytest.approx(found.edge + 4 * found.scale)


@pytest.mark.parametrize(("h", "d"), [(360, 240), (200, 400)])
@pytest.mark.parametrize("relative", [0.6, 1.6, 3.0])
def test_spike_leaves_the_bulk_where_theory_says(h: int, d: int, relative: float) -> None:
    """Mean of 40 matrices; s in units of the transition, (v² h d)^(1/4)."""
    v = 0.8
    s = relative * np.sqrt(v) * (h * d) ** 0.25
    u, w = np.full(h, 1 / np.sqrt(h)), np.full(d, 1 / np.sqrt(d))
    law = spike(s, rows=h, columns=d, variance=v)
    assert law.detached == (relative > 1)
    seen = []
    for seed in range(40):
        W = noise(h, d, seed, v) + s * np.outer(u, w)
        left, sigma, right = np.linalg.svd(W, full_matrices=False)
        seen.append((sigma[0] ** 2, (left[:, 0] @ u) ** 2, (right[0] @ w) ** 2))
    mean, error = np.mean(seen, axis=0), 4 * np.std(seen, axis=0) / np.sqrt(len(seen))
    expected = np.array([law.eigenvalue, law.left, law.right])
    # What remains at these sizes: the law is that of large matrices.
    finite_size = np.array([0.015 * law.eigenvalue, 0.02, 0.02])
    assert np.all(np.abs(mean - expected) < error + finite_size)


def test_spike_meets_the_edge_at_the_transition() -> None:
    h, d = 300, 200
    at = (h * d) ** 0.25
    below, above = spike(at, rows=h, columns=d), spike(at * (1 + 1e-9), rows=h, columns=d)
    assert (below.detached, above.detached) == (False, True)
    assert above.eigenvalue == pytest.approx(below.eigenvalue, rel=1e-8)
    assert below.eigenvalue == pytest.approx(marchenko_pastur(d / h, h).upper)
    assert above.left == pytest.approx(0.0, abs=1e-7)
    assert above.right == pytest.approx(0.0, abs=1e-7)


def test_bad_arguments() -> None:
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="aspect must be positive"):
            marchenko_pastur(bad)
        with pytest.raises(ValueError, match="variance must be positive"):
            marchenko_pastur(0.5, bad)
    with pytest.raises(ValueError, match="rows must be a positive integer, got 0"):
        outliers([1.0, 2.0], rows=0)
    with pytest.raises(ValueError, match="eigenvalues must be finite, got nan"):
        outliers([1.0, np.nan], rows=3)
    with pytest.raises(ValueError, match="finite and not negative, got -2"):
        outliers([1.0, -2.0], rows=3)
    with pytest.raises(ValueError, match="must not all be zero"):
        outliers([0.0, 0.0], rows=3)
    with pytest.raises(ValueError, match="eigenvalues must have shape"):
        outliers([], rows=3)
    with pytest.raises(ValueError, match="deviations must be finite"):
        outliers([1.0], rows=3, deviations=np.inf)
    with pytest.raises(ValueError, match="strength must be finite and not negative, got -1"):
        spike(-1.0, rows=2, columns=2)
    with pytest.raises(ValueError, match=r"columns must be a positive integer, got 2\.5"):
        spike(1.0, rows=2, columns=2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("h", "d"), [(400, 100), (100, 400), (50, 50)])
def test_spike_strength_is_spike_read_backwards(h: int, d: int) -> None:
    least = (2.0 * 2.0 * h * d) ** 0.25
    for s in (1.001 * least, 2 * least, 100 * least):
        law = spike(s, rows=h, columns=d, variance=2.0)
        found = spike_strength(law.eigenvalue, rows=h, columns=d, variance=2.0)
        assert found == pytest.approx(s, rel=1e-6)
    edge = spike(0.0, rows=h, columns=d, variance=2.0).eigenvalue
    for below in (0.0, 0.5 * edge, edge):
        found = spike_strength(below, rows=h, columns=d, variance=2.0)
        assert found == pytest.approx(least, rel=1e-6)


def test_spike_strength_names_what_is_wrong() -> None:
    for value in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="eigenvalue"):
            spike_strength(value, rows=2, columns=2)
    with pytest.raises(ValueError, match="must be smaller"):
        spike_strength(1e160, rows=2, columns=2)
    with pytest.raises(ValueError, match="variance"):
        spike_strength(1.0, rows=2, columns=2, variance=0.0)
