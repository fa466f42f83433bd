"""CITATION.cff cites every paper that is replicated, with its authors, year and arXiv id."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from rclib.reports import citation
from rclib.study.papers import load_papers

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_references_are_current() -> None:
    papers = load_papers()
    assert citation.with_references(TEXT, papers) == TEXT, "run `python -m rclib.reports.citation`"
    cited = yaml.safe_load(TEXT)["references"]
    assert [one["title"] for one in cited] == [p.title for p in papers.papers if p.items]
    ids = [one["identifiers"][0]["value"] for one in cited]
    assert ids[:2] == ["arXiv:2408.08681", "arXiv:2406.04657"]
    assert len(set(ids)) == len(ids)
    assert all(one["authors"] and one["year"] > 2000 for one in cited)


def test_any_title_and_name_is_read_back() -> None:
    papers = load_papers()
    title, name = 'On "W": a #1 {guide} \\ α', "O'Donnell"
    paper = dataclasses.replace(
        papers.papers[0], title=title, authors=f"{name}, dos Reis", source="arXiv 1234.56789 (v2)"
    )
    text = citation.with_references(TEXT, dataclasses.replace(papers, papers=(paper,)))
    assert text.partition("references:")[0] == TEXT.partition("references:")[0]
    (one,) = yaml.safe_load(text)["references"]
    assert one["title"] == title
    assert [author["family-names"] for author in one["authors"]] == [name, "dos Reis"]
    assert one["identifiers"] == [{"type": "other", "value": "arXiv:1234.56789"}]


def test_what_cannot_be_cited_is_said() -> None:
    papers = load_papers()
    paper = dataclasses.replace(papers.papers[0], source="a talk")
    with pytest.raises(ValueError, match="source: paper A has no arXiv id in 'a talk'"):
        citation.references(dataclasses.replace(papers, papers=(paper,)))
    with pytest.raises(ValueError, match="no line 'references:'"):
        citation.with_references("cff-version: 1.2.0\n", papers)
