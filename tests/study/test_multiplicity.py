"""rclib.study.multiplicity: p against scipy's t-test, Holm against its definition, error rates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from rclib.study.claims import Claims, Criterion, above, below, between
from rclib.study.multiplicity import corrected, holm, p_value


def row(criterion: Criterion, values: Any, **options: Any) -> dict[str, Any]:
    claims = Claims()
    claims.declare("c", paper="A", statement="s", quantity="q", criterion=criterion)
    claims.measure("c", values, **options)
    return claims.rows()[0]


@pytest.mark.parametrize(
    ("criterion", "edge", "alternative"),
    [
        (below(1.2), 1.2, "less"),
        (above(0.7), 0.7, "greater"),
        (below(0.4), 0.4, "greater"),
        (above(1.5), 1.5, "less"),
        (between(0.0, 1.25), 1.25, "less"),
        (between(0.7, 3.0), 0.7, "greater"),
        (between(1.5, 2.0), 1.5, "less"),
        (between(-1.0, 0.5), 0.5, "greater"),
    ],
)
def test_p_is_that_of_a_t_test_against_the_edge(
    criterion: Criterion, edge: float, alternative: str
) -> None:
    values = np.array([0.9, 1.0, 1.02, 0.97, 1.06])
    claim = row(criterion, values)
    assert claim["verdict"] in ("reproduced", "not reproduced")
    expected = stats.ttest_1samp(values, edge, alternative=alternative).pvalue
    assert p_value(claim) == pytest.approx(expected, rel=1e-3)  # the table of t has four digits


def test_p_at_the_end_of_the_interval_is_the_level() -> None:
    values = [0.9, 1.0, 1.2, 1.1]
    high = row(below(9), values)["high"]
    assert p_value(row(below(high), values)) == pytest.approx(0.025, rel=1e-2)


def test_an_interval_given_is_taken_as_normal() -> None:
    claim = row(below(3), 1.0, interval=(0.5, 1.7))
    s = 1.2 / 2 / stats.norm.ppf(0.975)
    assert p_value(claim) == pytest.approx(stats.norm.sf(2 / s), rel=1e-6)


def test_claims_without_a_spread_or_a_decision_have_no_p() -> None:
    assert p_value(row(below(2), 1.0)) is None
    assert p_value(row(below(2), [1.0, 1.0])) is None
    assert p_value(row(below(2), [1.0, 2.9])) is None  # undecided
    claims = Claims()
    claims.declare("c", paper="A", statement="s", quantity="q", criterion=below(1))
    claims.not_testable("c", "no data")
    assert p_value(claims.rows()[0]) is None


def test_the_edge_is_the_stored_number_not_the_text() -> None:
    """10^2.5 has more digits than its text."""
    criterion = above(10**2.5)
    values = [316.2283, 316.2284, 316.2285]
    claim = row(criterion, values)
    assert claim["criterion"] == "≥ 316.228"
    expected = stats.ttest_1samp(values, 10**2.5, alternative="greater")
    assert expected.pvalue < 0.7 * stats.ttest_1samp(values, 316.228, alternative="greater").pvalue
    assert p_value(claim) == pytest.approx(expected.pvalue, rel=1e-3)


def test_holm_by_its_definition() -> None:
    assert holm([]) == []
    assert holm([0.02, 0.5, 0.001, 0.012], 0.05) == [True, False, True, True]
    # 0.03 > 0.05 / 2 stops there, though 0.04 < 0.05 / 1 would pass.
    assert holm([0.001, 0.03, 0.04], 0.05) == [True, False, False]
    rng = np.random.default_rng(0)
    for _ in range(200):
        ps = rng.random(6) ** 3
        adjusted = np.empty(6)
        order, running = np.argsort(ps), 0.0
        for k, i in enumerate(order):
            running = max(running, (6 - k) * ps[i])
            adjusted[i] = running
        assert holm(list(ps), 0.1) == list(adjusted <= 0.1)
    with pytest.raises(ValueError, match="ps must lie"):
        holm([0.1, 1.2])


def test_few_wrong_verdicts_stand_where_many_are_wrong_uncorrected() -> None:
    """Means on the edge itself: every decided claim is a chance finding."""
    rng = np.random.default_rng(1)
    families, wrong, standing = 200, 0, 0
    for _ in range(families):
        rows = [row(below(0.0), rng.standard_normal(5)) for _ in range(40)]
        found = corrected(rows)
        wrong += found.decided > 0
        standing += found.standing > 0
    assert wrong > 0.8 * families  # 1 - 0.95^40 = 0.87
    assert standing < 0.09 * families  # 0.05 expected, both sides together


def test_counts() -> None:
    rows = [
        row(below(2), [1.0, 1.001, 0.999]),
        row(below(2), [1.0, 1.55, 1.2]),
        row(below(2), [1.0, 2.5, 1.2]),
        row(below(2), 1.0),
    ]
    found = corrected(rows)
    counts = (found.intervals, found.decided, found.standing, found.without_spread)
    assert counts == (3, 2, 1, 1)  # p = 0.0000002, 0.015 > 0.025 / 2
    assert str(found).startswith("3 claims have an interval and 2 of them are decided by it; 1 of")
