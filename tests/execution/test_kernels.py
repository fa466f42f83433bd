"""execution.kernels, kernel_server and provisioner: forked kernels against ordinary ones."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbformat.v4 import new_code_cell, new_notebook

from rclib.execution import kernel_server, kernels, provisioner, runner
from rclib.execution.runner import RunError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not hasattr(os, "pidfd_open"),
        reason="kernels are forked on Linux",
    ),
]
PARAMETERS = 'profile = "quick"'
ROOT = Path(__file__).parents[2]
# What a notebook can see of its process and what packages found out when they were imported.
WORLD = """\
import decimal, json, locale, os, resource, signal, sys, threading
import matplotlib as mpl, numpy as np, pandas as pd, threadpoolctl, torch
from tqdm.auto import tqdm
import rclib
print(sys.executable, sys.flags, sys._xoptions, sys.path, sys.argv[1], sys.argv[3:], sep="\\n")
print(sys.argv[0], sys.orig_argv[:4], os.getcwd(), rclib.__file__, sys.getrecursionlimit())
own = ("JPY_", "KMP_", "PYDEVD", "RCLIB_", "TORCH")
print(sorted(k for k in os.environ if not k.startswith(own)))
print([str(signal.getsignal(n)).split(" at ")[0] for n in range(1, 32)])
print(sorted(t.name.split("-")[0] for t in threading.enumerate() if t.name[:2] == "IO"))
print(os.getsid(0) == os.getpgrp() == os.getpid(), os.nice(0), os.sched_getaffinity(0))
print([resource.getrlimit(n) for n in range(16)], sys.stdin.read() == "")
print(tqdm, mpl.get_backend(), dict(mpl.rcParams), locale.getlocale(), decimal.getcontext())
print({k: pd.get_option(k) for k in pd._config.config._registered_options})
print(torch.get_num_threads(), torch.__config__.parallel_info(), torch.get_default_dtype())
print(sorted({(d["user_api"], d["num_threads"]) for d in threadpoolctl.threadpool_info()}))
print(np.geterr(), np.get_printoptions(), torch.cuda.is_available())
os.umask(mask := os.umask(0))
print(mask, sorted(n for n in vars(sys.modules["__main__"]) if n.startswith("__")))
pd.DataFrame(np.arange(60).reshape(2, 30))"""
STUDY = """\
import pandas as pd, torch
from matplotlib import pyplot as plt
from rclib.study.study import Study
study = Study("10_study", title="t", parameters={"profile": profile})
frame = pd.DataFrame({"x": torch.randn(9, generator=torch.manual_seed(3)).numpy()})
figure, panel = plt.subplots()
panel.plot(frame.x)
print(study.save_figure(figure, "curve", caption="c.", data=frame))
study.table("t", frame)
study.close()"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    monkeypatch.chdir(root)
    for variable in ("RCLIB_OUT", "RCLIB_CACHE", "RCLIB_DATA", "RCLIB_KERNEL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    return root


@pytest.fixture(scope="module")
def offer() -> Iterator[str]:
    """A server for the whole module, measured by coverage, whose kernels are not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as make sets it, and the fixture below
        with kernels.serving():
            name = os.environ[kernels.OFFER]
            patch.delenv(kernels.OFFER)
            yield name


@pytest.fixture
def forked(offer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.OFFER, offer)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as make sets it, and as the server has it
    for name in [n for n in os.environ if n.startswith("COVERAGE_PROCESS_")]:
        monkeypatch.delenv(name)
    provisioner.register()


def write(name: str, *cells: str) -> str:
    made = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    nbformat.write(
        new_notebook(cells=[*made, *map(new_code_cell, cells)]), Path(f"notebooks/{name}.ipynb")
    )
    return name


def outputs(path: Path) -> list[Any]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.outputs for cell in cells if cell.cell_type == "code"]


def printed(path: Path) -> str:
    return "".join(o.text for found in outputs(path) for o in found if o.output_type == "stream")


def run(name: str) -> str:
    """What an executed notebook has printed."""
    # A warning names the kernel's own file.
    return re.sub(r"ipykernel_\d+", "ipykernel", printed(runner.execute(name)))


def is_forked(pid: int, parent: int) -> bool:
    return pid != os.getpid() and parent != os.getpid()


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds (one that only waits to be reaped has ended)."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


PARENT = "import os; print(os.getppid())"


def parent(name: str = "10_parent") -> int:
    """The parent of a kernel: this process, or the server."""
    return int(run(write(name, PARENT)))


# --- the same kernel -----------------------------------------------------------------------


def test_a_forked_kernel_sees_what_an_ordinary_one_sees(
    forked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("10_world", WORLD)
    assert parent() != os.getpid()
    found = [outputs(runner.execute("10_world"))]
    monkeypatch.setenv("RCLIB_KERNEL", "plain")
    assert parent() == os.getpid()
    found.append(outputs(runner.execute("10_world")))
    lines = [text[1][0].text.splitlines() for text in found]
    for one, other in zip(*lines, strict=True):  # a difference is then one line
        assert one == other
    assert found[0][1][-1] == found[1][1][-1]  # the data frame


def test_results_are_the_same_bytes(
    forked: None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("10_study", STUDY)
    found: list[dict[str, bytes]] = []
    texts = []
    for kind in ("forked", "plain"):
        monkeypatch.setenv("RCLIB_KERNEL", kind)
        monkeypatch.setenv("RCLIB_OUT", str(project / kind))
        texts.append(run("10_study"))
        files = [p for p in (project / kind).rglob("*.*") if p.parent.name != "times"]
        found.append({p.name: p.read_bytes() for p in files})
    assert texts[0] == texts[1]
    assert found[0] == found[1]
    assert sorted(found[0]) == ["10_study.json", "curve.csv", "curve.png"]


def test_draws_without_a_seed_differ(forked: None) -> None:
    write(
        "10_draws",
        "import random, numpy, torch\nprint(random.random(), numpy.random.rand(), torch.rand(1))",
    )
    assert run("10_draws") != run("10_draws")


def test_code_is_what_the_files_hold_now(forked: None, project: Path) -> None:
    write(
        "10_fresh",
        "import sys; print([m for m in sys.modules if m[:5] == 'rclib'])",
        "import own_module as m; print(m.x)",
    )
    for value in (1, 22):
        Path("notebooks/own_module.py").write_text(f"x = {value}\n")
        assert run("10_fresh") == f"[]\n{value}\n"


def test_the_environment_is_the_askers(forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write("10_variables", "import os; print(os.environ['RCLIB_OUT'], os.environ.get('RCLIB_DATA'))")
    for value in ("a", "b"):
        monkeypatch.setenv("RCLIB_OUT", value)
        assert run("10_variables") == f"{value} None\n"


def test_a_terminal_of_another_size_is_the_askers(
    forked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """readline sets the size in the environment of the processes that pytest's workers are."""
    monkeypatch.setenv("COLUMNS", "123")
    monkeypatch.setenv("LINES", "45")
    assert parent() != os.getpid()
    assert run(write("10_size", "import shutil; print(*shutil.get_terminal_size())")) == "123 45\n"


def test_workers_of_pytest_get_forked_kernels(project: Path, tmp_path: Path) -> None:
    """As in `make test`: nbval in a worker, the server outside of it."""
    shutil.copy(ROOT / "notebooks" / "conftest.py", "notebooks")
    shutil.copy(ROOT / "pyproject.toml", ".")
    found = tmp_path / "parent"
    cell = "import os, pathlib as p; by = p.Path(f'/proc/{os.getppid()}/cmdline').read_text()"
    write("10_who", cell, f"_ = p.Path({str(found)!r}).write_text(by)")
    command = [
        sys.executable,
        "-m",
        "rclib.execution.kernels",
        "--",
        sys.executable,
        "-m",
        "pytest",
    ]
    options = ["-n", "1", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    outer = ("PYTEST_", "COVERAGE_", "COLUMNS", "LINES", kernels.OFFER)
    variables = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
    subprocess.run([*command, *options, "notebooks/10_who.ipynb"], check=True, env=variables)
    assert "rclib.execution.kernel_server" in found.read_text()


def test_two_kernels_at_once(forked: None) -> None:
    write("10_left", "import time; time.sleep(0.5); print(1)")
    write("11_right", "import time; time.sleep(0.5); print(2)")
    command = [sys.executable, "-m", "rclib.execution.runner", "run"]
    both = [subprocess.Popen([*command, name]) for name in ("10_left", "11_right")]
    assert [process.wait(60) for process in both] == [0, 0]
    assert [printed(Path(f"build/quick/{n}.ipynb")) for n in ("10_left", "11_right")] == [
        "1\n",
        "2\n",
    ]


# --- signals and ends ----------------------------------------------------------------------


def test_interrupt(forked: None) -> None:
    manager, client = start_new_kernel()
    try:
        assert isinstance(manager.provisioner, provisioner.ForkedProvisioner)
        client.execute("import time; print('ready', flush=True); time.sleep(60)")
        while client.get_iopub_msg(timeout=20)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=20)["content"]["ename"] == "KeyboardInterrupt"
        assert manager.is_alive()
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    assert not manager.has_kernel


def test_restart_and_kill(forked: None) -> None:
    manager, client = start_new_kernel()
    client.stop_channels()
    first = manager.provisioner.pid
    manager.restart_kernel(now=True)
    second = manager.provisioner.pid
    assert first != second
    assert gone(first)
    assert manager.is_alive()
    manager.shutdown_kernel(now=True)
    assert gone(second)


def test_dying_kernel_is_an_error(forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write("10_dies", "import os; os._exit(3)")
    lines = []
    for kind in ("forked", "plain"):
        monkeypatch.setenv("RCLIB_KERNEL", kind)
        with pytest.raises(RunError) as error:
            runner.execute("10_dies")
        lines.append(str(error.value))
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("cell", "status"), [("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("exit()", 0)]
)
def test_exit_status(forked: None, cell: str, status: int) -> None:
    manager, client = start_new_kernel()
    process = manager.provisioner.process
    assert process.poll() is None
    client.execute(f"import os; {cell}")
    assert process.wait(20) == status
    assert process.poll() == status
    process.kill()  # nothing happens
    client.stop_channels()
    assert not manager.is_alive()
    manager.cleanup_resources()


def test_files_left_open_are_whole(forked: None) -> None:
    run(write("10_open", "file = open('../left.txt', 'w'); print(file.write('whole'))"))
    assert Path("left.txt").read_text() == "whole"


def test_kernel_ends_with_its_runner(forked: None) -> None:
    write("10_long", "import os, time\nopen('../pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")
    command = [sys.executable, "-m", "rclib.execution.runner", "run", "10_long"]
    process = subprocess.Popen(command)
    for _ in range(600):
        if Path("pid").exists() and Path("pid").read_text():
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert gone(int(Path("pid").read_text()))


# --- where there is no fork ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RCLIB_KERNEL", "plain"),
        ("OMP_NUM_THREADS", "7"),
        ("PYTHONHASHSEED", "3"),
        ("COVERAGE_PROCESS_START", ""),
        (kernels.OFFER, "0" * 32),
        (kernels.OFFER, ""),
    ],
)
def test_other_variables_mean_an_ordinary_kernel(
    forked: None, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert parent() == os.getpid()


def test_own_modules_that_hide_a_loaded_one_mean_an_ordinary_kernel(
    forked: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("notebooks/seaborn.py").write_text("x = 5\n")
    monkeypatch.setenv("RCLIB_KERNEL", "verbose")
    assert run(write("10_hides", "import seaborn; print(seaborn.x)")) == "5\n"
    assert "has its own seaborn" in capfd.readouterr().err


def ask(forked: None, **changes: Any) -> str:
    """Why the server refuses a request with these changes."""
    request: dict[str, Any] = {
        "command": [sys.executable, "-m", "ipykernel_launcher", "-f", "none"],
        "folder": str(Path.cwd()),
        "variables": dict(os.environ),
        "circumstances": kernel_server.circumstances(),
    }
    message = json.dumps(request | changes).encode()
    answer, connection = provisioner._ask(message, [1, 2])
    connection.close()
    return str(answer.get("refused", answer))


def test_refusals(forked: None) -> None:
    refused = {
        "not a Python kernel": {"command": ["R", "--slave"]},
        "another interpreter": {"command": ["/x/python", "-m", "ipykernel_launcher"]},
        "another nice": {"circumstances": kernel_server.circumstances() | {"nice": 7}},
        "another limits": {"circumstances": kernel_server.circumstances() | {"limits": []}},
        "another value of LANG": {"variables": {**os.environ, "LANG": "xx"}},
    }
    for reason, changes in refused.items():
        assert ask(forked, **changes).startswith(reason)
    assert ask(forked, folder="/nowhere") == "{}"  # an error ends the one request
    assert parent() != os.getpid()


@pytest.mark.parametrize(
    "given",
    [{"independent": True}, {"stdout": subprocess.PIPE}, {"env": {"COVERAGE_PROCESS_A": ""}}],
)
def test_unusual_requests_are_refused_at_home(forked: None, given: dict[str, Any]) -> None:
    with pytest.raises(provisioner.RefusedError):
        provisioner._fork(["python"], given)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[kernel_server.Server, str, int]]:
    """A server in this process that has loaded nothing, its address and its leash's other end."""
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "x"])
    name = f"test-{os.getpid()}"
    inner, outer = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(kernels.address(name))
        listener.listen()
        yield kernel_server.Server(listener, inner), name, outer
    os.close(inner)


def test_server_ends_with_its_leash_and_when_packages_change(
    server: tuple[kernel_server.Server, str, int], tmp_path: Path
) -> None:
    found, name, outer = server
    found.places = {str(tmp_path): tmp_path.stat().st_mtime_ns, str(tmp_path / "none"): 0}
    assert found._current()
    os.utime(tmp_path, ns=(1, 1))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(kernels.address(name))
        assert found.serve() is None
    os.close(outer)
    assert found.serve() is None


def test_server_refuses_what_would_depend_on_the_folder_or_has_threads(
    server: tuple[kernel_server.Server, str, int], project: Path
) -> None:
    found, _, outer = server
    os.close(outer)
    folder = str(project / "notebooks")
    command = [sys.executable, "-m", "ipykernel_launcher"]
    given = found.circumstances
    for path, reason in ((":/x", "a search path that depends"), ("/x", "")):
        found.variables["PYTHONPATH"] = path
        variables = os.environ | {"PYTHONPATH": path}
        request = kernel_server.Request(command, folder, variables, 0, [])
        assert found._refusal(request, variables, given).startswith(reason)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        assert found._refusal(request, variables, given).endswith("threads in the server")


def test_handle_of_a_kernel() -> None:
    process = subprocess.Popen(["sleep", "60"])
    ours, theirs = socket.socketpair()
    kernel = provisioner.Forked(process.pid, ours)
    with pytest.raises(TimeoutError, match=f"process {process.pid} still runs after 0"):
        kernel.wait(0)
    kernel.terminate()
    process.wait()
    theirs.send(b'{"status": -15}')
    assert (kernel.poll(), kernel.wait()) == (-15, -15)
    theirs.close()
    ours, theirs = socket.socketpair()
    theirs.close()
    assert provisioner.Forked(process.pid, ours).poll() == 1  # reaped, and nobody says how


def test_killed_server_is_replaced_and_its_kernels_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [n for n in os.environ if n.startswith("COVERAGE_PROCESS_")]:
        monkeypatch.delenv(name)
    provisioner.register()
    with kernels.serving():
        manager, client = start_new_kernel()
        process = manager.provisioner.process
        server = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        assert gone(server)
        client.execute_interactive("x = 1", timeout=20)
        assert process.poll() is None
        client.stop_channels()
        manager.shutdown_kernel()
        assert gone(process.pid)
        assert process.poll() == 1  # nobody knows it
        other = parent()
        assert other not in (os.getpid(), server)
    assert gone(other)


def test_server_that_cannot_start_means_ordinary_kernels(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    provisioner.register()
    broken = project / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "LIVES", 2)
        patch.setattr(kernels.sys, "executable", str(broken))  # type: ignore[attr-defined]
        with kernels.serving():
            for _ in range(3):  # the listener is closed when no server is left to be tried
                with pytest.raises((provisioner.RefusedError, OSError)):
                    provisioner._fork([str(broken), "-m", "ipykernel_launcher"], {})


def test_nothing_stays_when_the_command_is_killed(project: Path) -> None:
    write("10_parent", "import os; open('../pids', 'w').write(f'{os.getppid()} {os.getpid()}')")
    own = project.parent / "temporary"
    own.mkdir()
    command = [sys.executable, "-m", "rclib.execution.runner", "run", "10_parent"]
    script = "import subprocess, sys, time\nsubprocess.run(sys.argv[1:])\ntime.sleep(60)"
    variables = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_PROCESS_")}
    variables |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(own)}
    serve = [sys.executable, "-m", "rclib.execution.kernels", "--"]
    outer = subprocess.Popen(
        [*serve, sys.executable, "-c", script, *command],
        env=variables,
        start_new_session=True,
    )
    for _ in range(1200):
        if Path("build/quick/10_parent.ipynb").exists():
            break
        time.sleep(0.05)
    server, kernel = map(int, Path("pids").read_text().split())
    assert server != outer.pid
    outer.kill()
    outer.wait()
    assert gone(server)
    assert gone(kernel)
    os.killpg(outer.pid, signal.SIGKILL)  # the command itself, which slept on
    assert [p for p in own.iterdir() if "rclib" in p.name] == []


# --- the command and the registration ------------------------------------------------------


def test_command_hands_on_status_and_offer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    show = "import os, sys; print(len(os.environ.get('RCLIB_KERNELS', ''))); sys.exit(5)"
    assert kernels.main(["--", sys.executable, "-c", show]) == 5
    assert kernels.main(["--at-once", "--", sys.executable, "-c", show]) == 5
    monkeypatch.setenv("RCLIB_KERNEL", "plain")
    assert kernels.main(["--", sys.executable, "-c", show]) == 5
    assert capfd.readouterr().out == "32\n32\n0\n"
    assert kernels.main(["--", sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"]) == 143
    assert kernels.main(["--", "/no/such/command"]) == 1
    assert kernels.main(["make"]) == 2
    assert kernels.main(["--at-once", "make"]) == 2
    assert "usage" in capfd.readouterr().err


def servers() -> list[int]:
    """Processes of this one that are, or begin as, servers of kernels."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            with contextlib.suppress(OSError):
                if b"kernel_server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
    return found


@pytest.mark.parametrize("at_once", [True, False])
def test_a_server_begins_at_once_where_that_is_asked(at_once: bool) -> None:
    """Killed in the middle of its imports: nothing is left of it."""
    before = servers()
    with kernels.serving(at_once=at_once):
        for _ in range(600 if at_once else 20):
            new = set(servers()) - set(before)
            if new:
                break
            time.sleep(0.05)
    assert bool(new) == at_once
    assert all(gone(pid) for pid in new)


def test_offers_nest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.OFFER, "outer")
    with kernels.serving():
        assert os.environ[kernels.OFFER] != "outer"
    assert os.environ[kernels.OFFER] == "outer"


def test_entry_point_names_the_class_that_is_registered() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    group = project["entry-points"][provisioner.GROUP]
    provisioner.register()
    registered = provisioner.KernelProvisionerFactory.instance().provisioners[provisioner.NAME]
    assert group == {provisioner.NAME: registered.value}
    assert registered.load() is provisioner.ForkedProvisioner
