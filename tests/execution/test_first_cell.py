"""What every notebook begins with: its paper's figure, and a cell that installs rclib."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from site_project import record, small_papers

from rclib.execution import first_cell
from rclib.study.papers import Run, committed_runs, load_papers

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_begins_with_it(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    first = next(cell for cell in cells if cell.cell_type == "code")
    address = first_cell.address_in(first.source)
    wanted = first_cell.source(address)
    assert first.source == wanted, "run `python -m rclib.execution.first_cell`"
    assert first.metadata.get("tags") == [first_cell.TAG]
    assert first.outputs == []
    assert sum("rclib" in c.source and "find_spec" in c.source for c in cells) == 1


def test_all_notebooks_install_from_one_place() -> None:
    firsts = [
        next(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        for path in NOTEBOOKS
    ]
    assert len({first_cell.address_in(text) for text in firsts}) == 1


@cache  # all are read once
def committed() -> dict[str, Run]:
    return dict(committed_runs())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_with_committed_results_shows_its_figure(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)
    run = committed().get(path.stem)
    text = nbformat.read(path, as_version=4).cells[0].source
    if run is None or not run.record["figures"]:
        assert first_cell.BEGIN not in text
        return
    shown = first_cell.cover(path.stem, load_papers(), run)
    assert shown in text, "run `python -m rclib.execution.first_cell`"
    assert text.count("[![") == 1
    (picture,) = set(re.findall(r"\]\((\.\./[^)]+)\)", text))
    assert (path.parent / picture).is_file()


def run(folder: Path, *, known: bool, told: str = "", address: str = "") -> Any:
    """The cell in a fresh process, with or without rclib; installing is only noted, and Colab
    answers `told`, or is not there."""
    before = "" if known else "importlib.util.find_spec = lambda name: None\n"
    answer = f"io.BytesIO({told.encode()!r})" if told else "(_ for _ in ()).throw(OSError())"
    code = (
        "import importlib.util, io, subprocess, urllib.request\n"
        "subprocess.run = lambda command, check: print(command[1:], check)\n"
        f"urllib.request.urlopen = lambda asked, timeout: {answer}\n"
        f"{before}{first_cell.source(address)}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_it_does_nothing_where_rclib_is(tmp_path: Path) -> None:
    done = run(tmp_path, known=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


SESSIONS = '[{"path": "fileId=https%3A//github.com/own/it.x/blob/main/notebooks/11_a.ipynb"}]'


def test_it_installs_the_checkout_around_it(tmp_path: Path) -> None:
    inside = tmp_path / "notebooks"
    inside.mkdir()
    (tmp_path / "pyproject.toml").touch()
    for address in ("", "https://github.com/own/it"):
        done = run(inside, known=False, told=SESSIONS, address=address)
        assert f"'install', '--quiet', '{tmp_path}'] True" in done.stdout


def test_on_colab_it_asks_for_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, known=False, address="https://github.com/own/it")
    assert "'install', '--quiet', 'git+https://github.com/own/it'] True" in done.stdout
    done = run(tmp_path, known=False, told=SESSIONS)
    assert "'install', '--quiet', 'git+https://github.com/own/it.x'] True" in done.stdout
    assert "input(" not in first_cell.source()


@pytest.mark.parametrize("told", ["", "[]", '[{"path": "fileId=1a2b3c"}]'])
def test_where_nothing_is_known_it_says_what_to_do(tmp_path: Path, told: str) -> None:
    done = run(tmp_path, known=False, told=told)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("RuntimeError: run %pip install git+")
    assert done.stdout == ""


def test_figure_stands_below_the_title_once() -> None:
    text = first_cell.cover("11_a", small_papers(), Run("paper", record("11_a", **ABOUT)))
    assert text.splitlines()[1] == (
        "[![Heat maps of the middle layer](../figures/paper/11_a/figure_4_1_heat_maps.png)]"
        "(../figures/paper/11_a/figure_4_1_heat_maps.png)"
    )
    assert r"*Caption \<b>figure\_4\_1\_heat\_maps\</b> at N = 8." in text
    notebook = new_notebook(cells=[new_markdown_cell("# Title\n\nWords.\n\nMore.")])
    for _ in range(2):
        notebook = first_cell.with_cover(notebook, text)
        assert notebook.cells[0].source == f"# Title\n\n{text}\n\nWords.\n\nMore."
    notebook = first_cell.with_cover(notebook, "")
    assert notebook.cells[0].source == "# Title\n\nWords.\n\nMore."
    assert first_cell.cover("11_a", small_papers(), Run("paper", record("11_a", **NONE))) == ""
    code = new_notebook(cells=[new_code_cell("1")])
    assert first_cell.with_cover(code, text).cells == code.cells


ABOUT: dict[str, Any] = {"title": "T", "profile": "paper", "figures": ["figure_4_1_heat_maps"]}
NONE = ABOUT | {"figures": []}


def test_it_is_written_once_and_below_the_title(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    parameters = new_code_cell("profile = 'quick'", metadata={"tags": ["parameters"]})
    path = Path("notebooks/10_a.ipynb")
    nbformat.write(new_notebook(cells=[new_markdown_cell("# T"), parameters]), path)
    assert first_cell.main() == 0
    assert capsys.readouterr().out == "10_a\n"
    written = path.read_bytes()
    cells = nbformat.read(path, as_version=4).cells
    assert [c.cell_type for c in cells] == ["markdown", "code", "code"]
    assert cells[1].source == first_cell.source()
    assert cells[2].source == parameters.source
    assert first_cell.main() == 0
    assert capsys.readouterr().out == "all notebooks have figure and cell\n"
    assert path.read_bytes() == written
    cells[1].source = "# an older version"
    cells[1].id = "kept"
    nbformat.write(new_notebook(cells=[cells[2], cells[0], cells[1]]), path)
    first_cell.main()
    cells = nbformat.read(path, as_version=4).cells
    assert [c.id for c in cells if c.source == first_cell.source()] == ["kept"]
    assert cells[0].source == first_cell.source()  # before all other code
