"""replication.md and codecheck.yml, written from the results files.

`python -m rclib.reports.replication` makes both: one line a claim with its criterion, value and
verdict, what each paper holds and where it is replicated, deviations with their reasons, how each
notebook was run; and the manifest of outputs that a CODECHECK (https://codecheck.org.uk) starts
from. What the papers hold is in the files of
`rclib/study/papers`; every number comes from the committed results. A test checks that the
committed files are current.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.terminal import note, report
from rclib.study.claims import VERDICTS
from rclib.study.findings import measured
from rclib.study.multiplicity import corrected
from rclib.study.papers import Item, Paper, Papers, Record, Run, committed_runs, load_papers
from rclib.study.results import tally
from rclib.study.seeds import load_stability, sentence
from rclib.study.sequential import RULE, adjusted_mark, restated_place, total_text
from rclib.study.wording import plain_note

__all__ = [
    "codecheck",
    "deviations",
    "main",
    "notebook_link",
    "replication",
    "table_row",
]

_RECORDS = "rclib/experiments/mean_field/records/figure_4_5"
_FILES = (
    ("png", "figure"),
    ("pdf", "figure"),
    ("csv", "data behind it"),
    ("json.xz", "what it was drawn from"),
)
_HIDDEN = {"profile", "dataset", "seeds"}  # parameters that stand elsewhere in the row


def deviations(
    run: Run, papers: Papers, runs: Mapping[str, Run] | None = None
) -> list[tuple[Record, str]]:
    """Claims that were not reproduced, each with its reason ("" if none is written down).

    runs : all of them, for claims that another notebook restates."""
    found = []
    name = run.record["notebook"]
    every = {name: run, **(runs or {})}
    rows = [{**c, "notebook": n} for n, one in every.items() for c in one.record["claims"]]
    again = [row for row in rows if row["restates"]]
    for claim in run.record["claims"]:
        if claim["verdict"] != "reproduced":
            reason = papers.reason(run.record["notebook"], claim["key"])
            if not reason and claim["verdict"] == "undecided":
                reason = "Its interval straddles the criterion"
                reason += f" ({claim['repeats']} repeats)." if claim["repeats"] > 1 else "."
            if not reason and claim["verdict"] == "not testable here":
                reason = plain_note(claim["note"]) + _smaller(run, claim)
            for other in again:
                if restated_place(other) == (name, claim["key"]):
                    there = other["notebook"]
                    where = "beside it" if there == name else f"in {notebook_link(every[there])}"
                    reason += f" Restated {where}: {other['statement']}, {other['criterion']}: "
                    reason += f"{measured(other)}{adjusted_mark(other)}, {other['verdict']}."
            found.append((claim, reason))
    return found


def replication(papers: Papers, runs: Mapping[str, Run]) -> str:
    """The text of replication.md: a score, one line a claim, deviations, how each was run."""
    lines = [
        "# What was replicated, claim by claim",
        "",
        "Written by `python -m rclib.reports.replication` from the committed results and from",
        "`rclib/study/papers`; do not edit. [How to read a verdict](docs/verdicts.md) says what",
        "the columns mean, [the glossary](docs/glossary.md) what the terms mean. Criteria stand in",
        "a notebook before it computes anything; what was known when they were written is under",
        "[limits](docs/limits.md). Values have 95 percent intervals over repeats.",
        "",
        *_scores(papers, runs),
        "",
        str(corrected(c for run in runs.values() for c in run.record["claims"])),
    ]
    every = [{**c, "notebook": name} for name, run in runs.items() for c in run.record["claims"]]
    said = total_text([claim for claim in every if claim["notebook"][0] in "12"])
    lines += ["", f"Series 1 and 2: {said}.", "", RULE] if said else ["", RULE]
    seeds = load_stability("quick")
    lines += ["", sentence(seeds)] if seeds else []
    owned: set[tuple[str, str]] = set()
    for paper in papers.papers:
        lines += ["", f"## {_heading(paper)}", ""]
        if paper.finding:
            lines += [f"**Finding.** {' '.join(paper.finding.split())}", ""]
        rows = []
        for item in paper.items:
            run = runs.get(item.notebook)
            claims = [c for c in run.record["claims"] if item.owns(c)] if run else []
            owned |= {(item.notebook, claim["key"]) for claim in claims}
            label = paper.id if len(paper.id) == 1 else paper.short
            rows += [_claim_row(run, claim, item, label) for claim in claims if run]
        lines += [*_CLAIMS, *rows, ""] if rows else []
        lines += _items(paper, runs)
        for name, text in paper.simplified.items():
            lines += ["", f"*Smaller or simpler than in the paper* ({name}): {text}"]
    beyond = [
        _claim_row(run, claim)
        for name, run in runs.items()
        for claim in run.record["claims"]
        if (name, claim["key"]) not in owned
    ]
    lines += ["", "## Beyond the papers", "", *_CLAIMS, *beyond]
    lines += ["", "## Deviations and their reasons", ""]
    lines += ["What the words under *origin* mean stands in"]
    lines += ["[whose a failed claim is](docs/verdicts.md#whose-a-failed-claim-is).", ""]
    lines += ["| notebook | statement | verdict | origin | reason |", "|---|---|---|---|---|"]
    for run in runs.values():
        for claim, reason in deviations(run, papers, runs):
            origin = papers.origin(run.record["notebook"], claim["key"])
            cells = [notebook_link(run), claim["statement"], claim["verdict"], origin]
            lines.append(table_row([*cells, reason or "No reason is known yet."]))
    lines += ["", "## How each notebook was run", ""]
    lines += ["Minutes are those of the training runs on one core.", ""]
    lines += ["| notebook | profile | data | parameters | seeds | minutes | machine | versions |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [table_row(_how(run)) for run in runs.values()]
    return "\n".join(lines) + "\n"


_CLAIMS = [
    "| paper | statement | criterion | value | verdict | notebook |",
    "|---|---|---|---|---|---|",
]


def _scores(papers: Papers, runs: Mapping[str, Run]) -> list[str]:
    """A table: one row a paper with its claims by verdict, and the claims of none."""
    rest = [(name, c["key"]) for name, run in runs.items() for c in run.record["claims"]]
    verdicts = {
        (name, c["key"]): c["verdict"] for name, run in runs.items() for c in run.record["claims"]
    }
    lines = [f"| paper | claims | {' | '.join(VERDICTS)} |", "|---" * (2 + len(VERDICTS)) + "|"]

    def line(name: str, keys: Sequence[tuple[str, str]]) -> None:
        counts = tally(verdicts[key] for key in keys)
        cells = [str(counts.get(verdict, "")) for verdict in VERDICTS]
        lines.append(table_row([name, str(len(keys)), *cells]))

    for paper in papers.papers:
        own = [
            (item.notebook, claim["key"])
            for item in paper.items
            if item.notebook in runs
            for claim in runs[item.notebook].record["claims"]
            if item.owns(claim)
        ]
        own = list(dict.fromkeys(own))
        rest = [key for key in rest if key not in own]
        if own:
            line(f"[{paper.short}](#{_anchor(_heading(paper))})", own)
    if rest:
        line("[Beyond the papers](#beyond-the-papers)", rest)
    return lines


def _anchor(heading: str) -> str:
    """The anchor that GitHub and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _heading(paper: Paper) -> str:
    label = f"Paper {paper.id}: " if len(paper.id) == 1 else ""
    return f"{label}{paper.title} ({paper.source})"


def _claim_row(run: Run, claim: Record, item: Item | None = None, label: str = "") -> str:
    """One claim. What belongs to an item is named by it, with the paper's `label`; otherwise the
    claim says where it is from."""
    criterion = f"{claim['quantity']}: {claim['criterion']}"
    source = f"{label}, {item.item}" if item else claim["paper"]
    value = measured(claim) + adjusted_mark(claim)
    cells = [source, claim["statement"], criterion, value, claim["verdict"]]
    name = run.record["notebook"]
    return table_row([*cells, f"[{name[:2]}](notebooks/{name}.ipynb)"])


def _items(paper: Paper, runs: Mapping[str, Run]) -> list[str]:
    """A table of what the paper holds: what is seen there, where it is replicated, what the
    sources leave open."""
    lines = ["| item | the paper shows | replicated by | left open by the paper |"]
    lines += ["|---|---|---|---|"]
    for item in paper.items:
        if not item.notebook:
            tests = "<br>".join(f"`{test.partition('::')[2]}`" for test in item.tests)
            code = ", ".join(f"`{path.strip()}`" for path in item.code.split(","))
            where = f"{code}: {item.verdict}<br>{tests}"
        elif item.notebook in runs:
            where = notebook_link(runs[item.notebook])
        else:
            where = f"notebook {item.notebook}: no results beyond the quick profile yet"
        lines.append(table_row([item.item, item.shows, where, item.open]))
    return lines


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


def _how(run: Run) -> list[str]:
    """Profile, data, parameters, seeds, minutes and machine of a notebook."""
    record = run.record
    parameters = record["parameters"]
    scale = ", ".join(f"{k} {_plain(v)}" for k, v in parameters.items() if k not in _HIDDEN)
    seeds = parameters.get("seeds")
    return [
        notebook_link(run),
        run.profile,
        record["data"]["description"],
        scale,
        str(len(seeds)) if isinstance(seeds, list) else "",
        f"{record['core_seconds'] / 60:.1f}",
        *_machine(record["environment"]),
    ]


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
            for kind, what in _FILES:
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
        note(f"error: {error}")
        return 2
    for name, text in (
        ("replication.md", replication(papers, runs)),
        ("codecheck.yml", codecheck(papers, runs)),
    ):
        path = paths.project_root() / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            report(f"{name} is current")
        else:
            write_atomically(path, text.encode())
            report(f"{name} updated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
