"""rclib.study.findings: sentences that live as long as their numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from site_project import record

from rclib.study.findings import Finding, measured, number, read_findings, told
from rclib.study.papers import committed_runs, load_papers

GOOD = {"good_claim": "reproduced"}
ENTRY: dict[str, Any] = {"id": "x", "title": "T {good_claim}.", "text": "A\n  b.", "claims": {}}


def finding(identity: str = "x", **more: Any) -> Finding:
    return Finding(**(ENTRY | {"id": identity, "claims": {"11_a": GOOD}} | more))


RECORDS = {
    name: record(name, title="T", profile="paper", figures=["f"]) for name in ("11_a", "20_b")
}


def test_numbers_come_from_the_results() -> None:
    (one,) = told([finding()], RECORDS)
    assert (one.title, one.text) == ("T 0.91 [0.885, 0.935].", "A b.")
    assert one.notebook == "11_a"
    assert [claim["key"] for _, claim in one.evidence] == ["good_claim"]


def test_without_its_results_or_verdicts_it_is_left_out() -> None:
    kept = finding("kept")
    gone = [
        finding("no_results", claims={"30_c": GOOD}),
        finding("one_of_two", claims={"11_a": GOOD, "30_c": {"other_claim": "undecided"}}),
        finding("no_claim", title="T", claims={"11_a": {"another_claim": "reproduced"}}),
        finding("verdict", title="T", claims={"11_a": {"bad_claim": "reproduced"}}),
    ]
    assert [one.finding for one in told([*gone, kept], RECORDS)] == [kept]


def test_what_contradicts_a_paper_stands_first() -> None:
    two = finding("two", claims={"20_b": {"bad_claim": "not reproduced"}}, title="T")
    against = dataclasses.replace(two, id="three", contradicts="A")
    found = [one.finding.id for one in told([finding("one"), two, against], RECORDS)]
    assert found == ["three", "one", "two"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"title": "{unknown}"}, "shows 'unknown'"),
        ({"claims": {}}, "must stand on claims"),
        ({"claims": {"11_a": GOOD, "20_b": GOOD}}, "different keys"),
        ({"claims": {"11_a": {"good_claim": "good"}}}, "unknown verdict 'good'"),
        ({"other": 1}, "unexpected keyword"),
        ({"claims": 3}, "no attribute"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_findings([ENTRY | {"claims": {"11_a": GOOD}} | more])


def test_two_of_one_id_are_refused() -> None:
    entry = ENTRY | {"claims": {"11_a": GOOD}}
    assert len(read_findings([entry, entry | {"id": "y"}])) == 2
    with pytest.raises(ValueError, match="one id"):
        read_findings([entry, entry])


def test_values_are_told_with_three_digits() -> None:
    assert [number(x) for x in (0.02878, 1.234e-6, 26080.0, -26080.0, 999.6, 1e9)] == [
        "0.0288", "1.23e-06", "26,100", "-26,100", "1,000", "1e+09",
    ]  # fmt: skip
    assert measured({"value": None}) == "not measured"
    assert measured({"value": 2.0, "low": 2.0, "high": 2.0}) == "2"
    assert measured({"value": 2.0, "low": 1.5, "high": 2.5}) == "2 [1.5, 2.5]"


def test_the_projects_findings_name_papers_and_figures_that_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    papers, runs = load_papers(), committed_runs()
    known = {paper.id for paper in papers.papers}
    for one in told(papers.findings, {name: run.record for name, run in runs.items()}):
        assert one.finding.contradicts in {"", *known}
        figures = {figure["name"] for figure in runs[one.notebook].record["figures"]}
        assert one.finding.figure in {"", *figures}, one.finding.id
