"""One `make figures` at a time in a checkout: a command that holds a lock while it runs.

    python -m rclib.files.lock build/quick.lock -- make ...

The second one says who is first and waits. The lock is the operating system's, on the open
file: it ends with the process that holds it, however that ends, and the file may stay.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run `COMMAND` under the lock `PATH`: PATH -- COMMAND ...; returns the command's status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) < 3 or arguments[1] != "--":
        note("usage: python -m rclib.files.lock PATH -- COMMAND ...")
        return 2
    try:
        with only_one(Path(arguments[0])):
            # Open files go on to the command, since a make above hands its job slots down so;
            # the lock's own does not, or an orphan of the command would keep the lock.
            process = subprocess.Popen(arguments[2:], close_fds=False)
            try:
                status = process.wait()
            except KeyboardInterrupt:  # the command got it too
                process.wait()
                note("interrupted; what was finished is kept")
                return 130
    except OSError as error:
        note(f"error: {error}")
        return 1
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main())
