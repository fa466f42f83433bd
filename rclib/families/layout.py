"""Model families as tables: which axes the tensors of a checkpoint have, by their names.

A table is a YAML file, for the families that ship (`rclib/family_tables/*.yaml`) as for any other
(`--axes FILE.yaml`). Adding a family is adding rows:

    family: my_model
    tensors:                        # name pattern: axes (rclib.families.axis_notation)
      embed.weight: vocab stream
      blk.{b}.qkv.weight: "[q: head.{b} qk.{b} | k: head.{b} qk.{b} | v: head.{b} vo.{b}] <- stream"
      blk.{b}.out.weight: stream <- (head.{b} vo.{b})
      blk.{b}.up.weight: mlp.{b} <- stream
      blk.{b}.down.weight: stream <- mlp.{b}
    sets: {stream: stream, MLP hidden: mlp, channels: head vo}   # whose mean vectors are compared
    sizes: {head: [n_head]}         # keys of config.json, or a number; shapes tell the others

`{b}` stands for the block's number in a pattern and in the indices. Optional: `model_types`
(values of config.json's `model_type`), `prefixes` that names may have, `ignore` (patterns of
buffers that are no weights), `rename` (last parts of names), `ordered` (indices that may not be
resized, with the reason) and `tied` (head and embedding that are one tensor).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rclib.families.axis_notation import (
    NotationError,
    TensorAxes,
    UnknownSizesError,
    cut,
    join,
    parse,
    solve_sizes,
)
from rclib.families.table import Family, FamilyError, read_family

__all__ = [
    "Family",
    "FamilyError",
    "Layout",
    "Shaped",
    "Tied",
    "Weight",
    "base",
    "known_families",
    "layout",
    "piece_name",
    "read_family",
]

SHOWN = 40  # unmatched names that an error lists
TABLES = Path(__file__).with_name("tables")


class Shaped(Protocol):
    """A tensor or what a checkpoint knows of one without reading it."""

    @property
    def shape(self) -> Any:
        """Its sizes, one an axis."""

    @property
    def dtype(self) -> Any:
        """Its type of number."""


@dataclass(frozen=True)
class Weight:
    """One tensor. label : its short name in a block; block : its number, None outside."""

    name: str
    label: str
    block: int | None
    axes: TensorAxes


@dataclass(frozen=True)
class Tied:
    """Output matrix and embedding that may be one tensor.

    head : the output matrix, None when the checkpoint does not hold it; embedding : the other;
    scaled : tensors that take the head's fan-in factor when the two are one; tied : whether
    the model's configuration says so.
    """

    head: str | None
    embedding: str | None
    scaled: tuple[str, ...]
    tied: bool


@dataclass(frozen=True)
class Layout:
    """A checkpoint's tensors in terms of named indices.

    weights : every described tensor; ignored : tensors that are no weights; sizes : of every
    index; sets : what is compared, name -> indices without their block; ordered : index ->
    why it may not be resized.
    """

    family: str
    weights: Mapping[str, Weight]
    ignored: tuple[str, ...]
    sizes: Mapping[str, int]
    sets: Mapping[str, tuple[str, ...]]
    ordered: Mapping[str, str]
    tied: Tied | None = None

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """The `rclib.rowcolumn.axes` table of all pieces; a piece is `tensor` or `tensor:part`."""
        return {
            piece_name(name, label): weight.axes.indices(label)
            for name, weight in self.weights.items()
            for label in weight.axes.labels
        }

    @property
    def blocks(self) -> tuple[int, ...]:
        """Numbers of the blocks, ascending."""
        return tuple(sorted({w.block for w in self.weights.values() if w.block is not None}))

    def check_blocks(self, blocks: Collection[int | None] | None) -> None:
        """ValueError for block numbers that the model does not have; None is always there."""
        missing = sorted(set(blocks or ()) - {None} - set(self.blocks))  # type: ignore[type-var]
        if missing:
            raise ValueError(f"the model has no block {missing[0]}, it has {list(self.blocks)}")

    def cut(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """Pieces of one tensor by piece name: views with one axis an index."""
        pieces = cut(tensor, self.weights[name].axes, self.sizes)
        return {piece_name(name, label): view for label, view in pieces.items()}

    def join(self, name: str, pieces: Mapping[str, Tensor]) -> Tensor:
        """The tensor from its pieces, the inverse of `cut`."""
        axes = self.weights[name].axes
        return join({label: pieces[piece_name(name, label)] for label in axes.labels}, axes)


def piece_name(tensor: str, label: str) -> str:
    """Name of a piece: that of the tensor, with the part's label if it is cut."""
    return f"{tensor}:{label}" if label else tensor


def base(index: str) -> str:
    """An index without its block: `mlp` for `mlp.3`."""
    return index.partition(".")[0]


@cache
def known_families() -> tuple[Family, ...]:
    """The families that ship, in the order of their names."""
    return tuple(read_family(path) for path in sorted(TABLES.glob("*.yaml")))


def layout(
    tensors: Mapping[str, Shaped],
    config: Mapping[str, Any] | None = None,
    *,
    family: Family | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Layout:
    """The layout of a checkpoint's tensors; nothing but names, shapes and types is looked at.

    tensors : by name, `Checkpoint.tensors` or a state dict. config : the parsed config.json, of a
    live model `model.config.to_dict()`.
    family : a table of one's own; default the one that config's model_type or, failing that,
        the names tell. sizes : sizes by index without block (e.g. {"head": 12}), which
        override the config's.

    Raises FamilyError (one line) for tensors that no row describes, with their names and how to
    describe them, for shapes that contradict the table, and for sizes that nothing tells.
    """
    if family is None:
        family = _detect(tensors, config)
    rows, ignored, unmatched = _match(family, tensors)
    if unmatched:
        raise FamilyError(_unmatched_message(family, tensors, unmatched))
    if not rows:
        raise FamilyError(f"no tensor is described by the table {family.name!r}")
    weights: dict[str, Weight] = {}
    taken: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}
    for name, (pattern, captured) in rows.items():
        key = (pattern, tuple(sorted(captured.items())))
        if taken.setdefault(key, name) != name:
            raise FamilyError(f"tensors {taken[key]!r} and {name!r} are the same row {pattern!r}")
        axes = parse(_filled(family.tensors[pattern], captured))
        block = int(captured["b"]) if "b" in captured else None
        label = _filled(_label(pattern, len(axes.axes)), captured)
        weights[name] = Weight(name, label, block, axes)
    return Layout(
        family=family.name,
        weights=_told_apart(weights),
        ignored=tuple(ignored),
        sizes=_sizes(family, weights, tensors, config or {}, sizes or {}),
        sets=family.sets,
        ordered=family.ordered,
        tied=_tied(family, rows, config or {}),
    )


def _filled(text: str, captured: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: captured[found[1]], text)


def _label(pattern: str, axes: int) -> str:
    """A tensor's short name: what follows the block's number, without `.weight` of a matrix."""
    label = pattern.rpartition("{b}.")[2]
    return label.removesuffix(".weight") if axes > 1 else label


def _told_apart(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Two tensors of one block under one short name (encoder and decoder) get their full names."""
    counts = Counter((w.block, w.label) for w in weights.values())
    return {
        name: replace(w, label=name) if counts[w.block, w.label] > 1 else w
        for name, w in weights.items()
    }


def _detect(tensors: Mapping[str, Shaped], config: Mapping[str, Any] | None) -> Family:
    kind = (config or {}).get("model_type")
    for family in known_families():
        if isinstance(kind, str) and kind in family.model_types:
            return family
    fits = {f.name: _match(f, tensors) for f in known_families()}
    best = min(known_families(), key=lambda f: (len(fits[f.name][2]), -len(fits[f.name][0])))
    if fits[best.name][2] or not fits[best.name][0]:
        raise FamilyError(_unmatched_message(best, tensors, fits[best.name][2] or list(tensors)))
    return best


Rows = dict[str, tuple[str, dict[str, str]]]


def _match(family: Family, tensors: Mapping[str, Shaped]) -> tuple[Rows, list[str], list[str]]:
    """{tensor: (row's pattern, what its placeholders stand for)}, ignored and unmatched names."""
    rows: Rows = {}
    ignored, unmatched = [], []
    for name, info in tensors.items():
        found = family.find(name)
        if found is not None:
            rows[name] = found
        elif family.ignores(name) or not _is_floating(info):
            ignored.append(name)
        else:
            unmatched.append(name)
    return rows, ignored, unmatched


def _is_floating(info: Shaped) -> bool:
    return "float" in str(info.dtype)


def _unmatched_message(
    family: Family, tensors: Mapping[str, Shaped], unmatched: Iterable[str]
) -> str:
    counts: dict[str, int] = {}
    shapes: dict[str, str] = {}
    for name in unmatched:
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "{b}", name, count=1)
        counts[pattern] = counts.get(pattern, 0) + 1
        shapes.setdefault(pattern, "x".join(map(str, tensors[name].shape)))
    shown = [
        f"{_printable(p)} ({shapes[p]}{f', {n} times' if n > 1 else ''})"
        for p, n in list(counts.items())[:SHOWN]
    ]
    more = f", and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    listed = ", ".join(shown) + more
    first = _printable(next(iter(counts)))
    known = ", ".join(f.name for f in known_families())
    return (
        f"unknown layout: the table {family.name!r} (known are {known}) has no row for {listed}; "
        "describe every tensor in a YAML file and pass it as --axes FILE.yaml, one row each under "
        f"`tensors:`, such as `{first}: mlp.{{b}} <- stream` (outputs, inputs), "
        "`in -> out`, `vocab stream`, or put names that are no weights under `ignore:`"
    )


def _printable(name: str) -> str:
    """A name from an unknown file, fit for one line of a terminal."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return plain if len(plain) <= 120 else plain[:117] + "..."


def _sizes(
    family: Family,
    weights: Mapping[str, Weight],
    tensors: Mapping[str, Shaped],
    config: Mapping[str, Any],
    given: Mapping[str, int],
) -> dict[str, int]:
    names = {i for w in weights.values() for axis in w.axes.axes for i in axis.names()}
    bases = {base(i) for i in names}
    unknown = sorted(set(given) - bases)
    if unknown:
        raise FamilyError(f"unknown index {unknown[0]!r}; {family.name!r} has {sorted(bases)}")
    by_base = {i: n for i in bases if (n := family.size(i, config)) is not None} | dict(given)
    known = {i: by_base[base(i)] for i in names if base(i) in by_base}
    shapes = {name: tuple(tensors[name].shape) for name in weights}
    try:
        return solve_sizes({n: w.axes for n, w in weights.items()}, shapes, known)
    except UnknownSizesError as error:
        missing = sorted({base(i) for i in error.indices})
        wanted = [i for i in missing if i in family.sizes] or missing
        keys = sorted({str(key) for i in wanted for key in family.sizes.get(i, ())})
        raise FamilyError(
            f"the shapes do not tell the size of {', '.join(missing)}: give "
            + " ".join(f"--size {i}=NUMBER" for i in wanted)
            + (f", or a config.json with {', '.join(keys)}" if keys else "")
        ) from None
    except NotationError as error:
        raise FamilyError(f"table {family.name!r}: {error}") from None


def _tied(family: Family, rows: Rows, config: Mapping[str, Any]) -> Tied | None:
    if family.tied is None:
        return None
    by_pattern = {pattern: name for name, (pattern, _) in rows.items()}
    heads = [by_pattern[p] for p in family.tied.heads if p in by_pattern]
    said = config.get("tie_word_embeddings")
    return Tied(
        head=heads[0] if heads else None,
        embedding=by_pattern.get(family.tied.embedding),
        scaled=tuple(by_pattern[p] for p in family.tied.scaled if p in by_pattern),
        tied=said if isinstance(said, bool) else family.tied.default,
    )
