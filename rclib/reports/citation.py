"""The references of CITATION.cff: every paper that is replicated here.

`python -m rclib.reports.citation` writes them from `rclib/study/papers`, in the order of series;
a test checks that they are current. What stands above `references:` is written by hand.
"""

from __future__ import annotations

import json
import re
import sys

from rclib.files.command import command
from rclib.reports.sections import rewrite
from rclib.study.papers import Paper, Papers, load_papers

__all__ = ["main", "references", "with_references"]

_HEAD = "references:\n"
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def references(papers: Papers) -> str:
    """YAML: one article a paper. Raises ValueError for a paper whose source has no arXiv id."""
    return "".join(_article(paper) for paper in papers.papers if paper.items)


def _article(paper: Paper) -> str:
    found = _ARXIV.search(paper.source)
    if found is None:
        raise ValueError(f"source: paper {paper.id} has no arXiv id in {paper.source!r}")
    names = [name.strip() for name in paper.authors.split(",")]
    authors = "".join(f"      - {{ family-names: {_quoted(name)} }}\n" for name in names)
    return (
        f"  - type: article\n    title: {_quoted(paper.title)}\n    year: {paper.year}\n"
        f'    authors:\n{authors}    identifiers: [{{ type: other, value: "arXiv:{found[1]}" }}]\n'
    )


def _quoted(text: str) -> str:
    """A string of YAML: JSON's are such strings."""
    return json.dumps(text, ensure_ascii=False)


def with_references(text: str, papers: Papers) -> str:
    """CITATION.cff with these references. Raises ValueError if it has no line `references:`."""
    head, found, _ = text.partition(_HEAD)
    if not found:
        raise ValueError("CITATION.cff has no line 'references:'")
    return head + _HEAD + references(papers)


@command()
def main() -> int:
    """Rewrite the references of CITATION.cff."""
    return rewrite("CITATION.cff", lambda text: with_references(text, load_papers()))


if __name__ == "__main__":
    sys.exit(main())
