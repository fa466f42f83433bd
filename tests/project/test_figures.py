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

# Matplotlib's own first colours: of a figure that was drawn without the project's style.
DEFAULTS = [(0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E), (0x2C, 0xA0, 0x2C), (0xD6, 0x27, 0x28)]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_committed_figure(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.info.keys() <= {"dpi", "transparency"}
        shades = np.asarray(picture.convert("L"), float)
        colours = picture.convert("RGB").getcolors(2**24) or []
    assert shades.std() > 5
    assert shades.max() > 250  # on white
    counts, shown = (np.array(column) for column in zip(*colours, strict=True))
    for other in DEFAULTS:  # one forgotten line has more dots than a palette's neighbours
        assert counts[abs(shown - other).max(1) <= 3].sum() < 150, "not a colour of the style"
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
