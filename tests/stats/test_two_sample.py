"""stats.two_sample: distances against scipy and by hand; intervals and floors by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rclib.stats.two_sample import (
    DISTANCES,
    bootstrap_interval,
    floor,
    jackknife,
    kolmogorov_smirnov,
    pair_distances,
    sampling_distance,
    wasserstein,
)

SAMPLES = st.lists(
    st.floats(-100, 100, allow_nan=False).map(lambda v: round(v, 1)), min_size=1, max_size=12
)


@given(SAMPLES, SAMPLES)
@settings(max_examples=60, deadline=None)
def test_distances_against_scipy_and_the_definition(x, y):  # rounded values, so that ties occur
    a, b = np.array(x), np.array(y)
    assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-9)
    expected = max(abs(float(np.mean(a <= t)) - float(np.mean(b <= t))) for t in [*x, *y])
    assert kolmogorov_smirnov(a, b) == pytest.approx(expected, abs=1e-12)


def test_distances_by_hand():
    # F and G differ by 1/2 on [0, 1) and on [1, 3).
    x, y = np.array([0.0, 1.0]), np.array([1.0, 3.0])
    assert wasserstein(x, y) == pytest.approx(0.5 * 1 + 0.5 * 2)
    assert kolmogorov_smirnov(x, y) == pytest.approx(0.5)


def test_kolmogorov_smirnov_is_that_of_scipy():
    generator = np.random.default_rng(7)
    x, y = generator.normal(size=40), generator.normal(0.3, size=90)
    assert kolmogorov_smirnov(x, y) == pytest.approx(stats.ks_2samp(x, y).statistic)


def test_wasserstein_of_equal_sizes_is_the_mean_difference_of_the_sorted_values():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 50))
    assert wasserstein(x, y) == pytest.approx(np.abs(np.sort(x) - np.sort(y)).mean())


@pytest.mark.parametrize("name", DISTANCES)
def test_a_shift_of_a_long_sample_has_its_known_distance(name):
    x = np.random.default_rng(1).normal(size=20_000)
    y = np.random.default_rng(2).normal(size=20_000) + 0.5
    exact = 0.5 if name == "Wasserstein" else 2 * stats.norm.cdf(0.25) - 1
    assert DISTANCES[name](x, y) == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_bootstrap_interval_covers_the_true_distance(shift):
    # 95 percent are meant; with 60 trials, 48 or more covered has probability above 0.999.
    covered = 0
    for trial in range(60):
        generator = np.random.default_rng(trial)
        x, y = generator.normal(size=40), generator.normal(size=60) + shift
        interval = bootstrap_interval(x, y, wasserstein, draws=200, seed=trial)
        assert interval.value == wasserstein(x, y)
        covered += interval.low <= shift <= interval.high
    assert covered >= 48


def test_bootstrap_interval_repeats_and_depends_on_the_seed():
    x, y = np.random.default_rng(3).normal(size=(2, 30))
    first, again, other = (
        bootstrap_interval(x, y, wasserstein, draws=50, seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_sampling_distance_is_what_two_samples_of_one_law_give():
    # Two samples of n normal values: √(2/n) times the integral of E|B(Φ(t))|, B the bridge,
    # that is √(2/π) ∫ √(Φ(1 - Φ)) dt.
    t = np.linspace(-8, 8, 4001)
    spread = np.sqrt(stats.norm.cdf(t) * stats.norm.sf(t)).sum() * (t[1] - t[0])
    pool = stats.norm.ppf((np.arange(5000) + 0.5) / 5000)
    n = 400
    expected = math.sqrt(2 / n) * math.sqrt(2 / math.pi) * spread
    measured = sampling_distance(pool, n, n, wasserstein, draws=1500)
    assert measured == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("name", DISTANCES)
def test_floor_is_the_distance_between_groups_of_one_law(name):
    d = DISTANCES[name]
    between, inside_a, inside_b = [], [], []
    for trial in range(300):
        generator = np.random.default_rng(trial)
        a, a2 = generator.exponential(size=(2, 50))
        b, b2 = generator.exponential(size=(2, 200))
        between.append(d(a, b))
        inside_a.append(d(a, a2))
        inside_b.append(d(b, b2))
    assert np.mean(between) / floor(inside_a, inside_b) == pytest.approx(1.0, abs=0.06)


def test_pair_distances_against_loops_over_samples():
    generator = np.random.default_rng(6)
    groups = {n: list(generator.normal(size=(3, n))) for n in (4, 9)}
    table = pair_distances(groups, wasserstein)
    between = [wasserstein(x, y) for x in groups[4] for y in groups[9]]
    inside = {
        n: [wasserstein(s[i], s[j]) for i, j in ((0, 1), (0, 2), (1, 2))] for n, s in groups.items()
    }
    assert table.between(4, 9) == pytest.approx(np.mean(between))
    assert table.between(9, 4) == pytest.approx(np.mean(between))
    assert table.inside(9) == pytest.approx(inside[9])
    assert table.ratio(4, 9) == pytest.approx(np.mean(between) / floor(inside[4], inside[9]))
    some = {4: [0, 2], 9: [1, 2]}
    kept = [wasserstein(groups[4][i], groups[9][j]) for i in (0, 2) for j in (1, 2)]
    assert table.between(4, 9, some) == pytest.approx(np.mean(kept))
    assert table.inside(4, some) == pytest.approx([inside[4][1]])
    with pytest.raises(ValueError, match=r"groups are \[4, 9\], got 4 and 5"):
        table.between(4, 5)


def test_jackknife_of_a_mean_is_its_t_interval():
    values = np.random.default_rng(4).normal(size=7)
    interval = jackknife(lambda kept: float(values[list(kept[0])].mean()), {0: 7})
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    ends = (interval.value, interval.low, interval.high)
    assert ends == pytest.approx((values.mean(), low, high))


def test_jackknife_at_another_level_is_that_t_interval():
    values = np.random.default_rng(3).normal(size=7)
    interval = jackknife(lambda kept: float(values[list(kept[0])].mean()), {0: 7}, level=0.01)
    low, high = stats.t.interval(0.99, 6, values.mean(), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    for wrong in (0, 1, -0.1):
        with pytest.raises(ValueError, match="level must lie in"):
            jackknife(lambda kept: 0.0, {0: 7}, level=wrong)


def test_jackknife_of_a_difference_of_means_is_the_two_sample_t_interval():
    # Of equal sizes, where the pooled variance and the sum of variances are the same.
    x, y = np.random.default_rng(5).normal(size=(2, 6))
    interval = jackknife(
        lambda kept: float(x[list(kept[1])].mean() - y[list(kept[2])].mean()), {1: 6, 2: 6}
    )
    low, high = stats.ttest_ind(x, y).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high))


@pytest.mark.parametrize("runs", [3, 4])
def test_jackknife_covers_the_ratio_of_a_distance_to_its_floor(runs):
    # Runs with a shift of their own, so that two of one group differ too; the true ratio is 1.
    covered = 0
    for trial in range(60):
        generator = np.random.default_rng([trial, runs])
        groups = {
            n: [generator.normal(generator.normal() * n**-0.5, 1.0, size=n) for _ in range(runs)]
            for n in (32, 64)
        }
        table = pair_distances(groups, wasserstein)
        interval = jackknife(
            lambda kept, t=table: t.ratio(32, 64, kept), {32: runs, 64: runs}, positive=True
        )
        covered += interval.low <= 1.0 <= interval.high
    assert covered >= 53


def test_positive_jackknife_is_that_of_the_logarithm():
    values = np.random.default_rng(5).exponential(size=6)
    plain = jackknife(lambda kept: math.log(values[list(kept[0])].sum()), {0: 6})
    interval = jackknife(lambda kept: float(values[list(kept[0])].sum()), {0: 6}, positive=True)
    ends = (interval.value, interval.low, interval.high)
    assert ends == pytest.approx(tuple(map(math.exp, (plain.value, plain.low, plain.high))))


def test_bad_arguments_are_named():
    good = np.arange(3.0)
    for bad in (np.array([]), np.array([1.0, np.nan]), np.ones((2, 2))):
        with pytest.raises(ValueError, match="y must be a list of finite numbers"):
            wasserstein(good, bad)
    with pytest.raises(ValueError, match="draws must be at least 2, got 1"):
        bootstrap_interval(good, good, wasserstein, draws=1)
    with pytest.raises(ValueError, match="n, m and draws must be positive, got 0, 3 and 100"):
        sampling_distance(good, 0, 3, wasserstein)
    with pytest.raises(ValueError, match="two samples or more"):
        floor([], [1.0])
    with pytest.raises(ValueError, match=r"sizes must be at least 2, got \{0: 3, 1: 1\}"):
        jackknife(lambda kept: 0.0, {0: 3, 1: 1})
    with pytest.raises(ValueError, match=r"statistic must be positive, got 0\.0"):
        jackknife(lambda kept: 0.0, {0: 3}, positive=True)
