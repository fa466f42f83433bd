"""stats.permutation: by hand, and its level by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rclib.stats.permutation import split_test
from rclib.stats.two_sample import pair_distances, wasserstein


def table_of(samples: list[np.ndarray]) -> np.ndarray:
    return pair_distances({0: samples}, wasserstein).values[0, 0]


def test_statistic_is_between_over_inside_and_p_counts_splits() -> None:
    points = [0.0, 1.0, 10.0, 12.0, 11.0]
    table = np.abs(np.subtract.outer(points, points))
    found = split_test([table], 2)
    assert found.splits == math.comb(5, 2)
    between = np.mean([10, 12, 11, 9, 11, 10])
    inside = np.mean([2, 1, 1])
    assert found.statistic == pytest.approx(between / math.sqrt((1 + inside**2) / 2))
    assert found.p == 1 / 10  # no other split is as far apart


def test_equal_groups_count_a_split_once() -> None:
    points = [0.0, 1.0, 10.0, 12.0]
    found = split_test([np.abs(np.subtract.outer(points, points))], 2)
    assert found.splits == 3
    assert found.p == pytest.approx(1 / 3)


def test_level_is_kept_and_a_shift_is_seen() -> None:
    generator = np.random.default_rng(0)

    def p(shift: float) -> float:
        # Every sample has a mean of its own, as every seed has a law of its own.
        samples = [generator.normal(generator.normal(), 1, 50) for _ in range(9)]
        return split_test([table_of(samples[:4] + [s + shift for s in samples[4:]])], 4).p

    null = [p(0.0) for _ in range(60)]
    assert np.mean([v <= 0.05 for v in null]) < 0.15
    assert np.mean(null) == pytest.approx(0.5, abs=0.15)
    assert np.mean([p(8.0) <= 0.05 for _ in range(10)]) == 1.0


def test_bad_tables_are_named() -> None:
    with pytest.raises(ValueError, match=r"either group needs two samples, got 1 of 4"):
        split_test([np.zeros((4, 4))], 1)
    with pytest.raises(ValueError, match=r"square and of one size"):
        split_test([np.zeros((4, 3))], 2)
