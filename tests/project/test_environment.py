"""environment.yml, requirements.lock and pyproject.toml say the same, and nothing unused."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = tuple(PROJECT["optional-dependencies"])
# Not in the lock: its packages ask for programs that are not needed (`make models`).
LOCKED = tuple(extra for extra in EXTRAS if extra != "models")
CONDA_NAMES = {  # the others have one name in both worlds
    "build": "python-build",
    "huggingface-hub": "huggingface_hub",
    "torch": "pytorch",
}
MODULES = {"beautifulsoup4": "bs4", "pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
# What is used without an import of its own: the file and the text that show it.
EVIDENCE = {
    "build": ("Makefile", "-m build"),
    "codespell": ("Makefile", "-m codespell_lib"),
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


def declared(extras: Sequence[str] = ("notebooks", "dev")) -> dict[str, Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
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
    """The lock: package -> its lines, which differ by their markers."""
    found: dict[str, list[Requirement]] = {}
    for line in lock_lines():
        text, *hashes = line.split(" --hash=")
        assert hashes, f"{text} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), text
        assert len(set(hashes)) == len(hashes), text
        requirement = Requirement(text)  # raises for options, addresses and file paths
        assert requirement.url is None, line
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def lock_lines() -> list[str]:
    """One line a pin, with its hashes behind it."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return re.sub(r" *\\\n +", " ", text).splitlines()


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
    for requirement in declared(EXTRAS).values():
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
    for name, requirement in declared(LOCKED).items():
        valid = [p for p in locked.get(name, []) if not p.marker or p.marker.evaluate(machine)]
        assert len(valid) == 1, f"{name} is pinned {len(valid)} times"
        (pin,) = valid[0].specifier
        assert pin.operator == "==", valid[0]
        assert pin.version in requirement.specifier, valid[0]


def test_lock_names_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(
        r"://|index-url|find-links|trusted-host|^\s*-(?!-hash)", text, re.MULTILINE
    )


def models_recipe(makefile: str) -> str:
    """What `make models` runs: packages of an extra that is not in the lock."""
    (recipe,) = re.findall(r"^models:.*\n\t.*\n", makefile, re.MULTILINE)
    assert "--no-deps" in recipe
    return str(recipe)


def test_setup_asks_for_the_hashes_and_make_lock_writes_them() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = re.findall(r"-m pip install.*", makefile.replace(models_recipe(makefile), ""))
    assert len(installs) == 2
    assert "--require-hashes -r requirements.lock" in installs[0]
    # rclib itself, and nothing that it names: that is there already.
    assert installs[1].endswith("--no-deps --no-build-isolation -e .")
    (lock,) = re.findall(r"uv pip compile.*", makefile)
    for option in (
        "--generate-hashes",
        "$(EXTRAS:%=--extra %)",
        "--universal",
        "--no-emit-index-url",
    ):
        assert option in lock
    floor = PROJECT["requires-python"].removeprefix(">=")
    assert f"--python-version {floor} " in lock


def test_lock_holds_exactly_what_the_installed_packages_ask_for() -> None:
    """From what pyproject.toml names, step by step through the packages that are installed here:
    every one is pinned at a version that all who name it accept, and no pin is left over."""
    locked = {
        name: next((p for p in found if p.marker is None or p.marker.evaluate()), None)
        for name, found in pins().items()
    }
    todo = [(name, frozenset(r.extras)) for name, r in declared(LOCKED).items()]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        pin = locked.get(name)
        assert pin is not None, f"{name} is not in the lock"
        try:
            asked = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
        if metadata.version(name) not in pin.specifier:
            continue  # another version than the lock's, which may ask for others
        for line in asked:
            need = Requirement(line)
            applies = [{"extra": extra} for extra in ("", *extras)]
            if need.marker is None or any(need.marker.evaluate(e) for e in applies):
                key = canonicalize_name(need.name)
                found = locked.get(key)
                assert found is not None, f"{name} asks for {key}, which is not in the lock"
                (version,) = (s.version for s in found.specifier)
                assert need.specifier.contains(version, prereleases=True), f"{name}: {need}"
                todo.append((key, frozenset(need.extras)))
    everything = {name for name, _ in seen}
    if all(installed_as_locked(name, locked[name]) for name in everything):
        assert {name for name, pin in locked.items() if pin is not None} == everything


def installed_as_locked(name: str, pin: Requirement | None) -> bool:
    try:
        return pin is not None and metadata.version(name) in pin.specifier
    except metadata.PackageNotFoundError:
        return False


def test_environment_yml_names_the_other_extras() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    for extra in set(EXTRAS) - {"notebooks", "dev"}:
        assert f"`.[{extra}]`" in text, extra


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
