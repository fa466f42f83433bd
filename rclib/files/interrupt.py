"""Ctrl-C in a command, from its first import to its end: one line and 130, never a traceback.

A command imports for up to seconds before its own code runs. `early`, called before all that, lets
Ctrl-C end the process at once; nothing has been written by then. `pressed` takes over when the
command's work begins. Needs next to nothing itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

__all__ = ["early", "pressed"]


def early() -> None:
    """From here on Ctrl-C ends this process with one line, unless somebody else handles it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: object) -> None:
    with contextlib.suppress(OSError):  # standard error is closed
        os.write(2, b"interrupted\n")
    os._exit(130)


@contextlib.contextmanager
def pressed() -> Iterator[list[bool]]:
    """[whether Ctrl-C was pressed], which raises KeyboardInterrupt while the block lasts.

    A library may turn the interruption into another error; this tells. Only in a main thread whose
    handler is Python's own or that of `early`, which comes back at the end.
    """
    import threading

    found = [False]
    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and before in (signal.default_int_handler, _end)

    def pressing(number: int, frame: object) -> None:
        found[0] = True
        raise KeyboardInterrupt

    if ours:
        signal.signal(signal.SIGINT, pressing)
    try:
        yield found
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
