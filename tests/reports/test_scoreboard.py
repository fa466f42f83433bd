"""rclib.reports.scoreboard: from results files to the lines that close `make figures`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from rclib.reports import scoreboard
from rclib.study import results
from rclib.study.claims import VERDICTS, Claims, above
from rclib.study.study import environment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RCLIB_OUT", str(tmp_path))
    path = tmp_path / "results" / "quick"
    path.mkdir(parents=True)
    return path


def record(name: str, *values: float | None) -> dict[str, Any]:
    """A results file with one claim a value; None is a claim that cannot be tested."""
    claims = Claims()
    for i, value in enumerate(values):
        claims.declare(f"{name}_{i}", paper="A", statement="s", quantity="q", criterion=above(0.5))
        if value is None:
            claims.not_testable(f"{name}_{i}", "why")
        else:
            claims.measure(f"{name}_{i}", value, interval=(value - 0.25, value + 0.25))
    return {
        "notebook": name,
        "title": "A title",
        "profile": "quick",
        "parameters": {},
        "data": {"description": f"data of {name}", "checksum": None},
        "claims": claims.rows(),
        "figures": [],
        "tables": {},
        "environment": environment(),
    }


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / f"{content['notebook']}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_lines_and_totals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, record("20_b", 1.0, 0.5, None))
    write(folder, record("10_a", 0.0, 2.0, 3.0))
    write(folder, record("30_c"))
    (folder / "scratch.json").write_text("not a notebook's results")
    assert scoreboard.main([]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == [
        "10_a  (data of 10_a)",
        "20_b  (data of 20_b)",
        "30_c  (data of 30_c)",
        "6 claims: 3 reproduced, 1 not reproduced, 1 undecided, 1 not testable here",
        "4 of 5 testable claims are decided (80 percent)",
    ]
    claims = [line.strip() for line in lines if line.startswith(" ")]
    verdicts = [next(v for v in VERDICTS if line.startswith(v)) for line in claims]
    good, bad, open_, closed = VERDICTS
    assert verdicts == [bad, good, good, good, open_, closed]
    assert "10_a_1" in claims[1]
    assert claims[1].endswith("2 [1.75, 2.25]")
    assert "≥ 0.5" in claims[1]
    assert "[" not in claims[5]


def test_chosen_notebooks_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make figures PROFILE=paper ONLY=...` gave the new verdicts among those of all notebooks."""
    write(folder, record("20_b", 1.0, 0.5, None))
    write(folder, record("10_a", 0.0, 2.0, 3.0))
    assert scoreboard.main(["--only", "10_a", "40_other"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "10_a  (data of 10_a)",
        "3 claims: 2 reproduced, 1 not reproduced",
        "3 of 3 testable claims are decided (100 percent)",
    ]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("only", ["", "10_table_1_parametrizations 31_spikes_are_rc_structure"])
def test_make_shows_what_was_asked_for(only: str) -> None:
    done = subprocess.run(
        ["make", "--eval=show: ; @echo $(SCOREBOARD)", "show", f"ONLY={only}"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True, timeout=120,
    )  # fmt: skip
    words = done.stdout.split()
    assert words[words.index("rclib.reports.scoreboard") + 1 :] == [
        *("--profile", "quick"), *(["--only", *only.split()] if only else []),
    ]  # fmt: skip


def test_no_results_yet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.rmdir()
    assert scoreboard.main(["--profile", "paper"]) == 0
    assert capsys.readouterr().out.strip() == "0 claims: none"


def test_score_counts_reproduced_claims() -> None:
    assert results.score(record("10_a", 0.0, 2.0, 3.0, None)) == (2, 4)
    assert results.score(record("10_a")) == (0, 0)


def spoiled() -> dict[str, tuple[str, str]]:
    """Contents of a results file and what the message must say of them."""
    whole = record("10_a", 1.0)
    text = json.dumps(whole)
    cases = {
        "empty": ("", "Expecting value"),
        "truncated": (text[: len(text) // 2], "Expecting|Unterminated"),
        "list": ("[]", "not an object"),
        "verdict": (text.replace('"reproduced"', '"proved"'), "unknown verdict 'proved'"),
    }
    for key in ("notebook", "data", "claims"):
        cases[key] = (json.dumps({k: v for k, v in whole.items() if k != key}), f"no '{key}'")
    for key in ("key", "value", "low", "criterion", "verdict"):
        claim = {k: v for k, v in whole["claims"][0].items() if k != key}
        cases[f"claim {key}"] = (json.dumps({**whole, "claims": [claim]}), f"no '{key}'")
    claim = {**whole["claims"][0], "low": None}
    cases["null"] = (json.dumps({**whole, "claims": [claim]}), "low must be a number, got None")
    return cases


@pytest.mark.parametrize("case", spoiled())
def test_invalid_results_file_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    write(folder, record("20_b", 1.0))
    content, message = spoiled()[case]
    path = folder / "10_a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"10_a\.json is not valid: .*({message})"):
        results.load_results("quick")
    assert scoreboard.main([]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert str(path) in printed.err
    assert "1 claims: 1 reproduced" in printed.out  # the other file's
    (found,), (line,) = results.readable_results("quick")
    assert (found["notebook"], f"error: {line}\n") == ("20_b", printed.err)


def test_times_are_read_from_their_own_file(folder: Path) -> None:
    write(folder, record("10_a", 1.0))
    write(folder, record("20_b", 1.0))
    (folder / "times").mkdir()
    times = {"core_seconds": 12.5, "seconds": 3.0}
    (folder / "times" / "20_b.json").write_text(json.dumps(times))
    first, second = results.load_results("quick")
    assert (first["core_seconds"], first["seconds"]) == (0.0, 0.0)  # unknown
    assert {key: second[key] for key in times} == times


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"core_seconds": "x", "seconds": 1}', "[" * 9999]
)
def test_invalid_times_are_named(folder: Path, content: str) -> None:
    write(folder, record("10_a", 1.0))
    (folder / "times").mkdir()
    (folder / "times" / "10_a.json").write_text(content)
    with pytest.raises(ValueError, match=r"times file .*10_a\.json is not valid"):
        results.load_results("quick")


def test_every_broken_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("10_a", "11_b"):
        (folder / f"{name}.json").write_text("{}")
    write(folder, record("20_b", 1.0))
    (folder / "times").mkdir()
    (folder / "times" / "20_b.json").write_text("[]")
    assert scoreboard.main([]) == 2
    printed = capsys.readouterr()
    assert printed.out.strip() == "0 claims: none"
    assert [line.split()[:2] for line in printed.err.splitlines()] == [
        *([["error:", "results"]] * 2),
        ["error:", "times"],
    ]
    with pytest.raises(ValueError, match=r"10_a\.json is not valid"):
        results.load_results("quick")


@pytest.mark.slow
def test_the_overview_names_a_broken_file_and_shows_the_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, record("20_b", 1.0))
    (folder / "10_a.json").write_text("[1,")
    source = Path(__file__).parents[2] / "notebooks" / "00_overview.ipynb"
    notebook = nbformat.read(source, as_version=4)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    lines, table = shown["00-04-7be5d8"]
    (line,) = lines["text"].splitlines()[:-1]
    assert line.startswith(f"results file {folder / '10_a.json'} is not valid: ")
    assert "20_b" in table["data"]["text/plain"]


def test_unknown_profile_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert scoreboard.main(["--profile", "big"]) == 2
    assert "quick, laptop, paper, got 'big'" in capsys.readouterr().err


def test_starts_with_the_standard_library_alone(folder: Path) -> None:
    write(folder, record("10_a", 1.0))
    code = (
        "import sys; before = set(sys.modules)\n"
        "from rclib.reports import scoreboard\n"
        "assert scoreboard.main([]) == 0\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "['rclib']"
    assert "1 claims: 1 reproduced" in done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(("only", "early"), [("64_universality_lens", False), ("", True)])
def test_papers_that_do_not_run_have_no_early_scoreboard(only: str, *, early: bool) -> None:
    """`make figures ONLY=...` of another series said "0 claims: none" before its own."""
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/.installed", "_first_scoreboard", f"ONLY={only}"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True, timeout=120,
    )  # fmt: skip
    assert ("scoreboard --profile quick --series 1 2" in done.stdout) == early
