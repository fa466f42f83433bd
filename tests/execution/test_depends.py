"""rclib.execution.depends, and what make does with it: an edit runs what imports it, no more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rclib import paths
from rclib.execution import depends

ROOT = Path(__file__).parents[2]


def notebook(path: Path, *cells: str) -> None:
    made = [{"cell_type": "code", "source": source} for source in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": [*made, {"cell_type": "markdown", "source": "import x"}]}))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of a few modules, one notebook on `a`, one on `b`."""
    modules = {
        "__init__": "",
        "a/__init__": "",
        "a/one": "from rclib.b import two\n",
        "a/beside": "STYLE = 'plain.mplstyle'\n",
        "b/__init__": "",
        "b/two": "def f():\n    from rclib.c.late import g\n    return g\n",
        "b/lonely": 'TABLES = "tables"\n',
        "c/__init__": "",
        "c/late": "g = 1\n",
    }
    for name, text in modules.items():
        path = tmp_path / "rclib" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for data in ("a/plain.mplstyle", "a/other.mplstyle", "b/tables/t.yaml", "b/other/u.yaml"):
        path = tmp_path / "rclib" / data
        path.parent.mkdir(exist_ok=True)
        path.write_text("x: 1\n")
    notebook(tmp_path / "notebooks" / "10_a.ipynb", "%load_ext x\nfrom rclib.a import one", "!ls")
    notebook(tmp_path / "notebooks" / "20_b.ipynb", "import rclib.b.lonely", "from os import path")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def needs(project: Path) -> dict[str, set[str]]:
    assert depends.main([str(project / "build" / "depends.mk")]) == 0
    text = (project / "build" / "depends.mk").read_text()
    lines = [line for line in text.splitlines() if line.startswith("NEEDS_")]
    pairs = [line.removeprefix("NEEDS_").split(" := ") for line in lines]
    return {
        name: {p.removeprefix("rclib/") for p in files.split() if "__init__" not in p}
        for name, files in pairs
    }


def test_imports_are_followed_also_those_inside_of_functions(project: Path) -> None:
    assert needs(project) == {
        "10_a": {"a/one.py", "b/two.py", "c/late.py"},
        "20_b": {"b/lonely.py", "b/tables/t.yaml"},
    }


def test_data_counts_where_a_module_names_it(project: Path) -> None:
    notebook(project / "notebooks" / "10_a.ipynb", "from rclib.a.beside import STYLE")
    assert needs(project)["10_a"] == {"a/beside.py", "a/plain.mplstyle"}


def test_a_file_that_is_gone_does_not_stop_make(project: Path) -> None:
    needs(project)
    assert "\nrclib/c/late.py:\n" in (project / "build" / "depends.mk").read_text()


@pytest.mark.parametrize("name", ["1 a", "1$(ls)", "1'a", "1A", "1-a"])
def test_names_that_a_shell_could_take_otherwise_are_refused(
    project: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook(project / "notebooks" / f"{name}.ipynb", "x = 1")
    assert depends.main([str(project / "build" / "depends.mk")]) == 1
    assert "small letters, digits and _ alone" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [{}]}'])
def test_a_broken_notebook_is_named(
    project: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "notebooks" / "10_a.ipynb").write_text(text)
    assert depends.main([str(project / "build" / "depends.mk")]) == 1
    assert "10_a.ipynb cannot be read as a notebook" in capsys.readouterr().err


def test_real_notebooks_need_what_they_import_and_not_each_others_experiments() -> None:
    root = ROOT
    first = depends.closure(
        depends.notebook_imports(root / "notebooks" / "10_table_1_parametrizations.ipynb"), root
    )
    names = {str(path.relative_to(root / "rclib")) for path in first}
    assert {"nets/mlp.py", "plots/style.mplstyle", "experiments/mean_field/table_1.py"} <= names
    assert not [name for name in names if name.startswith(("experiments/spikes", "site/", "cli/"))]


def test_the_standard_library_is_enough(project: Path) -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from rclib.execution import depends\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == "['rclib']"


# --- make --------------------------------------------------------------------------------------


@pytest.fixture
def made(project: Path) -> Path:
    """The project with the real Makefile and an environment whose python is this one."""
    (project / "Makefile").write_text((ROOT / "Makefile").read_text())
    (project / "requirements.lock").touch()
    for folder in ("rclib/execution", "rclib/files"):
        (project / folder).symlink_to(ROOT / folder)
    for name in ("paths.py",):
        (project / "rclib" / name).symlink_to(ROOT / "rclib" / name)
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (project / ".venv" / ".installed").touch()
    return project


def would_run(project: Path, *arguments: str) -> list[str]:
    """Notebooks that `make figures` would run now."""
    done = subprocess.run(
        ["make", "-n", "_figures", *arguments],
        cwd=project, capture_output=True, text=True, timeout=120,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(project), "HOME": os.environ["HOME"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = [line.split() for line in done.stdout.splitlines() if "runner run" in line]
    return [line[line.index("run") + 1] for line in words]


def built(project: Path) -> None:
    for path in (project / "notebooks").glob("*.ipynb"):
        for target in (f"build/quick/{path.name}", f"results/quick/{path.stem}.json"):
            (project / target).parent.mkdir(parents=True, exist_ok=True)
            (project / target).touch()


@pytest.mark.slow
def test_an_edit_runs_what_imports_it(made: Path) -> None:
    assert would_run(made) == ["10_a", "20_b"]
    built(made)
    assert would_run(made) == []
    for file, expected in (
        ("rclib/c/late.py", ["10_a"]),
        ("rclib/b/tables/t.yaml", ["20_b"]),
        ("rclib/b/other/u.yaml", []),
        ("notebooks/20_b.ipynb", ["20_b"]),
    ):
        built(made)
        stamp = (made / "build/quick/10_a.ipynb").stat().st_mtime + 10
        os.utime(made / file, (stamp, stamp))
        assert would_run(made) == expected, file
        os.utime(made / file, (1, 1))
    built(made)
    (made / "rclib/c/late.py").unlink()
    assert would_run(made) == []  # and no "no rule to make target"


def test_series_and_names_choose(made: Path) -> None:
    notebook(made / "notebooks" / "00_overview.ipynb", "x = 1")
    notebook(made / "notebooks" / "21_c.ipynb", "x = 1")
    assert would_run(made) == ["10_a", "20_b", "21_c", "00_overview"]
    assert would_run(made, "SERIES=2") == ["20_b", "21_c"]
    assert would_run(made, "SERIES=1 2") == ["10_a", "20_b", "21_c"]
    assert would_run(made, "ONLY=21_c") == ["21_c"]
    for wrong in ("SERIES=7", "ONLY=20_c", "PROFILE=a;ls", "ONLY=20_b;ls"):
        with pytest.raises(AssertionError):
            would_run(made, wrong)
    for wrong in ("PROFILE=pqper", "PROFILE=quick paper", "PROFILE="):
        with pytest.raises(AssertionError, match="there are quick, laptop and paper"):
            would_run(made, wrong)
    (made / "notebooks" / "1$(touch pwned).ipynb").write_text("{}")
    with pytest.raises(AssertionError, match="small letters, digits and _ alone"):
        would_run(made)
    assert not (made / "pwned").exists()


def test_profiles_of_make_are_those_of_the_library() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (known,) = re.findall(r"\$\(filter ([a-z ]+),\$\(PROFILE\)\)\),\)", text)
    assert tuple(known.split()) == paths.PROFILES


def test_jupyter_lab_starts_as_root_too(tmp_path: Path) -> None:
    """Jupyter refuses to run as root unless it is told."""
    line = re.search(r"jupyter lab (\$\$\(.*\)) --L", (ROOT / "Makefile").read_text())
    assert line is not None
    (tmp_path / "id").write_text("#!/bin/sh\necho $WHO\n")
    (tmp_path / "id").chmod(0o755)
    for who, option in (("0", "--allow-root"), ("1000", "")):
        said = subprocess.run(
            ["bash", "-euc", "echo " + line[1].replace("$$", "$")],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "WHO": who},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert said.stdout.strip() == option
