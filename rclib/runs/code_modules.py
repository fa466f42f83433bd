"""What a module's top level defines, imports and does, read from its source alone.

Nothing is imported on the way: packages are looked up in the file system, so that a digest costs
what parsing costs.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "Module",
    "Ref",
    "bound_names",
    "find",
    "homes",
    "imported",
    "is_module",
    "read_module",
    "without_docstring",
]

_IMPORTED = time.time()

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


@dataclass(frozen=True)
class Ref:
    """What a name stands for: a module, a member of it, or (outside) something from elsewhere."""

    module: str
    member: str | None = None
    outside: bool = False


@dataclass
class Module:
    """statements : those that define something or act on import.
    defines : name -> places in `statements`; refers : name -> what was imported under it.
    effects : places of the statements that act on import.
    face : name -> what a package hands on under it when it is asked for (`FACE`).
    """

    name: str
    statements: list[ast.stmt] = field(default_factory=list)
    defines: dict[str, list[int]] = field(default_factory=dict)
    refers: dict[str, Ref] = field(default_factory=dict)
    effects: list[int] = field(default_factory=list)
    face: dict[str, Ref] = field(default_factory=dict)


def find(name: str) -> Path | None:
    """The source file of a module; None if there is none."""
    root, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(root)
    except (ValueError, ImportError):
        return None
    if spec is None or not spec.origin:
        return None
    path = Path(spec.origin)
    for part in rest:
        if path.name != "__init__.py":
            return None
        plain, package = path.parent / f"{part}.py", path.parent / part / "__init__.py"
        path = package if package.is_file() else plain
        if not path.is_file():
            return None
    return path if path.suffix == ".py" and path.is_file() else None


def is_module(name: str) -> bool:
    """Whether there is a module of this name."""
    return find(name) is not None


def read_module(name: str, follow: frozenset[str]) -> Module:
    """The top level of a module. `follow`: packages whose names are not from elsewhere.

    Raises ModuleNotFoundError for one without a source file, RuntimeError for one edited after
    this process had imported it, ValueError for imports that hide what they bring.
    """
    path = find(name)
    if path is None:
        raise ModuleNotFoundError(f"no source file for module {name!r}")
    if name in sys.modules and _edited(path):
        raise RuntimeError(
            f"module {name} was edited after it was imported, so its code in memory is not "
            "the code in its file; restart the kernel or process"
        )
    module = Module(name)
    for statement in without_docstring(ast.parse(path.read_text(encoding="utf-8")).body):
        _sort(statement, module, follow)
    for place, statement in enumerate(module.statements):
        if place not in module.effects and _registers(statement, module):
            module.effects.append(place)
    return module


_seen: dict[Path, tuple[int, int]] = {}  # size and time of change at the first look


def _edited(path: Path) -> bool:
    """Whether a file was edited after this process had imported it.

    By the time of its last change, which the system keeps and nobody sets, where that is earlier
    than the date, which may lie in the future (unpacked, copied, touched). Where even that does, a
    clock was set back, and what this process saw first decides.
    """
    state = path.stat()
    changed = state.st_mtime if os.name == "nt" else min(state.st_mtime, state.st_ctime)
    now = (state.st_size, state.st_mtime_ns)
    before = _seen.setdefault(path, now)
    return before != now if changed > time.time() else changed > _IMPORTED


def _sort(statement: ast.stmt, module: Module, follow: frozenset[str]) -> None:
    match statement:
        case ast.Import() | ast.ImportFrom():
            module.refers |= imported(statement, module.name, follow)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            for one in statement.body:
                _sort(one, module, follow)
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            pass  # does nothing on import
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            _define(statement, [statement.name], module)
        case ast.Assign() | ast.AnnAssign() if _targets(statement) == ["__all__"]:
            pass
        case ast.Assign(value=ast.Dict() as table) if _targets(statement) == ["FACE"]:
            for name, (home, _) in ast.literal_eval(table).items():
                place, _, member = home.partition(":")
                module.face[name] = Ref(place, member or None)
        case ast.Assign() | ast.AnnAssign() if (names := _targets(statement)) is not None:
            _define(statement, names, module)
        case _:
            bound, found = bound_names([statement], module.name, follow)
            module.refers |= found
            _define(statement, sorted(bound - found.keys()), module)
            module.effects.append(len(module.statements) - 1)


def _define(statement: ast.stmt, names: Sequence[str], module: Module) -> None:
    module.statements.append(statement)
    for name in names:
        module.defines.setdefault(name, []).append(len(module.statements) - 1)


def _targets(statement: ast.Assign | ast.AnnAssign) -> list[str] | None:
    """Names that an assignment defines; None if it changes something else, like `x[0] = 1`."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    names: list[str] = []
    for target in targets:
        parts = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
        for part in parts:
            if not isinstance(part, ast.Name):
                return None
            names.append(part.id)
    return names


# Decorators of the package that keep nothing of what they decorate.
_KEEPS_NOTHING = {("rclib.plots.drawing", "redrawable")}


def _registers(statement: ast.stmt, module: Module) -> bool:
    """Whether a definition is decorated by something of the package, which may keep it."""
    for decorator in getattr(statement, "decorator_list", []):
        root = decorator
        while isinstance(root, (ast.Attribute, ast.Call)):
            root = root.value if isinstance(root, ast.Attribute) else root.func
        if isinstance(root, ast.Name):
            ref = module.refers.get(root.id)
            if ref is not None and (ref.module, ref.member) in _KEEPS_NOTHING:
                continue
            if root.id in module.defines or (ref is not None and not ref.outside):
                return True
    return False


def imported(
    node: ast.Import | ast.ImportFrom, where: str, follow: frozenset[str]
) -> dict[str, Ref]:
    """The names that an import statement brings.

    Raises ValueError for a relative or a star import of a followed package.
    """
    found: dict[str, Ref] = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            root = alias.name.split(".")[0]
            whole = alias.name if alias.asname else root
            found[alias.asname or root] = Ref(whole, outside=root not in follow)
        return found
    if node.level:
        raise ValueError(f"relative imports hide what code a result depends on: {node.module}")
    base = str(node.module)
    outside = base.split(".")[0] not in follow
    for alias in node.names:
        if alias.name == "*":
            if not outside:
                raise ValueError(f"cannot tell what code {where} depends on: import * of {base}")
            continue
        inner = f"{base}.{alias.name}"
        within = not outside and is_module(inner)
        found[alias.asname or alias.name] = Ref(inner) if within else Ref(base, alias.name, outside)
    return found


def bound_names(
    body: Sequence[ast.AST], where: str, follow: frozenset[str]
) -> tuple[frozenset[str], dict[str, Ref]]:
    """Names that statements bind in their own scope, and those of them that are imports."""
    names: set[str] = set()
    imports: dict[str, Ref] = {}
    outer: set[str] = set()
    for node in _own(body):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name):
                names.add(name)
            case ast.ExceptHandler(name=str(name)):
                names.add(name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.add(name)
            case ast.MatchMapping(rest=str(name)):
                names.add(name)
            case ast.Import() | ast.ImportFrom():
                imports |= imported(node, where, follow)
            case ast.Global():
                outer.update(node.names)
            case _:
                pass
    return frozenset(names - outer) | imports.keys(), imports


def _own(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """All nodes of a scope, without what lies inside of inner scopes."""
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, _SCOPES):
            todo += ast.iter_child_nodes(node)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            # An assignment expression in a comprehension binds in the scope around it.
            todo += [n for n in ast.walk(node) if isinstance(n, ast.NamedExpr)]


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a body but for a string that stands first."""
    first = body[0] if body else None
    words = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if words else body


@functools.cache
def homes() -> dict[str, set[str]]:
    """The modules of `rclib` that define a function of a name at their top level."""
    root = Path(__file__).parents[1]
    homes: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                homes.setdefault(node.name, set()).add(".".join(parts))
    return homes
