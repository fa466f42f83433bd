"""The table of one model family: reading, checking, and looking up a tensor's name.

The format is described in `rclib.families.layout`. Tables are data: nothing in them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rclib.families.axis_notation import NotationError, parse

__all__ = ["Family", "FamilyError", "TiedRow", "read_family"]

MAX_BYTES = 1 << 20
# Wrappers that put a word in front of every name: DataParallel, torch.compile.
WRAPPERS = ("module.", "_orig_mod.")
PLACEHOLDER = re.compile(r"\{(\w+)\}")


class FamilyError(ValueError):
    """A table that cannot be used, or a checkpoint that it does not describe; one line."""


@dataclass(frozen=True)
class TiedRow:
    """`tied` of a table, as patterns; heads : names that the output matrix may have;
    default : what a config without tie_word_embeddings means."""

    heads: tuple[str, ...]
    embedding: str
    default: bool
    scaled: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """A table; fields as in the module docstring of `rclib.families.layout`."""

    name: str
    tensors: Mapping[str, str]
    sets: Mapping[str, tuple[str, ...]]
    model_types: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    ordered: Mapping[str, str] = field(default_factory=dict)
    tied: TiedRow | None = None

    def find(self, name: str) -> tuple[str, dict[str, str]] | None:
        """(pattern, {placeholder: digits}) of the row that describes a tensor, or None."""
        for short in self._shorter(name):
            for pattern, compiled in self._rows:
                found = compiled.fullmatch(short)
                if found is not None:
                    return pattern, found.groupdict()
        return None

    def ignores(self, name: str) -> bool:
        """Whether the table says that a tensor of this name is no weight."""
        return any(p.fullmatch(short) for short in self._shorter(name) for p in self._ignored)

    def size(self, index: str, config: Mapping[str, Any]) -> int | None:
        """Size of an index (without block) from the table or the config; None if neither tells."""
        for rule in self.sizes.get(index, ()):
            if isinstance(rule, int):
                return rule
            values = [config.get(key.strip()) for key in rule.split("/")]
            whole = [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0]
            if len(whole) != len(values):
                continue
            if len(whole) == 1:
                return whole[0]
            if whole[0] % whole[1] == 0:
                return whole[0] // whole[1]
        return None

    def _shorter(self, name: str) -> list[str]:
        """The name, and what is left of it without prefixes."""
        names = [name]
        for prefix in (*WRAPPERS, *self.prefixes):
            names += [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
        for old, new in self.rename.items():
            tail = f".{old}"
            names += [n.removesuffix(tail) + f".{new}" for n in names if n.endswith(tail)]
        return names

    @cached_property
    def _rows(self) -> list[tuple[str, re.Pattern[str]]]:
        return [(pattern, _compiled(pattern)) for pattern in self.tensors]

    @cached_property
    def _ignored(self) -> list[re.Pattern[str]]:
        return [_compiled(pattern) for pattern in self.ignore]


def _compiled(pattern: str) -> re.Pattern[str]:
    seen: set[str] = set()
    text = ""
    for i, piece in enumerate(PLACEHOLDER.split(pattern)):
        if i % 2 == 0:
            text += re.escape(piece)
        else:
            text += f"(?P={piece})" if piece in seen else f"(?P<{piece}>[0-9]{{1,9}})"
            seen.add(piece)
    return re.compile(text)


def read_family(path: str | Path) -> Family:
    """Read and check a table.

    Raises FamilyError naming the file and the fault: not YAML, unknown or missing keys, values
    of another kind, axes that cannot be read, sets of indices that occur nowhere.
    """
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            raw = handle.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise FamilyError(f"{path}: larger than {MAX_BYTES} bytes")
        content = yaml.safe_load(raw.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FamilyError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, FamilyError):
            raise
        raise FamilyError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return _checked(content, path.stem)
    except (FamilyError, NotationError) as error:
        raise FamilyError(f"{path}: {error}") from None


_KEYS = {
    "family", "tensors", "sets", "model_types", "prefixes", "ignore", "sizes", "rename",
    "ordered", "tied",
}  # fmt: skip


def _checked(content: Any, name: str) -> Family:
    table = _mapping("the file", content)
    unknown = sorted(set(table) - _KEYS)
    if unknown:
        raise FamilyError(f"unknown key {unknown[0]!r}; known are {sorted(_KEYS)}")
    rows = _texts("tensors", table.get("tensors"))
    if not rows:
        raise FamilyError("tensors must have at least one row, 'name pattern: axes'")
    indices = set()
    for pattern, text in rows.items():
        axes = parse(text)
        free = set(PLACEHOLDER.findall(text)) - set(PLACEHOLDER.findall(pattern))
        if free:
            raise FamilyError(f"row {pattern!r}: its name has no placeholder {{{free.pop()}}}")
        try:
            _compiled(pattern)
        except re.error:
            raise FamilyError(f"row {pattern!r}: placeholders must be names like {{b}}") from None
        indices |= {i.partition(".")[0] for axis in axes.axes for i in axis.names()}
    sets = {
        key: tuple(value.split()) for key, value in _texts("sets", table.get("sets", {})).items()
    }
    sizes = _mapping("sizes", table.get("sizes", {}))
    ordered = _texts("ordered", table.get("ordered", {}))
    named = [("sets", i) for group in sets.values() for i in group]
    named += [("sizes", i) for i in sizes] + [("ordered", i) for i in ordered]
    for key, index in named:
        if index not in indices:
            raise FamilyError(
                f"{key}: index {index!r} occurs in no row; rows have {sorted(indices)}"
            )
    if any(not group or len(set(group)) != len(group) for group in sets.values()):
        raise FamilyError("sets: every set needs indices, each once")
    return Family(
        name=_text("family", table.get("family", name)),
        tensors=rows,
        # Without sets of its own every index is one.
        sets=sets or {index: (index,) for index in sorted(indices)},
        model_types=_list("model_types", table.get("model_types", [])),
        prefixes=_list("prefixes", table.get("prefixes", [])),
        ignore=_list("ignore", table.get("ignore", [])),
        sizes={index: _rules(index, rule) for index, rule in sizes.items()},
        rename=_texts("rename", table.get("rename", {})),
        ordered=ordered,
        tied=_tied(table["tied"], rows) if "tied" in table else None,
    )


def _rules(index: str, value: Any) -> tuple[int | str, ...]:
    rules = value if isinstance(value, list) else [value]
    for rule in rules:
        whole = isinstance(rule, int) and not isinstance(rule, bool) and rule > 0
        if not whole and not (isinstance(rule, str) and rule.count("/") <= 1):
            raise FamilyError(f"sizes: {index!r} must be a number or keys of config.json")
    return tuple(rules)


def _tied(value: Any, rows: Mapping[str, str]) -> TiedRow:
    entry = _mapping("tied", value)
    if set(entry) != {"head", "embedding", "default", "scaled"}:
        raise FamilyError("tied must have the keys head, embedding, default, scaled")
    scaled = _list("tied: scaled", entry["scaled"])
    head, embedding = entry["head"], _text("tied: embedding", entry["embedding"])
    heads = _list("tied: head", head if isinstance(head, list) else [head])
    for pattern in (*heads, embedding, *scaled):
        if pattern not in rows:
            raise FamilyError(f"tied: {pattern!r} is no row")
    if not isinstance(entry["default"], bool):
        raise FamilyError("tied: default must be true or false")
    return TiedRow(heads, embedding, entry["default"], scaled)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FamilyError(f"{name} must map names to values, got {type(value).__name__}")
    return value


def _texts(name: str, value: Any) -> dict[str, str]:
    entries = _mapping(name, value)
    for key, entry in entries.items():
        if not isinstance(entry, str):
            raise FamilyError(f"{name}: {key!r} must be text, got {type(entry).__name__}")
    return entries


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise FamilyError(f"{name} must be text, got {type(value).__name__}")
    return value


def _list(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise FamilyError(f"{name} must be a list of texts")
    return tuple(value)
