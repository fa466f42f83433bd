"""docs/glossary.md: every abbreviation of a claim is explained, single papers' terms are there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from site_project import small_papers

from rclib.__main__ import COMMANDS
from rclib.cli import analyze as command_analyze
from rclib.cli import correlations as command_correlations
from rclib.cli import spectra as command_spectra
from rclib.inspection.vocabulary import heading
from rclib.reports import terms
from rclib.study.papers import committed_runs, load_papers

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def test_section_is_current() -> None:
    assert terms.with_terms(TEXT, load_papers()) == TEXT, "run `python -m rclib.reports.terms`"


def test_every_abbreviation_of_a_claim_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    used = terms.abbreviations(run.record for run in committed_runs().values())
    assert {"SP", "ESD", "KTA"} <= set(used)
    known = terms.explained(TEXT)
    missing = {word: name for word, name in used.items() if word not in known}
    assert missing == {}, "explain them under `terms` in the paper's file of rclib/study/papers"


def test_the_guides_samples_have_the_words_of_the_commands() -> None:
    """The tables of docs/command_line.md are headed as the commands head them today, and every
    heading is explained."""
    text = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    headers = [re.split("  +", x) for x in text.splitlines() if x.startswith("block  ")]
    shown = (command_analyze.SHOWN, command_correlations.SHOWN, command_spectra.SHOWN)
    sometimes = {"note"}  # a column without a value is not printed
    for header, words in zip(headers, shown, strict=True):
        assert header == [heading(word) for word in words if word not in sometimes]
        for word in set(header) - {"shape", "pairs"}:
            assert set(word.split()) <= terms.explained(TEXT), word
    called = set(re.findall(r"^\| `python -m rclib (\w+)", text, re.MULTILINE))
    assert called == set(COMMANDS)


def test_abbreviations() -> None:
    def found(text: str) -> set[str]:
        claims = [{"statement": text, "quantity": ""}]
        return set(terms.abbreviations([{"notebook": "n", "claims": claims}]))

    assert found("under muP the ESD of W2 and N") == {"ESD"}
    assert found("SGD/Adam with KL, iMAML") == {"KL", "iMAML"}
    assert found("a path x/ABC.py, figure_ABC") == set()


def test_terms_of_a_paper_come_with_its_name() -> None:
    papers = small_papers()
    assert terms.terms_table(papers) == "None yet."
    first = dataclasses.replace(papers.papers[0], terms={"XYZ": "a | b"})
    made = terms.terms_table(dataclasses.replace(papers, papers=(first, papers.papers[1])))
    assert made.splitlines()[2:] == [r"| XYZ | a \| b | Paper A |"]
    assert "XYZ" in terms.explained(made)


def test_main_writes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("notebooks", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").touch()
    page = tmp_path / "docs" / "glossary.md"
    page.write_text("a\n<!-- terms: begin -->\n<!-- terms: end -->\n")
    monkeypatch.chdir(tmp_path)
    assert [terms.main(), terms.main()] == [0, 0]
    said = capsys.readouterr().out
    assert said == "docs/glossary.md updated\ndocs/glossary.md is current\n"
    page.write_text("nothing")
    assert terms.main() == 2
    assert "must hold" in capsys.readouterr().err
