"""What is printed, whatever the terminal, the locale and the names in a file are like.

Names come from strangers: control characters in them are escaped, so that no name moves the
terminal, changes its title or writes over a line. What a stream's encoding cannot hold is written
in letters (alpha) or as `?`: a computation of an hour is not lost to a locale.

Everything that rclib prints goes through `report`, `note` or a `Parser` of the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import Any, TextIO

__all__ = ["Parser", "note", "printable", "report", "to_nowhere"]

_LETTERS = {"α": "alpha", "λ": "lambda", "σ": "sigma", "γ": "gamma", "η": "eta", "χ": "chi",
            "×": "x", "²": "^2", "–": "-", "−": "-", "…": "...", "→": "->"}  # fmt: skip


def printable(text: str) -> str:
    """What is not printable, but for the ends of lines, as Python writes it."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed by whoever started this process: nobody listens
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeError, LookupError):
        text = "".join(c if _fits(c, encoding) else _LETTERS.get(c, "?") for c in text)
    stream.write(text)


def _fits(c: str, encoding: str) -> bool:
    try:
        c.encode(encoding)
    except (UnicodeError, LookupError):
        return c.isascii()
    return True


def report(text: str, *, flush: bool = False) -> None:
    """Print lines to standard output."""
    _write(sys.stdout, printable(text) + "\n")
    if flush and sys.stdout is not None:
        sys.stdout.flush()


def note(text: str) -> None:
    """Print one line to standard error, at once."""
    # What stands in a stream's way there cannot be said anywhere.
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, printable(" ".join(text.split())) + "\n")
        if sys.stderr is not None:
            sys.stderr.flush()


class Parser(argparse.ArgumentParser):
    """A parser of the command line that repeats nothing to the terminal as it was given."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable(message), file)


def to_nowhere() -> None:
    """What is left in standard output's buffer cannot be written, or is half a table: the end of
    the process must not say so again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
