"""What the README says of the results: findings, series with their scores, where it can be opened.

`python -m rclib.reports.readme` replaces what stands between each pair of markers; a test checks
that the committed README is current. The links to Binder and Colab take the address of git's
remote; without a remote the address stays that is there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from rclib import paths
from rclib.files.command import command
from rclib.files.origin import owner_and_name, repository_address
from rclib.reports.findings import finding_lines
from rclib.reports.replication import table_row
from rclib.reports.sections import rewrite, with_section
from rclib.reports.series import verdict_counts
from rclib.study.papers import Papers, Run, committed_runs, load_papers

__all__ = ["NOWHERE", "current", "main", "open_links", "series_table"]

NOWHERE = "OWNER/NAME"
FIRST = "11_figure_4_1_heat_maps"  # the notebook that Colab opens with


def series_table(papers: Papers, runs: Mapping[str, Run]) -> str:
    """Markdown: one row a series, its page, number of notebooks, minutes and verdicts."""
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
    return "\n".join(lines)


def open_links(place: str) -> str:
    """Markdown: where the notebooks run without an installation; place is OWNER/NAME at GitHub."""
    binder = f"https://mybinder.org/v2/gh/{place}/HEAD?labpath=notebooks"
    colab = f"https://colab.research.google.com/github/{place}/blob/HEAD/notebooks/{FIRST}.ipynb"
    if place == NOWHERE:  # no links that lead nowhere
        return f"Without an installation: Binder (`{binder}`) or Colab (`{colab}`)."
    return f"Without an installation: [Binder]({binder}) or [Colab]({colab})."


def current(text: str, papers: Papers, runs: Mapping[str, Run], *, address: str = "") -> str:
    """The README as it should be.

    address : of the repository; "" leaves the one that the text has.
    """
    known = re.search(r"mybinder\.org/v2/gh/([\w.-]+/[\w.-]+)/HEAD", text)
    place = owner_and_name(address) or (known[1] if known else NOWHERE)
    text = with_section(text, "findings", finding_lines(papers, runs))
    text = with_section(text, "figures", series_table(papers, runs))
    return with_section(text, "open", open_links(place))


@command()
def main() -> int:
    """Rewrite the README's sections from the committed results and git's remote."""
    address = repository_address(paths.project_root())
    return rewrite(
        "README.md",
        lambda text: current(text, load_papers(), committed_runs(), address=address),
    )


if __name__ == "__main__":
    sys.exit(main())
