"""files.terminal: no command hands a control character of a stranger's name to the terminal."""

from __future__ import annotations

import ast
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

import rclib.__main__
from rclib.data import cifar10
from rclib.execution import depends, progress, reruns, runner, scaffold, stability, strip
from rclib.experiments.mean_field import make_record
from rclib.files import lock, terminal
from rclib.reports import scoreboard
from rclib.runs import cache
from rclib.site import build

ROOT = Path(__file__).parents[2]
# Clears the screen, sets the title, goes back a line, writes backwards, rings.
NASTY = "a\x1b[2J\x1b]0;t\x07\r\x9b1A\u202eb\x7f"


def harmless(text: str) -> bool:
    """Whether a terminal takes nothing of it for a command."""
    return all(c == "\n" or unicodedata.category(c)[0] != "C" for c in text)


def test_every_control_character_is_escaped_and_text_is_as_it_was() -> None:
    every = "".join(map(chr, range(0x3000)))
    assert harmless(terminal.printable(every))
    assert harmless(terminal.printable("\ud800\U000e0001\U00100000"))
    for text in ("", "two\nlines", "α ≥ 0.5, μP", "日本語 🙂"):
        assert terminal.printable(text) == text
    assert terminal.printable("a\x1b[2Jb") == "a\\x1b[2Jb"


def test_one_line_to_standard_error_and_lines_to_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.report(f"{NASTY}\nnext", flush=True)
    terminal.note(f"error:\n{NASTY}")
    out, err = capsys.readouterr()
    assert harmless(out + err)
    assert (out.count("\n"), err.count("\n")) == (2, 1)
    assert "\\x1b[2J" in out
    assert "\\u202e" in err


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    terminal.report("x", flush=True)
    terminal.note("x")


COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "spectra": (rclib.__main__.main, ["spectra", NASTY]),
    "correlations": (rclib.__main__.main, ["correlations", ".", "--axes", NASTY]),
    "out": (rclib.__main__.main, ["spectra", ".", "--out", f"/proc/{NASTY}"]),
    "command": (rclib.__main__.main, [NASTY]),
    "size": (rclib.__main__.main, ["spectra", ".", "--size", NASTY]),
    "runner": (runner.main, ["run", NASTY]),
    "runner's set": (runner.main, ["run", "10_table_1_parametrizations", "--set", NASTY]),
    "runner's profile": (runner.main, ["check", "--profile", NASTY]),
    "runner's command": (runner.main, [NASTY]),
    "progress": (progress.main, ["--profile", NASTY]),
    "scoreboard": (scoreboard.main, ["--profile", NASTY]),
    "stability": (stability.main, ["--profile", NASTY]),
    "reruns": (reruns.main, [NASTY]),  # type: ignore[dict-item]
    "cache": (cache.main, [NASTY]),
    "depends": (depends.main, [NASTY, NASTY]),
    "strip": (strip.main, [NASTY]),
    "scaffold": (scaffold.main, [NASTY]),
    "scaffold's paper": (scaffold.main, ["46_x", "--paper", NASTY]),
    "site": (build.main, ["--no-api", "--out", f"/proc/{NASTY}"]),
    "lock": (lock.main, [f"/proc/{NASTY}", "--", "true"]),
    "make_record": (make_record.main, ["--profile", NASTY]),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_repeat_no_control_character(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "model.bin").write_bytes(b"nothing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCLIB_OUT", str(tmp_path))
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    main, arguments = COMMANDS[name]
    try:
        status = main(arguments)
    except SystemExit as ended:
        status = int(ended.code or 0)
    out, err = capsys.readouterr()
    if name not in ("progress", "runner's profile"):  # a profile without notebooks is no error
        assert status != 0
        assert err.count("error: ") == 1
    assert harmless(out + err), out + err


def test_names_in_a_file_reach_the_terminal_escaped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    weights = {f"h.{b}.{NASTY}": torch.randn(20, 30) for b in range(2)} | {NASTY: torch.zeros(3)}
    weights[f"nan {NASTY}"] = torch.full((4, 4), torch.nan)
    save_file(weights, tmp_path / f"{NASTY}.safetensors")
    (tmp_path / "a.yaml").write_text("tensors:\n  '{b}.weight': out <- in\n")
    for command in (["spectra"], ["spectra", "--json"], ["correlations"]):
        assert rclib.__main__.main([*command, str(tmp_path / f"{NASTY}.safetensors")]) in (1, 2)
        out, err = capsys.readouterr()
        assert harmless(out + err)
        assert out + err
    arguments = ["spectra", str(tmp_path / f"{NASTY}.safetensors"), "--axes"]
    assert rclib.__main__.main([*arguments, str(tmp_path / "a.yaml")]) == 2
    assert harmless("".join(capsys.readouterr()))


def test_a_traceback_that_was_asked_for_is_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_TRACEBACK", "1")
    assert rclib.__main__.main(["spectra", f"./{NASTY}"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert harmless(err)


def test_warnings_name_data_files_escaped(tmp_path: Path) -> None:
    for name in (f"cifar10{NASTY}.zip", "cifar10.zip"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="keep one of them") as caught:
        cifar10._find(tmp_path)
    assert all(harmless(str(warning.message)) for warning in caught)


def test_everything_that_is_printed_goes_through_here() -> None:
    """A `print` or a parser of argparse's own would be a way around it."""
    allowed = {"cli/output.py": 1, "files/terminal.py": 0}  # a traceback, line by line
    found: dict[str, int] = {}
    for path in sorted((ROOT / "rclib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in ("print", "argparse.ArgumentParser", "ArgumentParser"):
                    key = path.relative_to(ROOT / "rclib").as_posix()
                    found[key] = found.get(key, 0) + 1
    assert found == {name: count for name, count in allowed.items() if count}
