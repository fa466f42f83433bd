"""rclib.execution.stability: shifts of seeds, tallies, a real notebook run with other seeds."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rclib.execution import kernels, runner, stability
from rclib.reports.scoreboard import scoreboard
from rclib.study import seeds

ROOT = Path(__file__).parents[2]


def test_declared_seeds_are_moved_and_nothing_else() -> None:
    parameters = {"seeds": [0, 3], "check_seeds": [5], "start": 7, "widths": [1, 2], "n_seeds": 4}
    moved = stability.shifted(parameters, ["seeds", "check_seeds", "start"], 10)
    assert moved == {"seeds": [10, 13], "check_seeds": [15], "start": 17}
    assert stability.shifted(parameters, [], 10) == {}
    for bad in ([0.5], ["a"], True, None):
        with pytest.raises(ValueError, match="'seeds' must hold whole numbers"):
            stability.shifted({"seeds": bad}, ["seeds"], 1)


@pytest.mark.parametrize("name", runner.notebook_names())
def test_every_notebook_declares_its_seeds(name: str) -> None:
    """A notebook that drew from fixed seeds would show a stability that it does not have."""
    runner.check_seeds(name)
    cell = runner.parameters_of(name)
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert bool(cell.seeds) == ("from rclib.study.claims import" in text)
    for profile in ("quick", "laptop", "paper"):
        if name in runner.profile_names(profile):
            parameters = {**cell.values, **runner.profile_parameters(name, profile)}
            assert stability.shifted(parameters, cell.seeds, 1).keys() == set(cell.seeds)


def claims(*verdicts: str) -> list[dict[str, Any]]:
    return [{"key": f"c{i}", "verdict": v, "value": 1.0} for i, v in enumerate(verdicts)]


def test_tallies_count_by_claim() -> None:
    runs = [claims("reproduced", "undecided"), claims("reproduced", "reproduced")]
    runs.append(claims("reproduced", "undecided"))
    steady, moving = seeds.tallies(runs)
    assert steady == {"key": "c0", "verdict": "reproduced", "verdicts": {"reproduced": 3}}
    assert moving["verdicts"] == {"reproduced": 1, "undecided": 2}
    assert (seeds.share(steady), seeds.share(moving)) == (1.0, pytest.approx(2 / 3))
    record = {"profile": "quick", "repeats": 3, "notebooks": {"10_x": [steady, moving]}}
    lines = seeds.moving_verdicts(record).splitlines()
    assert lines[0].startswith("1 of 2 claims have one verdict in all 3 runs")
    assert lines[1].split()[:2] == ["10_x", "c1"]
    assert "1 reproduced, 2 undecided" in lines[1]


def record_of(tmp_path: Path, *rows: dict[str, int]) -> dict[str, Any]:
    """A record of one notebook with the claims c0, c1, ... in tmp_path, also returned."""
    record = {
        "profile": "quick",
        "repeats": sum(rows[0].values()),
        "notebooks": {
            "10_x": [
                {"key": f"c{i}", "verdict": next(iter(row)), "verdicts": row}
                for i, row in enumerate(rows)
            ]
        },
    }
    for notebook, found in record["notebooks"].items():
        path = tmp_path / "results" / "stability" / "quick" / f"{notebook}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"notebook": notebook, "profile": "quick", "repeats": record["repeats"]}
        path.write_text(json.dumps(about | {"claims": found}), encoding="utf-8")
    return record


def test_scoreboard_says_with_how_many_seeds_a_verdict_came_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_OUT", str(tmp_path))
    made = [{**c, "criterion": "≤ 2", "low": 0.5, "high": 1.5} for c in claims("reproduced")]
    board = {"profile": "quick", "notebook": "10_x", "data": {"description": "none"}}
    before = scoreboard([{**board, "claims": made}])
    assert "seeds" not in before
    record_of(tmp_path, {"reproduced": 3, "undecided": 1})
    assert scoreboard([{**board, "claims": made}]).splitlines()[1].endswith("(seeds: 3/4)")
    other = [("10_x", {"key": "c0", "verdict": v}) for v in ("undecided", "not reproduced")]
    unknown = [("10_x", {"key": "new", "verdict": "reproduced"}), ("11_y", other[0][1])]
    assert seeds.seed_shares("quick", [*other, *unknown]) == ["1/4", "0/4", "", ""]
    record_of(tmp_path, {"reproduced": 4})  # always the same: nothing to say
    assert scoreboard([{**board, "claims": made}]) == before


def test_sentence_of_the_readme(tmp_path: Path) -> None:
    steady, near = {"reproduced": 4}, {"undecided": 3, "reproduced": 1}
    flipping = {"reproduced": 2, "not reproduced": 1, "undecided": 1}
    for n, (rows, expected) in enumerate(
        (
            ([steady], r"1 of 1 claims come to the same verdict with each of 4 sets of seeds \("),
            (
                [steady, near],
                r"1 of 2 claims .* seeds; undecided with some sets: 1 \(",
            ),
            (
                [flipping, near],
                r"0 of 2 .*; undecided with some sets: 1; .*not reproduced with others: 1 \(",
            ),
        )
    ):
        text = seeds.sentence(record_of(tmp_path / str(n), *rows))
        assert re.search(expected, text), text
        assert text.endswith("(`results/stability/quick/`).")


NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    },
    "cells": [],
}
CODE = """from rclib.study.claims import below
from rclib.study.study import Study
study = Study.from_parameters("10_small", globals(), title="T")
assert study.parameters == {"profile": "quick", "seeds": seeds, "count": 2}
study.claims.declare("sum", paper="A", statement="s", quantity="q", criterion=below(1500))
study.claims.measure("sum", float(sum(seeds)))
study.close()
"""


def cell(source: str, name: str, *tags: str) -> dict[str, Any]:
    meta = {"tags": list(tags)}
    kind: dict[str, Any] = {"cell_type": "code", "execution_count": None, "outputs": []}
    return kind | {"id": name, "metadata": meta, "source": source}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_kernel")
def test_a_notebook_is_run_with_other_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    cells = [
        cell('profile = "quick"\nseeds: "Seeds" = [1]\ncount = 2', "a", "parameters"),
        cell(CODE, "b"),
    ]
    text = json.dumps(NOTEBOOK | {"cells": cells})
    (tmp_path / "notebooks" / "10_small.ipynb").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    assert seeds.load_stability("quick") is None
    asked = []

    @contextlib.contextmanager
    def serving() -> Iterator[None]:  # there are forked kernels, and another server takes 5 s
        asked.append(len(asked))
        yield

    monkeypatch.setattr(kernels, "serving", serving)
    assert stability.main(["--repeats", "3", "--jobs", "2"]) == 0
    assert asked == [0]
    assert "0 of 1 claims have one verdict in all 3 runs" in capsys.readouterr().out
    record = seeds.load_stability("quick")
    assert record is not None
    # Seeds 1, 1001, 2001 against 1500.
    (row,) = record["notebooks"]["10_small"]
    assert row["verdicts"] == {"reproduced": 2, "not reproduced": 1}
    assert not (tmp_path / "results" / "quick").exists()  # the profile's own results stay
    assert not (tmp_path / "build").exists()
    guessed = text.replace('seeds: \\"Seeds\\"', "seeds")
    assert guessed != text
    (tmp_path / "notebooks" / "10_small.ipynb").write_text(guessed)
    assert stability.main(["--repeats", "3"]) == 1
    assert "10_small: parameter 'seeds' must be declared as seeds" in capsys.readouterr().err
    (tmp_path / "notebooks" / "10_small.ipynb").write_text(text)
    for arguments in (["--repeats", "0"], ["--jobs", "0"], ["11_other"]):
        assert stability.main(arguments) == 1
    path = tmp_path / "results" / "stability" / "quick" / "10_small.json"
    for content in ("", "[]", "{}", '{"claims": [{}]}', '{"claims": 1}', '{"claims": []}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"stability file .* is not valid"):
            seeds.load_stability("quick")
