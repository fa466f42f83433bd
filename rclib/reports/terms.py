"""The last section of docs/glossary.md: terms that a single paper brings along.

`python -m rclib.reports.terms` writes it from the entry `terms` of the files of
`rclib/study/papers`; a test checks that it is current, and that no abbreviation of a claim is
missing in the glossary.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from rclib.files.command import command
from rclib.reports.replication import table_row
from rclib.reports.sections import rewrite, with_section
from rclib.study.papers import Papers, Record, load_papers

__all__ = ["abbreviations", "explained", "main", "terms_table", "with_terms"]

# Two capitals in one word (ESD, muP, KTA), without digits: such a word is an abbreviation.
_ABBREVIATION = re.compile(r"(?<![\w./-])[A-Za-z]*[A-Z][a-z]?[A-Z]+[A-Za-z]*(?![\w./-])")
_TERMS = re.compile(r"^\| ([^|]*) \| (?!meaning)", re.MULTILINE)


def terms_table(papers: Papers) -> str:
    """Markdown: one row a term, with its paper; a sentence where there is none."""
    rows = [
        table_row([term, meaning, paper.short])
        for paper in papers.papers
        for term, meaning in paper.terms.items()
    ]
    if not rows:
        return "None yet."
    return "\n".join(["| term | meaning | paper |", "|---|---|---|", *rows])


def with_terms(text: str, papers: Papers) -> str:
    """The glossary with this section."""
    return with_section(text, "terms", terms_table(papers))


def explained(glossary: str) -> set[str]:
    """The words that stand in the glossary's first columns."""
    return {word for cell in _TERMS.findall(glossary) for word in re.findall(r"[\w.%/]+", cell)}


def abbreviations(records: Iterable[Record]) -> dict[str, str]:
    """Abbreviations in the claims of these results -> a notebook that uses it."""
    return {
        word: record["notebook"]
        for record in records
        for claim in record["claims"]
        for text in (claim["statement"], claim["quantity"])
        for word in _ABBREVIATION.findall(text)
    }


@command()
def main() -> int:
    """Rewrite the section of docs/glossary.md."""
    return rewrite("docs/glossary.md", lambda text: with_terms(text, load_papers()))


if __name__ == "__main__":
    sys.exit(main())
