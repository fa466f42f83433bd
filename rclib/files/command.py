"""What every command does when it ends early: one line instead of a traceback."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

from rclib.files.terminal import note

__all__ = ["command"]

P = ParamSpec("P")


def command(*, failed: int = 1, kept: str = "") -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Decorator of a command's `main`, which returns its exit code.

    Ctrl-C gives "interrupted" and 130; ValueError, OSError and RuntimeError (the errors of data,
    folders and runs) one line and `failed`; a reader that has seen enough, 0. What an encoding does
    not hold is escaped. kept : what stays after Ctrl-C, in words.
    """

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(main)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")
            try:
                status = main(*args, **kwargs)
                if sys.stdout is not None:
                    sys.stdout.flush()
            except BrokenPipeError:
                _to_nowhere()
                return 0
            except KeyboardInterrupt:
                return _say(f"interrupted{'; ' + kept if kept else ''}", 130)
            except (ValueError, OSError, RuntimeError) as error:  # the library's own among them
                line = " ".join(str(error).split()) or type(error).__name__
                return _say(f"error: {line}", failed)
            return status

        return guarded

    return decorate


def _say(line: str, status: int) -> int:
    note(line)
    _to_nowhere()
    return status


def _to_nowhere() -> None:
    """What is left in standard output's buffer cannot be written: the end must not say so again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
