"""Reads the results files into a `Gallery`.

A results file, stability file or figure that is not as it should be is named in the gallery's
`problems` and left out; all others are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rclib import paths
from rclib.site.content import (
    BEYOND,
    KEPT,
    KINDS,
    ClaimRow,
    Figure,
    Gallery,
    Notebook,
    Outcome,
    Variant,
    leading_first,
    paper_of_claim,
)
from rclib.study.papers import Papers, load_papers
from rclib.study.results import read_results, read_times, times_path
from rclib.study.seeds import seed_shares
from rclib.study.sequential import rule_text

__all__ = ["load_gallery"]

# The end that `rclib.study.study.Study.save_figure` adds to a caption.
_DATA_NOTE = re.compile(r"\s*Data: .*; profile: \w+\.$", re.DOTALL)

Record = Mapping[str, Any]


def load_gallery() -> Gallery:
    """Everything that the results files of all profiles hold.

    Raises ValueError when the files of the papers, which are part of the library, are not valid.
    """
    papers = load_papers()
    problems: list[str] = []
    profiles = leading_first(paths.PROFILES)
    records = {profile: _records(profile, problems) for profile in profiles}
    by_notebook: dict[str, dict[str, Record]] = {}
    for profile, found in records.items():
        for record in found:
            by_notebook.setdefault(record["notebook"], {})[profile] = record
    notebooks = tuple(
        Notebook(name, lead["title"], _paper(lead, papers), kinds)
        for name, kinds in sorted(by_notebook.items())
        for lead in [next(iter(kinds.values()))]
    )
    shares = {profile: _shares(profile, found, problems) for profile, found in records.items()}
    titles, labels = papers.figure_titles(), papers.figure_items()
    return Gallery(
        notebooks=notebooks,
        figures=tuple(
            Figure(
                name=name,
                notebook=notebook,
                title=titles.get((notebook.name, name), _plain(name)),
                label=labels.get((notebook.name, name), notebook.label),
                variants=variants,
                own=own,
                owner=owner,
            )
            for notebook in notebooks
            for name, variants in _variants(notebook, problems).items()
            for own, owner in [_own(notebook, name, papers)]
        ),
        claims=tuple(row for notebook in notebooks for row in _claims(notebook, papers, shares)),
        profiles=tuple(profile for profile in profiles if records[profile]),
        missing=tuple(profile for profile in profiles if not records[profile]),
        papers=papers,
        problems=tuple(problems),
    )


def _records(profile: str, problems: list[str]) -> list[Record]:
    """The results files of a profile that can be read, each with its times (zero where unknown)."""
    found: list[Record] = []
    for path in sorted(paths.results_dir(profile).glob("[0-9]*.json")):
        try:
            times = times_path(path)
            known = read_times(times) if times.is_file() else {"core_seconds": 0.0, "seconds": 0.0}
            found.append(known | read_results(path))
        except ValueError as error:
            problems.append(str(error))
    return found


def _paper(record: Record, papers: Papers) -> str:
    """The paper of a notebook: the one whose items name it, else its study's, else its claims'."""
    for paper in papers.papers:
        if any(item.notebook == record["notebook"] for item in paper.items):
            return paper.id
    known = [paper.id for paper in papers.papers]
    if record["paper"] in known:
        return str(record["paper"])
    named = [paper_of_claim(claim["paper"], BEYOND, known) for claim in record["claims"]]
    return next((key for key in known if key in named), BEYOND)


def _plain(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _own(notebook: Notebook, name: str, papers: Papers) -> tuple[tuple[str, ...], str]:
    """Keys of the claims that can be read off a figure, and whose they are: where no paper says,
    those of the items that it stands for, or stands beside."""
    shown = papers.claims_shown(notebook.name, name)
    if shown is not None:
        return shown, ""
    claims = [claim for record in notebook.records.values() for claim in record["claims"]]
    items = [i for i in papers if i.notebook == notebook.name and name in {**i.figures, **i.beside}]
    keys = tuple({claim["key"]: None for item in items for claim in claims if item.owns(claim)})
    return keys, ", ".join(item.item for item in items)


def _variants(notebook: Notebook, problems: list[str]) -> dict[str, dict[str, Variant]]:
    """Figure -> profile -> variant, of those whose files are there."""
    found: dict[str, dict[str, Variant]] = {}
    for profile, record in notebook.records.items():
        for figure in record["figures"]:
            name = figure["name"]
            folder = paths.figures_dir(profile, notebook.name)
            files = {kind: folder / f"{name}.{kind}" for kind in KINDS}
            gone = next((path for path in files.values() if not path.is_file()), None)
            if gone:
                problems.append(
                    f"figure {gone} is missing, but the results of {notebook.name} name it; "
                    f"run `make figures PROFILE={profile}`"
                )
                continue
            if (kept := folder / f"{name}.{KEPT}").is_file():
                files[KEPT] = kept
            # What a link leads to may be any file of this machine: the site would publish it.
            link = next((path for path in (folder, *files.values()) if path.is_symlink()), None)
            if link:
                problems.append(f"figure {link} is refused: it is a link, not a file")
                continue
            caption = _DATA_NOTE.sub("", figure["caption"])
            found.setdefault(name, {})[profile] = Variant(profile, caption, files, record)
    return found


def _shares(
    profile: str, records: Sequence[Record], problems: list[str]
) -> dict[tuple[str, str], str]:
    """(notebook, key of a claim) -> in how many sets of seeds its verdict came out, "9/10"."""
    pairs = [(record["notebook"], claim) for record in records for claim in record["claims"]]
    shares = seed_shares(profile, pairs, problems)
    return {(n, c["key"]): share for (n, c), share in zip(pairs, shares, strict=True)}


def _owner(notebook: Notebook, claim: Mapping[str, Any], papers: Papers) -> str:
    """The paper one of whose items has this claim, as in replication.md, or BEYOND: a control of
    ours is none of the paper's claims."""
    for paper in papers.papers:
        if any(item.notebook == notebook.name and item.owns(claim) for item in paper.items):
            return paper.id
    return BEYOND


def _claims(
    notebook: Notebook, papers: Papers, shares: Mapping[str, Mapping[tuple[str, str], str]]
) -> list[ClaimRow]:
    known = [paper.id for paper in papers.papers]
    by_key: dict[str, dict[str, Record]] = {}
    for profile, record in notebook.records.items():
        for claim in record["claims"]:
            by_key.setdefault(claim["key"], {})[profile] = claim
    rows = []
    for key, by_profile in by_key.items():
        lead = next(iter(by_profile.values()))
        outcomes = {
            profile: Outcome(
                verdict=c["verdict"],
                value=c["value"],
                low=c["low"],
                high=c["high"],
                repeats=int(c["repeats"]),
                note="; ".join(part for part in (rule_text(c), c["note"]) if part),
                seeds=shares[profile].get((notebook.name, key), ""),
            )
            for profile, c in by_profile.items()
        }
        rows.append(
            ClaimRow(
                notebook=notebook.name,
                key=key,
                source=lead["paper"],
                paper=paper_of_claim(lead["paper"], _owner(notebook, lead, papers), known),
                statement=lead["statement"],
                quantity=lead["quantity"],
                criterion=lead["criterion"],
                outcomes=outcomes,
                item=lead["item"],
                control=lead["control"],
                seen=_seen(lead),
            )
        )
    return rows


def _seen(claim: Record) -> str:
    """What a claim says whose criterion was written after somebody had seen a value."""
    if claim["blind"]:
        return ""
    seeds = ", ".join(map(str, claim["seen_on"] or ()))
    return f"criterion set after seeds {seeds} were seen" if seeds else "criterion set afterwards"
