"""Fresh processes of Python at a fifth of the price, for tests that need one and not its imports.

A process of the tests starts one that has imported the heavy packages, and no line of rclib; each
run is forked from that, with its own folder, variables and outputs. Variables that packages may
read when they are imported must be those of the tests themselves, else an ordinary process is
started. What depends on how Python begins (streams that are closed, encodings, limits of memory)
is a matter for `subprocess`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["run"]

PACKAGES = (
    "pandas", "torch", "scipy.stats", "scipy.optimize", "sklearn.datasets", "matplotlib.pyplot",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "safetensors.torch",
    "PIL.PngImagePlugin", "yaml",
)  # fmt: skip
# No package above reads these when it is imported; scikit-learn sets KMP_..., there as here.
OWN = ("RCLIB_", "PYTEST_", "COVERAGE_", "HF_", "TQDM_", "KMP_")

SERVER = """
def serve(packages):
    import importlib, json, os, runpy, sys, traceback

    def work(kind, *rest):
        if kind == "-c":
            sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
            exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
        elif kind == "-m":
            sys.argv, sys.path[0] = list(rest), os.getcwd()
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = [kind, *rest], os.path.dirname(os.path.abspath(kind))
            runpy.run_path(kind, run_name="__main__")

    def child(job):
        os.environ.clear()
        os.environ.update(job["variables"])
        os.chdir(job["folder"])
        for number, name in enumerate((os.devnull, *job["files"])):
            file = os.open(name, os.O_RDWR)
            os.dup2(file, number)
            os.close(file)
        if any(name.startswith("COVERAGE_PROCESS_") for name in os.environ):
            import coverage

            coverage.process_startup(force=True)
        status = 1
        try:
            work(*job["arguments"])
            status = 0
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                status = end.code or 0
            else:
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    for name in packages:
        importlib.import_module(name)
    assert not [name for name in sys.modules if name.partition(".")[0] == "rclib"]
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


serve = serve(__import__("sys").argv[1:])
"""


def comparable(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that must be those of the server."""
    return {name: value for name, value in variables.items() if not name.startswith(OWN)}


@functools.cache
def _server() -> tuple[subprocess.Popen[str], dict[str, str]]:
    variables = {n: v for n, v in os.environ.items() if not n.startswith("COVERAGE_PROCESS_")}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, *PACKAGES],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables,
    )  # fmt: skip

    def end() -> None:
        for pipe in (server.stdin, server.stdout):
            assert pipe is not None
            pipe.close()
        server.wait()

    atexit.register(end)
    return server, comparable(variables)


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` (-c CODE, -m MODULE or a script, and what they take) and what it says.

    Raises subprocess.TimeoutExpired.
    """
    variables = dict(os.environ if env is None else env)
    command = [sys.executable, *arguments]
    if sys.platform != "linux":
        found = {}
    else:
        server, found = _server()
    if comparable(variables) != found:
        return subprocess.run(
            command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=timeout
        )
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory(prefix="rclib-fresh-") as folder:
        files = [Path(folder, name) for name in ("out", "error")]
        for file in files:
            file.touch()
        job = {
            "arguments": list(arguments),
            "folder": str(cwd),
            "variables": variables,
            "files": list(map(str, files)),
        }
        print(json.dumps(job), file=server.stdin, flush=True)
        if not select.select([server.stdout], [], [], timeout)[0]:
            server.kill()
            _server.cache_clear()
            raise subprocess.TimeoutExpired(command, timeout)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(
            command, status, *(file.read_text(encoding="utf-8") for file in files)
        )
