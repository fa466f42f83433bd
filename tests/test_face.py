"""The short public face of the library: what a user sees first."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rclib
from rclib.runs.code import code_of

ROOT = Path(rclib.__file__).parent


def test_every_name_is_there_and_is_what_the_table_says() -> None:
    assert set(rclib.__all__) == set(rclib.FACE)
    assert len(rclib.FACE) <= 16
    for name, (home, line) in rclib.FACE.items():
        module, _, member = home.partition(":")
        found = importlib.import_module(module)
        assert getattr(rclib, name) is (getattr(found, member) if member else found)
        assert 10 < len(line) < 70
        assert (getattr(rclib, name).__doc__ or "").strip()


def test_help_lists_each_name_with_its_line() -> None:
    text = rclib.__doc__ or ""
    for name, (_, line) in rclib.FACE.items():
        assert re.search(rf"^ +{name} +{re.escape(line)}$", text, flags=re.M), name
    assert set(rclib.FACE) <= set(dir(rclib))


def test_a_wrong_name_names_the_right_ones() -> None:
    with pytest.raises(
        AttributeError, match="no attribute 'mesure'; it hands on analyze, axes, measure"
    ):
        rclib.mesure  # noqa: B018
    with pytest.raises(ImportError):
        from rclib import mesure  # noqa: F401


def test_import_loads_nothing() -> None:
    code = (
        "import sys, time; before = set(sys.modules); import rclib\n"
        "new = {n.split('.')[0] for n in set(sys.modules) - before}\n"
        "new -= set(sys.stdlib_module_names)\n"
        "print(sorted(new)); rclib.axes; print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[0] == "['rclib']"


def test_nothing_inside_of_the_library_goes_through_it() -> None:
    """A reader of a module sees where everything comes from, and so does import-linter."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "rclib":
                taken = {alias.name for alias in node.names} & set(rclib.FACE)
                assert not taken, f"{path}: {taken}"


def test_keys_of_runs_follow_the_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's experiment that says `from rclib import measure` depends on what it uses of it."""
    (tmp_path / "face_user.py").write_text(
        "import rclib\nfrom rclib import measure\n\n"
        "def run(data):\n    return measure.mean_vectors, rclib.open_checkpoint\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = code_of("face_user", "run").definitions
    assert ("rclib.rowcolumn.measure", "mean_vectors") in found
    assert ("rclib.checkpoints.opening", "open_checkpoint") in found
    (tmp_path / "face_user.py").write_text("from rclib import Nothing\ndef run(data): Nothing\n")
    with pytest.raises(ValueError, match="rclib defines no 'Nothing'"):
        code_of("face_user", "run")


def test_modules_are_short() -> None:
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in ROOT.rglob("*.py")}
    assert {str(path): n for path, n in lengths.items() if n > 400} == {}
