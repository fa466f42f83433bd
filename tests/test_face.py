"""The short public face of the library: what a user sees first."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

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


FORMS = ("module", "state dict", "path", "checkpoint")


@pytest.mark.parametrize("form", FORMS)
def test_what_reads_a_model_takes_it_in_every_form(form: str, tmp_path: Path) -> None:
    model = rclib.GPT(16, blocks=1, parametrization="SP")
    torch.save(model.state_dict(), tmp_path / "m.pt")
    own = rclib.open_checkpoint(tmp_path / "m.pt")
    given = dict(zip(FORMS, (model, model.state_dict(), tmp_path / "m.pt", own), strict=True))[form]
    known = rclib.layout(given)
    assert known.family == "rclib_gpt"
    assert known.sizes["stream"] == 16
    correlations = rclib.block_correlations(given)
    again = rclib.block_correlations(given, known)
    pd.testing.assert_frame_equal(correlations.table(), again.table())
    assert len(correlations.rows) > 3
    layers = [one.layer for one in rclib.matrix_spectra(given)]
    assert "blocks.0.Wup" in layers
    assert layers == [one.layer for one in rclib.matrix_spectra(given, known)]
    assert list(rclib.analyze(given, workers=1).layer) == layers
    own.info(next(iter(own.tensors)))  # it stays open


@pytest.mark.parametrize("wrong", [3, None, [1], torch.zeros(3, 3)])
def test_what_is_no_model_is_refused_by_name(wrong: object) -> None:
    says = f"source must be a path, .* a module or a mapping .* got {type(wrong).__name__}"
    for call in (rclib.layout, rclib.block_correlations, rclib.analyze, rclib.open_checkpoint):
        with pytest.raises(TypeError, match=says):
            call(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=says):
        list(rclib.matrix_spectra(wrong))  # type: ignore[arg-type]


def test_what_is_no_layout_is_refused_by_name() -> None:
    model = rclib.GPT(16, blocks=1, parametrization="SP")
    says = "layout must be a Layout, which rclib.layout"
    with pytest.raises(TypeError, match=says):
        rclib.block_correlations(model, model)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=says):
        list(rclib.matrix_spectra(model, model))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=says):
        rclib.resize_checkpoint(model.state_dict(), model, {"stream": 8})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"tensors must be a mapping .* got GPT; .* resize"):
        rclib.resize_checkpoint(model, rclib.layout(model), {"stream": 8})  # type: ignore[arg-type]


def test_an_open_checkpoint_has_its_revision_and_set() -> None:
    own = rclib.open_checkpoint({"a": torch.randn(30, 30)})
    with pytest.raises(ValueError, match="key must be None for an open checkpoint"):
        rclib.analyze(own, key="model")
    with pytest.raises(ValueError, match="revision must be None for an open checkpoint"):
        rclib.analyze(own, revision="main")


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
