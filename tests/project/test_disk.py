"""A disk that is full, read-only or wrong: one line ends the notebook, and no run is lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import quick_kernels

from rclib.execution import runner

RUNS = """
import os
from pathlib import Path

import numpy as np


def noise(data, *, seed):
    with open(Path(os.environ["RCLIB_TEST_LOG"]), "a") as log:
        log.write("computed\\n")
    return {"x": np.random.default_rng(seed).standard_normal(20_000)}
"""

COMPUTE = """
import pandas as pd
from matplotlib import pyplot as plt
from disk_test_runs import noise
from rclib.runs import store
from rclib.study.claims import below
from rclib.study.study import Study

study = Study("10_small", title="T", parameters={"profile": profile, "seeds": seeds})
study.claims.declare("mean", paper="A", statement="s", quantity="q", criterion=below(1))
x = store.fetch(noise, {"seed": seeds[0]})["x"]
study.claims.measure("mean", float(x.mean()))
figure, axes = plt.subplots()
axes.plot(x)
study.save_figure(figure, "noise", caption="c.", data=pd.DataFrame({"x": x}))
study.close()
"""


def notebook() -> str:
    def cell(name: str, source: str, *tags: str) -> dict[str, Any]:
        kind: dict[str, Any] = {"cell_type": "code", "execution_count": None, "outputs": []}
        return kind | {"id": name, "metadata": {"tags": list(tags)}, "source": source}

    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [cell("a", 'profile = "quick"\nseeds = [1]', "parameters"), cell("b", COMPUTE)]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": meta, "cells": cells})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    (folder / "notebooks" / "10_small.ipynb").write_text(notebook())
    module = folder / "notebooks" / "disk_test_runs.py"  # where a notebook's kernel starts
    module.write_text(RUNS)
    os.utime(module, (1, 1))
    return folder


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A small file system of its own, where this is allowed."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except OSError as error:
            pytest.skip(f"no file system can be mounted here: {error}")
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


@pytest.fixture(scope="module")
def offered() -> Iterator[None]:
    with quick_kernels.to_be_had():
        yield


Run = Callable[[Path], tuple[int, str]]


@pytest.fixture
def run(
    project: Path,
    offered: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """The notebook with its results in a folder; the store is the project's. Exit code, errors."""
    quick_kernels.use(monkeypatch)
    monkeypatch.chdir(project)
    monkeypatch.delenv("RCLIB_CACHE", raising=False)
    monkeypatch.setenv("RCLIB_TEST_LOG", str(project / "log"))

    def go(out: Path) -> tuple[int, str]:
        monkeypatch.setenv("RCLIB_OUT", str(out))
        capsys.readouterr()
        return runner.main(["run", "10_small"]), capsys.readouterr().err

    return go


def computed(project: Path) -> int:
    return (project / "log").read_text().count("computed")


def check_refusal(run: Run, project: Path, out: Path, reason: str) -> None:
    """One line, and nothing half-written."""
    code, said = run(out)
    assert code == 1
    (line,) = said.splitlines()
    assert line.startswith("error: 10_small: cell 2: ")
    assert reason in line
    assert not (project / "build" / "quick" / "10_small.ipynb").exists()
    assert not [p for p in out.rglob("*") if p.name.endswith(".tmp")] if out.is_dir() else True
    assert computed(project) == 1


@pytest.mark.slow
def test_full_disk(run: Run, project: Path, mount: Callable[[str], Path]) -> None:
    check_refusal(run, project, mount("size=64k"), "No space left on device")


@pytest.mark.slow
def test_read_only_disk(run: Run, project: Path, mount: Callable[[str], Path]) -> None:
    check_refusal(run, project, mount("ro,size=1m"), "Read-only file system")


@pytest.mark.slow
def test_a_file_where_the_results_folder_should_be(run: Run, project: Path) -> None:
    """This one needs no mount, so it shows as well that afterwards only the rest is done again:
    the run is in the store, whatever the results could not be written for."""
    (project / "out").write_text("not a folder")
    check_refusal(run, project, project / "out", "Not a directory")
    code, said = run(project)
    assert code == 0, said
    assert computed(project) == 1
    (folder,) = (project / "figures" / "quick").iterdir()
    assert {p.name for p in folder.iterdir()} == {"noise.png", "noise.csv"}
    assert (project / "results" / "quick" / "10_small.json").is_file()
