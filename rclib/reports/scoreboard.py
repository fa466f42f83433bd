"""Closing scoreboard of `make figures`: every claim's verdict, from the results files.

Needs the standard library alone, so that a `make figures` with nothing to do ends at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rclib.files.command import command
from rclib.files.terminal import Parser, note, report
from rclib.study.results import readable_results, tally
from rclib.study.seeds import claim_rows
from rclib.study.sequential import adjusted_mark, total_text

__all__ = ["main", "scoreboard"]


def scoreboard(records: Sequence[dict[str, Any]], broken: list[str] | None = None) -> str:
    """One line a claim, then the totals.

    A verdict that changes with the seeds says with how many sets of seeds it came out. broken :
    gets a line for each record of that which is not valid; without it ValueError is raised.
    """
    lines = []
    for record in records:
        lines.append(f"{record['notebook']}  ({record['data']['description']})")
        for c in claim_rows([record], broken):
            value = (
                "" if c["value"] is None else f"{c['value']:.3g} [{c['low']:.3g}, {c['high']:.3g}]"
            )
            known, _, total = c["seeds"].partition("/")
            seeds = f"  (seeds: {c['seeds']})" if known != total else ""
            value += adjusted_mark(c)
            lines.append(f"  {c['verdict']:18s} {c['key']:28s} {c['criterion']:16s} {value}{seeds}")
    counts = tally(c["verdict"] for r in records for c in r["claims"])
    totals = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    lines.append(f"{sum(counts.values())} claims: {totals or 'none'}")
    said = total_text([{"notebook": r["notebook"], **c} for r in records for c in r["claims"]])
    return "\n".join([*lines, *([said] if said else [])])


@command(failed=2)
def main(argv: Sequence[str] | None = None) -> int:
    """Print the scoreboard of a profile; files that are not valid are named, the others shown, and
    the status is 2."""
    parser = Parser(prog="python -m rclib.reports.scoreboard", description=main.__doc__)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--series", nargs="*", default=[], help="first digits; default all")
    parser.add_argument("--only", nargs="*", default=[], help="names of notebooks; default all")
    arguments = parser.parse_args(argv)
    broken: list[str] = []
    try:
        records, broken = readable_results(arguments.profile)
        if arguments.series:
            records = [r for r in records if r["notebook"][0] in arguments.series]
        if arguments.only:
            records = [r for r in records if r["notebook"] in arguments.only]
        report("\n" + scoreboard(records, broken))
    except ValueError as error:  # an unknown profile, a record of `make seeds`
        broken.append(str(error))
    for line in broken:
        note(f"error: {line}")
    return 2 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
