"""Long cells show a bar to a person and none in stored outputs; a kernel runs the cells."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

SWEEP = """\
from rclib.runs import sweep
from rclib.experiments.spikes import teacher_runs

small = {"d": 12, "h": 20, "n": 24, "steps": 1, "optimizer": "adam", "rate": 1.0}
runs = sweep.run(teacher_runs.student_run, [{"seed": seed, **small} for seed in (0, 1)])
print(len(runs))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("variable", "bars"), [("1", 0), ("0", 1)])
def test_bars_are_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, bars: int
) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", variable)
    notebook = new_notebook(cells=[new_code_cell(SWEEP)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert "".join(o.text for o in outputs if o.output_type == "stream") == "2\n"
    shown = [o for o in outputs if o.output_type != "stream"]
    assert len(shown) == bars
    assert nbformat.validate(notebook) is None
