"""The README says what is there: code that runs, files that exist, tables that are current."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rclib.reports import readme
from rclib.study import results

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_code_block_runs_as_a_script(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 3  # the sweep's two run in test_sweep_dask
    done = subprocess.run(
        [sys.executable, "-c", blocks[0]], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "chance" in done.stdout
    assert "alpha" in done.stdout


def test_linked_files_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert len(targets) >= 5
    missing = [t for t in targets if not (ROOT / t).is_file()]
    assert missing == []


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z]+)", TEXT)) | set(
        re.findall(r"^make ([a-z]+)", TEXT, re.M)
    )
    assert {"figures", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_table_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)
    records = readme.committed_records()
    assert {r["notebook"] for r in results.load_results("paper")} <= {
        r["notebook"] for r in records
    }
    assert readme.with_table(TEXT, readme.figure_table(records)) == TEXT


def test_committed_figures_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)
    folder = ROOT / "figures" / "paper"
    named = {f["name"] for r in results.load_results("paper") for f in r["figures"]}
    for name in named:
        for kind in ("png", "pdf", "csv"):
            path = folder / f"{name}.{kind}"
            assert path.is_file(), path
            assert path.stat().st_size < 1_000_000, path
    assert {p.stem for p in folder.iterdir()} == named


def test_figure_table_counts_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_OUT", str(tmp_path))
    claim: dict[str, object] = {"statement": "s", "quantity": "q", "criterion": "≥ 1"}
    claim |= {"value": 2.0, "low": 1.5}
    claim |= {"repeats": 3}
    record = {
        "title": "T |a|",
        "notebook": "11_t",
        "profile": "paper",
        "core_seconds": 90.0,
        "data": {"description": "d"},
        "claims": [
            {**claim, "high": 2.5, "verdict": "reproduced"},
            {**claim, "high": 2.5, "verdict": "undecided"},
            {**claim, "value": None, "high": None, "verdict": "not testable here"},
        ],
    }
    table = readme.figure_table([record, {**record, "claims": []}])
    assert table.splitlines()[2:-2] == [
        r"| T \|a\| | [11](notebooks/11_t.ipynb) | paper | d | 1.5 "
        "| 1 reproduced, 1 undecided, 1 not testable here |"
    ]
    assert table.splitlines()[-2] == ""
    assert table.splitlines()[-1].startswith("2 claims have an interval and 1 of them")

    path = tmp_path / "results" / "stability" / "quick.json"
    path.parent.mkdir(parents=True)
    row = {"key": "k", "verdict": "reproduced", "verdicts": {"reproduced": 2, "undecided": 1}}
    seeds = {"profile": "quick", "repeats": 3, "notebooks": {"11_t": [row]}}
    path.write_text(json.dumps(seeds), encoding="utf-8")
    more = readme.figure_table([record])
    assert more.startswith(table + "\n\nAt the quick profile, 0 of 1 claims come to the same")


@pytest.mark.parametrize(
    "text", ["", readme.BEGIN, readme.END + readme.BEGIN, readme.BEGIN * 2 + readme.END]
)
def test_with_table_needs_both_markers(text: str) -> None:
    with pytest.raises(ValueError, match="must hold"):
        readme.with_table(text, "t")


def test_with_table_replaces_between_the_markers() -> None:
    text = f"a\n{readme.BEGIN}\nold\n{readme.END}\nz\n"
    assert readme.with_table(text, "new") == f"a\n{readme.BEGIN}\nnew\n{readme.END}\nz\n"


def test_main_writes_the_table_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "README.md").write_text(f"a\n{readme.BEGIN}\nold\n{readme.END}\nz\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    assert [readme.main(), readme.main()] == [0, 0]
    assert capsys.readouterr().out.split("\n")[:2] == ["README.md updated", "README.md is current"]
    assert "| figure | notebook |" in (tmp_path / "README.md").read_text()
