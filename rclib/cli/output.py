"""How a command ends: its exit code, and one line for whatever went wrong."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable

from rclib.files.cut_short import named
from rclib.files.interrupt import pressed
from rclib.files.terminal import note, printable, to_nowhere

__all__ = ["guarded", "json_safe"]


def json_safe(text: str) -> str:
    """JSON whose text holds no character that a terminal could take for a command."""

    def escape(c: str) -> str:
        if c == "\n" or c.isprintable():
            return c
        raw = c.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{raw[i]:02x}{raw[i + 1]:02x}" for i in range(0, len(raw), 2))

    return "".join(map(escape, text))


def guarded(work: Callable[[], int]) -> int:
    """Exit code of a command, with one line on standard error for whatever went wrong.

    RCLIB_TRACEBACK=1 prints the traceback of an error that nobody foresaw.
    """
    stopped = [False]
    try:
        with warnings.catch_warnings(), pressed() as stopped, named(_cut):
            if not sys.warnoptions:  # torch's and numpy's are for programmers
                warnings.simplefilter("ignore")
            status = work()
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
    except BrokenPipeError:  # the reader of our output has seen enough
        to_nowhere()
        return 0
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if stopped[0]:
            return _interrupted()
        if os.environ.get("RCLIB_TRACEBACK", "") not in ("", "0"):
            for line in traceback.format_exc().splitlines():
                print(printable(line), file=sys.stderr)
        note(f"error: {_line(error)}")
        to_nowhere()
        return 2


def _cut() -> str:
    """Which file is shorter than it was, of those that are read."""
    module = sys.modules.get("rclib.checkpoints.tensor_file")
    files = sorted(str(f.path) for f in (module.opened if module else ()) if f.change())
    return printable(f"{', '.join(files) or 'a file'}: was cut short while it was read")


def _interrupted() -> int:
    note("interrupted")
    to_nowhere()
    return 130


# What says so in torch and in the system's loader, which maps gigabytes of torch.
_NO_MEMORY = (
    "allocate memory",
    "DefaultCPUAllocator",
    "failed to map segment",
    "can't start new thread",
)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (ValueError, OSError)):  # CheckpointError and FamilyError are ValueErrors
        return text or type(error).__name__
    if isinstance(error, MemoryError) or any(said in text for said in _NO_MEMORY):
        return f"not enough memory ({text[:200] or type(error).__name__})"
    return (
        f"unexpected {type(error).__name__}: {text[:300]} (RCLIB_TRACEBACK=1 shows where; please "
        "report it)"
    )
