"""Thumbnails of figures, and the size that a page reserves for a picture before it is there."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

__all__ = ["size", "size_of", "smaller", "thumbnail"]

MOST_PIXELS = 50_000_000  # a few kilobytes can claim to be a picture of gigabytes
# What Pillow raises for damaged files besides OSError.
_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


@contextmanager
def _opened(source: Path | io.BytesIO) -> Iterator[Image.Image]:
    """A PNG of a sane size; ValueError for everything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(source, formats=["PNG"])
        with picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} pixels are too many")
            yield picture
    except _ERRORS as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture in pixels. ValueError naming the file if it is none."""
    try:
        with _opened(path) as picture:
            return picture.size
    except Exception as error:  # Pillow raises a dozen kinds
        raise ValueError(f"{path} is not a picture: {error}") from None


def size_of(payload: bytes) -> tuple[int, int]:
    """(width, height) in pixels of a picture given as bytes; ValueError if it is none."""
    try:
        with _opened(io.BytesIO(payload)) as picture:
            return picture.size
    except Exception as error:  # Pillow raises a dozen kinds
        raise ValueError(f"an output is not a picture: {error}") from None


def smaller(path: Path) -> bytes:
    """The same pixels as WebP, about half as large. ValueError naming the file if it is no
    picture."""
    buffer = io.BytesIO()
    try:
        with _opened(path) as picture:
            picture.convert("RGBA").save(buffer, format="WEBP", lossless=True, method=2, exact=True)
    except ValueError as error:
        raise ValueError(f"{path} is not a picture: {error}") from None
    return buffer.getvalue()


def thumbnail(path: Path, *, width: int = 640) -> tuple[bytes, tuple[int, int]]:
    """WebP of a figure, at most `width` pixels wide, on white, and its (width, height); the same
    bytes every time.

    ValueError naming the file if it is no picture.
    """
    try:
        with _opened(path) as picture:
            rgba = picture.convert("RGBA")
    except Exception as error:  # Pillow raises a dozen kinds
        raise ValueError(f"{path} is not a picture: {error}") from None
    page = Image.new("RGBA", rgba.size, "white")
    page.alpha_composite(rgba)
    small = page.convert("RGB")
    small.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=85, method=4)
    return buffer.getvalue(), small.size
