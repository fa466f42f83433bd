"""Fixtures of the tests in a browser.

They are skipped where no browser is installed; `RCLIB_BROWSER=required`, which `.ci/run` sets
after it has installed one, makes that an error.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from site_browser import DESKTOP, FLAGS, NAMES, Visitor, unavailable


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
