"""What the tests of experiments share: a store of runs of their own, no bars, no open figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from rclib.data.images import Dataset, load


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store for each test. A file whose tests share their runs has a fixture of this name."""
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The digits that ship with scikit-learn, whole: 1,797 images of 8 x 8 pixels."""
    return load("digits")
