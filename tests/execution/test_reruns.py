"""Stored runs computed again with other arithmetic."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rclib.execution import reruns
from rclib.experiments.spikes.teacher_runs import student_run
from rclib.runs import store

SMALL: dict[str, Any] = {"d": 40, "h": 60, "n": 80, "n_test": 20, "steps": 10, "optimizer": "adam"}


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """One run that is not chaotic, one that is, one of another size."""
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    configs = [{**SMALL, "seed": 0, "rate": rate} for rate in (0.01, 100.0)]
    configs.append({**SMALL, "seed": 0, "rate": 0.01, "d": 30})
    for config in configs:
        store.fetch(student_run, config)
    return configs


def test_differences_are_relative_and_see_what_is_missing() -> None:
    before = {"a": np.array([1.0, 2.0, 0.0]), "b": np.array([np.nan, 1.0]), "c": np.array([np.nan])}
    after = {"a": np.array([1.0, 2.5, 0.0]), "b": np.array([2.0, 1.0]), "c": np.array([np.nan])}
    found = reruns.differences(before, after, ["a", "b", "c", "other"])
    assert found == {"a": pytest.approx(0.2), "b": np.inf, "c": 0.0}


def test_runs_are_found_by_their_arguments(
    stored: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, with_data = reruns.stored_runs("student_run", {"d": 40})
    name = "rclib.experiments.spikes.teacher_runs.student_run"
    assert [run for run in runs if run[0] != name] == []
    assert sorted(config["rate"] for _, config in runs) == [0.01, 100.0]
    assert with_data == 0
    # Entries that today's code would not find are no results of it.
    for path in (tmp_path / "student_run").glob("*.safetensors"):
        path.rename(path.with_name(f"0{path.name[1:]}"))
    assert len(reruns.stored_runs("student_run", {})[0]) < 3


def test_the_same_arithmetic_gives_the_same_bytes(stored: list[dict[str, Any]]) -> None:
    runs, _ = reruns.stored_runs("student_run", {})
    assert len(runs) == 3
    for found in reruns.rerun(runs, ["test_loss", "eigenvalues"]):
        assert found == {"test_loss": 0.0, "eigenvalues": 0.0}


def test_the_command_names_chaotic_runs(
    stored: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    options = ["--where", "d=40", "--kernel", "Nehalem", "--above", "1e-3", "--out", str(out)]
    assert reruns.main(["student_run", *options]) == 0
    record = json.loads(out.read_text())
    assert [set(row) for row in record["runs"]] == [{"rate", "largest"}] * 2
    by_rate = {row["rate"]: row["largest"] for row in record["runs"]}
    assert by_rate[0.01] < 1e-3
    assert record["depend"] == sum(value > 1e-3 for value in by_rate.values())
    told = capsys.readouterr().out
    assert f"{record['depend']} of 2 runs differ by more than 0.001 (kernel Nehalem, 1 thr" in told


def test_what_cannot_be_compared(
    stored: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert reruns.main(["student_run", "--where", "d=41"]) == 2
    assert "no stored run of student_run with {'d': 41}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        reruns.main(["student_run", "--where", "d"])
    assert "must be name=value, got 'd'" in capsys.readouterr().err
    missing = [("rclib.experiments.spikes.teacher_runs.student_run", {**SMALL, "seed": 9})]
    with pytest.raises(RuntimeError, match="the runs ended with code 1 after 0 of them"):
        list(reruns.rerun(missing, ["test_loss"]))


def _meta(**changes: str) -> Any:
    def write(path: Path) -> None:
        meta = {"config": "{}", "function": "rclib.experiments.spikes.teacher_runs.student_run"}
        save_file({"a": np.ones(1)}, path, metadata=meta | {"data": ""} | changes)

    return write


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "Error while deserializing header"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "deserializing header"),
        (lambda path: os.mkfifo(path), "not a plain file"),
        (lambda path: path.mkdir(), "not a plain file"),
        (lambda path: path.symlink_to(path.name), "not a plain file"),
        (lambda path: save_file({"a": np.ones(1)}, path), "not JSON|Expecting value"),
        (_meta(config="[]"), "does not say what it was computed from"),
        (_meta(config='{"d": NaN}'), "NaN"),
        (_meta(config="[" * 100_000), "nested too deeply"),
        (_meta(function="os.system"), "its function is 'os.system'"),
        (_meta(function="os.student_run"), "its function is 'os.student_run'"),
        (_meta(function="rclib/../os.student_run"), "its function is"),
        (_meta(function="student_run"), "its function is 'student_run'"),
    ],
)
def test_what_is_no_entry_is_named_and_left_out(
    stored: list[dict[str, Any]], tmp_path: Path, damage: Any, reason: str
) -> None:
    entry = next((tmp_path / "student_run").glob("*.safetensors"))
    bad = entry.with_name("00.safetensors")
    if "deserializing" in reason:
        bad.write_bytes(entry.read_bytes())
    damage(bad)
    with pytest.warns(UserWarning, match=reason) as caught:
        runs, _ = reruns.stored_runs("student_run", {})
    assert len(runs) == 3
    assert str(bad) in str(caught[0].message)


def test_an_entry_of_a_function_that_is_gone(stored: list[dict[str, Any]], tmp_path: Path) -> None:
    _meta(function="rclib.gone.student_run")(tmp_path / "student_run" / "00.safetensors")
    _meta(function="rclib.paths.student_run")(tmp_path / "student_run" / "01.safetensors")
    with pytest.warns(UserWarning, match="is left out, no stored run: its function") as caught:
        assert len(reruns.stored_runs("student_run", {})[0]) == 3
    assert len(caught) == 2
