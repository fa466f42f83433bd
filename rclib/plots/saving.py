"""A figure as files: the picture for screens and the one for print, the same bytes every time.

A draft is for a screen alone. It has a third of the price, and every figure of a first
`make figures` is one; `python -m rclib redraw` makes the files for print of it.
"""

from __future__ import annotations

import io

from matplotlib import rcParams
from matplotlib.figure import Figure

from rclib.plots.style import stamp

__all__ = ["MAX_PNG", "rendered"]

MAX_PNG = 60_000  # bytes; beyond, 256 colours do: a notebook's figures stay below 500 kB


def rendered(figure: Figure, small_print: str, *, draft: bool = False) -> dict[str, bytes]:
    """{"png": ..., "pdf": ...} of a figure with its small print; neither holds a date.

    draft : the png alone, with as many dots as a screen shows it with (`figure.dpi`).
    Raises what matplotlib raises for a figure that cannot be drawn, e.g. ValueError for broken
    mathematics.
    """
    files: dict[str, bytes] = {}
    if not draft:  # the layout is solved once, not once a file format
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    stamp(figure, small_print)
    dots = "figure" if draft else rcParams["savefig.dpi"]
    for kind, undated in (("png", "Software"), ("pdf", "CreationDate")):
        if draft and kind == "pdf":
            break
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata={undated: None}, dpi=dots)
        files[kind] = buffer.getvalue()
    if not draft and len(files["png"]) > MAX_PNG:
        files["png"] = _fewer_colours(files["png"])
    return files


def _fewer_colours(png: bytes) -> bytes:
    """The same picture with a palette of 256 colours, about a quarter of the size.

    The palette covers the colours that occur evenly (not by how often they occur), so that the
    ends of a colour scale stay what they are; then each of its colours moves to the mean of those
    that it stands for, without which pale bands turn grey or take another band's colour.
    """
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
        )
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
