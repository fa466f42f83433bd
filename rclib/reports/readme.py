"""The README's table of series, written from the committed results files.

`python -m rclib.reports.readme` replaces what stands between the two markers; a test checks that
the committed README is current.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.reports.replication import table_row
from rclib.reports.series import verdict_counts
from rclib.study.multiplicity import corrected
from rclib.study.papers import Papers, Run, committed_runs, load_papers
from rclib.study.seeds import load_stability, sentence

__all__ = ["BEGIN", "END", "main", "series_table", "with_table"]

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def series_table(papers: Papers, runs: Mapping[str, Run]) -> str:
    """Markdown: one row a series (its page, notebooks, minutes, verdicts), and how many verdicts
    stand corrected for their number and with other seeds."""
    lines = ["| series | notebooks | core-minutes | claims |", "|---|---|---|---|"]
    for series in papers.series:
        own = [run.record for name, run in runs.items() if series.holds(name)]
        if own:
            cells = [
                f"[{series.digit}: {series.title}](docs/series/{series.digit}.md)",
                str(len(own)),
                f"{sum(record['core_seconds'] for record in own) / 60:.0f}",
                verdict_counts({"claims": [c for record in own for c in record["claims"]]}),
            ]
            lines.append(table_row(cells))
    lines += ["", str(corrected(c for run in runs.values() for c in run.record["claims"]))]
    seeds = load_stability("quick")
    return "\n".join([*lines, *(["", sentence(seeds)] if seeds else [])])


def with_table(text: str, table: str) -> str:
    """`text` with what stands between the markers replaced; ValueError if a marker is missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"text must hold {BEGIN!r} and {END!r} once each, in this order")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


@command()
def main() -> int:
    """Rewrite the table in README.md from the committed results."""
    path = paths.project_root() / "README.md"
    text = path.read_text(encoding="utf-8")
    new = with_table(text, series_table(load_papers(), committed_runs()))
    if new != text:
        write_atomically(path, new.encode())
    print("README.md is current" if new == text else "README.md updated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
