"""Model families as tables: which axes the tensors of a checkpoint have, by their names.

A table is a YAML file, for the families that ship (`rclib/families/tables/*.yaml`) as for any other
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
resized, with the reason), `tied` (head and embedding that are one tensor) and `resize` (what
`python -m rclib resize` must know: `rclib.families.table.ResizeRow`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from rclib.checkpoints.opening import Checkpoint, opened
from rclib.families.axis_notation import (
    NotationError,
    TensorAxes,
    UnknownSizesError,
    cut,
    join,
    parse,
    solve_sizes,
)
from rclib.families.configuration import flat_config
from rclib.families.infer import infer
from rclib.families.matching import (
    Match,
    Shaped,
    is_floating,
    known_families,
    match,
    ranked,
    unmatched_message,
)
from rclib.families.table import Family, FamilyError, read_family

__all__ = [
    "Family",
    "FamilyError",
    "Layout",
    "ShapeError",
    "Shaped",
    "SizesError",
    "Tied",
    "Weight",
    "base",
    "check_layout",
    "is_floating",
    "known_families",
    "layout",
    "piece_name",
    "read_family",
]


class SizesError(FamilyError):
    """Sizes that nothing tells; `indices` are those to give, without their block."""

    def __init__(self, message: str, indices: Sequence[str]) -> None:
        self.indices = tuple(indices)
        super().__init__(message)


class ShapeError(FamilyError):
    """Shapes that contradict a table; `tensor` is the first one."""

    def __init__(self, message: str, tensor: str | None) -> None:
        self.tensor = tensor
        super().__init__(message)


MISFITS = 2  # rows that may be left out because their shapes contradict the others


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


@dataclass(frozen=True, repr=False)
class Layout:
    """A checkpoint's tensors in terms of named indices.

    weights : every described tensor; ignored : tensors that are no weights; sizes : of every
    index; sets : what is compared, name -> indices without their block; ordered : index ->
    why it may not be resized; left_out : floating tensors that the table does not describe;
    table : the table itself; inferred : whether it was made up from names and shapes.
    """

    family: str
    weights: Mapping[str, Weight]
    ignored: tuple[str, ...]
    sizes: Mapping[str, int]
    sets: Mapping[str, tuple[str, ...]]
    ordered: Mapping[str, str]
    tied: Tied | None = None
    left_out: tuple[str, ...] = ()
    table: Family | None = None
    inferred: bool = False

    def __repr__(self) -> str:
        made = ", inferred" if self.inferred else ""
        sizes: dict[str, list[int]] = {}
        for index, size in self.sizes.items():
            if size not in sizes.setdefault(base(index), []):
                sizes[base(index)].append(size)
        told = ", ".join(f"{i} {'/'.join(map(str, sorted(n)))}" for i, n in sizes.items())
        out = f", {len(self.left_out)} tensors without a row" if self.left_out else ""
        return (
            f"<Layout {self.family}{made}: {len(self.weights)} tensors, {len(self.blocks)} blocks, "
            f"sets {', '.join(self.sets) or 'none'}; sizes {told}{out}>"
        )

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


def layout(
    tensors: Mapping[str, Shaped] | Checkpoint | nn.Module | str | os.PathLike[str],
    config: Mapping[str, Any] | None = None,
    *,
    family: Family | None = None,
    sizes: Mapping[str, int] | None = None,
    partial: bool = False,
) -> Layout:
    """The layout of a checkpoint's tensors; nothing but names, shapes and types is looked at.

    tensors : a checkpoint, or what `rclib.open_checkpoint` takes, with its configuration; or
        tensors by name, `Checkpoint.tensors` or a state dict. config : the parsed config.json, of a
        live model `model.config.to_dict()`.
    family : a table of one's own; default the one that config's model_type or, failing that,
        the names and shapes tell. sizes : sizes by index without block (e.g. {"head": 12}), which
        override the config's.
    partial : leave out what no row describes (`Layout.left_out`), and infer the axes where no
        table fits (`rclib.families.infer`).

    Raises FamilyError (one line) for tensors that no row describes, with their names and how to
    describe them, for shapes that contradict the table, and for sizes that nothing tells; as
    `rclib.open_checkpoint` for what is not a mapping.
    """
    if not isinstance(tensors, Mapping):
        with opened(tensors) as source:
            told = source.config if config is None else config
            return layout(source.tensors, told, family=family, sizes=sizes, partial=partial)
    flat = flat_config(config)
    if family is not None:
        return _described(family, match(family, tensors), tensors, flat, sizes or {}, partial)
    candidates = ranked(tensors, flat)
    failed: tuple[Family, Match, ShapeError] | None = None
    meant = False  # by the configuration, or by all of the names
    for known, found, named in candidates:
        clear = named or not found.unmatched
        if not found.rows or not (clear or (partial and _fits(known, found))):
            continue
        try:
            return _described(known, found, tensors, flat, sizes or {}, partial)
        except ShapeError as error:  # the same names, stored in another way
            failed = failed or (known, found, error)
            meant = meant or clear
    if partial and failed is not None and _fits(*failed[:2]):
        with contextlib.suppress(FamilyError):
            return _without_misfits(*failed[:2], tensors, flat, sizes or {})
    if partial and not meant:
        made = infer(tensors)
        if made is not None:
            found = match(made, tensors)
            described = _described(made, found, tensors, flat, sizes or {}, True)
            return replace(described, inferred=True)
    if failed is not None:
        raise failed[2]
    # The table that comes nearest says what is missing.
    known, found, _ = min(candidates, key=lambda e: (len(e[1].unmatched), -len(e[1].rows)))
    raise FamilyError(unmatched_message(known, tensors, found.unmatched or list(tensors)))


def check_layout(value: Any) -> Layout:
    """A layout. Raises TypeError for anything else, saying what makes one."""
    if not isinstance(value, Layout):
        raise TypeError(
            "layout must be a Layout, which rclib.layout(checkpoint) makes, got "
            f"{type(value).__name__}"
        )
    return value


def _fits(family: Family, found: Match) -> bool:
    """Whether a table describes enough of the blocks to be that of the model: three matrices."""
    rows = {pattern for pattern, captured in found.rows.values() if "b" in captured}
    return sum("<-" in family.tensors[row] or "->" in family.tensors[row] for row in rows) >= 3


def _without_misfits(
    family: Family,
    found: Match,
    tensors: Mapping[str, Shaped],
    config: Mapping[str, Any],
    sizes: Mapping[str, int],
) -> Layout:
    """The layout without a row or two whose shapes contradict the others (a padded vocabulary).

    Matrices of blocks must fit.
    """
    dropped: dict[str, None] = {}
    while True:
        try:
            return _described(family, found, tensors, config, sizes, True)
        except ShapeError as error:
            if error.tensor is None:
                raise
            pattern, captured = found.rows[error.tensor]
            dropped[pattern] = None
            matrix = len(tensors[error.tensor].shape) > 1
            if len(dropped) > MISFITS or (matrix and "b" in captured):
                raise
            rows = {n: row for n, row in found.rows.items() if row[0] != pattern}
            gone = tuple(n for n in found.rows if n not in rows)
            found = Match(rows, found.ignored, (*found.unmatched, *gone))


def _described(
    family: Family,
    found: Match,
    tensors: Mapping[str, Shaped],
    config: Mapping[str, Any],
    sizes: Mapping[str, int],
    partial: bool,
) -> Layout:
    if found.unmatched and not partial:
        raise FamilyError(unmatched_message(family, tensors, found.unmatched))
    if not found.rows:
        raise FamilyError(
            f"no tensor is described by the table {family.name!r}; it has, for instance, the row "
            f"{next(iter(family.tensors))!r}"
        )
    weights: dict[str, Weight] = {}
    taken: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}
    for name, (pattern, captured) in found.rows.items():
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
        ignored=found.ignored,
        sizes=_sizes(family, weights, tensors, config, sizes),
        sets=family.sets,
        ordered=family.ordered,
        tied=_tied(family, found, config),
        left_out=found.unmatched,
        table=family,
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


def _sizes(
    family: Family,
    weights: Mapping[str, Weight],
    tensors: Mapping[str, Shaped],
    config: Mapping[str, Any],
    given: Mapping[str, int],
) -> dict[str, int]:
    # In the order of the tensors, as a set's changes from one process to the next: maps are drawn
    # index by index.
    names = dict.fromkeys(i for w in weights.values() for a in w.axes.axes for i in a.names())
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
        raise SizesError(
            f"the shapes do not tell the size of {', '.join(missing)}: give "
            + " ".join(f"--size {i}=NUMBER" for i in wanted)
            + (" (one may tell the others)" if len(wanted) > 1 else "")
            + (f", or a config.json with {', '.join(keys)}" if keys else ", or `sizes` in a table"),
            wanted,
        ) from None
    except NotationError as error:
        raise ShapeError(f"table {family.name!r}: {error}", error.tensor) from None


def _tied(family: Family, found: Match, config: Mapping[str, Any]) -> Tied | None:
    if family.tied is None:
        return None
    by_pattern = {pattern: name for name, (pattern, _) in found.rows.items()}
    heads = [by_pattern[p] for p in family.tied.heads if p in by_pattern]
    said = config.get("tie_word_embeddings")
    return Tied(
        head=heads[0] if heads else None,
        embedding=by_pattern.get(family.tied.embedding),
        scaled=tuple(by_pattern[p] for p in family.tied.scaled if p in by_pattern),
        tied=said if isinstance(said, bool) else family.tied.default,
    )
