"""`make check`: what has changed, and which tests that concerns."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import quick_check

ROOT = Path(__file__).parents[2]
TESTS = quick_check.all_tests(ROOT)
MODULES, DOWNSTREAM = quick_check.graph()


def chosen(*changed: str) -> set[str]:
    return {str(path) for path in quick_check.chosen(changed, TESTS, MODULES, DOWNSTREAM)}


def outside_of_project(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith("tests/project/")}


def test_a_module_takes_its_package_and_what_imports_it() -> None:
    found = chosen("rclib/stats/slopes.py")
    assert "tests/stats/test_two_sample.py" in found  # beside it
    assert "tests/experiments/spikes/test_spikes.py" in found  # through experiments.spikes.width
    assert "tests/project/test_package.py" in found  # names, docstrings, layers
    assert not {name for name in found if name.startswith(("tests/checkpoints", "tests/site"))}


def test_a_module_that_nothing_imports_takes_little() -> None:
    found = outside_of_project(chosen("rclib/site/mathml.py"))
    assert found
    # What is printed anywhere is looked at in the sources of all modules.
    assert all("site" in name or "terminal" in name for name in found)


def test_a_folder_without_tests_takes_those_of_the_project() -> None:
    assert "tests/project/test_recomputed.py" in chosen("tests/recomputed/recompute.py")
    assert chosen("tests/stats/helper.py") == {
        name for name in chosen("rclib/stats/slopes.py") if name.startswith("tests/stats/")
    }


def test_the_lowest_modules_take_nearly_all() -> None:
    assert len(chosen("rclib/checks/arguments.py")) > len(TESTS) / 2


def test_importers_are_those_of_the_graph() -> None:
    """Against a second reading of the sources: every test of a direct importer's user is there."""
    found = chosen("rclib/nets/gpt.py")
    direct = {
        quick_check.module_name(path.relative_to(ROOT))
        for path in (ROOT / "rclib").rglob("*.py")
        if "rclib.nets.gpt" in quick_check.imported(path.read_text(encoding="utf-8"))
    }
    assert direct
    for test, uses in TESTS.items():
        if uses & (direct | {"rclib.nets.gpt"}):
            assert str(test) in found


def test_data_count_for_the_modules_beside_them() -> None:
    found = chosen("rclib/families/tables/llama.yaml")
    assert "tests/families/test_layout.py" in found
    assert "tests/inspection/test_block_correlations.py" in found
    assert "tests/reports/test_replication.py" in chosen("rclib/study/papers/a.yaml")


def test_the_top_of_the_library() -> None:
    assert "tests/test_paths.py" in chosen("rclib/paths.py")
    assert "tests/execution/test_runner.py" in chosen("rclib/paths.py")
    assert not outside_of_project(chosen("rclib/py.typed"))


def test_tests_and_other_files() -> None:
    assert chosen("tests/stats/test_two_sample.py") == {"tests/stats/test_two_sample.py"}
    assert chosen("tests/support/site_project.py") == set(map(str, TESTS))
    assert "tests/project/test_determinism.py" in chosen("tests/project/chaos.py")
    assert "tests/execution/test_first_cell.py" in chosen("notebooks/21_x.ipynb")
    assert "tests/reports/test_readme.py" in chosen("README.md")
    assert "tests/project/test_environment.py" in chosen("pyproject.toml")
    assert not outside_of_project(chosen(".github/workflows/tests.yml"))
    assert chosen() == set()


def test_deleted_and_new_modules_are_no_error() -> None:
    found = chosen("rclib/stats/gone.py", "rclib/nowhere/new.py", "tests/stats/test_gone.py")
    assert "tests/stats/test_two_sample.py" in found


def test_folders_of_tests_mirror_the_packages() -> None:
    """So that the tests beside a module are found."""
    ours = {"tests/project", "tests/benchmarks", "tests/experiments", "tests"}
    for folder in {test.parent for test in TESTS} - set(map(Path, ours)):
        assert (ROOT / "rclib" / Path(*folder.parts[1:]) / "__init__.py").is_file(), folder


# --- what git says


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-b", "main")
    for name in ("one.py", "two.py", "three.py", ".gitignore"):
        (tmp_path / name).write_text("build\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_changed_are_commits_edits_and_new_files(repository: Path) -> None:
    assert quick_check.changed_files(repository) == []
    git(repository, "checkout", "-b", "work")
    (repository / "one.py").write_text("committed\n")
    git(repository, "commit", "-am", "second")
    git(repository, "checkout", "main")
    (repository / "three.py").write_text("of main alone\n")
    git(repository, "commit", "-am", "third")
    git(repository, "checkout", "work")
    (repository / "two.py").unlink()
    (repository / "new αβ.py").touch()
    (repository / "build").touch()  # ignored
    assert quick_check.changed_files(repository) == ["new αβ.py", "one.py", "two.py"]


def test_the_remote_main_comes_first(repository: Path) -> None:
    git(repository, "update-ref", "refs/remotes/origin/main", "main")
    (repository / "one.py").write_text("ahead of the remote\n")
    git(repository, "commit", "-am", "second")
    assert quick_check.changed_files(repository) == ["one.py"]


def test_another_main_branch_and_no_git(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    git(repository, "branch", "-m", "trunk")
    (repository / "one.py").write_text("edited\n")
    assert quick_check.changed_files(repository) == ["one.py"]
    assert quick_check.changed_files(tmp_path_factory.mktemp("plain")) is None


# --- what it runs


def test_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[list[str]] = []
    codes = {"pytest": 0}

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        code = codes.get(command[2], 0) if command[1] == "-m" else 0
        return subprocess.CompletedProcess(command, code, "what was said\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(quick_check, "graph", lambda: (MODULES, DOWNSTREAM))
    monkeypatch.setattr(quick_check, "all_tests", {ROOT: TESTS}.__getitem__)  # read once
    monkeypatch.setattr(quick_check, "changed_files", lambda root: ["rclib/site/mathml.py"])
    assert quick_check.main([]) == 0
    assert [c[2] for c in ran if c[1] == "-m"] == ["ruff", "ruff", "mypy", "pytest"]
    assert ran[-1][ran[-1].index("-m", 2) + 1] == "not slow"
    assert "tests/site/test_site.py" in ran[-1]
    assert "checked in" in capsys.readouterr().out
    ran.clear()
    assert quick_check.main(["--all"]) == 0
    assert ran[-1][-1] == "tests"
    ran.clear()
    assert quick_check.main(["--lint"]) == 0
    assert "pytest" not in ran[-1]
    codes["pytest"] = 5  # nothing but slow tests
    assert quick_check.main([]) == 0
    capsys.readouterr()
    codes["mypy"], _ = 1, ran.clear()
    assert quick_check.main([]) == 1
    assert capsys.readouterr().out.endswith("what was said\nmypy failed\n")
    assert len(ran) == 3  # the tests did not start
    assert quick_check.main(["--list"]) == 0
    assert "tests/site/test_site.py" in capsys.readouterr().out
