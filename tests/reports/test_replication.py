"""replication.md and codecheck.yml are current, complete, and say what the results say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from site_project import make_project, record, write_results

from rclib.reports import replication
from rclib.study.papers import Item, Paper, Papers, Run, committed_runs, load_papers
from rclib.study.sequential import restated_place

ROOT = Path(__file__).parents[2]
# Everything that the facts on the two papers name.
EXPECTED = {
    "A": [
        "Definition 3.1", "Definition 3.2", "Example 1.1", "Example 1.2", "Example 3.3",
        "Example 3.5", "Example 6.1", "Examples 6.2, 6.3, 6.4", "Algorithm 1", "Table 1",
        "Figure 4.1", "Figure 4.2", "Figure 4.3", "Figure 4.4", "Figure 4.5",
        "Figure in the appendix (the sixth)",
    ],
    "B": [
        "Setting", "Spectrum (ESD)", "Exponent α (Hill, KS)", "KTA, sim(W, β), overlaps",
        "One configuration over steps", "Learning-rate sweep", "Learning-rate schedule", "Overlaps",
        "Sample size", "Ridge", "Label noise", "Decay",
    ],
}  # fmt: skip

# Claims of a notebook that are no statement of a paper.
ASIDE = ("beyond", "control", "premise")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.chdir(ROOT)


def rows(text: str) -> list[list[str]]:
    """Cells of all table rows; an escaped bar is no end of a cell."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.usefixtures("here")
def test_both_files_are_current() -> None:
    papers, runs = load_papers(), committed_runs()
    assert (ROOT / "replication.md").read_text(encoding="utf-8") == replication.replication(
        papers, runs
    ), "run `python -m rclib.reports.replication`"
    assert (ROOT / "codecheck.yml").read_text(encoding="utf-8") == replication.codecheck(
        papers, runs
    ), "run `python -m rclib.reports.replication`"


def test_every_item_of_the_papers_has_its_row() -> None:
    papers = load_papers()
    for paper, expected in EXPECTED.items():
        named = [item.item for item in papers if item.paper == paper]
        assert sorted(named) == sorted(expected)
    text = (ROOT / "replication.md").read_text(encoding="utf-8")
    for paper in papers.papers:  # two papers may have a Figure 3
        section = text.partition(f"({paper.source})\n")[2].partition("\n## ")[0]
        firsts = [cells[0] for cells in rows(section) if len(cells) == 4]
        assert firsts == ["item", *(item.item for item in paper.items)]
        assert len(set(firsts)) == len(firsts), paper.id


@pytest.mark.usefixtures("here")
def test_every_claim_has_one_line() -> None:
    papers, runs = load_papers(), committed_runs()
    text = (ROOT / "replication.md").read_text(encoding="utf-8")
    lines = [tuple(cells) for cells in rows(text) if len(cells) == 6 and cells[0] != "paper"]
    lines = [cells for cells in lines if cells[-1].startswith("[")]
    claims = [claim for run in runs.values() for claim in run.record["claims"]]
    assert len(lines) == len(claims)
    assert len(set(lines)) == len(lines)  # each tells itself from all others
    assert papers.papers


def test_items_name_code_and_tests_that_exist() -> None:
    for item in load_papers():
        assert bool(item.notebook) != bool(item.tests), f"{item.item}: a notebook or tests"
        assert bool(item.code) == bool(item.tests), item.item
        for path in filter(None, map(str.strip, item.code.split(","))):
            assert (ROOT / path).is_file(), path
        for test in item.tests:
            path, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), test


@pytest.mark.usefixtures("here")
def test_what_was_not_reproduced_has_a_reason_and_every_reason_a_claim() -> None:
    papers, runs = load_papers(), committed_runs()
    for number, run in runs.items():
        for claim, reason in replication.deviations(run, papers):
            assert reason, f"{number} {claim['key']}: write its reason into the paper's yaml"
    for paper in papers.papers:
        for number, by_key in paper.reasons.items():
            claims = {c["key"] for c in runs[number].record["claims"]}
            assert set(by_key) <= claims, number


@pytest.mark.usefixtures("here")
def test_whose_it_is_is_said_of_every_claim_that_was_not_reproduced() -> None:
    papers, runs = load_papers(), committed_runs()
    for name, run in runs.items():
        failed = {c["key"] for c in run.record["claims"] if c["verdict"] == "not reproduced"}
        said = {c["key"] for c in run.record["claims"] if papers.origin(name, c["key"])}
        assert said == failed, f"{name}: write `origin` into the paper's yaml"
    for paper in papers.papers:
        for name, by_key in paper.origin.items():
            assert set(by_key) <= {c["key"] for c in runs[name].record["claims"]}, name


@pytest.mark.usefixtures("here")
def test_a_restatement_in_another_notebook_is_named_beside_what_it_restates() -> None:
    papers, runs = load_papers(), committed_runs()
    rows = [{**c, "notebook": n} for n, run in runs.items() for c in run.record["claims"]]
    elsewhere = [row for row in rows if "/" in (row["restates"] or "")]
    assert elsewhere
    for row in elsewhere:
        notebook, key = restated_place(row)
        (claim,) = (c for c in runs[str(notebook)].record["claims"] if c["key"] == key)
        assert claim["criterion"] == row["criterion"]
        assert not set(claim["declared_seeds"] or []) & set(row["declared_seeds"] or [])
        if claim["verdict"] != "reproduced":
            found = replication.deviations(runs[str(notebook)], papers, runs)
            (reason,) = (text for other, text in found if other["key"] == key)
            assert f"Restated in [{row['notebook']}](" in reason
            assert reason.endswith(f"{row['verdict']}.")


@pytest.mark.usefixtures("here")
def test_every_claim_of_the_results_is_counted_once() -> None:
    papers, runs = load_papers(), committed_runs()
    for number, run in runs.items():
        for claim in run.record["claims"]:
            owners = [i for i in papers if i.notebook == number and i.owns(claim)]
            assert len(owners) <= 1, (number, claim["key"])
            if not owners:  # then it goes beyond the papers, and says so
                assert claim["paper"].startswith(ASIDE), (number, claim["key"], claim["paper"])


@pytest.mark.usefixtures("here")
def test_manifest_holds_every_committed_output() -> None:
    content = yaml.safe_load((ROOT / "codecheck.yml").read_text(encoding="utf-8"))
    assert content["version"] == "https://codecheck.org.uk/spec/config/1.0/"
    assert content["paper"]["authors"][0]["name"]
    files = [entry["file"] for entry in content["manifest"]]
    assert len(set(files)) == len(files)
    assert all(entry["comment"] for entry in content["manifest"])
    assert [file for file in files if not (ROOT / file).is_file()] == []
    for run in committed_runs().values():
        assert f"results/{run.profile}/{run.record['notebook']}.json" in files
        for figure in run.record["figures"]:
            for kind in ("png", "pdf", "csv"):
                place = f"figures/{run.profile}/{run.record['notebook']}"
                assert f"{place}/{figure['name']}.{kind}" in files


def made(name: str, profile: str, **options: Any) -> Run:
    content = record(name, title="T: t", profile=profile, figures=[], **options)
    return Run(profile, content)


def paper_of(letter: str, *items: Item, reasons: dict[str, dict[str, str]] | None = None) -> Paper:
    return Paper(letter, "Title", "Short", "Authors", 2024, "arXiv 1", items, reasons=reasons or {})


def test_rows_say_what_was_run_and_measured() -> None:
    items = (
        Item("A", "Figure 9", "A | shown.", notebook="11_x", open="everything"),
        Item("A", "Figure 10", "Not yet.", notebook="99_y"),
        Item("B", "Law", "Code.", code="rclib/rowcolumn/axes.py", tests=("tests/t.py::test_it",)),
    )
    reasons = {"11_x": {"bad_claim": "Because."}}
    first = dataclasses.replace(
        paper_of("A", *items[:2], reasons=reasons), origin={"11_x": {"bad_claim": "scale"}}
    )
    papers = Papers((first, paper_of("B", *items[2:])))
    text = replication.replication(papers, {"11_x": made("11_x", "paper")})
    assert {len(cells) for cells in rows(text)} == {4, 5, 6, 8}
    claims = [cells for cells in rows(text) if cells[-1] == "[11](notebooks/11_x.ipynb)"]
    assert len(claims) == 4
    assert claims[0] == [
        "A, Figure 9",
        "the good statement of 11_x",
        r"\|slope\| <of> x: ≥ 0.5",
        "0.91 [0.885, 0.935]",
        "reproduced",
        "[11](notebooks/11_x.ipynb)",
    ]
    assert claims[3][3:5] == ["not measured", "not testable here"]
    items = {cells[0]: cells for cells in rows(text) if len(cells) == 4}
    assert items["Figure 9"][1:] == [
        r"A \| shown.", "[11_x](notebooks/11_x.ipynb)", "everything",
    ]  # fmt: skip
    assert items["Figure 10"][2] == "notebook 99_y: no results beyond the quick profile yet"
    assert items["Law"][2] == "`rclib/rowcolumn/axes.py`: implemented, tested<br>`test_it`"
    (how,) = [cells for cells in rows(text) if len(cells) == 8 and cells[0] != "notebook"]
    assert how[1:6] == ["paper", "data & co of paper", "width 8", "2", "1.5"]
    assert "python 3.11" in how[7]
    scores = {cells[0]: cells[1:] for cells in rows(text) if cells[0].startswith("[Short]")}
    assert scores == {"[Short](#paper-a-title-arxiv-1)": ["4", "1", "1", "1", "1"]}
    deviations = text.partition("## Deviations")[2].partition("\n## ")[0]
    given = {cells[1]: cells[-1] for cells in rows(deviations)}
    assert given["the bad statement of 11_x"] == "Because."
    assert given["the open statement of 11_x"] == "Its interval straddles the criterion."
    assert given["the untested statement of 11_x"] == "needs a machine that is not here"
    assert "the good statement of 11_x" not in given
    whose = {cells[1]: cells[3] for cells in rows(deviations)}
    assert whose["the bad statement of 11_x"] == "scale"
    assert whose["the open statement of 11_x"] == ""


def test_papers_of_one_letter_are_named_by_it_others_by_their_short_name() -> None:
    item = Item("arxiv-1", "Figure 9", "s", notebook="11_x", claims=("good_claim",))
    paper = dataclasses.replace(paper_of("arxiv-1", item), short="Two Words")
    text = replication.replication(Papers((paper,)), {"11_x": made("11_x", "paper")})
    assert "| Two Words, Figure 9 | the good statement of 11_x |" in text
    assert "## Title (arXiv 1)" in text


def test_errors_of_the_system_are_told_in_words() -> None:
    run = made("11_x", "paper")
    run.record["claims"][3]["note"] = "OSError: [Errno 2] No such file or directory: '/x'"
    text = replication.replication(Papers((paper_of("A"),)), {"11_x": run})
    assert "| not testable here |  | the file is not there |" in text
    assert "Errno" not in text


def test_a_finding_stands_under_the_papers_heading() -> None:
    paper = dataclasses.replace(paper_of("A"), finding="What was\n  found.\n")
    text = replication.replication(Papers((paper, paper_of("B"))), {})
    assert "## Paper A: Title (arXiv 1)\n\n**Finding.** What was found.\n\n| item" in text
    assert text.count("**Finding.**") == 1


def test_claims_of_no_item_go_beyond() -> None:
    item = Item("A", "F", "s", notebook="11_x", claims=("good_claim",))
    text = replication.replication(Papers((paper_of("A", item),)), {"11_x": made("11_x", "paper")})
    beyond = text.partition("## Beyond the papers")[2].partition("## Deviations")[0]
    assert "good statement" not in beyond
    assert beyond.count("statement of 11_x") == 3
    assert "No reason is known yet." in text  # for the bad one


def test_the_papers_scale_wins_and_quick_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.setattr("rclib.paths.PROFILES", ("paper", "quick", "third"))
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    for name in ("11_a", "20_b"):
        write_results(root, record(name, title="T", profile="third", figures=["f"]))
    runs = committed_runs()
    assert {name: run.profile for name, run in runs.items()} == {"11_a": "paper", "20_b": "third"}
    assert replication.main() == 0
    assert "replication.md updated" in capsys.readouterr().out
    assert (
        "notebook 12_figure_4_2_correlations: no results beyond"
        in (root / "replication.md").read_text()
    )
    assert "figures/third/20_b/f.png" in (root / "codecheck.yml").read_text()
    assert replication.main() == 0
    assert capsys.readouterr().out == "replication.md is current\ncodecheck.yml is current\n"
    (root / "results" / "paper" / "11_a.json").write_text("{")
    before = (root / "replication.md").read_text()
    assert replication.main() == 2
    assert "11_a.json is not valid" in capsys.readouterr().err
    assert (root / "replication.md").read_text() == before
