"""The pages docs/series/<digit>.md: what the notebooks of one theme ask, show and say together.

`python -m rclib.reports.series` writes one page for every series that has committed results; a
test checks that the committed pages are current.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.terminal import note, report
from rclib.reports.replication import notebook_link, table_row
from rclib.study.findings import measured
from rclib.study.papers import Papers, Run, Series, committed_runs, load_papers
from rclib.study.results import duration, tally
from rclib.study.sequential import RULE, adjusted_mark

__all__ = ["main", "pages", "series_page", "verdict_counts"]

_UP = "../../"  # from docs/series to the top of the repository


def verdict_counts(record: Mapping[str, Any]) -> str:
    """E.g. "6 reproduced, 1 undecided"."""
    counts = tally(claim["verdict"] for claim in record["claims"])
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "no claim"


def series_page(series: Series, papers: Papers, runs: Mapping[str, Run]) -> str:
    """The page of one series, from the runs of its notebooks."""
    own = {name: run for name, run in runs.items() if series.holds(name)}
    lines = [f"# Series {series.digit}: {series.title}", ""]
    lines += ["*Written by `python -m rclib.reports.series` from the committed results.*", ""]
    lines += [series.question.strip(), ""]
    if series.says.strip():
        lines += ["**Together:** " + " ".join(series.says.split()), ""]
    lines += ["| notebook | profile | data | training | claims |", "|---|---|---|---|---|"]
    for run in own.values():
        record = run.record
        cells = [
            f"{notebook_link(run, _UP)}<br>{record['title']}",
            run.profile,
            record["data"]["description"],
            duration(record["core_seconds"]),
            verdict_counts(record),
        ]
        lines.append(table_row(cells))
    if any(claim.get("looks") for run in own.values() for claim in run.record["claims"]):
        lines += ["", RULE]
    titles = papers.figure_titles()
    for name, run in own.items():
        lines += ["", f"## {run.record['title']}", "", notebook_link(run, _UP), ""]
        for figure in run.record["figures"][:1]:
            title = titles.get((name, figure["name"]), run.record["title"])
            path = f"{_UP}figures/{run.profile}/{name}/{figure['name']}.png"
            lines += [f"![{title}]({path})", ""]
        lines += [
            "| source | statement | criterion | measured | verdict |",
            "|---|---|---|---|---|",
        ]
        for claim in run.record["claims"]:
            value = measured(claim) + adjusted_mark(claim)
            cells = [claim["paper"], claim["statement"], claim["criterion"], value]
            lines.append(table_row([*cells, claim["verdict"]]))
    return "\n".join(lines) + "\n"


def pages(papers: Papers, runs: Mapping[str, Run]) -> dict[str, str]:
    """File name -> text of the pages of all series that have a run."""
    return {
        f"{series.digit}.md": series_page(series, papers, runs)
        for series in papers.series
        if any(series.holds(name) for name in runs)
    }


@command()
def main() -> int:
    """Rewrite the pages of the series; one that has lost its runs is removed."""
    try:
        wanted = pages(load_papers(), committed_runs())
    except ValueError as error:
        note(f"error: {error}")
        return 2
    folder = paths.project_root() / "docs" / "series"
    for name, text in wanted.items():
        path = folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            report(f"docs/series/{name} is current")
        else:
            write_atomically(path, text.encode())
            report(f"docs/series/{name} updated")
    for path in sorted(folder.glob("[0-9].md")):
        if path.name not in wanted:
            path.unlink()
            report(f"docs/series/{path.name} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
