"""`python -m rclib spectra SOURCE`: the spectrum of every matrix of any checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rclib.cli.common import (
    EXIT_CODES,
    Folder,
    LeftOut,
    add_against_arguments,
    add_source_arguments,
    at_work,
    given_sizes,
    left_out_text,
    open_source,
    progress_bar,
    report,
    write_start,
    write_table,
)
from rclib.cli.texts import json_text, records, words_text
from rclib.files.terminal import note

if TYPE_CHECKING:
    import pandas as pd

    from rclib.inspection.spectrum import MatrixSpectrum

__all__ = ["HELP", "SHOWN", "add_arguments", "run"]

HELP = "spectra: power-law exponents beside noise, spikes and stable rank of every matrix"
ABOUT = """\
For every matrix W (a fused one in its parts, a convolution as out x (in · places), stacked experts
one by one; `kind` says what a tensor was taken for): the power-law exponent of the eigenvalues of
W^T W by Hill and by KS with 95 percent intervals, what α hill is for noise of that shape, whether
the upper half is nearer to a power law than to noise (tail ratio below 1) and the verdict, the
number of spikes beyond the Marchenko-Pastur bulk, the largest eigenvalue over the bulk's edge, and
the stable rank. Eigenvalues that are rounding do not count, and `note` says why a number is
missing. The words are explained in docs/columns.md.

With --out: spectra.csv and spectra.json, histograms.csv, spectra.png (over the blocks) and
histograms.png (eigenvalues in the first, middle and last block, with the law of the bulk)."""
# Columns of the printed table, words of rclib.inspection.vocabulary.
SHOWN = (
    *("block", "matrix", "kind", "shape", "alpha_hill", "alpha_ks", "alpha_noise", "tail_ratio"),
    *("verdict", "spikes", "over_edge", "stable_rank", "note"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    parser.description = ABOUT
    parser.epilog = EXIT_CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_source_arguments(parser)
    add_against_arguments(parser, "look at the change since this checkpoint instead")


def run(arguments: argparse.Namespace) -> int:
    """Compute, print, and write what `--out` asks for; ValueError if there is no matrix.

    Exit code 1 if some matrix could not be measured: it is named, the others are measured.
    """
    from rclib.families.layout import FamilyError, SizesError, read_family
    from rclib.families.layout import layout as any_layout
    from rclib.inspection.matrix_plan import plan_matrices, spectra_layout
    from rclib.inspection.matrix_spectra import check_blocks, in_blocks, matrix_spectra
    from rclib.inspection.spectrum import spectra_table

    folder, left_out = Folder(arguments.out), LeftOut()
    sizes = given_sizes(arguments.size)
    family = read_family(arguments.axes) if arguments.axes else None
    with at_work(arguments) as workers, open_source(arguments) as checkpoint:
        tensors, config = checkpoint.tensors, checkpoint.config
        layout, unknown = spectra_layout(tensors, config, family=family, sizes=sizes)
        if arguments.write_table:
            try:
                made = layout or any_layout(tensors, config, partial=True)
                write_table(arguments.write_table, made, checkpoint)
            except SizesError:
                raise
            except FamilyError:  # spectra need no axes: they go on
                note(f"note: {write_start(arguments.write_table, checkpoint)}")
        plans, left = plan_matrices(tensors, layout, unknown)
        check_blocks(plans, arguments.block)
        chosen = in_blocks(plans, arguments.block)
        with progress_bar(sum(tensors[p.name].nbytes for p in chosen), "spectra") as progress:
            found = list(
                matrix_spectra(
                    checkpoint,
                    plans=chosen,
                    progress=progress,
                    failed=left_out.add,
                    workers=workers,
                )
            )
        left_out.take(checkpoint)
        if not found:
            raise left_out.nothing(checkpoint.source, "no matrix to take the spectrum of")
        table = spectra_table(found)
        name = "names and shapes" if layout is None else layout.family
        record = _record(checkpoint.source, name, table)
        record |= {"left_out": left_out.reasons, "no_matrices": left}
    if folder.wanted:
        folder.table("spectra", table)
        folder.json("spectra", record)
        _draw(folder, found, table)
        folder.write()
    report(json_text(record) if arguments.json else _text(record, table))
    return left_out.say()


def _record(source: str, family: str, table: pd.DataFrame) -> dict[str, Any]:
    from rclib.inspection.vocabulary import VERSION

    return {"vocabulary": VERSION, "source": source, "family": family, "rows": records(table)}


def _text(record: dict[str, Any], table: pd.DataFrame) -> str:
    from rclib.inspection.vocabulary import said

    told = "told by " if record["family"] == "names and shapes" else "layout "
    count = "1 matrix" if len(table) == 1 else f"{len(table)} matrices"
    head = f"{record['source']}: {told}{record['family']}, {count}"
    left = left_out_text(record["no_matrices"], "no matrices of weights")
    return "\n".join([head, words_text(table, SHOWN), said(table.verdict, table.spikes), *left])


def _draw(folder: Folder, found: Sequence[MatrixSpectrum], table: pd.DataFrame) -> None:
    import pandas as pd

    from rclib.inspection.spectrum import esd_histogram
    from rclib.inspection.vocabulary import heading
    from rclib.plots import checkpoints as plots_checkpoints
    from rclib.plots import style

    style.use_style()
    histograms = pd.concat([esd_histogram(s).assign(block=s.block, matrix=s.matrix) for s in found])
    histograms = histograms.astype({"block": "Int64"})
    folder.table("histograms", histograms[["block", "matrix", "left", "right", "density", "law"]])
    if table.block.notna().any():
        rows = {n: heading(n) for n in ("alpha_hill", "alpha_ks", "spikes", "stable_rank")}
        folder.figure("spectra", plots_checkpoints.spectra_over_blocks(table, rows=rows))
    numbers = list(dict.fromkeys(s.block for s in found if s.block is not None))
    chosen = {numbers[i] for i in (0, len(numbers) // 2, -1) if numbers}
    shown = histograms[histograms.block.isin(chosen)] if chosen else histograms
    if not shown.empty:
        folder.figure("histograms", plots_checkpoints.eigenvalue_histograms(shown))
