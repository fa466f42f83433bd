"""The README's table of figures, written from the committed results files.

`python -m rclib.reports.readme` replaces what stands between the two markers; a test checks that
the committed README is current.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.study.multiplicity import corrected
from rclib.study.papers import committed_runs
from rclib.study.results import tally
from rclib.study.seeds import load_stability, sentence

__all__ = ["BEGIN", "END", "committed_records", "figure_table", "main", "with_table"]

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def figure_table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: one row a notebook (figure, notebook, scale, data, minutes, verdicts), and how
    many verdicts stand corrected for their number and with other seeds."""
    lines = [
        "| figure | notebook | profile | data | core-minutes | claims |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        if not record["claims"]:
            continue
        counts = tally(c["verdict"] for c in record["claims"])
        cells = [
            record["title"],
            f"[{record['notebook'][:2]}](notebooks/{record['notebook']}.ipynb)",
            record["profile"],
            record["data"]["description"],
            f"{record['core_seconds'] / 60:.1f}",
            ", ".join(f"{count} {verdict}" for verdict, count in counts.items()),
        ]
        # A bar inside a cell would end it.
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", str(corrected(c for r in records for c in r["claims"]))]
    seeds = load_stability("quick")
    return "\n".join([*lines, *(["", sentence(seeds)] if seeds else [])])


def committed_records() -> list[dict[str, Any]]:
    """The results that the table shows: of every notebook those at the largest scale that is in
    the repository."""
    return [dict(run.record) for run in committed_runs().values()]


def with_table(text: str, table: str) -> str:
    """`text` with what stands between the markers replaced; ValueError if a marker is missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"text must hold {BEGIN!r} and {END!r} once each, in this order")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Rewrite the table in README.md from the committed results."""
    path = paths.project_root() / "README.md"
    text = path.read_text(encoding="utf-8")
    new = with_table(text, figure_table(committed_records()))
    if new != text:
        write_atomically(path, new.encode())
    print("README.md is current" if new == text else "README.md updated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
