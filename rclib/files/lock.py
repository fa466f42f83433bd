"""One `make figures` at a time in a checkout: a command that holds a lock while it runs.

    python -m rclib.files.lock build/quick.lock -- make ...

The second one says who is first and waits. The lock is the operating system's, on the open
file: it ends with the process that holds it, however that ends, and the file may stay.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rclib.files.command import command, run_under
from rclib.files.terminal import note

__all__ = ["main", "only_one"]


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold the lock of `path`; waits, and says so on standard error, while another holds it."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            note(
                f"another run is under way in this checkout (process {holder}); waiting for it",
            )
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


@command(kept="what was finished is kept")
def main(argv: Sequence[str] | None = None) -> int:
    """Run `COMMAND` under the lock `PATH`: PATH -- COMMAND ...; returns the command's status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) < 3 or arguments[1] != "--":
        note("usage: python -m rclib.files.lock PATH -- COMMAND ...")
        return 2
    with only_one(Path(arguments[0])):
        # The lock's own file does not go on to the command, or an orphan of it would keep the lock.
        return run_under(arguments[2:])


if __name__ == "__main__":
    sys.exit(main())
