"""`python -m rclib correlations SOURCE`: Figure 4.4 for any checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclib.cli.common import (
    EXIT_CODES,
    Folder,
    LeftOut,
    add_against_arguments,
    add_source_arguments,
    at_work,
    layout_text,
    left_out_text,
    opened,
    progress_bar,
    report,
)
from rclib.cli.texts import json_text, records, words_text

if TYPE_CHECKING:
    from rclib.inspection.block_correlations import BlockCorrelations

__all__ = ["HELP", "SHOWN", "add_arguments", "run"]

HELP = "row-column structure: the largest correlation of every block (Figure 4.4)"
ABOUT = """\
For every block and index set (residual stream, MLP hidden neurons, heads, ...): the largest
absolute correlation between the mean vectors of the tensors that carry the set, which pair it
is, what independent vectors give (expected: the mean of the largest of as many pairs, chance: its
95 percent level), and a p value corrected for the number of pairs. `.C` is the mean of each row
(output), `.R` of each column (input) of a matrix. The words are explained in docs/columns.md.

With --out: correlations.csv, vectors.csv and correlations.json, correlations.png (Figure 4.4),
vectors.png (the same for each vector), and blocks/block_K.png, the heat map of each block."""
# Columns of the printed table, words of rclib.inspection.vocabulary.
SHOWN = (
    *("block", "set", "n", "pairs", "correlation", "first", "second"),
    *("expected", "chance", "p_value"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    parser.description = ABOUT
    parser.epilog = EXIT_CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_source_arguments(parser)
    add_against_arguments(parser, "look at the change since this checkpoint instead")
    parser.add_argument(
        "--biases",
        action="store_true",
        help="compare gains and biases too, not the means of matrices alone",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compute, print, and write what `--out` asks for."""
    from rclib.families.matrix_view import matrix_view
    from rclib.inspection.block_correlations import block_correlations

    folder, left_out = Folder(arguments.out), LeftOut()
    with at_work(arguments) as workers, opened(arguments) as (checkpoint, layout):
        left_out.take(checkpoint)
        blocks = arguments.block
        total = sum(
            checkpoint.tensors[name].nbytes
            for name, weight in layout.weights.items()
            if (blocks is None or weight.block in blocks)
            and (arguments.biases or len(matrix_view(weight, layout).shape) == 2)
        )
        with progress_bar(total, "reading") as progress:
            try:
                found = block_correlations(
                    checkpoint,
                    layout,
                    blocks=blocks,
                    biases=arguments.biases,
                    progress=progress,
                    failed=left_out.add,
                    workers=workers,
                )
            except ValueError as error:
                if not left_out.reasons:
                    raise
                raise left_out.nothing(checkpoint.source, "nothing to compare") from error
        record = _record(found, checkpoint.nbytes, len(checkpoint.tensors), layout.ignored)
        record["left_out"] = left_out.reasons
        record |= {"inferred": layout.inferred, "without_row": layout.left_out}
        said = layout_text(layout)
    if folder.wanted:
        folder.table("correlations", found.table())
        folder.table("vectors", found.vector_table())
        folder.json("correlations", record)
        _draw(folder, found)
        folder.write()
    report(json_text(record) if arguments.json else _text(found, record, said))
    return left_out.say()


def _record(
    found: BlockCorrelations, nbytes: int, tensors: int, ignored: tuple[str, ...]
) -> dict[str, Any]:
    from rclib.inspection.vocabulary import VERSION

    rows = []
    for row, fields in zip(found.rows, records(found.table()), strict=True):
        matrix = [[float(f"{r:.6g}") for r in line] for line in row.found.matrix.tolist()]
        more = {"left_out": row.left_out, "labels": row.found.labels, "correlations": matrix}
        rows.append({**fields, **more})
    return {
        "vocabulary": VERSION,
        "source": found.source,
        "family": found.family,
        "tensors": tensors,
        "bytes": nbytes,
        "ignored": ignored,
        "rows": rows,
    }


def _text(found: BlockCorrelations, record: dict[str, Any], said: str) -> str:
    head = f"{found.source}: {said}, {record['tensors']} tensors, {record['bytes'] / 1e9:.3g} GB"
    count = len(found.rows)
    above = sum(r.beyond_chance for r in found.rows)
    tail = (
        f"{above} of {count} rows lie above chance, their 95 percent level; independent vectors "
        f"alone give {0.05 * count:.1f}"
    )
    left = left_out_text(record["without_row"], "without a row in the table")
    return "\n".join([head, words_text(found.table(), SHOWN), tail, *left])


def _draw(folder: Folder, found: BlockCorrelations) -> None:
    from rclib.plots import checkpoints as plots_checkpoints
    from rclib.plots import style

    style.use_style()
    table = found.table()
    if table.block.notna().any():
        shown = table.assign(source=Path(found.source).name)
        folder.figure("correlations", plots_checkpoints.largest_correlations(shown))
        folder.figure("vectors", plots_checkpoints.largest_by_vector(found.vector_table(), table))
    for block in dict.fromkeys(row.block for row in found.rows):
        matrices = {
            row.set: (row.found.labels, row.found.matrix.numpy(), row.chance)
            for row in found.rows
            if row.block == block
        }
        name = "outside the blocks" if block is None else f"block {block}"
        file = "blocks/outside" if block is None else f"blocks/block_{block:03d}"
        title = f"{Path(found.source).name}, {name}"
        figure = plots_checkpoints.block_heat_maps(matrices, title=title)
        folder.figure(file, figure)
