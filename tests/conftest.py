"""The order of the tests: what takes longest begins early, so that no worker ends alone with it."""

from __future__ import annotations

import pytest

LONG = ("test_site_browser.py",)  # minutes in a browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks first, as they were collected, then the long files, then the others."""

    def place(item: pytest.Item) -> int:
        if item.path.suffix == ".ipynb":
            return 0
        return 1 if item.path.name in LONG else 2

    items.sort(key=place)  # in one group the order stays
