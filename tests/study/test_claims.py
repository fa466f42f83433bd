"""rclib.study.claims: verdicts against a grid of points, intervals against scipy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rclib.study.claims import VERDICTS, Claims, Criterion, above, below, between, interval_of

REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_TESTABLE = VERDICTS


def declared(criterion: Criterion | None = None, *keys: str) -> Claims:
    claims = Claims()
    for key in keys or ("a",):
        claims.declare(
            key,
            paper="A, Figure 1",
            statement=f"statement of {key}",
            quantity="slope",
            criterion=criterion or above(0.5),
        )
    return claims


# --- criteria ------------------------------------------------------------------------------


bounds = st.integers(-6, 6)


@given(bounds, bounds, bounds, bounds, st.sampled_from([above, below, between]))
@settings(max_examples=300, deadline=None)
def test_verdict_is_what_the_points_of_the_interval_say(
    a: int, b: int, c: int, d: int, make: Callable[..., Criterion]
) -> None:
    low, high = sorted((a, b))
    first, second = sorted((c, d))
    criterion = make(first, second) if make is between else make(first)
    allowed = {
        above: lambda v: v >= first,
        below: lambda v: v <= first,
        between: lambda v: first <= v <= second,
    }[make]
    # All ends are integers, so halves show every part of the interval.
    meets = [allowed(v / 2) for v in range(2 * low, 2 * high + 1)]
    expected = REPRODUCED if all(meets) else UNDECIDED if any(meets) else NOT_REPRODUCED
    assert criterion.verdict(low, high) == expected


def test_wrong_criterion_is_named() -> None:
    with pytest.raises(ValueError, match=r"low <= high, got 2 and 1"):
        between(2, 1)
    with pytest.raises(ValueError, match="got nan"):
        above(math.nan)


def test_criterion_in_words() -> None:
    words = [str(c) for c in (above(0.9), below(2), between(-0.6, -0.4))]
    assert words == ["≥ 0.9", "≤ 2", "in [-0.6, -0.4]"]


# --- intervals -----------------------------------------------------------------------------


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


# --- measuring -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0, 1.1, 0.9], REPRODUCED),
        ([0.0, 0.1, -0.1], NOT_REPRODUCED),
        ([0.0, 0.6, 0.9], UNDECIDED),
        (0.5, REPRODUCED),
        (0.4999, NOT_REPRODUCED),
    ],
)
def test_measured_values_give_the_verdict(values: float | list[float], verdict: str) -> None:
    claims = declared()
    assert claims.measure("a", values, note="three seeds") == verdict
    claim = claims.claims["a"]
    repeats = values if isinstance(values, list) else [values]
    assert (claim.value, claim.low, claim.high) == interval_of(repeats)
    assert (claim.repeats, claim.note, claim.verdict) == (len(repeats), "three seeds", verdict)


@pytest.mark.parametrize(
    "value",
    [0.75, np.float32(0.75), np.float64(0.75), np.array(0.75), torch.tensor(0.75)],
    ids=lambda v: type(v).__name__,
)
def test_one_number_of_any_library(value: float) -> None:
    claims = declared()
    claims.measure("a", value)
    assert (claims.claims["a"].value, claims.claims["a"].repeats) == (0.75, 1)
    json.dumps(claims.rows(), allow_nan=False)


def test_several_numbers_of_any_library() -> None:
    rows = []
    for values in (
        [1.0, 2.0],
        iter([1.0, 2.0]),
        np.array([1, 2], "f4"),
        torch.tensor([1.0, 2.0]),
        pd.Series([1.0, 2.0], index=[7, 9]),
    ):
        claims = declared()
        claims.measure("a", values)
        rows.append(json.dumps(claims.rows(), allow_nan=False))
    assert len(set(rows)) == 1


def test_given_interval_decides() -> None:
    claims = declared(None, "a", "b")
    assert claims.measure("a", [0.9, 1.0], interval=(0.4, 1.5)) == UNDECIDED
    assert claims.measure("b", 0.9, interval=(0.6, 1.5)) == REPRODUCED
    assert (claims.claims["a"].low, claims.claims["a"].high) == (0.4, 1.5)
    assert claims.claims["a"].value == pytest.approx(0.95)


@pytest.mark.parametrize("interval", [(1.0, 0.0), (math.nan, 1.0), (0.0, math.inf)])
def test_interval_that_is_none_leaves_the_claim_open(interval: tuple[float, float]) -> None:
    claims = declared()
    before = str(claims)
    with pytest.raises(ValueError, match=r"interval of 'a' must be finite and ordered"):
        claims.measure("a", 0.9, interval=interval)
    assert str(claims) == before
    assert claims.measure("a", 0.9) == REPRODUCED


def test_a_claim_is_declared_once_and_measured_once() -> None:
    claims = declared(None, "a", "b")
    with pytest.raises(ValueError, match="'a' is declared already"):
        claims.declare("a", paper="", statement="", quantity="", criterion=below(0))
    assert claims.claims["a"].criterion == above(0.5)
    claims.measure("a", 0.0)
    claims.not_testable("b", "needs a GPU")
    for key in "ab":
        with pytest.raises(ValueError, match=f"'{key}' is measured already"):
            claims.measure(key, 1.0)
        with pytest.raises(ValueError, match=f"'{key}' is measured already"):
            claims.not_testable(key, "a change of mind")
    assert claims.claims["a"].verdict == NOT_REPRODUCED
    assert claims.claims["b"].value is None


def test_undeclared_claim_is_named_with_the_declared_ones() -> None:
    claims = declared(None, "first", "second")
    for close in (lambda: claims.measure("frist", 1.0), lambda: claims.not_testable("frist", "x")):
        with pytest.raises(ValueError, match=r"'frist' was not declared.*'first', 'second'"):
            close()


def test_not_testable_needs_a_reason() -> None:
    claims = declared()
    with pytest.raises(ValueError, match="'a' needs a reason"):
        claims.not_testable("a", "")
    claims.not_testable("a", "needs 8 GPUs")
    (row,) = claims.rows()
    assert (row["verdict"], row["note"], row["value"]) == (NOT_TESTABLE, "needs 8 GPUs", None)


def test_open_claims_are_named() -> None:
    claims = declared(None, "a", "b", "c")
    claims.measure("b", 1.0)
    for read in (claims.rows, claims.verdicts):
        with pytest.raises(ValueError, match=r"not measured: \['a', 'c'\]"):
            read()


def test_rows_and_verdicts_keep_the_order_and_are_json() -> None:
    claims = declared(between(0, 1), "z", "a", "m")
    claims.measure("m", [0.5, 0.6])
    claims.not_testable("z", "why")
    claims.measure("a", 7)
    rows = claims.rows()
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert [row["key"] for row in rows] == ["z", "a", "m"]
    assert [line.split()[-1] for line in claims.verdicts().splitlines()] == ["z", "a", "m"]
    for row, line in zip(rows, claims.verdicts().splitlines(), strict=True):
        assert line.startswith(row["verdict"])
        assert row["statement"] == f"statement of {row['key']}"
        assert (row["paper"], row["quantity"]) == ("A, Figure 1", "slope")
        assert row["criterion"] == "in [0, 1]"
    assert [row["repeats"] for row in rows] == [0, 1, 2]


def test_verdicts_may_leave_out_claims_by_name() -> None:
    claims = Claims()
    for key in ("a", "b"):
        claims.declare(key, paper="A", statement="s", quantity="q", criterion=below(1))
        claims.measure(key, 0.5)
    assert claims.verdicts(leave_out=["a"]).split() == ["reproduced", "b"]
    with pytest.raises(ValueError, match=r"leave_out names unknown claims: \['c'\]"):
        claims.verdicts(leave_out=["c"])
