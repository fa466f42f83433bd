"""execution.strip: what is stored of a notebook, the same that `make notebooks` leaves."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rclib.execution import strip

ROOT = Path(__file__).parents[2]


def executed(path: Path) -> Path:
    def cell(source: str, *tags: str) -> object:
        outputs = [
            new_output("stream", name="stdout", text=f"{source}\n"),
            new_output("stream", name="stderr", text="warned\n"),
            new_output("execute_result", data={"text/plain": "1"}, execution_count=7),
        ]
        metadata = {"tags": list(tags), "execution": {"iopub.status.busy": "now"}}
        return new_code_cell(source, outputs=outputs, execution_count=7, metadata=metadata)

    cells = [new_markdown_cell("# t"), cell("draw"), cell("verdicts", "keep_output")]
    notebook = new_notebook(cells=cells, metadata={"language_info": {"name": "python", "v": "3"}})
    notebook.metadata.kernelspec = {"name": "mine", "display_name": "Mine", "language": "python"}
    nbformat.write(notebook, path)
    return path


def test_printed_text_of_tagged_cells_stays_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = executed(tmp_path / "10_a.ipynb")
    assert strip.main([str(path)]) == 1
    assert capsys.readouterr().out == f"stripped {path}\n"
    _, drawn, kept = nbformat.read(path, as_version=4).cells
    assert (drawn.outputs, drawn.execution_count, dict(drawn.metadata)) == ([], None, {"tags": []})
    assert [output.text for output in kept.outputs] == ["verdicts\n"]
    assert kept.execution_count == 1
    assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"
    before = path.read_bytes()
    assert strip.main([str(path)]) == 0
    assert path.read_bytes() == before


def test_what_is_no_notebook_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.ipynb"
    for content in ("", "{", "[]", '{"cells": 1}'):
        path.write_text(content)
        assert strip.main([str(path), str(executed(tmp_path / "y.ipynb"))]) == 1
        out, err = capsys.readouterr()
        assert "stripped" in out  # the others are done all the same
        assert err.startswith(f"error: {path}: ")
        assert len(err.splitlines()) == 1
        assert path.read_text() == content


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_committed_notebooks_are_stripped(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    made = strip.stripped(nbformat.reads(text, as_version=4))
    assert nbformat.writes(made).rstrip("\n") + "\n" == text, "run the hook rclib.execution.strip"
