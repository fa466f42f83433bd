"""docs/findings.md and the README's first lines: current, and as the results say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from site_project import record

from rclib.reports import findings
from rclib.study.findings import MOST, Finding
from rclib.study.origins import ORIGINS
from rclib.study.papers import Paper, Papers, Run, Series, committed_runs, load_papers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)


def many(count: int) -> Papers:
    made = [
        Finding(
            f"f{i}",
            title=f"Found {i}.",
            text="It is {good_claim}.",
            claims={"11_x": {"good_claim": "reproduced", "bad_claim": "not reproduced"}},
            figure="f",
            contradicts="A" if i == 5 else "",
        )
        for i in range(count)
    ]
    return Papers((), (), tuple(made))


RUNS = {"11_x": Run("paper", record("11_x", title="T", profile="paper", figures=["f"]))}


def test_six_lines_with_numbers_and_links() -> None:
    lines = findings.finding_lines(many(8), RUNS).splitlines()
    assert len(lines) == MOST == 6
    links = "[11_x](notebooks/11_x.ipynb), [figure](figures/paper/11_x/f.png)"
    assert lines[0] == (
        f"- **Found 5.** It is 0.91 [0.885, 0.935]. *Contradicts paper A.* ({links})"
    )
    assert lines[1] == f"- **Found 0.** It is 0.91 [0.885, 0.935]. ({links})"
    assert findings.finding_lines(many(8), {}) == ""


def test_a_paper_without_a_letter_is_named_by_its_source() -> None:
    paper = Paper("arxiv-1", "T", "S", "W", 2024, "arXiv 1 (a place)", ())
    (first, *_) = many(1).findings
    papers = Papers((paper,), (), (dataclasses.replace(first, contradicts="arxiv-1"),))
    assert "*Contradicts arXiv 1.*" in findings.finding_lines(papers, RUNS)
    assert "This contradicts arXiv 1." in findings.findings_page(papers, RUNS)


def test_the_page_has_all_with_their_claims() -> None:
    text = findings.findings_page(many(8), RUNS)
    assert text.count("\n## Found") == 8
    assert text.count("| the bad statement of 11_x |") == 8
    assert "(../notebooks/11_x.ipynb)" in text
    assert "This contradicts paper A." in text


def test_claims_that_were_not_reproduced_are_counted_by_series_and_origin() -> None:
    runs = {
        name: Run("paper", record(name, title="T", profile="paper", figures=[]))
        for name in ("11_x", "12_y", "20_z")
    }
    reasons = {"11_x": {"bad_claim": "Because."}}
    origin = {"11_x": {"bad_claim": "data"}}
    paper = Paper("A", "T", "S", "W", 2024, "arXiv 1", (), reasons=reasons, origin=origin)
    series = tuple(Series(digit, "x", f"S{digit}", "?", ()) for digit in (1, 2, 3))
    lines = findings.origin_lines(Papers((paper,), series), runs)
    header, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"
    ]
    assert header == ["series", "claims", *ORIGINS, "not judged"]
    counted = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["series"] for row in counted] == [
        "[1: S1](series/1.md)", "[2: S2](series/2.md)", "all",
    ]  # fmt: skip
    assert [row["claims"] for row in counted] == ["2", "1", "3"]
    assert [row["data"] for row in counted] == ["1", "", "1"]
    assert [row["not judged"] for row in counted] == ["1", "1", "2"]
    assert findings.origin_lines(Papers((paper,), series), {}) == []


@pytest.mark.usefixtures("here")
def test_every_origin_is_explained_where_verdicts_are_read() -> None:
    text = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    section = text.partition("## Whose a failed claim is\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert lines == [f"| {word} | {meaning} |" for word, meaning in ORIGINS.items()]
    page = findings.findings_page(load_papers(), committed_runs())
    assert "## Whose the claims are that were not reproduced" in page


def test_the_committed_page_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert text == findings.findings_page(load_papers(), committed_runs())


def test_main_writes_once_and_names_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("notebooks", "docs", "results/paper"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    assert [findings.main(), findings.main()] == [0, 0]
    assert capsys.readouterr().out == "docs/findings.md updated\ndocs/findings.md is current\n"
    (tmp_path / "results/paper/11_a.json").write_text("{")
    assert findings.main() == 2
    assert "11_a.json is not valid" in capsys.readouterr().err
