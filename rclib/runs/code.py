"""Which code a result depends on: a digest of the definitions that a function reaches.

From the function on, every top-level definition (function, class, constant) that is named, in
its own body or in one reached before, is followed through the imports. What is hashed are the
syntax trees without docstrings. A reference stands in them as the number of its definition in the
order of discovery, so neither a definition's name nor the module that holds it nor the spelling of
an import counts: moving and renaming changes no digest, changing a definition changes the digests
of all functions that reach it and of no other.

Where a name alone does not say what runs, more is taken rather than less:

- a module used as a value (handed on, `getattr`) or `globals()`: all its definitions;
- statements of a reached module that act when it is imported (a loop, a call, a definition
  decorated by the package itself): always;
- `eval`, `exec`, `__import__`, `import_module` and star imports cannot be followed, a name that
  nothing defines cannot either: ValueError.

Classes are taken whole, and with them the methods of every object whose class is named somewhere
on the way, in an annotation for instance. Modules in `NEUTRAL` are not followed: they decide
where and in which order runs happen, not what comes out.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
from dataclasses import dataclass

from rclib.runs.code_modules import (
    Module,
    Ref,
    bound_names,
    is_module,
    read_module,
    without_docstring,
)

__all__ = ["NEUTRAL", "Code", "code_digest", "code_of"]

NEUTRAL = frozenset(
    {
        "rclib.runs.code",
        "rclib.runs.code_modules",
        "rclib.runs.given",
        "rclib.files.atomic",
        "rclib.paths",
        "rclib.runs.stacked",
        "rclib.runs.store",
        "rclib.runs.sweep",
    }
)
# What a module has without defining it.
_GIVEN = frozenset(dir(builtins)) | {"__file__", "__name__", "__package__", "__spec__", "__class__"}
_OPAQUE = frozenset({"eval", "exec", "__import__", "import_module"})


@dataclass(frozen=True)
class Code:
    """What a function depends on.

    digest : SHA-256, 64 hexadecimal digits.
    definitions : (module, name) of every definition reached, the function first; statements that
        act on import have the name "".
    packages : top-level names of the packages from elsewhere that these definitions use.
    """

    digest: str
    definitions: tuple[tuple[str, str], ...]
    packages: frozenset[str]


def code_digest(module: str, qualname: str) -> str:
    """The digest alone; see `code_of`."""
    return code_of(module, qualname).digest


def code_of(module: str, qualname: str) -> Code:
    """The code behind a top-level function (or a method) of a module.

    Raises ModuleNotFoundError for a module without a source file, since its code cannot be told
    apart; ValueError for a function that is not defined at the top level and for code that
    cannot be followed; RuntimeError for a module edited after this process had imported it.
    """
    if module == "__main__":
        raise ModuleNotFoundError(
            "a function of __main__ (a notebook or script) is in no module whose code could be "
            "told apart; move it to a module"
        )
    if "<" in qualname:
        raise ValueError(
            f"{module}.{qualname} is made inside of another function, so its code alone does not "
            "say what it does; define it at the top level of a module"
        )
    return _Walk(module).code(module, qualname.split(".")[0])


class _Walk:
    """One walk over what a function reaches."""

    def __init__(self, module: str) -> None:
        self.follow = frozenset({module.split(".")[0], "rclib"})
        self.modules: dict[str, Module] = {}
        self.number: dict[tuple[str, int], int] = {}  # (module, statement) -> order of discovery
        self.todo: list[tuple[str, int, str]] = []
        self.whole_modules: set[str] = set()
        self.packages: set[str] = set()

    def code(self, module: str, name: str) -> Code:
        self.reach(Ref(module, name), f"{module}.{name}")
        texts: list[str] = []
        while len(texts) < len(self.todo):  # grows on the way
            at, place, _ = self.todo[len(texts)]
            statement = self.modules[at].statements[place]  # changed in place: it comes up once
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                statement.name = ""
            texts.append(ast.dump(_Rewrite(self, self.modules[at]).visit(statement)))
        digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        names = tuple((module, name) for module, _, name in self.todo)
        return Code(digest, names, frozenset(self.packages))

    def module(self, name: str) -> Module:
        """A module, read once. What acts on its import is reached with it."""
        if name not in self.modules:
            self.modules[name] = read_module(name, self.follow)
            for place in self.modules[name].effects:
                self.add(name, place, "")
        return self.modules[name]

    def add(self, module: str, place: int, name: str) -> int:
        if (module, place) not in self.number:
            self.number[module, place] = len(self.todo)
            self.todo.append((module, place, name))
        return self.number[module, place]

    def reach(self, ref: Ref, where: str) -> str:
        """Note what a reference leads to; returns how it is written in the digest."""
        if ref.outside:
            self.packages.add(ref.module.split(".")[0])
            return f"{ref.module}.{ref.member}" if ref.member else ref.module
        if ref.module in NEUTRAL:
            return ref.member or ref.module.rpartition(".")[2]
        if ref.member is None:
            return self.whole(ref.module)
        found = self.module(ref.module)
        if ref.member in found.defines:
            places = [self.add(ref.module, p, ref.member) for p in found.defines[ref.member]]
            return f"@{','.join(map(str, places))}"
        if ref.member in found.refers:
            return self.reach(found.refers[ref.member], where)
        inner = f"{ref.module}.{ref.member}"
        if is_module(inner):
            return self.reach(Ref(inner), where)
        if ref.member in found.face:  # of a package that hands on names of its modules
            return self.reach(found.face[ref.member], where)
        raise ValueError(
            f"cannot tell what code {where} depends on: {ref.module} defines no {ref.member!r}"
        )

    def whole(self, name: str) -> str:
        """Everything that a module defines, and what it imports by name."""
        found = self.module(name)
        numbers = [self.add(name, p, n) for n, ps in found.defines.items() for p in ps]
        if name not in self.whole_modules:  # once: modules may import each other
            self.whole_modules.add(name)
            for ref in found.refers.values():
                self.reach(ref, name)
        return f"module@{','.join(map(str, numbers))}"


class _Rewrite(ast.NodeTransformer):
    """A definition as it is hashed: docstrings and imports gone, references numbered."""

    def __init__(self, walk: _Walk, module: Module) -> None:
        self.walk, self.module = walk, module
        # Innermost last: the names bound there, and what those of them that are imported stand for.
        self.scopes: list[tuple[frozenset[str], dict[str, Ref]]] = []

    def lookup(self, name: str) -> Ref | None:
        """What a name stands for beyond this definition; None for a local or built-in one."""
        for bound, imports in reversed(self.scopes):
            if name in imports:
                return imports[name]
            if name in bound:
                return None
        if name in self.module.defines:
            return Ref(self.module.name, name)
        if name in self.module.refers:
            return self.module.refers[name]
        if name in _OPAQUE:
            raise ValueError(f"cannot tell what code {self.module.name} runs: it calls {name}")
        if name == "globals":
            return Ref(self.module.name)
        if name in _GIVEN:
            return None
        raise ValueError(
            f"cannot tell what code {self.module.name} depends on: nothing defines {name!r}"
        )

    def visit_Name(self, node: ast.Name) -> ast.AST:
        ref = self.lookup(node.id)
        return node if ref is None else ast.Name(self.walk.reach(ref, self.module.name), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        chain: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            chain.insert(0, inner.attr)
            inner = inner.value
        ref = self.lookup(inner.id) if isinstance(inner, ast.Name) else None
        if ref is not None and ref.outside and ref.module == "importlib" and chain[0] in _OPAQUE:
            raise ValueError(f"cannot tell what code {self.module.name} runs: it calls {chain[0]}")
        if ref is None or ref.outside or ref.member is not None:
            return self.generic_visit(node)
        while ref.member is None and chain:  # through packages, down to the definition
            inside = f"{ref.module}.{chain[0]}"
            ref = Ref(inside) if is_module(inside) else Ref(ref.module, chain[0])
            del chain[0]
        made: ast.expr = ast.Name(self.walk.reach(ref, self.module.name), ast.Load())
        for attr in chain:
            made = ast.Attribute(made, attr, ast.Load())
        return made

    # scopes

    def inside(self, body: list[ast.stmt], args: ast.arguments | None = None) -> list[ast.stmt]:
        bound, imports = bound_names(body, self.module.name, self.walk.follow)
        if args is not None:
            bound |= {a.arg for a in ast.walk(args) if isinstance(a, ast.arg)}
        else:
            # Names of a class body are seen in it and not in its methods. One that the module
            # has as well is taken for the module's: more than needed, never less.
            bound -= self.module.defines.keys() | self.module.refers.keys()
        self.scopes.append((bound, imports))
        done = [self.visit(statement) for statement in without_docstring(body)]
        self.scopes.pop()
        return done

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.decorator_list = [self.visit(one) for one in node.decorator_list]
        node.returns = self.visit(node.returns) if node.returns is not None else None
        body, node.body = node.body, []
        args = node.args
        self.generic_visit(args)  # defaults and annotations belong to the scope around
        node.body = self.inside(body, args)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [self.visit(one) for one in node.decorator_list]
        node.bases = [self.visit(one) for one in node.bases]
        node.keywords = [self.visit(one) for one in node.keywords]
        node.body = self.inside(node.body)
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self.generic_visit(node.args)
        bound = frozenset(a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg))
        self.scopes.append((bound, {}))
        node.body = self.visit(node.body)
        self.scopes.pop()
        return node

    def comprehension(self, node: ast.AST) -> ast.AST:
        targets = [g.target for g in node.generators]  # type: ignore[attr-defined]
        names = frozenset(n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
        self.scopes.append((names, {}))
        self.generic_visit(node)
        self.scopes.pop()
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> ast.AST:
        return ast.Pass()

    visit_ImportFrom = visit_Import
