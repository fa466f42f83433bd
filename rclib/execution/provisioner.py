"""How jupyter_client gets its kernels from `rclib.execution.kernel_server`: a provisioner.

It is registered as an entry point for all tools that use jupyter_client (papermill, nbclient,
nbval, Jupyter); `register` makes it the default in one process, installed or not. Whatever keeps
a kernel from being forked, an ordinary one is started.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from rclib.execution.kernel_server import LARGEST, circumstances, peer
from rclib.execution.kernels import OFFER, address, offered
from rclib.files.terminal import note

__all__ = ["NAME", "Forked", "ForkedProvisioner", "RefusedError", "register"]

NAME = "rclib-forked"
GROUP = KernelProvisionerFactory.GROUP_NAME
PATIENCE = 120.0  # seconds: the first kernel waits for the server's imports
_KNOWN = {"env", "cwd", "stdout", "stderr", "extra_arguments", "kernel_id", "session_name"}


class RefusedError(Exception):
    """No forked kernel; the message says why."""


def register() -> None:
    """Make forked kernels the default of this process."""
    factory = KernelProvisionerFactory.instance()
    value = f"{ForkedProvisioner.__module__}:{ForkedProvisioner.__name__}"
    factory.provisioners[NAME] = EntryPoint(NAME, value, GROUP)
    factory.default_provisioner_name = NAME


class Forked:
    """A forked kernel, with the methods of `subprocess.Popen` that jupyter_client uses."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid, self.connection = pid, connection
        self.returncode: int | None = None
        try:
            self._process = os.pidfd_open(pid)
        except ProcessLookupError:  # over already
            self._process = -1

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.returncode is None and self._process >= 0:
            if not select.select([self._process], [], [], 0)[0]:
                return None
            os.close(self._process)
            self._process = -1
        return self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """The exit status when it has ended; 1 if the server is gone, which alone knows it.

        Raises TimeoutError when it runs longer than `timeout` seconds.
        """
        if self.returncode is None:
            if self._process >= 0 and not select.select([self._process], [], [], timeout)[0]:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            try:
                self.connection.settimeout(5)
                self.returncode = int(json.loads(self.connection.recv(LARGEST))["status"])
            except (OSError, ValueError):
                self.returncode = 1
            self.connection.close()
            if self._process >= 0:
                os.close(self._process)
                self._process = -1
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self._process >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class ForkedProvisioner(LocalProvisioner):
    """Kernels from the server that `RCLIB_KERNELS` names, else ordinary ones."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Launch a kernel with a command."""
        try:
            process = _fork(cmd, kwargs)
        except (RefusedError, OSError, ValueError) as error:
            _say(f"ordinary, {error}")
            return await super().launch_kernel(cmd, **kwargs)
        _say(f"forked, process {process.pid}")
        self.process = cast(Any, process)
        self.pid = self.pgid = process.pid  # it leads a session of its own
        self.cwd = kwargs.get("cwd") or Path.cwd()
        return self.connection_info


def _say(text: str) -> None:
    if os.environ.get("RCLIB_KERNEL") == "verbose":
        note(f"kernel: {text}")


def _fork(command: list[str], given: dict[str, Any]) -> Forked:
    """Ask for a kernel; RefusedError says why there is none."""
    variables = dict(os.environ if given.get("env") is None else given["env"])
    if not offered():
        raise RefusedError(f"{OFFER} is not set")
    if not given.keys() <= _KNOWN:
        raise RefusedError(f"unknown arguments {sorted(given.keys() - _KNOWN)}")
    if any(name.startswith("COVERAGE_PROCESS_") for name in variables):
        raise RefusedError("it is to be measured by coverage from its start")
    files = []
    for name, default in (("stdout", 1), ("stderr", 2)):
        file = default if given.get(name) is None else given[name]
        files.append(file if isinstance(file, int) else file.fileno())
    if min(files) < 0:
        raise RefusedError("its output goes to a pipe of subprocess")
    request = {
        "command": command,
        "folder": os.path.abspath(given.get("cwd") or "."),
        "variables": variables | {"JPY_PARENT_PID": str(os.getpid())},
        "circumstances": circumstances(),
    }
    for _ in range(2):  # a server that is out of date ends, and the next one answers
        answer, connection = _ask(json.dumps(request).encode(), files)
        if "pid" in answer:
            return Forked(answer["pid"], connection)
        connection.close()
        if answer:
            break
    raise RefusedError(answer.get("refused", "the server ended"))


def _ask(request: bytes, files: list[int]) -> tuple[dict[str, Any], socket.socket]:
    """The server's answer, {} if it ended, and the connection to it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(address(os.environ[OFFER]))
        if peer(connection)[1] != os.getuid():
            raise RefusedError("the server is another user's")
        socket.send_fds(connection, [request], files)
        with contextlib.suppress(ConnectionError):
            return json.loads(connection.recv(LARGEST) or b"{}"), connection
        return {}, connection
    except BaseException:
        connection.close()
        raise
