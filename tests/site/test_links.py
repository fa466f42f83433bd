"""rclib.site.links: what becomes of a text's links, pictures and headings."""

from __future__ import annotations

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from rclib.site.links import Picture, Resolver, anchors, drawings, relink

PAGES = {"docs/a.md": "docs/a.html", "replication.md": "replication.html"}
PICTURES = {"figures/x.png": Picture("figures/x.png", 30, 20)}
RESOLVER = Resolver(PAGES.get, PICTURES.get)


def linked(html: str) -> str:
    soup = BeautifulSoup(html, "html.parser")
    relink(soup, "docs", "../", RESOLVER)
    return str(soup)


@pytest.mark.parametrize(
    ("html", "made"),
    [
        ('<a href="a.md">x</a>', '<a href="../docs/a.html">x</a>'),
        ('<a href="./a.md#b">x</a>', '<a href="../docs/a.html#b">x</a>'),
        ('<a href="../replication.md">x</a>', '<a href="../replication.html">x</a>'),
        ('<a href="../setup.py">x</a>', "x"),
        ('<a href="../../../etc/passwd">x</a>', "x"),
        ('<a href="#here">x</a>', '<a href="#here">x</a>'),
        ('<a href="https://a.b/c.md">x</a>', '<a href="https://a.b/c.md">x</a>'),
        ('<img src="../none.png"/>', '<img src="../none.png"/>'),
        (
            '<img src="../figures/x.png"/>',
            '<img height="20" loading="lazy" src="../figures/x.png" width="30"/>',
        ),
    ],
)
def test_links_and_pictures(html: str, made: str) -> None:
    found = BeautifulSoup(linked(html), "html.parser")
    assert found == BeautifulSoup(made, "html.parser")


def test_headings_have_the_anchors_of_github() -> None:
    soup = BeautifulSoup(
        "<h1>Paper A: It's (arXiv 24.1)</h1><h2>Limits</h2><h2>Limits</h2><h2>Filter</h2>",
        "html.parser",
    )
    anchors(soup)
    names = [heading["id"] for heading in soup.find_all(["h1", "h2"])]
    assert names == ["paper-a-its-arxiv-241", "limits", "limits-1", "filter-1"]


def test_drawings_are_put_into_the_page(tmp_path: Path) -> None:
    (tmp_path / "d.svg").write_text("<svg><text>t</text></svg>")
    soup = BeautifulSoup('<img src="d.svg" alt="Layers"/><img src="e.svg"/>', "html.parser")
    drawings(soup, tmp_path)
    assert soup.select_one("div.drawing")["aria-label"] == "Layers"
    assert soup.select_one("div.drawing svg text").get_text() == "t"
    assert len(soup.select("img")) == 1
