"""What `make check` runs: lint, types, layers, and the fast tests of what changed.

Changed is what differs from where this branch left main: commits, edits and new files. Tests are
chosen by file: those beside a changed module (tests/<package>), and those that import it or
anything that imports it, by the import graph of the code (grimp, which comes with import-linter).
Tests marked `slow` are left to `make test`. With --all the fast tests of everything run.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 90.0  # seconds that a check may take
# Files at the top and of other folders, by what tests read them.
READERS = {
    "notebooks": ("tests/project", "tests/execution/test_first_cell.py"),
    "results": ("tests/project", "tests/reports"),
    "figures": ("tests/project", "tests/reports"),
    "benchmarks": ("tests/project", "tests/benchmarks"),
    "docs": ("tests/project", "tests/reports"),
    "README.md": ("tests/project", "tests/reports"),
    "replication.md": ("tests/project", "tests/reports"),
    "codecheck.yml": ("tests/project", "tests/reports"),
}
Downstream = Callable[[str], set[str]]


def git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def changed_files(root: Path) -> list[str] | None:
    """Files that differ from where this branch left main, new ones too; None without git."""
    for main in ("origin/main", "main", "HEAD"):
        base = git(root, "merge-base", "HEAD", main)
        if base is not None:
            break
    else:
        return None
    listed = git(root, "diff", "--name-only", "-z", "--no-renames", base.strip(), "--")
    new = git(root, "ls-files", "-z", "--others", "--exclude-standard")
    return sorted({name for part in (listed, new) if part for name in part.split("\0") if name})


def graph() -> tuple[set[str], Downstream]:
    """The library's modules, and which of them import one, directly or through others."""
    import grimp

    found = grimp.build_graph("rclib", cache_dir=None)
    return set(found.modules), lambda module: set(found.find_downstream_modules(module))


def module_name(path: Path) -> str:
    """E.g. "rclib.nets.mlp" of rclib/nets/mlp.py, "rclib.nets" of its __init__.py."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str) -> set[str]:
    """Modules of the library that a file may import: `from a import b` can mean a.b as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "rclib"}


def tests_beside(path: Path, tests: Iterable[Path]) -> set[Path]:
    """The tests in the folder that mirrors a file's: tests/nets for rclib/nets/mlp.py."""
    folder = Path("tests", *path.parent.parts[1:])
    own = {test for test in tests if test.parent == folder or folder in test.parents}
    if folder != Path("tests"):  # a file at the top of the library has a test at the top
        return own
    return {test for test in own if test.parent == folder and test.stem == f"test_{path.stem}"}


def chosen(
    changed: Sequence[str], tests: dict[Path, set[str]], modules: set[str], downstream: Downstream
) -> set[Path]:
    """The test files to run. tests : each with what it imports of the library."""
    found: set[Path] = set()
    touched: set[str] = set()
    for name in changed:
        path = Path(name)
        top = path.parts[0]
        if top == "rclib":
            found |= {test for test in tests if test.parent == Path("tests/project")}
            own, place = _owners(path, modules)
            found |= tests_beside(place, tests)
            for module in own:
                touched |= {module} | (downstream(module) if module in modules else set())
        elif top == "tests":
            if path in tests:
                found.add(path)
            elif path.suffix == ".py" and path.parts[1] == "support":
                return set(tests)
            else:  # what the tests of a folder share; a folder without tests is the project's
                beside = {test for test in tests if test.parent == path.parent}
                found |= beside or {test for test in tests if test.parent == Path("tests/project")}
        else:
            for reader in READERS.get(top, ("tests/project",)):
                found |= {t for t in tests if Path(reader) in (t, *t.parents)}
    return found | {test for test, uses in tests.items() if uses & touched}


def _owners(path: Path, modules: set[str]) -> tuple[set[str], Path]:
    """The modules that a file of the library belongs to, and the file that stands for them.

    Data belong to the module or package whose folder they are in, or else to the one above."""
    if path.suffix == ".py":
        return {module_name(path)}, path
    for folder in path.parents:
        whole = ".".join(folder.parts)
        inside = {module for module in modules if module.startswith(f"{whole}.")}
        if len(folder.parts) > 1 and (inside or whole in modules):
            return {whole} | inside, folder / "__init__.py" if inside else folder.with_suffix(".py")
    return set(), path


def all_tests(root: Path) -> dict[Path, set[str]]:
    """Every test file below tests/, with what it imports of the library."""
    return {
        path.relative_to(root): imported(path.read_text(encoding="utf-8"))
        for path in sorted((root / "tests").rglob("test_*.py"))
    }


def steps(tests: Sequence[str]) -> list[tuple[str, list[str]]]:
    """What is run, in order; no tests, no pytest."""
    scripts = Path(sys.executable).parent
    python = [sys.executable, "-m"]
    formatted = ["rclib", "tests", "benchmarks"]
    found = [
        ("ruff", [*python, "ruff", "check", "--quiet", "."]),
        ("format", [*python, "ruff", "format", "--check", "--quiet", *formatted]),
        ("mypy", [*python, "mypy"]),
        ("layers", [str(scripts / "lint-imports"), "--no-cache"]),
    ]
    if tests:
        options = ["-q", "-m", "not slow", "--durations=3", "-n", str(min(4, os.cpu_count() or 1))]
        found.append(("pytest", [*python, "pytest", *options, *tests]))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Lint and the fast tests of what changed; the first step that fails ends it."""
    parser = argparse.ArgumentParser(description=(main.__doc__ or "").split(";")[0])
    parser.add_argument("--all", action="store_true", help="the fast tests of everything")
    parser.add_argument("--lint", action="store_true", help="no tests")
    parser.add_argument("--list", action="store_true", help="name the tests, run nothing")
    options = parser.parse_args(argv)
    begin = time.monotonic()
    tests = all_tests(ROOT)
    changed = None if options.all else changed_files(ROOT)
    names = ["tests"] if changed is None else sorted(map(str, chosen(changed, tests, *graph())))
    if options.list:
        print("\n".join(names))
        return 0
    what = "everything" if changed is None else f"{len(changed)} changed files"
    print(f"checking {what}: lint" + ("" if options.lint else f", tests in {len(names)} places"))
    with tempfile.TemporaryDirectory(prefix="rclib-check-") as out:
        environment = os.environ | {"RCLIB_OUT": out, "TQDM_DISABLE": "1"}
        for name, command in steps([] if options.lint else names):
            started = time.monotonic()
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=name != "pytest", text=True
            )
            # Nothing but slow tests, or none at all, in the chosen files: code 5.
            if done.returncode and (name, done.returncode) != ("pytest", 5):
                print((done.stdout or "") + (done.stderr or ""), end="")
                print(f"{name} failed", flush=True)
                return 1
            print(f"{name:8s} {time.monotonic() - started:6.1f} s", flush=True)
    spent = time.monotonic() - begin
    print(f"checked in {spent:.0f} s")
    if spent > LIMIT:
        print(
            f"that is over {LIMIT:.0f} s: mark slow tests of yours `slow` (make test runs them); "
            "the first check in a checkout is longer, while mypy reads everything"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
