"""rclib.stats.grid: equal means are equal whatever their last bits, and an end is no choice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rclib.stats.grid import best_setting


def test_the_largest_mean_is_best_in_any_order() -> None:
    means = pd.Series([0.5, 0.9, 0.7, 0.6], [0.1, 0.01, 0.001, 1.0])
    assert best_setting(means, what="a") == best_setting(means[::-1], what="a") == 0.01


@pytest.mark.parametrize("bit", [-1, 0, 1])
def test_of_equal_means_the_smallest_setting_whatever_the_last_bit(bit: int) -> None:
    """453 of 480 as sums in another order give it, in single precision."""
    equal = np.float32(453 / 480)
    near = np.nextafter(equal, np.float32(2 * max(bit, 0))) if bit else equal
    means = pd.Series([0.1, float(equal), float(near), 0.1], [1e-4, 1e-3, 1e-2, 1e-1])
    assert best_setting(means, what="a") == 1e-3


def test_what_differs_by_one_image_is_not_equal() -> None:
    means = pd.Series([0.1, 0.5, 0.5 + 1 / 50_000, 0.1], [1, 2, 3, 4])
    assert best_setting(means, what="a") == 3


@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 1.0, 0.0], [1.0]])
def test_an_end_is_an_error_that_names_it(values: list[float]) -> None:
    means = pd.Series(values, [0.1 * 2**k for k in range(len(values))])
    with pytest.raises(ValueError, match=r"grid of rates of 'ER 0.3' must go on beyond 0\.[14]"):
        best_setting(means, what="rates of 'ER 0.3'")


def test_an_open_end_may_be_best() -> None:
    means = pd.Series([3.0, 2.0, 1.0], [0.0, 0.1, 1.0])
    assert best_setting(means, what="decays", open_end=0.0) == 0.0
    with pytest.raises(ValueError, match="beyond 1,"):
        best_setting(means[::-1].set_axis([0.0, 0.1, 1.0]), what="decays", open_end=0.0)


@pytest.mark.parametrize("values", [[], [0.1, float("nan"), 0.2], [0.1, float("inf"), 0.2]])
def test_a_mean_that_is_no_number_is_an_error(values: list[float]) -> None:
    with pytest.raises(ValueError, match="means of rates must be finite"):
        best_setting(pd.Series(values, range(len(values)), dtype=float), what="rates")
