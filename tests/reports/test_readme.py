"""The README says what is there: code that runs, files that exist, tables that are current."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import fresh_process
import pytest
import torch

import rclib
from rclib.plots.drawing import SUFFIX
from rclib.reports import readme, sections, series
from rclib.study import results
from rclib.study.papers import Papers, Run, Series, committed_runs, load_papers

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


GUIDE = sorted((ROOT / "docs").glob("*.md"))


def test_readme_is_short() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 120
    assert next(i for i, line in enumerate(lines) if line == "## Your own model") <= 40


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def ran(code: str, folder: Path) -> str:
    done = fresh_process.run(["-c", code], cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif("analyze" not in rclib.FACE, reason="rclib.analyze is not there yet")
@pytest.mark.parametrize("name", ["README.md", "docs/own_model.md"])
def test_a_model_becomes_a_table_and_a_page(name: str, tmp_path: Path) -> None:
    (code,) = [b for b in blocks((ROOT / name).read_text(encoding="utf-8")) if "analyze" in b]
    layers = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 64))
    torch.save(layers.state_dict(), tmp_path / "resnet.pt")
    ran("import matplotlib; matplotlib.use('Agg')\n" + code, tmp_path)
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_steps_on_ones_own_model_run(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "own_model.md").read_text(encoding="utf-8")
    (code,) = [block for block in blocks(text) if "analyze" not in block]
    said = ran(code, tmp_path)
    assert "chance" in said
    assert "alpha" in said


@pytest.mark.parametrize("path", [ROOT / "README.md", *GUIDE], ids=lambda path: path.stem)
def test_linked_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if t and not (path.parent / t).exists()]
    assert missing == []


def test_every_page_of_the_guide_is_listed() -> None:
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.md)\)", text)) == {p.name for p in GUIDE} - {"guide.md"}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    texts = "\n".join([TEXT, *(path.read_text(encoding="utf-8") for path in GUIDE)])
    named = set(re.findall(r"`make ([a-z-]+)", texts))
    named |= set(re.findall(r"^make ([a-z-]+)", texts, re.MULTILINE))
    assert {"figures", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_readme_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)
    runs = committed_runs()
    assert {r["notebook"] for r in results.load_results("paper")} <= set(runs)
    assert readme.current(TEXT, load_papers(), runs) == TEXT


def test_series_pages_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)
    pages = series.pages(load_papers(), committed_runs())
    folder = ROOT / "docs" / "series"
    assert {path.name for path in folder.iterdir()} == set(pages)
    for name, text in pages.items():
        assert (folder / name).read_text(encoding="utf-8") == text, name
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (folder / target).is_file(), target


@pytest.mark.parametrize("profile", ["paper", "laptop"])
def test_committed_figures_are_those_of_the_results(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)
    folder, named = ROOT / "figures" / profile, set()
    for record in results.load_results(profile):
        for figure in record["figures"]:
            for kind in ("png", "pdf", "csv", SUFFIX):
                path = folder / record["notebook"] / f"{figure['name']}.{kind}"
                named.add(path)
                assert path.is_file(), path
    found = {path for path in folder.rglob("*") if path.is_file()}
    assert found == named
    for notebook in {path.parent for path in found}:
        size = sum(path.stat().st_size for path in notebook.iterdir())
        size += (ROOT / "results" / profile / f"{notebook.name}.json").stat().st_size
        assert size < 500_000, f"{notebook.name}: {size}"


def claim_record(notebook: str, *verdicts: str) -> dict[str, Any]:
    claim: dict[str, object] = {"statement": "s", "quantity": "q", "criterion": "≥ 1", "key": "k"}
    claim |= {"criterion_low": 1.0, "criterion_high": None}
    claim |= {"value": 2.0, "low": 1.5, "high": 2.5, "repeats": 3, "paper": "A, F"}
    none = {"value": None, "low": None, "high": None}
    return {
        "title": "T |a|",
        "notebook": notebook,
        "profile": "paper",
        "core_seconds": 90.0,
        "data": {"description": "d"},
        "figures": [{"name": "f"}],
        "claims": [
            claim | {"verdict": v} | (none if v == "not testable here" else {}) for v in verdicts
        ],
    }


SERIES = Papers((), (Series(4, "x", "Pruning", "Why?", ()), Series(5, "y", "Starts", "?", ())))


def test_series_table_counts() -> None:
    runs = {
        "40_a": Run("paper", claim_record("40_a", "reproduced", "undecided")),
        "41_b": Run("paper", claim_record("41_b", "reproduced", "not testable here")),
    }
    table = readme.series_table(SERIES, runs)
    assert table.splitlines()[2:] == [
        "| [4: Pruning](docs/series/4.md) | 2 | 3 "
        "| 2 reproduced, 1 undecided, 1 not testable here |"
    ]


def test_a_series_page_holds_its_notebooks_alone() -> None:
    runs = {
        "40_a": Run("paper", claim_record("40_a", "reproduced", "undecided")),
        "51_b": Run("paper", claim_record("51_b", "reproduced")),
    }
    pages = series.pages(SERIES, runs)
    assert set(pages) == {"4.md", "5.md"}
    assert "Why?" in pages["4.md"]
    assert r"T \|a\|" in pages["4.md"]
    assert "../../figures/paper/40_a/f.png" in pages["4.md"]
    assert "51_b" not in pages["4.md"]
    assert pages["4.md"].count("| A, F | s | ≥ 1 | 2 [1.5, 2.5] |") == 2


BEGIN, END = "<!-- x: begin -->", "<!-- x: end -->"
SECTIONS = "\n".join(f"<!-- {n}: begin -->\n<!-- {n}: end -->" for n in ("findings", "open"))
SECTIONS = f"a\n{SECTIONS}\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nz\n"


@pytest.mark.parametrize("text", ["", BEGIN, END + BEGIN, BEGIN * 2 + END])
def test_a_section_needs_both_markers(text: str) -> None:
    with pytest.raises(ValueError, match="must hold"):
        sections.with_section(text, "x", "t")


def test_a_section_is_replaced_between_the_markers() -> None:
    text = f"a\n{BEGIN}\nold\n{END}\nz\n"
    assert sections.with_section(text, "x", "new") == f"a\n{BEGIN}\nnew\n{END}\nz\n"


def test_links_take_the_remotes_address_and_keep_it_without_one() -> None:
    empty = Papers(())
    assert "`https://mybinder.org/v2/gh/OWNER/NAME/HEAD" in readme.current(SECTIONS, empty, {})
    text = readme.current(SECTIONS, empty, {}, address="https://github.com/ab/c.d")
    assert "[Binder](https://mybinder.org/v2/gh/ab/c.d/HEAD?labpath=notebooks)" in text
    assert "[Colab](https://colab.research.google.com/github/ab/c.d/blob/HEAD/notebooks/1" in text
    assert readme.current(text, empty, {}) == text
    assert readme.current(text, empty, {}, address="https://gitlab.com/x/y") == text
    assert "/gh/x/y/" in readme.current(text, empty, {}, address="https://github.com/x/y")


def test_main_writes_the_sections_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "README.md").write_text(SECTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    assert [readme.main(), readme.main()] == [0, 0]
    assert capsys.readouterr().out.split("\n")[:2] == ["README.md updated", "README.md is current"]
    assert "| series | notebooks |" in (tmp_path / "README.md").read_text()
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "remote", "add", "origin", "git@github.com:own/it.git"], check=True)
    assert readme.main() == 0
    assert "/gh/own/it/" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("no markers")
    assert readme.main() == 2
    assert "must hold" in capsys.readouterr().err
