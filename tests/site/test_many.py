"""rclib.site with sixty invented notebooks of nine series: what stays small, what is found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from site_browser import DESKTOP, PHONE, accessible, follow
from site_project import Links, dangling, make_many, many_names, many_papers

from rclib.site import loading
from rclib.site.build import build

SCREENS, SCREEN = 3, 900  # the start page at 1280 pixels' width


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("RCLIB_OUT", "RCLIB_CACHE", "RCLIB_DATA"):
            patch.delenv(variable, raising=False)
        patch.setattr(loading, "load_papers", many_papers)
        patch.chdir(make_many(folder / "project"))
        made = build(folder / "site", api=False)
    assert (made.figures, made.claims, made.problems) == (120, 240, ())
    return folder / "site"


def index(site: Path) -> list[list[str]]:
    """The entries of the search box."""
    text = (site / "assets" / "search-index.js").read_text(encoding="utf-8")
    found: list[list[str]] = json.loads(text.removeprefix("window.rclibIndex = ").rstrip(";\n"))
    return found


def linked(site: Path, page: Path) -> set[Path]:
    links = Links(page.read_text(encoding="utf-8")).links
    found = {(page.parent / link.partition("#")[0]).resolve() for link in links if link[0] != "#"}
    return {path for path in found if path.suffix == ".html" and path.is_relative_to(site)}


def test_no_link_leads_nowhere(many: Path) -> None:
    assert dangling(many) == []


def test_every_figure_and_notebook_is_two_clicks_from_the_start_page(many: Path) -> None:
    first = linked(many, many / "index.html")
    second = {goal for page in first for goal in linked(many, page)}
    figures = {path.resolve() for path in many.glob("figures/*/*.html")}
    notebooks = {path.resolve() for path in many.glob("notebooks/*/*.html")}
    assert (len(figures), len(notebooks)) == (120, 60)
    assert figures <= second
    assert notebooks <= second
    assert {path.resolve() for path in many.glob("papers/*.html")} <= second


def test_two_notebooks_may_have_a_figure_of_one_name(many: Path) -> None:
    first, second = many_names()[:2]
    pictures = set()
    for name in (first, second):
        page = BeautifulSoup((many / "figures" / name / "main.html").read_text(), "html.parser")
        assert page.select_one("h1").get_text() == f"The main curve of {name}"
        source = page.select_one(".large img")["src"]
        assert source == f"../../figures/paper/{name}/main.png"
        pictures.add((many / "figures" / name / source).resolve().read_bytes())
        pictures.add((many / "thumbnails" / name / "main.webp").read_bytes())
    assert len(pictures) == 4
    for name in (first, second):
        original = many.parent / "project" / "figures" / "paper" / name / "main.png"
        assert original.read_bytes() in pictures


def test_site_is_small_and_every_picture_is_there_once(many: Path) -> None:
    files = [path for path in many.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6
    assert (many / "index.html").stat().st_size < 40e3
    assert (many / "assets" / "search-index.js").stat().st_size < 150e3
    pictures = [path for path in files if path.suffix == ".png"]
    # 120 figures; a notebook that saves no figure of the site keeps its own picture.
    assert len(pictures) == 120 + 20
    assert sum(path.suffix == ".webp" for path in files) == 120 + 40  # thumbnails, other profiles
    # Vector and data go with the largest scale alone, a notebook is there once and without outputs.
    assert sum(path.suffix == ".pdf" for path in files) == 120
    assert sum(path.suffix == ".ipynb" for path in files) == 60


def test_pictures_below_the_first_screen_are_loaded_when_they_are_reached(many: Path) -> None:
    for name in ("index.html", "series/1.html", "series/9.html"):
        images = Links((many / name).read_text(encoding="utf-8")).images
        assert len(images) >= 6
        eager = [image for image in images if image.get("loading") != "lazy"]
        assert len(eager) <= 1, name  # the picture that the start page opens with


def test_index_of_the_search_holds_everything(many: Path) -> None:
    entries = index(many)
    kinds = [entry[0] for entry in entries]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    assert counts == {"series": 9, "paper": 60, "notebook": 60, "figure": 120, "claim": 240}
    anchors = Links((many / "claims.html").read_text(encoding="utf-8")).anchors
    for _, title, _, address, _ in entries:
        file, _, anchor = address.partition("#")
        assert (many / file).is_file(), title
        assert not anchor or anchor in anchors, title


def test_start_page_names_the_papers_and_asks_the_questions(many: Path) -> None:
    page = BeautifulSoup((many / "index.html").read_text(encoding="utf-8"), "html.parser")
    cards = page.select(".card")
    assert len(cards) == 9
    for card in cards:
        text = " ".join(card.get_text(" ").split())
        assert "does the same law hold at every width" in text
        assert re.search(r"[67] notebooks · [67] of (24|28) claims reproduced", text)
        assert len(card.select("img")) == 1
    assert "58 other papers" in page.get_text()


# --- in a browser ---------------------------------------------------------------------------


def test_start_page_is_at_most_three_screens(many: Path, visit: Any) -> None:
    visitor = visit(DESKTOP)
    page = visitor.open(many / "index.html")
    assert page.evaluate("document.documentElement.scrollHeight") <= SCREENS * SCREEN
    assert visitor.overflow() <= 0


def test_two_clicks_lead_to_a_figure(many: Path, visit: Any) -> None:
    page = visit().open(many / "index.html")
    follow(page, page.locator(".card a").nth(6))
    follow(page, page.get_by_role("link", name="The control of 73_study_73"))
    assert page.locator("h1").inner_text() == "The control of 73_study_73"


def test_search_finds_among_many(many: Path, visit: Any) -> None:
    page = visit().open(many / "notebooks.html")
    box = page.get_by_label("Search notebooks")
    for words, kind, title in (
        ("44_study main", "figure", "The main curve of 44_study_44"),
        ("practice 91", "paper", "Of the theory and practice of 91 study 91 in wide networks"),
        ("good statement 52", "claim", "the good statement of 52_study_52"),
        ("Study 65: what", "notebook", "Study 65: what it takes to see it in 65_study_65"),
    ):
        box.fill(words)
        hit = page.locator(".hits li", has_text=title).first
        hit.wait_for()
        assert hit.locator(".kind").inner_text() == kind
        assert page.locator(".hits li").count() <= 20
    box.fill("statement")
    page.get_by_text("20 of 240 found").wait_for()


def test_filters_narrow_down_and_combine(many: Path, visit: Any) -> None:
    page = visit().open(many / "claims.html")
    status = page.locator("#shown")
    assert status.inner_text() == "240 of 240 claims"
    for name, value, left in (
        ("verdict", "undecided", 60),
        ("series", "4", 7),
        ("profile", "quick", 3),
        ("paper", "p41", 0),
    ):
        page.locator(f"select[name={name}]").select_option(value)
        assert status.inner_text() == f"{left} of 240 claims"
        assert page.locator("#scoreboard tbody tr:visible").count() == left


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_accessible_and_no_sideways_scrolling(
    many: Path, visit: Any, viewport: dict[str, int]
) -> None:
    visitor = visit(viewport, "dark" if viewport is PHONE else "light")
    for name in ("index", "series/4", "papers", "papers/p41", "notebooks", "claims"):
        page = visitor.open(many / f"{name}.html")
        assert visitor.overflow() <= 0, name
        accessible(page, many / name)
