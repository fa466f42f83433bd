"""CONTRIBUTING.md, the workflows, the hooks and the issue forms name what exists."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

import rclib.study.claims as claims
from rclib.execution import scaffold, strip

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*"))
HOOKS = ROOT / ".pre-commit-config.yaml"
# What stands for a name that the reader chooses: an example of a file that exists.
EXAMPLES = {
    "46_slug": "11_figure_4_1_heat_maps",
    "test_slug": "test_spikes",
    "slug.py": "width.py",
    "arxiv-1234.56789": "a",
    "<theme>": "spikes",
    "<family>": "llama",
    "<profile>": "paper",
    "<notebook>": "11_figure_4_1_heat_maps",
    "<digit>": "1",
    "<what>": "epoch",
}
MADE_LATER = ("build/", "site/", "dist/", ".venv", "results/quick", "figures/quick")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, re.MULTILINE))


def code_spans() -> list[str]:
    prose = re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def blocks(language: str = "") -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, flags=re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def exists(path: str) -> bool:
    for name, example in EXAMPLES.items():
        path = path.replace(name, example)
    if "/" not in path:  # named after its folder
        return (ROOT / path).exists() or any(
            list((ROOT / folder).rglob(path)) for folder in ("rclib", ".github")
        )
    return (ROOT / path).exists() or path.startswith(MADE_LATER)


def is_path(text: str) -> bool:
    return bool(re.fullmatch(r"[\w.<>-]*/[\w./<>-]*|[A-Za-z.]\w*\.(md|toml|yaml|yml|lock)", text))


def command_is_there(line: str) -> bool:
    """Whether a shell command calls a target, a module or a file of this project that exists."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if words[0] == "make":
        named = [word for word in words[1:] if "=" not in word]
        return set(named) <= targets()
    if words[0].startswith((".venv/bin/python", "python")):
        if words[1] == "-m":
            name = words[2]
            missing = importlib.util.find_spec(name) is None
            return not missing and all(
                exists(word) for word in words[3:] if word.startswith("tests/")
            )
        return words[1] == "-c" or exists(words[1])
    if words[0] in ("test", "gh", "pip", "pre-commit"):
        return True
    return (ROOT / words[0]).is_file()


# --- CONTRIBUTING.md


def test_paths_exist() -> None:
    paths = [text for text in code_spans() if is_path(text)]
    assert len(paths) > 40
    assert [path for path in paths if not exists(path)] == []


def test_commands_exist() -> None:
    lines = [line for block in blocks() for line in block.splitlines() if line.strip()]
    spans = [s for s in code_spans() if s.startswith(("make ", ".venv/bin/python", ".ci/"))]
    assert len(lines) + len(spans) > 25
    assert [line for line in lines + spans if not command_is_there(line)] == []


def test_every_target_with_help_that_guards_results_is_named() -> None:
    for target in ("new", "check", "test", "lint", "seeds", "machines", "chaos", "mutants", "dist"):
        assert f"make {target}" in GUIDE
        assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE), f"{target} has no help"


def test_where_does_x_go_has_ten_answers_and_the_tree_agrees() -> None:
    section = GUIDE.split("## Where does X go?")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    for what, place, _ in rows:
        named = re.findall(r"`([^`]+)`", place)
        assert named, what
        paths = [text for text in named if "/" in text]
        assert paths, what
        assert all(exists(path) for path in paths), what


def test_dotted_names_and_marks_exist() -> None:
    for text in code_spans():
        if re.fullmatch(r"rclib(\.\w+)+", text):
            assert importlib.util.find_spec(text) is not None, text
    for section in re.findall(r"`\[(tool[\w.]+)\]`", GUIDE):
        table: Any = PROJECT
        for key in section.split("."):
            table = table[key]
    assert scaffold.MARK in GUIDE
    assert strip.KEEP in GUIDE
    marks = PROJECT["tool"]["pytest"]["ini_options"]["markers"]
    assert any(mark.startswith("slow:") for mark in marks)
    for name in ("above", "below", "between"):
        assert callable(getattr(claims, name))
    for name in ("measure", "not_testable"):
        assert hasattr(claims.Claims, name)
    assert f"{PROJECT['tool']['coverage']['report']['fail_under']} percent" in GUIDE


def test_the_claim_is_one_that_can_be_declared() -> None:
    class Study:
        claims = claims.Claims(paper="A")

    (block,) = blocks("python")
    exec(block, {"study": Study, "between": claims.between, "seeds": [0, 1, 2]})
    assert Study.claims.measure("independent_narrows", [-0.5, -0.501, -0.499]) == "reproduced"


def test_links_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(CONTRIBUTING.md)" in readme


# --- workflows, hooks, issue forms


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in parsed(path)["jobs"].items():
            yield f"{path.name}: {name}", job


def test_workflows_are_what_they_should_be() -> None:
    assert [path.name for path in WORKFLOWS] == ["pages.yml", "release.yml", "tests.yml"]
    for path in WORKFLOWS:
        content = parsed(path)
        assert set(content) <= {"name", True, "permissions", "concurrency", "jobs"}  # True: on
        assert content["permissions"] == {"contents": "read"}, "a job asks for more, alone"
    linux = parsed(ROOT / ".github/workflows/tests.yml")["jobs"]
    assert linux["linux"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert linux["macos"]["continue-on-error"] is True
    release = parsed(ROOT / ".github/workflows/release.yml")[True]
    (pattern,) = release["push"]["tags"]
    assert fnmatch("v0.1.0", pattern.replace("+", "*"))
    assert list(release["push"]) == ["tags"]


def test_jobs_have_a_limit_and_steps_that_exist() -> None:
    for name, job in jobs():
        assert job["runs-on"].endswith("-latest"), name
        assert "timeout-minutes" in job or "environment" in job, name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), name
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]), step["uses"]
                cached = step.get("with", {}).get("cache-dependency-path")
                assert cached is None or (ROOT / cached).is_file()
            else:
                for line in step["run"].splitlines():
                    assert command_is_there(line), f"{name}: {line}"


def test_scripts_that_jobs_call_can_be_executed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--stage", ".ci/run"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert not listed or listed.startswith("100755")
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_hooks_need_no_network_and_call_what_exists() -> None:
    hooks = [hook for repo in parsed(HOOKS)["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in parsed(HOOKS)["repos"]} == {"local"}
    assert {"ruff", "ruff-format", "nbstripout"} <= {hook["id"] for hook in hooks}
    for hook in hooks:
        assert hook["language"] == "system", hook["id"]
        assert command_is_there(hook["entry"]), hook["entry"]
        for pattern in filter(None, [hook.get("files")]):
            re.compile(pattern)


def test_nothing_names_a_registry() -> None:
    texts = [*WORKFLOWS, *FORMS, HOOKS, ROOT / "CONTRIBUTING.md", ROOT / ".ci/run"]
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pypi|pythonhosted|anaconda\.(org|com)|index-url|npmjs", text), path


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms(path: Path) -> None:
    content = parsed(path)
    if path.name == "config.yml":
        assert set(content) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(content)
    assert set(content) <= {"name", "description", "title", "labels", "body"}
    ids = [element["id"] for element in content["body"] if "id" in element]
    assert len(set(ids)) == len(ids)
    for element in content["body"]:
        kind, attributes = element["type"], element["attributes"]
        assert kind in ("markdown", "input", "textarea", "dropdown", "checkboxes")
        assert ("value" if kind == "markdown" else "label") in attributes or kind == "checkboxes"
        if kind in ("dropdown", "checkboxes"):
            assert attributes["options"]
        assert kind != "markdown" or "id" not in element
    for target in re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8")):
        assert target in targets()


def test_there_is_a_form_for_claims_and_for_checkpoints() -> None:
    names = {parsed(path).get("name") for path in FORMS}
    assert {"A claim differs for me", "Checkpoint not read"} <= names
