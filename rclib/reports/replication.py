"""replication.md and codecheck.yml, written from the results files.

`python -m rclib.reports.replication` makes both: a table of every figure, table, algorithm and
example of the two papers with what was run and measured for it, and the manifest of outputs that a
CODECHECK (https://codecheck.org.uk) starts from. What the papers hold is in the files of
`rclib/study/papers`; every number comes from the committed results. A test checks that the
committed files are current.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.study.multiplicity import corrected
from rclib.study.papers import Item, Paper, Papers, Record, Run, committed_runs, load_papers
from rclib.study.results import tally

__all__ = [
    "codecheck",
    "deviations",
    "main",
    "measured",
    "notebook_link",
    "replication",
    "table_row",
]

_RECORDS = "rclib/experiments/mean_field/records/figure_4_5"
_HIDDEN = {"profile", "dataset", "seeds"}  # parameters that stand elsewhere in the row


def deviations(run: Run, papers: Papers) -> list[tuple[Record, str]]:
    """Claims that were not reproduced, each with its reason ("" if none is written down)."""
    found = []
    for claim in run.record["claims"]:
        if claim["verdict"] != "reproduced":
            reason = papers.reason(run.record["notebook"], claim["key"])
            if not reason and claim["verdict"] == "undecided":
                reason = "Its interval straddles the criterion"
                reason += f" ({claim['repeats']} repeats)." if claim["repeats"] > 1 else "."
            if not reason and claim["verdict"] == "not testable here":
                reason = claim["note"] + _smaller(run, claim)
            found.append((claim, reason))
    return found


def replication(papers: Papers, runs: Mapping[str, Run]) -> str:
    """The text of replication.md."""
    lines = [
        "# What was replicated, item by item",
        "",
        "Written by `python -m rclib.reports.replication` from the committed results and from the",
        "files in `rclib/study/papers`; do not edit. A notebook declares its criteria before it",
        "computes anything; what was known when they were written stands in the README under",
        "*Limits*. A claim is *reproduced* when its whole interval meets the criterion, *not",
        "reproduced* when no part does, *undecided* when the interval straddles it. Minutes are",
        "those of the training runs on one core.",
    ]
    lines += ["", str(corrected(c for run in runs.values() for c in run.record["claims"]))]
    owned: set[tuple[str, str]] = set()
    for paper in papers.papers:
        lines += ["", f"## {_heading(paper)}", ""]
        if paper.finding:
            lines += [f"**Finding.** {' '.join(paper.finding.split())}", ""]
        for name, text in paper.simplified.items():
            lines += [f"*Smaller or simpler than in the paper* ({name}): {text}", ""]
        lines += ["| item | the paper shows | what was run | measured against stated | verdict |"]
        lines += ["|---|---|---|---|---|"]
        for item in paper.items:
            run = runs.get(item.notebook)
            claims = [c for c in run.record["claims"] if item.owns(c)] if run else []
            owned |= {(item.notebook, claim["key"]) for claim in claims}
            lines.append(_row(item, run, claims))
    beyond = [
        (run, [c for c in run.record["claims"] if (name, c["key"]) not in owned])
        for name, run in runs.items()
    ]
    lines += ["", "## Beyond the papers", ""]
    lines += [
        "| notebook | what was run | measured against stated | verdict |",
        "|---|---|---|---|",
    ]
    for run, claims in beyond:
        if claims:
            cells = [notebook_link(run), _what(run), _measured(claims), _verdict(claims)]
            lines.append(table_row(cells))
    lines += ["", "## Deviations and their reasons", ""]
    lines += ["| notebook | statement | criterion | measured | verdict | reason |"]
    lines += ["|---|---|---|---|---|---|"]
    for run in runs.values():
        for claim, reason in deviations(run, papers):
            cells = [notebook_link(run), claim["statement"], claim["criterion"], measured(claim)]
            lines.append(table_row([*cells, claim["verdict"], reason or "No reason is known yet."]))
    lines += ["", "## Machines", "", "| notebook | profile | machine | versions |"]
    lines += ["|---|---|---|---|"]
    for run in runs.values():
        cells = [notebook_link(run), run.profile, *_machine(run.record["environment"])]
        lines.append(table_row(cells))
    return "\n".join(lines) + "\n"


def _heading(paper: Paper) -> str:
    label = f"Paper {paper.id}: " if len(paper.id) == 1 else ""
    return f"{label}{paper.title} ({paper.source})"


def _row(item: Item, run: Run | None, claims: Sequence[Record]) -> str:
    left_open = f"<br>*Left open*: {item.open}" if item.open else ""
    if not item.notebook:
        tests = "<br>".join(f"`{test.partition('::')[2]}`" for test in item.tests)
        done = f"code: {', '.join(f'`{path.strip()}`' for path in item.code.split(','))}"
        cells = [item.item, item.shows + left_open, done, tests, item.verdict]
    elif run is None:
        where = f"notebook {item.notebook}: no results beyond the quick profile yet"
        cells = [item.item, item.shows + left_open, where, "", "not run yet"]
    else:
        cells = [item.item, item.shows + left_open, _what(run), _measured(claims), _verdict(claims)]
    return table_row(cells)


def table_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table; a bar inside of a cell would end it."""
    return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"


def notebook_link(run: Run, up: str = "") -> str:
    """A link to a run's notebook; `up` leads from the page to the top of the repository."""
    name = run.record["notebook"]
    return f"[{name}]({up}notebooks/{name}.ipynb)"


def _smaller(run: Run, claim: Record) -> str:
    """What a smaller scale says of a claim that the largest cannot test; "" if nothing."""
    if claim["key"] not in run.smaller:
        return ""
    profile, there = run.smaller[claim["key"]]
    return f" (at the {profile} profile: {measured(there)}, {there['verdict']})"


def measured(claim: Record) -> str:
    """A claim's value with its interval, e.g. "0.41 [0.39, 0.43]"."""
    if claim["value"] is None:
        return "not measured"
    return f"{claim['value']:.3g} [{claim['low']:.3g}, {claim['high']:.3g}]"


def _measured(claims: Sequence[Record]) -> str:
    return "<br>".join(f"{c['statement']}: {measured(c)}, stated {c['criterion']}" for c in claims)


def _verdict(claims: Sequence[Record]) -> str:
    counts = tally(claim["verdict"] for claim in claims)
    return "<br>".join(f"{count} {verdict}" for verdict, count in counts.items()) or "no claim"


def _what(run: Run) -> str:
    """Data, scale, seeds, minutes; the machine stands in a table of its own."""
    record = run.record
    parameters = record["parameters"]
    scale = ", ".join(f"{k} {_plain(v)}" for k, v in parameters.items() if k not in _HIDDEN)
    seeds = parameters.get("seeds")
    repeats = f"; {len(seeds)} seeds" if isinstance(seeds, list) else ""
    return (
        f"{notebook_link(run)}, {run.profile} profile: {record['data']['description']}; "
        f"{scale}{repeats}; {record['core_seconds'] / 60:.1f} min on one core"
    )


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "{" + ", ".join(_plain(v) for v in value) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _machine(environment: Record) -> tuple[str, str]:
    device = environment.get("gpu") or environment.get("device")
    machine = f"{environment['system']} {environment['machine']}, {environment['cores']} cores"
    versions = [f"{k} {environment[k]}" for k in ("python", "torch", "numpy", "commit")]
    return machine + (f", {device}" if device else ""), ", ".join(versions)


def codecheck(papers: Papers, runs: Mapping[str, Run]) -> str:
    """The text of codecheck.yml: the outputs that somebody else should be able to make."""
    titles = papers.figure_titles()
    lines = [
        "# Written by `python -m rclib.reports.replication`; do not edit.",
        "# To check: `make figures PROFILE=<profile>` writes every file below anew.",
        "---",
        "version: https://codecheck.org.uk/spec/config/1.0/",
        "paper:",
        "  title: Row-column structure and heavy tails, a replication of two papers",
        "  authors:",
        "    - name: The rclib authors",
        "manifest:",
    ]
    for run in runs.values():
        name, folder = run.record["notebook"], paths.project_root()
        results = f"results/{run.profile}/{name}.json"
        lines += [f"  - file: {results}", f'    comment: "{_quoted(run.record["title"])}: numbers"']
        for figure in run.record["figures"]:
            title = _quoted(titles.get((name, figure["name"]), str(run.record["title"])))
            for kind, what in (("png", "figure"), ("pdf", "figure"), ("csv", "data behind it")):
                file = f"figures/{run.profile}/{name}/{figure['name']}.{kind}"
                if (folder / file).is_file():
                    lines += [f"  - file: {file}", f'    comment: "{title}: {what}"']
    lines += _records()
    return "\n".join(lines) + "\n"


def _records() -> list[str]:
    """Entries of the runs that were computed elsewhere and came in as data."""
    from rclib.experiments.mean_field import lm_records  # loads torch, which the table needs not

    lines = []
    for run in lm_records.load_records(**lm_records.PAPER):
        file = f"{_RECORDS}/{lm_records.record_name(*run.key[1:])}"
        if (paths.project_root() / file).is_file():
            made = ", ".join(run.origin[name] for name in ("device", "precision", "computed"))
            what = f"run of Figure 4.5, N = {run.key[1]}, input computed elsewhere: {made}, "
            what += f"torch {run.origin['torch']}; {run.origin['note']}"
            lines += [f"  - file: {file}", f'    comment: "{_quoted(what)}"']
    return lines


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@command()
def main() -> int:
    """Rewrite replication.md and codecheck.yml."""
    try:
        papers, runs = load_papers(), committed_runs()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, text in (
        ("replication.md", replication(papers, runs)),
        ("codecheck.yml", codecheck(papers, runs)),
    ):
        path = paths.project_root() / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            print(f"{name} is current")
        else:
            write_atomically(path, text.encode())
            print(f"{name} updated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
