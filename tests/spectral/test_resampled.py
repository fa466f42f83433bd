"""spectral.resampled and the outliers of spectral.profile: identities, exact laws, matrices."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from rclib.spectral.power_law import power_law
from rclib.spectral.profile import profile_edge, profile_law, profile_shift, profile_spikes
from rclib.spectral.random_matrix import spike
from rclib.spectral.resampled import (
    distinct_law,
    expected_zeros,
    resampled_spectrum,
    weighted_matrix,
)
from rclib.spectral.spectra import esd


def source(n: int, strengths: list[float], seed: int = 0) -> tuple[np.ndarray, tuple]:
    random = np.random.default_rng(seed)
    u, v = (np.linalg.qr(random.standard_normal((n, len(strengths))))[0] for _ in range(2))
    theta = np.array(strengths)
    return random.standard_normal((n, n)) + (u * theta) @ v.T, (u, theta, v)


def draws(n: int, m: int, seed: int) -> np.ndarray:
    return np.bincount(np.random.default_rng(seed).integers(n, size=m), minlength=n)


@pytest.mark.parametrize(("rows", "columns"), [(20, 20), (7, 31), (40, 12)])
def test_singular_values_are_those_of_the_weighted_source(rows: int, columns: int) -> None:
    random = np.random.default_rng(0)
    W = random.standard_normal((15, 18))
    pi, rho = random.integers(15, size=rows), random.integers(18, size=columns)
    sampled = np.linalg.svd(W[pi][:, rho], compute_uv=False)
    counts = np.bincount(pi, minlength=15), np.bincount(rho, minlength=18)
    weighted = np.linalg.svd(weighted_matrix(W, *counts), compute_uv=False)
    k = min(len(sampled), len(weighted))
    np.testing.assert_allclose(sampled[:k], weighted[:k], atol=1e-12 * sampled[0])
    rank = min(len(set(pi)), len(set(rho)))
    assert (sampled > 1e-10).sum() == (weighted > 1e-10).sum() == rank


@pytest.mark.parametrize(("n", "m"), [(3, 4), (4, 2), (1, 3)])
def test_law_of_distinct_draws_against_all_of_them(n: int, m: int) -> None:
    every = Counter(len(set(one)) for one in itertools.product(range(n), repeat=m))
    expected = [every[d] / n**m for d in range(min(n, m) + 1)]
    np.testing.assert_allclose(distinct_law(n, m), expected, atol=1e-15)


def test_expected_zeros() -> None:
    pairs = itertools.product(
        itertools.product(range(3), repeat=4), itertools.product(range(2), repeat=3)
    )
    ranks = [min(len(set(one)), len(set(other))) for one, other in pairs]
    assert expected_zeros((3, 2), (4, 3)) == pytest.approx(1 - np.mean(ranks) / 3)
    mean = float(np.arange(61) @ distinct_law(60, 90))
    side = expected_zeros((60, 60), (90, 90), columns_alone=True)
    assert side == pytest.approx(1 - mean / 90)
    assert side == pytest.approx(1 - 60 / 90 * (1 - (1 - 1 / 60) ** 90))
    assert side < expected_zeros((60, 60), (90, 90)) < side + 0.05
    assert expected_zeros((1, 1), (4, 4), columns_alone=True) == 0.75


@pytest.mark.parametrize(("m", "n"), [(300, 120), (120, 300), (200, 200)])
def test_equal_weights_give_the_known_edge_and_spikes(m: int, n: int) -> None:
    random = np.random.default_rng(1)
    a, b = np.full(m, 2.0), np.full(n, 3.0)
    edge = profile_edge(a, b, variance=0.5)
    assert edge == pytest.approx(3 * (np.sqrt(m) + np.sqrt(n)) ** 2, rel=1e-9)
    theta = np.array([60.0, 25.0, 3.0])  # the last stays in the bulk
    u, v = (np.linalg.qr(random.standard_normal((k, 3)))[0] for k in (m, n))
    found = profile_spikes(u, theta, v, a, b, variance=0.5)
    known = [spike(np.sqrt(6) * s, rows=m, columns=n, variance=3.0).eigenvalue for s in theta[:2]]
    np.testing.assert_allclose(found, known, rtol=1e-8)
    assert profile_spikes(u, theta * 0, v, a, b).size == 0
    assert profile_spikes(u[:, :0], theta[:0], v[:, :0], a, b).size == 0


def test_spikes_of_weighted_products_without_noise_are_their_singular_values() -> None:
    _, (u, theta, v) = source(80, [9.0, 5.0, 2.0])
    a, b = draws(80, 120, 1), draws(80, 50, 2)
    exact = np.linalg.svd(weighted_matrix((u * theta) @ v.T, a, b), compute_uv=False)[:3]
    found = profile_spikes(u, theta, v, a, b, variance=1e-10)
    np.testing.assert_allclose(np.sqrt(found), exact, rtol=1e-6)


@pytest.mark.parametrize("m", [150, 600])
def test_prediction_against_matrices(m: int) -> None:
    """Spikes, bulk and α; laws that leave the outer products or the weights out are further off."""
    n = 300
    distances, plain, alphas, off = [], [], [], []
    for seed in range(3):
        W, products = source(n, [200.0, 120.0, 90.0, 70.0, 60.0, 15.0, 10.0], seed)
        rows, columns = draws(n, m, 10 + seed), draws(n, m, 20 + seed)
        law = resampled_spectrum(products, rows=rows, columns=columns, variance=1.0, scale=0.5)
        values = 0.25 * esd(weighted_matrix(W, rows, columns))
        values = values[values > 0]
        assert law.rank == values.size == law.eigenvalues().size
        assert (np.diff(law.eigenvalues()) >= 0).all()
        k = law.spikes.size
        assert k >= 5
        off.append(np.abs(np.sqrt(law.spikes / values[::-1][:k]) - 1).mean())
        distances.append(law.distance(values))
        none = resampled_spectrum(
            (np.zeros((n, 0)), np.zeros(0), np.zeros((n, 0))),
            rows=rows, columns=columns, variance=1.0, scale=0.5,
        )  # fmt: skip
        plain.append(none.distance(values[:-k]))
        alphas.append(power_law(values).alpha - power_law(law.eigenvalues()).alpha)
    assert np.mean(off) < (0.04 if m < n else 0.02)
    assert np.mean(distances) < 0.03
    assert np.mean(distances) < 0.8 * np.mean(plain)
    assert abs(np.mean(alphas)) < 0.03


def test_shift_counts_the_spikes_beyond_the_edge_and_nothing_below_the_spectrum() -> None:
    _, products = source(200, [100.0, 80.0, 60.0])
    a, b = draws(200, 300, 1), draws(200, 400, 2)
    x, shift = profile_shift(*products, a, b)
    spikes, edge = profile_spikes(*products, a, b), profile_edge(a, b)
    assert spikes.size == 3
    between = (x > 1.1 * edge) & (x < 0.9 * spikes[-1])
    assert between.any()
    np.testing.assert_allclose(shift[between], 3, atol=0.02)
    assert abs(shift[0]) < 0.1
    law = profile_law(a, b)
    assert law.cdf(edge)[()] == pytest.approx(1, abs=2e-3)


def test_a_law_without_enough_eigenvalues_and_bad_arguments_are_refused() -> None:
    W, products = source(20, [40.0])
    law = resampled_spectrum(products, rows=np.ones(20), columns=np.ones(20), variance=1.0)
    assert law.spikes.size == 1
    with pytest.raises(ValueError, match="more than the 1 spikes"):
        law.distance([3.0])
    with pytest.raises(ValueError, match="rows must be numbers of draws"):
        weighted_matrix(W, np.full(20, -1), np.ones(20))
    with pytest.raises(ValueError, match=r"must fit W \(20, 20\), got 19 and 20"):
        weighted_matrix(W, np.ones(19), np.ones(20))
    with pytest.raises(ValueError, match="scale must be positive"):
        resampled_spectrum(products, rows=np.ones(20), columns=np.ones(20), variance=1.0, scale=0.0)
    u, theta, v = products
    with pytest.raises(ValueError, match="must have shapes"):
        profile_spikes(u, theta, v[:5], np.ones(20), np.ones(20))
    with pytest.raises(ValueError, match="strengths must not be negative"):
        profile_shift(u, -theta, v, np.ones(20), np.ones(20))
    with pytest.raises(ValueError, match="draws"):
        distinct_law(3, 0)
