"""What a command prints, whatever the terminal, the locale and the names in a file are like.

Names come from strangers: control characters in them are escaped, so that no name moves the
terminal. What a stream's encoding cannot hold is written in letters (alpha) or as `?`: a
computation of an hour is not lost to a locale.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import TextIO

__all__ = ["guarded", "json_safe", "note", "report"]

_LETTERS = {"α": "alpha", "λ": "lambda", "σ": "sigma", "γ": "gamma", "η": "eta", "χ": "chi",
            "×": "x", "²": "^2", "–": "-", "−": "-", "…": "...", "→": "->"}  # fmt: skip


def _escaped(text: str) -> str:
    """What is not printable, but for the ends of lines, as Python writes it."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)


def json_safe(text: str) -> str:
    """JSON whose text holds no character that a terminal could take for a command."""

    def escape(c: str) -> str:
        if c == "\n" or c.isprintable():
            return c
        raw = c.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{raw[i]:02x}{raw[i + 1]:02x}" for i in range(0, len(raw), 2))

    return "".join(map(escape, text))


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


def report(text: str) -> None:
    """Print to standard output."""
    _write(sys.stdout, _escaped(text) + "\n")


def note(text: str) -> None:
    """Print one line to standard error."""
    # What stands in a stream's way there cannot be said anywhere.
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, _escaped(" ".join(text.split())) + "\n")


@contextlib.contextmanager
def _interruptions() -> Iterator[list[bool]]:
    """[whether Ctrl-C was pressed]: a library may turn the interruption into another error."""
    pressed = [False]
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def pressing(number: int, frame: object) -> None:
        pressed[0] = True
        raise KeyboardInterrupt

    if ours:
        signal.signal(signal.SIGINT, pressing)
    try:
        yield pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def guarded(work: Callable[[], int]) -> int:
    """Exit code of a command, with one line on standard error for whatever went wrong.

    RCLIB_TRACEBACK=1 prints the traceback of an error that nobody foresaw.
    """
    with warnings.catch_warnings(), _interruptions() as pressed:
        if not sys.warnoptions:  # torch's and numpy's are for programmers
            warnings.simplefilter("ignore")
        try:
            status = work()
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
        except BrokenPipeError:  # the reader of our output has seen enough
            _to_nowhere()
            return 0
        except KeyboardInterrupt:
            return _interrupted()
        except Exception as error:
            if pressed[0]:
                return _interrupted()
            if os.environ.get("RCLIB_TRACEBACK", "") not in ("", "0"):
                traceback.print_exc()
            note(f"error: {_line(error)}")
            _to_nowhere()
            return 2


def _interrupted() -> int:
    note("interrupted")
    _to_nowhere()
    return 130


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (ValueError, OSError)):  # CheckpointError and FamilyError are ValueErrors
        return text or type(error).__name__
    if isinstance(error, MemoryError) or "allocate memory" in text or "DefaultCPUAllocator" in text:
        return f"not enough memory ({text[:200] or type(error).__name__})"
    return (
        f"unexpected {type(error).__name__}: {text[:300]} (RCLIB_TRACEBACK=1 shows where; please "
        "report it)"
    )


def _to_nowhere() -> None:
    """What is left in standard output's buffer cannot be written, or is half a table."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
