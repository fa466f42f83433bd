"""rclib.study.agreement: rows of results files that no claim can have come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rclib.stats.sequential import LOOKS, levels
from rclib.study import results
from rclib.study.agreement import LEVELS
from rclib.study.claims import Claims, above

SEEDS = list(range(10))


def record(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A file with a claim of every kind."""
    claims = Claims(paper="A")
    about = {"statement": "s", "quantity": "q", "criterion": above(0.5), "item": "Figure 1"}
    values = {seed: 0.9 + 0.01 * seed for seed in SEEDS}
    claims.declare("plain", seeds=SEEDS, **about)  # type: ignore[arg-type]
    claims.measure("plain", values)
    claims.declare("looked", seeds=SEEDS, looks=LOOKS, **about)  # type: ignore[arg-type]
    claims.measure("looked", values)
    claims.declare("open", seeds=SEEDS, looks=LOOKS, **about)  # type: ignore[arg-type]
    claims.measure("open", {seed: 0.5 + (-1) ** seed for seed in SEEDS})
    claims.declare("drawn", seeds=100, unit="draw", **about)  # type: ignore[arg-type]
    claims.measure("drawn", 0.9, interval=(0.8, 1.0), repeats=100)
    claims.declare("exact", unit="exact", **about)  # type: ignore[arg-type]
    claims.measure("exact", 0.9)
    claims.declare("none", **about)  # type: ignore[arg-type]
    claims.not_testable("none", "why")
    environment = dict.fromkeys(("python", "torch", "numpy", "system", "machine", "cores"), "x")
    content: dict[str, Any] = {
        "notebook": "10_a",
        "title": "T",
        "paper": "A",
        "profile": "quick",
        "parameters": {},
        "data": {"description": "d", "checksum": None},
        "claims": claims.rows(),
        "figures": [],
        "tables": {},
        "environment": {**environment, "commit": None},
    }
    path = tmp_path / "10_a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path, content


def test_what_claims_come_to_is_read(tmp_path: Path) -> None:
    path, content = record(tmp_path)
    assert results.read_results(path)["claims"] == content["claims"]
    assert [c["look"] for c in content["claims"]] == [None, 1, 2, None, None, None]


def test_the_known_levels_are_those_of_the_rule() -> None:
    assert LEVELS[LOOKS] == pytest.approx(levels(), rel=1e-5)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("plain", {"repeats": 9}, "declares 10 seeds and rests on 9"),
        ("plain", {"repeats": -3}, "repeats must not be negative"),
        ("plain", {"declared_seeds": [0] * 10}, "must be different ones"),
        ("plain", {"declared_seeds": [-1 - s for s in SEEDS]}, "integer from 0"),
        ("plain", {"declared_seeds": [10**30 + s for s in SEEDS]}, "integer from 0"),
        ("plain", {"declared_seeds": []}, "at least one"),
        ("plain", {"declared_seeds": 0}, "positive integer"),
        ("plain", {"unit": None}, "unit is None, so it has no declared_seeds"),
        ("plain", {"unit": "exact"}, "so it has no declared_seeds"),
        ("plain", {"seen_on": [77]}, "needs blind=False"),
        ("plain", {"seen_on": [3], "blind": False}, r"must be fresh.*\[3\]"),
        ("plain", {"seen_on": [77, 77], "blind": False}, "must be different ones"),
        ("plain", {"seen_on": [], "blind": False}, "at least one"),
        ("plain", {"look": 0, "verdict": "undecided"}, "a look or a level, and no looks"),
        ("plain", {"level": 0.01}, "a look or a level, and no looks"),
        ("plain", {"restates": "nothing"}, "restates 'nothing', which is no claim before"),
        ("plain", {"restates": "1_x/a"}, "restates '1_x/a', which is no claim before"),
        ("plain", {"restates": "plain"}, "restates 'plain', which is no claim before"),
        ("plain", {"restates": "looked"}, "restates 'looked', which is no claim before"),
        ("plain", {"statement": " "}, "statement is empty"),
        ("plain", {"statement": "a\u200bb"}, "statement holds the character"),
        ("plain", {"statement": "a\u061cb"}, "statement holds the character"),
        ("looked", {"repeats": 6}, "rests on 6, at look 1"),
        ("looked", {"look": 3}, r"stopped at look 3 of \[5, 10, 20, 40\]"),
        ("looked", {"look": None}, "measured at no look"),
        ("looked", {"level": None}, "measured at no look"),
        ("looked", {"level": 0.05}, "level 0.05 is not that of look 1"),
        ("looked", {"level": 0.0105151}, "is not that of look 1"),
        ("looked", {"looks": [40, 20, 10, 5]}, "must grow"),
        ("looked", {"looks": []}, "look 1 is none of"),
        ("looked", {"looks": [5, 9], "level": 0.2}, "level 0.2 is not that of look 1"),
        ("looked", {"declared_seeds": 10}, "needs a list of seeds"),
        ("open", {"look": 1, "repeats": 5, "level": 0.00972836}, "stopped at look 1 .* undecided"),
        ("open", {"look": 0, "repeats": 10}, "stopped at look 0 .* undecided"),
        ("drawn", {"repeats": 99}, "declares 100 seeds and rests on 99"),
        ("exact", {"repeats": 0}, "measured 0 times"),
        ("none", {"repeats": 5}, "nothing was measured, 5 times"),
    ],
)
def test_a_row_that_no_claim_comes_to_is_refused(
    tmp_path: Path, key: str, change: dict[str, Any], message: str
) -> None:
    path, content = record(tmp_path)
    next(c for c in content["claims"] if c["key"] == key).update(change)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        results.read_results(path)
    assert f"{path} is not valid: claim {key!r}: " in str(caught.value)


def test_a_file_of_another_profile_and_a_figure_twice_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_OUT", str(tmp_path))
    folder = tmp_path / "results" / "paper"
    folder.mkdir(parents=True)
    path, content = record(folder)
    with pytest.raises(ValueError, match=r"10_a\.json is not valid: its profile is 'quick'"):
        results.load_results("paper")
    content["figures"] = [{"name": "f", "caption": "c"}] * 2
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="figures: name 'f' is there twice"):
        results.read_results(path)


def test_fewer_draws_than_declared_are_no_measurement() -> None:
    claims = Claims(paper="A")
    claims.declare(
        "a", statement="s", quantity="q", criterion=above(0), item="F", seeds=5, unit="draw"
    )
    with pytest.raises(ValueError, match="declares 5 seeds and its interval rests on 4"):
        claims.measure("a", [1.0, 1.1, 1.2, 1.3])
