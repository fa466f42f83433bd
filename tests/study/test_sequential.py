"""rclib.study.sequential: claims under the rule, what is said of them, what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rclib.execution import looks as execution_looks
from rclib.stats.sequential import LOOKS, interval, levels
from rclib.study import sequential
from rclib.study.claims import Claims, Criterion, above, below
from rclib.study.multiplicity import corrected, p_value
from rclib.study.results import read_results
from rclib.study.study import Study


def under_rule(
    values: dict[int, float], criterion: Criterion, *, seeds: list[int], **options: Any
) -> dict[str, Any]:
    """The row of one claim."""
    claims = Claims(paper="B")
    claims.declare(
        "a", item="Figure 1", statement="s", quantity="q", criterion=criterion, seeds=seeds,
        looks=LOOKS, **options,
    )  # fmt: skip
    claims.measure("a", values)
    return claims.rows()[0]


def around(centre: float, seeds: list[int], spread: float = 1.0) -> dict[int, float]:
    noise = np.random.default_rng(0).standard_normal(1000)
    return {seed: centre + spread * float(noise[seed]) for seed in seeds}


def test_a_claim_keeps_the_first_look_that_decides() -> None:
    seeds = list(range(10, 50))
    values = around(0.75, seeds)
    row = under_rule(values, above(0.0), seeds=seeds)
    n = LOOKS[row["look"] - 1]
    assert row["verdict"] == "reproduced"
    assert 1 < row["look"] < 4
    assert (row["repeats"], row["level"]) == (n, levels()[row["look"] - 1])
    expected = interval([values[seed] for seed in seeds[:n]], row["level"])
    assert (row["value"], row["low"], row["high"]) == pytest.approx(expected)
    # With the seeds of that look alone, and whatever later ones say, it is the same.
    assert under_rule({s: values[s] for s in seeds[:n]}, above(0.0), seeds=seeds[:n]) == {
        **row, "declared_seeds": seeds[:n]
    }  # fmt: skip
    changed = values | dict.fromkeys(seeds[n:], -100.0)
    assert under_rule(changed, above(0.0), seeds=seeds) == row
    fewer = seeds[: LOOKS[row["look"] - 2]]
    assert under_rule({s: values[s] for s in fewer}, above(0.0), seeds=fewer)["look"] == (
        row["look"] - 1
    )


def test_values_go_by_their_seed_and_not_by_their_place() -> None:
    seeds = list(range(20))
    values = around(0.3, seeds)
    turned = dict(reversed(values.items()))
    assert under_rule(turned, above(0.0), seeds=seeds) == under_rule(
        values, above(0.0), seeds=seeds
    )
    series = pd.Series(turned).rename_axis("seed")
    claims = Claims(paper="B")
    claims.declare(
        "a", item="F", statement="s", quantity="q", criterion=above(0), seeds=seeds, looks=LOOKS
    )
    with pytest.raises(ValueError, match="'a' has looks: its values must be labelled by seed"):
        claims.measure("a", list(values.values()))
    with pytest.raises(ValueError, match="must be labelled by seed"):
        claims.measure("a", values, interval=(0.0, 1.0))
    with pytest.raises(ValueError, match="declares 20 seeds and takes one value a seed, got 19"):
        claims.measure("a", series.iloc[1:])
    with pytest.raises(ValueError, match="must be finite, got nan for seed 3"):
        claims.measure("a", values | {3: float("nan")})
    assert claims.measure("a", series) in ("undecided", "reproduced")


def test_seeds_without_a_value_count_where_the_claim_is_partial() -> None:
    seeds = list(range(10))
    some = {0: 1.0, 3: 1.1, 6: 0.9, 7: 1.0}
    row = under_rule(some, above(0.0), seeds=seeds, partial=True)
    # Two of the first five have a value, which is too few for a verdict; four of ten are not.
    assert (row["look"], row["repeats"], row["verdict"]) == (2, 4, "reproduced")
    with pytest.raises(ValueError, match="must not be empty"):
        under_rule({}, above(0.0), seeds=seeds, partial=True)
    two = under_rule({0: 1.0, 3: 1.0}, above(0.0), seeds=seeds, partial=True)
    assert (two["repeats"], two["verdict"]) == (2, "undecided")


def test_before_the_first_look_nothing_is_decided(out: Path) -> None:
    seeds = [0, 1, 2]
    row = under_rule(dict.fromkeys(seeds, 5.0), above(0.0), seeds=seeds)
    assert (row["look"], row["verdict"]) == (0, "undecided")
    assert sequential.rule_text(row).endswith("3 are too few for the first")
    study = Study("10_x", title="t", parameters={}, paper="B")
    study.claims.declare(
        "a", item="F", statement="s", quantity="q", criterion=above(0), seeds=seeds, looks=LOOKS
    )
    study.claims.measure("a", dict.fromkeys(seeds, 5.0))
    assert read_results(study.close())["claims"][0]["verdict"] == "undecided"


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RCLIB_OUT", str(tmp_path))
    return tmp_path


def test_the_results_file_says_looks_cap_and_what_was_spent(out: Path) -> None:
    study = Study("10_x", title="t", parameters={"n_most": 20}, paper="B")
    seeds = list(range(10))
    for key, looks in (("a", LOOKS), ("plain", None)):
        study.claims.declare(
            key, item="F", statement="s", quantity="q", criterion=above(0), seeds=seeds, looks=looks
        )
        study.claims.measure(key, around(2.0, seeds))
    path = study.close()
    record = read_results(path)
    found = record["sequential"]
    assert found["levels"] == pytest.approx(levels(), rel=1e-5)
    assert (found["looks"], found["most"], found["spent"]) == ([5, 10, 20, 40], 20, 10)
    a, plain = record["claims"]
    assert (plain["looks"], plain["look"], plain["level"]) == (None, None, None)
    assert a["look"] == 1
    assert sequential.adjusted_mark(a) == " (adjusted, n = 5)"
    assert sequential.adjusted_mark(plain) == sequential.rule_text(plain) == ""
    assert sequential.design([plain], 20) is None
    for wrong, message in (
        ('"look": 5', "look 5 is none of"),
        ('"look": "x"', "look must be a whole number"),
        ('"look": 0', "contradicts its interval"),
    ):
        path.write_text(path.read_text().replace('"look": 1', wrong))
        with pytest.raises(ValueError, match=message):
            read_results(path)
        path.write_text(path.read_text().replace(wrong, '"look": 1'))


def test_what_is_said_of_the_rule() -> None:
    seeds = list(range(5))
    row = under_rule(around(0.0, seeds), above(0.0), seeds=seeds)
    said = "interval adjusted for looks at 5, 10, 20, 40 seeds; undecided at look 1 (level 0.0097)"
    assert sequential.rule_text(row) == said
    row = under_rule(around(9.0, seeds), above(0.0), seeds=seeds)
    assert "; decided at look 1" in sequential.rule_text(row)


def test_p_of_a_claim_that_was_looked_at_is_the_repeated_one() -> None:
    seeds = list(range(5))
    values = around(5.0, seeds)
    row = under_rule(values, above(0.0), seeds=seeds)
    plain = Claims(paper="B")
    plain.declare("a", item="F", statement="s", quantity="q", criterion=above(0.0), seeds=seeds)
    plain.measure("a", values)
    alone, looked = p_value(plain.rows()[0]), p_value(row)
    assert alone is not None
    assert looked is not None
    assert 2 * alone < looked < 10 * alone
    # At the level of its look it is the error of all looks.
    edge = row | {"low": 0.0, "high": 2 * row["value"]}
    assert p_value(edge) == pytest.approx(0.025, rel=1e-3)
    assert corrected([row]).standing == 1


def claims_with(**options: Any) -> None:
    Claims(paper="B").declare(
        "a", item="F", statement="s", quantity="q", criterion=above(0.0), **options
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"looks": LOOKS}, "so it needs a list of seeds"),
        ({"looks": LOOKS, "seeds": 5}, "so it needs a list of seeds"),
        ({"looks": [5, 5], "seeds": [1]}, "looks of 'a' must grow, got \\[5, 5\\]"),
        ({"looks": [1, 5], "seeds": [1]}, "looks of 'a' must be an integer of at least 2, got 1"),
        ({"looks": 5, "seeds": [1]}, "looks of 'a' must be a list of numbers of repeats, got 5"),
        ({"looks": [], "seeds": [1]}, "must be a list of numbers"),
        ({"partial": True, "seeds": [1]}, "'a' is partial, so it needs looks"),
        ({"restates": "b"}, "'a' restates 'b', which is not declared"),
        ({"restates": "10_x/"}, "'a' restates '10_x/', which is not declared"),
        ({"restates": "x/b"}, "'a' restates 'x/b', which is not declared"),
    ],
)
def test_wrong_declaration_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        claims_with(**options)


def test_the_next_look_adds_consecutive_seeds_up_to_the_cap() -> None:
    assert sequential.more_seeds([3, 4, 5, 6, 7], LOOKS, 40) == list(range(3, 13))
    assert sequential.more_seeds(list(range(10)), LOOKS, 20) == list(range(20))
    assert sequential.more_seeds(list(range(10)), LOOKS, 19) is None
    assert sequential.more_seeds(list(range(40)), LOOKS, 100) is None


def test_seeds_are_spent_where_a_claim_is_undecided() -> None:
    first, other = list(range(5)), list(range(100, 105))
    open_one = under_rule(around(0.0, first), above(0.0), seeds=first)
    closed = under_rule(around(9.0, other), above(0.0), seeds=other)
    record = {"notebook": "10_x", "claims": [open_one, closed]}
    parameters = {"seeds": first, "other_seeds": other, "n_most": 20}
    names = ["seeds", "other_seeds"]
    assert execution_looks.next_seeds(record, parameters, names) == {"seeds": list(range(10))}
    assert execution_looks.next_seeds(record, parameters | {"n_most": 5}, names) == {}
    assert execution_looks.next_seeds(record, {"seeds": first}, names) == {}
    assert execution_looks.next_seeds(record | {"claims": [closed]}, parameters, names) == {}
    with pytest.raises(ValueError, match="10_x: a claim with looks must have the seeds of a param"):
        execution_looks.next_seeds(record, parameters | {"seeds": [7]}, names)


def test_each_parameter_may_have_a_cap_of_its_own() -> None:
    first, other = list(range(5)), list(range(100, 105))
    rows = [under_rule(around(0.0, seeds), above(0.0), seeds=seeds) for seeds in (first, other)]
    record = {"notebook": "10_x", "claims": rows}
    parameters = {"seeds": first, "other_seeds": other, "plain_seeds": [7]}
    names = list(parameters)
    capped = parameters | {"n_most": {"seeds": 5, "other_seeds": 20}}
    assert execution_looks.next_seeds(record, capped, names) == {
        "other_seeds": list(range(100, 110))
    }
    for wrong, message in (
        ({"plain": 5}, "n_most must name parameters that hold seeds, got 'plain'"),
        ({"seeds": 2.5}, "n_most of seeds must be a positive integer"),
        ({"seeds": 10}, "a claim with looks must have the seeds of a parameter, got \\[100, 101"),
    ):
        with pytest.raises(ValueError, match=message):
            execution_looks.next_seeds(record, parameters | {"n_most": wrong}, names)


def test_an_estimate_is_followed_look_by_look(out: Path) -> None:
    seeds = list(range(10, 30))
    values = around(0.75, seeds)

    def estimate(n: int, level: float) -> tuple[float, float, float]:
        return interval([values[seed] for seed in seeds[:n]], level)

    study = Study("10_x", title="t", parameters={"n_most": {"seeds": 40, "more": 20}}, paper="B")
    for key, options in (
        ("a", {"looks": LOOKS}),
        ("plain", {}),
        ("b", {"looks": LOOKS, "partial": True}),
    ):
        study.claims.declare(
            key, item="F", statement="s", quantity="q", criterion=above(0), seeds=seeds, **options
        )
    assert study.claims.follow("a", estimate, note="n") == "reproduced"
    expected = under_rule(values, above(0), seeds=seeds)
    row = study.claims.claims["a"]
    assert (row.value, row.low, row.look, row.repeats) == tuple(
        expected[name] for name in ("value", "low", "look", "repeats")
    )
    assert row.note == "n"
    for key in ("plain", "b"):
        with pytest.raises(ValueError, match=f"claim '{key}' needs looks, and a value from every"):
            study.claims.follow(key, estimate)
        study.claims.measure(key, values)
    with pytest.raises(ValueError, match="'a' is measured already"):
        study.claims.follow("a", estimate)
    assert read_results(study.close())["sequential"]["most"] == 40


def test_what_is_no_estimate_is_refused() -> None:
    claims = Claims(paper="B")
    claims.declare(
        "a", item="F", statement="s", quantity="q", criterion=above(0), seeds=[1], looks=LOOKS
    )
    with pytest.raises(ValueError, match=r"estimate of 'a' must be callable, got 0\.5"):
        claims.follow("a", 0.5)  # type: ignore[arg-type]
    assert claims.follow("a", lambda n, level: (2.0, 1.0, 3.0)) == "undecided"  # no look yet


def test_totals_count_restatements_apart() -> None:
    def row(key: str, verdict: str, restates: str | None = None) -> dict[str, Any]:
        return {"notebook": "10_x", "key": key, "verdict": verdict, "restates": restates}

    rows = [row("a", "reproduced"), row("b", "undecided"), row("c", "not testable here")]
    assert sequential.total_text(rows) == "1 of 2 testable claims are decided (50 percent)"
    rows.append(row("d", "not reproduced", "b"))
    said = "2 of 3 testable claims are decided (66 percent); 1 of the others have a restatement"
    assert sequential.total_text(rows).startswith(said)
    assert sequential.total_text(rows).endswith("one question: 2 of 2 (100 percent)")
    chain = [row("a", "undecided"), row("b", "undecided", "a"), row("c", "reproduced", "b")]
    said = "1 of 3 testable claims are decided (33 percent); 1 of the others have a restatement "
    said += "that is. A claim and its restatements taken as one question: "
    assert sequential.total_text(chain) == said + "1 of 1 (100 percent)"
    assert sequential.total_text([*chain, row("d", "undecided")]).endswith("1 of 2 (50 percent)")
    gone = [row("b", "undecided", "a"), row("c", "not testable here", "b")]
    assert sequential.total_text(gone) == "0 of 1 testable claims are decided (0 percent)"
    other = row("e", "reproduced", "a") | {"notebook": "11_y"}
    elsewhere = [row("a", "undecided"), other]
    assert "restatement" not in sequential.total_text(elsewhere)
    named = [row("a", "undecided"), other | {"restates": "10_x/a"}]
    assert sequential.total_text(named).endswith("one question: 1 of 1 (100 percent)")
    assert sequential.restated_place(named[1]) == ("10_x", "a")
    assert sequential.restated_place(other) == ("11_y", "a")
    assert sequential.total_text(rows[2:3]) == ""


def test_a_true_claim_at_its_edge_is_decided_wrongly_as_often_as_it_may_be() -> None:
    """A mean on the criterion's edge: either verdict is by chance, in 5 percent of the cases."""
    generator = np.random.default_rng(5)
    seeds = list(range(40))
    criterion, wrong, runs = below(0.0), 0, 600
    for _ in range(runs):
        values = dict(zip(seeds, map(float, generator.standard_normal(40)), strict=True))
        wrong += under_rule(values, criterion, seeds=seeds)["verdict"] != "undecided"
    assert wrong / runs < 0.055 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert wrong > 0
