"""rclib.study.results: claims of older files, and files that contradict themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rclib.study import results
from rclib.study.claims import Claims, above, below, between
from rclib.study.multiplicity import corrected, p_value

ROOT = Path(__file__).parents[2]
NEW = (
    *("item", "criterion_low", "criterion_high", "unit", "declared_seeds", "control", "blind"),
    "seen_on",
)


def record(*declared: tuple[Any, Any], **options: Any) -> dict[str, Any]:
    """A record with one claim a (criterion, values)."""
    claims = Claims(paper="A")
    for i, (criterion, values) in enumerate(declared):
        key = f"c{i}"
        claims.declare(
            key, statement="s", quantity="q", criterion=criterion, item="Figure 1", **options
        )
        claims.measure(key, values)
    environment = dict.fromkeys(("python", "torch", "numpy", "system", "machine", "cores"), "x")
    return {
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


def read(tmp_path: Path, content: dict[str, Any]) -> dict[str, Any]:
    path = tmp_path / "10_a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return results.read_results(path)


def test_an_older_file_comes_in_the_form_of_today(tmp_path: Path) -> None:
    cases = [
        make(*ends)
        for low, high in product([-1e-7, -2.5, 0.316228], [1e10, 3162.28, 0.5])
        for make, ends in ((between, (low, high)), (above, (low,)), (below, (high,)))
    ]
    made = record(*[(criterion, [0.4, 0.41, 0.42]) for criterion in cases])
    old = json.loads(json.dumps(made))
    del old["paper"]
    for claim in old["claims"]:
        for key in NEW:
            del claim[key]
    found = read(tmp_path, old)
    for claim in made["claims"]:
        claim["item"] = None
    assert found == made | {"paper": None}
    assert corrected(found["claims"]) == corrected(made["claims"])
    assert all(p_value(c) is not None for c in found["claims"] if c["verdict"] != "undecided")


def test_committed_files_are_read_and_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)
    for profile in ("paper", "laptop"):
        before = {p: p.read_bytes() for p in (ROOT / "results" / profile).rglob("*.json")}
        found = results.load_results(profile)
        assert found
        assert all(set(NEW) <= claim.keys() for r in found for claim in r["claims"])
        assert {p: p.read_bytes() for p in before} == before


def change(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda claim: claim.update(entries)


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    return lambda claim: [claim.pop(key) for key in keys] and None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            change(verdict="not reproduced"),
            "'not reproduced' contradicts .* against ≥",
        ),
        (change(verdict="undecided"), "which gives 'reproduced'"),
        (change(low=0.1), "'reproduced' contradicts .* which gives 'undecided'"),
        (change(repeats=2), "of 2 repeats .* which gives 'undecided'"),
        (change(low=2.0), r"its interval \[2, .*\] is not ordered"),
        (change(value=1.5), r"its value 1\.5 lies outside its interval \[0\.7"),
        (change(value=-1e300), "lies outside its interval"),
        (change(repeats=4, declared_seeds=5), "declares 5 seeds and rests on 4"),
        (change(declared_seeds=[0, 1, 2, 3]), "declares 4 seeds and rests on 3"),
        (
            change(declared_seeds=[0, 1], looks=[2, 5], look=1, level=0.02),
            "declares 2 seeds and rests on 3",
        ),
        (change(criterion="≥ 2"), "criterion '≥ 2' contradicts its numbers, ≥ 0.5"),
        (change(criterion_low=None), "criterion needs a finite bound"),
        (change(criterion_low="0.5"), "criterion_low must be a number .*, got '0.5'"),
        (change(criterion_high=0.2), "criterion needs low <= high"),
        (change(unit="run"), "unknown unit 'run'"),
        (change(declared_seeds=[0.5]), "declared_seeds must hold whole numbers"),
        (change(declared_seeds=True), "declared_seeds must be a list"),
        (change(seen_on=3), "seen_on must be a list or null"),
        (change(control=None), "control must be true or false"),
        (without("blind"), "it has no 'blind'"),
        (change(item="a\tb"), r"item holds the character"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_with_the_claim(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = record((above(0.5), [0.9, 1.0, 1.1]), (above(0.5), [0.9, 1.0, 1.1]), seeds=3)
    read(tmp_path, content)
    edit(content["claims"][1])
    with pytest.raises(ValueError, match=rf"10_a\.json is not valid: claim 'c1': .*{message}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"a": 1}, 2], "'t' must be a list of objects"),
        ("x", "'t': must have columns and rows"),
        ({"columns": ["a"]}, "it has no 'rows'"),
        ({"columns": [1], "rows": []}, "'t': the names of columns must be texts"),
        ({"columns": ["a"], "rows": [[1], [1, 2]]}, "'t': every row must be a list of 1 values"),
        ({"columns": ["a"], "rows": [{"a": 1}]}, "'t': every row must be a list of 1 values"),
    ],
)
def test_tables_are_columns_and_rows(tmp_path: Path, table: Any, message: str) -> None:
    content = record((above(0.5), [0.9, 1.0, 1.1]))
    old, new = [{"a": 1, "b": None}], {"columns": ["a", "b"], "rows": [[1, None]]}
    assert read(tmp_path, content | {"tables": {"t": old}})["tables"]["t"] == old
    assert read(tmp_path, content | {"tables": {"t": new}})["tables"]["t"] == new
    with pytest.raises(ValueError, match=rf"10_a\.json is not valid: .*{message}"):
        read(tmp_path, content | {"tables": {"t": table}})


def test_an_older_criterion_has_six_digits_and_decides_nothing_beyond_them(tmp_path: Path) -> None:
    content = record((above(10**2.5), 316.22781))
    for key in NEW:
        del content["claims"][0][key]
    # 316.22781 >= 10^2.5 = 316.22777, but the text says 316.228.
    assert read(tmp_path, content)["claims"][0]["verdict"] == "reproduced"
    content["claims"][0] |= {"value": 310.0, "low": 310.0, "high": 310.0}
    with pytest.raises(ValueError, match="'reproduced' contradicts its interval"):
        read(tmp_path, content)
    content["claims"][0]["criterion"] = "about 3"
    with pytest.raises(ValueError, match=r"criterion must be '≤ b', .*, got 'about 3'"):
        read(tmp_path, content)
