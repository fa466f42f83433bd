"""environment.yml, requirements.lock and pyproject.toml say the same, and nothing unused."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {  # the others have one name in both worlds
    "build": "python-build",
    "huggingface-hub": "huggingface_hub",
    "torch": "pytorch",
}
MODULES = {"beautifulsoup4": "bs4", "pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
# What is used without an import of its own: the file and the text that show it.
EVIDENCE = {
    "build": ("Makefile", "-m build"),
    "coverage": ("Makefile", "-m coverage"),
    "import-linter": ("Makefile", "lint-imports"),
    "ipykernel": ("rclib/execution/runner.py", 'KERNEL = "python3"'),
    "jupyter": ("Makefile", "-m jupyter lab"),
    "jupyterlab": ("Makefile", "-m jupyter lab"),
    "mypy": ("Makefile", "-m mypy"),
    "nbval": ("Makefile", "--nbval-lax"),
    "pytest-xdist": ("Makefile", "--dist"),
    "ruff": ("Makefile", "-m ruff"),
    "setuptools": ("pyproject.toml", 'build-backend = "setuptools.build_meta"'),
    "twine": ("Makefile", "-m twine"),
    "types-pyyaml": ("rclib/files/strict.py", "import yaml"),
}


def declared() -> dict[str, Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in ("notebooks", "dev"):
        lines += PROJECT["optional-dependencies"][extra]
    found = [Requirement(line) for line in lines]
    names = {canonicalize_name(r.name): r for r in found}
    assert len(names) == len(found), "a package is named twice"
    return names


def conda() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def pins() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        requirement = Requirement(line)  # raises for options, addresses and file paths
        assert requirement.url is None, line
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_environment_yml_says_the_same_as_pyproject() -> None:
    lines = [line for line in conda()["dependencies"] if isinstance(line, str)]
    wanted = {CONDA_NAMES.get(name, name) + str(r.specifier) for name, r in declared().items()}
    wanted |= {f"python{PROJECT['requires-python']}", "pip"}
    assert sorted(lines) == sorted(wanted)


def test_environment_yml_takes_conda_forge_and_installs_rclib() -> None:
    content = conda()
    assert content["channels"] == ["conda-forge"]
    assert content["name"] == PROJECT["name"]
    assert [line for line in content["dependencies"] if isinstance(line, dict)] == [
        {"pip": ["-e ."]}
    ]


def test_every_dependency_has_a_lower_bound_and_no_upper_one() -> None:
    for requirement in declared().values():
        assert [s.operator for s in requirement.specifier] == [">="], requirement


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_lock_pins_every_dependency_within_its_bound(python: str, platform: str) -> None:
    machine = {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "sys_platform": platform,
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "nt" if platform == "win32" else "posix",
    }
    locked = pins()
    for name, requirement in declared().items():
        valid = [p for p in locked.get(name, []) if not p.marker or p.marker.evaluate(machine)]
        assert len(valid) == 1, f"{name} is pinned {len(valid)} times"
        (pin,) = valid[0].specifier
        assert pin.operator == "==", valid[0]
        assert pin.version in requirement.specifier, valid[0]


def test_lock_names_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|index-url|find-links|trusted-host|^\s*-", text, re.MULTILINE)


def imported(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def cells(path: Path) -> str:
    """The notebook's code without IPython's own commands."""
    content = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        line
        for cell in content["cells"]
        if cell["cell_type"] == "code"
        for line in [*"".join(cell["source"]).splitlines(), ""]
    ]
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def test_every_dependency_is_used() -> None:
    modules: set[str] = set()
    for folder in ("rclib", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            modules |= imported(path.read_text(encoding="utf-8"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        modules |= imported(cells(path))
    unused = set()
    for name in declared():
        if name in EVIDENCE:
            file, text = EVIDENCE[name]
            assert text in (ROOT / file).read_text(encoding="utf-8"), f"{name} has no use left"
        elif MODULES.get(name, name.replace("-", "_")) not in modules:
            unused.add(name)
    assert unused == set()
