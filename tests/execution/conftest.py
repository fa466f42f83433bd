"""Forked kernels for the tests that ask for them; `test_kernels.py` has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import quick_kernels


@pytest.fixture(scope="module")
def offered() -> Iterator[None]:
    with quick_kernels.to_be_had():
        yield


@pytest.fixture
def quick_kernel(offered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_kernels.use(monkeypatch)
