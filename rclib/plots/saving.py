"""A figure as files: the picture for screens and the one for print, the same bytes every time."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from rclib.plots.style import stamp

__all__ = ["MAX_PNG", "rendered"]

MAX_PNG = 60_000  # bytes; beyond, 256 colours do: a notebook's figures stay below 500 kB


def rendered(figure: Figure, small_print: str) -> dict[str, bytes]:
    """{"png": ..., "pdf": ...} of a figure with its small print; neither holds a date.

    Raises what matplotlib raises for a figure that cannot be drawn, e.g. ValueError for broken
    mathematics.
    """
    files: dict[str, bytes] = {}
    # The layout is solved once, not once a file format.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    stamp(figure, small_print)
    for kind, meta in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=meta)
        files[kind] = buffer.getvalue()
    if len(files["png"]) > MAX_PNG:
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
