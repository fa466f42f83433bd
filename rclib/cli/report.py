"""`python -m rclib report PATH [PATH2]`: one page on a model, or on two side by side."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rclib.cli.analyze import analysis_of, before_of
from rclib.cli.common import (
    EXIT_CODES,
    add_against_arguments,
    add_model_arguments,
    add_work_arguments,
    report,
)

__all__ = ["HELP", "add_arguments", "run"]

HELP = "one HTML page: heat map, means, spectrum and correlations of every matrix"
ABOUT = """\
Write one self-contained page (it asks for nothing from a network): of every matrix the heat map, as
stored and sorted, the means of rows and columns, the spectrum with the Marchenko-Pastur law of
noise and the power law of its tail; the largest correlations of every block with chance; and a
table of all matrices that sorts and filters.

With a second path both stand side by side, with the change of every matrix that has one name and
shape in both: PATH is before, PATH2 after (training), or PATH the source, PATH2 the resized one.
`report AFTER --against BEFORE` is `report BEFORE AFTER`, as the other commands have it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    parser.description = ABOUT
    parser.epilog = EXIT_CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_model_arguments(parser)
    parser.add_argument("after", nargs="?", metavar="source2", help="a second one, after the first")
    add_against_arguments(parser, "an earlier checkpoint, in place of a second one")
    parser.add_argument("--revision2", metavar="REV", help="as --revision, of the second")
    parser.add_argument("--key2", metavar="NAME", help="as --key, of the second")
    parser.add_argument(
        "--out", metavar="FILE.html", default="report.html", help="the page (default: report.html)"
    )
    add_work_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and write the page whole or not at all; ValueError for an --out that cannot be."""
    from rclib.analysis.call import Source
    from rclib.analysis.page import check_place

    path = Path(arguments.out)
    try:
        check_place(path)
    except ValueError as error:
        raise ValueError(f"--out {error}") from None
    first = Source(arguments.source, arguments.revision, arguments.key)
    before = before_of(arguments)
    if arguments.after is None:
        if arguments.revision2 is not None or arguments.key2 is not None:
            raise ValueError("--revision2 and --key2 need a second path")
        source = replace(first, against=before)
    elif before is not None:
        raise ValueError(
            f"a second path ({arguments.after}) and --against {arguments.against} are two ways to "
            "name the other checkpoint; give one"
        )
    else:
        source = Source(arguments.after, arguments.revision2, arguments.key2, first)
    found, left_out = analysis_of(source, arguments)
    written = found.report(path)
    size = written.stat().st_size / 1e6
    report(found.sentence)
    report(f"{written}: {size:.1f} MB, open it in a browser")
    return left_out.say()
