"""What every command does when it ends early: one line instead of a traceback."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from typing import ParamSpec

from rclib.files.terminal import note, to_nowhere

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
                to_nowhere()
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
    to_nowhere()
    return status
