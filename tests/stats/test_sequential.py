"""rclib.stats.sequential: levels against a simulation and a published design, looks that stop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rclib.stats.sequential import (
    ALPHA,
    LOOKS,
    follow,
    interval,
    levels,
    repeated_p,
    spent,
    walk,
)
from rclib.stats.two_sample import jackknife


def t_statistics(values: np.ndarray, n: int) -> np.ndarray:
    """(R,) t of the mean of the first n columns of (R, N)."""
    first = values[:, :n]
    return np.asarray(first.mean(1) / first.std(1, ddof=1) * math.sqrt(n))


def first_beyond(
    values: np.ndarray, looks: tuple[int, ...], bounds: list[float], *, normal: bool
) -> np.ndarray:
    """(R,) number of the look, from 1, at which |z| or |t| is first beyond its bound; 0: never."""
    ended = np.zeros(len(values), dtype=int)
    for number, (n, bound) in enumerate(zip(looks, bounds, strict=True), 1):
        found = values[:, :n].sum(1) / math.sqrt(n) if normal else t_statistics(values, n)
        ended[(ended == 0) & (np.abs(found) > bound)] = number
    return ended


def test_all_is_spent_at_the_last_look_and_nothing_before() -> None:
    assert spent(0) == 0
    assert spent(1) == pytest.approx(ALPHA)
    assert spent(0.25, 0.1) == pytest.approx(0.1 * math.log(1 + (math.e - 1) / 4))


def test_levels_are_the_referees() -> None:
    """Two-sided levels that were computed elsewhere, with another method, to three digits."""
    assert levels() == pytest.approx((0.00975, 0.01053, 0.01701, 0.02576), rel=6e-3)
    assert levels()[0] == pytest.approx(spent(5 / 40), rel=1e-9)  # nothing was spent before
    assert levels((7,)) == pytest.approx((0.05,), rel=1e-9)


def test_levels_of_equal_steps_are_those_of_the_textbook() -> None:
    """Jennison and Turnbull (2000): spending of Pocock type, five looks: 2.438 to 2.386."""
    bounds = [stats.norm.isf(level / 2) for level in levels((10, 20, 30, 40, 50))]
    assert bounds == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=3e-3)


@pytest.mark.parametrize("looks", [LOOKS, (4, 6, 12)])
def test_each_look_errs_as_often_as_it_may(looks: tuple[int, ...]) -> None:
    """Normal values of known variance; 200,000 sequences, 4 standard errors."""
    values = np.random.default_rng(0).standard_normal((200_000, looks[-1]))
    bounds = [float(stats.norm.isf(level / 2)) for level in levels(looks)]
    ended = first_beyond(values, looks, bounds, normal=True)
    before = 0.0
    for number, n in enumerate(looks, 1):
        due = spent(n / looks[-1]) - before
        before += due
        assert np.mean(ended == number) == pytest.approx(due, abs=4 * math.sqrt(due / 200_000))
    assert np.mean(ended > 0) == pytest.approx(ALPHA, abs=4 * math.sqrt(ALPHA / 200_000))


def test_with_students_t_the_error_stays_below_five_and_a_half_percent() -> None:
    values = np.random.default_rng(1).standard_normal((200_000, LOOKS[-1]))
    pairs = list(zip(LOOKS, levels(), strict=True))
    bounds = [float(stats.t.isf(level / 2, n - 1)) for n, level in pairs]
    error = np.mean(first_beyond(values, LOOKS, bounds, normal=False) > 0)
    assert 0.05 < error < 0.055
    # Plain 95 percent intervals at the same looks, and after every value, err far more often.
    plain = [float(stats.t.isf(0.025, n - 1)) for n in LOOKS]
    assert np.mean(first_beyond(values, LOOKS, plain, normal=False) > 0) > 0.12
    every = tuple(range(5, 41))
    bounds = [float(stats.t.isf(0.025, n - 1)) for n in every]
    assert np.mean(first_beyond(values[:20_000], every, bounds, normal=False) > 0) > 0.2


def test_an_effect_is_found_with_few_repeats() -> None:
    values = np.random.default_rng(2).standard_normal((20_000, LOOKS[-1]))
    pairs = list(zip(LOOKS, levels(), strict=True))
    bounds = [float(stats.t.isf(level / 2, n - 1)) for n, level in pairs]
    for effect, mean in ((2.0, 7.4), (1.2, 12.0)):  # the referee's
        ended = first_beyond(values + effect, LOOKS, bounds, normal=False)
        assert (ended > 0).all()
        assert np.mean(np.array(LOOKS)[ended - 1]) == pytest.approx(mean, rel=0.05)


def test_interval_is_students() -> None:
    values = [1.0, 2.0, 4.0, 4.5, 1.5]
    low, high = stats.t.interval(0.99, 4, np.mean(values), stats.sem(values))
    assert interval(values, 0.01) == pytest.approx((np.mean(values), low, high))
    assert interval([0.5], 0.05) == (0.5, 0.5, 0.5)


def above_zero(low: float, high: float, repeats: int) -> bool:
    return (low >= 0 or high < 0) and repeats >= 3


def test_looks_end_with_the_first_that_decides() -> None:
    generator = np.random.default_rng(3)
    values = list(1 + generator.standard_normal(40))
    found = walk(values, above_zero)
    n = found.repeats
    assert found.decided
    assert n == LOOKS[found.number - 1] < 40
    assert (found.value, found.low, found.high) == interval(values[:n], levels()[found.number - 1])
    assert found.low >= 0
    for number, early in enumerate(LOOKS[: found.number - 1]):
        _, low, high = interval(values[:early], levels()[number])
        assert low < 0 <= high  # no earlier look decides
    # What comes after changes nothing, whatever it is.
    assert walk(values[:n] + [-1e6] * (40 - n), above_zero) == found


def test_undecided_looks_go_on_and_end_with_the_last_one_there_is() -> None:
    values = [1.0, -1.0] * 20
    for made, number, n in ((5, 1, 5), (9, 1, 5), (10, 2, 10), (39, 3, 20), (40, 4, 40)):
        found = walk(values[:made], above_zero)
        assert (found.number, found.repeats, found.decided) == (number, n, False)
        assert found.low < 0 < found.high
    few = walk([1.0, 1.0, 1.0, 1.1], above_zero)
    assert (few.number, few.repeats, few.decided) == (0, 4, False)
    assert few.low > 0  # it would decide, but there is no look at 4


def test_repeats_without_a_value_count_as_made() -> None:
    values = [1.0, None, 1.1, None, 0.9, None, 1.05, 1.0, None, 0.95]
    found = walk(values, above_zero)
    assert (found.number, found.repeats, found.defined) == (1, 5, 3)
    found = walk([None] * 5 + [1.0, 1.1, 0.9, 1.0, 1.0], above_zero)
    assert (found.number, found.repeats, found.defined) == (2, 10, 5)
    with pytest.raises(ValueError, match="values must be finite numbers, at least one"):
        walk([None] * 10, above_zero)


def test_following_a_mean_is_walking_its_values() -> None:
    values = list(0.6 + np.random.default_rng(4).standard_normal(40))
    asked = []

    def estimate(n: int, level: float) -> tuple[float, float, float]:
        asked.append((n, level))
        return interval(values[:n], level)

    for made in (4, 5, 19, 40):
        asked.clear()
        found = follow(estimate, made, above_zero)
        assert found == walk(values[:made], above_zero)
        assert asked[-1] == (found.repeats, found.level)
        assert len(asked) == max(found.number, 1)  # later repeats are not looked at


def test_an_estimate_must_have_ends_in_order() -> None:
    for wrong in ((0.0, 1.0, 2.0), (0.0, -1.0, math.nan), (0.0, -math.inf, 1.0)):
        with pytest.raises(ValueError, match="estimate must have finite ends in order"):
            follow(lambda n, level, found=wrong: found, 5, above_zero)  # type: ignore[misc]


@pytest.mark.slow
def test_the_jackknife_of_pairs_under_the_rule_errs_as_often_as_it_may() -> None:
    """A slope in N of mean distances between pairs of seeds, -1/2 in truth: how often does some
    look's interval not hold it? 1,000 sequences; conservative or right within 3 errors."""
    generator = np.random.default_rng(6)
    widths, runs, wrong = (64, 256), 1000, 0
    for _ in range(runs):
        places = {n: generator.standard_normal((40, 3)) / math.sqrt(n) for n in widths}
        pairs = {n: np.abs(x[:, None] - x).mean(2) for n, x in places.items()}

        def slope(kept: dict[int, list[int]], pairs: dict[int, np.ndarray] = pairs) -> float:
            means = []
            for n in widths:
                chosen = list(kept[n])
                inside = pairs[n][np.ix_(chosen, chosen)].sum()
                means.append(inside / (len(chosen) * (len(chosen) - 1)))
            return math.log(means[1] / means[0]) / math.log(widths[1] / widths[0])

        def estimate(n: int, level: float) -> tuple[float, float, float]:
            found = jackknife(slope, dict.fromkeys(widths, n), level=level)  # type: ignore[arg-type]
            return found.value, found.low, found.high

        found = follow(estimate, 40, lambda low, high, n: not low <= -0.5 <= high)
        wrong += found.decided
    assert 0.01 < wrong / runs < 0.053 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_repeated_p_is_the_smallest_error_that_ends_there() -> None:
    for look in (1, 2, 3, 4):
        level = levels()[look - 1]
        assert repeated_p(level, look) == pytest.approx(ALPHA, rel=1e-4)
        assert repeated_p(level / 10, look) < ALPHA / 5
        p = repeated_p(0.003, look)
        assert levels(LOOKS, p)[look - 1] == pytest.approx(0.003, rel=1e-4)
    assert repeated_p(0.003, 1) > 0.003  # the price of looking more than once
    assert repeated_p(0.0, 1) == 1e-12
    assert repeated_p(1.0, 4) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spent(1.5), "fraction must lie in \\[0, 1\\], got 1.5"),
        (lambda: spent(0.5, 1.0), "alpha must lie in \\(0, 1\\), got 1.0"),
        (lambda: levels((5, 5)), "looks must be growing numbers of repeats from 2 on"),
        (lambda: levels((1, 5)), "from 2 on"),
        (lambda: levels(()), "from 2 on"),
        (lambda: levels(LOOKS, 0.0), "alpha must lie in \\(0, 1\\), got 0.0"),
        (lambda: interval([], 0.05), "at least one"),
        (lambda: interval([math.nan], 0.05), "must be finite"),
        (lambda: interval([1.0, 2.0], 0.0), "level must lie in \\(0, 1\\), got 0.0"),
        (lambda: repeated_p(-0.1, 1), "p must lie in \\[0, 1\\], got -0.1"),
        (lambda: repeated_p(0.1, 5), "look must lie in 1 to 4, got 5"),
    ],
)
def test_what_makes_no_sense_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
