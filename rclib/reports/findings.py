"""docs/findings.md, and the lines of the README, from `rclib/study/papers/findings.yaml`.

At the end of the page stands whose the claims are that were not reproduced (`rclib.study.origins`).

`python -m rclib.reports.findings` writes the page; a test checks that the committed one is current.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.terminal import note, report
from rclib.reports.replication import notebook_link, table_row
from rclib.study.findings import MOST, Told, measured, told
from rclib.study.origins import ORIGINS
from rclib.study.papers import Papers, Run, committed_runs, load_papers
from rclib.study.sequential import adjusted_mark

__all__ = ["finding_lines", "findings_of", "findings_page", "main", "origin_lines"]


def findings_of(papers: Papers, runs: Mapping[str, Run]) -> tuple[Told, ...]:
    """The findings that the committed results bear out."""
    return told(papers.findings, {name: run.record for name, run in runs.items()})


def finding_lines(papers: Papers, runs: Mapping[str, Run]) -> str:
    """Markdown: the first findings, one line each, with links; what contradicts a paper first."""
    lines = []
    for one in findings_of(papers, runs)[:MOST]:
        against = f" *Contradicts {_paper(one, papers)}.*" if one.finding.contradicts else ""
        lines.append(f"- **{one.title}** {one.text}{against} ({_links(one, runs, '')})")
    return "\n".join(lines)


def findings_page(papers: Papers, runs: Mapping[str, Run]) -> str:
    """The text of docs/findings.md: every finding with the claims that it stands on."""
    lines = ["# What was found that was not known", ""]
    lines += ["*Written by `python -m rclib.reports.findings` from the committed results; do not"]
    lines += ["edit.* What contradicts a paper stands first. A finding is told while every claim"]
    lines += ["below it comes out with the verdict that it stands on, and left out otherwise."]
    for one in findings_of(papers, runs):
        against = f" This contradicts {_paper(one, papers)}." if one.finding.contradicts else ""
        lines += ["", f"## {one.title.rstrip('.')}", ""]
        lines += [f"{one.text}{against}"]
        lines += ["", f"See {_links(one, runs, '../')}.", ""]
        lines += ["| claim | quantity | criterion | value | verdict |", "|---|---|---|---|---|"]
        for _, claim in one.evidence:
            value = measured(claim) + adjusted_mark(claim)
            cells = [claim["statement"], claim["quantity"], claim["criterion"], value]
            lines.append(table_row([*cells, claim["verdict"]]))
    return "\n".join([*lines, *origin_lines(papers, runs)]) + "\n"


def origin_lines(papers: Papers, runs: Mapping[str, Run]) -> list[str]:
    """Markdown: claims that were not reproduced, by series and by whose it is; none, no lines."""
    columns = [*ORIGINS, "not judged"]
    rows = []
    for series in papers.series:
        counts = Counter(
            papers.origin(name, claim["key"]) or "not judged"
            for name, run in runs.items()
            if series.holds(name)
            for claim in run.record["claims"]
            if claim["verdict"] == "not reproduced"
        )
        if counts:
            rows.append((f"[{series.digit}: {series.title}](series/{series.digit}.md)", counts))
    if not rows:
        return []
    rows.append(("all", sum((counts for _, counts in rows), Counter())))
    lines = ["", "## Whose the claims are that were not reproduced", ""]
    lines += ["What the words mean, and how they were given, is under"]
    lines += ["[How to read a verdict](verdicts.md#whose-a-failed-claim-is).", ""]
    lines += [table_row(["series", "claims", *columns]), "|---" * (2 + len(columns)) + "|"]
    for name, counts in rows:
        cells = [str(counts[word] or "") for word in columns]
        lines.append(table_row([name, str(counts.total()), *cells]))
    return lines


def _paper(one: Told, papers: Papers) -> str:
    """What the paper that a finding contradicts is called: by its letter, or its arXiv number."""
    known = {p.id: re.split("[;(]", p.source)[0].strip() for p in papers.papers if len(p.id) > 1}
    return known.get(one.finding.contradicts, f"paper {one.finding.contradicts}")


def _links(one: Told, runs: Mapping[str, Run], up: str) -> str:
    """The notebooks, and the figure of the first one."""
    names = dict.fromkeys(notebook for notebook, _ in one.evidence)
    links = [notebook_link(runs[name], up) for name in names]
    if one.finding.figure:
        run = runs[one.notebook]
        path = f"{up}figures/{run.profile}/{one.notebook}/{one.finding.figure}.png"
        links.append(f"[figure]({path})")
    return ", ".join(links)


@command()
def main() -> int:
    """Rewrite docs/findings.md."""
    try:
        text = findings_page(load_papers(), committed_runs())
    except ValueError as error:
        note(f"error: {error}")
        return 2
    path = paths.project_root() / "docs" / "findings.md"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        report("docs/findings.md is current")
    else:
        write_atomically(path, text.encode())
        report("docs/findings.md updated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
