"""rclib as a package that others install: names, docstrings, versions, and what a wheel holds."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
import yaml

import rclib

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "rclib").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


@cache  # three tests a module look at it
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            names = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            assert isinstance(names, list)
            return names
    return None


def public(body: list[ast.stmt], prefix: str = "") -> list[tuple[str, Definition]]:
    """Public functions, classes and methods of a module, with their names."""
    found: list[tuple[str, Definition]] = []
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            found.append((prefix + node.name, node))
            if isinstance(node, ast.ClassDef):
                found += public(node.body, f"{prefix}{node.name}.")
    return found


def raised(function: Definition) -> set[str]:
    """Exceptions that a function raises itself and does not catch in the same lines."""
    caught = {
        node
        for attempt in ast.walk(function)
        if isinstance(attempt, ast.Try) and attempt.handlers
        for statement in attempt.body
        for node in ast.walk(statement)
    }
    calls = [
        node.exc
        for node in ast.walk(function)
        if isinstance(node, ast.Raise) and node.exc is not None and node not in caught
    ]
    names = {c.func.id for c in calls if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)}
    return {name for name in names if name[0].isupper() and name != "NotImplementedError"}


# --- names and docstrings ------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_all_names_exactly_the_public_definitions_and_what_else_exists(name: str) -> None:
    tree = tree_of(name)
    names = exported(tree)
    if name == "rclib":
        assert names == sorted(rclib.FACE)
        return
    if MODULES[name].name == "__init__.py":
        assert not names, "a package names its modules by being a folder"
        return
    assert names is not None, "no __all__"
    assert len(set(names)) == len(names)
    defined = {label for label, _ in public(tree.body) if "." not in label}
    assert defined - set(names) == set(), "public, but not in __all__ (or rename it to _...)"
    if not name.endswith("__main__"):
        module = importlib.import_module(name)
        assert [n for n in names if not hasattr(module, n)] == []
    assert not [n for n in names if n.startswith("_")]


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name: str) -> None:
    tree = tree_of(name)
    assert ast.get_docstring(tree), "the module has none"
    assert [label for label, node in public(tree.body) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_name_the_errors(name: str) -> None:
    """A function that raises an error itself says so, or its class does."""
    missing = []
    classes: dict[str, str] = {}
    for label, node in public(tree_of(name).body):
        text = ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef):
            classes[label] = text
            continue
        text += classes.get(label.rpartition(".")[0], "")
        missing += [f"{label}: {error}" for error in sorted(raised(node)) if error not in text]
    assert missing == []


def test_every_public_annotation_is_there() -> None:
    """mypy --strict checks that they are right, in what is installed because of py.typed."""
    assert (ROOT / "rclib" / "py.typed").is_file()
    assert PROJECT["tool"]["mypy"]["strict"] is True
    for name in MODULES:
        for label, node in public(tree_of(name).body):
            if not isinstance(node, ast.ClassDef):
                assert node.returns is not None, f"{name}.{label}"


# --- versions ------------------------------------------------------------------------------


def test_version_is_semantic_and_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[\w.]+)?", version)
    assert rclib.__version__ == version
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == version
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[?([^\]\s]+)\]?", changes, flags=re.MULTILINE)
    assert version in headings
    released = [heading for heading in headings if heading != "Unreleased"]
    numbers = [tuple(map(int, heading.split("."))) for heading in released]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(headings)) == len(headings)


# --- what others install -------------------------------------------------------------------


# What a contributor may add: it must be packed without an edit of pyproject.toml.
ADDED = [
    "rclib/experiments/added/__init__.py",
    "rclib/experiments/added/one.py",
    "rclib/study/papers/arxiv-0000.00000.yaml",
    "rclib/families/tables/added.yaml",
    "rclib/execution/templates/added.tmpl",
    "rclib/plots/added.mplstyle",
    "rclib/site/templates/added.html.j2",
    "rclib/site/assets/added.svg",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, without a network."""
    folder = tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "rclib", folder / "rclib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ADDED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (folder / "out").glob("*.whl")
    return made


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    packed = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("rclib/")}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "rclib").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there | set(ADDED)
    for pattern in (
        "rclib/py.typed",
        "rclib/families/tables/*.yaml",
        "rclib/study/papers/series.yaml",
        "rclib/study/papers/*.yaml",
        "rclib/plots/*.mplstyle",
        "rclib/site/assets/*.css",
        "rclib/site/templates/pdoc/*",
        "rclib/execution/templates/*",
        "rclib/experiments/*/*.py",
        "rclib/experiments/mean_field/records/*/*.safetensors",
    ):
        assert [name for name in there if fnmatch(name, pattern)], pattern


@pytest.mark.slow
def test_wheel_passes_twine_and_imports_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    check = [sys.executable, "-P", "-m", "twine", "check", "--strict", str(wheel)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    target = tmp_path / "installed"
    packed = zipfile.ZipFile(wheel)
    members = [name for name in packed.namelist() if name not in ADDED]
    packed.extractall(target, members)  # what an installer does with a pure wheel
    code = (
        "import rclib, rclib.rowcolumn.measure, rclib.plots.panels, rclib.reports.replication\n"
        "rclib.plots.style.use_style()\n"  # finds its style file
        "import rclib.families.layout, rclib.study.papers, rclib.execution.scaffold\n"
        "assert len(rclib.families.layout.known_families()) > 4\n"
        "assert len(list(rclib.study.papers.load_papers())) > 20\n"
        "assert rclib.execution.scaffold.template('notebook')\n"
        "print(rclib.__file__, rclib.__version__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(target), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout
    assert done.stdout.split()[-1] == rclib.__version__
