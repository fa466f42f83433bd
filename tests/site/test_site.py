"""rclib.site: the gallery of a small project, read as files. A browser is not needed here."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import re
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from site_project import (
    Links,
    dangling,
    make_project,
    picture,
    record,
    small_papers,
    write_results,
)

from rclib import paths
from rclib.plots.drawing import SUFFIX
from rclib.site import build as builder
from rclib.site import content, images, loading, notebook_page, pages
from rclib.site.build import build
from rclib.site.mathml import mathml
from rclib.study.papers import Papers
from rclib.study.results import duration

ROOT = Path(__file__).parents[2]
VARIABLES = ("RCLIB_OUT", "RCLIB_CACHE", "RCLIB_DATA")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    monkeypatch.setattr(loading, "load_papers", small_papers)
    return root


def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def words(element: Any) -> str:
    return " ".join(element.get_text(" ").split())


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- the whole -----------------------------------------------------------------------------


def test_start_page_has_a_card_a_series(project: Path) -> None:
    made = build(project / "site", api=False)
    assert (made.figures, made.claims, made.notebooks) == (4, 12, 4)
    assert made.problems == ()
    page = soup(project / "site" / "index.html")
    summary = words(page.select_one(".summary"))
    assert "12 claims , each at the largest scale that was run" in summary
    assert "3 reproduced" in summary
    cards = page.select(".card")
    assert [c.select_one("a")["href"] for c in cards] == [f"series/{d}.html" for d in (1, 2, 3)]
    assert [c.select_one("img")["src"] for c in cards] == [
        "thumbnails/11_a/figure_4_1_heat_maps.webp",
        "thumbnails/20_b/spikes_esd.webp",
        "thumbnails/31_c/more_of_it.webp",
    ]
    first = words(cards[0])
    for text in ("The first series", "Does it hold?", "1 notebook ·", "1 of 4 claims reproduced"):
        assert text in first, text
    assert words(cards[2]).startswith("Series 3")  # which series.yaml does not know


def test_start_page_tells_what_was_found_contradictions_first(project: Path) -> None:
    build(project / "site", api=False)
    page = soup(project / "site" / "index.html")
    first, second = page.select(".findings li")
    assert words(first) == "Otherwise. It is 0.1. Contradicts Paper A . Notebook 11 , figure"
    assert [a["href"] for a in first.select("a")] == [
        "papers/A.html",
        "notebooks/quick/11_a.html",
        "figures/11_a/new_figure.html",
    ]
    assert words(second) == "New. It is 0.91 [0.885, 0.935]. Notebook 11"
    (project / "results" / "paper" / "11_a.json").unlink()
    build(project / "site", api=False)  # the quick profile alone tells nothing
    assert soup(project / "site" / "index.html").select(".findings") == []


def test_series_page_has_question_answer_notebooks_and_verdicts(project: Path) -> None:
    build(project / "site", api=False)
    page = soup(project / "site" / "series" / "1.html")
    assert words(page.select_one("h1")) == "The first series"
    assert [words(p) for p in page.select(".page-head .lead")] == [
        "Does it hold?",
        "Together: It does.",
    ]
    (entry,) = page.select(".entry")
    text = words(entry)
    for part in (
        "Figure 4.1: heat maps",
        "11_a · Paper A",
        "Caption <b>figure_4_1_heat_maps</b> at N = 8.",
        "Heat maps of the middle layer New figure",
        "1 reproduced",
        "1 not testable here",
        "data & co of paper · paper profile · 1.5 min on one core",
    ):
        assert part in text, part
    assert "More words" not in text
    links = [a["href"] for a in entry.select(".inline a")]
    assert links == [f"../figures/11_a/{n}.html" for n in ("figure_4_1_heat_maps", "new_figure")]
    rows = page.select("table.verdicts tbody tr")
    assert words(rows[0]) == (
        "Paper A , Figure 4.1 the good statement of 11_a |slope| <of> x 0.91 [0.885, 0.935] "
        "stated ≥ 0.5 reproduced paper profile"
    )
    assert rows[0].select_one("th a")["href"] == "../claims.html#11_a.good_claim"
    (board,) = page.select("details.group")
    assert "open" not in board.attrs
    assert "1 reproduced" in words(board.select_one("summary"))
    assert "quick profile" in words(soup(project / "site" / "series" / "2.html"))


def test_paper_page_goes_item_by_item(project: Path) -> None:
    build(project / "site", api=False)
    page = soup(project / "site" / "papers" / "A.html")
    text = words(page.select_one(".page-head"))
    assert "Somebody, Else, 2024. arXiv 2401.00001" in text
    assert page.select_one(".lead a")["href"] == "https://arxiv.org/abs/2401.00001"
    assert "Smaller or simpler than in the paper (11_a): Fewer steps." in words(page)
    heads = [words(h) for h in page.select("h2")]
    assert heads == ["Notebook", "Item by item", "Claims and verdicts"]  # notebooks first
    assert len(page.select(".entry")) == 1
    figure, algorithm = (words(row) for row in page.select("table.items tbody tr"))
    assert "Left open: What the text leaves out. 11_a Heat maps of the middle layer" in figure
    assert "1 not reproduced" in figure
    assert "rclib/rowcolumn/transfer.py implemented, tested" in algorithm
    other = soup(project / "site" / "papers" / "B.html")
    assert "A talk" in words(other.select_one(".lead"))
    chips = [words(row.select_one(".chips")) for row in other.select("table.items tbody tr")]
    assert chips[0] == "1 reproduced 1 not reproduced"
    listed = soup(project / "site" / "papers.html").select(".notebooks a")
    assert [a["href"] for a in listed] == ["papers/A.html", "papers/B.html"]


def with_b(papers: Papers, **changes: Any) -> Papers:
    """The papers with another B."""
    second = dataclasses.replace(papers.papers[1], **changes)
    return dataclasses.replace(papers, papers=(papers.papers[0], second))


def test_figure_page_has_its_own_claims_and_no_others_among_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    papers = small_papers()
    own = dataclasses.replace(papers.papers[1].items[0], beside={"spikes_esd": "x"})
    figure = project / "site" / "figures" / "20_b" / "spikes_esd.html"
    for changed, head, counts in (
        # What the paper's file says can be read off it.
        ({"shown": {"20_b": {"spikes_esd": ["open_claim"]}}}, "this figure", [1, 3]),
        ({"shown": {"20_b": {"spikes_esd": []}}}, "this figure", [4]),
        # Otherwise the claims of its item; without one, none.
        ({"items": (own,)}, "One configuration", [2, 2]),
        ({"items": ()}, "this figure", [4]),
    ):
        monkeypatch.setattr(loading, "load_papers", lambda c=changed: with_b(papers, **c))
        build(project / "site", api=False)
        page = soup(figure)
        assert words(page.select_one("#claims-head")) == f"Claims of {head}"
        assert [len(t.select("tbody tr")) for t in page.select("table.claims")] == counts
        assert words(page.select_one("details summary h3")) == "Other claims of this notebook"
        own_tables = page.select("section[aria-labelledby=claims-head] > table")
        assert len(own_tables) == len(counts) - 1


def test_scoreboard_says_with_how_many_sets_of_seeds(project: Path) -> None:
    path = project / "results" / "stability" / "quick" / "11_a.json"
    path.parent.mkdir(parents=True)
    row = {
        "key": "good_claim",
        "verdict": "reproduced",
        "verdicts": {"reproduced": 7, "undecided": 3},
    }
    content = {"notebook": "11_a", "profile": "quick", "repeats": 10, "claims": [row]}
    path.write_text(json.dumps(content), encoding="utf-8")
    build(project / "site", api=False)
    rows = soup(project / "site" / "claims.html").select_one("#scoreboard table").select("tbody tr")
    good, bad = (words(row) for row in rows[:2])
    assert good.count("3 repeats; 7 of 10 sets of seeds agree") == 1  # quick alone
    assert "sets of seeds" not in bad


def test_scoreboard_has_profiles_side_by_side(project: Path) -> None:
    build(project / "site", api=False)
    page = soup(project / "site" / "claims.html")
    assert "stand when corrected for the number of claims" in words(page.select_one(".page-head"))
    tables = page.select("#scoreboard table")
    assert len(tables) == 3
    head = [words(cell) for cell in tables[0].select("thead th")]
    assert head == ["Statement", "Criterion", "Quick profile", "Paper profile"]
    good, bad, open_, untested = (words(row) for row in tables[0].select("tbody tr"))
    assert "the good statement of 11_a" in good
    assert "|slope| <of> x" in good
    assert "≥ 0.5" in good
    assert good.count("0.91 [0.885, 0.935]") == 2
    assert "3 repeats" in good
    assert bad.count("not reproduced") == 2
    assert "0.9 [0.1, 0.95]" in open_  # quick
    assert "0.2 [0.1, 0.95]" in open_  # paper
    assert untested.count("not measured") == 2
    assert "needs a machine that is not here" in untested
    assert "no result" in words(tables[1].select_one("tbody tr"))  # no paper-scale results
    rows = tables[0].select("tbody tr")
    assert [r["data-outcomes"].split() for r in rows] == [
        [f"paper:{verdict}", f"quick:{verdict}"]
        for verdict in ("reproduced", "not-reproduced", "undecided", "not-testable-here")
    ]
    assert {(r["data-paper"], r["data-series"]) for r in rows} == {("A", "1")}
    assert {r["data-paper"] for r in tables[2].select("tbody tr")} == {"beyond"}
    cells = [r.select(".source a")[-1]["href"] for r in rows]
    page_11 = "notebooks/quick/11_a.html"
    assert cells == [f"{page_11}#cell-11-{n}" for n in ("02", "02", "03", "03")]


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_a_network(project: Path) -> None:
    build(project / "site", api=False)
    site = project / "site"
    assert dangling(site) == []
    for path in site.rglob("*"):
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"url\(|@import|src=[\"']?(https?:)?//", text), path
            assert all(not u.startswith(("http", "//")) for u in Links(text).loads), path


def test_every_picture_has_an_alternative_text_and_its_size(project: Path) -> None:
    build(project / "site", api=False)
    found = [
        image
        for path in (project / "site").rglob("*.html")
        for image in Links(path.read_text(encoding="utf-8")).images
    ]
    assert len(found) > 12
    for image in found:
        assert len(str(image["alt"])) > 8
        assert int(str(image["width"])) > 0
        assert int(str(image["height"])) > 0


def test_figure_page_has_both_profiles_and_its_neighbours(project: Path) -> None:
    (project / "figures" / "paper" / "11_a" / f"new_figure.{SUFFIX}").write_bytes(b"kept")
    build(project / "site", api=False)
    site = project / "site"
    page = soup(site / "figures" / "11_a" / "new_figure.html")
    assert page.select_one(".large img")["src"] == "../../figures/paper/11_a/new_figure.png"
    assert page.select_one(".others img")["src"] == "../../figures/quick/11_a/new_figure.webp"
    downloads = [a["href"] for a in page.select(".downloads a")]
    assert downloads == [
        f"../../figures/{profile}/11_a/new_figure.{kind}"
        for profile, kind in (("paper", k) for k in ("png", "pdf", "csv", SUFFIX))
    ]
    assert page.select_one(".redraw code").get_text() == "python -m rclib redraw 11_a"
    for kind in ("png", "pdf", "csv", SUFFIX):
        name = f"figures/paper/11_a/new_figure.{kind}"
        assert (site / name).read_bytes() == (project / name).read_bytes()
    (other,) = (site / "figures" / "quick" / "11_a").glob("new_*")  # no vector, no data
    with (
        Image.open(other) as small,
        Image.open(project / "figures" / "quick" / "11_a" / "new_figure.png") as large,
    ):
        assert (small.convert("RGB").tobytes()) == large.convert("RGB").tobytes()
    assert other.name == "new_figure.webp"
    assert page.select_one("a[rel=prev]")["href"] == "../../figures/11_a/figure_4_1_heat_maps.html"
    assert page.select_one("a[rel=next]")["href"] == "../../figures/20_b/spikes_esd.html"
    assert page.select_one(".button")["href"] == "../../notebooks/quick/11_a.html"
    details = words(page.select_one(".details"))
    for text in ("data & co of paper", "1.5 min on one core", "width 8", "seeds 0, 1", "cores 2"):
        assert text in details, text
    assert "None" not in details
    last = soup(site / "figures" / "31_c" / "more_of_it.html")
    assert not last.select(".redraw")  # what it shows was not kept
    assert not [a for a in last.select(".downloads a") if SUFFIX in a["href"]]
    assert last.select_one("a[rel=next]") is None


def test_notebooks_not_executed_here_are_shown_as_stored(project: Path) -> None:
    build(project / "site", api=False)
    page = words(soup(project / "site" / "notebooks" / "stored" / "12_d.html"))
    assert "It was not executed here" in page
    assert "Not run yet" in page
    executed = words(soup(project / "site" / "notebooks" / "quick" / "11_a.html"))
    assert "Executed at the quick profile" in executed
    # The notebook to download has no outputs: the pictures of the page lie there already.
    copied = (project / "site" / "notebooks" / "11_a.ipynb").read_bytes()
    assert copied == (project / "notebooks" / "11_a.ipynb").read_bytes()
    assert list((project / "site").glob("notebooks/*/*.ipynb")) == []


def test_same_project_same_bytes(project: Path) -> None:
    build(project / "site", api=False)
    build(project / "again", api=False)
    assert snapshot(project / "site") == snapshot(project / "again")


def test_profiles_without_results_are_named(project: Path) -> None:
    for path in (project / "results" / "paper").iterdir():
        path.unlink()
    build(project / "site", api=False)
    page = soup(project / "site" / "index.html")
    notices = [words(n) for n in page.select(".notice")]
    assert any("No results of the paper profile yet" in n for n in notices)
    assert any("make figures PROFILE=paper" in n for n in notices)
    assert len(page.select(".card")) == 3
    page = soup(project / "site" / "claims.html")
    head = [words(cell) for cell in page.select("#scoreboard table")[0].select("thead th")]
    assert head == ["Statement", "Criterion", "Quick profile"]


def test_without_any_results_there_still_is_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert build(tmp_path / "site", api=False).figures == 0
    page = soup(tmp_path / "site" / "index.html")
    assert "No figures yet" in words(page)
    notices = " ".join(words(n) for n in page.select(".notice"))
    assert all(f"the {profile} profile" in notices for profile in paths.PROFILES)
    assert dangling(tmp_path / "site") == []


def test_a_third_profile_stands_between_the_two(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "PROFILES", ("quick", "paper", "third"))
    made = record("20_b", title="Paper B: one", profile="third", figures=["spikes_esd"])
    write_results(project, made)
    build(project / "site", api=False)
    page = soup(project / "site" / "claims.html")
    head = [words(cell) for cell in page.select("#scoreboard table")[1].select("thead th")]
    assert head[2:] == ["Quick profile", "Third profile", "Paper profile"]
    figure = soup(project / "site" / "figures" / "20_b" / "spikes_esd.html")
    assert figure.select_one(".large img")["src"] == "../../figures/third/20_b/spikes_esd.png"


TEXT = """# A page

[the guide](guide.md#more-of-it) [claims](../replication.md) [top](../README.md)
[11](../notebooks/11_a.ipynb) [axes](../rclib/rowcolumn/axes.py) [gone](../setup.cfg)
[picture](../figures/paper/11_a/new_figure.png) [series](series/1.md) [out](https://a.b/c)

![A figure](../figures/paper/11_a/new_figure.png)
"""


def test_texts_are_pages_with_links_of_the_site(project: Path) -> None:
    docs = project / "docs"
    docs.mkdir()
    (docs / "page.md").write_text(TEXT)
    (docs / "other.md").write_text("# Other\n")
    guide = "# The guide\n\n[2](page.md) [1](other.md)\n\n## More of it\n\n| a |\n|---|\n| b |\n"
    guide += "\n## Wide\n\n| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n"
    (docs / "guide.md").write_text(guide)
    (project / "replication.md").write_text("# All\n\n## Main\n\n## Main\n")
    (project / "CONTRIBUTING.md").write_text("# Contributing\n\n[guide](docs/guide.md)\n")
    build(project / "site", api=False)
    site = project / "site"
    assert dangling(site) == []
    page = soup(site / "docs" / "page.html")
    links = {words(a): a["href"] for a in page.select("article a")}
    assert links == {
        "User guide": "../docs/guide.html",
        "the guide": "../docs/guide.html#more-of-it",
        "claims": "../replication.html",
        "top": "../index.html",
        "11": "../notebooks/quick/11_a.html",
        "picture": "../figures/11_a/new_figure.html",
        "series": "../series/1.html",
        "out": "https://a.b/c",
    }
    (image,) = page.select("article img")
    assert image["src"] == "../figures/paper/11_a/new_figure.png"
    assert (image["width"], image["height"], image["loading"]) == ("300", "200", "lazy")
    narrow, wide = soup(site / "docs" / "guide.html").select("article table")
    assert not narrow.select("[data-label]")
    # On a phone each cell stands below the name of its column.
    assert [(c["data-label"], words(c)) for c in wide.select("td")] == [
        ("a", "1"), ("b", "2"), ("c", "3"),
    ]  # fmt: skip
    # In the order of the guide, which the head of every page leads to.
    footer = [words(a) for a in page.select("footer a")]
    assert footer == ["The guide", "A page", "Other", "All", "Contributing"]
    assert page.select_one("nav a[href='../docs/guide.html']")
    # Names that the site's scripts look for are not given to a heading.
    assert [h["id"] for h in soup(site / "replication.html").select("h2")] == ["main-1", "main-2"]


def test_notebooks_show_their_papers_figure_from_the_site(project: Path) -> None:
    for folder, up in ((project / "notebooks", ".."), (project / "build" / "quick", "../..")):
        path = folder / "11_a.ipynb"
        notebook = notebook_page.read_notebook(path)
        place = f"{up}/figures/paper/11_a/new_figure.png"
        notebook.cells[0].source += f"\n\n[![New]({place})]({place})\n\n[12](12_d.ipynb)"
        nbformat.write(notebook, path)
    build(project / "site", api=False)
    page = soup(project / "site" / "notebooks" / "quick" / "11_a.html")
    image = page.select_one(".prose img")
    assert image["src"] == "../../figures/paper/11_a/new_figure.png"
    assert image.parent["href"] == "../../figures/11_a/new_figure.html"
    assert page.select(".prose a")[-1]["href"] == "../../notebooks/stored/12_d.html"
    assert dangling(project / "site") == []


def test_errors_of_the_system_are_told_in_words(project: Path) -> None:
    path = project / "results" / "paper" / "11_a.json"
    text = path.read_text(encoding="utf-8")
    raw = "OSError: [Errno 28] No space left on device"
    path.write_text(text.replace("needs a machine that is not here", raw), encoding="utf-8")
    build(project / "site", api=False)
    for page in ("claims.html", "figures/11_a/new_figure.html"):
        shown = words(soup(project / "site" / page))
        assert "the disk is full" in shown
        assert "Errno" not in shown


def test_replication_page_links_to_the_sites_notebooks(project: Path) -> None:
    text = "# Item by item\n\n| a | b |\n|---|---|\n| [11](notebooks/11_a.ipynb) | x |\n"
    (project / "replication.md").write_text(text)
    build(project / "site", api=False)
    page = Links((project / "site" / "replication.html").read_text(encoding="utf-8"))
    assert "notebooks/quick/11_a.html" in page.links
    assert dangling(project / "site") == []


# --- errors --------------------------------------------------------------------------------


def spoil(project: Path, **change: Any) -> None:
    path = project / "results" / "quick" / "20_b.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    for key, value in change.items():
        if value is None:
            del whole[key]
        else:
            whole[key] = value
    path.write_text(json.dumps(whole), encoding="utf-8")


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no title": ({"title": None}, "it has no 'title'"),
    "title": ({"title": 3}, "title must be text, got 3"),
    "figures": ({"figures": {}}, "figures must be a list, got an object"),
    "figure": ({"figures": [{"name": "x"}]}, "it has no 'caption'"),
    "path": ({"figures": [{"name": "../x", "caption": ""}]}, "name '../x' is no plain file name"),
    "caption": ({"figures": [{"name": "x", "caption": 1}]}, "caption must be text, got 1"),
    "notebook": ({"notebook": "21_z"}, "its notebook is '21_z', not '20_b'"),
    "claims": ({"claims": [{"verdict": "proved"}]}, "it has no 'key'"),
    "missing": ({"figures": [{"name": "gone", "caption": "c"}]}, "gone.png is missing"),
}


@pytest.mark.parametrize("case", CASES)
def test_invalid_results_are_one_line_each_and_the_rest_is_built(
    project: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, message = CASES[case]
    spoil(project, **change)
    assert builder.main(["--no-api"]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: left out: ")
    assert err.count("\n") == 1
    assert message in err
    assert "20_b" in err or "gone" in err or "21_z" in err
    assert out.count("\n") == 1
    assert "3 figures" in out
    assert dangling(project / "site") == []
    assert "the good statement of 11_a" in words(soup(project / "site" / "claims.html"))
    assert (project / "site" / "notebooks" / "quick" / "20_b.html").is_file()
    assert sorted(p.name for p in project.iterdir() if "site" in p.name) == ["site"]


def test_a_notebook_or_picture_that_cannot_be_read_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "build" / "quick" / "11_a.ipynb"
    path.write_text("{}")
    (project / "figures" / "quick" / "20_b" / "spikes_esd.png").write_bytes(b"no picture")
    (project / "notebooks" / "12_d.ipynb").write_text("no notebook")
    stability = project / "results" / "stability" / "quick" / "11_a.json"
    stability.parent.mkdir(parents=True)
    stability.write_text("[]")
    assert builder.main(["--no-api"]) == 1
    err = capsys.readouterr().err
    assert [line.split(" is ")[0].split()[-1] for line in err.splitlines()] == [
        str(stability),
        str(project / "figures" / "quick" / "20_b" / "spikes_esd.png"),
        str(path),
        str(project / "notebooks" / "12_d.ipynb"),
    ]
    site = project / "site"
    assert dangling(site) == []
    assert (site / "notebooks" / "stored" / "11_a.html").is_file()  # instead of the executed one
    assert not (site / "figures" / "20_b").exists()


def test_an_output_that_is_no_picture_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "build" / "quick" / "31_c.ipynb"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r'"image/png": "[^"]*"', '"image/png": "bm90aGluZw=="', text))
    assert builder.main(["--no-api"]) == 1
    assert f"error: left out: {path}: an output is not a picture" in capsys.readouterr().err


def test_an_error_half_way_leaves_the_old_site(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(project / "site", api=False)
    before = snapshot(project / "site")

    def full(*_: Any, **__: Any) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr(pages, "search_index", full)
    assert builder.main(["--no-api"]) == 1
    assert capsys.readouterr().err == "error: no space left on device\n"
    assert snapshot(project / "site") == before
    assert sorted(p.name for p in project.iterdir() if "site" in p.name) == ["site"]


def test_a_folder_that_is_no_site_is_left_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "mine").mkdir()
    (project / "mine" / "thesis.txt").write_text("keep")
    assert builder.main(["--no-api", "--out", "mine"]) == 1
    assert "holds something else than a site" in capsys.readouterr().err
    assert (project / "mine" / "thesis.txt").read_text() == "keep"
    assert builder.main(["--no-api", "--out", "new/deep"]) == 0
    assert "4 figures, 12 claims" in capsys.readouterr().out
    assert (project / "new" / "deep" / "index.html").is_file()


# --- parts ---------------------------------------------------------------------------------


def test_notebook_page_is_safe_and_whole(project: Path) -> None:
    notebook = notebook_page.read_notebook(project / "build" / "quick" / "11_a.ipynb")
    page = notebook_page.render(notebook, pictures="files")
    assert list(page.pictures.values()) == [picture(9)]
    html = BeautifulSoup(page.html, "html.parser")
    assert html.find("script") is None
    assert html.find("style") is None
    assert html.find(onclick=True) is None
    assert "0/9" not in page.html  # a progress bar is no output
    figure = html.find("figure")
    assert figure.img["alt"] == "A caption."
    assert figure.figcaption.get_text() == "A caption. Of two."
    assert figure.img["src"] == f"files/{next(iter(page.pictures))}"
    assert [m.get("display") for m in html.find_all("math")] == ["inline", "block"]
    assert [th["scope"] for th in html.select("th")] == ["col", "col", "row"]
    assert all(pre.get("tabindex") == "0" for pre in html.find_all("pre"))


def test_declaring_cells_prefer_the_key_in_full() -> None:
    notebook = notebook_page.nbformat.v4.new_notebook()
    new = notebook_page.nbformat.v4.new_code_cell
    notebook.cells = [
        new('declare(f"{name}_stable")', id="built"),
        new('declare("MF_stable")\n%time x', id="magic"),
        new('claims.declare("SP_stable", paper=paper)', id="whole"),
        new('measure("only_measured")', id="other"),
        new('declare(f"{name}")', id="anything"),
    ]
    keys = ["MF_stable", "SP_stable", "only_measured", "a b"]
    found = notebook_page.declaring_cells(notebook, keys)
    assert found == {"MF_stable": "built", "SP_stable": "whole"}


def test_formulas_become_mathml_or_stay_readable() -> None:
    assert "<msub>" in mathml(r"\lambda_1")
    assert 'display="block"' in mathml(r"\frac{a}{b}", block=True)
    with pytest.warns(UserWarning, match="shown as its source: Missing"):
        assert mathml(r"a<b_{") == "<code>a&lt;b_{</code>"
    with pytest.warns(UserWarning, match=r"\\nope is not known"):
        assert mathml(r"\nope{x}") == r"<code>\nope{x}</code>"
    aligned = notebook_page.markdown("\\begin{align}a &= b \\\\ c &= d\\end{align}")
    assert aligned.count("<mtr>") == 2
    assert "<math" not in notebook_page.markdown("costs 3 dollars")


def test_thumbnail_is_small_coloured_and_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(picture(3, 1600, 800))
    made, size = images.thumbnail(path, width=320)
    assert (made, size) == images.thumbnail(path, width=320)
    assert size == (320, 160)
    (tmp_path / "t.webp").write_bytes(made)
    with Image.open(tmp_path / "t.webp") as small, Image.open(path) as large:
        wanted = np.asarray(large.convert("RGB").resize((320, 160)), float)
        error = np.abs(np.asarray(small.convert("RGB"), float) - wanted)
    assert error.mean() < 24  # of coloured noise, the worst there is
    clear = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    clear.save(path)
    (tmp_path / "t.webp").write_bytes(images.thumbnail(path)[0])
    with Image.open(tmp_path / "t.webp") as small:
        assert small.convert("RGB").getextrema() == ((255, 255),) * 3  # on white, not on black
    with pytest.raises(ValueError, match="not a picture"):
        images.thumbnail(tmp_path / "t.webp")
    with pytest.raises(ValueError, match="not a picture"):
        images.size_of(b"text")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("Size (Adam, η = 1, seed 0). Top: x.", "Size (Adam, η = 1, seed 0)."),
        ("N = 0.5 of it. 3 more.", "N = 0.5 of it. 3 more."),
        ("No stop", "No stop"),
        ("", ""),
    ],
)
def test_first_sentence(text: str, sentence: str) -> None:
    assert content.first_sentence(text) == sentence


def test_a_figure_that_lies_on_the_site_is_not_written_again(project: Path) -> None:
    notebook = notebook_page.read_notebook(project / "build" / "quick" / "11_a.ipynb")
    saved = {"figure_4_1_heat_maps": ("../../figures/f.png", 300, 200)}
    page = notebook_page.render(notebook, pictures="files", saved=saved)
    assert page.pictures == {}
    image = BeautifulSoup(page.html, "html.parser").find("figure").img
    assert (image["src"], image["width"], image["loading"]) == (*saved_address(saved), "lazy")
    assert notebook_page.render(notebook, pictures="files", saved={"other": ("x", 1, 1)}).pictures


def saved_address(saved: dict[str, tuple[str, int, int]]) -> tuple[str, str]:
    address, width, _ = next(iter(saved.values()))
    return address, str(width)


def test_paper_of_a_claim() -> None:
    known = ("A", "B", "1803.03635")
    assert content.paper_of_claim("A, Figure 4.1", "B", known) == "A"
    assert content.paper_of_claim("1803.03635, Figure 1", "B", known) == "1803.03635"
    assert content.paper_of_claim("beyond the paper (theory)", "A", known) == "beyond"
    assert content.paper_of_claim("control for the claim above", "B", known) == "B"
    assert content.paper_of_claim("Another, source", "beyond", known) == "beyond"


def test_the_site_counts_each_papers_claims_as_replication_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    gallery = loading.load_gallery()
    found = Counter(claim.paper for claim in gallery.claims)
    text = (ROOT / "replication.md").read_text(encoding="utf-8")
    names = {paper.short: paper.id for paper in gallery.papers.papers}
    names["Beyond the papers"] = content.BEYOND
    rows = re.findall(r"^\| \[([^\]]+)\]\(#[^)]*\) \| (\d+) \|", text, re.MULTILINE)
    assert {names[name]: int(count) for name, count in rows} == found


def test_paper_of_a_notebook_is_the_one_whose_items_name_it_or_its_claims(project: Path) -> None:
    found = {n.name: n.paper for n in loading.load_gallery().notebooks}
    assert found == {"11_a": "A", "20_b": "B", "31_c": "beyond"}
    write_results(
        project, record("32_e", title="t", profile="quick", figures=[], paper="B, an aside")
    )
    found = {n.name: n.paper for n in loading.load_gallery().notebooks}
    assert found["32_e"] == "B"


def test_control_and_what_is_not_blind_are_marked(project: Path) -> None:
    path = project / "results" / "quick" / "20_b.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    marks = {"blind": False, "seen_on": [8, 9], "declared_seeds": [0, 1, 2], "unit": "seed"}
    whole["claims"][0] |= {**marks, "control": True, "item": "Sweep"}
    path.write_text(json.dumps(whole), encoding="utf-8")
    build(project / "site", api=False)
    rows = soup(project / "site" / "claims.html").select("#scoreboard table")[1].select("tbody tr")
    assert "Control: it must fail" in words(rows[0])
    assert "Not blind: criterion set after seeds 8, 9 were seen." in words(rows[0])
    assert "Control" not in words(rows[1])
    assert "Not blind" not in words(rows[1])


def test_series_of_notebooks() -> None:
    found = content.series_of(small_papers(), ["20_b", "00_overview", "11_a", "12_d", "70_x"])
    assert [series.title for series in found] == [
        "Overview", "The first series", "The second series", "Series 7",
    ]  # fmt: skip


def test_leading_profiles_and_durations() -> None:
    assert content.leading_first(("quick", "laptop", "paper")) == ("paper", "laptop", "quick")
    assert [duration(s) for s in (0.4, 26, 90, 7200)] == ["0 s", "26 s", "1.5 min", "2.0 h"]


def test_the_api_is_made_by_a_process_that_ends_with_the_block(tmp_path: Path) -> None:
    with builder._api(tmp_path / "api", wanted=True):  # nobody waits for it
        (child,) = multiprocessing.active_children()
    assert child.exitcode is not None
    with builder._api(tmp_path / "api", wanted=True) as entries:
        (child,) = multiprocessing.active_children()
        child.kill()  # as a system does that has no memory left
        with pytest.raises(OSError, match=r"pages on rclib ended with status -9"):
            entries()


def test_an_error_of_the_api_is_that_of_the_build(tmp_path: Path) -> None:
    (tmp_path / "api").write_text("a file where a folder should be")
    here, there = multiprocessing.Pipe(duplex=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pdoc.pdoc", lambda *_, output_directory: output_directory.mkdir())
        builder._write_api(tmp_path / "api", there)
    assert isinstance(here.recv(), FileExistsError)
    with builder._api(tmp_path / "none", wanted=False) as entries:
        assert entries() == ()
