"""The process that forks kernels: the heavy packages imported once, and no line of rclib.

`rclib.execution.kernels` starts it with a listening socket; `rclib.execution.provisioner` asks it
for kernels. A request holds what an ordinary kernel would be started with. It is refused, and an
ordinary kernel started instead, wherever a fork could differ from that: other interpreter, other
environment variables (packages read them when they are imported), other limits, a folder with
modules of its own, a second thread in this process. Modules of rclib are imported by each kernel
itself, so an edited module is never stale; packages installed meanwhile end this process.
Needs the standard library alone until it serves.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import importlib
import importlib.util
import io
import json
import os
import random
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

__all__ = [
    "LARGEST",
    "Request",
    "Server",
    "become",
    "circumstances",
    "comparable",
    "main",
    "peer",
]

LARGEST = 2**20  # bytes of a message
LAUNCHER = "ipykernel_launcher"
# What notebooks use. pandas asks at import whether it runs in a kernel; see `_as_in_a_kernel`.
PACKAGES = (
    "pandas",
    "torch",
    "torch._dynamo",  # every optimizer of torch asks for it: 1.1 s
    "scipy.stats",
    "scipy.optimize",
    "sklearn.datasets",
    "seaborn",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "PIL.PngImagePlugin",
    "safetensors.numpy",
    "safetensors.torch",
    "threadpoolctl",
    "yaml",
    "tqdm.notebook",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "ipykernel.debugger",
    "IPython.core.completer",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.core.pylabtools",
    "IPython.display",
    "IPython.extensions.storemagic",
)
# These ask as well, in ways that cannot be answered here. Thrown away if they came along; so is
# rclib.
_ASKING = ("tqdm.auto", "tqdm.autonotebook", "matplotlib_inline", "rclib")
INLINE = "module://matplotlib_inline.backend_inline"  # what a kernel sets before anything else
# Variables that differ from kernel to kernel and that no package reads when it is imported.
_OWN = ("RCLIB_", "JPY_", "PYTEST_", "COVERAGE_", "MAKE", "MFLAGS")
_OWN_NAMES = {"PWD", "OLDPWD", "SHLVL", "_", "JUPYTER_DEFAULT_PROVISIONER_NAME"}
# Packages ask for the terminal's size when they print. readline, once imported, sets it for the
# processes that are started from then on, so pytest's workers have it and this process has not.
_OWN_NAMES |= {"COLUMNS", "LINES"}


@dataclass(frozen=True)
class Request:
    """A kernel that is asked for: command, folder, variables, owner and the files 1 and 2."""

    command: list[str]
    folder: str
    variables: dict[str, str]
    owner: int
    files: list[int]


def comparable(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that must be those of this process."""
    return {k: v for k, v in variables.items() if not k.startswith(_OWN) and k not in _OWN_NAMES}


def circumstances() -> dict[str, Any]:
    """What a process hands on to its children beside variables: limits, cores, priority, mask."""
    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {
        "limits": [list(resource.getrlimit(getattr(resource, name))) for name in names],
        "cores": sorted(os.sched_getaffinity(0)),
        "nice": os.nice(0),
        "umask": next((x.split()[1] for x in status.splitlines() if x.startswith("Umask")), ""),
    }


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as the operating system knows them."""
    size = struct.calcsize("3i")
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, user, _ = struct.unpack("3i", found)
    return pid, user


class Server:
    """Answers requests on `listener` until the file `leash` ends, that is, its owner is gone."""

    def __init__(self, listener: socket.socket, leash: int) -> None:
        self.listener, self.leash = listener, leash
        self.variables = comparable(os.environ)
        self.circumstances = circumstances()
        self.places = {place: _stamp(place) for place in sys.path}
        self.set: dict[str, str] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(leash, selectors.EVENT_READ)
        self.selector.register(listener, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """Returns None when it is over, and in each forked process what that has to become."""
        while True:
            for key, _ in self.selector.select():
                if key.fd == self.leash:
                    return None
                if key.fileobj is self.listener:
                    if not self._current():  # the next server answers
                        return None
                    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                        request = self._answer(self.listener.accept()[0])
                        if request is not None:
                            return request
                else:
                    self._ended(key.fd, *key.data)

    def _answer(self, connection: socket.socket) -> Request | None:
        connection.settimeout(5)
        owner, user = peer(connection)
        if user != os.getuid():
            connection.close()
            return None
        message, files, _, _ = socket.recv_fds(connection, LARGEST, 2)
        pid = -1
        try:
            wanted = json.loads(message)
            variables = wanted["variables"]
            found = Request(wanted["command"], wanted["folder"], variables | self.set, owner, files)
            reason = self._refusal(found, variables, wanted["circumstances"])
            if reason:
                connection.send(json.dumps({"refused": reason}).encode())
                return None
            pid = os.fork()
            if pid == 0:
                connection.detach()
                self._let_go(connection)
                return found
            connection.send(json.dumps({"pid": pid}).encode())
        finally:
            if pid != 0:
                for file in files:
                    os.close(file)
            if pid < 0:
                connection.close()
        self.selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
        return None

    def _refusal(
        self, request: Request, variables: Mapping[str, str], given: Mapping[str, Any]
    ) -> str:
        """Why a fork would not be what an ordinary kernel is; "" if it would."""
        place = request.command.index("-m") if "-m" in request.command else 0
        if request.command[place : place + 2] != ["-m", LAUNCHER]:
            return f"not a Python kernel: {request.command}"
        if request.command[:place] != sys.orig_argv[: sys.orig_argv.index("-m")]:
            return f"another interpreter: {request.command[:place]}"
        theirs = comparable(variables)
        for name in sorted(theirs.keys() | self.variables.keys()):
            if theirs.get(name) != self.variables.get(name):
                return f"another value of {name}: {theirs.get(name)!r}"
        for name, value in self.circumstances.items():
            if given.get(name) != value:
                return f"another {name}: {given.get(name)}"
        relative = [p for p in theirs.get("PYTHONPATH", "").split(os.pathsep) if p[:1] != "/"]
        if "PYTHONPATH" in theirs and relative:
            return f"a search path that depends on the folder: {relative}"
        # A kernel looks for modules (and matplotlib for its settings) in its folder first.
        tops = {name.partition(".")[0] for name in sys.modules} | {"matplotlibrc"}
        own = sorted(tops & {name.partition(".")[0] for name in os.listdir(request.folder)})
        if own:
            return f"{request.folder} has its own {own[0]}"
        tasks = len(os.listdir("/proc/self/task"))
        return f"{tasks} threads in the server" if tasks > 1 else ""

    def _ended(self, watch: int, pid: int, connection: socket.socket) -> None:
        """A kernel is over: its asker hears how."""
        self.selector.unregister(watch)
        os.close(watch)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):
            connection.send(json.dumps({"status": status}).encode())
        connection.close()

    def _let_go(self, connection: socket.socket) -> None:
        """Close in a forked process what belongs to the server alone."""
        for key in list(self.selector.get_map().values()):
            if key.data is not None:
                key.data[1].close()
                os.close(key.fd)
        self.selector.close()
        self.listener.close()

    def _current(self) -> bool:
        """Whether the folders with the packages that are in memory are as they were."""
        return all(_stamp(place) == stamp for place, stamp in self.places.items())

    def load(self) -> None:
        """Import the packages; those that are not installed are left out."""
        before = dict(os.environ)
        with _as_in_a_kernel():
            for name in PACKAGES:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
        # Some set variables when they are imported.
        self.set = {k: v for k, v in os.environ.items() if before.get(k) != v}
        _forget(_ASKING)
        files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
        used = {str(Path(file).parent) for file in files if file}
        used |= {str(Path(file).parent.parent) for file in files if file}
        self.places = {place: stamp for place, stamp in self.places.items() if place in used}
        gc.collect()
        gc.freeze()  # a collection in a kernel would copy every page that holds an object


@contextlib.contextmanager
def _as_in_a_kernel() -> Iterator[None]:
    """What a kernel has before its first cell: drawing backend, `get_ipython`, output in UTF-8."""
    backend = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = backend or INLINE
    builtins.get_ipython = lambda: SimpleNamespace(kernel=True)  # type: ignore[attr-defined]
    output, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO(), encoding="UTF-8")
    try:
        yield
    finally:
        sys.stdout = output
        del builtins.get_ipython  # type: ignore[attr-defined]
        if backend is None:
            del os.environ["MPLBACKEND"]


def _forget(names: Sequence[str]) -> None:
    """Undo the import of these modules and of all below them."""
    for name in list(sys.modules):
        if any(name == one or name.startswith(f"{one}.") for one in names):
            del sys.modules[name]
            parent, _, last = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(last, None)


def _stamp(place: str) -> int:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return 0


def _watch(owner: int) -> None:
    """End this process when `owner` ends, as an ordinary kernel does when its parent ends."""
    descriptor = os.pidfd_open(owner)

    def wait() -> None:
        select.select([descriptor], [], [])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def become(request: Request) -> None:
    """Run the kernel, in a forked process that from here on is like one that was started."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in zip((nothing, *request.files), (0, 1, 2), strict=True):
        os.dup2(source, target)
        os.close(source)
    os.environ.clear()
    os.environ.update(request.variables)
    os.chdir(request.folder)
    spec = importlib.util.find_spec(LAUNCHER)
    rest = request.command[request.command.index(LAUNCHER) + 1 :]
    sys.argv = [str(spec.origin) if spec else LAUNCHER, *rest]
    sys.orig_argv = list(request.command)
    # Draws without a seed differ from kernel to kernel, as they do from process to process.
    random.seed()
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.seed()
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.ORIGINAL_DIR = os.getcwd()
    _watch(request.owner)
    from ipykernel.kernelapp import IPKernelApp

    status: object = None
    try:
        # 1: its own watch, on the process that it was forked from, is off.
        IPKernelApp.launch_instance(parent_handle=1)
    except SystemExit as leaving:
        status = leaving.code
    _leave(status if isinstance(status, int) else int(status is not None))


def _leave(status: int) -> NoReturn:
    """End as the interpreter ends, but for taking apart what the server had imported: 0.3 s."""
    threading._shutdown()  # type: ignore[attr-defined]  # so do the children of multiprocessing
    atexit._run_exitfuncs()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def main() -> None:
    """Serve on the socket whose number is the argument; standard input is the leash."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0]  # the folder it was started in; a kernel adds its own
    server = Server(listener, sys.stdin.fileno())
    server.load()
    request = server.serve()
    if request is not None:
        become(request)
    _leave(0)


if __name__ == "__main__":
    main()
