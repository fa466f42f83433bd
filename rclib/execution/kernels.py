"""Kernels at a fifth of the price: while a command runs, one process forks them.

    python -m rclib.execution.kernels [--at-once] -- make ...

Starting a kernel costs 3 CPU seconds, nearly all for imports. Under this command the first kernel
that is asked for starts a process that has imported the packages (`rclib.execution.kernel_server`);
it and all later ones are forked from it. With `--at-once` that process begins its imports before a
kernel is asked for, while the command still finds out what there is to do.
`rclib.execution.provisioner` asks for papermill, nbclient and nbval. Where it cannot fork (another
system than Linux, `RCLIB_KERNEL=plain`, a kernel that must differ) kernels are started as ever.
Nothing is left behind, however the command ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

from rclib.files.command import command, run_under
from rclib.files.terminal import note

__all__ = ["OFFER", "address", "main", "offered", "serving"]

OFFER = "RCLIB_KERNELS"  # environment variable: where kernels are to be had
LIVES = 5  # servers that may end early before kernels are ordinary ones


def address(name: str) -> str:
    """A name as an abstract socket: known to the system alone, so no file can stay behind."""
    return f"\0rclib-kernels-{name}"


def offered() -> bool:
    """Whether kernels of this process may be forked ones."""
    return bool(os.environ.get(OFFER)) and os.environ.get("RCLIB_KERNEL") != "plain"


@contextlib.contextmanager
def serving(*, at_once: bool = False) -> Iterator[None]:
    """Kernels of this process and of those it starts are forked while this lasts.

    The first kernel waits for the imports; without kernels nothing is started, except `at_once`.
    """
    plain = os.environ.get("RCLIB_KERNEL") == "plain"
    if plain or sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        yield
        return
    name, before = secrets.token_hex(16), os.environ.get(OFFER)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address(name))
    listener.listen(64)
    over, end = os.pipe()
    thread = threading.Thread(
        target=_keep, args=(listener, over, dict(os.environ), at_once), daemon=True
    )
    thread.start()
    os.environ[OFFER] = name
    try:
        yield
    finally:
        os.environ.pop(OFFER, None)
        if before is not None:
            os.environ[OFFER] = before
        os.close(end)
        thread.join()
        os.close(over)


def _keep(listener: socket.socket, over: int, variables: Mapping[str, str], at_once: bool) -> None:
    """Start a server when one is asked for, and another if it ends, until `over` is closed."""
    silent = None if variables.get("RCLIB_KERNEL") == "verbose" else subprocess.DEVNULL
    with listener:
        for life in range(LIVES):
            asked = life > 0 or not at_once
            if asked and over in select.select([listener.fileno(), over], [], [])[0]:
                return
            # Its standard input is a pipe that ends with this process, however that ends.
            with subprocess.Popen(
                [sys.executable, "-m", "rclib.execution.kernel_server", str(listener.fileno())],
                cwd="/",
                env={**variables, "TQDM_DISABLE": "1"},  # as the runner sets it
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=silent,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            ) as server:
                watch = os.pidfd_open(server.pid)
                select.select([watch, over], [], [])
                os.close(watch)
                assert server.stdin is not None
                server.stdin.close()
                try:
                    server.wait(0.2)
                except subprocess.TimeoutExpired:  # in the middle of its imports
                    server.kill()


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run `[--at-once] -- COMMAND ...` with forked kernels; returns the command's status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    at_once = arguments[:1] == ["--at-once"]
    del arguments[: int(at_once)]
    if len(arguments) < 2 or arguments[0] != "--":
        note("usage: python -m rclib.execution.kernels [--at-once] -- COMMAND ...")
        return 2
    try:
        with serving(at_once=at_once):
            return run_under(arguments[1:])
    except KeyboardInterrupt:  # the command says so
        return 130


if __name__ == "__main__":
    sys.exit(main())
