"""What the store of finished runs holds, and cleaning it: `make cache-info`, `make cache-clean`.

An entry is *current* when a run asked for now would find it: the code, the library versions
and the thread count that its key was made from are those of this checkout. Others are *stale*:
nothing will ask for them again unless the code goes back. Leftovers are files that a killed
writer left half-written, entries set aside as damaged, and states of unfinished runs.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rclib import paths
from rclib.files.atomic import leftovers
from rclib.files.command import command
from rclib.files.terminal import Parser, note, report
from rclib.runs import store
from rclib.runs.code import Code, code_of
from rclib.runs.code_modules import homes

__all__ = ["Entry", "clean", "entries", "main", "missing", "store_table"]

_ENTRIES = (".safetensors", ".damaged")
KINDS = ("current", "stale", "damaged", "half-written", "unfinished")


@dataclass(frozen=True)
class Entry:
    """One file of the store (or folder of an unfinished run).

    kind: one of KINDS. function: whose run it is, "" if unknown. nbytes: size on disk.
    seconds: what the run took to compute, 0 if unknown.
    """

    path: Path
    kind: str
    function: str
    nbytes: int
    seconds: float = 0.0


def entries(root: Path | None = None) -> Iterator[Entry]:
    """Everything in the store at `root` (default: `rclib.paths.cache_dir()`), by path."""
    _code.cache_clear()  # what the files say now
    root = root or paths.cache_dir()
    unfinished = root / "unfinished"
    if unfinished.is_dir():
        for folder in sorted(p for p in unfinished.iterdir() if p.is_dir()):
            yield Entry(folder, "unfinished", "", _size(folder))
    for folder in sorted(p for p in (root, *root.rglob("*")) if p.is_dir() and not p.is_symlink()):
        if any(p == unfinished or p.suffix in _ENTRIES for p in (folder, *folder.parents)):
            continue  # a folder in an entry's place is one thing
        half = set(leftovers(folder))
        for path in sorted(folder.iterdir()):
            if path.is_symlink():
                continue
            size, function = _size(path), path.parent.name
            if path.suffix in _ENTRIES:
                whole = path.suffix == ".safetensors" and path.is_file()
                yield _entry(path, size) if whole else Entry(path, "damaged", function, size)
            elif path in half:
                yield Entry(path, "half-written", function, size)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


def missing(files: Iterable[str], root: Path | None = None) -> set[str]:
    """Those of these files of the store (paths below it) that a run asked for now would not find:
    they are not there, damaged or stale."""
    _code.cache_clear()
    root = root or paths.cache_dir()
    return {
        name
        for name in files
        if not (root / name).is_file() or _entry(root / name, 0).kind != "current"
    }


def _entry(path: Path, size: int) -> Entry:
    function = path.parent.name
    try:
        with safe_open(path, framework="np") as handle:
            meta = handle.metadata() or {}
        seconds = float(meta.get("seconds", 0))
        kind = "current" if path.stem in _wanted(meta) else "stale"
    except (SafetensorError, OSError, ValueError, RecursionError):
        return Entry(path, "damaged", function, size)
    return Entry(path, kind, function, size, seconds)


def _wanted(meta: dict[str, str]) -> set[str]:
    """The keys that this checkout would give to the run an entry says it is.

    One for every function of that name: an entry stays current when its function moves.
    """
    try:
        module, _, qualname = meta["function"].rpartition(".")
        config, threads = json.loads(meta["config"]), int(meta["threads"])
        places = {module} | homes().get(qualname, set())
        told: dict[str, Any] = {"device": meta["device"], "precision": meta["precision"]}
        told |= {"checksum": meta["data"] or None}
    except (KeyError, ValueError):
        return set()  # of an older form
    keys = set()
    for place in places:
        try:
            code = _code(place, qualname)
            keys.add(store.key_of(qualname, config, code=code, threads=threads, **told))
        except (TypeError, ValueError, ImportError, OSError, RuntimeError):
            continue  # the function is gone from there
    return keys


@functools.cache
def _code(module: str, qualname: str) -> Code:
    return code_of(module, qualname)


def store_table(found: Sequence[Entry]) -> str:
    """A table: entries, megabytes and core-minutes by function and kind, and the totals."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in found:
        groups.setdefault((entry.kind, entry.function), []).append(entry)
    order = sorted(groups, key=lambda group: (KINDS.index(group[0]), group[1]))
    lines = [f"{'':14s} {'function':28s} {'entries':>8s} {'MB':>9s} {'core-minutes':>13s}"]
    for kind, function in order:
        lines.append(_line(kind, function or "-", groups[kind, function]))
    lines.append(_line("all", "", list(found)))
    return "\n".join(lines)


def _line(kind: str, function: str, group: Sequence[Entry]) -> str:
    size, seconds = sum(e.nbytes for e in group) / 1e6, sum(e.seconds for e in group)
    return f"{kind:14s} {function:28s} {len(group):8d} {size:9.1f} {seconds / 60:13.1f}"


def clean(found: Sequence[Entry], *, everything: bool = False) -> list[Entry]:
    """Remove what no run will ask for, or everything; returns what was removed.

    Kept unless `everything`: current entries and unfinished runs, which cost work to make.
    """
    kept = () if everything else ("current", "unfinished")
    removed = [entry for entry in found if entry.kind not in kept]
    for entry in removed:
        remove: Callable[[Any], None] = shutil.rmtree if entry.path.is_dir() else os.unlink
        remove(entry.path)
    return removed


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """List the store of finished runs, remove what is stale, damaged or left over, or give entries
    of version 0.1.0 the keys of today (rekey)."""
    parser = Parser(prog="python -m rclib.runs.cache", description=main.__doc__)
    parser.add_argument("command", choices=("info", "clean", "rekey"))
    parser.add_argument("--all", action="store_true", help="clean: remove current entries too")
    arguments = parser.parse_args(argv)
    root = paths.cache_dir()
    try:
        found = list(entries(root)) if root.is_dir() else []
        report(f"store of finished runs: {root}")
        if arguments.command == "info":
            report(store_table(found))
        elif arguments.command == "rekey":
            from rclib.runs.rekey import rekey

            moved = sum(1 for _ in rekey(root))
            report(f"{moved} of {len(found)} entries of version 0.1.0 have today's keys now")
        else:
            removed = clean(found, everything=arguments.all)
            size = sum(e.nbytes for e in removed) / 1e6
            report(f"removed {len(removed)} of {len(found)} entries, {size:.1f} MB")
    except OSError as error:
        note(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
