"""rclib.files.interrupt: Ctrl-C from the first import of a command to its end, and through make."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from rclib.files import interrupt
from rclib.files.command import command, run_under

ROOT = Path(__file__).parents[2]
LIMIT = 120.0  # seconds for what takes one
# Commands that a person starts; the server of kernels leads a session of its own.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in ROOT.glob("rclib/**/*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8") and path.stem != "kernel_server"
)
# The first package that any of them imports is never there: the command stands in its imports.
SITE = """
import sys, time

class Waits:
    def find_spec(self, name, path=None, target=None):
        if name == "argparse":
            print("importing", flush=True)
            time.sleep(100)

sys.meta_path.insert(0, Waits())
"""


def default_handling() -> None:
    """A shell that runs the tests in the background has its children ignore the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=default_handling, **options,
    )  # fmt: skip


@pytest.mark.parametrize("module", [*MODULES, "script"])
def test_no_traceback_while_a_command_imports(module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    how = ["-m", module]
    if module == "script":  # as pip writes it into the environment's bin
        script = tmp_path / "rclib"
        script.write_text("import sys\nfrom rclib.__main__ import main\nsys.exit(main())\n")
        how = [str(script)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
    with start(sys.executable, *how, cwd=tmp_path, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_a_program_that_uses_the_library_keeps_its_handling(tmp_path: Path) -> None:
    code = "import signal, rclib; print(signal.getsignal(2) is signal.default_int_handler)"
    (tmp_path / "mine.py").write_text(code)
    for how in (["-c", code], [str(tmp_path / "mine.py")]):
        with start(
            sys.executable, *how, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        ) as p:
            assert p.communicate(timeout=LIMIT) == ("True\n", "")


@pytest.fixture
def handler() -> Any:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield None
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("handler")
def test_pressed_takes_over_and_gives_back() -> None:
    interrupt.early()
    first = signal.getsignal(signal.SIGINT)
    assert first is not signal.default_int_handler
    with interrupt.pressed() as found, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert found == [True]
    assert signal.getsignal(signal.SIGINT) is first


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("use", ["thread", "another handler"])
def test_handling_that_is_not_ours_stays(use: str) -> None:
    seen: list[Any] = []

    def block() -> None:
        with interrupt.pressed():
            seen.append(signal.getsignal(signal.SIGINT))

    if use == "thread":
        thread = threading.Thread(target=block)
        thread.start()
        thread.join()
        assert seen == [signal.default_int_handler]
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupt.early()
        block()
        assert seen == [signal.SIG_IGN]


@pytest.mark.usefixtures("handler")
def test_an_interruption_that_became_another_error(capsys: pytest.CaptureFixture[str]) -> None:
    @command(kept="x is kept")
    def main() -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(LIMIT)
        except KeyboardInterrupt:
            raise KeyError("of a library") from None
        return 0

    assert main() == 130
    assert capsys.readouterr().err == "interrupted; x is kept\n"


# Says that it is there, then counts the interruptions that its terminal sends, and ends at three.
COUNTS = """
import signal, sys
came = []
signal.signal(signal.SIGINT, lambda *_: (came.append(1), print(len(came), flush=True)))
print("there", flush=True)
while len(came) < 3:
    signal.pause()
print("done", flush=True)
"""


@pytest.mark.parametrize("module", ["rclib.files.lock", "rclib.execution.kernels"])
def test_a_command_is_waited_for_however_often_it_comes(module: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "lock")] if module.endswith("lock") else []
    with start(
        sys.executable, "-m", module, *arguments, "--", sys.executable, "-c", COUNTS,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RCLIB_KERNEL": "plain"},
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in ("there", "1", "2"):
            assert process.stdout.readline() == f"{line}\n"
            os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=LIMIT)
    assert out == "3\ndone\n"
    assert process.returncode == 130
    # What runs under `kernels` says so itself.
    said = "interrupted; what was finished is kept\n" if module.endswith("lock") else ""
    assert errors == said


def test_a_command_under_an_ignored_signal() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = "import signal, sys; sys.exit(signal.getsignal(2) is not signal.SIG_IGN)"
        assert run_under([sys.executable, "-c", code]) == 0  # as a shell's background has it
    finally:
        signal.signal(signal.SIGINT, before)


def until(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT
    while not found() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert found()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_ctrl_c_through_make_says_what_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copyfile(ROOT / name, root / name)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (root / ".venv" / ".installed").touch()
    (root / "rclib").mkdir()  # it depends on no module of it
    parameters = new_code_cell('profile = "quick"', metadata={"tags": ["parameters"]})
    waits = new_code_cell("open('../there', 'w').close()\nimport time; time.sleep(300)")
    nbformat.write(new_notebook(cells=[parameters, waits]), root / "notebooks" / "10_a.ipynb")
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE_", "RCLIB_", "MAKE"))
    }
    environment |= {"PYTHONPATH": str(ROOT), "RCLIB_KERNEL": "plain"}
    with start("make", "figures", "JOBS=1", cwd=root, env=environment,
               start_new_session=True) as process:  # fmt: skip
        until((root / "there").exists, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, errors = process.communicate(timeout=LIMIT)
    # make ends itself by the signal, which is 130 for a shell, or says 2 for the 130 below it.
    assert process.returncode in (-signal.SIGINT, 130, 2), errors
    assert "Traceback" not in errors
    assert "interrupted; finished runs are kept\n" in errors
    assert "interrupted; what was finished is kept\n" in errors
    assert "claims:" not in out  # no scoreboard
    left = [p for p in (root / "build" / "quick").glob("*") if p.suffix == ".ipynb"]
    assert left == []
    assert not re.search(r"^[a-z]+: \*\*\* .*Error 1$", errors, re.MULTILINE)
