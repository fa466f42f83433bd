"""rclib.site of this project, in a real browser with the network cut (conftest.py: where none is
installed)."""

from __future__ import annotations

import io
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
from bs4 import BeautifulSoup, SoupStrainer
from PIL import Image
from site_browser import DESKTOP, PHONE, accessible, follow, shown
from site_project import copy_of_this_project, dangling, make_project, small_papers

import rclib
from rclib.site import loading
from rclib.site.build import Built, build
from rclib.site.content import Gallery

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Whole:
    """The site of this project's committed results, with the pages on the library."""

    folder: Path
    made: Built
    gallery: Gallery


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy_of_this_project(folder / "project", ROOT))
        for variable in ("RCLIB_OUT", "RCLIB_CACHE", "RCLIB_DATA"):
            patch.delenv(variable, raising=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a name that pdoc cannot find, a formula
            made = build(folder / "site", api=True)
        return Whole(folder / "site", made, loading.load_gallery())


@pytest.fixture(scope="module")
def site(browser: Any, whole: Whole) -> Path:
    return whole.folder


@pytest.fixture(scope="module")
def small(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a small project with executed notebooks and every verdict."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(make_project(folder / "project"))
        patch.setattr(loading, "load_papers", small_papers)
        patch.delenv("RCLIB_OUT", raising=False)
        build(folder / "site", api=False)
    return folder / "site"


def test_site_of_this_project(whole: Whole) -> None:
    """Read as files, without a browser."""
    named = {p.relative_to(ROOT / "figures" / "paper") for p in ROOT.glob("figures/paper/*/*.png")}
    assert named <= {Path(f"{figure.path}.png") for figure in whole.gallery.figures}
    assert whole.made.figures == len(whole.gallery.figures)
    assert whole.made.problems == ()
    assert dangling(whole.folder) == []
    assert whole.made.bytes < 60e6
    # Every claim of a committed result is declared in a cell that the scoreboard links to, but
    # those of notebooks 15 and 21 whose keys are made from the names of checkpoints and optimisers.
    page = BeautifulSoup((whole.folder / "claims.html").read_bytes(), "html.parser")
    links = [str(at.select("a")[-1]["href"]) for at in page.select("#scoreboard .source")]
    assert len(links) == whole.made.claims
    unplaced = [link for link in links if "#cell-" not in link]
    assert [link for link in unplaced if not re.search("15_figure_4_4|21_spikes", link)] == []
    assert len(unplaced) < 14
    path = whole.folder / "docs" / "how_the_pieces_fit.html"
    pieces = BeautifulSoup(path.read_bytes(), "html.parser")
    assert pieces.select_one("svg.layers text") is not None
    assert pieces.select("table a")  # its packages lead to the pages on the library


def test_start_page_shows_every_series_with_a_thumbnail_that_shows_something(
    site: Path, visit: Any
) -> None:
    page = visit().open(site / "index.html")
    digits = {path.name[0] for path in (ROOT / "figures" / "paper").iterdir()}
    links = {a.get_attribute("href") for a in page.locator(".card a").all()}
    assert {f"series/{digit}.html" for digit in digits} <= links
    thumbnails = page.locator(".thumb img")
    assert thumbnails.count() == len(links)
    for i in range(thumbnails.count()):
        thumbnails.nth(i).scroll_into_view_if_needed()
        assert thumbnails.nth(i).evaluate("e => e.decode().then(() => e.naturalWidth)") > 100
        with Image.open(io.BytesIO(thumbnails.nth(i).screenshot())) as picture:
            assert np.asarray(picture.convert("L"), float).std() > 4, links


def rows_seen(page: Any) -> Any:
    return page.locator("#scoreboard tbody tr:visible")


def each(rows: Any, of_a_row: str) -> list[str]:
    """Of every row what JavaScript says of it as `e`, in one call: there are a thousand."""
    found: list[str] = rows.evaluate_all(f"rows => rows.map(e => {of_a_row})")
    return found


def test_claims_are_filtered_by_paper_series_verdict_profile_and_words(
    site: Path, visit: Any
) -> None:
    page = visit().open(site / "claims.html")
    rows = page.locator("#scoreboard tbody tr")
    total = rows.count()
    assert rows_seen(page).count() == 0  # the notebooks are closed
    assert page.locator("#shown").inner_text() == f"{total} of {total} claims"
    for name, attribute, least in (
        ("paper", "data-paper", {"A", "B", "beyond"}),
        ("series", "data-series", {"1", "2", "3"}),
    ):
        options = page.locator(f"select[name={name}] option").all()
        values = [value for o in options if (value := str(o.get_attribute("value")))]
        assert least <= set(values)
        counts = []
        for value in values:
            page.locator(f"select[name={name}]").select_option(value)
            seen = each(rows_seen(page), f"e.getAttribute('{attribute}')")
            counts.append(len(seen))
            assert set(seen) == {value}
        assert sum(counts) == total
        page.locator(f"select[name={name}]").select_option("")
    page.locator("select[name=verdict]").select_option("not-reproduced")
    outcomes = each(rows_seen(page), "e.getAttribute('data-outcomes')")
    visible = len(outcomes)
    assert 0 < visible < total
    assert all(":not-reproduced" in outcome for outcome in outcomes)
    assert page.locator("#shown").inner_text() == f"{visible} of {total} claims"
    # The choice is kept in the address, so that it can be sent to somebody.
    page.reload()
    assert page.locator("select[name=verdict]").input_value() == "not-reproduced"
    assert rows_seen(page).count() == visible
    page.locator("select[name=verdict]").select_option("")
    page.locator("select[name=profile]").select_option("laptop")
    laptop = rows_seen(page).count()
    assert 0 < laptop < total
    page.locator("input[name=words]").fill("SPIKE teacher")
    assert rows_seen(page).count() == 0
    page.locator("select[name=profile]").select_option("")
    texts = each(rows_seen(page), "e.innerText.toLowerCase()")
    assert texts
    assert all("teacher" in text for text in texts)


def test_a_verdict_counts_at_the_chosen_profile(small: Path, visit: Any) -> None:
    page = visit().open(small / "claims.html", "?profile=paper&verdict=undecided&series=no")
    assert page.locator("select[name=series]").input_value() == ""
    assert shown(page, "#scoreboard .statement") == ["the open statement of 11_a"]


def test_address_of_a_claim_opens_it(small: Path, visit: Any) -> None:
    page = visit().open(small / "claims.html", "20_b.open_claim")
    row = page.locator(":target")
    assert row.is_visible()
    assert "the open statement of 20_b" in row.inner_text()
    assert 0 < row.bounding_box()["y"] < DESKTOP["height"]


@pytest.mark.parametrize(
    ("words", "kind", "title", "page"),
    [
        ("paper b: ONE", "notebook", "Paper B: one configuration", "/notebooks/quick/20_b.html"),
        ("heat middle", "figure", "Heat maps of the middle layer", "/11_a/figure_4_1_heat_maps.h"),
        ("good 31_c", "claim", "the good statement of 31_c", "/claims.html#31_c.good_claim"),
        ("title of A", "paper", "The title of A", "/papers/A.html"),
        ("is there a spike", "series", "The second series", "/series/2.html"),
    ],
)
def test_search_finds(
    small: Path, visit: Any, words: str, kind: str, title: str, page: str
) -> None:
    here = visit().open(small / "figures" / "31_c" / "more_of_it.html")
    box = here.get_by_role("searchbox")
    here.keyboard.press("/")
    assert box.evaluate("e => e === document.activeElement")
    box.fill(words)
    first = here.locator(".hits a").first
    first.wait_for()
    assert first.locator(".kind").inner_text() == kind
    assert first.locator(".title").inner_text() == title
    here.keyboard.press("ArrowDown")
    assert first.evaluate("e => e === document.activeElement")
    follow(here, first)
    assert page in here.url


def test_search_says_when_there_is_nothing_and_closes(small: Path, visit: Any) -> None:
    page = visit().open(small / "index.html")
    box = page.get_by_role("searchbox")
    box.fill("zebra")
    page.get_by_text("Nothing found").wait_for()
    page.keyboard.press("Escape")
    assert not page.locator(".hits").is_visible()
    box.fill("STATEMENT")
    page.get_by_text("12 found").wait_for()
    page.locator("h1").click()
    assert not page.locator(".hits").is_visible()
    box.fill("series first")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.endswith("/series/1.html")


def test_every_page_opens_without_an_error_or_a_failed_request(
    site: Path, small: Path, visit: Any
) -> None:
    pages = [p for s in (site, small) for p in s.rglob("*.html") if "api" not in p.parts]
    assert len(pages) > 70
    visitor = visit()
    decoded: set[str] = set()  # a figure stands on several pages
    for path in pages:
        page = visitor.open(path)
        found = page.evaluate(
            "known => Promise.all([...document.images].filter(i => !known.includes(i.src)).map("
            "i => { i.loading = 'eager'; return i.decode().then(() => [i.src, true],"
            " () => [i.src, false]); }))",
            list(decoded),
        )
        assert [source for source, right in found if not right] == [], path
        decoded |= {source for source, _ in found if not source.startswith("data:")}
        assert page.locator("h1").count() >= 1, path
    assert visitor.problems == []


def links(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_bytes(), "html.parser", parse_only=SoupStrainer("a"))


def test_figure_pages_lead_to_each_other_and_to_the_notebook(site: Path, visit: Any) -> None:
    page = visit().open(site / "index.html")
    follow(page, page.locator(".card a").first)
    follow(page, page.locator(".entry .picture").first)
    seen = [page.url]
    for _ in range(5):
        follow(page, page.locator("a[rel=next]"))
        seen.append(page.url)
    follow(page, page.locator("a[rel=prev]"))
    assert page.url == seen[-2]
    # The whole chain, in the files.
    here = Path(url2pathname(urlsplit(seen[0]).path))
    chain = [here]
    while (link := links(here).select_one("a[rel=next]")) is not None:
        here = (here.parent / str(link["href"])).resolve()
        chain.append(here)
    assert [path.as_uri() for path in chain[:6]] == seen
    assert set(chain) == {p.resolve() for p in (site / "figures").glob("*/*.html")}
    follow(page, page.get_by_role("link", name="Read the notebook"))
    assert "/notebooks/" in page.url


def test_link_to_a_claims_cell_arrives_there(site: Path, visit: Any) -> None:
    page = visit().open(site / "claims.html")
    page.locator("#scoreboard summary").first.click()
    follow(page, page.locator("#scoreboard .source a", has_text="notebook cell").first)
    cell = page.locator(":target")
    assert cell.count() == 1
    assert "declare(" in cell.inner_text()
    assert cell.bounding_box()["y"] < DESKTOP["height"]


@pytest.mark.parametrize(
    ("viewport", "scheme", "all_pages"),
    [
        (DESKTOP, "light", True),
        (PHONE, "dark", True),
        (DESKTOP, "dark", False),
        (PHONE, "light", False),
    ],
    ids=["desktop-light", "phone-dark", "desktop-dark", "phone-light"],
)
def test_accessibility_at_level_aa_and_no_sideways_scrolling(
    site: Path, small: Path, visit: Any, viewport: dict[str, int], scheme: str, all_pages: bool
) -> None:
    """Every page in two windows, which between them have both widths and both schemes; one page of
    each kind in the other two."""
    pages = [small / "index.html", small / "series" / "2.html", small / "papers" / "A.html"]
    pages += [small / "notebooks" / "quick" / "11_a.html", site / "docs" / "glossary.html"]
    pages += [next(small.glob("figures/*/*.html")), site / "api" / "rclib" / "rowcolumn.html"]
    if all_pages:
        names = ["index", "series/1", "claims", "papers", "papers/B", "notebooks", "replication"]
        pages += [site / f"{name}.html" for name in names]
        pages += sorted(set((site / "docs").glob("*.html")) - set(pages))
        pages += [next(site.glob("figures/*/*.html")), next(site.glob("notebooks/*/1*.html"))]
        # Long signatures, code and references to other modules.
        modules = ("", "/rowcolumn/measure", "/nets/gpt", "/nets/masks", "/study/claims")
        pages += [site / "api" / f"rclib{module}.html" for module in modules]
    visitor = visit(viewport, scheme)
    for path in pages:
        page = visitor.open(path)
        assert visitor.overflow() <= 0, path
        accessible(page, path)
    page = visitor.open(small / "claims.html")
    page.locator("input[name=words]").fill("statement")
    page.get_by_label("Search notebooks").fill("statement")
    page.locator(".hits a").first.wait_for()
    assert visitor.overflow() <= 0
    accessible(page, small / "claims.html")


def test_keyboard_reaches_the_search_the_filter_and_the_claims(small: Path, visit: Any) -> None:
    page = visit().open(small / "claims.html")
    active = "document.activeElement"

    def tab_to(condition: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(f"(e => {condition})({active})"):
                return
        pytest.fail(f"no tab stop with {condition}")

    page.keyboard.press("Tab")
    assert page.evaluate(f"{active}.textContent") == "Skip to the content"
    tab_to("e.closest('form.search') !== null")
    tab_to("e.name === 'words'")
    page.keyboard.type("20_b")
    assert page.locator("details.group:visible").count() == 1
    tab_to("e.name === 'paper'")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator("select[name=paper]").input_value() == "B"
    tab_to("e.tagName === 'SUMMARY'")
    assert len(shown(page, "#scoreboard .statement")) == 4
    page.keyboard.press("Enter")
    assert shown(page, "#scoreboard .statement") == []


def test_keyboard_reaches_the_cards(small: Path, visit: Any) -> None:
    page = visit().open(small / "index.html")
    link = page.locator(".card a").nth(1)
    link.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    outline = link.evaluate("e => getComputedStyle(e.closest('.card')).outlineStyle")
    assert outline == "solid"  # it can be seen where the keyboard is
    page.keyboard.press("Enter")
    page.wait_for_url("**/series/2.html")


def test_colours_can_be_chosen_and_are_kept(small: Path, visit: Any) -> None:
    page = visit(scheme="light").open(small / "index.html")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    button = page.get_by_role("button", name="Colours")
    button.click()
    assert "light" in button.inner_text()
    button.click()
    assert "dark" in button.inner_text()
    dark = page.evaluate(background)
    assert dark != light
    page.goto((small / "figures" / "20_b" / "spikes_esd.html").as_uri())
    assert page.evaluate(background) == dark
    other = visit(scheme="dark").open(small / "index.html")
    assert other.evaluate(background) == dark


def test_claims_open_on_demand_and_stand_side_by_side_on_a_phone(small: Path, visit: Any) -> None:
    page = visit(PHONE).open(small / "claims.html")
    assert shown(page, "#scoreboard .statement") == []
    page.locator("#scoreboard summary").first.click()
    assert len(shown(page, "#scoreboard .statement")) == 4
    left, right = (
        page.locator("#scoreboard tbody tr").first.locator("td").nth(i).bounding_box()
        for i in (1, 2)
    )
    assert left["y"] == right["y"]  # the profiles stand side by side on a phone as well
    assert left["x"] < right["x"]


def test_picture_of_the_layers_follows_the_colours(site: Path, visit: Any) -> None:
    page = visit(scheme="light").open(site / "docs" / "how_the_pieces_fit.html")
    fill = "getComputedStyle(document.querySelector('svg.layers text')).fill"
    light = page.evaluate(fill)
    button = page.get_by_role("button", name="Colours")
    button.click()
    button.click()
    assert "dark" in button.inner_text()
    assert page.evaluate(fill) != light


def test_api_is_found_by_the_sites_search(site: Path) -> None:
    text = (site / "assets" / "search-index.js").read_text(encoding="utf-8")
    entries = json.loads(text.removeprefix("window.rclibIndex = ").rstrip(";\n"))
    found = {title: address for kind, title, _, address, _ in entries if kind == "API"}
    assert found["transfer"] == "api/rclib/rowcolumn/transfer.html#transfer"
    assert found["rclib.rowcolumn.measure"] == "api/rclib/rowcolumn/measure.html"
    assert len(found) > 300
    for address in found.values():
        file, _, anchor = address.partition("#")
        page = (site / file).read_text(encoding="utf-8")
        assert "<style" not in page  # one sheet for all
        assert not anchor or f'id="{anchor}"' in page, address
    pages = list((site / "api").rglob("*.html"))  # one a module: the library may grow
    assert sum(p.stat().st_size for p in (site / "api").rglob("*")) < 20e3 * len(pages)


def test_api_lists_the_names_that_the_library_hands_on(site: Path, visit: Any) -> None:
    page = visit().open(site / "api" / "rclib.html")
    for name, target in (("GPT", "rclib/nets/gpt.html#GPT"), ("axes", "rclib/rowcolumn/axes.html")):
        entry = page.locator(".docstring li", has_text=f"{name}:").first
        assert entry.locator("a").get_attribute("href") == target
    assert page.locator(".docstring li").count() == len(rclib.FACE)
    follow(page, page.locator("nav a", has_text="rowcolumn"))
    assert page.locator("nav a", has_text="measure").count() == 1
