"""rclib.runs.code: throw-away packages whose code is changed, and what runs in the experiments."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stored_runs

import rclib
from rclib.runs.code import NEUTRAL, code_digest, code_of
from rclib.runs.code_modules import read_module

_numbers = itertools.count()
Package = Callable[[dict[str, str]], str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Writes the modules of a new package, where {p} stands for its name; returns the name."""
    name = f"codepackage{next(_numbers)}"
    folder = tmp_path / "packages"
    monkeypatch.syspath_prepend(str(folder))

    def write(modules: dict[str, str]) -> str:
        for module, source in {"__init__": "", **modules}.items():
            path = folder / name / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source.replace("{p}", name), encoding="utf-8")
            os.utime(path, (1, 1))  # older than this process, like an installed module
        importlib.invalidate_caches()
        return name

    return write


TREE = {
    "top": '''
from {p} import near as beside, whole
from {p}.direct import value as renamed
import {p}.dotted
from {p}.tables import FUNCTIONS


@beside.marked
def run(data, *, n):
    """Words."""
    total = beside.size(n) + renamed + {p}.dotted.late()
    return FUNCTIONS["first"](total, [hidden for hidden in range(n)], kept(whole))


def kept(module):
    return getattr(module, "anything")


def unused():
    return 0
''',
    "near": """
import math

FACTOR = 2


def marked(function):
    return function


def size(x):
    return math.sqrt(x) * FACTOR


def aside(x):
    return x


def hidden():
    return 1
""",
    "direct": "value = 1\nother = 2\n",
    "dotted": """
def late():
    from {p}.deep import C as K
    return K(1).method()
""",
    "deep": '''
class Base:
    def shared(self):
        return STEP


class C(Base):
    """Words."""
    x: int = 1

    def method(self):
        "Words."
        return self.x + helper()


def helper():
    return STEP


STEP = 3
''',
    "tables": """
def first(*values):
    return len(values)


FUNCTIONS = {"first": first}
COUNT = {}
for name in FUNCTIONS:
    COUNT[name] = 0
""",
    "whole": "anything = 1\nelse_ = 2\n",
}


@pytest.mark.parametrize(
    ("module", "old", "new", "changes"),
    [
        ("top", '    """Words."""\n', "", False),
        ("top", "total = ", "total = 0 + ", True),
        ("top", "return 0", "return 1", False),
        ("top", "\ndef unused", "\n# why\n\ndef unused", False),
        ("near", "FACTOR = 2", "FACTOR = 3", True),
        ("near", "math.sqrt(x)", "math.exp(x)", True),
        ("near", "return function", "return lambda *a, **k: function(*a, **k)", True),
        ("near", "def aside(x):\n    return x", "def aside(x):\n    return 2 * x", False),
        ("near", "return 1", "return 2", False),  # the name is a local one where it is used
        ("direct", "value = 1", "value = 1.0", True),
        ("direct", "other = 2", "other = 3", False),
        ("dotted", "K(1)", "K(2)", True),
        ("deep", "Words.", "Other words.", False),
        ("deep", "x: int = 1", "x: int = 1  # why", False),
        ("deep", "x: int = 1", "x: int = 2", True),
        ("deep", "def helper():\n    return STEP", "def helper():\n    return -STEP", True),
        ("deep", "STEP = 3", "STEP = 4", True),
        ("deep", "def shared(self):\n        return STEP", "def shared(self):\n        pass", True),
        ("tables", "return len(values)", "return 7", True),
        ("tables", "COUNT[name] = 0", "COUNT[name] = 1", True),  # acts on import
        ("whole", "else_ = 2", "else_ = 3", True),  # the module is handed on as a value
    ],
)
def test_what_is_reached_counts_and_nothing_else(
    package: Package, module: str, old: str, new: str, changes: bool
) -> None:
    name = package(TREE)
    before = code_digest(f"{name}.top", "run")
    assert code_digest(f"{name}.top", "run") == before
    assert TREE[module].count(old) == 1 or old == "Words."
    package({**TREE, module: TREE[module].replace(old, new)})
    assert (code_digest(f"{name}.top", "run") != before) is changes


def test_moving_code_changes_nothing(package: Package) -> None:
    """Another module, another way to import, another order of definitions: the same code."""
    one = package(
        {
            "a": "from {p} import b\n\ndef run(data):\n    return b.f(b.LIMIT)\n",
            "b": "LIMIT = 1\n\ndef g(x):\n    return x\n\ndef f(x):\n    return g(x)\n",
        }
    )
    first = code_digest(f"{one}.a", "run")
    package(
        {
            "a": "",
            "sub/__init__": '"""Docstring alone."""\n',
            "sub/a": "from {p}.c import f\nfrom {p}.sub.d import LIMIT as L\n\n"
            "def run(data):\n    return f(L)\n",
            "c": "import {p}.sub.d\n\ndef f(x):\n    return {p}.sub.d.g(x)\n",
            "sub/d": "def g(x):\n    return x\n\nLIMIT = 1\n",
        }
    )
    assert code_digest(f"{one}.sub.a", "run") == first


def test_two_definitions_of_one_name_are_told_apart(package: Package) -> None:
    def tree(first: str, second: str) -> dict[str, str]:
        run = "from {p} import b, c\n\ndef run(data):\n    return %s.f(1) - %s.f(2)\n"
        return {
            "a": run % (first, second),
            "b": "def f(x):\n    return x\n",
            "c": "def f(x):\n    return x * x\n",
        }

    name = package(tree("b", "c"))
    before = code_digest(f"{name}.a", "run")
    package(tree("c", "b"))
    assert code_digest(f"{name}.a", "run") != before


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("from . import b\ndef run(data): pass", ValueError, "relative imports"),
        ("from {p}.b import *\ndef run(data): pass", ValueError, r"import \* of"),
        ("def run(data): return nowhere(1)", ValueError, "nothing defines 'nowhere'"),
        ("from {p} import b\ndef run(data): return b.absent", ValueError, "defines no 'absent'"),
        ("from {p} import absent\ndef run(data): return absent", ValueError, "no 'absent'"),
        ("def run(data): return eval('1')", ValueError, "calls eval"),
        ("def run(data): exec('1')", ValueError, "calls exec"),
        ("import importlib\ndef run(data): importlib.import_module('b')", ValueError, "import_mod"),
        ("import os", ValueError, "defines no 'run'"),
    ],
)
def test_code_that_cannot_be_followed_is_an_error(
    package: Package, source: str, error: type[Exception], message: str
) -> None:
    name = package({"a": source, "b": "x = 1\n"})
    with pytest.raises(error, match=message):
        code_digest(f"{name}.a", "run")


def test_functions_that_are_in_no_module_of_their_own_are_refused(package: Package) -> None:
    name = package({"a": "def run(data): pass\n"})
    with pytest.raises(ModuleNotFoundError, match=f"{name}.missing"):
        code_digest(f"{name}.missing", "run")
    with pytest.raises(ValueError, match="inside of another function"):
        code_digest(f"{name}.a", "run.<locals>.inner")


def test_globals_take_the_whole_module(package: Package) -> None:
    tree = {"a": "X = 1\n\ndef run(data):\n    return globals()['X']\n"}
    name = package(tree)
    before = code_digest(f"{name}.a", "run")
    package({"a": tree["a"].replace("X = 1", "X = 2")})
    assert code_digest(f"{name}.a", "run") != before


def test_modules_that_import_each_other(package: Package) -> None:
    tree = {
        "one": "from {p} import two\n\ndef run(data, n):\n    return n and two.back(n - 1)\n",
        "two": "from {p} import one\n\ndef back(n):\n    return one.run(None, n)\n",
    }
    name = package(tree)
    before = code_digest(f"{name}.one", "run")
    package({**tree, "two": tree["two"].replace("None, n", "None, -n")})
    assert code_digest(f"{name}.one", "run") != before


def test_a_module_without_a_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    digests = set()
    for x in (1, 2):
        (tmp_path / "alone_in_code_test.py").write_text(f"x = {x}\n\ndef run(data): return x\n")
        importlib.invalidate_caches()
        digests.add(code_digest("alone_in_code_test", "run"))
    assert len(digests) == 2


def test_packages_from_elsewhere_are_named(package: Package) -> None:
    name = package({"a": "import numpy as np\n\ndef run(data):\n    from sklearn import svm\n"})
    assert code_of(f"{name}.a", "run").packages == frozenset()
    package(
        {"a": "import numpy as np\n\ndef run(data):\n    from sklearn import svm\n    svm, np\n"}
    )
    assert code_of(f"{name}.a", "run").packages == {"numpy", "sklearn"}


def test_the_librarys_code_counts_for_functions_of_other_packages(package: Package) -> None:
    name = package(
        {"a": "from rclib.rowcolumn.axes import mlp_axes\n\ndef run(data): mlp_axes(2)\n"}
    )
    assert ("rclib.rowcolumn.axes", "mlp_axes") in code_of(f"{name}.a", "run").definitions


def test_a_module_edited_after_its_import_is_refused(package: Package) -> None:
    """Otherwise the old code's result would be stored under the new code's key."""
    name = package({"runs": "def run(data):\n    return 1\n"})
    module = importlib.import_module(f"{name}.runs")
    path = Path(str(module.__file__))
    before = code_digest(module.__name__, "run")
    path.write_text("def run(data):\n    return 2\n")
    with pytest.raises(RuntimeError, match=r"runs was edited after it was imported"):
        code_digest(module.__name__, "run")
    os.utime(path, (1, 1))
    assert code_digest(module.__name__, "run") != before


# --- what runs in the experiments -------------------------------------------------------------


def executed(call: Callable[[], Any]) -> set[tuple[str, int]]:
    """(file, first line) of every piece of the library's code that runs during a call."""
    root = str(Path(rclib.__file__).parent)
    seen: set[tuple[str, int]] = set()

    def look(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            code = frame.f_code
            if code.co_filename.startswith(root) and code.co_name != "<module>":
                seen.add((code.co_filename, code.co_firstlineno))

    sys.setprofile(look)
    threading.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return seen


@functools.cache  # the experiments run much of the same code
def home(file: str, line: int) -> tuple[str, frozenset[str]]:
    """The module that a line of code is in, and the names that its top-level statement defines."""
    parts = Path(file).relative_to(Path(rclib.__file__).parents[1]).with_suffix("").parts
    name = ".".join(parts).removesuffix(".__init__")
    module = read_module(name, frozenset({"rclib"}))
    for place, statement in enumerate(module.statements):
        first = min(
            [statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))]
        )
        if first <= line <= (statement.end_lineno or first):
            return name, frozenset(n for n, places in module.defines.items() if place in places)
    raise AssertionError(f"{file}:{line} is in no statement of {name}")


@pytest.mark.parametrize("which", stored_runs.stored_functions())
def test_all_code_that_runs_is_in_the_digest(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "cache"))
    function, config = stored_runs.function_of(which), stored_runs.tiny(which)
    data = stored_runs.tiny_data(which)
    stored_runs.forget(which)  # what is kept between calls: its code may have run before
    ran = [home(*place) for place in executed(lambda: function(data, **config))]
    reached = set(code_of(function.__module__, function.__qualname__).definitions)
    missing = {
        (where, name)
        for where, names in ran
        if where not in NEUTRAL
        for name in names
        if not any((where, n) in reached for n in names)
    }
    assert not missing
    assert any(function.__name__ in names for _, names in ran)  # the profiler saw it


@pytest.mark.slow
def test_an_edit_of_any_definition_reached_changes_the_key(tmp_path: Path) -> None:
    """Every definition that `train_mlp` reaches, one after the other, in a copy of the library; and
    then all others at once, which must change nothing."""
    copy = tmp_path / "copy" / "rclib"
    shutil.copytree(Path(rclib.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-B", "-c", EDITS, str(copy)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=copy.parent,
        env={**os.environ, "PYTHONPATH": str(copy.parent)},
    )
    assert done.returncode == 0, done.stderr
    reached, unchanged, spared, same = json.loads(done.stdout)
    assert len(reached) > 40
    assert unchanged == []
    assert spared > 500
    assert same


EDITS = """
import ast, json, pathlib, sys
from rclib.runs.code import code_of
from rclib.runs.code_modules import find
root = pathlib.Path(sys.argv[1])
function = ("rclib.experiments.mean_field.mlp_runs", "train_mlp")
before = code_of(*function)
assert find(function[0]).is_relative_to(root)

def edit(tree, place):
    at = tree.body[place]
    if isinstance(at, (ast.FunctionDef, ast.ClassDef)):
        at.body.append(ast.parse("added_here = 1").body[0])
    elif at.value is not None:
        at.value = ast.Tuple([at.value, ast.Constant(1)], ast.Load())

unchanged, spared, sources = [], 0, {}
for path in sorted(root.rglob("*.py")):
    name = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
    sources[path] = source = path.read_text()
    tree, others = ast.parse(source), ast.parse(source)
    reached = {n for m, n in before.definitions if m == name}
    for place, node in enumerate(tree.body):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = {node.name}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        else:
            continue
        if not names & reached:
            edit(others, place)
            spared += 1
            continue
        changed = ast.parse(source)
        edit(changed, place)
        path.write_text(ast.unparse(changed))
        if code_of(*function).digest == before.digest:
            unchanged.append([name, sorted(names)])
        path.write_text(source)
    sources[path] = ast.unparse(others)
for path, source in sources.items():
    path.write_text(source)
same = code_of(*function).digest == before.digest
print(json.dumps([before.definitions, unchanged, spared, same]))
"""
