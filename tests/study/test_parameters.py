"""rclib.study.parameters and Study.from_parameters: what a parameters cell says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rclib.study import session
from rclib.study.parameters import (
    Parameters,
    first_cell,
    parse_parameters,
    read_parameters,
    undeclared_seeds,
)
from rclib.study.study import Study

CELL = """\
profile = "quick"
seeds: "Seeds" = [0, 1, 2]  # a comment
start: "Seeds" = 7
n_draws = 4
lr: float = 0.1
"""
VALUES = {"profile": "quick", "seeds": [0, 1, 2], "start": 7, "n_draws": 4, "lr": 0.1}


def notebook(folder: Path, *sources: str | list[str], name: str = "40_slug") -> Path:
    """A notebook whose second cell is its parameters cell."""
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": "# T"}]
    for place, source in enumerate(sources):
        meta = {"tags": ["parameters"]} if place == 1 else {}
        cells.append({"cell_type": "code", "metadata": meta, "source": source})
    path = folder / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}), encoding="utf-8")
    return path


def test_names_values_and_seeds_in_order(tmp_path: Path) -> None:
    for source in (CELL, CELL.splitlines(keepends=True)):
        found = read_parameters(notebook(tmp_path, "import os", source, "x = 1"))
        assert dict(found.values) == VALUES
        assert list(found.values) == list(VALUES)
        assert found.seeds == ("seeds", "start")
    exec(CELL, scope := {})  # the name of the annotation need not exist
    assert scope["seeds"] == [0, 1, 2]


@pytest.mark.parametrize("value", ["[0.5]", "'0'", "[True]", "None", "[[1]]"])
def test_seeds_are_whole_numbers(value: str) -> None:
    with pytest.raises(ValueError, match="parameter 'seeds' must hold whole numbers, got"):
        parse_parameters(f'seeds: "Seeds" = {value}')


def test_names_of_seeds_without_a_declaration_are_found() -> None:
    cell = 'seed = 1\nnull_seeds = 3\na_seed: "Seeds" = 1\nseeds: list = []\nn_seeds_used = 2'
    assert undeclared_seeds(parse_parameters(cell)) == ["seed", "null_seeds", "seeds"]
    assert undeclared_seeds(parse_parameters(CELL)) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"cells": 3}', '{"cells": [{"cell_type": "code"}]}', '{"cells": [1]}']
)
def test_a_file_that_is_no_notebook(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(text)
    with pytest.raises(ValueError, match="not a notebook that can be read: "):
        read_parameters(path)
    with pytest.raises(ValueError, match="not a notebook that can be read: "):
        read_parameters(tmp_path / "none.ipynb")


def test_first_cell_of_literals_with_a_profile() -> None:
    cells = ["", "import os", "x = 1", CELL, 'profile = "paper"\nwidth = 3']
    assert first_cell(cells) == Parameters(VALUES, ("seeds", "start"))
    assert first_cell(cells[:3]) is None


# --- Study.from_parameters ---------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").touch()
    notebook(tmp_path, "import os", CELL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    return tmp_path


def test_a_study_takes_its_parameters_from_the_notebook(project: Path) -> None:
    given = {"lr": 0.5, "profile": "paper", "seeds": [9], "start": 7, "n_draws": 4, "other": 1}
    made = Study.from_parameters("40_slug", given, title="T", paper="arxiv-1803.03635")
    assert list(made.parameters.items()) == [(key, given[key]) for key in VALUES]
    assert (made.profile, made.claims.paper) == ("paper", "arxiv-1803.03635")
    record = json.loads(made.close().read_text(encoding="utf-8"))
    assert (record["paper"], record["parameters"]) == ("arxiv-1803.03635", made.parameters)


def test_what_is_missing_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"\['start', 'n_draws', 'lr'\] have no value"):
        Study.from_parameters("40_slug", {"profile": "quick", "seeds": [0]}, title="T")
    with pytest.raises(ValueError, match=r"no parameters cell was run, .*41_other\.ipynb"):
        Study.from_parameters("41_other", VALUES, title="T")
    monkeypatch.setattr(session, "cells_run", lambda: ["import os", CELL])  # as on Colab
    assert Study.from_parameters("41_other", VALUES, title="T").parameters == VALUES
    notebook(project, "", "x = open('f')", name="42_odd")
    with pytest.raises(ValueError, match=r"42_odd\.ipynb: the parameters cell must hold"):
        Study.from_parameters("42_odd", VALUES, title="T")
