"""rclib.site in a real browser, with the network cut: Chromium of the system, by Playwright.

Skipped where no browser is installed; `RCLIB_BROWSER=required`, which `.ci/run` sets after it has
installed one, makes that an error.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from site_project import copy_of_this_project, make_project

from rclib.site.build import build

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, DESKTOP = {"width": 375, "height": 740}, {"width": 1280, "height": 900}
LEVEL_AA = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def unavailable(reason: str) -> None:
    if os.environ.get("RCLIB_BROWSER") == "required":
        pytest.fail(f"RCLIB_BROWSER=required, but {reason}")
    pytest.skip(f"{reason}; the site is not tried in a browser")


pytestmark = pytest.mark.slow  # a site is built and a browser is started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright is not installed (pip install '.[browser]')")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        unavailable(f"none of {', '.join(NAMES)} is installed")
    root = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=[*FLAGS, *root])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of this project's committed results, with the pages on the library."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy_of_this_project(folder / "project", ROOT))
        patch.delenv("RCLIB_OUT", raising=False)
        build(folder / "site", api=True)
    return folder / "site"


@pytest.fixture(scope="module")
def small(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a small project with executed notebooks and every verdict."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(make_project(folder / "project"))
        patch.delenv("RCLIB_OUT", raising=False)
        build(folder / "site", api=False)
    return folder / "site"


class Visitor:
    """A page with the network cut that notes everything that goes wrong."""

    def __init__(self, browser: Any, *, viewport: dict[str, int], scheme: str) -> None:
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.context.set_offline(True)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        note = self.problems.append
        self.page.on("pageerror", lambda error: note(f"error: {error}"))
        # A picture that is still on its way when the next page is asked for has not failed.
        self.page.on(
            "requestfailed",
            lambda request: (
                "ERR_ABORTED" in str(request.failure)
                or note(f"failed: {request.url}, {request.failure}")
            ),
        )
        self.page.on(
            "console",
            lambda message: message.type in ("error", "warning") and note(f"said: {message.text}"),
        )
        self.page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:")) or note(f"asked for: {request.url}")
            ),
        )

    def open(self, path: Path) -> Any:
        self.page.goto(path.as_uri(), wait_until="load")
        return self.page

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    visitors = []

    def make(viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Visitor:
        visitors.append(Visitor(browser, viewport=viewport, scheme=scheme))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.context.close()
    assert [problem for visitor in visitors for problem in visitor.problems] == []


def shown(page: Any, selector: str) -> list[str]:
    return [e.inner_text() for e in page.locator(selector).all() if e.is_visible()]


def test_front_page_lists_every_figure_with_a_thumbnail_that_shows_something(
    site: Path, visit: Any
) -> None:
    page = visit().open(site / "index.html")
    names = {path.stem for path in (ROOT / "figures" / "paper").glob("*.png")}
    links = {a.get_attribute("href") for a in page.locator(".card a").all()}
    assert {f"figures/{name}.html" for name in names} <= links
    thumbnails = page.locator(".thumb img")
    assert thumbnails.count() == len(links)
    for i in range(thumbnails.count()):
        thumbnails.nth(i).scroll_into_view_if_needed()
        assert thumbnails.nth(i).evaluate("e => e.decode().then(() => e.naturalWidth)") > 100
        with Image.open(io.BytesIO(thumbnails.nth(i).screenshot())) as picture:
            assert np.asarray(picture.convert("L"), float).std() > 4, links


def test_filter_by_paper_and_verdict(site: Path, visit: Any) -> None:
    page = visit().open(site / "index.html")
    total = page.locator(".card").count()
    for paper in ("A", "B", "beyond"):
        page.locator(f"input[name=paper][value={paper}]").check()
        seen = page.locator(".card:visible")
        assert 0 < seen.count() < total
        assert {c.get_attribute("data-paper") for c in seen.all()} == {paper}
    page.locator("input[name=paper][value='']").check()
    assert page.locator(".card:visible").count() == total
    page.locator("input[name=verdict][value=not-reproduced]").check()
    for selector in (".card:visible", "#scoreboard tbody tr:visible"):
        found = page.locator(selector)
        assert found.count() > 0
        for item in found.all():
            assert "not-reproduced" in str(item.get_attribute("data-verdicts")).split()
    rows = page.locator("#scoreboard tbody tr").count()
    visible = page.locator("#scoreboard tbody tr:visible").count()
    status = page.locator("#shown").inner_text()
    assert status.endswith(f"{visible} of {rows} claims")
    # The choice is kept in the address, so that it can be sent to somebody.
    page.reload()
    assert page.locator("input[name=verdict][value=not-reproduced]").is_checked()
    assert page.locator("#scoreboard tbody tr:visible").count() == visible


def test_every_page_opens_without_an_error_or_a_failed_request(
    site: Path, small: Path, visit: Any
) -> None:
    pages = [p for s in (site, small) for p in s.rglob("*.html") if "api" not in p.parts]
    assert len(pages) > 40
    visitor = visit()
    for path in pages:
        page = visitor.open(path)
        broken = page.evaluate(
            "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode()"
            ".then(() => null, () => i.src); })).then(found => found.filter(Boolean))"
        )
        assert broken == [], path
        assert page.locator("h1").count() >= 1, path
    assert visitor.problems == []


def follow(page: Any, link: Any) -> None:
    """Click a link to another page and wait until that is there: the click alone does not wait."""
    with page.expect_navigation(wait_until="load"):
        link.click()


def test_figure_pages_lead_to_each_other_and_to_the_notebook(site: Path, visit: Any) -> None:
    page = visit().open(site / "index.html")
    count = page.locator(".card").count()
    follow(page, page.locator(".card a").first)
    seen = [page.url]
    while page.locator("a[rel=next]").count():
        follow(page, page.locator("a[rel=next]"))
        seen.append(page.url)
    assert len(set(seen)) == count
    follow(page, page.locator("a[rel=prev]"))
    assert page.url == seen[-2]
    follow(page, page.get_by_role("link", name="Read the notebook"))
    assert "/notebooks/" in page.url


def test_link_to_a_claims_cell_arrives_there(site: Path, visit: Any) -> None:
    page = visit().open(site / "index.html")
    follow(page, page.locator("#scoreboard .source a").first)
    cell = page.locator(":target")
    assert cell.count() == 1
    assert "declare(" in cell.inner_text()
    assert cell.bounding_box()["y"] < DESKTOP["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_accessibility_at_level_aa_and_no_sideways_scrolling(
    site: Path, small: Path, visit: Any, viewport: dict[str, int], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {
        "runOnly": {"type": "tag", "values": LEVEL_AA},
        "resultTypes": ["violations"],
        "preload": False,  # it would read style sheets over again, which files may not
    }
    figure = next((site / "figures").glob("*.html"))
    notebook = next((site / "notebooks").glob("*/1*.html"))
    pages = [site / "index.html", figure, notebook, site / "replication.html"]
    pages += [small / "index.html", small / "notebooks" / "quick" / "11_a.html"]
    if viewport is DESKTOP:  # pdoc's pages
        pages += [site / "api" / "rclib.html", site / "api" / "rclib" / "measure.html"]
    visitor = visit(viewport, scheme)
    for path in pages:
        page = visitor.open(path)
        assert visitor.overflow() <= 0, path
        found = axe.run(page, options=options)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"


def test_keyboard_reaches_the_filter_and_the_cards(small: Path, visit: Any) -> None:
    page = visit().open(small / "index.html")
    active = "document.activeElement"

    def tab_to(condition: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(f"(e => {condition})({active})"):
                return
        pytest.fail(f"no tab stop with {condition}")

    page.keyboard.press("Tab")
    assert page.evaluate(f"{active}.textContent") == "Skip to the content"
    tab_to("e.name === 'paper'")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("input[name=paper]:checked").get_attribute("value") == "B"
    assert page.locator(".card:visible").count() == 1
    tab_to("e.name === 'verdict'")
    tab_to("e.closest('.card') !== null")
    outline = page.evaluate(f"getComputedStyle({active}.closest('.card')).outlineStyle")
    assert outline == "solid"  # it can be seen where the keyboard is
    page.keyboard.press("Enter")
    page.wait_for_url("**/figures/spikes_esd.html")


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
    page.goto((small / "figures" / "spikes_esd.html").as_uri())
    assert page.evaluate(background) == dark
    other = visit(scheme="dark").open(small / "index.html")
    assert other.evaluate(background) == dark


def test_claims_open_on_demand_on_a_phone(small: Path, visit: Any) -> None:
    page = visit(PHONE).open(small / "index.html")
    assert shown(page, "#scoreboard .statement") == []
    page.locator("#scoreboard summary").first.click()
    assert len(shown(page, "#scoreboard .statement")) == 4
    left, right = (
        page.locator("#scoreboard tbody tr").first.locator("td").nth(i).bounding_box()
        for i in (1, 2)
    )
    assert left["y"] == right["y"]  # the profiles stand side by side on a phone as well
    assert left["x"] < right["x"]
