"""`python -m rclib analyze SOURCE`: everything on one model in one table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rclib.cli.common import (
    EXIT_CODES,
    Folder,
    LeftOut,
    add_against_arguments,
    add_model_arguments,
    add_work_arguments,
    at_work,
    given_sizes,
    named_before,
    progress_bar,
    report,
)
from rclib.cli.texts import json_text, records, words_text
from rclib.files.terminal import note

if TYPE_CHECKING:
    from rclib.analysis.call import Analysis, Source

__all__ = ["HELP", "SHOWN", "add_arguments", "analysis_of", "before_of", "run"]

HELP = "one table: tail, noise, verdict, spikes and largest correlation of every matrix"
ABOUT = """\
Of every matrix the tail exponent α hill with its 95 percent interval, what noise of that shape
gives (α noise), how near its upper half is to a power law against noise (tail ratio, below 1 if
nearer to the power law) and the verdict, the number of spikes, the stable rank, and the correlation
of its mean vectors that chance explains least, with chance (the 95 percent level) and a p value
corrected for the number of pairs. The last line says how many matrices are heavy-tailed and how
many have spikes.

With --against BEFORE the same for the earlier checkpoint and for the change of every matrix.
The words are explained in docs/columns.md. With --out: analysis.csv and .json (all columns),
correlations.csv (of every block and index set), analysis.png and report.html."""
# Columns of the printed table, words of rclib.inspection.vocabulary.
SHOWN = (
    *("block", "layer", "shape", "alpha_hill", "alpha_noise", "tail_ratio", "verdict", "spikes"),
    *("stable_rank", "correlation", "chance", "p_value", "note"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    parser.description = ABOUT
    parser.epilog = EXIT_CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_model_arguments(parser)
    add_against_arguments(parser, "an earlier checkpoint: measure it and the change as well")
    parser.add_argument("--out", metavar="DIR", help="write tables, figure and page into it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_work_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compute, print, and write what `--out` asks for."""
    from rclib.analysis.call import Source

    folder = Folder(arguments.out)
    source = Source(arguments.source, arguments.revision, arguments.key, before_of(arguments))
    found, left_out = analysis_of(source, arguments)
    record = _record(found)
    if folder.wanted:
        folder.table("analysis", found)
        folder.table("correlations", found.correlations)
        folder.json("analysis", record)
        folder.figure("analysis", found.plot())
        folder.write()
        assert folder.path is not None
        found.report(folder.path / "report.html")
    report(json_text(record) if arguments.json else _text(found))
    return left_out.say()


def before_of(arguments: argparse.Namespace) -> Source | None:
    """What `--against` names. Raises ValueError for a revision or key of nothing."""
    from rclib.analysis.call import Source

    named = named_before(arguments)
    return None if named is None else Source(*named)


def analysis_of(source: Source, arguments: argparse.Namespace) -> tuple[Analysis, LeftOut]:
    """`rclib.analyze` with what the command line says, a bar, and notes on standard error."""
    from rclib.analysis.call import analyze, opened_sources
    from rclib.families.layout import read_family

    family = read_family(arguments.axes) if arguments.axes else None
    with opened_sources(source) as checkpoints:
        total = sum(
            info.nbytes
            for checkpoint in checkpoints.values()
            for info in checkpoint.tensors.values()
            if len(info.shape) > 1
        )
    other = source.against
    with at_work(arguments) as workers, progress_bar(total, "spectra") as progress:
        found = analyze(
            source.model,
            None if other is None else other.model,
            revision=source.revision,
            key=source.key,
            against_revision=None if other is None else other.revision,
            against_key=None if other is None else other.key,
            blocks=arguments.block,
            family=family,
            sizes=given_sizes(arguments.size),
            workers=workers,
            threads=arguments.threads,
            progress=progress,
        )
    for line in found.notes:
        note(f"note: {line}")
    left_out = LeftOut()
    left_out.reasons |= found.left_out
    return found, left_out


def _record(found: Analysis) -> dict[str, Any]:
    from rclib.inspection.vocabulary import VERSION

    sources = [
        {
            "of": part.of, "source": part.source, "axes": part.axes, "tensors": part.tensors,
            "bytes": part.nbytes, "sentence": part.sentence(),
        }
        for part in found.parts
    ]  # fmt: skip
    return {
        "vocabulary": VERSION,
        "sources": sources,
        "rows": records(found),
        "correlations": records(found.correlations),
        "notes": found.notes,
        "left_out": found.left_out,
    }


def _text(found: Analysis) -> str:
    lines = []
    for part in found.parts:
        told = f"{part.of}: " if len(found.parts) > 1 else ""
        lines.append(f"{told}{part.source}: {part.axes}, {len(part.spectra)} matrices")
    words = (["of"] if len(found.parts) > 1 else []) + list(SHOWN)
    lines.append(words_text(found, words))
    for part in found.parts:
        told = f"{part.of}: " if len(found.parts) > 1 else ""
        lines.append(f"{told}{part.sentence()}")
    return "\n".join(lines)
