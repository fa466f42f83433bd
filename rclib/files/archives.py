"""Archives from elsewhere, read with bounds.

An archive that somebody else made may declare more than fits in memory, or unpack to a thousand
times its size. Here what a library reads from one is bounded at every call.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile
import zipfile
import zlib
from typing import IO

__all__ = ["DAMAGE", "Bounded", "some", "stream_md5"]

# What the standard library raises on a damaged archive.
DAMAGE = (
    *(OSError, EOFError, ValueError, NotImplementedError, struct.error, zlib.error),
    *(zipfile.BadZipFile, tarfile.TarError),
)


def stream_md5(file: IO[bytes]) -> str:
    """md5 (hex) of an open file from its start, in bounded memory; leaves it at its start."""
    file.seek(0)
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


class Bounded(io.RawIOBase):
    """A binary file, for reading, that gives at most `step` bytes a call and ends at `end`.

    zipfile reads a zip's whole directory in one call and tarfile an extended header, each of
    whatever size the archive declares; neither has a bound of its own. Raises ValueError.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, *, step: int, end: int) -> None:
        super().__init__()
        self._file, self._step, self._end = file, step, end

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Place in the file, in bytes."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; ValueError for one beyond the end."""
        if whence == os.SEEK_SET and offset > self._end:
            raise ValueError(f"it goes on beyond {self._end:,} bytes")
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes; ValueError for more than a step or beyond the end."""
        room = min(self._step, max(0, self._end - self._file.tell())) + 1
        content = self._file.read(room if size is None or size < 0 else min(size, room))
        if len(content) > self._step:
            raise ValueError(f"it declares a part of more than {self._step:,} bytes")
        if self._file.tell() > self._end:
            raise ValueError(f"it goes on beyond {self._end:,} bytes")
        return content


def some(values: list[str], most: int = 12) -> str:
    """A list for a message: its first `most` entries, each cut short, and how many there are."""
    shown = [repr(value if len(value) <= 40 else value[:40] + "…") for value in values[:most]]
    if len(values) > most:
        shown.append(f"... {len(values):,} in all")
    return f"[{', '.join(shown)}]"
