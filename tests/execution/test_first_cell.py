"""The cell that installs rclib: in every notebook, harmless where rclib is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rclib.execution import first_cell

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_begins_with_it(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    first = next(cell for cell in cells if cell.cell_type == "code")
    assert first.source == first_cell.SOURCE, "run `python -m rclib.execution.first_cell`"
    assert first.metadata.get("tags") == [first_cell.TAG]
    assert first.outputs == []
    assert sum("rclib" in c.source and "find_spec" in c.source for c in cells) == 1


def run(folder: Path, *, known: bool) -> subprocess.CompletedProcess[str]:
    """The cell in a fresh process, with or without rclib; installing is only noted."""
    before = "" if known else "importlib.util.find_spec = lambda name: None\n"
    code = (
        "import importlib.util, subprocess\n"
        "subprocess.run = lambda command, check: print(command[1:], check)\n"
        "import builtins; builtins.input = lambda text: 'https://a.b/c'\n"
        f"{before}{first_cell.SOURCE}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_it_does_nothing_where_rclib_is(tmp_path: Path) -> None:
    done = run(tmp_path, known=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_installs_the_checkout_around_it_or_asks_for_the_address(tmp_path: Path) -> None:
    inside = tmp_path / "notebooks"
    inside.mkdir()
    done = run(inside, known=False)
    address = first_cell.ADDRESS or "https://a.b/c"
    assert f"'install', '--quiet', 'git+{address}'] True" in done.stdout
    (tmp_path / "pyproject.toml").touch()
    done = run(inside, known=False)
    assert f"'install', '--quiet', '{tmp_path}'] True" in done.stdout


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
    assert cells[1].source == first_cell.SOURCE
    assert cells[2].source == parameters.source
    assert first_cell.main() == 0
    assert capsys.readouterr().out == "all notebooks have the cell\n"
    assert path.read_bytes() == written
    cells[1].source = "# an older version"
    cells[1].id = "kept"
    nbformat.write(new_notebook(cells=[cells[2], cells[0], cells[1]]), path)
    first_cell.main()
    cells = nbformat.read(path, as_version=4).cells
    assert [c.id for c in cells if c.source == first_cell.SOURCE] == ["kept"]
    assert cells[0].source == first_cell.SOURCE  # before all other code
