"""Which rows of a family's table the tensors of a checkpoint are, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from rclib.families.table import Family, read_family
from rclib.rowcolumn.fan_in import is_lookup

__all__ = [
    "Match",
    "Shaped",
    "is_floating",
    "known_families",
    "match",
    "numbered",
    "printable",
    "proposal",
    "ranked",
    "unmatched_message",
]

SHOWN = 40  # unmatched names that an error lists
TABLES = Path(__file__).with_name("tables")
# Of tables that fit equally well the plainest comes first.
FIRST = ("llama", "bert", "gpt2", "nanogpt", "opt", "vit", "resnet", "mixtral")
PLACEHOLDERS = "bcdefgh"


class Shaped(Protocol):
    """A tensor or what a checkpoint knows of one without reading it."""

    @property
    def shape(self) -> Any:
        """Its sizes, one an axis."""

    @property
    def dtype(self) -> Any:
        """Its type of number."""


@dataclass(frozen=True)
class Match:
    """Tensors against one table.

    rows : {tensor: (row's pattern, what its placeholders stand for)}; ignored : no weights, by the
    table or by their type; unmatched : floating tensors without a row.
    """

    rows: Mapping[str, tuple[str, dict[str, str]]]
    ignored: tuple[str, ...]
    unmatched: tuple[str, ...]


@cache
def known_families() -> tuple[Family, ...]:
    """The families that ship, in the order of their names."""
    return tuple(read_family(path) for path in sorted(TABLES.glob("*.yaml")))


def match(family: Family, tensors: Mapping[str, Shaped]) -> Match:
    """Look every tensor up in a table."""
    rows: dict[str, tuple[str, dict[str, str]]] = {}
    ignored, unmatched = [], []
    blocks = replace(family, tensors={p: a for p, a in family.tensors.items() if "{b}" in p})
    for name, info in tensors.items():
        found = family.find(name)
        if found is not None:
            pattern, captured = found
            # A row may stand for one block alone (`layer2.0.conv1`); others tell its number.
            if "b" not in captured and re.search(r"\d", pattern):
                general = blocks.find(name)
                if general is not None:
                    captured = {**captured, "b": general[1]["b"]}
            rows[name] = pattern, captured
        elif family.ignores(name) or not is_floating(info):
            ignored.append(name)
        else:
            unmatched.append(name)
    return Match(rows, tuple(ignored), tuple(unmatched))


def is_floating(info: Shaped) -> bool:
    """Whether a tensor holds fractions."""
    return "float" in str(info.dtype)


def ranked(
    tensors: Mapping[str, Shaped], config: Mapping[str, Any]
) -> list[tuple[Family, Match, bool]]:
    """Known families, the likeliest first: (family, match, whether the configuration names it)."""
    kind = config.get("model_type")
    found = [
        (f, match(f, tensors), isinstance(kind, str) and kind in f.model_types)
        for f in known_families()
    ]
    order = {name: i for i, name in enumerate(FIRST)}
    found.sort(
        key=lambda e: (
            bool(e[1].unmatched),  # the named one comes first among those that describe all
            not e[2],
            len(e[1].unmatched),
            order.get(e[0].name, len(order)),
            e[0].name,
        )
    )
    return found


def numbered(name: str) -> str:
    """A name with `{b}`, `{c}`, ... in place of the numbers between its dots."""
    letters = iter(PLACEHOLDERS)
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal() and len(part) < 10 and 0 < i < len(parts) - 1:
            letter = next(letters, None)
            parts[i] = part if letter is None else f"{{{letter}}}"
    return ".".join(parts)


def proposal(pattern: str, shape: Iterable[int], own: str = "") -> str:
    """Axes that a row of this name and shape may have: a start for who writes a table.

    own : makes indices that nothing else has, so that the row contradicts no other.
    """
    axes = len(tuple(shape))
    block = ".{b}" if "{b}" in pattern else ""
    if axes < 2:
        return f"n{own}{block}" if own else "stream"
    if axes == 2:
        if is_lookup(pattern):
            return f"rows{own} columns{own}" if own else "vocab stream"
        if own:
            return f"out{own}{block} <- in{own}{block}"
        return f"mlp{block} <- stream" if block else "out <- stream"
    if axes == 3:
        inputs = f"in{own}{block}" if own else "stream"
        return f"expert{own}{block} hidden{own}{block} <- {inputs}"
    places = " ".join(f"k{i}{own}{block}" for i in range(axes - 2))
    return f"out{own}{block} <- in{own}{block} {places}"


def unmatched_message(
    family: Family, tensors: Mapping[str, Shaped], unmatched: Iterable[str]
) -> str:
    """One line: what has no row, and rows that would be accepted."""
    counts: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name in unmatched:
        pattern = numbered(name)
        counts[pattern] = counts.get(pattern, 0) + 1
        shapes.setdefault(pattern, tuple(tensors[name].shape))
    shown = [
        f"{printable(p)} ({'x'.join(map(str, shapes[p]))}{f', {n} times' if n > 1 else ''})"
        for p, n in list(counts.items())[:SHOWN]
    ]
    more = f", and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    known = ", ".join(f.name for f in known_families())
    # A row that can be copied as it stands.
    row = next(
        (
            f"`{p}: {proposal(p, shapes[p])}`"
            for p in counts
            if re.fullmatch(r"[\w.{}/-]+", p) and len(p) <= 120 and shapes[p]
        ),
        "`NAME: out <- stream`",
    )
    return (
        f"unknown layout: the table {family.name!r} (known are {known}) has no row for "
        f"{', '.join(shown)}{more}; describe every tensor in a YAML file and pass it as --axes "
        "FILE.yaml (--write-table FILE.yaml makes a start), one row each under `tensors:`, such as "
        f"{row} (outputs <- inputs; inputs -> outputs if stored so; no arrow for look-up tables), "
        "or put names that are no weights under `ignore:`"
    )


def printable(name: str) -> str:
    """A name from an unknown file, fit for one line of a terminal."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return plain if len(plain) <= 120 else plain[:117] + "..."
