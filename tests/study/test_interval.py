"""study.interval: Student's t over repeats, against scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rclib.study.interval import interval_of


@pytest.mark.parametrize("n", [*range(2, 45), 60, 200, 5000])
def test_interval_is_students_t(n: int) -> None:
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    ours = interval_of(values.tolist())
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    half = (theirs.high - theirs.low) / 2
    # The table has three decimals.
    assert ours == pytest.approx((values.mean(), theirs.low, theirs.high), abs=3e-4 * half)


@pytest.mark.parametrize(
    "values", [[1.0, 2.0, 4.0], (1, 2, 4), np.array([1.0, 2, 4], "f4"), pd.Series([1, 2, 4])]
)
def test_interval_of_any_sequence(values: Sequence[float]) -> None:
    assert interval_of(values) == interval_of([1.0, 2.0, 4.0])


def test_one_value_has_width_zero() -> None:
    assert interval_of([0.25]) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("values", "message"), [([], "empty"), ([1.0, math.nan], "nan"), ([math.inf], "inf")]
)
def test_values_without_an_interval_are_named(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interval_of(values)
