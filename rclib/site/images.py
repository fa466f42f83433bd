"""Thumbnails of figures, and the size that a page reserves for a picture before it is there."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

__all__ = ["size", "size_of", "thumbnail"]


def size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture in pixels. ValueError naming the file if it is none."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except Exception as error:  # Pillow raises a dozen kinds
        raise ValueError(f"{path} is not a picture: {error}") from None


def size_of(payload: bytes) -> tuple[int, int]:
    """(width, height) in pixels of a picture given as bytes; ValueError if it is none."""
    try:
        with Image.open(io.BytesIO(payload)) as picture:
            return picture.size
    except Exception as error:  # Pillow raises a dozen kinds
        raise ValueError(f"an output is not a picture: {error}") from None


def thumbnail(path: Path, *, width: int = 640) -> bytes:
    """PNG of a figure, at most `width` pixels wide, on white; the same bytes every time.

    ValueError naming the file if it is no picture.
    """
    try:
        with Image.open(path) as picture:
            rgba = picture.convert("RGBA")
    except Exception as error:  # Pillow raises a dozen kinds
        raise ValueError(f"{path} is not a picture: {error}") from None
    page = Image.new("RGBA", rgba.size, "white")
    page.alpha_composite(rgba)
    small = page.convert("RGB")
    small.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
    # A palette keeps maps of noise small; it covers the ends of a colour scale as well.
    reduced = small.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    reduced.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
