"""A real browser for the tests of the site: Chromium of the system, by Playwright, with the
network cut."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

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

    def open(self, path: Path, anchor: str = "") -> Any:
        self.page.goto(path.as_uri() + (f"#{anchor}" if anchor else ""), wait_until="load")
        return self.page

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def shown(page: Any, selector: str) -> list[str]:
    return [e.inner_text() for e in page.locator(selector).all() if e.is_visible()]


def follow(page: Any, link: Any) -> None:
    """Click a link to another page and wait until that is there: the click alone does not wait."""
    with page.expect_navigation(wait_until="load"):
        link.click()


def accessible(page: Any, where: Path) -> None:
    """axe-core finds nothing against level AA."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {
        "runOnly": {"type": "tag", "values": LEVEL_AA},
        "resultTypes": ["violations"],
        "preload": False,  # it would read style sheets over again, which files may not
    }
    found = axe.run(page, None, options)
    assert found.violations_count == 0, f"{where}: {found.generate_report()}"
