"""rclib.paths: the folders of a project made in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rclib import paths

VARIABLES = ("RCLIB_CACHE", "RCLIB_DATA", "RCLIB_OUT")
FOLDERS: list[tuple[str, Callable[[], Path], str]] = [
    ("RCLIB_CACHE", paths.cache_dir, ""),
    ("RCLIB_DATA", paths.data_dir, ""),
    ("RCLIB_OUT", lambda: paths.results_dir("paper"), "results/paper"),
    ("RCLIB_OUT", lambda: paths.figures_dir("quick"), "figures/quick"),
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    (root / "notebooks" / "deep").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(root)
    return root


def test_project_is_found_from_every_folder_inside(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for inside in (project, project / "notebooks", project / "notebooks" / "deep"):
        monkeypatch.chdir(inside)
        assert paths.project_root() == project


def test_project_needs_both_signs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = project / "notebooks" / "deep"
    (inner / "pyproject.toml").touch()  # a package inside the project is not the project
    monkeypatch.chdir(inner)
    assert paths.project_root() == project
    (inner / "notebooks").mkdir()
    assert paths.project_root() == inner


def test_outside_a_project_the_working_directory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths.project_root() == tmp_path


def test_default_folders(project: Path) -> None:
    assert paths.cache_dir() == project / ".cache" / "runs"
    assert paths.data_dir() == project / "data"
    assert paths.results_dir("quick") == project / "results" / "quick"
    assert paths.figures_dir("paper") == project / "figures" / "paper"


@pytest.mark.parametrize(("variable", "folder", "below"), FOLDERS)
def test_variable_moves_its_folders_alone(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    folder: Callable[[], Path],
    below: str,
) -> None:
    before = {name: f() for name, f, _ in FOLDERS if name != variable}
    monkeypatch.setenv(variable, "/somewhere/else")
    assert folder() == Path("/somewhere/else") / below
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv(variable, "~/kept")
    assert folder() == Path("/home/somebody/kept") / below
    # A kernel works in notebooks/, make in the project: both must find the same folder.
    monkeypatch.setenv(variable, "relative")
    from_root = folder()
    monkeypatch.chdir(project / "notebooks")
    assert folder() == from_root == project / "relative" / below
    monkeypatch.setenv(variable, "")
    assert folder().is_relative_to(project)
    assert {name: f() for name, f, _ in FOLDERS if name != variable} == before


@pytest.mark.parametrize("folder", [paths.results_dir, paths.figures_dir])
def test_unknown_profile_is_named_with_the_known_ones(folder: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=r"one of quick, laptop, paper, got '\.\./x'"):
        folder("../x")
