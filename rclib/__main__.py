"""`python -m rclib COMMAND`: the library's measurements on any checkpoint, and the figures of the
notebooks drawn again.

Exit codes: 0 when all went well, 1 when some tensors were left out (each is named), 2 for an input
that is refused (one line says why), 130 when interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from rclib.cli import analyze as command_analyze
from rclib.cli import correlations as command_correlations
from rclib.cli import report as command_report
from rclib.cli import resize as command_resize
from rclib.cli import spectra as command_spectra
from rclib.cli.output import guarded
from rclib.execution import redraw as command_redraw
from rclib.files.terminal import Parser, printable

__all__ = ["main"]

COMMANDS = {
    "analyze": command_analyze,
    "report": command_report,
    "correlations": command_correlations,
    "spectra": command_spectra,
    "resize": command_resize,
    "redraw": command_redraw,
}


class _Parser(Parser):
    """Errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the weights of a trained network from a file, a folder or a Hugging Face id."""

    def work() -> int:
        parser = _Parser(prog="python -m rclib", description=main.__doc__)
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        for name, module in COMMANDS.items():
            module.add_arguments(commands.add_parser(name, help=module.HELP))
        arguments = parser.parse_args(argv)
        try:
            status: int = COMMANDS[arguments.command].run(arguments)
        except ValueError as error:
            _name_files(error, arguments)
            raise
        return status

    return guarded(work)


def _name_files(error: ValueError, arguments: argparse.Namespace) -> None:
    """What a table of axes, or the lack of one, says of a checkpoint names both files."""
    from rclib.families.table import FamilyError

    if not isinstance(error, FamilyError):
        return
    given = (("", "source"), ("--axes ", "axes"))
    paths = [(before, getattr(arguments, option, None)) for before, option in given]
    if not any(path and path in str(error) for _, path in paths):
        named = printable(", ".join(before + path for before, path in paths if path))
        error.args = (f"{named}: {error}" if named else str(error),)


if __name__ == "__main__":
    sys.exit(main())
