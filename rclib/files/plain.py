"""Files from elsewhere, opened only when they are plain files of a sane size.

What stands at a path may be a pipe that never ends, a device, or a file larger than the memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["DataError", "check_replaceable", "open_plain", "read_plain"]

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # Windows has neither it nor named pipes of this kind


class DataError(RuntimeError):
    """A data file is missing, damaged or refused. The message says which, where and why."""


def open_plain(path: Path, most: int) -> BinaryIO:
    """Open a plain file of at most `most` bytes (a link to one counts as one).

    Raises DataError for pipes, devices and larger files, OSError for what the system refuses.
    """
    with contextlib.ExitStack() as stack:
        # Without O_NONBLOCK a named pipe would hold the process at open().
        file = stack.enter_context(
            open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCK))
        )
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise DataError(f"{path} is refused: not a plain file")
        if state.st_size > most:
            raise DataError(f"{path} is refused: {state.st_size:,} bytes, more than {most:,}")
        stack.pop_all()
    return file


def read_plain(path: Path, most: int) -> bytes:
    """Content of a plain file of at most `most` bytes; DataError and OSError as `open_plain`."""
    with open_plain(path, most) as file:
        content = file.read(most + 1)  # it may have grown since
    if len(content) > most:
        raise DataError(f"{path} is refused: more than {most:,} bytes")
    return content


def check_replaceable(path: Path, begin: bytes, what: str) -> None:
    """Raise ValueError unless a path is free, or holds such a file as will be written there.

    begin : what such a file begins with, whatever its case; what : what it is, for the message.
    An output that was named by mistake (the weights themselves) replaces nothing.
    """
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return  # what is no plain file is refused when it is written
        with open(path, "rb") as file:
            found = file.read(len(begin))
    except OSError:
        return
    if found.lower() != begin.lower():
        raise ValueError(f"{path} is there and is no {what}; remove it first, or give another name")
