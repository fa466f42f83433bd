"""docs/how_the_pieces_fit.md and its picture: the packages, their layers, and who imports whom.

`python -m rclib.reports.architecture` writes both from the code: the layers are those of the
import-linter contract in pyproject.toml, the lines are the imports that stand in the modules, the
words are the first lines of the packages' docstrings. A test checks that the committed files are
current and that every import goes down the layers.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.terminal import note, report
from rclib.reports.drawing import draw_layers

__all__ = ["imports", "layers", "main", "page", "picture", "summaries", "upward", "without_detours"]

Imports = Mapping[str, Sequence[str]]

_HEAD = """\
# How the pieces fit

*Written by `python -m rclib.reports.architecture` from the code; do not edit.*

A package imports only from the rows below its own, never from its own row or from above;
`make lint` checks it. A line that others already say (`a` to `b` to `c` says `a` to `c`) is left
out of the picture; the table has every import.

![The layers of rclib and the imports between its packages](how_the_pieces_fit.svg)

## The way of one number

1. An experiment (`experiments`) builds networks (`nets`) or opens checkpoints (`checkpoints`), and
   trains, resizes or measures them with the packages below it.
2. A run's result goes into the store and is found there the next time (`runs`).
3. The notebook declares a claim, measures it with that result and saves its figures (`study`):
   one results file a notebook.
4. The notebook is executed by `make figures` (`execution`).
5. The README, replication.md and the pages of the series are written from the results files
   (`reports`), and so is this site (`site`).

## The packages

"""


def layers(pyproject: Path) -> list[list[str]]:
    """The rows of the contract "layers", the highest first."""
    tools = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]
    contract = next(c for c in tools["importlinter"]["contracts"] if c["id"] == "layers")
    return [[name.strip() for name in row.split("|")] for row in contract["layers"]]


def imports(package: Path) -> dict[str, list[str]]:
    """Package or module directly below `package` -> those beside it that its modules import.

    The package's own `__init__` and `__main__`, which hand names on, are left out.
    """
    found: dict[str, set[str]] = {}
    beside = {path.stem for path in package.iterdir()}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").parts[0]
        if not name.startswith("__"):
            named = _named(ast.parse(path.read_text(encoding="utf-8")), package.name)
            found.setdefault(name, set()).update((named & beside) - {name})
    return {name: sorted(found[name]) for name in sorted(found)}


def _named(tree: ast.Module, root: str) -> set[str]:
    """First names below the root package that a module's imports hold."""
    full = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            full += [f"{node.module}.{alias.name}" for alias in node.names]
    return {
        parts[1] for parts in (name.split(".") for name in full) if parts[0] == root and parts[1:]
    }


def upward(rows: Sequence[Sequence[str]], edges: Imports) -> list[tuple[str, str]]:
    """Imports that do not go down the layers."""
    place = {name: row for row, names in enumerate(rows) for name in names}
    return [(a, b) for a, found in edges.items() for b in found if place[a] >= place[b]]


def without_detours(edges: Imports) -> dict[str, list[str]]:
    """The imports without those that follow from others (the transitive reduction).

    Raises RecursionError for edges that go round.
    """

    def reached(name: str) -> set[str]:
        return set(edges[name]).union(*(reached(below) for below in edges[name]))

    return {
        name: [b for b in found if not any(b in reached(other) for other in found)]
        for name, found in edges.items()
    }


def summaries(package: Path) -> dict[str, str]:
    """Package or module directly below `package` -> first line of its docstring."""
    found = {}
    for path in sorted([*package.glob("*/__init__.py"), *package.glob("[a-z]*.py")]):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[name] = doc.partition("\n")[0]
    return found


def picture(root: Path) -> str:
    """The text of docs/how_the_pieces_fit.svg."""
    edges = without_detours(imports(root / "rclib"))
    return draw_layers(
        layers(root / "pyproject.toml"),
        edges,
        summaries(root / "rclib"),
        title="The layers of rclib and the imports between its packages",
    )


def page(root: Path) -> str:
    """The text of docs/how_the_pieces_fit.md."""
    package = root / "rclib"
    edges, lines = imports(package), summaries(package)
    rows = ["| package | what it holds | imports |", "|---|---|---|"]
    for names in layers(root / "pyproject.toml"):
        for name in names:
            where = f"../rclib/{name}" + ("" if (package / name).is_dir() else ".py")
            below = ", ".join(f"`{other}`" for other in edges[name]) or "nothing of rclib"
            rows.append(f"| [`{name}`]({where}) | {lines[name]} | {below} |")
    return _HEAD + "\n".join(rows) + "\n"


@command()
def main() -> int:
    """Rewrite the page and its picture."""
    root = paths.project_root()
    try:
        texts = {"how_the_pieces_fit.svg": picture(root), "how_the_pieces_fit.md": page(root)}
    except (OSError, KeyError, ValueError) as error:
        note(f"error: the picture of the layers cannot be drawn: {error!r}")
        return 2
    for name, text in texts.items():
        path = root / "docs" / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            report(f"docs/{name} is current")
        else:
            write_atomically(path, text.encode())
            report(f"docs/{name} updated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
