"""The table of one model family: reading, checking, and looking up a tensor's name.

The format is described in `rclib.families.layout`. Tables are data: nothing in them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from rclib.checkpoints.errors import printable
from rclib.checkpoints.names import shorter_names
from rclib.families.axis_notation import NotationError, parse
from rclib.files.plain import DataError, read_plain
from rclib.files.strict import parse_yaml

__all__ = ["Family", "FamilyError", "ResizeRow", "TiedRow", "read_family"]

MAX_BYTES = 1 << 20
# Rows, prefixes and texts beyond these describe no model; names are looked up in every one.
MAX_ROWS, MAX_PREFIXES, MAX_TEXT, MAX_ALIKE = 5000, 50, 500, 200
# Ways to write one name that are tried, and characters of a name that is looked at.
MAX_VARIANTS, MAX_NAME = 64, 1000
MAX_SKELETONS = 1 << 14
PLACEHOLDER = re.compile(r"\{(\w+)\}")
DIGITS = re.compile(r"[0-9]+")


Entries = TypeVar("Entries", bound=Sized)
Rows = Mapping[str, list[tuple[str, re.Pattern[str]]]]  # by skeleton


class FamilyError(ValueError):
    """A table that cannot be used, or a checkpoint it does not describe; one printable line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True)
class TiedRow:
    """`tied` of a table, as patterns; heads : names that the output matrix may have;
    default : what a config without tie_word_embeddings means."""

    heads: tuple[str, ...]
    embedding: str
    default: bool
    scaled: tuple[str, ...]


@dataclass(frozen=True)
class ResizeRow:
    """`resize` of a table: what another width needs beside the weights.

    norm : "rms" or "layer", what stands in front of the blocks' matrices; config : key of
    config.json -> index whose size it holds ("heads": of all query heads); divided : whether the
    size of a head is always width / heads, or for which model_types; multiple : model_types whose
    width must be a multiple of the heads all the same; ratio : MLP / width where the model knows
    no other; follow : index -> index whose size it has.
    """

    norm: str
    config: Mapping[str, str]
    divided: bool | tuple[str, ...] = False
    multiple: tuple[str, ...] = ()
    ratio: int | None = None
    follow: Mapping[str, str] = field(default_factory=dict)


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
    resize: ResizeRow | None = None

    def find(self, name: str) -> tuple[str, dict[str, str]] | None:
        """(pattern, {placeholder: digits}) of the row that describes a tensor, or None."""
        for pattern, compiled, short in self._alike(name, self._rows, self._no_row):
            found = compiled.fullmatch(short)
            if found is not None:
                return pattern, found.groupdict()
        return None

    def ignores(self, name: str) -> bool:
        """Whether the table says that a tensor of this name is no weight."""
        return any(
            compiled.fullmatch(short)
            for _, compiled, short in self._alike(name, self._ignored, self._not_ignored)
        )

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

    def _alike(
        self, name: str, rows: Rows, unlike: set[str]
    ) -> Iterator[tuple[str, re.Pattern[str], str]]:
        """(pattern, compiled, the name without prefixes) of the rows that differ from a name in
        numbers alone. unlike : skeletons of names that have none, filled here: a model has a
        hundred of them for its 100,000 names, and 20 tables are asked for each."""
        skeleton = _skeleton(name)
        if skeleton in unlike and len(name) <= MAX_NAME:
            return
        some = False
        for short in self._shorter(name):
            for pattern, compiled in rows.get(_skeleton(short), ()):
                some = True
                yield pattern, compiled, short
        # Prefixes and words of wrappers have no digits, so that names alike have alike variants.
        if not some and len(unlike) < MAX_SKELETONS and len(name) <= MAX_NAME and self._plain:
            unlike.add(skeleton)

    def _shorter(self, name: str) -> list[str]:
        """The name, and what is left of it without wrappers and prefixes, in any order."""
        if len(name) > MAX_NAME:
            return []
        names = dict.fromkeys(shorter_names(name))
        todo = list(names)
        while todo and len(names) < MAX_VARIANTS:
            found = todo.pop(0)
            for prefix in self.prefixes:
                short = found.removeprefix(prefix)
                if short and short not in names:
                    names[short] = None
                    todo.append(short)
        for old, new in self.rename.items():
            tail = f".{old}"
            names |= dict.fromkeys(
                n.removesuffix(tail) + f".{new}" for n in list(names) if n.endswith(tail)
            )
        return list(names)

    @cached_property
    def _no_row(self) -> set[str]:
        return set()

    @cached_property
    def _not_ignored(self) -> set[str]:
        return set()

    @cached_property
    def _plain(self) -> bool:
        """Whether no prefix, and no name of `rename`, has a digit."""
        return not DIGITS.search("".join((*self.prefixes, *self.rename, *self.rename.values())))

    @cached_property
    def _rows(self) -> Rows:
        return _by_skeleton(self.tensors)

    @cached_property
    def _ignored(self) -> Rows:
        return _by_skeleton(self.ignore)


def _skeleton(text: str) -> str:
    """The text with every number as one sign: only few rows of a table share it with a name."""
    return DIGITS.sub("#", text)


def _by_skeleton(patterns: Iterable[str]) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """The patterns by skeleton. Raises FamilyError for too many that only compare can tell."""
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for pattern in patterns:
        alike = found.setdefault(_skeleton(PLACEHOLDER.sub("0", pattern)), [])
        alike.append((pattern, _compiled(pattern)))
        if len(alike) > MAX_ALIKE:
            raise FamilyError(f"row {pattern!r}: more than {MAX_ALIKE} differ in numbers alone")
    return found


def _compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression that never goes back: where a number begins and ends
    is told by what stands beside it. Raises FamilyError where it is not."""
    seen: set[str] = set()
    text = ""
    pieces = PLACEHOLDER.split(pattern)
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            inner = 0 < i < len(pieces) - 1
            if (
                (inner and not piece)
                or (i and piece[:1].isdecimal())
                or (i < len(pieces) - 1 and piece[-1:].isdecimal())
            ):
                raise FamilyError(
                    f"row {pattern!r}: something else than a digit must stand between a "
                    "placeholder and the next number"
                )
            text += re.escape(piece)
        elif not piece.isidentifier() or not piece.isascii():
            raise FamilyError(f"row {pattern!r}: placeholders must be names like {{b}}")
        else:
            text += f"(?P={piece})" if piece in seen else f"(?P<{piece}>[0-9]{{1,9}}+)"
            seen.add(piece)
    return re.compile(text)


def read_family(path: str | Path) -> Family:
    """Read and check a table.

    Raises FamilyError naming the file and the fault: not YAML, unknown or missing keys, values
    of another kind, axes that cannot be read, sets of indices that occur nowhere.
    """
    path = Path(path)
    try:
        text = read_plain(path, MAX_BYTES).decode("utf-8")
    except DataError as error:
        raise FamilyError(str(error)) from None
    except (OSError, ValueError) as error:
        raise FamilyError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise FamilyError(f"{path}: not YAML: {' '.join(str(error).split())[:300]}") from None
    try:
        return _checked(content, path.stem)
    except (FamilyError, NotationError) as error:
        raise FamilyError(f"{path}: {error}") from None


_KEYS = {
    "family", "tensors", "sets", "model_types", "prefixes", "ignore", "sizes", "rename",
    "ordered", "tied", "resize",
}  # fmt: skip


def _checked(content: Any, name: str) -> Family:
    table = _mapping("the file", content)
    unknown = sorted(set(table) - _KEYS)
    if unknown:
        raise FamilyError(f"unknown key {unknown[0]!r}; known are {sorted(_KEYS)}")
    rows = _texts("tensors", table.get("tensors"))
    if not rows:
        raise FamilyError("tensors must have at least one row, 'name pattern: axes'")
    if len(rows) > MAX_ROWS:
        raise FamilyError(f"tensors: {len(rows)} rows, at most {MAX_ROWS} are read")
    _by_skeleton(rows)
    indices = set()
    for pattern, text in rows.items():
        axes = parse(text)
        free = set(PLACEHOLDER.findall(text)) - set(PLACEHOLDER.findall(pattern))
        if free:
            raise FamilyError(f"row {pattern!r}: its name has no placeholder {{{free.pop()}}}")
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
        prefixes=_few("prefixes", _list("prefixes", table.get("prefixes", []))),
        ignore=_patterns(_list("ignore", table.get("ignore", []))),
        sizes={index: _rules(index, rule) for index, rule in sizes.items()},
        rename=_few("rename", _texts("rename", table.get("rename", {}))),
        ordered=ordered,
        tied=_tied(table["tied"], rows) if "tied" in table else None,
        resize=_resize(table["resize"], indices) if "resize" in table else None,
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


def _resize(value: Any, indices: set[str]) -> ResizeRow:
    entry = _mapping("resize", value)
    unknown = set(entry) - {"norm", "config", "divided", "multiple", "ratio", "follow"}
    if unknown or not {"norm", "config"} <= set(entry):
        raise FamilyError(
            "resize must have norm and config, and may have divided, multiple, ratio, follow"
        )
    config = _texts("resize: config", entry["config"])
    follow = _texts("resize: follow", entry.get("follow", {}))
    for index in (*config.values(), *follow, *follow.values()):
        if index not in indices | {"heads"}:
            raise FamilyError(f"resize: index {index!r} occurs in no row")
    if entry["norm"] not in ("rms", "layer") or "stream" not in config.values():
        raise FamilyError("resize: norm must be rms or layer, and config must name the stream")
    divided, ratio = entry.get("divided", False), entry.get("ratio")
    if ratio is not None and (not isinstance(ratio, int) or ratio < 1):
        raise FamilyError("resize: ratio must be a positive whole number")
    if not isinstance(divided, bool):
        divided = _list("resize: divided", divided)
    multiple = _list("resize: multiple", entry.get("multiple", []))
    return ResizeRow(entry["norm"], config, divided, multiple, ratio, follow)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FamilyError(f"{name} must map names to values, got {type(value).__name__}")
    return value


def _texts(name: str, value: Any) -> dict[str, str]:
    entries = _mapping(name, value)
    for key, entry in entries.items():
        if not isinstance(entry, str):
            raise FamilyError(f"{name}: {key!r} must be text, got {type(entry).__name__}")
        if max(len(key), len(entry)) > MAX_TEXT:
            raise FamilyError(f"{name}: {key[:40]!r}... is longer than {MAX_TEXT} characters")
    return entries


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise FamilyError(f"{name} must be text, got {type(value).__name__}")
    if not value.isprintable() or len(value) > MAX_TEXT:
        raise FamilyError(f"{name} must be a printable line, got {value[:40]!r}")
    return value


def _few(name: str, value: Entries) -> Entries:
    if len(value) > MAX_PREFIXES:
        raise FamilyError(f"{name}: {len(value)} of them, at most {MAX_PREFIXES} are read")
    return value


def _patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    _by_skeleton(value)
    return value


def _list(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise FamilyError(f"{name} must be a list of texts")
    if len(value) > MAX_ROWS or any(len(entry) > MAX_TEXT for entry in value):
        raise FamilyError(f"{name}: more than {MAX_ROWS} texts or {MAX_TEXT} characters")
    return tuple(value)
