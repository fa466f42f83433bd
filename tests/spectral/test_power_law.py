"""Power-law fits against their definition, exact Pareto samples and another library."""

from __future__ import annotations

import numpy as np
import pytest

from rclib.spectral.power_law import bootstrap_alpha, power_law


def pareto(alpha: float, size: int, seed: int, xmin: float = 1.0) -> np.ndarray:
    """Exact samples of density ∝ x^(-α), x ≥ x_min, by inversion."""
    u = np.random.default_rng(seed).uniform(size=size)
    return xmin * (1 - u) ** (-1 / (alpha - 1))


def fit_at(values: list[float], k: int) -> tuple[float, float]:
    """α_k and D_k word by word from the definition, one number at a time."""
    m = len(values)
    xmin, n = values[k], m - k
    total = sum(float(np.log(v / xmin)) for v in values[k:])
    alpha = 1 + n / total
    distance = max(abs(1 - (values[j] / xmin) ** (1 - alpha) - (j - k) / n) for j in range(k, m))
    return alpha, distance


def spectra_like(size: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    noise = np.linalg.svd(rng.normal(size=(size + 7, size)), compute_uv=False) ** 2
    spiked = noise.copy()
    spiked[0] *= 50
    return {"noise": noise, "spiked": spiked, "pareto": pareto(2.5, size, seed)}


@pytest.mark.parametrize("size", [10, 37, 300, 520])
@pytest.mark.parametrize("kind", ["noise", "spiked", "pareto"])
def test_both_methods_follow_the_definition(size: int, kind: str) -> None:
    values = spectra_like(size, seed=size)[kind]
    ordered = sorted(float(v) for v in values)
    hill = power_law(values, "hill")
    alpha, distance = fit_at(ordered, size // 2)
    assert hill.index == size // 2
    assert hill.tail == size - size // 2
    assert hill.xmin == ordered[size // 2]
    assert hill.alpha == pytest.approx(alpha, rel=1e-11)
    assert hill.distance == pytest.approx(distance, rel=1e-9)

    every = [fit_at(ordered, k) for k in range(size - 1)]
    best = min(range(size - 1), key=lambda k: every[k][1])
    ks = power_law(values, "ks")
    assert (ks.index, ks.tail, ks.xmin) == (best, size - best, ordered[best])
    assert ks.alpha == pytest.approx(every[best][0], rel=1e-11)
    assert ks.distance == pytest.approx(every[best][1], rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_ks_prunes_without_missing_the_minimum(seed: int) -> None:
    """Repeated values, where bounds and distances tie, on a size that is scanned in part."""
    rng = np.random.default_rng(seed)
    values = np.sort(np.round(pareto(2.2, 400, seed), 1) * (1 + rng.integers(0, 2, 400)))
    distances = [
        fit_at(list(values), k)[1] if values[k] < values[-1] else np.inf for k in range(399)
    ]
    fit = power_law(values, "ks")
    assert fit.distance == pytest.approx(min(distances), rel=1e-9)
    assert fit.distance == pytest.approx(distances[fit.index], rel=1e-9)


@pytest.mark.parametrize("alpha", [1.5, 2.5, 4.0])
@pytest.mark.parametrize("method", ["hill", "ks"])
def test_pareto_samples_give_back_their_exponent(alpha: float, method: str) -> None:
    fit = power_law(pareto(alpha, 3000, seed=3, xmin=0.7), method)
    assert abs(fit.alpha - alpha) < 4 * fit.standard_error
    # The size of the error itself: fits over many samples scatter by it.
    errors = [power_law(pareto(alpha, 1000, seed=s), "hill").alpha - alpha for s in range(300)]
    predicted = (alpha - 1) / np.sqrt(500)
    assert np.std(errors) == pytest.approx(predicted, rel=0.15)


def test_scale_changes_xmin_alone() -> None:
    values = pareto(2.0, 500, seed=1)
    for method in ("hill", "ks"):
        one, other = power_law(values, method), power_law(1e6 * values, method)
        assert other.alpha == pytest.approx(one.alpha, rel=1e-9)
        assert other.xmin == pytest.approx(1e6 * one.xmin, rel=1e-12)
        assert other.distance == pytest.approx(one.distance, rel=1e-7)


def test_zeros_and_order_do_not_matter() -> None:
    values = pareto(3.0, 60, seed=2)
    mixed = np.random.default_rng(0).permutation(np.concatenate([values, np.zeros(40)]))
    for method in ("hill", "ks"):
        assert power_law(mixed, method) == power_law(np.sort(values), method)


def test_bootstrap_spread_is_the_standard_error_on_independent_values() -> None:
    values = pareto(2.5, 2000, seed=8)
    alphas = bootstrap_alpha(values, "hill", draws=300, seed=1)
    fit = power_law(values, "hill")
    assert alphas.shape == (300,)
    assert np.std(alphas) == pytest.approx(fit.standard_error, rel=0.2)
    assert abs(np.mean(alphas) - fit.alpha) < fit.standard_error
    assert np.array_equal(alphas, bootstrap_alpha(values, "hill", draws=300, seed=1))
    assert not np.array_equal(alphas, bootstrap_alpha(values, "hill", draws=300, seed=2))


@pytest.mark.parametrize("kind", ["noise", "spiked", "pareto"])
def test_against_powerlaw(kind: str) -> None:
    """powerlaw 2.0 minimises the same distance, once α may exceed 3, its default bound."""
    library = pytest.importorskip("powerlaw")
    values = spectra_like(300, seed=4)[kind]
    options = {"parameter_ranges": {"alpha": [1.0, 1000.0]}, "verbose": False}
    fit, other = power_law(values, "ks"), library.Fit(values, **options)
    assert other.xmin == pytest.approx(fit.xmin)
    assert other.power_law.alpha == pytest.approx(fit.alpha, abs=1e-3)
    assert fit.distance == pytest.approx(other.power_law.D, abs=1e-6)
    middle = power_law(values, "hill")
    other = library.Fit(values, xmin=middle.xmin, **options)
    assert other.power_law.alpha == pytest.approx(middle.alpha, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(20, 3.0), "equal"),
        (np.arange(1.0, 10.0), "at least 10"),
        (np.zeros(30), "at least 10"),
        ([1.0] * 10 + [np.nan], "finite"),
        ([1.0] * 10 + [np.inf], "finite"),
        ([-1e-9, *range(1, 20)], "negative"),
        (np.ones((4, 5)), "one axis"),
    ],
)
@pytest.mark.parametrize("method", ["hill", "ks"])
def test_bad_eigenvalues(values: object, message: str, method: str) -> None:
    with pytest.raises(ValueError, match=f"eigenvalues must.*{message}"):
        power_law(values, method)  # type: ignore[arg-type]


def test_bad_options() -> None:
    values = pareto(2.0, 20, seed=0)
    with pytest.raises(ValueError, match=r"method must be one of.*'mle'"):
        power_law(values, "mle")
    with pytest.raises(ValueError, match="draws must be a positive integer, got 0"):
        bootstrap_alpha(values, draws=0)


@pytest.mark.parametrize("m", [257, 300, 333, 420])
def test_the_scan_does_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch, m: int) -> None:
    """Blocks of a few cuts, some of them beyond the last column of the coarse pass."""
    values = np.random.default_rng(m).pareto(1.5, m) + 1
    whole = power_law(values, "ks")
    monkeypatch.setattr("rclib.spectral.power_law._BLOCK", 40)
    assert power_law(values, "ks") == whole
