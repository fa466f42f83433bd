"""plots.saving: pictures that are too large keep the colours of what is pale."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from rclib.plots import saving
from rclib.plots.style import colour, use_style


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_pale_bands_keep_their_colours_in_a_palette(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six lines with bands that overlap, over noise that fills the palette: of all pixels at most
    one in a thousand is more than 16 of 255 off, and most are nearly what they were."""
    use_style()
    figure, panels = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
    x = np.linspace(0, 6, 80)
    for k in range(6):
        panels[0].plot(x, np.sin(x + k), color=colour(k))
        panels[0].fill_between(x, np.sin(x + k) - 0.4, np.sin(x + k) + 0.4, color=colour(k),
                               alpha=0.15, lw=0)  # fmt: skip
    panels[1].imshow(np.random.default_rng(0).random((60, 60)), cmap="magma")
    monkeypatch.setattr(saving, "MAX_PNG", 10**9)
    whole = _pixels(saving.rendered(figure, "s")["png"])
    monkeypatch.setattr(saving, "MAX_PNG", 0)
    few = _pixels(saving.rendered(figure, "s")["png"])
    plt.close(figure)
    assert len(np.unique(few.reshape(-1, 3), axis=0)) <= 256
    off = np.abs(few - whole).max(2)
    assert (off > 16).mean() < 1e-3
    assert np.median(off[off > 0]) <= 4
