"""The index of the search box: a script that sets `rclibIndex`, since a page that is opened from
disk may load scripts but no data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from rclib.site.content import Gallery

__all__ = ["Entry", "search_entries", "search_index"]

Entry = tuple[str, str, str, str, str]  # kind, title, a second line, address, more words


def search_index(entries: Iterable[Entry]) -> str:
    """The script: everything that can be found, one list an entry."""
    lines = [json.dumps(e, ensure_ascii=True, separators=(",", ":")) for e in entries]
    return "window.rclibIndex = [\n" + ",\n".join(lines) + "\n];\n"


def search_entries(
    gallery: Gallery, notebooks: Mapping[str, tuple[str, str]], texts: Mapping[str, str]
) -> list[Entry]:
    """What the pages hold, notebooks first.

    notebooks : name -> (title, page)
    texts : title -> page of the project's texts
    """
    return list(_entries(gallery, notebooks, texts))


def _entries(
    gallery: Gallery, notebooks: Mapping[str, tuple[str, str]], texts: Mapping[str, str]
) -> Iterator[Entry]:
    for name, (title, page) in notebooks.items():
        yield "notebook", title, name, page, ""
    for series in gallery.series:
        address = f"series/{series.digit}.html"
        yield "series", series.title, f"Series {series.digit}", address, series.question
    for paper in gallery.papers.papers:
        about = f"{paper.authors}, {paper.year}"
        yield "paper", paper.title, about, f"papers/{paper.id}.html", f"{paper.id} {paper.source}"
    for figure in gallery.figures:
        where = f"{figure.label}, {figure.notebook.name}"
        yield "figure", figure.title, where, figure.page, f"{figure.name} {figure.lead.caption}"
    for claim in gallery.claims:
        about = f"{claim.lead.verdict}: {claim.lead.text}, {claim.criterion}; {claim.notebook}"
        words = f"{claim.key} {claim.source} {claim.quantity}"
        yield "claim", claim.statement, about, f"claims.html#{claim.anchor}", words
    for title, page in texts.items():
        yield "text", title, "Guide and texts", page, ""
