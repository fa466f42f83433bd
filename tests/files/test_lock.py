"""rclib.files.lock: the second waits and says so; a killed first one frees the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rclib.files import lock as exclusive

pytest.importorskip("fcntl")

# Appends its name when it starts and when it ends; in between it waits for the file "go".
JOB = """
import sys, time
from pathlib import Path
here, name = Path(sys.argv[1]), sys.argv[2]
def say(what):
    with open(here / "log", "a") as handle:
        handle.write(f"{what} {name}\\n")
say("start")
deadline = time.monotonic() + 60
while not (here / f"go {name}").exists() and time.monotonic() < deadline:
    time.sleep(0.01)
say("end")
"""


def start(here: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rclib.files.lock", str(here / "lock"), "--"]
    command += [sys.executable, "-c", JOB, str(here), name]
    with open(here / f"{name}.err", "w") as errors:
        return subprocess.Popen(command, stderr=errors, text=True, start_new_session=True)


def wait_for(here: Path, line: str, file: str = "log") -> None:
    deadline = time.monotonic() + 60
    while line not in "".join(log(here, file)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert line in "".join(log(here, file))


def log(here: Path, file: str = "log") -> list[str]:
    path = here / file
    return path.read_text().splitlines() if path.exists() else []


def test_the_second_waits_and_says_for_whom(tmp_path: Path) -> None:
    first = start(tmp_path, "a")
    wait_for(tmp_path, "start a")
    second = start(tmp_path, "b")
    wait_for(tmp_path, f"(process {first.pid}); waiting", "b.err")
    assert log(tmp_path) == ["start a"]
    (tmp_path / "go b").touch()
    (tmp_path / "go a").touch()
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert log(tmp_path) == ["start a", "end a", "start b", "end b"]


def test_a_killed_holder_frees_the_lock_though_its_command_lives_on(tmp_path: Path) -> None:
    first = start(tmp_path, "a")
    wait_for(tmp_path, "start a")
    os.kill(first.pid, signal.SIGKILL)  # the holder alone; its command is an orphan now
    first.wait()
    (tmp_path / "go b").touch()
    second = start(tmp_path, "b")
    assert second.wait(60) == 0
    assert log(tmp_path) == ["start a", "start b", "end b"]
    (tmp_path / "go a").touch()
    wait_for(tmp_path, "end a")


@pytest.mark.parametrize(("code", "status"), [("0", 0), ("3", 3)])
def test_status_of_the_command_is_passed_on(tmp_path: Path, code: str, status: int) -> None:
    lock = str(tmp_path / "new folder" / "lock")
    found = exclusive.main([lock, "--", sys.executable, "-c", f"raise SystemExit({code})"])
    assert found == status


def test_a_command_ended_by_a_signal_has_the_shells_status(tmp_path: Path) -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    assert exclusive.main([str(tmp_path / "lock"), "--", sys.executable, "-c", code]) == 137


@pytest.mark.parametrize("arguments", [[], ["lock"], ["lock", "--"], ["lock", "true", "x"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exclusive.main(arguments) == 2
    assert "usage" in capsys.readouterr().err


def test_what_cannot_be_run_or_locked_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exclusive.main([str(tmp_path / "lock"), "--", str(tmp_path / "nothing")]) == 1
    (tmp_path / "file").touch()
    assert exclusive.main([str(tmp_path / "file" / "lock"), "--", "true"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("error: ") for line in errors)
