"""`python -m rclib spectra SOURCE`: the spectrum of every matrix of any checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rclib.cli.common import (
    EXIT_CODES,
    Folder,
    LeftOut,
    add_source_arguments,
    json_text,
    opened,
    progress_bar,
    report,
    table_text,
)

if TYPE_CHECKING:
    from rclib.inspection.matrix_spectra import MatrixSpectrum

__all__ = ["HELP", "add_arguments", "run"]

HELP = "spectra: power-law exponents, spikes and stable rank of every matrix"
ABOUT = """\
For every matrix W (a fused one in its parts): the power-law exponent of the eigenvalues of W^T W
by Hill and by KS (with its standard error), the number of spikes beyond the Marchenko-Pastur
bulk, the largest eigenvalue over the bulk's edge, and the stable rank.

With --out: spectra.csv and spectra.json, histograms.csv, spectra.png (over the blocks) and
histograms.png (eigenvalues in the first, middle and last block, with the law of the bulk)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    parser.description = ABOUT
    parser.epilog = EXIT_CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_source_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compute, print, and write what `--out` asks for; ValueError if there is no matrix."""
    from rclib.families.matrix_view import matrix_view
    from rclib.inspection.matrix_spectra import matrix_spectra, spectra_table

    folder, left_out = Folder(arguments.out), LeftOut()
    with opened(arguments) as (checkpoint, layout):
        total = sum(
            checkpoint.tensors[name].nbytes
            for name, weight in layout.weights.items()
            if (arguments.block is None or weight.block in arguments.block)
            and matrix_view(weight, layout).is_matrix
        )
        with progress_bar(total, "spectra") as progress:
            found = list(
                matrix_spectra(
                    checkpoint,
                    layout,
                    blocks=arguments.block,
                    progress=progress,
                    failed=left_out.add,
                )
            )
        left_out.take(checkpoint)
        if not found:
            raise left_out.nothing(checkpoint.source, "no matrix to take the spectrum of")
        found.sort(key=lambda s: (s.block is None, s.block or 0))
        record = _record(checkpoint.source, layout.family, found)
        record["left_out"] = left_out.reasons
    if folder.wanted:
        folder.table("spectra", spectra_table(found))
        folder.json("spectra", record)
        _draw(folder, found)
        folder.write()
    report(json_text(record) if arguments.json else _text(record, found))
    return left_out.say()


def _record(source: str, family: str, found: Sequence[MatrixSpectrum]) -> dict[str, Any]:
    names = [n for n in type(found[0]).__dataclass_fields__ if n != "eigenvalues"]
    rows = [{name: getattr(s, name) for name in names} for s in found]
    return {"source": source, "family": family, "rows": rows}


def _text(record: dict[str, Any], found: Sequence[MatrixSpectrum]) -> str:
    head = f"{record['source']}: layout {record['family']}, {len(found)} matrices"
    header = [
        "block", "matrix", "shape", "α Hill", "α KS", "error", "tail", "spikes", "top/edge",
        "stable rank",
    ]  # fmt: skip
    rows = [
        [
            "-" if s.block is None else str(s.block),
            s.matrix,
            f"{s.outputs} x {s.inputs}",
            _number(s.alpha_hill),
            _number(s.alpha_ks),
            _number(s.alpha_ks_error),
            "-" if s.tail is None else str(s.tail),
            str(s.spikes),
            _number(s.largest / s.edge if s.edge else None),
            f"{s.stable_rank:.1f}",
        ]
        for s in found
    ]
    return head + "\n" + table_text(header, rows, left=(1,))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _draw(folder: Folder, found: Sequence[MatrixSpectrum]) -> None:
    import pandas as pd

    from rclib.inspection.matrix_spectra import esd_histogram, spectra_table
    from rclib.plots import checkpoints as plots_checkpoints
    from rclib.plots import style

    style.use_style()
    histograms = pd.concat(
        [
            esd_histogram(s).assign(
                block="outside" if s.block is None else f"block {s.block}", matrix=s.matrix
            )
            for s in found
        ]
    )
    folder.table("histograms", histograms[["block", "matrix", "left", "right", "density", "law"]])
    table = spectra_table(found)
    if table.block.notna().any():
        rows = {
            "alpha_hill": "α (Hill)", "alpha_ks": "α (KS)", "spikes": "spikes",
            "stable_rank": "stable rank",
        }  # fmt: skip
        folder.figure("spectra", plots_checkpoints.spectra_over_blocks(table, rows=rows))
    numbers = list(dict.fromkeys(s.block for s in found if s.block is not None))
    chosen = {f"block {numbers[i]}" for i in (0, len(numbers) // 2, -1) if numbers}
    shown = histograms[histograms.block.isin(chosen)] if chosen else histograms
    if not shown.empty:
        folder.figure("histograms", plots_checkpoints.eigenvalue_histograms(shown))
