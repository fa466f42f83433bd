"""A file that is cut short while its pages are mapped: one line instead of "Bus error".

Reading a page behind the end of a mapped file ends the process (SIGBUS). The size is looked at
before every mapping, but somebody may write to the file in the moment after. Python's own handlers
run when the reading is over, which it never is; so this one is called by the system, and ends the
process itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["named"]

_kept: list[Any] = []  # a handler that Python forgets is called all the same


@contextlib.contextmanager
def named(which: Callable[[], str]) -> Iterator[None]:
    """While the block lasts, SIGBUS prints which() on standard error and ends the process with 2.

    Nothing where the system has no such signal, or this is not the main thread.
    """
    number = getattr(signal, "SIGBUS", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_: int) -> None:
        with contextlib.suppress(Exception):
            os.write(2, f"error: {which()}\n".encode("utf-8", "backslashreplace"))
        os._exit(2)

    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = kind(handle)
    _kept.append(handler)
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before = libc.signal(number, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(number, before)
        _kept.remove(handler)
