"""What a real kernel knows: cells that run again, figures of one name, copies of notebooks."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from rclib.study import session

SETUP = """\
import matplotlib.pyplot as plt
import pandas as pd
from rclib.study.study import Study
study = Study("40_slug", title="T", parameters={})
"""
DRAW = """\
figure, panel = plt.subplots(figsize=(1, 1))
print(study.save_figure(figure, "a", caption=caption, data=pd.DataFrame()).split(".")[0])
"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_OUT", str(tmp_path))
    # Another test's drawing backend would be that of the kernels here.
    for variable in (session.NOTEBOOK_VARIABLE, "JPY_SESSION_NAME", "MPLBACKEND"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.slow
def test_a_cell_that_runs_again_replaces_its_figure_and_another_does_not() -> None:
    loop = f"for caption in ('One.', 'Two.'):\n    {DRAW.replace(chr(10), chr(10) + '    ')}"
    cells = [SETUP, "caption = 'First.'", DRAW, "caption = 'Second.'", DRAW, f"{DRAW}# other"]
    cells += ["print([f['caption'][:6] for f in study.figures])", loop.replace('"a"', '"b"')]
    cells += [SETUP.replace("{}", "{'profile': 'paper'}"), DRAW]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    with client.setup_kernel():
        for place, cell in enumerate(notebook.cells):
            if place in (5, 7):
                with pytest.raises(CellExecutionError, match=r"has a figure '[ab]' already"):
                    client.execute_cell(cell, place)
            else:
                client.execute_cell(cell, place)
    # Without what is said on standard error: these figures cannot be drawn again.
    printed = [
        "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
        for cell in notebook.cells
    ]
    assert [printed[i].strip() for i in (2, 4, 6)] == ["First", "Second", "['Second']"]
    # The reader is shown the file, once and at the figure's size on paper: 100 dots an inch.
    for place, profile, dots in ((4, "quick", 100), (9, "paper", 160)):
        (shown,) = [o for o in notebook.cells[place].outputs if "image/png" in o.get("data", {})]
        saved = next(Path(os.environ["RCLIB_OUT"], "figures", profile).rglob("a.png")).read_bytes()
        assert base64.b64decode(shown.data["image/png"]) == saved
        wide = struct.unpack(">I", saved[16:20])[0]
        assert shown.metadata["image/png"]["width"] == round(wide * 100 / dots)


SHOWN = """\
import matplotlib.pyplot as plt
from rclib.study import session
png = bytes(16) + (320).to_bytes(4, "big")
kept, alone = plt.figure(), plt.Figure()
print(session.show_saved(alone, png), len(plt.get_fignums()))
plt.switch_backend("agg")
print(session.show_saved(plt.figure(), png), len(plt.get_fignums()))
"""


@pytest.mark.slow
def test_a_figure_that_would_not_be_shown_is_left_alone() -> None:
    notebook = new_notebook(cells=[new_code_cell(SHOWN)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    printed = "".join(o.text for o in notebook.cells[0].outputs if o.get("name") == "stdout")
    assert printed.split() == ["False", "1", "False", "2"]
    assert session.show_saved(None, b"") is False  # no kernel here


class Shell:
    """What `running_cell` asks of IPython."""

    def __init__(self, source: str, execution: int, cell: str | None, **names: Any) -> None:
        self.user_ns = {"In": ["", source], **names}
        self.execution_count = execution
        self.kernel = self
        self.sent: Any = {"metadata": {} if cell is None else {"cellId": cell}}

    def get_parent(self) -> Any:
        return self.sent


def test_a_front_end_tells_an_edited_cell_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(*arguments: Any) -> session.Run:
        monkeypatch.setattr(session, "_shell", lambda: Shell(*arguments))
        found = session.running_cell()
        assert found is not None
        return found

    first, edited, other = cell("x", 3, "p"), cell("y", 4, "p"), cell("x", 5, "q")
    assert first[0] == edited[0] != other[0]
    by_source, again = cell("x", 3, None), cell("x", 4, None)
    assert by_source[0] == again[0]
    assert by_source != again
    monkeypatch.setattr(session, "_shell", lambda: None)
    assert session.running_cell() is None
    assert session.cells_run() == []


@pytest.mark.parametrize("how", ["RCLIB_NOTEBOOK", "JPY_SESSION_NAME", "__vsc_ipynb_file__"])
def test_the_notebooks_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    path = tmp_path / "40_slug.ipynb"
    path.touch()

    def known(place: str) -> Path | None:
        names = {how: place} if how.startswith("_") else {}
        if not names:
            monkeypatch.setenv(how, place)
        monkeypatch.setattr(session, "_shell", lambda: Shell("", 1, None, **names))
        return session.notebook_file()

    assert known(str(path)) == path
    assert known(str(tmp_path / "41_renamed_since.ipynb")) is None
    (tmp_path / "console").touch()
    assert known(str(tmp_path / "console")) is None
    known(str(path))
    monkeypatch.setattr(session, "_shell", lambda: None)  # a script that a kernel started
    assert session.notebook_file() is None


def execute(path: Path) -> None:
    """As Jupyter's server would: it tells the kernel the file."""
    notebook = new_notebook(cells=[new_code_cell(f"{SETUP}study.close()")])
    path.write_text(json.dumps(notebook))
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()


@pytest.mark.slow
def test_a_copy_with_the_name_of_another_notebook_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("40_slug", "40_slug-Copy1"):
        monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / f"{name}.ipynb"))
        results = tmp_path / "results" / "quick" / "40_slug.json"
        if name == "40_slug":
            execute(tmp_path / f"{name}.ipynb")
            assert results.is_file()
            shutil.rmtree(tmp_path / "results")
        else:
            with pytest.raises(CellExecutionError, match=r"must bear the name of its notebook, "):
                execute(tmp_path / f"{name}.ipynb")
            assert not results.exists()


def test_ipython_is_not_loaded_to_ask_it() -> None:
    code = (
        "import sys; from rclib.study import session; assert session.running_cell() is None; "
        "assert session.notebook_file() is None; sys.exit('IPython' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ, check=True, timeout=60)
