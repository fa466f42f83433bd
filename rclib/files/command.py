"""What every command does when it ends early: one line instead of a traceback."""

from __future__ import annotations

import functools
import io
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import ParamSpec

from rclib.files.interrupt import pressed
from rclib.files.terminal import note, to_nowhere

__all__ = ["command", "run_under"]

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
            interrupted = f"interrupted{'; ' + kept if kept else ''}"
            stopped = [False]
            try:
                with pressed() as stopped:
                    status = main(*args, **kwargs)
                    if sys.stdout is not None:
                        sys.stdout.flush()
            except BrokenPipeError:
                to_nowhere()
                return 0
            except KeyboardInterrupt:
                return _say(interrupted, 130)
            except Exception as error:
                if stopped[0]:  # a library made another error of it
                    return _say(interrupted, 130)
                if not isinstance(error, (ValueError, OSError, RuntimeError)):
                    raise
                line = " ".join(str(error).split()) or type(error).__name__
                return _say(f"error: {line}", failed)
            return status

        return guarded

    return decorate


def _say(line: str, status: int) -> int:
    note(line)
    to_nowhere()
    return status


def run_under(arguments: Sequence[str]) -> int:
    """Run a command and wait for it; its status as a shell has it.

    The terminal gives Ctrl-C to the command as well, which is waited for however often it comes.
    Open files go on to the command, since a make above hands its job slots down so. Raises OSError
    for what cannot be run, and KeyboardInterrupt, after the command's end, where Ctrl-C came.
    """
    came: list[int] = []
    ours = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    ours = ours and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if ours else None
    try:
        status = subprocess.Popen(arguments, close_fds=False).wait()
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
    return 128 - status if status < 0 else status
