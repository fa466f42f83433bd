"""`python -m rclib redraw`: pictures again, from the data beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from rclib.__main__ import main
from rclib.execution import runner
from rclib.execution.redraw import figures_of
from rclib.plots import drawing, panels, saving, style
from rclib.study.results import load_results
from rclib.study.session import cell_mark
from rclib.study.study import Study

ROOT = Path(__file__).resolve().parents[2]
FRAME = pd.DataFrame({"x": [1, 2, 4], "y": [1 / 3, 0.2, 0.11], "name": "MF"})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    with plt.rc_context():
        study = Study("10_small", title="T", parameters={"profile": "paper"})
        figure = panels.power_laws({"t": FRAME}, x={"t": "N"}, y={"t": "y"}, by="name")
        study.save_figure(figure, "law", caption="c.", data=FRAME)
        study.close()
    plt.close("all")
    return tmp_path


def pictures(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.p*"))}


def test_the_same_picture_comes_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project / "figures" / "paper" / "10_small"
    before = pictures(folder)
    assert list(before) == ["law.pdf", "law.png"]
    assert main(["redraw", "10_small", "--out", str(project / "again")]) == 0
    assert pictures(project / "again") == before
    assert "law.png" in capsys.readouterr().out
    (folder / "law.png").unlink()
    assert main(["redraw", "10"]) == 0  # in its place
    assert pictures(folder) == before


def test_a_changed_label_and_style_are_seen(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project / "figures" / "paper" / "10_small"
    before = pictures(folder)
    own = project / "own.mplstyle"
    own.write_text("axes.labelsize: 12\n")
    assert main(["redraw", "all", "--style", "own.mplstyle", "--out", "styled"]) == 0
    assert pictures(project / "styled")["law.png"] != before["law.png"]
    monkeypatch.setattr(panels, "shown", lambda name: f"new {name}")
    assert main(["redraw", "10", "--out", "labelled"]) == 0
    assert pictures(project / "labelled")["law.png"] != before["law.png"]


def test_one_text_stands_in_place_of_another(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pictures(project / "figures" / "paper" / "10_small")
    assert main(["redraw", "10", "--text", "N=width", "--out", "new"]) == 0
    assert pictures(project / "new")["law.png"] != before["law.png"]
    # The same as if the function had written it.
    kept = drawing.read_drawing(
        (project / "figures" / "paper" / "10_small" / f"law.{drawing.SUFFIX}").read_bytes()
    )
    figure = kept.draw()
    (panel,) = figure.axes
    panel.set_xlabel("width")
    assert saving.rendered(figure, kept.stamp)["png"] == pictures(project / "new")["law.png"]
    capsys.readouterr()
    assert main(["redraw", "10", "--text", "epoch=step", "--out", "other"]) == 1
    said = capsys.readouterr().err
    assert "no picture has the text 'epoch'; there are 'MF', 'N', 't', 'y'" in said
    assert pictures(project / "other") == before
    for wrong in ("epoch", "=step"):
        assert main(["redraw", "10", "--text", wrong]) == 2
        assert "must be OLD=NEW" in capsys.readouterr().err


def test_what_was_not_kept_is_said_with_what_keeps_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = project / "figures" / "paper" / "10_small" / f"law.{drawing.SUFFIX}"
    kept.unlink()
    assert main(["redraw", "10"]) == 2
    said = capsys.readouterr().err
    assert "figure law cannot be drawn again: what it shows was not kept" in said
    assert "`make figures PROFILE=paper ONLY=10_small` keeps it (last time" in said
    assert "0 of 1 figures were drawn" in said
    kept.write_bytes(b"no such thing")
    assert main(["redraw", "10"]) == 2
    assert "not a kept drawing" in capsys.readouterr().err


def test_a_name_that_is_not_there_is_answered_with_those_that_are(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["redraw", "11"]) == 2
    assert "no figures of '11' at the paper profile" in (said := capsys.readouterr().err)
    assert "there are 10_small" in said
    assert main(["redraw", "10", "--profile", "laptop"]) == 2
    assert "there are some at paper (--profile paper)" in capsys.readouterr().err
    assert main(["redraw", "10", "--profile", "big"]) == 2
    assert "quick, laptop, paper, got 'big'" in capsys.readouterr().err
    assert main(["redraw", "10", "--style", "none"]) == 2
    assert "style file none is missing" in capsys.readouterr().err


def test_a_cell_that_changed_since_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "figures" / "paper" / "10_small" / f"law.{drawing.SUFFIX}"
    call = drawing.read_drawing(path.read_bytes())
    with_cell = drawing.Drawing(call.function, call.arguments, call.stamp, cell_mark("draw()"))
    path.write_bytes(with_cell.to_bytes())
    notebook = project / "notebooks" / "10_small.ipynb"
    for source, changed in (("draw()\n", False), ("draw(1)", True)):
        notebook.write_text(json.dumps({"cells": [{"source": [source]}]}))
        assert main(["redraw", "10"]) == 0
        assert ("has changed since" in capsys.readouterr().err) is changed
    notebook.write_text("no notebook")
    assert main(["redraw", "10"]) == 0


def test_without_results_the_folder_says_which_figures(project: Path) -> None:
    (project / "results" / "paper" / "10_small.json").unlink()
    assert figures_of("10_small", "paper") == ["law"]
    shutil.copytree(project / "figures/paper/10_small", project / "figures/paper/11_other")
    assert main(["redraw", "all", "--out", "two"]) == 0
    assert (project / "two" / "11_other" / "law.png").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_kernel")
def test_what_a_notebook_has_drawn_comes_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All figures of a notebook at its quick profile: as drafts to the byte, and for print."""
    name = "86_where_updates_write"  # two figures, few seconds
    monkeypatch.setenv("RCLIB_OUT", str(tmp_path))
    monkeypatch.chdir(ROOT)
    assert runner.main(["run", name, "--profile", "quick"]) == 0
    folder = tmp_path / "figures" / "quick" / name
    drawn = pictures(folder)
    assert drawn
    again = {}
    with plt.rc_context():
        style.use_style()
        for figure in figures_of(name, "quick"):
            call = drawing.read_drawing((folder / f"{figure}.{drawing.SUFFIX}").read_bytes())
            again[f"{figure}.png"] = saving.rendered(call.draw(), call.stamp, draft=True)["png"]
    plt.close("all")
    assert again == drawn
    assert main(["redraw", name, "--profile", "quick"]) == 0
    assert set(pictures(folder)) == {
        Path(p).with_suffix(k).name for p in drawn for k in (".png", ".pdf")
    }


def _committed() -> list[tuple[str, str]]:
    folder = ROOT / "figures"
    found = [(p.name, n.name) for p in sorted(folder.iterdir()) for n in sorted(p.iterdir())]
    return [pair for pair in found if pair[0] in ("paper", "laptop")]


@pytest.mark.parametrize(("profile", "notebook"), _committed())
def test_every_committed_figure_can_be_drawn_again(
    profile: str, notebook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layout and rendering are left out: they take the time, and are the same for all."""
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)
    with plt.rc_context():
        style.use_style()
        for name in figures_of(notebook, profile):
            path = ROOT / "figures" / profile / notebook / f"{name}.{drawing.SUFFIX}"
            call = drawing.read_drawing(path.read_bytes())
            figure = call.draw()
            assert call.stamp.endswith(f"; {profile} profile")
            assert drawing.drawing_of(figure).arguments == call.arguments
            plt.close(figure)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[1-9]*.ipynb")))
def test_every_notebook_says_how(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert f"`python -m rclib redraw {path.stem}" in "".join("".join(c["source"]) for c in cells)


def test_results_name_what_is_drawn(project: Path) -> None:
    (record,) = load_results("paper")
    assert figures_of("10_small", "paper") == [f["name"] for f in record["figures"]]
