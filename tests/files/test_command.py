"""files.command: one line for whatever ends a command early, in any locale."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rclib.files.command import command
from rclib.files.plain import DataError
from rclib.paths import FolderError
from rclib.reports import scoreboard
from rclib.runs import cache


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("two\nlines"), 2, "error: two lines"),
        (OSError(28, "No space left on device", "x"), 2, "error: [Errno 28] No space left"),
        (DataError("damaged"), 2, "error: damaged"),
        (FolderError("no home"), 2, "error: no home"),
        (ValueError(), 2, "error: ValueError"),
        (KeyboardInterrupt(), 130, "interrupted; runs are kept"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_one_line(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @command(failed=2, kept="runs are kept")
    def main() -> int:
        raise error

    assert main() == status
    text = capsys.readouterr().err
    assert text.startswith(line)
    assert text.count("\n") == bool(line)


def test_faults_of_the_code_are_not_hidden() -> None:
    @command()
    def main() -> int:
        raise KeyError("x")

    with pytest.raises(KeyError):
        main()


def test_folders_without_a_home_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, main, status in (
        ("RCLIB_CACHE", lambda: cache.main(["info"]), 1),
        ("RCLIB_OUT", lambda: scoreboard.main([]), 2),
    ):
        monkeypatch.setenv(variable, "~nouser/x")
        assert main() == status
        assert f"error: {variable}: no home folder" in capsys.readouterr().err


PROGRAM = """
import os, signal, sys
from rclib.files.command import command

@command()
def main() -> int:
    print("\\u2265 1 \\udcff")
    if len(sys.argv) > 1:
        os.kill(os.getpid(), signal.SIGINT)
    return 0

sys.exit(main())
"""


@pytest.mark.parametrize(
    ("tail", "status", "out", "err"),
    [
        ("", 0, b"\\u2265 1 \\udcff\n", b""),
        (">&-", 0, b"", b""),
        (">&- 2>&-", 0, b"", b""),
        (">/dev/full", 1, b"", b"error: [Errno 28] No space left on device\n"),
        ("x", 130, b"\\u2265 1 \\udcff\n", b"interrupted\n"),
    ],
)
def test_outputs(tmp_path: Path, tail: str, status: int, out: bytes, err: bytes) -> None:
    (tmp_path / "p.py").write_text(PROGRAM)
    done = subprocess.run(
        ["bash", "-c", f"exec {sys.executable} p.py {tail}"],
        cwd=tmp_path, capture_output=True, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii",
             "PYTHONPATH": str(Path(__file__).parents[2])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)
