"""cli.output: any locale, closed and full outputs, interruptions, names that are no text."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import fresh_process
import pytest
import torch
from safetensors.torch import save_file

from rclib.__main__ import main
from rclib.cli import output

TABLE = "tensors:\n  '{b}.weight': out <- in\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    generator = torch.Generator().manual_seed(0)
    weights = {f"{b}.weight": torch.randn(40, 30, generator=generator) for b in range(3)}
    save_file(weights, path / "model.safetensors")
    (path / "a.yaml").write_text(TABLE, encoding="utf-8")
    return path


def command(
    folder: Path, tail: str = "", *, limit: float = 120, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    program = f"exec {sys.executable} -m rclib spectra . --axes a.yaml {tail}"
    return subprocess.run(
        ["bash", "-c", program], cwd=folder, capture_output=True, timeout=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_output_in_any_locale(encoding: str, folder: Path) -> None:
    done = command(folder, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"alpha noise  tail ratio" in done.stdout
    assert done.stdout.count(b"\n") == 6


def test_closed_and_full_outputs(folder: Path) -> None:
    done = command(folder, ">&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = command(folder, ">/dev/full")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: [Errno 28] No space left on device\n"
    done = command(folder, ">&- 2>&-")
    assert done.returncode == 0


def test_interrupted(folder: Path, tmp_path: Path) -> None:
    slow = {f"{b}.weight": torch.randn(1500, 1500) for b in range(40)}
    save_file(slow, tmp_path / "model.safetensors")
    (tmp_path / "a.yaml").write_text(TABLE, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "rclib", "spectra", ".", "--axes", "a.yaml"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell that runs this in the background has its children ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    # Where the signal comes while Python runs a text (modules do on import), it ends itself by the
    # signal, whatever the exit code was to be: 130 for a shell all the same.
    assert process.returncode in (130, -signal.SIGINT)
    assert (out, error) == (b"", b"interrupted\n")


def test_an_interruption_that_a_library_turns_into_another_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("numpy was interrupted") from None
        return 0

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert output.guarded(work) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (MemoryError(), "not enough memory"),
        (KeyError("x"), "unexpected KeyError: 'x' (RCLIB_TRACEBACK=1"),
        (ValueError("two\nlines \x1b[31m"), "error: two lines \\x1b[31m\n"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_no_traceback_ever(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert output.guarded(work) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert message in text
    assert text.count("\n") == 1


def test_warnings_are_for_programmers(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        warnings.warn("of torch", UserWarning, stacklevel=1)
        return 0

    assert output.guarded(work) == 0
    assert capsys.readouterr().err == ""


def test_names_do_not_move_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b]0;PWN\x07\x9b31m"
    save_file({f"{name}.weight": torch.randn(40, 30)}, tmp_path / "model.safetensors")
    table = {"tensors": {f"{name}.weight": "out <- in"}}
    (tmp_path / "a.yaml").write_text(json.dumps(table), encoding="utf-8")
    for form in ((), ("--json",)):
        status = main(["spectra", str(tmp_path), "--axes", str(tmp_path / "a.yaml"), *form])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        assert (captured.out + captured.err).replace("\n", "").isprintable()
        if form:
            (row,) = json.loads(captured.out)["rows"]
            assert row["layer"] == f"{name}.weight"
    (tmp_path / "a.yaml").write_text('family: "\\e[31m"\n' + TABLE, encoding="utf-8")
    assert main(["spectra", str(tmp_path), "--axes", str(tmp_path / "a.yaml")]) == 2
    assert capsys.readouterr().err.replace("\n", "").isprintable()


def test_names_that_are_no_utf8(folder: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/n\xff\xe9$x_{"
    os.mkdir(odd)
    for name in ("model.safetensors", "a.yaml"):
        (Path(os.fsdecode(odd)) / name).write_bytes((folder / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "rclib", "spectra", odd, "--axes", odd + b"/a.yaml", "--out", "out"],
        cwd=tmp_path, capture_output=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"n\\udcff\\udce9" in done.stdout
    assert (tmp_path / "out" / "spectra.json").is_file()
    gone = fresh_process.run(
        ["-m", "rclib", "correlations", os.fsdecode(odd + b"-gone")],
        cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert gone.returncode == 2
    assert gone.stderr.count("\n") == 1


def test_the_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("spectra", "correlations"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert "Exit codes: 0 when all went well; 1 when some tensors" in capsys.readouterr().out
