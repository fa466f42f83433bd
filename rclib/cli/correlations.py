"""`python -m rclib correlations SOURCE`: Figure 4.4 for any checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclib.cli.common import (
    Folder,
    add_source_arguments,
    json_text,
    layout_text,
    left_out_text,
    opened,
    progress_bar,
    report,
    table_text,
)

if TYPE_CHECKING:
    from rclib.inspection.block_correlations import BlockCorrelations

__all__ = ["HELP", "add_arguments", "run"]

HELP = "row-column structure: the largest correlation of every block (Figure 4.4)"
ABOUT = """\
For every block and index set (residual stream, MLP hidden neurons, heads, ...): the largest
absolute correlation between the mean vectors of the tensors that carry the set, which pair it
is, what independent vectors give (mean and 95 percent level of the largest of as many pairs),
and a p-value corrected for the number of pairs. `.C` is the mean of each row (output), `.R` of
each column (input) of a matrix.

With --out: correlations.csv, vectors.csv and correlations.json, correlations.png (Figure 4.4),
vectors.png (the same for each vector), and blocks/block_K.png, the heat map of each block."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    parser.description = ABOUT
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_source_arguments(parser)
    parser.add_argument(
        "--biases",
        action="store_true",
        help="compare gains and biases too, not the means of matrices alone",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compute, print, and write what `--out` asks for."""
    from rclib.families.matrix_view import matrix_view
    from rclib.inspection.block_correlations import block_correlations

    folder = Folder(arguments.out)
    with opened(arguments) as (checkpoint, layout):
        blocks = arguments.block
        total = sum(
            checkpoint.tensors[name].nbytes
            for name, weight in layout.weights.items()
            if (blocks is None or weight.block in blocks)
            and (arguments.biases or len(matrix_view(weight, layout).shape) == 2)
        )
        with progress_bar(total, "reading") as progress:
            found = block_correlations(
                checkpoint, layout, blocks=blocks, biases=arguments.biases, progress=progress
            )
        record = _record(found, checkpoint.nbytes, len(checkpoint.tensors), layout.ignored)
        record |= {"inferred": layout.inferred, "left_out": layout.left_out}
        said = layout_text(layout)
    if folder.wanted:
        folder.table("correlations", found.table())
        folder.table("vectors", found.vector_table())
        folder.json("correlations", record)
        _draw(folder, found)
        folder.write()
    report(json_text(record) if arguments.json else _text(found, record, said))
    return 0


def _record(
    found: BlockCorrelations, nbytes: int, tensors: int, ignored: tuple[str, ...]
) -> dict[str, Any]:
    rows = []
    for row in found.rows:
        fields = {n: getattr(row, n) for n in type(row).__dataclass_fields__ if n != "found"}
        matrix = [[float(f"{r:.6g}") for r in line] for line in row.found.matrix.tolist()]
        rows.append({**fields, "labels": row.found.labels, "matrix": matrix})
    return {
        "source": found.source,
        "family": found.family,
        "tensors": tensors,
        "bytes": nbytes,
        "ignored": ignored,
        "rows": rows,
    }


def _text(found: BlockCorrelations, record: dict[str, Any], said: str) -> str:
    head = f"{found.source}: {said}, {record['tensors']} tensors, {record['bytes'] / 1e9:.3g} GB"
    header = ["block", "index set", "N", "pairs", "largest", "of", "and", "chance", "95 %", "p"]
    rows = [
        [
            "-" if r.block is None else str(r.block),
            r.set,
            str(r.n),
            str(r.pairs),
            f"{r.correlation:+.3f}",
            r.first,
            r.second,
            f"{r.expected:.3f}",
            f"{r.chance:.3f}",
            _p_value(r.p_value),
        ]
        for r in found.rows
    ]
    above = sum(r.value > r.chance for r in found.rows)
    tail = (
        f"{above} of {len(rows)} rows lie above their 95 percent level; independent vectors "
        f"alone give {0.05 * len(rows):.1f}"
    )
    left = left_out_text(record["left_out"], "without a row in the table")
    return "\n".join([head, table_text(header, rows, left=(1, 5, 6)), tail, *left])


def _p_value(p: float) -> str:
    if p < 1e-300:
        return "< 1e-300"
    return f"{p:.1e}" if p < 0.001 else f"{p:.3f}"


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
