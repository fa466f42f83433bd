"""rclib.study.study: what a study writes, and that it writes the same bytes again or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from rclib.data.images import load
from rclib.plots import style
from rclib.study.claims import above, below
from rclib.study.results import load_results
from rclib.study.study import Study

FRAME = pd.DataFrame({"x": [1, 2, 3], "y": [0.1, 1 / 3, 1e-12], "name": ["α", "β", "γ"]})


@pytest.fixture(autouse=True)
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RCLIB_OUT", str(tmp_path / "out"))
    threads = torch.get_num_threads()
    with mpl.rc_context():
        yield tmp_path / "out"
    plt.close("all")
    torch.set_num_threads(threads)


def files(out: Path) -> list[str]:
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def study(**options: Any) -> Study:
    settings = {"name": "10_small", "title": "A title", "parameters": {"profile": "quick"}}
    return Study(**{**settings, **options})


def drawn() -> Figure:
    figure, panel = plt.subplots(figsize=(2.0, 1.5))
    panel.plot(FRAME.x, FRAME.y, label="$W_1$ and μ")
    panel.legend()
    return figure


# --- results -------------------------------------------------------------------------------


def test_results_file_says_what_was_done(out: Path) -> None:
    data = load("digits").subset(100, 50)
    parameters = {"profile": "paper", "widths": [4, 8], "lr": 0.1, "name": None, "flag": True}
    made = study(parameters=parameters, data=data)
    for key in ("slope", "gpu"):
        made.claims.declare(
            key, paper="A", statement=f"about {key}", quantity="q", criterion=above(0.5)
        )
    made.claims.measure("slope", np.array([0.9, 1.0, 1.1], "f4"))
    made.claims.not_testable("gpu", "needs one")
    made.save_figure(drawn(), "figure_a", caption="One line.", data=FRAME)
    assert made.table("sizes", FRAME) is FRAME
    path = made.close()
    assert path == out / "results" / "paper" / "10_small.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert (record["notebook"], record["title"]) == ("10_small", "A title")
    assert (record["profile"], record["parameters"]) == ("paper", parameters)
    assert record["data"] == {"description": data.description, "checksum": data.checksum}
    assert record["claims"] == made.claims.rows()
    assert [f["name"] for f in record["figures"]] == ["figure_a"]
    assert record["environment"]["torch"] == torch.__version__
    assert record["environment"]["threads_per_run"] == 1
    times = json.loads((path.parent / "times" / path.name).read_text(encoding="utf-8"))
    assert times.keys() == {"core_seconds", "seconds"}
    assert min(times.values()) >= 0
    (found,) = load_results("paper")  # what the scoreboard reads
    assert found == record | times


def test_the_runs_asked_for_are_noted_where_the_runner_says(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rclib.runs.sweep._spent", {("train", "ab"): 2.5})
    study().close()
    assert not (out / "asked").exists()
    monkeypatch.setenv("RCLIB_ASKED", str(out / "asked"))
    study().close()
    assert json.loads((out / "asked").read_text()) == {"train/ab.safetensors": 2.5}


def test_the_same_numbers_give_the_same_bytes(out: Path) -> None:
    texts = []
    for _ in range(2):
        made = study()
        made.claims.declare("one", paper="A", statement="s", quantity="q", criterion=below(1))
        made.claims.measure("one", [0.1, 0.2, 0.3])
        time.sleep(0.2)  # would show in a time rounded to tenths of a second
        texts.append(made.close().read_bytes())
    assert texts[0] == texts[1]


def test_numbers_of_tables_keep_their_significant_digits(out: Path) -> None:
    made = study()
    frame = pd.DataFrame(
        {
            "small": [1.23456789e-15, -2e-300],
            "large": [1.5e20, 0.1 + 0.2],
            "missing": [np.nan, np.inf],
            "whole": np.array([3, -4]),
            "flag": [True, False],
            "text": ["μP", None],
        }
    )
    made.table("t", frame)
    made.table("single", pd.DataFrame({0: np.array([0.1], "f4")}))
    record = json.loads(made.close().read_text(encoding="utf-8"))
    table = record["tables"]["t"]
    assert table["columns"] == list(frame.columns)
    first, second = (dict(zip(table["columns"], row, strict=True)) for row in table["rows"])
    assert first["small"] == 1.23456789e-15
    assert second["small"] == -2e-300
    assert (first["large"], second["large"]) == (1.5e20, pytest.approx(0.3, rel=1e-9))
    assert first["missing"] is second["missing"] is None
    assert (first["whole"], second["whole"]) == (3, -4)
    assert isinstance(first["whole"], int)
    assert (first["flag"], second["flag"]) == (True, False)
    assert (first["text"], second["text"]) == ("μP", None)
    assert record["tables"]["single"]["columns"] == ["0"]
    assert record["tables"]["single"]["rows"][0][0] == pytest.approx(0.1, rel=1e-7)


def test_close_needs_every_claim_and_writes_nothing_before(out: Path) -> None:
    made = study()
    made.claims.declare("open", paper="A", statement="s", quantity="q", criterion=below(1))
    with pytest.raises(ValueError, match=r"not measured: \['open'\]"):
        made.close()
    assert files(out) == []
    made.claims.measure("open", 0.5)
    made.close()
    made.close()  # a cell may run again
    assert files(out) == ["results/quick/10_small.json", "results/quick/times/10_small.json"]


def test_a_study_without_data_says_so() -> None:
    made = study()
    record = json.loads(made.close().read_text(encoding="utf-8"))
    assert record["data"] == {"description": "no data set", "checksum": None}
    assert "Data: no data set;" in made.save_figure(drawn(), "f", caption="c.", data=FRAME)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"profile": "big"}, "quick, laptop, paper, got 'big'"),
        ({"lr": float("nan")}, "parameters must be plain values"),
        ({"lr": np.float32(1)}, "parameters must be plain values"),
        ({"path": Path("x")}, "parameters must be plain values"),
    ],
)
def test_wrong_parameters_are_named_before_anything_is_computed(
    out: Path, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        study(parameters=parameters)
    assert files(out) == []


def test_a_study_computes_with_one_thread() -> None:
    torch.set_num_threads(2)
    study()
    assert torch.get_num_threads() == 1


# --- figures -------------------------------------------------------------------------------


def test_figure_is_saved_as_picture_and_as_data(out: Path) -> None:
    data = load("digits").subset(100, 50)
    made = study(data=data, parameters={"profile": "paper"})
    caption = made.save_figure(drawn(), "figure_a", caption="One line.", data=FRAME)
    assert caption == f"One line. Data: {data.description}; profile: paper."
    assert made.figures == [{"name": "figure_a", "caption": caption}]
    names = [f"figures/paper/10_small/figure_a.{kind}" for kind in ("csv", "pdf", "png")]
    assert files(out) == names
    table = pd.read_csv(out / names[0])
    pd.testing.assert_frame_equal(table, FRAME, rtol=1e-5, check_dtype=False)
    assert (out / names[1]).read_bytes().startswith(b"%PDF-")
    with Image.open(out / names[2]) as picture:
        assert len(picture.convert("L").getcolors(10_000) or []) > 2  # not an empty sheet


def test_a_figure_of_the_quick_profile_is_a_draft(out: Path) -> None:
    """With a screen's dots and no file for print, also none that an older version left there."""
    folder = out / "figures" / "quick" / "10_small"
    folder.mkdir(parents=True)
    (folder / "a.pdf").write_bytes(b"%PDF- of another day")
    made = study()  # before the first figure: both have its style
    figure = drawn()
    made.save_figure(figure, "a", caption="c.", data=FRAME)
    assert files(out) == [f"figures/quick/10_small/a.{kind}" for kind in ("csv", "png")]
    study(parameters={"profile": "paper"}).save_figure(drawn(), "a", caption="c.", data=FRAME)
    with Image.open(folder / "a.png") as draft:
        assert draft.info["dpi"] == pytest.approx((figure.dpi, figure.dpi), rel=1e-3)
        with Image.open(out / "figures" / "paper" / "10_small" / "a.png") as printed:
            dots = plt.rcParams["savefig.dpi"] / figure.dpi
            assert printed.width == pytest.approx(draft.width * dots, abs=3)
            assert dots > 1.3


def test_a_second_figure_of_one_name_is_refused(out: Path) -> None:
    made = study()
    made.save_figure(drawn(), "a", caption="First.", data=FRAME)
    made.save_figure(drawn(), "b", caption="Other.", data=FRAME)
    before = {name: (out / name).read_bytes() for name in files(out)}
    with pytest.raises(ValueError, match=r"study '10_small' has a figure 'a' already"):
        made.save_figure(drawn(), "a", caption="Second.", data=FRAME.head(1))
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert [f["caption"].split()[0] for f in made.figures] == ["First.", "Other."]


DRAWN_ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
import test_study as t
t.study(parameters={"profile": "paper"}).save_figure(
    t.drawn(), "c", caption="c.", data=t.FRAME
)
"""


@pytest.mark.slow
def test_same_data_same_bytes_also_in_another_process(out: Path, tmp_path: Path) -> None:
    made = study(parameters={"profile": "paper"})
    for name in ("a", "b"):
        made.save_figure(drawn(), name, caption="c.", data=FRAME)
    subprocess.run(
        [sys.executable, "-B", "-c", DRAWN_ELSEWHERE, str(Path(__file__).parent)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "MPLBACKEND": "agg"},
        check=True,
        timeout=120,
    )
    folder = out / "figures" / "paper" / "10_small"
    for kind in ("png", "pdf", "csv"):
        first, second, third = ((folder / f"{name}.{kind}").read_bytes() for name in "abc")
        assert first == second == third, kind


def test_figures_say_their_data_and_no_date(out: Path) -> None:
    made = study(data=load("digits").subset(100, 50), parameters={"profile": "paper"})
    figure = drawn()
    for name in ("b", "a"):  # drawn again, it still says it once
        made.save_figure(figure, name, caption="c.", data=FRAME)
    (small,) = [" ".join(t.get_text().split()) for t in figure.texts]
    assert small == f"Data: {made.data_note}; paper profile"
    with Image.open(out / "figures" / "paper" / "10_small" / "a.png") as stamped:
        assert stamped.info.keys() <= {"dpi"}
        height = stamped.height
    plain = drawn()
    plain.savefig(out / "plain.png")
    with Image.open(out / "plain.png") as picture:
        assert height > picture.height + 5  # it stands below, on no panel
    pdf = (out / "figures" / "paper" / "10_small" / "a.pdf").read_bytes()
    assert b"/Font" in pdf
    assert b"/Subtype /Image" not in pdf  # lines and letters, no pixels
    assert b"Date" not in pdf


def test_nothing_is_left_when_picture_or_data_cannot_be_made(out: Path) -> None:
    made = study()
    broken = drawn()
    broken.axes[0].set_title("$\\nonsense{$")  # mathtext that cannot be drawn
    with pytest.raises(ValueError, match="nonsense"):
        made.save_figure(broken, "a", caption="c.", data=FRAME)
    no_table: Any = "no data"
    with pytest.raises(AttributeError):
        made.save_figure(drawn(), "a", caption="c.", data=no_table)
    assert files(out) == []
    assert made.figures == []


def test_style_is_the_projects() -> None:
    study()
    assert mpl.rcParams["font.size"] == 8  # style.mplstyle
    _, panel = plt.subplots(figsize=(2, 1))
    colours = [panel.plot([0, 1])[0].get_color() for _ in range(3)]
    assert colours == style.colours()[:3]
