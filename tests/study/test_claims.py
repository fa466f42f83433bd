"""rclib.study.claims: verdicts against a grid of points, intervals against scipy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rclib.study.claims import (
    VERDICTS,
    Claims,
    Criterion,
    above,
    below,
    between,
)
from rclib.study.interval import interval_of

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


# --- claims that say on which seeds they are judged ------------------------------------------

TEXTS: dict[str, Any] = {"statement": "s", "quantity": "q", "criterion": above(0.5)}


def on_seeds(seeds: Sequence[int] | int | None = (0, 1, 2), **options: Any) -> Claims:
    claims = Claims(paper="arxiv-1803.03635")
    claims.declare("a", item="Figure 3", seeds=seeds, **{**TEXTS, **options})
    return claims


def test_a_declared_claim_takes_one_value_a_seed() -> None:
    for seeds in ((0, 1, 2), 3, np.array([5, 6, 7])):
        claims = on_seeds(seeds)
        for values in ([1.0, 1.1], [1.0, 1.1, 0.9, 1.0], 1.0):
            with pytest.raises(ValueError, match=r"'a' declares 3 seeds .* one value a seed, got"):
                claims.measure("a", values)
        assert claims.measure("a", [1.0, 1.1, 0.9]) == REPRODUCED
    (row,) = claims.rows()
    assert (row["unit"], row["declared_seeds"], row["repeats"]) == ("seed", [5, 6, 7], 3)
    json.dumps(row)


def test_values_labelled_by_seed_must_be_of_the_declared_ones() -> None:
    series = pd.Series([1.0, 1.1, 0.9], index=pd.Index([0, 1, 3], name="seed"))
    for values in (series, dict(series)):
        with pytest.raises(ValueError, match=r"declared seeds \[0, 1, 2\], got seeds \[3\]"):
            on_seeds().measure("a", values)
    twice = series.set_axis(pd.Index([0, 1, 1], name="seed"))
    with pytest.raises(ValueError, match=r"one a seed, got seeds \[0, 1, 1\]"):
        on_seeds().measure("a", twice)
    rows = []
    for values in (series.set_axis(pd.Index([2, 0, 1], name="seed")), {2: 1.0, 0: 1.1, 1: 0.9}):
        claims = on_seeds()
        assert claims.measure("a", values) == REPRODUCED
        rows.append(claims.rows())
    unnamed = on_seeds()
    unnamed.measure("a", series.rename_axis(None))  # places, not seeds
    assert rows[0] == rows[1] == unnamed.rows()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_undefined_value_is_refused_with_its_seed(bad: float) -> None:
    for claims in (on_seeds((4, 7, 9)), on_seeds()):
        seed = {(4, 7, 9): 7, (0, 1, 2): 1}[tuple(claims.claims["a"].seeds)]  # type: ignore[arg-type]
        before = str(claims)
        with pytest.raises(ValueError, match=f"'a' must be finite, got {bad} for seed {seed}"):
            claims.measure("a", [1.0, bad, 1.0])
        assert str(claims) == before
    with pytest.raises(ValueError, match=f"got {bad} for seed 2"):
        on_seeds().measure("a", {2: bad, 0: 1.0, 1: 1.0})
    with pytest.raises(ValueError, match=f"got {bad} for repeat 2"):
        declared().measure("a", [1.0, bad])


def test_an_interval_says_on_how_many_repeats_it_rests() -> None:
    claims = on_seeds()
    with pytest.raises(ValueError, match=r"3 seeds and its interval rests on 1; .*repeats="):
        claims.measure("a", 0.9, interval=(0.8, 1.0))
    with pytest.raises(ValueError, match="repeats of 'a' goes with an interval, got 3"):
        claims.measure("a", [0.9, 0.9, 0.9], repeats=3)
    assert claims.measure("a", 0.9, interval=(0.8, 1.0), repeats=6) == REPRODUCED  # two widths
    assert claims.rows()[0]["repeats"] == 6
    drawn = on_seeds((0, 1, 2), unit="draw")
    assert drawn.measure("a", 0.9, interval=(0.8, 1.0), repeats=200) == REPRODUCED


@pytest.mark.parametrize("unit", ["seed", "draw", "bootstrap"])
@pytest.mark.parametrize(("value", "decided"), [(0.9, REPRODUCED), (0.1, NOT_REPRODUCED)])
def test_a_verdict_needs_three_repeats(unit: str, value: float, decided: str) -> None:
    for n, expected in ((1, UNDECIDED), (2, UNDECIDED), (3, decided)):
        claims = on_seeds(n, unit=unit)
        assert claims.measure("a", [value] * n, note="why") == expected
        few = f"; a verdict needs 3 repeats, got {n}"
        assert claims.claims["a"].note == "why" + few * (n < 3)
        with_interval = on_seeds(None, unit=unit)
        ends = (value - 0.01, value + 0.01)
        assert with_interval.measure("a", value, interval=ends, repeats=n) == expected
        assert with_interval.claims["a"].note == few.removeprefix("; ") * (n < 3)


def test_an_exact_claim_needs_no_repeats_and_an_old_one_says_nothing_of_them() -> None:
    claims = on_seeds(None, unit="exact")
    assert claims.measure("a", 0.9) == REPRODUCED
    old = on_seeds(None)
    assert old.measure("a", 0.9) == REPRODUCED
    assert [c.rows()[0]["unit"] for c in (claims, old)] == ["exact", None]


def test_undecided_by_its_interval_needs_no_note() -> None:
    claims = on_seeds(2)
    claims.measure("a", [0.0, 1.0])
    assert (claims.claims["a"].verdict, claims.claims["a"].note) == (UNDECIDED, "")


def test_a_criterion_that_was_seen_is_judged_on_fresh_seeds() -> None:
    claims = on_seeds((3, 4, 5), blind=False, seen_on=[0, 1, 2])
    assert (claims.claims["a"].blind, claims.claims["a"].seen_on) == (False, [0, 1, 2])
    with pytest.raises(ValueError, match=r"declared seeds \[3, 4, 5\], got seeds \[0\]"):
        claims.measure("a", {0: 1.0, 3: 1.0, 4: 1.0})
    with pytest.raises(ValueError, match=r"seeds of 'a' must be fresh.*got \[2\]"):
        on_seeds((2, 3, 4), blind=False, seen_on=[0, 1, 2])
    with pytest.raises(ValueError, match=r"seen on seeds \[0\], so it needs blind=False"):
        on_seeds((3, 4, 5), seen_on=[0])
    for unnamed in (3, None):  # how many says nothing of which
        with pytest.raises(ValueError, match="seeds must be a list of others"):
            on_seeds(unnamed, blind=False, seen_on=[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, "seeds of 'a' must be different ones, at least one, got"),
        ({"seeds": [1, 1]}, "seeds of 'a' must be different ones"),
        ({"seeds": 0}, "seeds of 'a' must be a positive integer, got 0"),
        ({"seeds": [0.5]}, "seeds of 'a' must be an integer"),
        ({"seeds": "0, 1"}, "seeds of 'a' must be a list of seeds or their number"),
        ({"unit": "run"}, "unit of 'a' must be one of"),
        ({"unit": "exact", "seeds": [1]}, "'a' is exact, so it has no seeds"),
        ({"control": 1}, "control must be True or False"),
        ({"blind": None}, "blind must be True or False"),
        ({"item": ""}, "item of 'a' must not be empty"),
    ],
)
def test_what_does_not_fit_together_is_refused_at_once(
    options: dict[str, Any], message: str
) -> None:
    claims = Claims(paper="A")
    with pytest.raises(ValueError, match=message):
        claims.declare("a", **{"item": "Figure 1", **TEXTS, **options})
    assert not claims.claims


def test_where_a_claim_stands() -> None:
    claims = Claims(paper="arxiv-1803.03635")
    claims.declare("own", item="Figure 3", **TEXTS)
    claims.declare("other", item="Section 2", paper="beyond", **TEXTS)
    claims.declare("whole", paper="A, Figure 4.1", **TEXTS)
    claims.declare("free", paper="beyond the paper, added later", **TEXTS)
    with pytest.raises(ValueError, match=r"'none' needs an item \(or paper\)"):
        claims.declare("none", **TEXTS)
    with pytest.raises(ValueError, match="'none' needs a paper: its study names none"):
        Claims().declare("none", item="Figure 3", **TEXTS)
    assert [(c.paper, c.item) for c in claims.claims.values()] == [
        ("arxiv-1803.03635, Figure 3", "Figure 3"),
        ("beyond, Section 2", "Section 2"),
        ("A, Figure 4.1", None),
        ("beyond the paper, added later", None),
    ]


def test_rows_hold_the_numbers_of_the_criterion() -> None:
    third = 1 / 3
    for criterion, ends in (
        (above(third), (third, None)),
        (below(-third), (None, -third)),
        (between(-third, 10**2.5), (-third, 10**2.5)),
    ):
        claims = Claims(paper="A")
        claims.declare("a", item="x", **{**TEXTS, "criterion": criterion}, control=True)
        claims.measure("a", third)
        (row,) = json.loads(json.dumps(claims.rows(), allow_nan=False))
        assert (row["criterion_low"], row["criterion_high"]) == ends
        assert (row["control"], row["blind"], row["seen_on"]) == (True, True, None)
