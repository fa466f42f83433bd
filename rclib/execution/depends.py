"""Which notebook depends on which files of the library, for make: `build/depends.mk`.

`python -m rclib.execution.depends build/depends.mk` writes one line a notebook, from the imports
in its cells and, from there on, in the modules themselves. So an edit runs the notebooks again
that import what was edited, directly or not, and no other. Data that a module reads (a style, a
table) count with it when its text names them.

Needs the standard library alone, since every `make figures` runs it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.plain import DataError, read_plain
from rclib.files.strict import parse_json
from rclib.files.terminal import Parser, note, printable

__all__ = ["closure", "main", "notebook_imports", "rules"]

_MAX_BYTES = 2**26  # of a notebook, outputs included
_NAME = re.compile(r"[0-9a-z_]+")


def notebook_imports(path: Path) -> set[str]:
    """Names of the library that a notebook's code cells import, e.g. "rclib.nets.mlp".

    Raises ValueError for a file that is no notebook, or with code that is none.
    """
    try:
        cells = parse_json(read_plain(path, _MAX_BYTES).decode("utf-8"))["cells"]
        sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        lines = [s for source in sources for s in source.splitlines()]
        # IPython's own commands are no Python.
        code = "\n".join(
            "" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines
        )
        return set(_imports(ast.parse(code)))
    except (
        ValueError,
        LookupError,
        TypeError,
        SyntaxError,
        DataError,
        RecursionError,
        MemoryError,
    ) as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(printable(f"{path} cannot be read as a notebook: {text}")) from None


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "rclib")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rclib":
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def closure(names: Iterable[str], root: Path) -> set[Path]:
    """Files of the library below `root` that these imports need, data files included."""
    files: set[Path] = set()
    todo = set(names)
    done: set[str] = set()
    while todo:
        name = todo.pop()
        done.add(name)
        path = root.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not path.is_file():
            continue  # a name inside of a module
        if path in files:
            continue
        imports, data = _read(path, path.stat().st_mtime_ns)
        files |= {path, *data}
        # The face of `rclib` imports all for the type checker alone.
        found = frozenset() if name == "rclib" else imports
        parents = {name.rpartition(".")[0]} - {""}
        todo |= (found | parents) - done
    return files


@cache  # a module is read once, and most notebooks need most of them
def _read(module: Path, _changed: int) -> tuple[frozenset[str], frozenset[Path]]:
    """What a module imports of the library, and the data files that it names."""
    text = module.read_text(encoding="utf-8")
    return frozenset(_imports(ast.parse(text))), frozenset(_data(module, text))


def _data(module: Path, text: str) -> Iterator[Path]:
    """Files beside a module, or in a folder beside it, that its text names."""
    for path in module.parent.iterdir():
        if path.is_file() and path.suffix not in (".py", ".pyc", ".typed") and path.name in text:
            yield path
        elif path.is_dir() and not (path / "__init__.py").exists() and f'"{path.name}"' in text:
            yield from (p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc")


def rules(needs: Mapping[str, Iterable[Path]], root: Path) -> str:
    """The text of depends.mk: `NEEDS_<notebook>` for every notebook, paths from `root`."""
    needs = {name: list(files) for name, files in needs.items()}
    lines = ["# Written by `python -m rclib.execution.depends`; do not edit."]
    for name, files in sorted(needs.items()):
        shown = " ".join(sorted(str(path.relative_to(root)) for path in files))
        lines.append(f"NEEDS_{name} := {shown}")
    # A file that is gone must not stop make: what needed it runs again.
    gone = sorted({str(path.relative_to(root)) for files in needs.values() for path in files})
    lines += [f"{path}:" for path in gone]
    return "\n".join(lines) + "\n"


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Write for make which notebook depends on which files."""
    parser = Parser(prog="python -m rclib.execution.depends", description=main.__doc__)
    parser.add_argument("target", type=Path)
    target: Path = parser.parse_args(argv).target
    root = paths.project_root()
    needs = {}
    try:
        for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
            if not _NAME.fullmatch(path.stem):
                raise ValueError(
                    f"notebook {path.name!r}: its name may hold small letters, digits and _ alone"
                )
            needs[path.stem] = closure(notebook_imports(path), root)
        write_atomically(target, rules(needs, root).encode())
    except (ValueError, OSError) as error:
        note(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
