"""The figures that are committed: complete, drawn, vector where lines are, and without a date."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PICTURES = sorted(
    path
    for folder in (ROOT / "figures").iterdir()
    if folder.name != "quick"
    for path in folder.rglob("*.png")
)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_committed_figure(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.info.keys() <= {"dpi", "transparency"}
        shades = np.asarray(picture.convert("L"), float)
    assert shades.std() > 5
    assert shades.max() > 250  # on white
    pdf = path.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"/Font" in pdf
    assert not re.search(rb"/(CreationDate|ModDate)", pdf)
    for kind in (".png", ".pdf", ".csv"):
        assert path.with_suffix(kind).stat().st_size < 1_000_000
    data = pd.read_csv(path.with_suffix(".csv"))
    assert len(data) >= 1
    assert data.select_dtypes("number").shape[1] >= 1


def test_figures_were_found() -> None:
    assert len(PICTURES) > 20
