"""`python -m rclib spectra SOURCE`: the spectrum of every matrix of any checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rclib.cli.common import (
    Folder,
    add_source_arguments,
    given_sizes,
    json_text,
    left_out_text,
    progress_bar,
    report,
    table_text,
    write_table,
)

if TYPE_CHECKING:
    from rclib.inspection.matrix_spectra import MatrixSpectrum

__all__ = ["HELP", "add_arguments", "run"]

HELP = "spectra: power-law exponents, spikes and stable rank of every matrix"
ABOUT = """\
For every matrix W (a fused one in its parts, a convolution as out x (in · places), stacked experts
one by one; `kind` says what a tensor was taken for): the power-law exponent of the eigenvalues of
W^T W by Hill and by KS (with its standard error), the number of spikes beyond the Marchenko-Pastur
bulk, the largest eigenvalue over the bulk's edge, and the stable rank. Eigenvalues that are
rounding do not count, and `note` says why a number is missing.

With --out: spectra.csv and spectra.json, histograms.csv, spectra.png (over the blocks) and
histograms.png (eigenvalues in the first, middle and last block, with the law of the bulk)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    parser.description = ABOUT
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_source_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compute, print, and write what `--out` asks for; ValueError if there is no matrix.

    Exit code 1 if some matrix could not be measured: it is named, the others are measured.
    """
    from rclib.checkpoints.opening import open_checkpoint
    from rclib.families.layout import layout as any_layout
    from rclib.families.layout import read_family
    from rclib.inspection.matrix_plan import plan_matrices, spectra_layout
    from rclib.inspection.matrix_spectra import matrix_spectra, spectra_table

    folder = Folder(arguments.out)
    sizes = given_sizes(arguments.size)
    family = read_family(arguments.axes) if arguments.axes else None
    bad: dict[str, str] = {}
    with open_checkpoint(arguments.source, revision=arguments.revision) as checkpoint:
        tensors, config = checkpoint.tensors, checkpoint.config
        layout, unknown = spectra_layout(tensors, config, family=family, sizes=sizes)
        if arguments.write_table:
            made = layout or any_layout(tensors, config, partial=True)
            write_table(arguments.write_table, made, checkpoint)
        plans, left = plan_matrices(tensors, layout, unknown)
        if not plans:
            raise ValueError(f"{checkpoint.source}: no matrix to take the spectrum of")
        blocks = arguments.block
        chosen = [p for p in plans if blocks is None or p.block in blocks]
        with progress_bar(sum(tensors[p.name].nbytes for p in chosen), "spectra") as progress:
            found = list(
                matrix_spectra(
                    checkpoint,
                    plans=plans,
                    blocks=blocks,
                    progress=progress,
                    on_error=bad.__setitem__,
                )
            )
        if not found:
            raise ValueError(next(iter(bad.values())))
        found.sort(key=lambda s: (s.block is None, s.block or 0))
        name = "names and shapes" if layout is None else layout.family
        record = _record(checkpoint.source, name, found) | {"left_out": left, "refused": bad}
    if folder.wanted:
        folder.table("spectra", spectra_table(found))
        folder.json("spectra", record)
        _draw(folder, found)
        folder.write()
    report(json_text(record) if arguments.json else _text(record, found))
    for reason in bad.values():
        print(f"not measured: {' '.join(reason.split())}", file=sys.stderr)
    return 1 if bad else 0


def _record(source: str, family: str, found: Sequence[MatrixSpectrum]) -> dict[str, Any]:
    names = [n for n in type(found[0]).__dataclass_fields__ if n != "eigenvalues"]
    rows = [{name: getattr(s, name) for name in names} for s in found]
    return {"source": source, "family": family, "rows": rows}


def _text(record: dict[str, Any], found: Sequence[MatrixSpectrum]) -> str:
    told = "told by " if record["family"] == "names and shapes" else "layout "
    head = f"{record['source']}: {told}{record['family']}, {len(found)} matrices"
    header = [
        "block", "matrix", "kind", "shape", "α Hill", "α KS", "error", "tail", "spikes",
        "top/edge", "stable rank", "note",
    ]  # fmt: skip
    rows = [
        [
            "-" if s.block is None else str(s.block),
            s.matrix,
            s.kind,
            f"{s.outputs} x {s.inputs}",
            _number(s.alpha_hill),
            _number(s.alpha_ks),
            _number(s.alpha_ks_error),
            "-" if s.tail is None else str(s.tail),
            str(s.spikes),
            _number(s.largest / s.edge if s.edge else None),
            f"{s.stable_rank:.1f}",
            s.note,
        ]
        for s in found
    ]
    left = left_out_text(record["left_out"], "no matrices of weights")
    return "\n".join([head, table_text(header, rows, left=(1, 2, 11)), *left])


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
